//! The loop of the consumer thread: commands in, polls, batches out.
//!
//! Each turn takes what it was told, begins the partitions that wait for it, minds the budget, and
//! polls once, which also runs the callbacks of a rebalance ([`Bridge`]). Nothing in it may block for
//! long: the membership hangs on it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset as KafkaOffset, Timestamp, TopicPartitionList};

use super::{Bridge, ConsumerEvent, PartitionRecords, PollerCommand};
use crate::core::event::Offset;
use crate::core::worker::Record;
use crate::kafka::budget::Budget;
use crate::kafka::membership;
use crate::kafka::record::{content, header_bytes};
use crate::telemetry::steady_ms;

/// Most records in one batch: large enough to make hand-over cheap, small enough for latency.
const BATCH_RECORDS_MAX: usize = 500;
/// How long one poll waits when nothing is to be done.
const POLL_IDLE: Duration = Duration::from_millis(50);
/// How long one poll waits while a partition waits to begin.
const POLL_BEGINNING: Duration = Duration::from_millis(2);
/// How long the thread waits for room before it pauses its partitions: pausing throws away what is
/// fetched, so a sink that merely is slower than Kafka should not cause it.
const PRESSURE_WAIT: Duration = Duration::from_millis(200);
/// What a record takes beside its value: the event, two puts, its entries in two rows, its share of
/// a request body.
const RECORD_OVERHEAD_BYTES: usize = 700;
/// Longest wait for a seek; it is answered by librdkafka's own thread.
const SEEK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the thread holds.
pub(super) struct Poller {
    pub(super) client: Arc<BaseConsumer<Bridge>>,
    pub(super) inbox: mpsc::Receiver<PollerCommand>,
    pub(super) topic: String,
    pub(super) budget: Arc<Budget>,
    pub(super) beat_ms: Arc<AtomicI64>,
    /// Partitions that wait to begin, each with its newest assignment and where that starts.
    pub(super) beginning: BTreeMap<i32, (u64, Offset)>,
    pub(super) paused: bool,
    pub(super) runs: Vec<PartitionRecords>,
    pub(super) gathered: usize,
}

impl Poller {
    /// Polls until it is told to close, or nobody can tell it any more.
    pub(super) fn run(mut self) {
        loop {
            self.beat_ms.store(steady_ms(), Ordering::Relaxed);
            if self.take_commands().is_break() {
                return;
            }
            self.begin_waiting();
            self.mind_the_budget();
            let wait = if self.beginning.is_empty() {
                POLL_IDLE
            } else {
                POLL_BEGINNING
            };
            self.poll_batch(wait);
        }
    }

    /// Takes what it was told; breaks when it is to end.
    pub(super) fn take_commands(&mut self) -> ControlFlow<()> {
        loop {
            match self.inbox.try_recv() {
                // One that still waits for an older assignment is of no use any more.
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
        while self.gathered < BATCH_RECORDS_MAX {
            match client.poll(wait) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.take_error(error),
                None => break,
            }
            wait = Duration::ZERO;
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.gathered > 0 {
            self.gathered = 0;
            let runs = std::mem::take(&mut self.runs);
            self.client.context().tell(ConsumerEvent::Records(runs));
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let partition = message.partition();
        let Some(&assignment) = self.client.context().active().get(&partition) else {
            return;
        };
        let (timestamp_ms, producer_time) = match message.timestamp() {
            Timestamp::LogAppendTime(ms) => (Some(ms), 0),
            Timestamp::CreateTime(ms) => (Some(ms), 1),
            Timestamp::NotAvailable => (None, 0),
        };
        let value = message.payload_len();
        // A large value is in its items' bodies again while they are sent: in the raw one's and perhaps in an
        // alert's. Bodies are of all sizes, and what they leave behind is not at once of use for others.
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
        self.gathered += 1;
        match self.runs.last_mut() {
            Some(run) if run.partition == partition && run.assignment == assignment => {
                run.records.push(record);
                run.producer_time += producer_time;
            }
            _ => self.runs.push(PartitionRecords {
                partition,
                assignment,
                records: vec![record],
                producer_time,
            }),
        }
    }

    fn take_error(&mut self, error: KafkaError) {
        let context = Arc::clone(self.client.context());
        match error {
            KafkaError::PartitionEOF(partition) => {
                self.flush();
                let assignment = context.active().get(&partition).copied();
                let at = context.end_at().take();
                if let (Some(assignment), Some(at)) = (assignment, at) {
                    context.tell(ConsumerEvent::End {
                        partition,
                        assignment,
                        at,
                    });
                }
            }
            KafkaError::MessageConsumptionFatal(code) => {
                let fatal = self.client.client().fatal_error();
                let cause = fatal.as_ref().map_or(code, |(code, _)| *code);
                if membership::remedy(cause).is_some() {
                    return context.tell(ConsumerEvent::MemberRefused(cause));
                }
                let fenced = cause == RDKafkaErrorCode::FencedInstanceId;
                let text = fatal.map_or_else(
                    || code.to_string(),
                    |(code, text)| format!("{code}: {text}"),
                );
                context.tell(ConsumerEvent::Fatal { fenced, text });
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                self.flush();
                context.tell(ConsumerEvent::OutOfRange);
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => context.tell(ConsumerEvent::TopicMissing),
            KafkaError::MessageConsumption(code) if membership::remedy(code).is_some() => {
                context.tell(ConsumerEvent::MemberRefused(code));
            }
            error => context.chatter.error(&error, "while polling"),
        }
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

    /// Seeks and resumes; what cannot be done yet is tried again after the next poll.
    fn begin_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.beginning);
        for (partition, (assignment, next)) in waiting {
            match self.begin(partition, next) {
                Ok(()) => {
                    self.client.context().active().insert(partition, assignment);
                }
                Err(error) => {
                    tracing::debug!(partition, %next, %error, "failed to seek, trying again");
                    self.beginning.insert(partition, (assignment, next));
                }
            }
        }
        // A partition that is no longer ours never begins.
        if !self.beginning.is_empty()
            && let Ok(assigned) = self.client.assignment()
        {
            let ours = |p: i32| assigned.find_partition(&self.topic, p).is_some();
            self.beginning.retain(|p, _| ours(*p));
        }
    }

    fn begin(&self, partition: i32, next: Offset) -> KafkaResult<()> {
        let at = KafkaOffset::Offset(next.0);
        let sought = self.client.seek(&self.topic, partition, at, SEEK_TIMEOUT);
        if let Err(KafkaError::Seek(_)) = &sought {
            // After an offset error librdkafka no longer fetches the partition and refuses to seek.
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

    /// Waits a moment for room, then pauses; resumes once a quarter of the budget is free.
    fn mind_the_budget(&mut self) {
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
