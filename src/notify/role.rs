//! The main loop of `notify`: evaluates the records of each partition, writes rows and checkpoints to the table, and
//! sends messages to the receivers.
//!
//! The core decides which incidents exist, which rows must be written and which messages are due. The loop carries out
//! these decisions. The loop keeps no state that another process would need, so the loop gives up a revoked partition
//! immediately. A process that takes over a partition continues from the checkpoint and the rows.

mod stop;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::blocking::run_blocking;
use crate::core::gap::{Gap, Verdict};
use crate::core::incident::owner::{IncidentName, Owner};
use crate::core::incident::rule::{Rule, fingerprint};
use crate::core::window::Rules;
use crate::core::worker::{Content, Record};
use crate::exit::{Exit, SettingsError};
use crate::kafka::MISSING_REMEDY;
use crate::kafka::budget::Budget;
use crate::kafka::consumer::{Consumer, ConsumerEvent, ConsumerOptions, PartitionRecords};
use crate::kafka::membership;
use crate::kafka::second_read::{SecondReader, warn_if_skipped};
use crate::notify::deliveries::IncidentDeliveries;
use crate::notify::partitions::Partitions;
use crate::notify::send::Receiver;
use crate::notify::start::{FirstStart, Started, Starter};
use crate::notify::status::{NotifyStatus, NotifyWait};
use crate::notify::task_result::TaskResult;
use crate::notify::waiting::{dynamodb_error, topic_id, wait_for_topic};
use crate::shutdown::Shutdown;
use crate::store::error::StoreError;
use crate::store::incidents::{IncidentTable, StoredIncident};
use crate::telemetry::{LogLimits, Metrics, steady_ms};

/// Maximum memory for records that were read but not yet evaluated, in bytes.
const BUDGET_BYTES: u64 = 32 << 20;
/// Maximum time for which the consumer waits for the main loop before it gives up a revoked partition.
const REVOKE_MAX: Duration = Duration::from_secs(5);
/// Time between two checks for work that is due.
const TICK: Duration = Duration::from_millis(100);
/// Time between two reads of the silences, in multiples of [`TICK`].
const SILENCE_TICKS: u32 = 50;
/// Time between two requests for the topic's id, in multiples of [`TICK`].
const TOPIC_TICKS: u32 = 50;
/// Time between two warnings of the same kind, in multiples of [`TICK`].
const WARN_TICKS: u32 = 600;
/// Maximum number of incidents whose row must still be written. While more than `UNWRITTEN_MAX` rows must be written,
/// the main loop evaluates no further records.
const UNWRITTEN_MAX: usize = 10_000;
/// Maximum number of incidents with messages that may not have reached a receiver yet. While more than `LIVE_MAX`
/// incidents have undelivered messages, the main loop evaluates no further records.
const LIVE_MAX: usize = 50_000;
/// Pause after a failed attempt to start a partition.
const START_PAUSE: Duration = Duration::from_secs(1);

/// The settings of a role, and the services that the role uses.
pub(super) struct RoleOptions {
    /// The rules.
    pub(super) rules: Vec<Rule>,
    /// The receivers of messages.
    pub(super) receivers: Vec<Receiver>,
    /// The settings of the Kafka client.
    pub(super) kafka: ClientConfig,
    /// The topic to read.
    pub(super) topic: String,
    /// The consumer group to join.
    pub(super) group: String,
    /// The table of incidents.
    pub(super) table: IncidentTable,
    /// The rules for event time, such as the allowed lateness and the allowed clock skew. The role `consume` uses the
    /// same event-time rules.
    pub(super) times: Rules,
    /// The position at which a partition without a checkpoint starts.
    pub(super) from: FirstStart,
    /// The address of the page to which messages link.
    pub(super) link: Option<String>,
    /// The metrics of the process.
    pub(super) metrics: Metrics,
    /// The status that the health routes show.
    pub(super) status: Arc<NotifyStatus>,
}

