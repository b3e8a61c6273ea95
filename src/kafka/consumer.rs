//! The consumer thread, the only place that polls Kafka for events.
//!
//! One OS thread owns one `BaseConsumer`. It polls, parses, and sends records in batches as
//! [`ConsumerEvent::Records`]. It never waits long for anything else, because a member that stops polling
//! loses its partitions after `max.poll.interval.ms`
//! (<https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md>).
//!
//! - `rebalance` handles the callbacks of a rebalance. librdkafka calls them from within a poll.
//! - `poller` is the loop: it takes commands, starts partitions, limits memory, and polls.
//!
//! A partition is assigned in a paused state. The thread drops its records until [`Consumer::begin`] names the
//! offset to start from.
//!
//! When the memory budget is exceeded, the thread waits a moment, then pauses its partitions and continues to
//! poll. A sink that does not answer therefore costs neither memory nor the membership (INV-5).
//!
//! Two alternatives were rejected. A queue for each partition (`split_partition_queue`) would need a thread or
//! a poll for each. A blocking commit would stop the polls of this thread while a coordinator is away.

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

use crate::core::event::Offset;
use crate::core::pipeline::CommitPart;
use crate::core::worker::Record;
use crate::kafka::budget::Budget;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::inquiry::Inquiry;
use crate::kafka::membership;
use crate::telemetry::steady_ms;
use poller::Poller;
pub(super) use rebalance::GroupContext;

/// What the consumer thread reports.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// The group gave this member these partitions. They are paused until [`Consumer::begin`].
    Assigned(Vec<i32>),
    /// The group takes these partitions away. The thread commits what is sent through `answer` before it gives
    /// them up.
    Revoked {
        /// The partitions that are taken away.
        partitions: Vec<i32>,
        /// Another member may own them already, so a commit would be refused.
        lost: bool,
        /// Takes the restart points once the partitions are drained.
        answer: mpsc::Sender<Vec<CommitPart>>,
    },
    /// Records, in log order within each partition.
    Records(Vec<PartitionRecords>),
    /// All records up to the end of this partition have been sent.
    End {
        /// The partition.
        partition: i32,
        /// The assignment under which it was read.
        assignment: u64,
        /// Where reading continues. Control records and records of aborted transactions may precede it.
        at: Offset,
    },
    /// Kafka has no record at the position of some partition.
    OutOfRange,
    /// The topic does not exist.
    TopicMissing,
    /// The brokers refuse this member until its settings change ([`crate::kafka::membership`]).
    MemberRefused(RDKafkaErrorCode),
    /// The client failed and cannot continue.
    Fatal {
        /// Another member of the group has the same `group.instance.id`.
        fenced: bool,
        /// librdkafka's message.
        text: String,
    },
}

/// Consecutive records of one partition in a batch.
#[derive(Debug)]
pub struct PartitionRecords {
    /// The partition.
    pub partition: i32,
    /// The assignment under which they were read.
    pub assignment: u64,
    /// The records in log order.
    pub records: Vec<Record>,
    /// How many of the records carry the producer's time instead of the broker's.
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

/// Options of the consumer thread.
pub struct ConsumerOptions {
    /// The topic to read.
    pub topic: String,
    /// Longest wait for a drain after a revoke.
    pub drain_max: Duration,
    /// The memory budget. The pipeline frees what the thread takes.
    pub budget: Arc<Budget>,
}

/// A handle on the consumer thread.
pub struct Consumer {
    client: Arc<BaseConsumer<GroupContext>>,
    commands: mpsc::Sender<PollerCommand>,
    config: ClientConfig,
    topic: String,
    beat_ms: Arc<AtomicI64>,
}

impl Consumer {
    /// Subscribes and starts the thread.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
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
        let beat_ms = Arc::new(AtomicI64::new(steady_ms()));
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
            client,
            commands,
            config: config.clone(),
            topic,
            beat_ms,
        })
    }

    /// Asks the thread to read `partition` from `next` on.
    pub fn begin(&self, partition: i32, assignment: u64, next: Offset) {
        self.send(PollerCommand::Begin {
            partition,
            assignment,
            next,
        });
    }

    /// Asks the thread to stop reading `partition` until the next [`Consumer::begin`].
    pub fn hold(&self, partition: i32) {
        self.send(PollerCommand::Hold { partition });
    }

    fn send(&self, command: PollerCommand) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the consumer thread has ended");
        }
    }

    /// Returns when the thread last began a turn of its loop, by [`steady_ms`].
    pub fn beat_ms(&self) -> i64 {
        self.beat_ms.load(Ordering::Relaxed)
    }

    /// Returns the errors of the client, which say why brokers are not reached.
    pub fn client_errors(&self) -> ClientErrors {
        self.client.context().errors().clone()
    }

    /// Returns a handle that sends blocking requests about the group and the log.
    pub fn inquiry(&self) -> Inquiry {
        Inquiry::new(
            Arc::clone(&self.client),
            self.config.clone(),
            self.topic.clone(),
        )
    }

    /// Asks the thread to end. The member leaves the group when the last [`Inquiry`] is dropped too.
    pub fn close(self) {
        let Consumer {
            client, commands, ..
        } = self;
        // Dropping the last handle closes the client, and closing waits for the answer to the last revoke. The
        // caller gives that answer, so it must not be the one who waits. Therefore this handle goes before the
        // command, and the thread or an inquiry drops the last one.
        drop(client);
        if commands.send(PollerCommand::Close).is_err() {
            tracing::debug!("the consumer thread has ended");
        }
    }
}
