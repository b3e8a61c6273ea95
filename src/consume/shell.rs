//! The loop that carries the pipeline's decisions out.
//!
//! One task owns the pipeline. It takes what the consumer thread and finished requests tell, lets
//! time pass, and starts what the pipeline asks for; every request runs in a task of its own and
//! reports back as a [`Done`] (`requests`). Nothing is decided here but when to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::consume::Host;
use crate::consume::locate::{Found, Locator, Trouble, Unlocated};
use crate::consume::renew::StartConsumer;
use crate::consume::status::Wait;
use crate::consume::watch::Standing;
use crate::core::batch::{Batch, BatchOutcome};
use crate::core::doubt::Doubt;
use crate::core::event::Offset;
use crate::core::gap::{Gap, SecondRead};
use crate::core::keys;
use crate::core::pipeline::{CommitPart, Output, Pipeline, Publish};
use crate::core::plan::{PutTable, RowUpdate, Ticket, UpdateOutcome};
use crate::core::stall::StallDetector;
use crate::exit::{Exit, SettingsError};
use crate::failure::Failure;
use crate::kafka::budget::Budget;
use crate::kafka::chatter::Chatter;
use crate::kafka::consumer::{Consumer, Event};
use crate::kafka::dlq::DeadLetters;
use crate::kafka::membership;
use crate::kafka::refusal::Refusal;
use crate::kafka::second_read::SecondReader;
use crate::shutdown::Shutdown;
use crate::store::error::StoreError;
use crate::store::write::Writer;
use crate::telemetry::{steady_ms, unix_ms};

/// Time between two looks at lag, the log's ends and the stop condition.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(1_000);
/// Time between two looks at the topic's id: of what is sent to a topic made again before it is seen,
/// nothing is promised.
const TOPIC_INTERVAL: Duration = Duration::from_millis(300);
/// Least time between two lines about the same trouble.
pub(super) const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// Most gaps that are read a second time at once.
const SECOND_READS_MAX: usize = 8;
/// How long one question to a broker may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the shell is made of.
pub(super) struct Parts {
    pub(super) pipeline: Pipeline,
    pub(super) consumer: Consumer,
    /// Makes another one where the first is stuck.
    pub(super) start_consumer: StartConsumer,
    pub(super) locator: Locator,
    pub(super) writer: Writer,
    pub(super) second_reader: Arc<SecondReader>,
    pub(super) dead_letters: DeadLetters,
    pub(super) budget: Arc<Budget>,
    pub(super) host: Host,
    pub(super) events: UnboundedReceiver<Event>,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) drain_max: Duration,
    pub(super) stop_at_end: bool,
}

/// A request that ended.
pub(super) enum Done {
    Batch(Batch, BatchOutcome, Option<StoreError>),
    Update(
        RowUpdate,
        Result<(UpdateOutcome, Option<StoreError>), StoreError>,
    ),
    Rejected(Ticket),
    Refused(PutTable, Ticket),
    Created {
        partition: i32,
        assignment: u64,
    },
    Published(Publish),
    /// A partition's progress item could not be made.
    NotCreated(Unlocated),
    /// The tables' id, as the config item gave it, and when it was asked for, by `sys::boot_ms`.
    Tables(String, i64),
    /// There is no config item, or no table for it.
    NoTables,
    /// These tables, which were missing, were asked at this time: the tables' id if all are there.
    Settled(BTreeSet<usize>, i64, Result<String, Trouble>),
    /// What a second read found in a gap.
    GapRead(GapRead),
    /// From the Kafka client of this generation; those of an earlier one mean nothing any more.
    Answer(u64, Answer),
}

/// A gap with its partition, its assignment and what a second read found.
pub(super) struct GapRead {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    pub(super) gap: Gap,
    pub(super) second: SecondRead,
}

/// What a question to Kafka brought.
pub(super) enum Answer {
    Located(Result<Found, SettingsError>),
    Topic(Option<String>),
    Committed(bool),
    Looked(TopicNow, Option<Vec<(i32, Offset)>>),
    Outside(Vec<Standing>),
    RangesUnknown(Vec<Standing>),
    /// How many records are left until the end of `--stop-at-end`; `None` where nobody asked or knows.
    AtEnd(Option<u64>),
}

