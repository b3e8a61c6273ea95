//! The consumer thread: the only place that polls Kafka for events.
//!
//! One OS thread owns one `BaseConsumer` and does nothing that can block for long: it polls, parses,
//! and hands records on in batches ([`ConsumerEvent`]). Rebalance callbacks run on it too, inside poll:
//!
//! - assign: take the partitions, paused, and say so; [`Consumer::begin`] later seeks and resumes;
//! - revoke: ask for a drain, wait for the answer (bounded), commit it, give the partitions up.
//!
//! Records of a partition that has not begun are dropped. Back-pressure is a budget of bytes: over
//! it the thread first waits a moment, then pauses its partitions and goes on polling, so that a
//! dead sink never costs the membership (C4, C5). No split queues, no blocking commit.

mod poller;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;

use crate::core::event::Offset;
use crate::core::pipeline::CommitPart;
use crate::core::worker::Record;
use crate::kafka::budget::Budget;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::inquiry::{Inquiry, commit};
use crate::kafka::membership;
use crate::kafka::second_read::end_of_log;
use crate::telemetry::steady_ms;
use poller::Poller;

/// What the thread tells.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Partitions are ours; they wait for [`Consumer::begin`].
    Assigned(Vec<i32>),
    /// Partitions are taken away. What is sent through `answer` is committed before they go.
    Revoked {
        /// Which.
        partitions: Vec<i32>,
        /// They are gone already; a commit would be refused.
        lost: bool,
        /// Takes the restart points once the partitions are drained.
        answer: mpsc::Sender<Vec<CommitPart>>,
    },
    /// Records, in log order for each partition.
    Records(Vec<PartitionRecords>),
    /// Everything up to the end of this partition's log has been handed on.
    End {
        /// Which.
        partition: i32,
        /// Which assignment of it.
        assignment: u64,
        /// Where reading goes on. Behind the last record there may be control records, and records of
        /// transactions that were rolled back.
        at: Offset,
    },
    /// Kafka has no record at some partition's position.
    OutOfRange,
    /// The topic does not exist (yet, or any more).
    TopicMissing,
    /// The brokers refuse this member until its settings change ([`crate::kafka::membership`]).
    MemberRefused(RDKafkaErrorCode),
    /// The client can never go on.
    Fatal {
        /// Another member of the group has the same `group.instance.id`.
        fenced: bool,
        /// librdkafka's words.
        text: String,
    },
}

/// Records of one partition.
#[derive(Debug)]
pub struct PartitionRecords {
    /// Which.
    pub partition: i32,
    /// Which assignment of it.
    pub assignment: u64,
    /// In log order.
    pub records: Vec<Record>,
    /// How many of them carry the producer's time.
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
    /// Shared with whoever gives bytes back.
    pub budget: Arc<Budget>,
}

/// A handle on the consumer thread, which ends with it or by [`Consumer::close`].
pub struct Consumer {
    client: Arc<BaseConsumer<Bridge>>,
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
        let bridge = Bridge {
            chatter: ClientErrors::new(config),
            topic: options.topic.clone(),
            events,
            active: Mutex::new(BTreeMap::new()),
            end_at: Mutex::new(None),
            drain_max: options.drain_max,
        };
        let mut heard = config.clone();
        membership::make_heard(&mut heard);
        let client: BaseConsumer<Bridge> = heard.create_with_context(bridge)?;
        client.subscribe(&[&options.topic])?;
        let client = Arc::new(client);
        let (commands, inbox) = mpsc::channel();
        let beat_ms = Arc::new(AtomicI64::new(steady_ms()));
        let poller = Poller {
            client: Arc::clone(&client),
            inbox,
            topic: options.topic.clone(),
            budget: options.budget,
            beat_ms: Arc::clone(&beat_ms),
            beginning: BTreeMap::new(),
            paused: false,
            runs: Vec::new(),
            gathered: 0,
        };
        std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || poller.run())
            .map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
        Ok(Consumer {
            client,
            commands,
            config: config.clone(),
            topic: options.topic,
            beat_ms,
        })
    }

    /// Asks the thread to read `partition` from `next` on.
    pub fn begin(&self, partition: i32, assignment: u64, next: Offset) {
        self.command(PollerCommand::Begin {
            partition,
            assignment,
            next,
        });
    }

    /// Asks the thread to stop reading `partition` until [`Consumer::begin`].
    pub fn hold(&self, partition: i32) {
        self.command(PollerCommand::Hold { partition });
    }

    fn command(&self, command: PollerCommand) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the consumer thread has ended");
        }
    }

    /// Returns when the thread polled last, in Unix milliseconds.
    pub fn beat_ms(&self) -> i64 {
        self.beat_ms.load(Ordering::Relaxed)
    }

    /// Returns what heard why the brokers are not reached.
    pub fn chatter(&self) -> ClientErrors {
        self.client.context().chatter.clone()
    }

    /// Returns what can ask Kafka about the group and the log, from blocking code.
    pub fn inquiry(&self) -> Inquiry {
        Inquiry::new(
            Arc::clone(&self.client),
            self.config.clone(),
            self.topic.clone(),
        )
    }

    /// Asks the thread to end. The group is left when the last [`Inquiry`] is dropped too.
    pub fn close(self) {
        let Consumer {
            client, commands, ..
        } = self;
        // First this handle, then the word: the last one to go closes the client, and in doing so waits
        // for the answer to its revoke, which the caller of this function gives.
        drop(client);
        if commands.send(PollerCommand::Close).is_err() {
            tracing::debug!("the consumer thread has ended");
        }
    }
}

