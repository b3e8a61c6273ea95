//! Runs the loop of the consumer thread.
//!
//! Each iteration of the loop carries out commands, starts partitions, pauses or resumes reading depending on the
//! memory budget, and polls a batch. The rebalance callbacks ([`GroupContext`]) run during a poll. No step of the loop
//! may block for long, because a group member that stops polling loses its partitions.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset as KafkaOffset, Timestamp, TopicPartitionList};

use super::{ConsumerEvent, GroupContext, PartitionRecords, PollerCommand};
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::worker::Record;
use crate::kafka::budget::Budget;
use crate::kafka::record::{content, header_bytes};
use crate::kafka::{is_topic_missing, membership};
use crate::sys;
use crate::telemetry::steady_ms;

/// Maximum number of records in one batch. Larger batches cost less to send to the shell, and smaller batches have a
/// lower latency.
const BATCH_RECORDS_MAX: usize = 500;
/// Maximum time for which a poll waits for a record, if no partition waits to start.
const POLL_IDLE: Duration = Duration::from_millis(50);
/// Maximum time for which a poll waits for a record, if a partition waits to start.
const POLL_BEGINNING: Duration = Duration::from_millis(2);
/// Maximum time for which the consumer thread waits for free memory before it pauses its partitions. A pause discards
/// records that the Kafka client has already fetched. If DynamoDB is only a little slower than Kafka, it catches
/// up during this wait, and the partitions need not be paused.
const PRESSURE_WAIT: Duration = Duration::from_millis(200);
/// Estimated memory of a record in addition to its value. The estimate includes the parsed event, two puts, the
/// record's entries in two rows, and a share of a request body.
const RECORD_OVERHEAD_BYTES: usize = 700;
/// Maximum wait for a seek. librdkafka's own thread carries out a seek without any broker.
const SEEK_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of the consumer thread's loop.
pub(super) struct Poller {
    client: Arc<BaseConsumer<GroupContext>>,
    inbox: mpsc::Receiver<PollerCommand>,
    topic: String,
    budget: Arc<Budget>,
    beat_ms: Arc<AtomicI64>,
    /// The partitions that wait to start, each with the number of its newest assignment and the first offset to read.
    pub(super) beginning: BTreeMap<i32, (u64, Offset)>,
    paused: bool,
    /// The batch of records that the loop is filling.
    batch: Vec<PartitionRecords>,
    batch_records: usize,
    /// The leader epoch of the last record in the batch.
    batch_epoch: Option<i32>,
}

impl Poller {
    pub(super) fn new(
        client: Arc<BaseConsumer<GroupContext>>,
        inbox: mpsc::Receiver<PollerCommand>,
        topic: String,
        budget: Arc<Budget>,
        beat_ms: Arc<AtomicI64>,
    ) -> Poller {
        Poller {
            client,
            inbox,
            topic,
            budget,
            beat_ms,
            beginning: BTreeMap::new(),
            paused: false,
            batch: Vec::new(),
            batch_records: 0,
            batch_epoch: None,
        }
    }

    /// Runs the loop until a command closes the consumer, or until all senders of commands are dropped.
    pub(super) fn run(mut self) {
        loop {
            self.beat_ms.store(steady_ms().0, Ordering::Relaxed);
            if self.process_commands().is_break() {
                return;
            }
            self.begin_partitions();
            self.apply_back_pressure();
            let wait = if self.beginning.is_empty() {
                POLL_IDLE
            } else {
                POLL_BEGINNING
            };
            self.poll_batch(wait);
        }
    }

    /// Carries out the commands that have arrived. Returns `Break` if the loop must end.
    pub(super) fn process_commands(&mut self) -> ControlFlow<()> {
        loop {
            match self.inbox.try_recv() {
                // A newer assignment of a partition replaces an older one that still waits to start, because the older
                // restart point is out of date.
                Ok(PollerCommand::Begin {
                    partition,
                    assignment,
                    next,
                }) => drop(self.beginning.insert(partition, (assignment, next))),
                Ok(PollerCommand::Hold { partition }) => self.hold(partition),
                Ok(PollerCommand::Close) | Err(mpsc::TryRecvError::Disconnected) => {
                    return ControlFlow::Break(());
                }
                Err(mpsc::TryRecvError::Empty) => return ControlFlow::Continue(()),
            }
        }
    }