/// What the brokers say about the topic now.
pub(super) enum TopicNow {
    Is(String),
    Missing,
    Unknown,
}

/// A revoke that waits for its partitions to drain.
pub(super) struct Leaving {
    pub(super) waiting: BTreeSet<i32>,
    pub(super) parts: Vec<CommitPart>,
    pub(super) answer: Option<std::sync::mpsc::Sender<Vec<CommitPart>>>,
}

pub(super) struct Shell {
    pub(super) p: Parts,
    pub(super) done_in: UnboundedSender<Done>,
    pub(super) done: UnboundedReceiver<Done>,
    pub(super) leaving: Vec<Leaving>,
    pub(super) topic_id: String,
    /// What those partitions wait for that cannot start yet.
    pub(super) unlocated: BTreeMap<i32, String>,
    /// Dead letters under way, by partition and assignment.
    pub(super) letters: BTreeMap<(i32, u64), JoinSet<()>>,
    /// Who reads a record again has a Kafka client of its own for it: one at a time.
    pub(super) rereading: Arc<Semaphore>,
    /// Bounds how many gaps are read a second time at once.
    pub(super) second_reads: Arc<Semaphore>,
    pub(super) tables_asked_at: Instant,
    /// What is known of the tables, and whether that is enough to write to them.
    pub(super) doubt: Doubt,
    /// The tables whose last write failed, and how.
    pub(super) failing: BTreeMap<usize, String>,
    pub(super) looking: bool,
    /// When a look asked for the ends of the logs too.
    pub(super) looked_at: Instant,
    pub(super) stalls: StallDetector,
    /// Number of the Kafka client.
    pub(super) generation: u64,
    pub(super) stop_ends: Option<Vec<(i32, Offset, Offset)>>,
    pub(super) said: BTreeMap<&'static str, Instant>,
    pub(super) producer_time_said: bool,
    pub(super) given_up_before: u64,
    pub(super) end: Option<anyhow::Result<()>>,
}

/// Returns once the brokers refuse this consumer for good.
async fn refused(chatter: Chatter) -> Refusal {
    loop {
        tokio::time::sleep(LOOK_INTERVAL / 4).await;
        if let Some(refusal) = chatter.hopeless() {
            return refusal;
        }
    }
}

impl Shell {
    pub(super) fn new(parts: Parts) -> Shell {
        let (done_in, done) = mpsc::unbounded_channel();
        let stalls = StallDetector::new(parts.host.stall_ms);
        Shell {
            p: parts,
            done_in,
            done,
            leaving: Vec::new(),
            topic_id: String::new(),
            unlocated: BTreeMap::new(),
            letters: BTreeMap::new(),
            rereading: Arc::new(Semaphore::new(1)),
            second_reads: Arc::new(Semaphore::new(SECOND_READS_MAX)),
            tables_asked_at: Instant::now(),
            doubt: Doubt::default(),
            failing: BTreeMap::new(),
            looking: false,
            looked_at: Instant::now(),
            stalls,
            generation: 0,
            stop_ends: None,
            said: BTreeMap::new(),
            producer_time_said: false,
            given_up_before: 0,
            end: None,
        }
    }

