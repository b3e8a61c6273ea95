//! Limits how far a producer runs ahead of a consumer, for each partition.
//!
//! A broker that keeps its log on disk needs no limit. librdkafka's mock cluster keeps 5 MB or 100,000 records for
//! each partition, and then drops the oldest, whether they were read or not. `dev` uses that cluster, so its producer
//! takes credit for each record and waits until the consumer has settled enough records.
//!
//! The accounts are exact if one producer alone writes the topic from offset 0. Then records get their offsets in the
//! order of [`Credit::try_take`], and [`Credit::settle`] returns the credit of every record below an offset.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of a record in addition to key and value: its headers and its share of the batch.
const RECORD_OVERHEAD_BYTES: u64 = 100;

/// The credit of all partitions. Clones share it.
#[derive(Clone, Debug)]
pub struct Credit {
    records_max: usize,
    bytes_max: u64,
    partitions: Arc<Mutex<Vec<Account>>>,
}

#[derive(Debug, Default)]
struct Account {
    /// Sizes of the unsettled records, the first of which has offset `settled`.
    open: VecDeque<u64>,
    open_bytes: u64,
    settled: i64,
}

impl Credit {
    /// Returns credit of `records_max` unsettled records and `bytes_max` bytes for each of `partitions` partitions.
    pub fn new(partitions: usize, records_max: usize, bytes_max: u64) -> Credit {
        Credit {
            records_max,
            bytes_max,
            partitions: Arc::new(Mutex::new(
                (0..partitions).map(|_| Account::default()).collect(),
            )),
        }
    }

    /// Takes credit for one record with `bytes` of key and value. Returns whether there was enough.
    ///
    /// A partition without unsettled records accepts a record of any size, so that a large one does not wait forever.
    /// A partition beyond those given to [`Credit::new`] has no limit.
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

    /// Returns the credit of all records of a partition below `next_offset`. A smaller offset than before has no
    /// effect.
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