    fn poll_batch(&mut self, wait: Duration) {
        let client = Arc::clone(&self.client);
        let mut wait = wait;
        while self.batch_records < BATCH_RECORDS_MAX {
            match client.poll(wait) {
                Some(Ok(message)) => self.process_message(&message),
                Some(Err(error)) => self.process_error(error),
                None => break,
            }
            // Only the first poll of a batch waits. The further polls return only records that have already arrived.
            wait = Duration::ZERO;
        }
        self.send_batch();
    }

    fn send_batch(&mut self) {
        if self.batch_records > 0 {
            self.batch_records = 0;
            let batch = std::mem::take(&mut self.batch);
            self.client.context().send(ConsumerEvent::Records(batch));
        }
    }

    fn process_message(&mut self, message: &BorrowedMessage<'_>) {
        let partition = message.partition();
        // A record that arrives before its partition has started, or during the revoke of its partition, belongs to no
        // assignment.
        let Some(&assignment) = self.client.context().active().get(&partition) else {
            return;
        };
        let (timestamp_ms, producer_time) = match message.timestamp() {
            Timestamp::LogAppendTime(ms) => (Some(UnixMs(ms)), 0),
            Timestamp::CreateTime(ms) => (Some(UnixMs(ms)), 1),
            Timestamp::NotAvailable => (None, 0),
        };
        let value = message.payload_len();
        // The request bodies for the raw row and for the alert row contain copies of the record's value. The allocator
        // cannot immediately reuse the memory of freed request bodies, because they have many different sizes.
        // Therefore, the estimated overhead of a record is at least three times the size of its value.
        let overhead = RECORD_OVERHEAD_BYTES.max(value * 3);
        let content = content(message);
        let bytes = value + message.key_len() + overhead + header_bytes(&content);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.budget.take(u64::from(bytes));
        let record = Record {
            offset: Offset(message.offset()),
            timestamp_ms,
            bytes,
            content,
        };
        self.batch_records += 1;
        let (offset, epoch) = (record.offset, sys::record_epoch(message));
        let continues = self
            .batch
            .last()
            .is_some_and(|last| last.partition == partition && last.assignment == assignment);
        if !continues || epoch != self.batch_epoch {
            self.note_epoch(partition, offset, epoch);
        }
        match self.batch.last_mut() {
            Some(last) if continues => {
                last.records.push(record);
                last.producer_time += producer_time;
            }
            _ => self.batch.push(PartitionRecords {
                partition,
                assignment,
                records: vec![record],
                producer_time,
            }),
        }
    }

    /// Notes the leader epoch of a record, for a later commit after the record.
    fn note_epoch(&mut self, partition: i32, offset: Offset, epoch: Option<i32>) {
        self.batch_epoch = epoch;
        let mut epochs = self.client.context().epochs();
        epochs.entry(partition).or_default().note(offset, epoch);
    }

