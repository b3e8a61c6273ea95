//! Compares the tables with the log, for the `verify` command. The comparison counts the log's events a second time.
//!
//! The comparison shares only the parser and the window arithmetic with the consumer. The comparison has its own code
//! for watermarks, rows, keys and sums, so that it can find errors in the consumer's code.
//!
//! A [`Slice`] is a range of rows, sorted by city and time ([`RowPlace`]). The caller first adds the rows of the tables
//! to the slice ([`Slice::add_row`], [`Slice::add_put`]). Then the caller passes every record of the log to the slice
//! in offset order ([`Slice::take`]). After the last record, [`Slice::outcome`] returns the result of the comparison.
//! If not all rows fit into memory, the slice drops its last rows, and the caller compares the dropped rows with
//! another slice.
//!
//! The comparison is exact even while consumers write to the tables, because it uses fences and claims. The fence of a
//! row says which records of a partition the row counts, so the row must count exactly these records. The *claim* of a
//! partition is an offset from a restart point: a consumer has reported all records below it as stored. The caller
//! reads the claim before the rows, so the rows must count all records below the claim. If a record is above both the
//! fence and the claim, the row does not have to count the record yet.

mod items;
mod judge;
mod key;
mod memory;
mod progress;
mod rollups;
#[cfg(test)]
mod tests;
mod watermark;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::clock::UnixMs;
use crate::event::{Event, Offset, Severity};
use crate::parse::{Body, Reject};
use crate::plan::RawRows;
use crate::window::Rules;

use items::{AuditPut, Want};
pub use judge::{AuditOutcome, Difference, Incomparable, Mismatch, Sums};
pub use key::{AuditName, Key, RowPlace, TOTALS_TIME_MS};
pub use progress::{PROGRESS_ITEM, Published, WrongSums};
pub use rollups::HourCounts;
pub use watermark::{Lateness, Stamp, Watermark};

/// The counts of a row or of a progress item. The counts are signed, because a damaged row can also contain negative
/// numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of events that windows count, without late events.
    pub event_count: i64,
    /// Number of late events. Only totals rows count late events.
    pub late_count: i64,
    /// Number of events by severity, including late events, indexed by [`Severity::index`].
    pub severities: [i64; 4],
}

impl Counts {
    fn add(&mut self, severity: Severity, late: bool) {
        if late {
            self.late_count += 1;
        } else {
            self.event_count += 1;
        }
        self.severities[severity.index()] += 1;
    }
}

/// The fence of a row for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The offset of the first record that the row counts.
    pub first: Offset,
    /// The offset after the last record that the row counts.
    pub next: Offset,
}

/// A row of counts, as read from the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRow {
    /// The counts in the row.
    pub counts: Counts,
    /// For each severity, in the order of [`Severity::index`], true if the row's attribute `severities` contains it.
    /// The field is `None` if the row lacks this attribute.
    pub distinct: Option<[bool; 4]>,
    /// The counts by hour if this is a day row, or `None` for other rows.
    pub hours: Option<Box<HourCounts>>,
    /// The fences in the row that belong to the current topic.
    pub fences: Vec<Fence>,
    /// True if the row has a fence that belongs to another topic id.
    pub foreign: bool,
    /// A description of a problem in the row: an attribute that contradicts the row's key, or an invalid fence.
    pub odd: Option<String>,
}

/// A raw event or an alert, as read from the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPut {
    /// A fingerprint of the item's content, as [`content`] computes it.
    pub content: u64,
    /// The value of the item's attribute `late`.
    pub late: bool,
    /// The partition and the offset in a raw event. The field is `None` for an alert, because alerts contain neither.
    pub source: Option<(i32, Offset)>,
    /// True if the city in the item differs from the city for which the caller requested the item.
    pub elsewhere: bool,
    /// True if the item's `ttl` has passed. DynamoDB may then delete the item at any time.
    pub expired: bool,
}

/// Returns a fingerprint of the content of a raw event or an alert. Alerts contain neither `future` nor `extra`, so for
/// an alert the caller passes `false` and `None`.
pub fn content(
    city: &str,
    event_type: &str,
    severity: &str,
    description: &str,
    future: bool,
    extra: Option<&str>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (city, event_type, severity, description, future, extra).hash(&mut hasher);
    hasher.finish()
}

/// The known facts about the log of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The offset of the oldest record in the log.
    pub start: Offset,
    /// The claim: a consumer has reported all records below this offset as stored.
    pub claim: Offset,
    /// An upper bound for the event times of the records that are no longer in the log, or `None` if no bound is known.
    pub before_max_ms: Option<UnixMs>,
    /// The content of the partition's progress item, if the item exists.
    pub published: Option<Published>,
}

