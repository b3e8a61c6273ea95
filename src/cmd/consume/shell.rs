//! The loop that carries the pipeline's decisions out.
//!
//! One task owns the pipeline. It takes what the consumer thread and finished requests tell, lets
//! time pass, and starts what the pipeline asks for; every request runs in a task of its own and
//! reports back as a [`Done`]. Nothing is decided here but when to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::cmd::consume::Host;
use crate::cmd::consume::locate::{Located, Locator, blocking};
use crate::cmd::{Exit, SettingsError};
use crate::core::batch::{Batch, BatchOutcome};
use crate::core::event::Offset;
use crate::core::keys;
use crate::core::parse::Reason;
use crate::core::pipeline::{CommitPart, Halt, Output, Pipeline, Publish};
use crate::core::plan::{Put, PutTable, RowUpdate, Ticket, UpdateOutcome};
use crate::core::worker::Rejected;
use crate::kafka::consumer::{Budget, Consumer, Event};
use crate::kafka::dlq::DeadLetters;
use crate::shutdown::Shutdown;
use crate::store::error::{Kind, StoreError};
use crate::store::write::Writer;
use crate::telemetry::unix_ms;

/// Longest drain after SIGTERM; with committing and leaving the group it stays below 10 s.
const SHUTDOWN_DRAIN_MS: i64 = 7_000;
/// Longest wait for the last commit, and for the consumer thread to leave the group.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1_200);
/// Time between two looks at lag, the log's ends and the stop condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(1_000);
/// Least time between two lines about the same trouble.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// How long one question to a broker may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the shell is made of.
pub(super) struct Parts {
    pub(super) pipeline: Pipeline,
    pub(super) consumer: Consumer,
    pub(super) locator: Locator,
    pub(super) writer: Writer,
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
enum Done {
    Batch(Batch, BatchOutcome, Option<StoreError>),
    Update(
        RowUpdate,
        Result<(UpdateOutcome, Option<StoreError>), StoreError>,
    ),
    Rejected(Ticket),
    Refused(PutTable, Ticket),
    Located(Result<Vec<Located>, SettingsError>),
    Created {
        partition: i32,
        assignment: u64,
    },
    Topic(Option<String>),
    Committed(bool),
    Published(Publish),
    Tables(Option<String>),
    Ends(Vec<(i32, Offset)>),
    AtEnd(bool),
}

/// A revoke that waits for its partitions to drain.
struct Leaving {
    waiting: BTreeSet<i32>,
    parts: Vec<CommitPart>,
    answer: Option<std::sync::mpsc::Sender<Vec<CommitPart>>>,
}

pub(super) struct Shell {
    p: Parts,
    done_in: UnboundedSender<Done>,
    done: UnboundedReceiver<Done>,
    leaving: Vec<Leaving>,
    topic_id: String,
    tables_id: Option<String>,
    /// A table was missing: nothing is sent until the config item was read again.
    tables_suspect: bool,
    at_end: BTreeMap<i32, (Offset, Instant)>,
    log_ends: BTreeMap<i32, Offset>,
    looking: bool,
    stop_ends: Option<Vec<(i32, Offset)>>,
    said: BTreeMap<&'static str, Instant>,
    producer_time_said: bool,
    given_up_before: u64,
    end: Option<anyhow::Result<()>>,
}

impl Shell {
    pub(super) fn new(parts: Parts) -> Shell {
        let (done_in, done) = mpsc::unbounded_channel();
        Shell {
            p: parts,
            done_in,
            done,
            leaving: Vec::new(),
            topic_id: String::new(),
            tables_id: None,
            tables_suspect: false,
            at_end: BTreeMap::new(),
            log_ends: BTreeMap::new(),
            looking: false,
            stop_ends: None,
            said: BTreeMap::new(),
            producer_time_said: false,
            given_up_before: 0,
            end: None,
        }
    }

