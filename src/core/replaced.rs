//! Finds out whether a log has lost records that the group has read, and now contains other records at their offsets.
//!
//! After an unclean leader election, the log of the new leader may end before the offset that the group has committed.
//! New records then get the offsets of the lost records. Once the log has grown past the committed offset, its first
//! and last offset no longer reveal the loss, but the leader epoch does. A leader writes its epoch into each record,
//! and every new leader has a higher epoch. The record before the committed offset was replaced if its epoch differs
//! from the epoch at the time of the commit
//! (<https://cwiki.apache.org/confluence/display/KAFKA/KIP-101+-+Alter+Replication+Protocol+to+use+Leader+Epoch+rather+than+High+Watermark+for+Truncation>).

use crate::event::Offset;

/// The offset and the leader epoch of a record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The offset of the record.
    pub offset: Offset,
    /// The epoch of the leader that wrote the record.
    pub epoch: i32,
}

/// Returns the offset of the first record that was replaced, or `None` if the log still has all records below `next`
/// that the group has read.
///
/// `epoch` is the leader epoch of the last record below `next` at the time of the commit. `log_start` is the first
/// offset of the log. `probe` returns the first record at or after an offset, or `None` if the log has no such record.
/// The function calls `probe` once if no record was replaced, and otherwise about log2(`next` - `log_start`) times.
///
/// # Errors
/// Returns the error of `probe`.
pub fn find_replaced<E>(
    next: Offset,
    epoch: i32,
    log_start: Offset,
    mut probe: impl FnMut(Offset) -> Result<Option<Probed>, E>,
) -> Result<Option<Offset>, E> {
    let last = Offset(next.0 - 1);
    if last < log_start {
        return Ok(None);
    }
    let mut first = match probe(last)? {
        Some(found) if found.offset == last && found.epoch == epoch => return Ok(None),
        Some(found) if found.offset == last => Some(last),
        // The offset before `next` belongs to a control record, so only earlier records show whether the log lost
        // records.
        Some(found) if found.epoch > epoch => None,
        _ => return Ok(None),
    };
    // Epochs never decrease along a log, so a binary search finds the first record with a later epoch.
    let (mut low, mut high) = (log_start, last);
    while low < high {
        let middle = Offset(low.0 + (high.0 - low.0) / 2);
        match probe(middle)? {
            Some(found) if found.epoch <= epoch => low = Offset(found.offset.0 + 1),
            Some(found) => {
                if found.offset < next {
                    first = Some(found.offset);
                }
                high = middle;
            }
            None => high = middle,
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a log with one record for each pair of an offset and an epoch.
    fn log(records: &[(i64, i32)]) -> Vec<Probed> {
        let record = |&(offset, epoch): &(i64, i32)| Probed {
            offset: Offset(offset),
            epoch,
        };
        records.iter().map(record).collect()
    }

    fn found(log: &[Probed], next: i64, epoch: i32) -> Option<i64> {
        let probe = |from| Ok::<_, ()>(log.iter().find(|record| record.offset >= from).copied());
        let start = log.first().map_or(Offset(0), |record| record.offset);
        let found = find_replaced(Offset(next), epoch, start, probe);
        found.expect("the probe never fails").map(|offset| offset.0)
    }

    #[test]
    fn a_log_that_still_has_what_was_read_is_intact() {
        let log = log(&[(3, 0), (4, 0), (5, 2), (6, 2), (9, 5)]);
        for (next, epoch) in [(4, 0), (5, 0), (6, 2), (7, 2), (10, 5)] {
            assert_eq!(found(&log, next, epoch), None, "{next}");
        }
        // Retention has removed the last record that the group has read.
        assert_eq!(found(&log, 3, 0), None);
        // Offsets 7 and 8 belong to control records, which were read in epoch 2.
        assert_eq!(found(&log, 8, 2), None);
        assert_eq!(found(&log, 9, 2), None);
        // The log ends with control records.
        assert_eq!(found(&log, 12, 5), None);
    }

    #[test]
    fn the_first_record_of_a_later_leader_was_replaced() {
        // The group has read the records up to offset 9, but the log of the new leader ended at offset 3.
        let mut records = vec![(0, 1), (1, 1), (2, 3), (3, 3)];
        records.extend((4..20).map(|offset| (offset, 4)));
        assert_eq!(found(&log(&records), 10, 3), Some(4));
        // The offset before the committed offset, 9, belongs to a control record of the new leader.
        records.retain(|(offset, _)| *offset != 9);
        assert_eq!(found(&log(&records), 10, 3), Some(4));
        // All records that the group has read were replaced.
        let all: Vec<_> = (0..20).map(|offset| (offset, 4)).collect();
        assert_eq!(found(&log(&all), 10, 3), Some(0));
        // The group has read only the oldest record of the log, and this record was replaced.
        assert_eq!(found(&log(&[(3, 4), (4, 4)]), 4, 3), Some(3));
        assert_eq!(found(&log(&[(3, 4), (4, 4)]), 3, 3), None);
    }

    #[test]
    fn a_record_of_an_earlier_leader_was_replaced_too() {
        let log = log(&[(0, 1), (1, 1), (2, 1)]);
        assert_eq!(found(&log, 3, 2), Some(2));
    }

    #[test]
    fn every_cut_of_a_log_with_holes_is_found() {
        let read: Vec<(i64, i32)> = (0..40).map(|n| (n * 2, i32::from(n > 13) + 1)).collect();
        for cut in 0..78 {
            let mut records = read.clone();
            records.retain(|(offset, _)| *offset < cut);
            records.extend((cut..100).map(|offset| (offset, 9)));
            assert_eq!(found(&log(&records), 79, 2), Some(cut));
        }
    }

    #[test]
    fn a_probe_that_fails_ends_the_search() {
        let failed = find_replaced(Offset(5), 1, Offset(0), |_| Err("no answer"));
        assert_eq!(failed, Err("no answer"));
    }
}
