//! A stretch is a run of consecutive records of one partition that belong to one row. The records of a stretch are
//! summed, and one update adds the sum to the row.
//!
//! Two offsets identify a stretch: `first`, the offset of its first record, and `next`, the offset after its last
//! record. The fence of the row is the offset below which the row counts every record (INV-2). If the fence refuses an
//! update, the worker drops the records below the fence, and sums the remaining records again. Therefore, the worker
//! keeps a few bytes of each record until it knows the outcome of the update.

use crate::event::{Offset, Severity};

/// A record's contribution to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The offset of the record in the log.
    pub offset: Offset,
    /// The lower 32 bits of the record's sequence number within the assignment. These bits are unique among the records
    /// in memory.
    pub seq: u32,
    /// The severity whose count the record increases.
    pub severity: Severity,
    /// True if the record increases `late_count` instead of `event_count`. Only totals rows have such records.
    pub late: bool,
}

/// The counts that one update adds to a row. The result of merging sums does not depend on the order in which they are
/// merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of events that windows count, without late events.
    pub event_count: u64,
    /// Number of late events.
    pub late_count: u64,
    /// Number of events by severity, including late events, indexed by [`Severity::index`].
    pub severities: [u64; 4],
}

impl Sum {
    /// The sum of no records.
    pub const ZERO: Sum = Sum {
        event_count: 0,
        late_count: 0,
        severities: [0; 4],
    };

    /// Adds one record to the sum.
    pub fn add(&mut self, entry: &Entry) {
        self.add_event(entry.severity, entry.late);
    }

    /// Adds one event to the sum.
    pub fn add_event(&mut self, severity: Severity, late: bool) {
        if late {
            self.late_count += 1;
        } else {
            self.event_count += 1;
        }
        self.severities[severity.index()] += 1;
    }

    /// Returns the number of all events in the sum, including late events.
    pub fn events(&self) -> u64 {
        self.event_count.saturating_add(self.late_count)
    }

    /// Returns the sum with the given six counts: events in windows, late events, and events by severity from low to
    /// critical. Returns `None` if the counts by severity do not add up to the number of all events.
    pub fn checked(numbers: [u64; 6]) -> Option<Sum> {
        let [event_count, late_count, low, medium, high, critical] = numbers;
        let severities = [low, medium, high, critical];
        let by_severity = severities.into_iter().try_fold(0, u64::checked_add);
        let agrees = event_count.checked_add(late_count) == by_severity;
        agrees.then_some(Sum {
            event_count,
            late_count,
            severities,
        })
    }

    /// Returns the six counts of the sum in the order that [`Sum::checked`] expects.
    pub fn numbers(&self) -> [u64; 6] {
        let [low, medium, high, critical] = self.severities;
        [
            self.event_count,
            self.late_count,
            low,
            medium,
            high,
            critical,
        ]
    }

    /// Adds another sum to this sum.
    pub fn merge(&mut self, other: &Sum) {
        self.event_count += other.event_count;
        self.late_count += other.late_count;
        for (mine, theirs) in self.severities.iter_mut().zip(other.severities) {
            *mine += theirs;
        }
    }
}

/// Consecutive records of one row, in log order. A stretch is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    entries: Vec<Entry>,
}

impl Stretch {
    /// Returns the stretch with the given entries, or `None` if there are no entries.
    ///
    /// # Panics
    /// Panics if the offsets are not strictly increasing, because a record could then be counted twice.
    pub fn new(entries: Vec<Entry>) -> Option<Stretch> {
        assert!(
            entries.windows(2).all(|w| w[0].offset < w[1].offset),
            "INV-2: the records of a stretch rise"
        );
        (!entries.is_empty()).then_some(Stretch { entries })
    }

    /// Returns the offset of the first record of the stretch.
    pub fn first(&self) -> Offset {
        self.entries[0].offset
    }

    /// Returns the offset after the last record of the stretch. The update that counts the stretch sets the row's fence
    /// to this offset.
    pub fn next(&self) -> Offset {
        self.entries[self.entries.len() - 1].offset.next()
    }

    /// Returns the counts that the stretch adds to its row.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for entry in &self.entries {
            sum.add(entry);
        }
        sum
    }

    /// Returns the records of the stretch.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Splits the stretch at the row's fence. Returns the records below the fence, which the row already counts, and
    /// the stretch of the remaining records.
    pub fn split_at_fence(mut self, fence: Offset) -> (Vec<Entry>, Option<Stretch>) {
        let at = self.entries.partition_point(|e| e.offset < fence);
        let rest = self.entries.split_off(at);
        (self.entries, Stretch::new(rest))
    }

    /// Converts the stretch into the list of its records.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: i64, severity: usize, late: bool) -> Entry {
        Entry {
            offset: Offset(offset),
            seq: 0,
            severity: Severity::ALL[severity],
            late,
        }
    }

    fn stretch(offsets: &[i64]) -> Stretch {
        Stretch::new(offsets.iter().map(|o| entry(*o, 0, false)).collect()).expect("not empty")
    }

    #[test]
    fn a_fence_splits_exactly() {
        // Each test case lists a fence, the number of records below the fence, and the two offsets of the remaining
        // stretch.
        for (fence, dropped, rest) in [
            (0, 0, Some((3, 10))),
            (3, 0, Some((3, 10))),
            (4, 1, Some((5, 10))),
            (5, 1, Some((5, 10))),
            (6, 2, Some((9, 10))),
            (9, 2, Some((9, 10))),
            (10, 3, None),
            (99, 3, None),
        ] {
            let (below, left) = stretch(&[3, 5, 9]).split_at_fence(Offset(fence));
            assert_eq!(below.len(), dropped, "fence {fence}");
            let left = left.map(|s| (s.first().0, s.next().0));
            assert_eq!(left, rest, "fence {fence}");
        }
    }

    #[test]
    fn sums_keep_late_and_severities_apart() {
        let s = Stretch::new(vec![
            entry(1, 0, false),
            entry(2, 3, true),
            entry(4, 3, false),
        ]);
        let sum = s.expect("not empty").sum();
        assert_eq!((sum.event_count, sum.late_count), (2, 1));
        assert_eq!(sum.severities, [1, 0, 0, 2]);
    }

    proptest::proptest! {
        #[test]
        fn summing_parts_is_summing_the_whole(parts in proptest::collection::vec((0usize..4, proptest::bool::ANY), 1..60), cut in 0i64..60) {
            let entries: Vec<Entry> = parts.iter().zip(0..).map(|((s, late), o)| entry(o, *s, *late)).collect();
            let whole = Stretch::new(entries).expect("not empty");
            let sum = whole.sum();
            let (below, rest) = whole.split_at_fence(Offset(cut));
            let mut merged = rest.map(|s| s.sum()).unwrap_or_default();
            let mut other = Sum::default();
            below.iter().for_each(|e| other.add(e));
            merged.merge(&other);
            proptest::prop_assert_eq!(merged, sum);
        }
    }
}
