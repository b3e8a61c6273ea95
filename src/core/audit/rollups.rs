//! Compares hour rows and day rows with the counts of the log.
//!
//! The comparison includes only hours and days that end at or before [`Scope::rolled_until_ms`](super::Scope), because
//! their windows were final when the comparison began. Hour rows and day rows have no fences, so each row must count
//! every event below the claim. If a row seems to differ from the log, the caller reads the row again before it reports
//! a difference. An hour row or day row cannot be compared if one of its windows counts records that are no longer in
//! the log. A row that counts all cities must always equal the sum of the rows of the individual cities.

use super::judge::{Incomparable, Mismatch, RowVerdict};
use super::{At, AuditName, AuditRow, Counts, FoundRow, Key, Lateness, Slice, SliceEntry};
use crate::clock::UnixMs;
use crate::event::Event;
use crate::rollup::Grain;

/// The counts of each hour of a day, by [`Severity::index`](crate::event::Severity::index).
pub type HourCounts = [[i64; 4]; 24];

impl Key {
    /// Returns the key of the hour row or day row of a series. An empty `city` stands for all cities. No city has an
    /// empty name.
    pub fn rollup(city: &str, event_type: &str, grain: Grain, start_ms: UnixMs) -> Key {
        let name = match grain {
            Grain::Hour => AuditName::Hour(event_type.into()),
            Grain::Day => AuditName::Day(event_type.into()),
        };
        let place = super::RowPlace::new(city, start_ms);
        Key { place, name }
    }

    /// Returns the grain and the event type of an hour row or day row, or `None` for other rows.
    pub fn grain(&self) -> Option<(Grain, &str)> {
        match &self.name {
            AuditName::Hour(kind) => Some((Grain::Hour, kind)),
            AuditName::Day(kind) => Some((Grain::Day, kind)),
            AuditName::Totals(_)
            | AuditName::Window(_)
            | AuditName::Raw(_)
            | AuditName::Alert(_) => None,
        }
    }

    /// Returns the keys of the window rows that an hour row or day row sums.
    pub fn windows(&self, window_ms: i64) -> Vec<Key> {
        let Some((grain, kind)) = self.grain() else {
            return Vec::new();
        };
        let (city, from_ms) = (self.place.city(), self.place.time_ms);
        let count = grain.length_ms() / window_ms.max(1);
        let start = |n: i64| Key::window(city, kind, from_ms + n * window_ms);
        (0..count).map(start).collect()
    }
}

/// The reason why an hour row or day row is not compared with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// The row cannot be compared for the given reason.
    Cannot(Incomparable),
    /// The row counts all cities, and equals the sum of the rows of the individual cities.
    IsSum,
}

impl Slice {
    /// Counts an event in the hour rows and day rows that it belongs to.
    pub(super) fn roll_up(&mut self, event: &Event, at: At) {
        if at.late == Lateness::Late {
            return;
        }
        let hour = event.time_ms.0.rem_euclid(Grain::Day.length_ms()) / Grain::Hour.length_ms();
        let hour = usize::try_from(hour).unwrap_or_default();
        for grain in Grain::ALL {
            let length_ms = grain.length_ms();
            let start_ms = event.time_ms - event.time_ms.0.rem_euclid(length_ms);
            let end_ms = start_ms + length_ms;
            let (from_ms, until_ms) = self.scope.range;
            if end_ms > self.scope.rolled_until_ms || start_ms < from_ms || end_ms > until_ms {
                continue;
            }
            for city in ["", &event.city] {
                let key = Key::rollup(city, &event.event_type, grain, start_ms);
                if self.count(key.clone(), event, at)
                    && grain == Grain::Day
                    && let Some(SliceEntry::Row(row)) = self.entries.get_mut(&key)
                {
                    let hours = row.hours.get_or_insert_default();
                    hours[hour][event.severity.index()] += 1;
                }
            }
        }
    }

    /// If a window row cannot be compared, also excludes the rows of its hour and of its day from the comparison.
    pub(super) fn excuse_rollups_of(&mut self, window: &Key, found: &FoundRow) {
        let AuditName::Window(kind) = &window.name else {
            return;
        };
        let Some(reason) = self.cannot_compare(found) else {
            return;
        };
        for grain in Grain::ALL {
            let time_ms = window.place.time_ms;
            let start_ms = time_ms - time_ms.0.rem_euclid(grain.length_ms());
            let key = Key::rollup(window.place.city(), kind, grain, start_ms);
            self.excuse_rollup(&key, Excuse::Cannot(reason));
        }
    }

