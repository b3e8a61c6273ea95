//! Receipts report the outcome of each event to a sender that waits for this outcome.
//!
//! A sender opens a [`ReceiptBatch`] for all events of a request before it sends the first event. With the outcome of each
//! event, librdkafka also returns the delivery mark of the event, which identifies the batch and the event. A batch
//! stays open until its last outcome is known, even if its sender no longer waits. The total size of open batches is
//! limited, and the limits are lower than the limits of librdkafka's queue. A batch that would exceed the limits is not
//! opened, and librdkafka's queue has room for all events of every open batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Maximum number of events in a batch. The index of an event in its batch must fit into [`INDEX_BITS`] bits.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// Maximum number of events in all open batches. The queue of librdkafka has room for 300,000 records.
const EVENTS_MAX: usize = 250_000;
/// Maximum number of bytes of keys and values in all open batches. The queue of librdkafka has room for 64 MiB.
const BYTES_MAX: usize = 48 << 20;
/// The bit that is set only in the delivery marks of events in a batch. The delivery mark of any other event is a time
/// in microseconds.
const BATCH_BIT: usize = 1 << (usize::BITS - 1);
/// The number of bits in a delivery mark that contain the index of the event in its batch.
const INDEX_BITS: u32 = 14;

const _: () = assert!(BATCH_EVENTS_MAX <= 1 << INDEX_BITS);

/// The outcome of an event that was sent in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// The event waits for its acknowledgement.
    Pending,
    /// All replicas have the record.
    Acknowledged {
        /// The partition of the record.
        partition: i32,
        /// The offset of the record, or `None` if librdkafka does not know the offset.
        offset: Option<i64>,
    },
    /// The delivery failed, and the record may or may not be in Kafka's log.
    Unknown,
    /// The event was not sent.
    NotSent,
}

/// The open batches of a producer.
#[derive(Debug, Default)]
pub struct Receipts(Mutex<OpenBatches>);

#[derive(Debug, Default)]
struct OpenBatches {
    batches: HashMap<usize, Arc<ReceiptBatch>>,
    next_id: usize,
    events: usize,
    bytes: usize,
}

/// The events of one request.
#[derive(Debug)]
pub struct ReceiptBatch {
    id: usize,
    bytes: usize,
    sent_us: u64,
    state: Mutex<BatchState>,
    settled: Notify,
}

#[derive(Debug)]
struct BatchState {
    outcomes: Vec<EventOutcome>,
    pending: usize,
}

impl Receipts {
    /// Opens a batch of `events` events, whose keys and values have `bytes` bytes in total. `sent_us` is the time of
    /// sending, in microseconds since the producer was created. Returns `None` if the batch would exceed the limits for
    /// all open batches.
    ///
    /// # Panics
    /// Panics if `events` is 0 or exceeds [`BATCH_EVENTS_MAX`].
    pub fn open(&self, events: usize, bytes: usize, sent_us: u64) -> Option<Arc<ReceiptBatch>> {
        assert!((1..=BATCH_EVENTS_MAX).contains(&events));
        let mut open = self.lock();
        if open.events + events > EVENTS_MAX || open.bytes + bytes > BYTES_MAX {
            return None;
        }
        let id = open.next_id;
        // Batch ids repeat only after 2^49 batches, far more than a process can send.
        open.next_id = (id + 1) & ((BATCH_BIT - 1) >> INDEX_BITS);
        open.events += events;
        open.bytes += bytes;
        let batch = Arc::new(ReceiptBatch {
            id,
            bytes,
            sent_us,
            state: Mutex::new(BatchState {
                outcomes: vec![EventOutcome::Pending; events],
                pending: events,
            }),
            settled: Notify::new(),
        });
        open.batches.insert(id, Arc::clone(&batch));
        Some(batch)
    }

    /// Sets the outcome of the event whose delivery mark is `mark`, and returns the event's batch. Returns `None` if
    /// the event does not belong to an open batch.
    pub fn settle(&self, mark: usize, outcome: EventOutcome) -> Option<Arc<ReceiptBatch>> {
        if mark & BATCH_BIT == 0 {
            return None;
        }
        let id = (mark & !BATCH_BIT) >> INDEX_BITS;
        let index = mark & ((1 << INDEX_BITS) - 1);
        let batch = self.lock().batches.get(&id).map(Arc::clone)?;
        self.settle_range(&batch, index, index + 1, outcome);
        Some(batch)
    }

    /// Sets the outcome "not sent" for every pending event of the batch whose index is at least `index`.
    pub fn cancel_from(&self, batch: &ReceiptBatch, index: usize) {
        self.settle_range(batch, index, usize::MAX, EventOutcome::NotSent);
    }