/// The settings of a comparison.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The name of the topic, which is part of the default event ids.
    pub topic: String,
    /// The rules for windows, lateness and future events.
    pub rules: Rules,
    /// The setting that decides which events have raw rows and alerts.
    pub raw_rows: RawRows,
    /// The range `[from, until)` of event times and window starts to compare.
    pub range: (UnixMs, UnixMs),
    /// True if the tables also count events of a deleted topic with the same name.
    pub remade: bool,
    /// The time up to which all hours and days have rollup rows, or 0 if there are no rollup rows.
    pub rolled_until_ms: UnixMs,
    /// Minimum time for which the table keeps a raw event after the timestamp of the event's record, in milliseconds.
    pub raw_ttl_ms: i64,
    /// Minimum time for which the table keeps an alert, in milliseconds, or `None` if alerts never expire.
    pub alert_ttl_ms: Option<i64>,
    /// The time at which the tables were created, or 0 if the time is unknown. The minimum storage time of a record
    /// that is older than the tables begins at this time.
    pub made_ms: UnixMs,
    /// The current time.
    pub now_ms: UnixMs,
    /// Maximum memory for the rows of a slice, in bytes.
    pub bytes_max: usize,
}

/// The numbers of records and events in the log. All slices have the same numbers, because every slice processes the
/// whole log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Number of records.
    pub records: u64,
    /// Number of valid events.
    pub events: u64,
    /// Number of late events.
    pub late: u64,
    /// Number of rejected records.
    pub rejected: u64,
    /// Number of valid events at or above the claim.
    pub unclaimed: u64,
}

#[derive(Clone, Debug, Default)]
struct AuditRow {
    found: Option<FoundRow>,
    counts: Counts,
    /// Number of records that the row should count because they are below the claim, but that the row's fence excludes.
    /// `lacking_at` is the position of the first of these records.
    lacking: u64,
    lacking_at: Option<(i32, Offset)>,
    /// Three flags for each fence, which say where the log contains records of the row. The first flag is true if the
    /// fence's first offset has such a record. The second flag is true if the last offset below the fence has such a
    /// record. The third flag is true if any offset before the fence's first offset has such a record.
    ends: Vec<(bool, bool, bool)>,
    /// True if only lost records could show whether an event belongs to this row.
    unsure: bool,
    /// The counts of each hour according to the log, if this is a day row.
    hours: Option<Box<HourCounts>>,
    /// The reason why this hour row or day row is not compared with the log, or `None` if it is compared.
    excuse: Option<rollups::Excuse>,
}

#[derive(Clone, Debug)]
enum SliceEntry {
    // The box keeps the enum small, because raw events and alerts are far more numerous than rows of counts, and are
    // smaller.
    Row(Box<AuditRow>),
    Put(AuditPut),
}

/// A range of rows. For each row, the slice contains the content in the tables and the counts according to the log.
#[derive(Debug)]
pub struct Slice {
    scope: Scope,
    /// `lo` is the city and time at which the slice begins, or `None` if the slice begins with the first row of the
    /// tables. `hi` is the city and time at which the next slice begins, or `None` if the slice ends with the last row.
    lo: Option<RowPlace>,
    hi: Option<RowPlace>,
    logs: BTreeMap<i32, (Log, Watermark)>,
    whole_logs: bool,
    /// For each partition, the counts of all log records below the offset in the progress item.
    published: BTreeMap<i32, Counts>,
    entries: BTreeMap<Key, SliceEntry>,
    bytes: usize,
    bytes_peak: usize,
    seen: LogCounts,
}

impl Slice {
    /// Returns an empty slice that starts at the place `lo`, or at the first row if `lo` is `None`.
    pub fn new(scope: Scope, lo: Option<RowPlace>, logs: &BTreeMap<i32, Log>) -> Slice {
        let watermark = |log: &Log| Watermark::new(log.start.0 > 0, log.before_max_ms);
        Slice {
            scope,
            lo,
            hi: None,
            logs: logs.iter().map(|(p, l)| (*p, (*l, watermark(l)))).collect(),
            whole_logs: logs.values().all(|log| log.start.0 == 0),
            published: BTreeMap::new(),
            entries: BTreeMap::new(),
            bytes: 0,
            bytes_peak: 0,
            seen: LogCounts::default(),
        }
    }

    /// Returns the city and time at which the next slice begins, or `None` if no slice follows.
    pub fn hi(&self) -> Option<&RowPlace> {
        self.hi.as_ref()
    }

    /// Returns the counts of the records that were passed to the slice.
    pub fn seen(&self) -> LogCounts {
        self.seen
    }

