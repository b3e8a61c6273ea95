//! Queues the items that one table must store, groups them into batches, and retries each item until it is stored. A
//! *put* is the request to store one item.
//!
//! The queue sends a batch when the batch is full, or when its oldest put has waited for [`LINGER_MS`]. Puts that the
//! table did not process return to the queue ([`PutQueue::answered`]), and the queue retries them after a random wait.
//! If DynamoDB rejects a batch as invalid, the queue halves the batch until the invalid put is in a batch of its own.
//! One invalid put therefore never blocks other puts. The queue gives up a put only after DynamoDB has twice rejected a
//! batch that contained only this put. Two puts with the same key never share a batch, because DynamoDB would reject
//! the whole batch.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::SteadyMs;
use crate::pace::{Concurrency, backoff_ms};
use crate::plan::{Put, PutTable};

/// Maximum number of puts in one `BatchWriteItem` request, which is DynamoDB's limit. A batch cannot reach DynamoDB's
/// other limit of 16 MB, because each of its 25 events has at most 64 KiB.
pub const BATCH_PUTS_MAX: usize = 25;
/// Maximum time for which a put waits for other puts to join its batch, in milliseconds. At 1,000 events per second, a
/// batch contains only a few puts, and each event is readable within 15 ms.
pub const LINGER_MS: i64 = 4;

/// A batch of puts, which are sent in one request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The number that identifies the batch.
    pub id: u64,
    /// The table that receives the puts.
    pub table: PutTable,
    /// The puts of the batch, at most [`BATCH_PUTS_MAX`], with different keys.
    pub puts: Vec<Put>,
}

/// The outcome of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The table stored all puts except for the unprocessed puts, which DynamoDB returns in `UnprocessedItems`.
    Stored {
        /// The indexes of the unprocessed puts in [`Batch::puts`].
        unprocessed: Vec<usize>,
    },
    /// It is unknown whether any put was stored, so all puts are sent again.
    Failed {
        /// True if the table throttled the request.
        throttled: bool,
    },
    /// DynamoDB rejected the batch, because at least one of its puts is invalid.
    Invalid,
}

/// The puts of an answered batch that need no further attempt.
#[derive(Debug, Default)]
pub struct Settled {
    /// The puts that are durable now.
    pub stored: Vec<Put>,
    /// The put that DynamoDB has refused for good, if there is one. The consumer sends the record of this put to the
    /// dead-letter topic.
    pub refused: Option<Put>,
}

#[derive(Clone, Debug)]
struct Waiting {
    put: Put,
    since_ms: SteadyMs,
    attempts: u32,
    /// Maximum number of puts in a batch that contains this put. The queue halves this limit when it searches for an
    /// invalid put. The value 0 means that DynamoDB has already rejected a batch that contained only this put.
    company_max: usize,
}

/// All puts to one table that are not yet stored.
#[derive(Clone, Debug)]
pub struct PutQueue {
    table: PutTable,
    fresh: VecDeque<Waiting>,
    /// The puts that wait for a retry, in the order in which their retries are due.
    retries: BTreeMap<(SteadyMs, u64), Waiting>,
    retry_seq: u64,
    sent: BTreeMap<u64, Vec<(u32, usize)>>,
    next_id: u64,
    concurrency: Concurrency,
}

impl PutQueue {
    /// Returns an empty queue for `table`.
    pub fn new(table: PutTable, concurrency: Concurrency) -> PutQueue {
        PutQueue {
            table,
            fresh: VecDeque::new(),
            retries: BTreeMap::new(),
            retry_seq: 0,
            sent: BTreeMap::new(),
            next_id: 0,
            concurrency,
        }
    }

    /// Adds a put to the queue.
    pub fn push(&mut self, now_ms: SteadyMs, put: Put) {
        self.fresh.push_back(Waiting {
            put,
            since_ms: now_ms,
            attempts: 0,
            company_max: BATCH_PUTS_MAX,
        });
    }