    fn process_error(&mut self, error: KafkaError) {
        let context = Arc::clone(self.client.context());
        match error {
            KafkaError::PartitionEOF(partition) => self.process_partition_eof(partition),
            KafkaError::MessageConsumptionFatal(code) => self.process_fatal_error(code),
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                self.send_batch();
                context.send(ConsumerEvent::OutOfRange);
            }
            KafkaError::MessageConsumption(code) if membership::is_lasting(code) => {
                context.send(ConsumerEvent::MemberRefused(code));
            }
            error if is_topic_missing(&error) => context.send(ConsumerEvent::TopicMissing),
            error => context.errors().report_error(&error, "while polling"),
        }
    }

    fn process_partition_eof(&mut self, partition: i32) {
        // The shell must get all records before the event that reports the end of the log.
        self.send_batch();
        let context = self.client.context();
        let assignment = context.active().get(&partition).copied();
        if let (Some(assignment), Some(at)) = (assignment, context.take_end_of_log()) {
            context.send(ConsumerEvent::End {
                partition,
                assignment,
                at,
            });
        }
    }

    fn process_fatal_error(&self, code: RDKafkaErrorCode) {
        // The error from the poll says only that a fatal error has occurred. The function `fatal_error` returns its
        // cause.
        let fatal = self.client.client().fatal_error();
        let cause = fatal.as_ref().map_or(code, |(code, _)| *code);
        if membership::is_lasting(cause) {
            let context = self.client.context();
            return context.send(ConsumerEvent::MemberRefused(cause));
        }
        let text = fatal.map_or_else(
            || code.to_string(),
            |(code, text)| format!("{code}: {text}"),
        );
        self.client.context().send(ConsumerEvent::Fatal {
            fenced: cause == RDKafkaErrorCode::FencedInstanceId,
            text,
        });
    }

    fn one(&self, partition: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }

    fn hold(&mut self, partition: i32) {
        self.client.context().active().remove(&partition);
        self.beginning.remove(&partition);
        if let Err(error) = self.client.pause(&self.one(partition)) {
            tracing::warn!(partition, %error, "failed to pause");
        }
    }

    /// Starts reading the partitions that wait to start. If a partition cannot start now, the next iteration of the
    /// loop tries again.
    fn begin_partitions(&mut self) {
        let waiting = std::mem::take(&mut self.beginning);
        for (partition, (assignment, next)) in waiting {
            match self.seek_and_resume(partition, next) {
                // A record that the Kafka client fetched before the seek may still arrive, and its offset would look
                // like a gap. Therefore, the partition becomes active only after the seek.
                Ok(()) => {
                    let context = self.client.context();
                    context.epochs().entry(partition).or_default().begin(next);
                    context.active().insert(partition, assignment);
                }
                Err(error) => {
                    tracing::debug!(partition, next = next.0, %error, "failed to seek, trying again");
                    self.beginning.insert(partition, (assignment, next));
                }
            }
        }
        // A revoked partition never starts, so the loop removes it from `beginning`.
        if !self.beginning.is_empty()
            && let Ok(assigned) = self.client.assignment()
        {
            let is_ours = |p: i32| assigned.find_partition(&self.topic, p).is_some();
            self.beginning.retain(|p, _| is_ours(*p));
        }
    }

    fn seek_and_resume(&self, partition: i32, next: Offset) -> KafkaResult<()> {
        let at = KafkaOffset::Offset(next.0);
        let sought = self.client.seek(&self.topic, partition, at, SEEK_TIMEOUT);
        if let Err(KafkaError::Seek(_)) = &sought {
            // After an offset error, librdkafka stops fetching the partition and refuses to seek. A new assignment of
            // the partition makes librdkafka fetch it again.
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.topic, partition, at)?;
            self.client.incremental_unassign(&self.one(partition))?;
            self.client.incremental_assign(&list)?;
        } else {
            sought?;
        }
        if self.paused {
            return self.client.pause(&self.one(partition));
        }
        self.client.resume(&self.one(partition))
    }

    /// Waits briefly for free memory, and then pauses reading if the used memory still exceeds the budget. Resumes
    /// reading when more than a quarter of the budget is free.
    ///
    /// The pause ensures INV-5: memory stays bounded, and polling continues. A longer wait cannot replace the pause,
    /// because the group removes a member that does not poll.
    fn apply_back_pressure(&mut self) {
        let deadline = Instant::now() + PRESSURE_WAIT;
        while !self.paused && self.budget.is_exceeded() {
            if Instant::now() >= deadline {
                self.set_paused(true);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.paused && !self.budget.is_tight() {
            self.set_paused(false);
        }
    }

    fn set_paused(&mut self, paused: bool) {
        let mut list = TopicPartitionList::new();
        for partition in self.client.context().active().keys() {
            list.add_partition(&self.topic, *partition);
        }
        let result = if paused {
            self.client.pause(&list)
        } else {
            self.client.resume(&list)
        };
        match result {
            Ok(()) => {
                self.paused = paused;
                tracing::debug!(paused, "back-pressure");
            }
            Err(error) => tracing::warn!(%error, "failed to pause or resume"),
        }
    }
}
