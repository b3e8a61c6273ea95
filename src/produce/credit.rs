//! Limits, for each partition, how many unprocessed records a Kafka producer may send before the consumer catches up.
//!
//! For a broker that keeps its log on disk, no limit is needed. The broker of `citystream dev` is librdkafka's mock
//! cluster, which keeps at most 5 MB or 100,000 records for each partition. When a partition is full, the mock cluster
//! drops its oldest records, even if no consumer has read these records. The producer of `citystream dev` therefore
//! tracks the remaining room in each partition. This room is called the credit. The producer takes credit for each
//! record, and waits while a partition has too little credit. When the consumer has settled a record, the producer gets
//! the credit of the record back. A record is settled when it has been processed.
//!
//! The credit is exact only if a single producer writes to the topic, starting at offset 0. The records of a single
//! producer get their offsets in the order of the calls of [`Credit::try_take`]. [`Credit::settle`] gives back the
//! credit of every record before a given offset.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes that a record needs in addition to its key and value, for its headers and its share of the batch.
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
    /// The sizes of the records that the consumer has not settled yet. The field `settled` is the offset of the oldest
    /// unsettled record.
    open: VecDeque<u64>,
    open_bytes: u64,
    settled: i64,
}

impl Credit {
    /// Creates the credit for a topic that has `partitions` empty partitions. Each partition may hold at most
    /// `records_max` unsettled records, with at most `bytes_max` bytes in total.
    pub fn new(partitions: usize, records_max: usize, bytes_max: u64) -> Credit {
        Credit {
            records_max,
            bytes_max,
            partitions: Arc::new(Mutex::new(
                (0..partitions).map(|_| Account::default()).collect(),
            )),
        }
    }

    /// Takes credit for one record whose key and value have `bytes` bytes. Returns false if the partition has too
    /// little credit.
    ///
    /// A partition without unsettled records accepts a record of any size, because a record above the byte limit would
    /// otherwise wait forever. Additional partitions, beyond the number given to [`Credit::new`], have no limit.
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

    /// Gives back the credit of all records in `partition` with an offset below `next_offset`. The call has no effect
    /// if an earlier call passed the same offset or a larger one.
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