/// The callbacks of librdkafka.
pub struct Bridge {
    chatter: ClientErrors,
    topic: String,
    events: UnboundedSender<ConsumerEvent>,
    /// Partitions that have begun, with their assignment.
    active: Mutex<BTreeMap<i32, u64>>,
    /// Where the end of a log is that the running poll is about to hand out: its error does not say.
    end_at: Mutex<Option<Offset>>,
    drain_max: Duration,
}

impl Bridge {
    fn tell(&self, event: ConsumerEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("nobody listens to the consumer thread");
        }
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, u64>> {
        self.active.lock().expect("no panic holds the lock")
    }

    fn end_at(&self) -> std::sync::MutexGuard<'_, Option<Offset>> {
        self.end_at.lock().expect("no panic holds the lock")
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<i32> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|e| e.partition())
            .collect()
    }

    fn assign(&self, client: &BaseConsumer<Bridge>, list: &mut TopicPartitionList) {
        let partitions = self.partitions(list);
        // An explicit offset keeps librdkafka from judging the group's commit; the start rule does.
        // It must be a number: "end" is looked up at the broker, and where the answer crosses a seek
        // librdkafka 2.12 asks again half a second later and jumps to the end, over all between.
        let result = list
            .set_all_offsets(KafkaOffset::Offset(0))
            .and_then(|()| client.incremental_assign(list))
            .and_then(|()| client.pause(list));
        if let Err(error) = result {
            tracing::warn!(%error, "failed to take an assignment");
        }
        self.active().retain(|p, _| !partitions.contains(p));
        tracing::info!(?partitions, "partitions assigned");
        self.tell(ConsumerEvent::Assigned(partitions));
    }

    fn revoke(&self, client: &BaseConsumer<Bridge>, list: &TopicPartitionList) {
        let partitions = self.partitions(list);
        let lost = client.assignment_lost();
        self.active().retain(|p, _| !partitions.contains(p));
        tracing::info!(?partitions, lost, "partitions revoked");
        let (answer, drained) = mpsc::channel();
        self.tell(ConsumerEvent::Revoked {
            partitions,
            lost,
            answer,
        });
        if !lost
            && let Ok(parts) = drained.recv_timeout(self.drain_max)
            && !parts.is_empty()
        {
            // Goes out before the next JoinGroup, on the same connection; waiting for the answer here
            // could hold up the whole group.
            if let Err(error) = commit(client, &self.topic, &parts, CommitMode::Async) {
                tracing::warn!(%error, "failed to commit on revoke");
            }
        }
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(%error, "failed to give partitions up");
        }
    }
}

impl ClientContext for Bridge {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        if let Some(code) = membership::refusal(fac, message) {
            self.tell(ConsumerEvent::MemberRefused(code));
        }
        self.chatter.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // What poll hands out too, and the thread answers there.
        let answered = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::PartitionEOF
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
            )
        );
        if answered {
            *self.end_at() = end_of_log(reason);
            return;
        }
        self.chatter.error(&error, reason);
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.chatter.oauth_token()
    }
}

impl ConsumerContext for Bridge {
    fn rebalance(
        &self,
        client: &BaseConsumer<Bridge>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(client, list),
            _ => self.revoke(client, list),
        }
    }
}
