//! The counts that `tail` shows: events by city, event type and severity, or dead letters by reject reason.
//!
//! The memory for the counts is bounded. After [`ROWS_MAX`] rows exist, one common row counts the records of all
//! further cities, event types and reject reasons. For the live screen, each row also keeps a [`RowHistory`] of 7 KB.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::classify::TailEvent;
use super::dead_letters;
use super::history::{RowHistory, SeverityCounts};
use crate::core::clock::UnixMs;
use crate::core::parse::Reason;
use crate::kafka::reader::Letter;

/// Maximum number of rows of counts. A topic with more than 10,000 different combinations of city and event type is
/// assumed to be faulty.
pub(super) const ROWS_MAX: usize = 10_000;
/// Maximum number of rejected records that `tail` remembers to recognize repeated dead letters. One million remembered
/// records need 16 MB of memory. After this maximum is reached, `tail` does not recognize repeated dead letters of
/// further records, and counts each repeat.
const REJECTED_KNOWN_MAX: usize = 1_000_000;
/// The name of the common row, which counts records that get no row of their own because too many rows exist. No event
/// has the city `#other`, because a city must not contain `#`.
const OTHER: &str = "#other";

/// The counts of one city and event type, of one reject reason, or of all records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CountRow {
    /// The number of events by severity, including late events.
    pub(super) severities: SeverityCounts,
    /// The number of late events in the row.
    pub(super) late: u64,
    /// The recent counts of the row, which only the live screen needs.
    pub(super) history: Option<Box<RowHistory>>,
}

impl CountRow {
    /// Returns the number of events or dead letters.
    pub(super) fn total(&self) -> u64 {
        self.severities.iter().sum()
    }
}

/// The counts of all records so far.
#[derive(Clone, Debug, Default)]
pub(super) struct LiveCounts {
    /// The rows by city and event type. A row for dead letters has the reject reason as its city, and an empty event
    /// type.
    rows: BTreeMap<Box<str>, BTreeMap<Box<str>, CountRow>>,
    row_count: usize,
    with_history: bool,
    /// The sum of the counts of all rows.
    pub(super) sum: CountRow,
    /// The number of records of the event topic that are neither events nor heartbeats, by reject reason.
    pub(super) rejected: [u64; Reason::ALL.len()],
    /// The number of dead letters for records that already had a dead letter. After a restart, a consumer may reject
    /// the same record again and write a second dead letter.
    pub(super) repeat_count: u64,
    /// Hashes of the rejected records whose dead letters were counted.
    known: HashSet<u64>,
    hasher: RandomState,
}

impl LiveCounts {
    /// Returns counts without rows. Each row that is added later keeps a history for the charts.
    pub(super) fn with_history() -> LiveCounts {
        LiveCounts {
            with_history: true,
            ..LiveCounts::default()
        }
    }

    /// Counts one event.
    pub(super) fn add_event(&mut self, event: &TailEvent) {
        let TailEvent {
            event,
            late,
            future,
            ..
        } = event;
        // The charts do not show future events, because the event time of a future event would move all other windows
        // out of the chart.
        let time_ms = (!future).then_some(event.time_ms);
        let severity = event.severity.index();
        self.add(&event.city, &event.event_type, severity, time_ms, *late);
    }

    /// Counts one dead letter. Returns `false` if the rejected record already had an earlier dead letter.
    pub(super) fn add_dead_letter(&mut self, letter: &Letter) -> bool {
        if self.is_repeat(letter) {
            self.repeat_count += 1;
            return false;
        }
        let time_ms = dead_letters::time_ms(letter);
        self.add(dead_letters::reason(letter), "", 0, time_ms, false);
        true
    }

    fn is_repeat(&mut self, letter: &Letter) -> bool {
        let Some(identity) = dead_letters::identity(letter) else {
            return false;
        };
        let hash = self.hasher.hash_one(identity);
        if self.known.len() >= REJECTED_KNOWN_MAX {
            return self.known.contains(&hash);
        }
        !self.known.insert(hash)
    }

    fn add(
        &mut self,
        city: &str,
        event_type: &str,
        severity: usize,
        time_ms: Option<UnixMs>,
        late: bool,
    ) {
        let add = |row: &mut CountRow| {
            row.severities[severity] += 1;
            row.late += u64::from(late);
            if let Some((history, time_ms)) = row.history.as_mut().zip(time_ms) {
                history.add(time_ms, severity);
            }
        };
        add(&mut self.sum);
        let types = self.rows.get_mut(city);
        if let Some(row) = types.and_then(|types| types.get_mut(event_type)) {
            add(row);
            return;
        }
        let (city, event_type) = if self.row_count < ROWS_MAX {
            self.row_count += 1;
            (city, event_type)
        } else {
            (OTHER, "")
        };
        let types = self.rows.entry(city.into()).or_default();
        add(types.entry(event_type.into()).or_insert_with(|| CountRow {
            history: self.with_history.then(Box::default),
            ..CountRow::default()
        }));
    }

    /// Returns all rows, each with its city and event type. For a row of dead letters, the function returns the reject
    /// reason and an empty string instead.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &str, &CountRow)> {
        self.rows.iter().flat_map(|(city, types)| {
            let rows = types.iter();
            rows.map(|(event_type, row)| (&**city, &**event_type, row))
        })
    }

    /// Stores a snapshot of each row's counts in the row's history, at the index `at`.
    pub(super) fn mark(&mut self, at: usize) {
        for row in self.rows.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(history) = &mut row.history {
                history.mark(at, row.severities);
            }
        }
    }

    /// Counts one rejected record of the event topic.
    pub(super) fn add_rejected(&mut self, reason: Reason) {
        if let Some(index) = Reason::ALL.iter().position(|r| *r == reason) {
            self.rejected[index] += 1;
        }
    }

    /// Returns the number of rejected records.
    pub(super) fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Returns the reject reasons that occurred, each with its count, in the order in which the parser checks them.
    pub(super) fn rejected_by_reason(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = Reason::ALL.into_iter().zip(self.rejected);
        counts.filter(|(_, count)| *count > 0)
    }

    /// Returns the number of rejected records by reason as text, such as `not_json 3, bad_city 1`.
    pub(super) fn rejected_text(&self) -> String {
        let counts = self.rejected_by_reason();
        let counts: Vec<String> = counts.map(|(reason, n)| format!("{reason} {n}")).collect();
        counts.join(", ")
    }

    /// Returns the number of repeated dead letters as text.
    pub(super) fn repeats_text(&self) -> String {
        let count = indicatif::HumanCount(self.repeat_count);
        format!("rejected again after a restart: {count}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::tests::event;
    use super::*;
    use crate::core::event::Severity;

    #[test]
    fn rows_are_bounded() {
        let mut counts = LiveCounts::default();
        for n in 0..ROWS_MAX + 5 {
            counts.add_event(&event(&format!("c{n}"), "traffic", Severity::Low, 0));
        }
        assert_eq!(counts.rows.len(), ROWS_MAX + 1);
        assert_eq!(counts.rows[OTHER][""].total(), 5);
        assert_eq!(counts.sum.total(), 10_005);
        assert_eq!(counts.rows().count(), ROWS_MAX + 1);
    }
}