    fn excuse_rollup(&mut self, key: &Key, excuse: Excuse) {
        if let Some(SliceEntry::Row(row)) = self.entries.get_mut(key) {
            row.excuse = Some(excuse);
        }
    }

    /// Returns the keys of *suspects*: hour rows and day rows that seem to differ from the log. Returns at most `max`
    /// keys in ascending order, beginning after the key `after`. The caller first reads each suspect again by key
    /// ([`Slice::look_at_rollup`]). If the suspect still seems to differ from the log, the caller reads the rows that
    /// should add up to it ([`Slice::look_at_windows`], [`Slice::look_at_series`]).
    pub fn suspect_rollups(&self, after: Option<&Key>, max: usize) -> Vec<Key> {
        self.keys(after, max, is_suspect)
    }

    /// Replaces the content of an hour row or day row with `found`, the current content in the table. Returns true if
    /// the row still seems to differ from the log. The slice may lack a row that exists, because the caller finds hour
    /// rows and day rows only through the totals rows of their series.
    pub fn look_at_rollup(&mut self, key: &Key, found: Option<FoundRow>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if let (SliceEntry::Row(row), Some(found)) = (&mut *entry, found) {
            row.found = Some(found);
        }
        is_suspect(key, entry)
    }

    /// Checks the window rows that an hour row or day row sums. If one of the window rows cannot be compared with the
    /// log, the hour row or day row cannot be compared either.
    pub fn look_at_windows<'a>(&mut self, key: &Key, windows: impl Iterator<Item = &'a FoundRow>) {
        let mut reasons = windows.filter_map(|found| self.cannot_compare(found));
        if let Some(reason) = reasons.next() {
            self.excuse_rollup(key, Excuse::Cannot(reason));
        }
    }

    /// Compares a row that counts all cities with the sum of the rows of the individual cities in the same hour or day.
    pub fn look_at_series<'a>(&mut self, key: &Key, series: impl Iterator<Item = &'a FoundRow>) {
        let (mut counts, mut hours) = (Counts::default(), HourCounts::default());
        for row in series {
            counts.event_count += row.counts.event_count;
            add(&mut counts.severities, &row.counts.severities);
            for (sum, hour) in hours.iter_mut().zip(row.hours.iter().flat_map(|h| &**h)) {
                add(sum, hour);
            }
        }
        let Some(SliceEntry::Row(row)) = self.entries.get(key) else {
            return;
        };
        let Some(found) = row.found.clone() else {
            return;
        };
        if found.odd.is_none()
            && found.counts == counts
            && found.hours.unwrap_or_default() == hours.into()
        {
            self.excuse_rollup(key, Excuse::IsSum);
        }
    }

    /// Drops all hour rows and day rows from the comparison. The caller drops them if the rollup mark has moved back
    /// during the comparison.
    pub fn forget_rollups(&mut self) {
        self.entries.retain(|key, _| key.grain().is_none());
    }
}

fn is_suspect(key: &Key, entry: &SliceEntry) -> bool {
    match entry {
        SliceEntry::Row(row) if key.grain().is_some() => {
            matches!(row.judge_rollup(), RowVerdict::Differs(..))
        }
        SliceEntry::Row(_) | SliceEntry::Put(_) => false,
    }
}

fn add(sum: &mut [i64; 4], more: &[i64; 4]) {
    sum.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
}

impl AuditRow {
    /// Decides the outcome of an hour row or day row.
    pub(super) fn judge_rollup(&self) -> RowVerdict {
        match self.excuse {
            Some(Excuse::Cannot(reason)) => return RowVerdict::Cannot(reason),
            Some(Excuse::IsSum) => return RowVerdict::Agrees,
            None if self.unsure => return RowVerdict::Cannot(Incomparable::Unclear),
            None => {}
        }
        let is_empty = self.counts == Counts::default();
        let Some(found) = &self.found else {
            let count = self.counts.event_count;
            return match is_empty {
                true => RowVerdict::Nothing,
                false => RowVerdict::Differs(
                    Mismatch::Missing,
                    format!("the log has {count} events of it"),
                ),
            };
        };
        if let Some(odd) = &found.odd {
            return RowVerdict::Differs(Mismatch::Wrong, odd.clone());
        }
        let details = self.disagreements(found);
        if !details.is_empty() {
            let kind = if is_empty {
                Mismatch::Extra
            } else {
                Mismatch::Wrong
            };
            return RowVerdict::Differs(kind, details.join("; "));
        }
        if self.hours != found.hours {
            return RowVerdict::Differs(
                Mismatch::Wrong,
                "its hours are not those of the log".to_owned(),
            );
        }
        RowVerdict::Agrees
    }
}
