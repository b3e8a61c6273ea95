//! How far a producer may run ahead of a consumer, per partition.
//!
//! A broker that keeps its log on disk needs none of this. librdkafka's mock cluster keeps 5 MB or
//! 100,000 records a partition and then drops the oldest, read or not; `dev` runs on it, so its
//! producer asks here before each record and waits until the consumer has settled enough.
//!
//! Exact, given that one producer alone writes the topic from offset 0: records get their offsets in
//! the order of [`Credit::try_take`], and [`Credit::settle`] gives back everything below an offset.
//! It may be called with any restart point, as often as one likes; it never takes back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a record costs beside key and value: its share of the batch, headers included.
const RECORD_OVERHEAD_BYTES: u64 = 100;

/// The records a partition may hold that nobody has settled. Clones share the account.
#[derive(Clone, Debug)]
pub struct Credit {
    records_max: usize,
    bytes_max: u64,
    partitions: Arc<Mutex<Vec<Account>>>,
}

#[derive(Debug, Default)]
struct Account {
    /// Sizes of the records from offset `settled` on.
    open: VecDeque<u64>,
    open_bytes: u64,
    settled: i64,
}

impl Credit {
    /// Returns accounts for `partitions` partitions of at most so many unsettled records and bytes.
    pub fn new(partitions: usize, records_max: usize, bytes_max: u64) -> Credit {
        Credit {
            records_max,
            bytes_max,
            partitions: Arc::new(Mutex::new(
                (0..partitions).map(|_| Account::default()).collect(),
            )),
        }
    }

    /// Books one record of `bytes` (key and value) and tells whether there was room for it.
    ///
    /// An empty partition takes any record, so that one beyond the bound cannot wait for ever.
    /// A partition without an account is not bounded.
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

    /// Gives back everything of a partition below `next_offset`.
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
    fn k1_a_full_partition_refuses_until_it_is_settled() {
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
    fn a_record_beyond_the_bound_passes_alone() {
        let credit = Credit::new(1, 10, 50);
        assert!(credit.try_take(0, 1_000_000));
        assert!(!credit.try_take(0, 0));
        credit.settle(0, 1);
        assert!(credit.try_take(0, 1_000_000));
        assert!(credit.try_take(7, 1_000_000), "an unknown partition");
    }
}