    fn settle_range(&self, batch: &ReceiptBatch, from: usize, until: usize, outcome: EventOutcome) {
        let mut state = batch.lock();
        let until = until.min(state.outcomes.len());
        for index in from..until {
            if state.outcomes[index] == EventOutcome::Pending {
                state.outcomes[index] = outcome;
                state.pending -= 1;
            }
        }
        let (is_settled, events) = (state.pending == 0, state.outcomes.len());
        drop(state);
        if is_settled && self.lock().close(batch, events) {
            batch.settled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenBatches> {
        self.0.lock().expect("no panic holds the lock")
    }
}

impl OpenBatches {
    /// Removes a batch from the open batches. Returns false if the batch has already been removed.
    fn close(&mut self, batch: &ReceiptBatch, events: usize) -> bool {
        let was_open = self.batches.remove(&batch.id).is_some();
        if was_open {
            self.events -= events;
            self.bytes -= batch.bytes;
        }
        was_open
    }
}

impl ReceiptBatch {
    /// Returns the delivery mark of the event at position `index` in the batch.
    pub fn mark(&self, index: usize) -> usize {
        BATCH_BIT | (self.id << INDEX_BITS) | index
    }

    /// Returns the time at which the batch was opened, in microseconds since the producer was created.
    pub fn sent_us(&self) -> u64 {
        self.sent_us
    }

    /// Waits until no event of the batch is pending. Only one task may wait for a batch at a time.
    pub async fn wait(&self) {
        while self.lock().pending > 0 {
            self.settled.notified().await;
        }
    }

    /// Returns the current outcome of each event in the batch.
    pub fn outcomes(&self) -> Vec<EventOutcome> {
        self.lock().outcomes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, BatchState> {
        self.state.lock().expect("no panic holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ACKNOWLEDGED: EventOutcome = EventOutcome::Acknowledged {
        partition: 3,
        offset: Some(811),
    };

    #[test]
    fn each_mark_finds_its_event_and_other_marks_find_none() {
        let receipts = Receipts::default();
        let (first, second) = (
            receipts.open(3, 10, 7).expect("room"),
            receipts.open(BATCH_EVENTS_MAX, 10, 8).expect("room"),
        );
        assert!(receipts.settle(1_000_000, ACKNOWLEDGED).is_none());
        let found = receipts.settle(first.mark(1), ACKNOWLEDGED).expect("found");
        assert_eq!(found.sent_us(), 7);
        let last = BATCH_EVENTS_MAX - 1;
        receipts.settle(second.mark(last), EventOutcome::Unknown);
        let pending = EventOutcome::Pending;
        assert_eq!(first.outcomes(), [pending, ACKNOWLEDGED, pending]);
        assert_eq!(second.outcomes()[last], EventOutcome::Unknown);
        assert_eq!(second.outcomes()[..last], vec![pending; last]);
    }

    #[test]
    fn the_first_outcome_of_a_record_is_kept() {
        let receipts = Receipts::default();
        let batch = receipts.open(2, 10, 0).expect("room");
        receipts.settle(batch.mark(0), ACKNOWLEDGED);
        receipts.settle(batch.mark(0), EventOutcome::Unknown);
        receipts.cancel_from(&batch, 0);
        assert_eq!(batch.outcomes(), [ACKNOWLEDGED, EventOutcome::NotSent]);
    }

    #[test]
    fn a_batch_takes_room_until_its_last_outcome() {
        let receipts = Receipts::default();
        let large = receipts.open(2, BYTES_MAX - 5, 0).expect("room");
        assert!(receipts.open(1, 6, 0).is_none(), "too many bytes");
        receipts.settle(large.mark(0), ACKNOWLEDGED);
        assert!(receipts.open(1, 6, 0).is_none(), "one event is pending");
        receipts.settle(large.mark(1), EventOutcome::Unknown);
        receipts.settle(large.mark(1), EventOutcome::Unknown);
        drop(receipts.open(1, BYTES_MAX, 0).expect("room again"));

        let receipts = Receipts::default();
        let held: Vec<_> = (0..EVENTS_MAX / BATCH_EVENTS_MAX)
            .map(|_| receipts.open(BATCH_EVENTS_MAX, 1, 0).expect("room"))
            .collect();
        assert!(receipts.open(1, 1, 0).is_none(), "too many events");
        receipts.cancel_from(&held[0], 0);
        assert!(receipts.open(1, 1, 0).is_some());
    }

    #[tokio::test]
    async fn a_sender_waits_for_the_last_outcome_only() {
        let receipts = Arc::new(Receipts::default());
        let batch = receipts.open(2, 1, 0).expect("room");
        receipts.settle(batch.mark(1), ACKNOWLEDGED);
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, batch.wait()).await.is_err());
        let (settling, mark) = (Arc::clone(&receipts), batch.mark(0));
        std::thread::spawn(move || settling.settle(mark, ACKNOWLEDGED));
        batch.wait().await;
        batch.wait().await;
        assert_eq!(batch.outcomes(), [ACKNOWLEDGED; 2]);
    }
}