/// The state of a running role.
pub(super) struct NotifyRole {
    group: String,
    consumer: Consumer,
    budget: Arc<Budget>,
    events: UnboundedReceiver<ConsumerEvent>,
    second: Arc<SecondReader>,
    starter: Starter,
    table: IncidentTable,
    partitions: Partitions,
    deliveries: IncidentDeliveries,
    /// Records that wait because too many rows or messages are outstanding.
    backlog: VecDeque<PartitionRecords>,
    done_in: UnboundedSender<TaskResult>,
    done: UnboundedReceiver<TaskResult>,
    ticks: u32,
    /// The number of incidents and events that rules ignored because of their limits, at the time of the last warning.
    left_out: u64,
    /// The limits on how often the failures of each action are logged.
    log_limits: LogLimits,
    status: Arc<NotifyStatus>,
    end: Option<anyhow::Result<()>>,
}

impl NotifyRole {
    /// Joins the consumer group.
    ///
    /// # Errors
    /// Returns an error if the Kafka client cannot start.
    pub(super) fn start(options: RoleOptions) -> anyhow::Result<NotifyRole> {
        let (events_in, events) = mpsc::unbounded_channel();
        let (done_in, done) = mpsc::unbounded_channel();
        let budget = Arc::new(Budget::new(BUDGET_BYTES));
        let second = Arc::new(SecondReader::new(&options.kafka, &options.topic));
        let consumer_options = ConsumerOptions {
            topic: options.topic.clone(),
            drain_max: REVOKE_MAX,
            budget: Arc::clone(&budget),
        };
        let rules: Arc<[Rule]> = options.rules.into();
        let rules_print: Arc<str> = fingerprint(&rules, &options.times).into();
        let consumer =
            Consumer::start(&options.kafka, consumer_options, events_in).map_err(|e| {
                SettingsError::new("the Kafka client cannot start").with_why(e.to_string())
            })?;
        let starter = Starter {
            inquiry: consumer.inquiry(),
            table: options.table.clone(),
            topic: options.topic.into(),
            topic_id: "".into(),
            rules,
            rules_print: Arc::clone(&rules_print),
            times: options.times,
            from: options.from,
        };
        let deliveries = IncidentDeliveries::new(
            options.receivers,
            options.table.clone(),
            options.link,
            done_in.clone(),
            options.metrics,
        );
        Ok(NotifyRole {
            group: options.group,
            consumer,
            budget,
            events,
            second,
            starter,
            partitions: Partitions::new(options.table.clone(), done_in.clone(), rules_print),
            table: options.table,
            deliveries,
            backlog: VecDeque::new(),
            done_in,
            done,
            ticks: 0,
            left_out: 0,
            log_limits: LogLimits::default(),
            status: options.status,
            end: None,
        })
    }