    /// Runs until something ends it, then drains, commits and leaves the group.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<Exit> {
        let mut look = tokio::time::interval(TOPIC_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.p.host.status.set_waiting(
            Wait::Start,
            Some("waiting for Kafka to assign partitions".to_owned()),
        );
        if self.p.stop_at_end {
            let chatter = self.p.consumer.chatter();
            tokio::select! {
                noted = self.note_stop_ends() => noted?,
                // This consumer has an end, so somebody waits for it.
                refusal = refused(chatter) => {
                    return Err(SettingsError((&refusal).into()).into());
                }
                () = shutdown.wait() => {}
            }
        }
        while self.end.is_none() {
            let wake = self
                .p
                .pipeline
                .next_ms()
                .map_or(1_000, |ms| (ms - steady_ms()).clamp(0, 1_000));
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                event = self.p.events.recv() => match event {
                    Some(event) => self.event(event),
                    None => self.fail("the consumer thread ended"),
                },
                done = self.done.recv() => self.finish(done.expect("the shell holds a sender")),
                _ = look.tick() => self.look(),
                () = tokio::time::sleep(Duration::from_millis(wake.unsigned_abs())) => {}
            }
            // What is ready runs first, so that one round of decisions covers all of its answers: a round
            // for each would start one request each, and wake a thread for it.
            tokio::task::yield_now().await;
            self.take_waiting();
            self.act();
        }
        self.leave().await
    }

    /// Takes what else has arrived, so that one round of decisions covers it all.
    pub(super) fn take_waiting(&mut self) {
        for _ in 0..64 {
            let mut idle = true;
            if let Ok(done) = self.done.try_recv() {
                self.finish(done);
                idle = false;
            }
            if let Ok(event) = self.p.events.try_recv() {
                self.event(event);
                idle = false;
            }
            if idle {
                break;
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        let now_ms = steady_ms();
        match event {
            Event::Assigned(partitions) => {
                if partitions.is_empty() {
                    // More members than partitions: this one stands by.
                    self.p.host.status.set_waiting(Wait::Start, None);
                }
                self.p.pipeline.assigned(now_ms, &partitions);
            }
            Event::Revoked {
                partitions,
                lost,
                answer,
            } => {
                for partition in &partitions {
                    self.forget(*partition);
                }
                self.leaving.push(Leaving {
                    waiting: partitions.iter().copied().collect(),
                    parts: Vec::new(),
                    answer: Some(answer),
                });
                let drain_ms = i64::try_from(self.p.drain_max.as_millis()).unwrap_or(i64::MAX);
                self.p.pipeline.revoked(now_ms, &partitions, lost, drain_ms);
            }
            Event::Records(runs) => {
                for run in runs {
                    if run.producer_time > 0 {
                        self.p.host.metrics.producer_time.inc_by(run.producer_time);
                        self.say_producer_time();
                    }
                    self.p
                        .pipeline
                        .records(now_ms, run.partition, run.assignment, run.records);
                }
            }
            Event::End {
                partition,
                assignment,
                at,
            } => self
                .p
                .pipeline
                .reached_end(now_ms, partition, assignment, at),
            Event::OutOfRange => self.check_ranges(self.places()),
            Event::TopicMissing => self.topic_missing(),
            Event::MemberRefused(code) => {
                let error = SettingsError(Failure {
                    what: format!("Kafka refuses this member of group {}", self.p.group),
                    why: Some(code.to_string()),
                    remedy: membership::remedy(code).map(str::to_owned),
                });
                self.end = Some(Err(error.into()));
            }
            // Whoever starts again would fence the other in turn, for ever.
            Event::Fatal { fenced: true, .. } => {
                let text =
                    "another consumer of the group has joined with the same --group-instance-id";
                let error = SettingsError::new(text).with_remedy("give each its own");
                self.end = Some(Err(error.into()));
            }
            Event::Fatal { text, .. } => {
                self.fail(&format!("the Kafka client cannot go on: {text}"));
            }
        }
    }

    pub(super) fn finish(&mut self, done: Done) {
        let now_ms = steady_ms();
        let chance = fastrand::u32(..);
        match done {
            Done::Batch(batch, outcome, error) => {
                let table = match batch.table {
                    PutTable::Raw => keys::RAW,
                    PutTable::Alerts => keys::ALERTS,
                };
                self.notice(table, error);
                self.p
                    .pipeline
                    .batch_answered(now_ms, batch, &outcome, chance);
            }
            Done::Update(update, Ok((outcome, error))) => {
                let table = match update.row.window_start_ms {
                    None => keys::TOTALS,
                    Some(_) => keys::AGGREGATIONS,
                };
                self.notice(table, error);
                self.p
                    .pipeline
                    .update_answered(now_ms, &update, outcome, chance);
            }
            Done::Update(_, Err(error)) => {
                let text = "a row cannot be updated, which is a bug or a foreign writer";
                let error = SettingsError::new(text).with_why(error.to_string());
                self.end = Some(Err(error.into()));
            }
            Done::Rejected(ticket) => self.p.pipeline.reject_done(ticket),
            Done::Refused(table, ticket) => self.p.pipeline.refused_done(table, ticket),
            Done::Created {
                partition,
                assignment,
            } => self.locate(vec![(partition, assignment)], Duration::ZERO),
            Done::Published(publish) => self.p.pipeline.published(now_ms, &publish),
            Done::NotCreated(missing) => {
                self.not_located(now_ms, missing);
                self.say_unlocated();
            }
            Done::Tables(id, asked_ms) => self.tables_read(&id, asked_ms),
            Done::NoTables => self.miss(keys::TOTALS),
            Done::Settled(asked, asked_ms, found) => self.settled(&asked, asked_ms, found),
            Done::GapRead(g) => {
                self.p
                    .pipeline
                    .gap_checked(now_ms, g.partition, g.assignment, g.gap, g.second);
            }
            Done::Answer(generation, answer) if generation == self.generation => {
                self.answered(now_ms, answer);
            }
            Done::Answer(..) => {}
        }
    }

    fn answered(&mut self, now_ms: i64, answer: Answer) {
        match answer {
            Answer::Located(Ok(found)) => {
                for l in found.located {
                    self.topic_id.clone_from(&l.facts.topic_id);
                    self.tables_read(&l.facts.tables_id, found.asked_ms);
                    self.unlocated.remove(&l.partition);
                    self.p
                        .pipeline
                        .located(now_ms, l.partition, l.assignment, &l.facts, &l.tables);
                }
                for m in found.missing {
                    self.not_located(now_ms, m);
                }
                self.say_unlocated();
            }
            Answer::Located(Err(error)) => self.end = Some(Err(error.into())),
            Answer::Topic(id) => self.p.pipeline.topic_checked(now_ms, id.as_deref()),
            Answer::Committed(taken) => self.p.pipeline.commit_done(now_ms, taken),
            Answer::Looked(topic, ends) => self.looked(now_ms, &topic, ends.as_deref()),
            Answer::Outside(outside) => self.took_outside(&outside),
            Answer::RangesUnknown(places) => self.check_ranges(places),
            Answer::AtEnd(left) => {
                self.looking = false;
                if let Some(left) = left {
                    self.p.host.status.set_left(left);
                }
                if left == Some(0) {
                    tracing::info!("the group has committed the end of every partition");
                    self.end = Some(Ok(()));
                }
            }
        }
    }

    fn not_located(&mut self, now_ms: i64, missing: Unlocated) {
        let (partition, assignment) = (missing.partition, missing.assignment);
        if self.p.pipeline.has(partition, assignment) {
            self.unlocated.insert(partition, missing.why);
        }
        self.p.pipeline.not_located(now_ms, partition, assignment);
    }

    /// Says what partitions wait for that cannot start yet.
    fn say_unlocated(&mut self) {
        let first = self.unlocated.values().next();
        let waiting = first.map(|why| format!("waiting for {why}"));
        if let Some(waiting) = waiting.clone() {
            self.say("start", || tracing::warn!("{waiting}"));
        }
        self.p.host.status.set_waiting(Wait::Start, waiting);
    }

    /// Lets time pass and starts what is due.
    pub(super) fn act(&mut self) {
        let now_ms = steady_ms();
        self.mind_tables();
        self.p.pipeline.pump(now_ms);
        let mut locate: BTreeMap<i64, Vec<(i32, u64)>> = BTreeMap::new();
        while let Some(output) = self.p.pipeline.poll_output() {
            match output {
                Output::Locate {
                    partition,
                    assignment,
                    not_before_ms,
                } => locate
                    .entry(not_before_ms)
                    .or_default()
                    .push((partition, assignment)),
                output => self.start(output),
            }
        }
        for (at_ms, wanted) in locate {
            let wait = u64::try_from(at_ms - now_ms).unwrap_or(0);
            self.locate(wanted, Duration::from_millis(wait));
        }
        if self.p.budget.is_tight() {
            self.p.pipeline.make_room();
        }
        self.mind_letters();
        self.report();
    }

    pub(super) fn released(
        &mut self,
        partition: i32,
        commit: Option<CommitPart>,
        publish: Option<Publish>,
    ) {
        self.forget(partition);
        if let Some(publish) = publish {
            self.publish(publish);
        }
        // A partition is released once, however many wait for it: a revoke during the last drain is
        // one more. Committing the same restart point twice changes nothing.
        for leaving in &mut self.leaving {
            if leaving.waiting.remove(&partition) {
                leaving.parts.extend(commit.clone());
            }
        }
        self.leaving.retain_mut(|leaving| {
            if !leaving.waiting.is_empty() {
                return true;
            }
            let Some(answer) = &leaving.answer else {
                return true;
            };
            if answer.send(std::mem::take(&mut leaving.parts)).is_err() {
                tracing::debug!("a drain took longer than the callback waits");
            }
            false
        });
    }

    /// Removes what is kept per partition, its series included.
    pub(super) fn forget(&mut self, partition: i32) {
        if self.unlocated.remove(&partition).is_some() {
            self.say_unlocated();
        }
        self.stalls.revoked(partition);
        let label = partition.to_string();
        // A series that was never made cannot be removed; that is no trouble.
        drop(
            self.p
                .host
                .metrics
                .lag_records
                .remove_label_values(&[&self.p.topic, &label]),
        );
        drop(
            self.p
                .host
                .metrics
                .watermark_seconds
                .remove_label_values(&[&label]),
        );
    }

    pub(super) fn topic_missing(&mut self) {
        let what = format!(
            "waiting for topic {} to exist (citystream init-tables makes it)",
            self.p.topic
        );
        self.p.host.status.set_waiting(Wait::Topic, Some(what));
        self.say("topic", || {
            let todo = crate::kafka::MISSING_REMEDY;
            tracing::warn!(todo, "the topic does not exist, waiting for it");
        });
    }

    pub(super) fn say_producer_time(&mut self) {
        if !self.producer_time_said && !self.p.host.producer_time_is_fine {
            self.producer_time_said = true;
            tracing::warn!(
                topic = self.p.topic,
                "records carry the producer's time, so a wrong clock can move the watermark; set message.timestamp.type=LogAppendTime"
            );
        }
    }

    /// Says something now, or not if the same was said a moment ago.
    pub(super) fn say(&mut self, what: &'static str, line: impl FnOnce()) {
        let due = self
            .said
            .get(what)
            .is_none_or(|at| at.elapsed() >= SAY_INTERVAL);
        if due {
            self.said.insert(what, Instant::now());
            line();
        }
    }

    pub(super) fn fail(&mut self, text: &str) {
        self.end = Some(Err(anyhow::anyhow!("{text}")));
    }

    /// Copies the pipeline's counts into the metrics and gives memory back.
    pub(super) fn report(&mut self) {
        if let Some(settled) = &self.p.host.settled {
            for worker in self.p.pipeline.workers() {
                settled(worker.place().partition, worker.durable().next.0);
            }
        }
        let report = self.p.pipeline.report();
        let (m, tally) = (&self.p.host.metrics, report.tally);
        self.p.budget.take(tally.bytes_taken);
        self.p.budget.free(tally.bytes_freed);
        m.in_flight_bytes
            .set(i64::try_from(self.p.budget.used()).unwrap_or(i64::MAX));
        *m.ledger.lock().expect("no panic holds the ledger") = report.ledger;
        m.events_future.inc_by(tally.future);
        m.fence_conflicts.inc_by(tally.fence_conflicts);
        for (outcome, count) in [("real", tally.gaps_real), ("skipped", tally.gaps_skipped)] {
            if count > 0 {
                m.read_gaps.with_label_values(&[outcome]).inc_by(count);
            }
        }
        for (severity, count) in ["high", "critical"].into_iter().zip(tally.alerts) {
            if count > 0 {
                m.alerts.with_label_values(&[severity]).inc_by(count);
            }
        }
        let now_ms = unix_ms();
        for at_ms in tally.durable_ms {
            // Clocks may differ by a little, and a replayed record may be years old.
            let ms = (now_ms - at_ms).clamp(0, i64::from(u32::MAX));
            let ms = u32::try_from(ms).expect("just clamped");
            m.event_latency_seconds.observe(f64::from(ms) / 1_000.0);
        }
    }
}

pub(super) fn send(done: &UnboundedSender<Done>, what: Done) {
    // Fails only once the shell is gone, and then nobody waits for it.
    if done.send(what).is_err() {
        tracing::trace!("a request outlived the role");
    }
}
