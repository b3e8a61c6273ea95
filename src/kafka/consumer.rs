//! Runs the consumer thread, the only thread of `consume` that polls Kafka for records.
//!
//! The consumer thread is an OS thread that owns a `BaseConsumer`. The thread polls Kafka, parses the records, and
//! sends them to the shell in batches ([`ConsumerEvent::Records`]). Apart from the poll, no step of this thread may
//! block for long. A member that stops polling loses its partitions after `max.poll.interval.ms`
//! (<https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md>).
//!
//! - `rebalance` contains the callbacks for a rebalance. librdkafka calls these callbacks during a poll.
//! - `poller` is the loop of the consumer thread. The loop takes commands, starts partitions, limits memory, and polls.
//!
//! A newly assigned partition is paused. The consumer thread drops the records of this partition until
//! [`Consumer::begin`] sets the offset of the first record to read.
//!
//! If the records in memory exceed the memory budget, the consumer thread first waits briefly. If they still exceed the
//! budget, the thread pauses its partitions and continues to poll. Therefore, memory stays bounded and the member stays
//! in the group even if DynamoDB does not answer (INV-5).
//!
//! This design has two rejected alternatives. A queue for each partition (`split_partition_queue`) needs a thread or a
//! poll for each partition. A blocking commit on this thread stops the polls while the coordinator does not answer.

mod handle;
mod inquiry;
mod poller;
mod rebalance;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::sync::mpsc::UnboundedSender;

use crate::core::clock::SteadyMs;
use crate::core::event::Offset;
use crate::core::pipeline::CommitPart;
use crate::core::worker::Record;
use crate::kafka::budget::Budget;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::membership;
use crate::telemetry::steady_ms;
use handle::Handle;
pub(crate) use inquiry::{Inquiry, committed};
use poller::Poller;
pub(super) use rebalance::GroupContext;

/// The events that the consumer thread reports.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// The group assigned partitions to this member. An assigned partition stays paused until the shell calls
    /// [`Consumer::begin`].
    Assigned(Vec<i32>),
    /// The group revokes partitions from this member. The consumer thread waits for the restart points in the channel
    /// `answer`, commits them, and then gives up the partitions.
    Revoked {
        /// The revoked partitions.
        partitions: Vec<i32>,
        /// True if another member may already own the partitions, so that Kafka would refuse a commit.
        lost: bool,
        /// The channel through which the shell sends the restart points after the partitions have drained.
        answer: mpsc::Sender<Vec<CommitPart>>,
    },
    /// Records of one or more partitions. The records of each partition are in log order.
    Records(Vec<PartitionRecords>),
    /// The consumer thread has sent all records of a partition up to the current end of its log.
    End {
        /// The number of the partition.
        partition: i32,
        /// The number of the partition's assignment.
        assignment: u64,
        /// The offset at which reading continues. The offsets directly before `at` may belong to control records or to
        /// records of aborted transactions.
        at: Offset,
    },
    /// The read position of at least one partition is outside the log.
    OutOfRange,
    /// The topic does not exist.
    TopicMissing,
    /// The brokers refuse this member until an operator changes its settings ([`crate::kafka::membership`]).
    MemberRefused(RDKafkaErrorCode),
    /// The Kafka client has failed and cannot continue.
    Fatal {
        /// True if another member of the group has the same `group.instance.id`.
        fenced: bool,
        /// The message from librdkafka.
        text: String,
    },
}

/// Records of one partition in a batch, in log order.
#[derive(Debug)]
pub struct PartitionRecords {
    /// The partition of the records.
    pub partition: i32,
    /// The number of the partition's assignment at the time of the read.
    pub assignment: u64,
    /// The records in log order.
    pub records: Vec<Record>,
    /// Number of records whose Kafka timestamp comes from the producer instead of the broker.
    pub producer_time: u64,
}

enum PollerCommand {
    Begin {
        partition: i32,
        assignment: u64,
        next: Offset,
    },
    Hold {
        partition: i32,
    },
    Close,
}

/// The settings of the consumer thread.
pub struct ConsumerOptions {
    /// The name of the topic to read.
    pub topic: String,
    /// Maximum wait until revoked partitions have drained.
    pub drain_max: Duration,
    /// The memory budget for records that are not yet durable.
    pub budget: Arc<Budget>,
}

/// A handle with which other threads send commands to the consumer thread.
pub struct Consumer {
    handle: Handle<BaseConsumer<GroupContext>, PollerCommand>,
    config: ClientConfig,
    topic: String,
    beat_ms: Arc<AtomicI64>,
}

impl Consumer {
    /// Subscribes to the topic and starts the consumer thread.
    ///
    /// # Errors
    /// Returns an error if librdkafka refuses the settings.
    pub fn start(
        config: &ClientConfig,
        options: ConsumerOptions,
        events: UnboundedSender<ConsumerEvent>,
    ) -> KafkaResult<Consumer> {
        let topic = options.topic;
        let context = GroupContext::new(config, topic.clone(), options.drain_max, events);
        let mut logged = config.clone();
        membership::log_coordinator_lines(&mut logged);
        let client: BaseConsumer<GroupContext> = logged.create_with_context(context)?;
        client.subscribe(&[&topic])?;
        let client = Arc::new(client);
        let (commands, inbox) = mpsc::channel();
        let beat_ms = Arc::new(AtomicI64::new(steady_ms().0));
        let poller = Poller::new(
            Arc::clone(&client),
            inbox,
            topic.clone(),
            options.budget,
            Arc::clone(&beat_ms),
        );
        std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || poller.run())
            .map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
        Ok(Consumer {
            handle: Handle::new(client, commands),
            config: config.clone(),
            topic,
            beat_ms,
        })
    }

    /// Makes the consumer thread start reading a partition at the offset `next`.
    pub fn begin(&self, partition: i32, assignment: u64, next: Offset) {
        self.handle.send(PollerCommand::Begin {
            partition,
            assignment,
            next,
        });
    }

    /// Makes the consumer thread stop reading a partition until the next call of [`Consumer::begin`].
    pub fn hold(&self, partition: i32) {
        self.handle.send(PollerCommand::Hold { partition });
    }

    /// Returns the time at which the consumer thread last began an iteration of its loop.
    pub fn beat_ms(&self) -> SteadyMs {
        SteadyMs(self.beat_ms.load(Ordering::Relaxed))
    }

    /// Returns the errors of the Kafka client, which include the reason why it cannot reach the brokers.
    pub fn client_errors(&self) -> ClientErrors {
        self.handle.client().context().errors().clone()
    }

    /// Returns a handle that sends blocking requests about the group and the log.
    pub fn inquiry(&self) -> Inquiry {
        Inquiry::new(
            Arc::clone(self.handle.client()),
            self.config.clone(),
            self.topic.clone(),
        )
    }

    /// Ends the consumer thread. The member leaves the group when the last [`Inquiry`] has also been dropped.
    pub fn close(self) {
        self.handle.close(PollerCommand::Close);
    }
}