    /// Returns the number of rows in the slice.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if the slice contains no rows.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a row of counts from the tables.
    pub fn add_row(&mut self, key: Key, found: FoundRow) {
        self.excuse_rollups_of(&key, &found);
        let ends = vec![(false, false, false); found.fences.len()];
        let row = AuditRow {
            found: Some(found),
            ends,
            ..AuditRow::default()
        };
        self.insert(key, SliceEntry::Row(Box::new(row)));
    }

    /// Adds a raw event or an alert from the tables.
    pub fn add_put(&mut self, key: Key, found: FoundPut) {
        let put = AuditPut {
            found: Some(found),
            seen: false,
            matched: false,
            want: None,
        };
        self.insert(key, SliceEntry::Put(put));
    }

    /// Processes the next record of a partition.
    pub fn take(
        &mut self,
        partition: i32,
        offset: Offset,
        stamp: Stamp,
        body: &Result<Body, Reject>,
    ) {
        self.seen.records += 1;
        let rules = self.scope.rules;
        let Some((log, watermark)) = self.logs.get_mut(&partition) else {
            // The partition was added to the topic after the comparison began, so the slice ignores it.
            return;
        };
        let event = match body {
            Err(_) => {
                self.seen.rejected += 1;
                return;
            }
            Ok(Body::Heartbeat(time_ms)) => {
                watermark.pass(*time_ms, stamp, &rules);
                return;
            }
            Ok(Body::Event(event)) => event,
        };
        let claimed = offset < log.claim;
        let late = watermark.pass(event.time_ms, stamp, &rules);
        if log.is_published(offset) {
            let counts = self.published.entry(partition).or_default();
            counts.add(event.severity, late == Lateness::Late);
        }
        self.seen.events += 1;
        self.seen.late += u64::from(late == Lateness::Late);
        self.seen.unclaimed += u64::from(!claimed);
        let at = At {
            partition,
            offset,
            record_ms: stamp.ms,
            claimed,
            late,
        };
        if self.whole_logs {
            self.count(Key::totals(&event.city, &event.event_type), event, at);
        }
        let start_ms = rules.window_start(event.time_ms);
        if late != Lateness::Late && self.in_range(start_ms) {
            self.count(
                Key::window(&event.city, &event.event_type, start_ms),
                event,
                at,
            );
        }
        self.roll_up(event, at);
        let alert = event.severity.is_alert();
        if self.scope.raw_rows.raw(event.severity) && self.in_range(event.time_ms) {
            self.store(event, at, alert);
        }
    }

    fn in_range(&self, time_ms: UnixMs) -> bool {
        let (from, until) = self.scope.range;
        from <= time_ms && time_ms < until
    }

    fn holds(&self, place: &RowPlace) -> bool {
        self.lo.as_ref().is_none_or(|lo| lo <= place)
            && self.hi.as_ref().is_none_or(|hi| place < hi)
    }

    /// Counts an event in a row. Returns true if the event was counted.
    fn count(&mut self, key: Key, event: &Event, at: At) -> bool {
        if !self.holds(&key.place) {
            return false;
        }
        if !self.entries.contains_key(&key) {
            if !at.claimed || at.late == Lateness::Unknown {
                return false;
            }
            self.insert(key.clone(), SliceEntry::Row(Box::default()));
        }
        // The call of `insert` may have dropped the new row to free memory.
        let Some(SliceEntry::Row(row)) = self.entries.get_mut(&key) else {
            return false;
        };
        if at.late == Lateness::Unknown {
            row.unsure = true;
            return false;
        }
        let fences = row.found.as_ref().map_or(&[][..], |f| &f.fences);
        let mut fence_next = None;
        for (fence, ends) in fences.iter().zip(&mut row.ends) {
            if fence.partition == at.partition {
                fence_next = Some(fence.next);
                ends.0 |= at.offset == fence.first;
                ends.1 |= at.offset.next() == fence.next;
                ends.2 |= at.offset < fence.first;
            }
        }
        let held = fence_next.is_some_and(|next| at.offset < next);
        if !held && !at.claimed {
            return false;
        }
        if !held {
            row.lacking += 1;
            row.lacking_at = row.lacking_at.or(Some((at.partition, at.offset)));
        }
        row.counts.add(event.severity, at.late == Lateness::Late);
        true
    }
}

/// The position and the timestamp of a record, whether the record is below the claim, and whether its event is late.
#[derive(Clone, Copy, Debug)]
struct At {
    partition: i32,
    offset: Offset,
    record_ms: Option<UnixMs>,
    claimed: bool,
    late: Lateness,
}

/// Returns the set of severities for which `counts` contains events.
fn distinct(counts: &Counts) -> [bool; 4] {
    Severity::ALL.map(|s| counts.severities[s.index()] > 0)
}