    /// Runs until something ends it, then drains, commits and leaves the group.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<Exit> {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.p
            .host
            .status
            .set_waiting(Some("Kafka to assign partitions".to_owned()));
        if self.p.stop_at_end {
            self.note_stop_ends().await?;
        }
        while self.end.is_none() {
            let wake = self
                .p
                .pipeline
                .next_ms()
                .map_or(1_000, |ms| (ms - unix_ms()).clamp(0, 1_000));
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
            self.take_waiting();
            self.act();
        }
        self.leave().await
    }

    /// Takes what else has arrived, so that one round of decisions covers it all.
    fn take_waiting(&mut self) {
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

    fn event(&mut self, event: Event) {
        let now_ms = unix_ms();
        match event {
            Event::Assigned(partitions) => self.p.pipeline.assigned(now_ms, &partitions),
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
                    self.at_end.remove(&run.partition);
                    self.p
                        .pipeline
                        .records(now_ms, run.partition, run.assignment, run.records);
                }
            }
            Event::End {
                partition,
                assignment,
                probed,
            } => self.reached_end(partition, assignment, probed),
            Event::OutOfRange => self.check_ranges(),
            Event::TopicMissing => self.say("topic", || {
                tracing::warn!("the topic does not exist, waiting for it");
            }),
            Event::Fatal(text) => self.fail(&format!("the Kafka client cannot go on: {text}")),
        }
    }

    fn finish(&mut self, done: Done) {
        let now_ms = unix_ms();
        let chance = fastrand::u32(..);
        match done {
            Done::Batch(batch, outcome, error) => {
                self.notice(error);
                self.p
                    .pipeline
                    .batch_answered(now_ms, batch, &outcome, chance);
            }
            Done::Update(update, Ok((outcome, error))) => {
                self.notice(error);
                self.p
                    .pipeline
                    .update_answered(now_ms, &update, outcome, chance);
            }
            Done::Update(_, Err(error)) => {
                let text =
                    format!("a row cannot be updated, which is a bug or a foreign writer: {error}");
                self.end = Some(Err(SettingsError(text).into()));
            }
            Done::Rejected(ticket) => self.p.pipeline.reject_done(ticket),
            Done::Refused(table, ticket) => self.p.pipeline.refused_done(table, ticket),
            Done::Located(Ok(located)) => {
                for l in located {
                    self.topic_id.clone_from(&l.facts.topic_id);
                    self.tables_id = Some(l.facts.tables_id.clone());
                    self.p
                        .pipeline
                        .located(now_ms, l.partition, l.assignment, &l.facts, &l.tables);
                }
            }
            Done::Located(Err(error)) => self.end = Some(Err(error.into())),
            Done::Created {
                partition,
                assignment,
            } => self.locate(vec![(partition, assignment)], Duration::ZERO),
            Done::Topic(id) => self.p.pipeline.topic_checked(now_ms, id.as_deref()),
            Done::Committed(taken) => self.p.pipeline.commit_done(now_ms, taken),
            Done::Published(publish) => self.p.pipeline.published(now_ms, &publish),
            Done::Tables(id) => self.tables_read(id),
            Done::Ends(ends) => self.took_ends(&ends),
            Done::AtEnd(reached) => {
                self.looking = false;
                if reached {
                    tracing::info!("the group has committed the end of every partition");
                    self.end = Some(Ok(()));
                }
            }
        }
    }

    /// Lets time pass and starts what is due.
    fn act(&mut self) {
        let now_ms = unix_ms();
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
                output => self.start(output, now_ms),
            }
        }
        for (at_ms, wanted) in locate {
            let wait = u64::try_from(at_ms - now_ms).unwrap_or(0);
            self.locate(wanted, Duration::from_millis(wait));
        }
        self.report();
    }

    fn start(&mut self, output: Output, now_ms: i64) {
        let (writer, done) = (self.p.writer.clone(), self.done_in.clone());
        match output {
            Output::Put(batch) if self.tables_suspect => {
                let outcome = BatchOutcome::Failed { throttled: false };
                send(&done, Done::Batch(batch, outcome, None));
            }
            Output::Put(batch) => {
                tokio::spawn(async move {
                    let (outcome, error) = writer.put(&batch, now_ms).await;
                    send(&done, Done::Batch(batch, outcome, error));
                });
            }
            Output::Update(update) if self.tables_suspect => {
                // Not sent, but an earlier try of it may have been.
                send(
                    &done,
                    Done::Update(update, Ok((UpdateOutcome::Unknown, None))),
                );
            }
            Output::Update(update) => {
                tokio::spawn(async move {
                    let result = writer.update(&update, now_ms).await;
                    send(&done, Done::Update(update, result));
                });
            }
            Output::Reject(ticket, rejected) => {
                let letters = self.p.dead_letters.clone();
                let topic_id = self.topic_id.clone();
                tokio::spawn(async move {
                    letters
                        .send(&rejected, &topic_id, || fastrand::u32(..))
                        .await;
                    send(&done, Done::Rejected(ticket));
                });
            }
            Output::Refused(table, put) => self.refused(table, put),
            Output::CreateProgress(publish) => {
                let (partition, assignment) = (publish.partition, publish.assignment);
                tokio::spawn(async move {
                    while let Err(error) = writer.create_progress(&publish).await {
                        tracing::warn!(partition, %error, "failed to create a progress item, trying again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    send(
                        &done,
                        Done::Created {
                            partition,
                            assignment,
                        },
                    );
                });
            }
            Output::Publish(publish) => self.publish(publish),
            Output::Hold { partition } => {
                self.forget(partition);
                self.p.consumer.hold(partition);
            }
            Output::Begin {
                partition,
                assignment,
                next,
            } => {
                tracing::info!(partition, %next, "partition begins");
                self.p.consumer.begin(partition, assignment, next);
            }
            Output::CheckTopic => {
                let inquiry = self.p.locator.inquiry();
                tokio::spawn(async move {
                    let topic = blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await;
                    let id = topic.ok().flatten().map(|t| t.id.to_string());
                    send(&done, Done::Topic(id));
                });
            }
            Output::Commit(parts) => self.commit(parts),
            Output::Released {
                partition,
                commit,
                publish,
            } => self.released(partition, commit, publish),
            Output::Lost {
                partition,
                from,
                to,
            } => {
                let lost = to.0 - from.0;
                tracing::error!(
                    partition, %from, %to, lost,
                    "records are lost; counts across this range are not exact"
                );
                self.p.host.metrics.records_lost.inc_by(lost.unsigned_abs());
            }
            Output::Halt(halt) => self.end = Some(Err(self.explain(&halt).into())),
            Output::Locate { .. } => unreachable!("gathered by the caller"),
        }
    }

    fn locate(&self, wanted: Vec<(i32, u64)>, wait: Duration) {
        let (locator, done) = (self.p.locator.clone(), self.done_in.clone());
        let status = Arc::clone(&self.p.host.status);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let said = std::sync::Mutex::new(None::<Instant>);
            let waiting = |what: Option<String>| {
                if let Some(what) = &what {
                    let mut said = said.lock().expect("no panic holds the lock");
                    if said.is_none_or(|at| at.elapsed() >= SAY_INTERVAL) {
                        *said = Some(Instant::now());
                        tracing::warn!("waiting for {what}");
                    }
                }
                status.set_waiting(what.map(|what| format!("waiting for {what}")));
            };
            let located = locator.locate(&wanted, waiting).await;
            send(&done, Done::Located(located));
        });
    }

    fn publish(&self, publish: Publish) {
        let (writer, done) = (self.p.writer.clone(), self.done_in.clone());
        tokio::spawn(async move {
            match writer.publish_progress(&publish).await {
                Ok(()) => send(&done, Done::Published(publish)),
                // The next commit tries again.
                Err(error) => tracing::warn!(%error, "failed to publish progress"),
            }
        });
    }

    /// A table refused an item for good: its record goes to the dead-letter topic and stays counted.
    fn refused(&self, table: PutTable, put: Put) {
        let (letters, done) = (self.p.dead_letters.clone(), self.done_in.clone());
        let (topic_id, inquiry) = (self.topic_id.clone(), self.p.locator.inquiry());
        tracing::error!(
            partition = put.event.partition, offset = %put.event.offset, event_id = %put.event.event_id,
            "the table refused an item, its record goes to the dead-letter topic"
        );
        tokio::spawn(async move {
            let (partition, offset) = (put.event.partition, put.event.offset);
            let found = blocking(move || inquiry.read_one(partition, offset, ANSWER_TIMEOUT)).await;
            let mut rejected = found.unwrap_or_else(|| Rejected {
                reason: Reason::RefusedByTable,
                detail: String::new(),
                key: None,
                value: None,
                headers: Vec::new(),
                partition,
                offset,
                timestamp_ms: None,
            });
            rejected.reason = Reason::RefusedByTable;
            rejected.detail = match table {
                PutTable::Raw => "DynamoDB refused the raw item".to_owned(),
                PutTable::Alerts => "DynamoDB refused the alert".to_owned(),
            };
            letters
                .send(&rejected, &topic_id, || fastrand::u32(..))
                .await;
            send(&done, Done::Refused(table, put.ticket));
        });
    }

    fn commit(&self, parts: Vec<CommitPart>) {
        let (inquiry, done) = (self.p.locator.inquiry(), self.done_in.clone());
        tokio::spawn(async move {
            let result = blocking(move || inquiry.commit(&parts)).await;
            if let Err(error) = &result {
                // A rebalance under way is the usual reason; the next commit covers it.
                tracing::debug!(%error, "failed to commit, trying again");
            }
            send(&done, Done::Committed(result.is_ok()));
        });
    }

    fn released(&mut self, partition: i32, commit: Option<CommitPart>, publish: Option<Publish>) {
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
    fn forget(&mut self, partition: i32) {
        self.at_end.remove(&partition);
        self.log_ends.remove(&partition);
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

    /// Looks at an error of DynamoDB: says it now and then, and notices missing tables.
    fn notice(&mut self, error: Option<StoreError>) {
        let Some(error) = error else {
            return;
        };
        self.say(
            "sink",
            || tracing::warn!(%error, "DynamoDB does not take a write, trying again"),
        );
        if error.kind() == Kind::NotFound && !self.tables_suspect {
            self.tables_suspect = true;
            self.read_tables(Duration::ZERO);
        }
    }

    fn read_tables(&self, wait: Duration) {
        let (locator, done) = (self.p.locator.clone(), self.done_in.clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let id = locator.tables_id().await;
            send(&done, Done::Tables(id));
        });
    }

    fn tables_read(&mut self, id: Option<String>) {
        match id {
            None => {
                self.p
                    .host
                    .status
                    .set_waiting(Some("waiting for the tables".to_owned()));
                self.read_tables(Duration::from_secs(1));
            }
            Some(id) => {
                self.tables_suspect = false;
                self.p.host.status.set_waiting(None);
                if self.tables_id.as_ref() != Some(&id) {
                    tracing::warn!("the tables are new, every partition starts over");
                    self.tables_id = Some(id);
                    self.p.pipeline.tables_changed(unix_ms());
                }
            }
        }
    }

    fn say_producer_time(&mut self) {
        if !self.producer_time_said && !self.p.host.producer_time_is_fine {
            self.producer_time_said = true;
            tracing::warn!(
                topic = self.p.topic,
                "records carry the producer's time, so a wrong clock can move the watermark; set message.timestamp.type=LogAppendTime"
            );
        }
    }

    /// Says something now, or not if the same was said a moment ago.
    fn say(&mut self, what: &'static str, line: impl FnOnce()) {
        let due = self
            .said
            .get(what)
            .is_none_or(|at| at.elapsed() >= SAY_INTERVAL);
        if due {
            self.said.insert(what, Instant::now());
            line();
        }
    }

    fn fail(&mut self, text: &str) {
        self.end = Some(Err(anyhow::anyhow!("{text}")));
    }

    /// Copies the pipeline's counts into the metrics and gives memory back.
    fn report(&mut self) {
        if let Some(settled) = &self.p.host.settled {
            for worker in self.p.pipeline.workers() {
                settled(worker.place().partition, worker.durable().next.0);
            }
        }
        let report = self.p.pipeline.report();
        let (m, tally) = (&self.p.host.metrics, report.tally);
        self.p.budget.free(tally.bytes_freed);
        m.in_flight_bytes
            .set(i64::try_from(self.p.budget.used()).unwrap_or(i64::MAX));
        *m.ledger.lock().expect("no panic holds the ledger") = report.ledger;
        m.events_future.inc_by(tally.future);
        m.fence_conflicts.inc_by(tally.fence_conflicts);
        for (severity, count) in ["high", "critical"].into_iter().zip(tally.alerts) {
            if count > 0 {
                m.alerts.with_label_values(&[severity]).inc_by(count);
            }
        }
        let now_ms = unix_ms();
        for at_ms in tally.durable_ms {
            let ms = u32::try_from(now_ms - at_ms).unwrap_or(0);
            m.event_latency_seconds.observe(f64::from(ms) / 1_000.0);
        }
    }

    /// Looks at what only time shows: watermarks, lag, control records at a log's end, the stop
    /// condition.
    fn look(&mut self) {
        self.p.host.status.set_beat(self.p.consumer.beat_ms());
        for worker in self.p.pipeline.workers() {
            if let Some(ms) = worker.watermark_ms() {
                #[allow(clippy::cast_precision_loss)] // far below 2^53
                let seconds = ms as f64 / 1_000.0;
                let label = worker.place().partition.to_string();
                self.p
                    .host
                    .metrics
                    .watermark_seconds
                    .with_label_values(&[&label])
                    .set(seconds);
            }
        }
        if self.looking {
            return;
        }
        self.looking = true;
        let (inquiry, done) = (self.p.locator.inquiry(), self.done_in.clone());
        let partitions: Vec<i32> = self
            .p
            .pipeline
            .workers()
            .map(|w| w.place().partition)
            .collect();
        let stop_ends = self.stop_ends.clone();
        tokio::spawn(async move {
            let asked = inquiry.clone();
            let ends = blocking(move || {
                let end = |p: &i32| Some((*p, asked.log_range(*p, ANSWER_TIMEOUT).ok()?.1));
                partitions.iter().filter_map(end).collect()
            })
            .await;
            send(&done, Done::Ends(ends));
            let reached = match stop_ends {
                None => false,
                Some(ends) => blocking(move || reached(&inquiry, &ends)).await,
            };
            send(&done, Done::AtEnd(reached));
        });
    }

    fn took_ends(&mut self, ends: &[(i32, Offset)]) {
        let places: Vec<(i32, u64, Offset)> = self
            .p
            .pipeline
            .workers()
            .map(|w| (w.place().partition, w.place().assignment, w.position()))
            .collect();
        for (partition, end) in ends {
            let place = places.iter().find(|(p, _, _)| p == partition);
            let Some((_, _, position)) = place else {
                continue;
            };
            let lag = (end.0 - position.0).max(0);
            self.p
                .host
                .metrics
                .lag_records
                .with_label_values(&[&self.p.topic, &partition.to_string()])
                .set(lag);
            self.log_ends.insert(*partition, *end);
            let rested = self
                .at_end
                .get(partition)
                .is_some_and(|(at, since)| at == position && since.elapsed() >= LOOK_INTERVAL);
            if lag > 0 && rested {
                // Nothing comes and yet the log is longer: control records, most likely.
                self.p.consumer.probe_end(*partition, *position);
            }
        }
    }

    fn reached_end(&mut self, partition: i32, assignment: u64, probed: bool) {
        let position = self
            .p
            .pipeline
            .workers()
            .find(|w| w.place().partition == partition)
            .map(crate::core::worker::Worker::position);
        let Some(position) = position else { return };
        match self.log_ends.get(&partition) {
            Some(end) if probed && *end > position => {
                self.p.pipeline.skip_gap(partition, assignment, *end);
            }
            _ => {
                self.at_end
                    .entry(partition)
                    .or_insert((position, Instant::now()));
            }
        }
    }

    /// Kafka had no record at some position and does not say which: ask the log's ends of all.
    fn check_ranges(&mut self) {
        let inquiry = self.p.locator.inquiry();
        let places: Vec<(i32, u64, Offset)> = self
            .p
            .pipeline
            .workers()
            .map(|w| (w.place().partition, w.place().assignment, w.position()))
            .collect();
        for (partition, assignment, position) in places {
            let range = inquiry.log_range(partition, ANSWER_TIMEOUT);
            if !range.is_ok_and(|(start, end)| (start..=end).contains(&position)) {
                self.p.pipeline.out_of_range(partition, assignment);
            }
        }
    }

    /// Notes the end of every partition; the stop condition is that the group commits them.
    async fn note_stop_ends(&mut self) -> anyhow::Result<()> {
        let mut attempt = 0;
        loop {
            let found = match self.p.locator.topic().await {
                Err(super::locate::Trouble::Settings(error)) => return Err(error.into()),
                Err(super::locate::Trouble::Wait(what)) => Err(what),
                Ok((_, partitions)) => {
                    let inquiry = self.p.locator.inquiry();
                    let ends = blocking(move || {
                        (0..partitions)
                            .map(|p| Ok((p, inquiry.log_range(p, ANSWER_TIMEOUT)?)))
                            .collect::<Result<Vec<_>, rdkafka::error::KafkaError>>()
                    })
                    .await;
                    ends.map_err(|e| format!("Kafka: {e}"))
                }
            };
            match found {
                Ok(ranges) => {
                    let some = |(p, (start, end)): (i32, (Offset, Offset))| {
                        (end > start).then_some((p, end))
                    };
                    self.stop_ends = Some(ranges.into_iter().filter_map(some).collect());
                    return Ok(());
                }
                Err(what) => {
                    if attempt % 10 == 0 {
                        tracing::warn!("waiting for {what}");
                    }
                    self.p
                        .host
                        .status
                        .set_waiting(Some(format!("waiting for {what}")));
                    attempt += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Returns what a person must know and do.
    fn explain(&self, halt: &Halt) -> SettingsError {
        let (topic, group) = (&self.p.topic, &self.p.group);
        SettingsError(match halt {
            Halt::Unreadable {
                partition,
                next,
                progress,
            } => {
                let there = match progress {
                    Some(at) => format!(
                        "offset {} (progress item {})",
                        at.next,
                        keys::log_key(&self.topic_id, *partition)
                    ),
                    None => "the log's beginning".to_owned(),
                };
                format!(
                    "group {group} has offset {next} committed for {topic} partition {partition} without this program's metadata, as offset-reset tools leave it; counting from there would not be exact. Stop all members, run kafka-consumer-groups --delete-offsets --group {group} --topic {topic}, and start again: it then goes on at {there}"
                )
            }
            Halt::Expired {
                partition,
                from,
                to,
            } => format!(
                "{topic} partition {partition}: records {from} to {to} (exclusive) were removed by retention before they were read, {} records; --on-data-loss continue counts them as lost and goes on at {to}",
                to.0 - from.0
            ),
            Halt::Truncated {
                partition,
                from,
                end,
            } => format!(
                "{topic} partition {partition}: the log ends at {end}, below offset {from} where reading would go on, so records {end} to {from} (exclusive) were cut off its end; --on-data-loss continue waits for the log to grow past {from} and counts them as lost"
            ),
        })
    }

    /// Stops reading, drains, commits, leaves the group.
    async fn leave(mut self) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let partitions: Vec<i32> = self.p.pipeline.partitions().collect();
        self.given_up_before = self.p.pipeline.report().ledger.given_up;
        tracing::info!(in_flight = self.p.pipeline.in_flight(), "draining");
        for partition in &partitions {
            self.p.consumer.hold(*partition);
        }
        self.leaving.push(Leaving {
            waiting: partitions.iter().copied().collect(),
            parts: Vec::new(),
            answer: None,
        });
        self.p
            .pipeline
            .revoked(unix_ms(), &partitions, false, SHUTDOWN_DRAIN_MS);
        loop {
            self.act();
            if self.leaving.iter().all(|l| l.waiting.is_empty()) {
                break;
            }
            let wake = self
                .p
                .pipeline
                .next_ms()
                .map_or(100, |ms| (ms - unix_ms()).clamp(0, 100));
            tokio::select! {
                event = self.p.events.recv() => if let Some(event) = event { self.event(event) },
                done = self.done.recv() => if let Some(done) = done { self.finish(done) },
                () = tokio::time::sleep(Duration::from_millis(wake.unsigned_abs())) => {}
            }
            self.take_waiting();
        }
        let parts: Vec<CommitPart> = self.leaving.drain(..).flat_map(|l| l.parts).collect();
        self.last_commit(&parts).await;
        let ledger = self.p.pipeline.report().ledger;
        // Given up by this last drain, as opposed to earlier rebalances.
        let left_behind = ledger.given_up - self.given_up_before;
        *self
            .p
            .host
            .metrics
            .ledger
            .lock()
            .expect("no panic holds the ledger") = ledger;
        // The client leaves the group when its last handle goes, on the consumer thread if nothing
        // else holds one; the channel closes once it has.
        drop(self.p.locator);
        self.p.consumer.close();
        let left = async {
            while let Some(event) = self.p.events.recv().await {
                if let Event::Revoked { answer, .. } = event {
                    drop(answer.send(Vec::new()));
                }
            }
        };
        if tokio::time::timeout(LEAVE_TIMEOUT, left).await.is_err() {
            tracing::warn!("Kafka did not confirm in time that this member left the group");
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(took_ms, "left the group");
        match self.end {
            Some(Err(error)) => Err(error),
            _ if left_behind > 0 => {
                anyhow::bail!("{left_behind} records are not yet durable and will be read again")
            }
            _ => Ok(Exit::Done),
        }
    }

    async fn last_commit(&self, parts: &[CommitPart]) {
        if parts.is_empty() {
            return;
        }
        let (inquiry, parts) = (self.p.locator.inquiry(), parts.to_vec());
        let answered = blocking(move || inquiry.commit(&parts));
        match tokio::time::timeout(LEAVE_TIMEOUT, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last commit was refused"),
            Err(_) => tracing::warn!("the last commit was not answered"),
        }
    }
}

/// Tells whether the group's commits have reached `ends`.
fn reached(inquiry: &crate::kafka::consumer::Inquiry, ends: &[(i32, Offset)]) -> bool {
    let partitions: Vec<i32> = ends.iter().map(|(p, _)| *p).collect();
    match inquiry.commits(&partitions, ANSWER_TIMEOUT) {
        Ok(commits) => ends
            .iter()
            .all(|(p, end)| commits.get(p).is_some_and(|c| c.next >= *end)),
        Err(_) => false,
    }
}

fn send(done: &UnboundedSender<Done>, what: Done) {
    // Fails only once the shell is gone, and then nobody waits for it.
    if done.send(what).is_err() {
        tracing::trace!("a request outlived the role");
    }
}
