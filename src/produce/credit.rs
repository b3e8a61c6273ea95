//! Limits how many records a producer may be ahead of a consumer in each partition.
//!
//! With a broker that keeps its log on disk, no such limit is needed. The broker of `dev` is librdkafka's mock cluster,
//! which keeps at most 5 MB or 100,000 records for each partition. When a partition is full, the mock cluster drops its
//! oldest records, even if no consumer has read these records. The producer of `dev` therefore takes credit for each
//! record, and waits until the consumer has settled enough records.
//!
//! The credit is exact if only one producer writes to the topic, starting at offset 0. With only one producer, the
//! records get their offsets in the order of the calls of [`Credit::try_take`]. [`Credit::settle`] gives back the
//! credit of every record before an offset.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes that a record needs in addition to its key and value: its headers and its share of the batch.
const RECORD_OVERHEAD_BYTES: u64 = 100;

/// The credit of all partitions. All clones share the same credit.
#[derive(Clone, Debug)]
pub struct Credit {
    records_max: usize,
    bytes_max: u64,
    partitions: Arc<Mutex<Vec<Account>>>,
}

#[derive(Debug, Default)]
struct Account {
    /// The sizes of the records that are not settled yet. The first unsettled record has the offset `settled`.
    open: VecDeque<u64>,
    open_bytes: u64,
    settled: i64,
}

impl Credit {
    /// Returns the credit for a topic with `partitions` partitions. Each partition may have at most `records_max`
    /// unsettled records, with at most `bytes_max` bytes in total.
    pub fn new(partitions: usize, records_max: usize, bytes_max: u64) -> Credit {
        Credit {
            records_max,
            bytes_max,
            partitions: Arc::new(Mutex::new(
                (0..partitions).map(|_| Account::default()).collect(),
            )),
        }
    }

    /// Takes credit for one record with `bytes` bytes of key and value. Returns true if there was enough credit.
    ///
    /// A partition whose records are all settled accepts a record of any size, because a record above the limit would
    /// otherwise wait forever. Partitions beyond the number given to [`Credit::new`] have no limit.
    pub fn try_take(&self, partition: i32, bytes: usize) -> bool {
        let mut partitions = self.lock();
        let Some(account) = find(&mut partitions, partition) else {
            return true;
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 2) + RECORD_OVERHEAD_BYTES;
        let full =
            account.open.len() >= self.records_max || account.open_bytes + bytes > self.bytes_max;
        if full && !account.open.is_empty() {
            return false;
        }
        account.open.push_back(bytes);
        account.open_bytes += bytes;
        true
    }

    /// Gives back the credit of all records of a partition before `next_offset`. The call has no effect if an earlier
    /// call passed a larger offset.
    pub fn settle(&self, partition: i32, next_offset: i64) {
        let mut partitions = self.lock();
        let Some(account) = find(&mut partitions, partition) else {
            return;
        };
        while account.settled < next_offset {
            let Some(bytes) = account.open.pop_front() else {
                break;
            };
            account.open_bytes -= bytes;
            account.settled += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Account>> {
        self.partitions
            .lock()
            .expect("no panic is possible while the lock is held")
    }
}

fn find(partitions: &mut [Account], partition: i32) -> Option<&mut Account> {
    partitions.get_mut(usize::try_from(partition).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_partition_refuses_records_until_some_are_settled() {
        let credit = Credit::new(2, 3, 1_000);
        for _ in 0..3 {
            assert!(credit.try_take(0, 10));
        }
        assert!(!credit.try_take(0, 10), "three records are open");
        assert!(credit.try_take(1, 10), "the other partition is free");
        credit.settle(0, 1);
        credit.settle(0, 1);
        credit.settle(0, 0);
        assert!(credit.try_take(0, 10));
        assert!(!credit.try_take(0, 10), "only one was settled");
        credit.settle(0, 4);
        assert!(credit.try_take(0, 700));
        assert!(!credit.try_take(0, 200), "1,000 bytes with the overhead");
    }

    #[test]
    fn a_record_larger_than_the_limit_passes_alone() {
        let credit = Credit::new(1, 10, 50);
        assert!(credit.try_take(0, 1_000_000));
        assert!(!credit.try_take(0, 0));
        credit.settle(0, 1);
        assert!(credit.try_take(0, 1_000_000));
        assert!(credit.try_take(7, 1_000_000), "an unknown partition");
    }
}