    /// Returns the next batch to send, if a batch is due and the limit on requests in flight allows another request.
    pub fn next_batch(&mut self, now_ms: SteadyMs) -> Option<Batch> {
        if !self.concurrency.has_room() {
            return None;
        }
        while let Some(entry) = self.retries.first_entry() {
            if entry.key().0 > now_ms {
                break;
            }
            let again = entry.remove();
            self.fresh.push_front(again);
        }
        let oldest = self.fresh.front()?;
        let due = self.fresh.len() >= BATCH_PUTS_MAX
            || oldest.attempts > 0
            || oldest.since_ms + LINGER_MS <= now_ms;
        if !due {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let batch = self.fill(id);
        self.concurrency.sent();
        Some(batch)
    }

    fn fill(&mut self, id: u64) -> Batch {
        let mut take = 0;
        let mut company_max = BATCH_PUTS_MAX;
        {
            let mut prints = Vec::with_capacity(BATCH_PUTS_MAX);
            for w in &self.fresh {
                company_max = company_max.min(w.company_max.max(1));
                let print = w.put.key_print();
                if take >= company_max || prints.contains(&print) {
                    break;
                }
                prints.push(print);
                take += 1;
            }
        }
        let (mut puts, mut tries) = (Vec::with_capacity(take), Vec::with_capacity(take));
        for w in self.fresh.drain(..take) {
            tries.push((w.attempts, w.company_max));
            puts.push(w.put);
        }
        self.sent.insert(id, tries);
        Batch {
            id,
            table: self.table,
            puts,
        }
    }

    /// Processes the answer to a batch. The random number `chance` spreads the retries over time. A put is retried only
    /// if the function `live` returns true for this put.
    ///
    /// # Panics
    /// Panics if this queue did not send the batch, or if the answer to the batch was already processed.
    pub fn answered(
        &mut self,
        now_ms: SteadyMs,
        batch: Batch,
        outcome: &BatchOutcome,
        chance: u32,
        live: impl Fn(&Put) -> bool,
    ) -> Settled {
        let tries = self
            .sent
            .remove(&batch.id)
            .expect("a batch is answered once");
        let size = batch.puts.len();
        let mut settled = Settled::default();
        let throttled = match outcome {
            BatchOutcome::Stored { unprocessed } => !unprocessed.is_empty(),
            BatchOutcome::Failed { throttled } => *throttled,
            BatchOutcome::Invalid => false,
        };
        self.concurrency.answered(throttled);
        for (at, (put, (attempts, company_max))) in batch.puts.into_iter().zip(tries).enumerate() {
            let (again, attempts, company_max) = match outcome {
                BatchOutcome::Stored { unprocessed } => {
                    (unprocessed.contains(&at), attempts + 1, company_max)
                }
                BatchOutcome::Failed { .. } => (true, attempts + 1, company_max),
                // A refusal may be the answer to another request, so the queue gives up a put only after two refusals.
                BatchOutcome::Invalid if company_max == 0 => {
                    settled.refused = Some(put);
                    continue;
                }
                BatchOutcome::Invalid if size == 1 => (true, attempts, 0),
                BatchOutcome::Invalid => (true, attempts, size.div_ceil(2)),
            };
            if !again {
                settled.stored.push(put);
                continue;
            }
            if !live(&put) {
                continue;
            }
            let wait_ms = if matches!(outcome, BatchOutcome::Invalid) {
                0
            } else {
                backoff_ms(attempts, chance)
            };
            self.retry_seq += 1;
            let waiting = Waiting {
                put,
                since_ms: now_ms,
                attempts,
                company_max,
            };
            self.retries
                .insert((now_ms + wait_ms, self.retry_seq), waiting);
        }
        settled
    }

    /// Drops each waiting put for which the function `live` returns false. For example, the caller drops the puts of
    /// partitions that the consumer no longer owns.
    pub fn retain(&mut self, live: impl Fn(&Put) -> bool) {
        self.fresh.retain(|w| live(&w.put));
        self.retries.retain(|_, w| live(&w.put));
    }

    /// Returns the time at which the caller should call [`PutQueue::next_batch`] again. Returns `None` if the queue is
    /// empty or the limit on requests in flight is reached.
    pub fn next_ms(&self) -> Option<SteadyMs> {
        if !self.concurrency.has_room() {
            return None;
        }
        let linger = self.fresh.front().map(|w| {
            if w.attempts > 0 || self.fresh.len() >= BATCH_PUTS_MAX {
                SteadyMs::MIN
            } else {
                w.since_ms + LINGER_MS
            }
        });
        let retry = self.retries.first_key_value().map(|((ms, _), _)| *ms);
        linger.into_iter().chain(retry).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::clock::UnixMs;
    use crate::event::{Event, Offset, Severity};
    use crate::plan::{StoredEvent, Ticket};

    fn put(seq: u64, id: &str) -> Put {
        let event = Event {
            city: "NYC".into(),
            event_type: "traffic".into(),
            severity: Severity::High,
            time_ms: UnixMs(0),
            description: "".into(),
            event_id: Some(id.into()),
            extra: None,
        };
        let event = StoredEvent::new(event, "t".into(), 0, Offset(0), false, false);
        Put {
            ticket: Ticket {
                partition: 0,
                assignment: 0,
                seq,
            },
            event: Arc::new(event),
        }
    }

    fn queue() -> PutQueue {
        PutQueue::new(PutTable::Raw, Concurrency::new(100, 100))
    }

    fn seqs(puts: &[Put]) -> Vec<u64> {
        puts.iter().map(|p| p.ticket.seq).collect()
    }

    #[test]
    fn a_batch_leaves_when_full_or_after_the_linger() {
        let mut q = queue();
        q.push(SteadyMs(0), put(0, "a"));
        assert!(q.next_batch(SteadyMs(LINGER_MS - 1)).is_none());
        assert_eq!(q.next_ms(), Some(SteadyMs(LINGER_MS)));
        assert_eq!(
            q.next_batch(SteadyMs(LINGER_MS)).expect("due").puts.len(),
            1
        );
        for n in 0..30 {
            q.push(SteadyMs(0), put(n, &n.to_string()));
        }
        assert_eq!(
            q.next_batch(SteadyMs(0)).expect("full").puts.len(),
            BATCH_PUTS_MAX
        );
        assert!(q.next_batch(SteadyMs(0)).is_none());
    }

    #[test]
    fn two_puts_of_one_key_never_share_a_batch() {
        let mut q = queue();
        for (n, id) in ["a", "b", "a", "c"].into_iter().enumerate() {
            q.push(SteadyMs(0), put(n as u64, id));
        }
        assert_eq!(seqs(&q.next_batch(SteadyMs(9)).expect("due").puts), [0, 1]);
        assert_eq!(seqs(&q.next_batch(SteadyMs(9)).expect("due").puts), [2, 3]);
    }

    #[test]
    fn only_what_came_back_is_sent_again() {
        let mut q = queue();
        for n in 0..4 {
            q.push(SteadyMs(0), put(n, &n.to_string()));
        }
        let batch = q.next_batch(SteadyMs(9)).expect("due");
        let outcome = BatchOutcome::Stored {
            unprocessed: vec![1, 3],
        };
        let settled = q.answered(SteadyMs(9), batch, &outcome, 0, |_| true);
        assert_eq!(seqs(&settled.stored), [0, 2]);
        assert!(q.next_batch(SteadyMs(9)).is_none(), "a retry waits");
        let again = q.next_batch(SteadyMs(9 + 5_000)).expect("due");
        let mut left = seqs(&again.puts);
        left.sort_unstable();
        assert_eq!(left, [1, 3]);
        let stored = BatchOutcome::Stored {
            unprocessed: vec![],
        };
        assert_eq!(
            q.answered(SteadyMs(9), again, &stored, 0, |_| true)
                .stored
                .len(),
            2
        );
        assert_eq!(q.next_ms(), None);
    }

    #[test]
    fn a_bad_put_is_found_and_the_others_are_stored() {
        for bad in 0..25 {
            let mut q = queue();
            for n in 0..25 {
                q.push(SteadyMs(0), put(n, &n.to_string()));
            }
            let (mut stored, mut refused, mut requests) = (Vec::new(), Vec::new(), 0);
            let mut now = 100;
            while stored.len() + refused.len() < 25 {
                now += 10_000;
                let Some(batch) = q.next_batch(SteadyMs(now)) else {
                    continue;
                };
                requests += 1;
                let outcome = if batch.puts.iter().any(|p| p.ticket.seq == bad) {
                    BatchOutcome::Invalid
                } else {
                    BatchOutcome::Stored {
                        unprocessed: vec![],
                    }
                };
                let settled = q.answered(SteadyMs(now), batch, &outcome, 0, |_| true);
                stored.extend(seqs(&settled.stored));
                refused.extend(settled.refused.map(|p| p.ticket.seq));
            }
            assert_eq!(refused, [bad]);
            assert_eq!(stored.len(), 24);
            assert!(requests <= 40, "{requests} requests");
        }
    }

    #[test]
    fn one_refusal_gives_no_put_up() {
        let mut q = queue();
        q.push(SteadyMs(0), put(0, "a"));
        let alone = q.next_batch(SteadyMs(9)).expect("due");
        let settled = q.answered(SteadyMs(9), alone, &BatchOutcome::Invalid, 0, |_| true);
        assert!(settled.refused.is_none() && settled.stored.is_empty());
        let again = q.next_batch(SteadyMs(9 + LINGER_MS)).expect("due");
        let settled = q.answered(SteadyMs(9), again, &BatchOutcome::Invalid, 0, |_| true);
        assert_eq!(settled.refused.map(|put| put.ticket.seq), Some(0));
    }

    #[test]
    fn a_queue_says_when_it_sends_again() {
        let failed = BatchOutcome::Failed { throttled: false };
        let mut q = PutQueue::new(PutTable::Raw, Concurrency::new(2, 2));
        for (n, id) in ["a", "b"].into_iter().enumerate() {
            q.push(SteadyMs(0), put(n as u64, id));
            let batch = q.next_batch(SteadyMs(9)).expect("due");
            q.answered(SteadyMs(9), batch, &failed, 0, |_| true);
        }
        // With the random number 0, each retry is due after one millisecond.
        assert_eq!(q.next_ms(), Some(SteadyMs(10)));
        assert!(q.next_batch(SteadyMs(9)).is_none());
        // Two puts with the same key never share a batch, so the second one is due at once.
        q.push(SteadyMs(10), put(2, "b"));
        let first = q.next_batch(SteadyMs(10)).expect("due");
        assert_eq!(first.puts.len(), 2);
        assert_eq!(q.next_ms(), Some(SteadyMs(10 + LINGER_MS)));
        for n in 3..27 {
            assert_eq!(q.next_ms(), Some(SteadyMs(10 + LINGER_MS)));
            q.push(SteadyMs(10), put(n, &n.to_string()));
        }
        assert_eq!(q.next_ms(), Some(SteadyMs::MIN), "a full batch is due");
        // The limit on requests in flight is two, so the queue now waits for an answer.
        let second = q.next_batch(SteadyMs(10)).expect("due");
        assert_ne!(first.id, second.id);
        q.push(SteadyMs(10), put(27, "c"));
        assert_eq!(q.next_ms(), None);
        assert!(q.next_batch(SteadyMs(99)).is_none());
        q.answered(SteadyMs(10), first, &failed, 0, |_| true);
        assert_eq!(q.next_ms(), Some(SteadyMs(11)));
    }

    #[test]
    fn a_retry_that_misses_its_batch_leaves_with_the_next_one() {
        let mut q = queue();
        for n in 0..2 {
            q.push(SteadyMs(0), put(n, "a"));
        }
        for _ in 0..2 {
            let batch = q.next_batch(SteadyMs(9)).expect("due");
            let failed = BatchOutcome::Failed { throttled: false };
            q.answered(SteadyMs(9), batch, &failed, 0, |_| true);
        }
        // Both puts have the same key, and both retries are due.
        assert!(q.next_batch(SteadyMs(10)).is_some());
        assert_eq!(q.next_ms(), Some(SteadyMs::MIN));
        assert!(q.next_batch(SteadyMs(10)).is_some());
        assert_eq!(q.next_ms(), None);
    }

    #[test]
    fn puts_of_a_partition_that_was_given_up_are_dropped() {
        let mut q = queue();
        q.push(SteadyMs(0), put(0, "a"));
        q.push(SteadyMs(0), put(1, "b"));
        let batch = q.next_batch(SteadyMs(9)).expect("due");
        let failed = BatchOutcome::Failed { throttled: false };
        q.answered(SteadyMs(9), batch, &failed, 0, |_| true);
        q.push(SteadyMs(9), put(2, "c"));
        q.push(SteadyMs(9), put(3, "d"));
        q.retain(|put| put.ticket.seq % 2 == 0);
        let mut left = seqs(&q.next_batch(SteadyMs(99)).expect("due").puts);
        left.sort_unstable();
        assert_eq!(left, [0, 2]);
        assert_eq!(q.next_ms(), None);
    }

    proptest::proptest! {
        #[test]
        fn every_put_is_stored_once_and_batches_keep_the_limits(
            ids in proptest::collection::vec(0u8..40, 1..200),
            outcomes in proptest::collection::vec(0u8..6, 1..50),
        ) {
            let mut q = queue();
            for (n, id) in ids.iter().enumerate() {
                q.push(SteadyMs(0), put(n as u64, &id.to_string()));
            }
            let (mut stored, mut now, mut turn) = (Vec::new(), 1_000, 0);
            while stored.len() < ids.len() {
                now += 10_000;
                while let Some(batch) = q.next_batch(SteadyMs(now)) {
                    proptest::prop_assert!(batch.puts.len() <= BATCH_PUTS_MAX);
                    let keys: BTreeSet<_> = batch.puts.iter().map(|p| p.event.event_id.clone()).collect();
                    proptest::prop_assert_eq!(keys.len(), batch.puts.len());
                    turn += 1;
                    let outcome = match outcomes[turn % outcomes.len()] {
                        0 => BatchOutcome::Failed { throttled: true },
                        1 => BatchOutcome::Failed { throttled: false },
                        2 => BatchOutcome::Stored { unprocessed: vec![0] },
                        _ => BatchOutcome::Stored { unprocessed: vec![] },
                    };
                    // After 2,000 turns, the simulated table stores every batch, so the test always ends.
                    let outcome = if turn > 2_000 { BatchOutcome::Stored { unprocessed: vec![] } } else { outcome };
                    stored.extend(seqs(&q.answered(SteadyMs(now), batch, &outcome, 7, |_| true).stored));
                }
            }
            stored.sort_unstable();
            let all: Vec<u64> = (0..ids.len() as u64).collect();
            proptest::prop_assert_eq!(stored, all);
        }
    }
}