    /// Runs until `shutdown` is triggered or the role cannot continue.
    ///
    /// # Errors
    /// Returns the error with which the role ended.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<Exit> {
        let Starter { inquiry, topic, .. } = &self.starter;
        tokio::select! {
            () = shutdown.wait() => return Ok(Exit::Done),
            id = wait_for_topic(inquiry, topic, &self.status) => {
                self.starter.topic_id = id.into();
            }
        }
        let waiting = "waiting for Kafka to assign partitions".to_owned();
        self.status.set_waiting(NotifyWait::Start, Some(waiting));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.end.is_none() {
            self.status.beat();
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                done = self.done.recv() => self.finish(done.expect("the role holds a sender")),
                event = self.events.recv() => match event {
                    Some(event) => self.take_event(event),
                    None => self.fail("the consumer thread ended"),
                },
                _ = tick.tick() => self.tick(),
            }
            self.fold_backlog().await;
            self.partitions.write_rows(steady_ms());
        }
        self.stop().await
    }

    /// Logs the failure of an action that the role repeats, unless a failure of the same action was logged less than ten
    /// seconds ago.
    fn warn(&mut self, action: &'static str, error: &str) {
        if self.log_limits.allows(action) {
            tracing::warn!(error, "failed to {action}, trying again");
        }
    }

    fn fail(&mut self, what: &str) {
        self.end = Some(Err(anyhow::anyhow!("{what}")));
    }

    fn take_event(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => {
                for partition in partitions {
                    self.begin(partition);
                }
                self.show_starts();
            }
            ConsumerEvent::Revoked {
                partitions, answer, ..
            } => {
                for partition in partitions {
                    self.partitions.remove(partition);
                    self.deliveries.forget(partition);
                }
                self.show_starts();
                // The loop answers immediately, because the next owner of the partition continues from the checkpoint
                // and the rows in the table.
                drop(answer.send(Vec::new()));
            }
            ConsumerEvent::Records(runs) => self.backlog.extend(runs),
            ConsumerEvent::End { .. } => {}
            ConsumerEvent::OutOfRange => self.begin_again(),
            // The event may be outdated, because the topic may exist again. The next successful request for the topic
            // id then ends the wait.
            ConsumerEvent::TopicMissing => self.topic_missing(),
            ConsumerEvent::MemberRefused(code) => {
                let failure = membership::refused(code, &self.group, "--notify-group");
                self.end = Some(Err(SettingsError(failure).into()));
            }
            ConsumerEvent::Fatal { fenced: true, .. } => {
                let failure = membership::fenced("--kafka-property group.instance.id");
                self.end = Some(Err(SettingsError(failure).into()));
            }
            ConsumerEvent::Fatal { text, .. } => {
                self.fail(&format!("the Kafka client cannot continue: {text}"));
            }
        }
    }

    fn topic_missing(&mut self) {
        let topic = &self.starter.topic;
        let what = format!("waiting for topic {topic} to exist ({MISSING_REMEDY})");
        self.warn("find the topic", &what);
        self.status.set_waiting(NotifyWait::Topic, Some(what));
    }

    /// Shows in `/readyz` which partitions have not started yet.
    fn show_starts(&self) {
        let waiting = self.partitions.waiting_for();
        self.status.set_waiting(NotifyWait::Start, waiting);
    }

    /// Finds the offset from which a partition continues.
    fn begin(&mut self, partition: i32) {
        let assignment = self.partitions.assign(partition);
        self.find_start(partition, assignment, Duration::ZERO);
    }

    /// Starts a task that waits for `pause` and then finds the offset from which a partition continues.
    fn find_start(&self, partition: i32, assignment: u64, pause: Duration) {
        let (starter, done) = (self.starter.clone(), self.done_in.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let started = starter.start(partition).await;
            drop(done.send(TaskResult::Started {
                partition,
                assignment,
                started,
            }));
        });
    }

    /// Begins to read a partition. If the start offset of the partition could not be found, the role tries again later.
    fn start_found(&mut self, partition: i32, assignment: u64, started: Result<Started, String>) {
        match started {
            Ok(Started {
                fold,
                next,
                rows,
                bases,
            }) => {
                if !self.partitions.start(partition, assignment, fold, bases) {
                    return;
                }
                self.consumer.begin(partition, assignment, next);
                for row in rows {
                    self.deliveries.take_row(partition, row);
                }
            }
            Err(why) => {
                let partitions = &mut self.partitions;
                if !partitions.start_failed(partition, assignment, why.clone()) {
                    return;
                }
                self.warn("start a partition", &why);
                self.find_start(partition, assignment, START_PAUSE);
            }
        }
        self.show_starts();
    }

    /// Restarts every partition from its checkpoint. The restart detects records that retention has deleted.
    fn begin_again(&mut self) {
        for partition in self.partitions.numbers() {
            self.consumer.hold(partition);
            self.deliveries.forget(partition);
            self.begin(partition);
        }
    }

    fn finish(&mut self, done: TaskResult) {
        match done {
            TaskResult::Started {
                partition,
                assignment,
                started,
            } => self.start_found(partition, assignment, started),
            TaskResult::Written {
                partition,
                assignment,
                name,
                result,
            } => self.row_written(partition, assignment, &name, result),
            TaskResult::Published {
                partition,
                assignment,
                result,
            } => {
                if let Err(error) = result {
                    self.warn("publish a checkpoint", &dynamodb_error(&error));
                }
                self.partitions.published(partition, assignment);
            }
            TaskResult::Attempt(attempt) => self.deliveries.take_attempt(attempt),
            TaskResult::Silences(Ok(silences)) => self.deliveries.set_silences(silences),
            TaskResult::Silences(Err(error)) => {
                self.warn("read the silences", &dynamodb_error(&error));
            }
            TaskResult::TopicId(Some(id)) if *id != *self.starter.topic_id => {
                self.fail("the topic was made again; the next start reads it from its beginning");
            }
            TaskResult::TopicId(Some(_)) => self.status.set_waiting(NotifyWait::Topic, None),
            TaskResult::TopicId(None) => {}
        }
    }

    fn row_written(
        &mut self,
        partition: i32,
        assignment: u64,
        name: &IncidentName,
        result: Result<StoredIncident, StoreError>,
    ) {
        let (is_known, now_ms) = (result.is_ok(), steady_ms());
        let is_current = self
            .partitions
            .written(partition, assignment, name, is_known, now_ms);
        match result {
            Ok(row) if is_current => self.deliveries.take_row(partition, row),
            Ok(_) => {}
            Err(error) => {
                self.warn("write an incident", &dynamodb_error(&error));
            }
        }
    }

    /// Evaluates the waiting records, unless too many rows or messages are outstanding.
    async fn fold_backlog(&mut self) {
        while !self.is_full()
            && let Some(run) = self.backlog.pop_front()
        {
            let PartitionRecords {
                partition,
                assignment,
                records,
                ..
            } = run;
            let bytes: u64 = records.iter().map(|record| u64::from(record.bytes)).sum();
            self.budget.free(bytes);
            self.fold_records(partition, assignment, records).await;
        }
    }

    fn is_full(&self) -> bool {
        let unwritten: usize = self.partitions.owners().map(Owner::unwritten_count).sum();
        unwritten > UNWRITTEN_MAX || self.deliveries.live_count() > LIVE_MAX
    }

    async fn fold_records(&mut self, partition: i32, assignment: u64, records: Vec<Record>) {
        for record in records {
            let Some(owner) = self.partitions.owner(partition, assignment) else {
                return;
            };
            let expected = owner.fold().next();
            if record.offset > expected {
                let gap = Gap {
                    from: expected,
                    to: record.offset,
                };
                match confirm(&self.second, partition, gap).await {
                    Verdict::Real => owner.skip_gap(gap.to),
                    Verdict::Skipped { .. } | Verdict::Unknown => {
                        self.consumer.begin(partition, assignment, expected);
                        return;
                    }
                    Verdict::OutOfRange => {
                        self.consumer.hold(partition);
                        self.begin(partition);
                        return;
                    }
                }
            }
            let body = match &record.content {
                Content::Valid(body) => Some(body),
                Content::Rejected(_) => None,
            };
            owner.take(record.offset, record.timestamp_ms, body);
        }
    }

    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.deliveries.send_all_due();
        self.publish();
        if self.ticks.is_multiple_of(SILENCE_TICKS) || self.ticks == 1 {
            let (table, done) = (self.table.clone(), self.done_in.clone());
            tokio::spawn(
                async move { drop(done.send(TaskResult::Silences(table.silences().await))) },
            );
        }
        if self.ticks.is_multiple_of(TOPIC_TICKS) {
            let (starter, done) = (self.starter.clone(), self.done_in.clone());
            tokio::spawn(async move {
                let id = topic_id(starter.inquiry, &starter.topic).await;
                drop(done.send(TaskResult::TopicId(id.ok())));
            });
        }
        let (incidents, events) = self.deliveries.report(&self.partitions);
        if incidents + events > self.left_out && self.ticks.is_multiple_of(WARN_TICKS) {
            tracing::warn!(
                incidents,
                events,
                "rules ignored incidents or events above their limits"
            );
            self.left_out = incidents + events;
        }
    }

    fn publish(&mut self) {
        let topic_id = &self.starter.topic_id;
        let deliveries = &self.deliveries;
        self.partitions
            .publish(topic_id, |partition| deliveries.owed(partition));
    }
}

/// Reads a gap in the offsets again, to find out whether the log really contains no records in the gap.
async fn confirm(second: &Arc<SecondReader>, partition: i32, gap: Gap) -> Verdict {
    let reader = Arc::clone(second);
    let read = run_blocking(move || reader.read(partition, gap)).await;
    let verdict = gap.verdict(read);
    warn_if_skipped(partition, gap, verdict);
    verdict
}
