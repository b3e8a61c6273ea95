//! The loop that carries out the pipeline's decisions.
//!
//! One task owns the pipeline. The task passes three inputs to the pipeline: events from the consumer thread, results
//! of requests, and the current time. After each input, the task carries out the pipeline's decisions. The pipeline
//! decides what the consumer reads, writes and commits. The shell itself decides only when the consumer stops.

mod outputs;

use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::consume::Host;
use crate::consume::answers::{Answer, Done, Looked, ReadPosition, TopicNow};
use crate::consume::client::Client;
use crate::consume::locate::{Found, Unlocated};
use crate::consume::report::{report_lag, report_watermarks};
use crate::consume::requests::{Requests, WaitingStarts};
use crate::consume::revokes::Revokes;
use crate::consume::rollups::Rollups;
use crate::consume::status::ConsumeWait;
use crate::consume::stop_ends::StopEnds;
use crate::consume::topic_watch::{Restarts, TOPIC_INTERVAL, TopicWatch, check_ranges};
use crate::consume::trouble::Trouble;
use crate::consume::write_errors::WriteErrors;
use crate::core::clock::SteadyMs;
use crate::core::keys;
use crate::core::pipeline::Pipeline;
use crate::core::plan::PutTable;
use crate::core::worker::Worker;
use crate::exit::{Exit, SettingsError};
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::consumer::ConsumerEvent;
use crate::kafka::membership;
use crate::kafka::refusal::Refusal;
use crate::shutdown::Shutdown;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::sys;
use crate::telemetry::{LogLimits, steady_ms};

/// Maximum number of request results that one iteration of the loop handles. The same maximum applies to consumer
/// events.
const ROUND_MAX: usize = 64;

/// The settings of the shell, which do not change while it runs.
pub(super) struct ShellOptions {
    pub(super) topic: String,
    pub(super) group: String,
    /// Maximum time that a revoked partition may take to drain.
    pub(super) drain_max: Duration,
    pub(super) stop_at_end: bool,
}

/// The parts of a running consumer. Some fields are `pub(super)`, because the module `leave` needs them for the
/// shutdown.
pub(super) struct Shell {
    pub(super) pipeline: Pipeline,
    pub(super) client: Client,
    pub(super) requests: Requests,
    pub(super) rollups: Option<Rollups>,
    pub(super) done: UnboundedReceiver<Done>,
    pub(super) revokes: Revokes,
    pub(super) host: Host,
    pub(super) options: ShellOptions,
    /// The reason why the consumer stops, or `None` while it runs.
    pub(super) end: Option<anyhow::Result<()>>,
    topic: TopicWatch,
    restarts: Restarts,
    starts: WaitingStarts,
    write_errors: WriteErrors,
    log_limit: LogLimits,
    producer_time_logged: bool,
}

/// Returns a channel that carries the results of requests to the shell.
pub(super) fn done_channel() -> (UnboundedSender<Done>, UnboundedReceiver<Done>) {
    mpsc::unbounded_channel()
}

/// Waits until the brokers permanently refuse this consumer, and returns the refusal.
async fn refused(errors: ClientErrors) -> Refusal {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if let Some(refusal) = errors.lasting_refusal() {
            return refusal;
        }
    }
}

impl Shell {
    pub(super) fn new(
        pipeline: Pipeline,
        client: Client,
        requests: Requests,
        rollups: Option<Rollups>,
        done: UnboundedReceiver<Done>,
        host: Host,
        options: ShellOptions,
    ) -> Shell {
        Shell {
            pipeline,
            client,
            requests,
            rollups,
            done,
            revokes: Revokes::default(),
            host,
            options,
            end: None,
            topic: TopicWatch::new(),
            restarts: Restarts::default(),
            starts: WaitingStarts::default(),
            write_errors: WriteErrors::default(),
            log_limit: LogLimits::default(),
            producer_time_logged: false,
        }
    }

    /// Runs the loop until the consumer must stop. Before returning, the shell drains the partitions, commits and
    /// leaves the group.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<Exit> {
        let mut look = tokio::time::interval(TOPIC_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let waiting = "waiting for Kafka to assign partitions".to_owned();
        self.host
            .status
            .set_waiting(ConsumeWait::Start, Some(waiting));
        if self.options.stop_at_end {
            let errors = self.client.errors();
            let ends = StopEnds::find(self.requests.locator(), &self.client, &self.host.status);
            tokio::select! {
                ends = ends => self.topic.stop_at(ends?),
                // A script may wait for the exit of `consume --stop-at-end`, so the consumer exits after a permanent
                // refusal instead of retrying.
                refusal = refused(errors) => return Err(SettingsError((&refusal).into()).into()),
                () = shutdown.wait() => {}
            }
        }
        while self.end.is_none() {
            let wake = self.until_next(1_000);
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                event = self.client.next_event() => match event {
                    Some(event) => self.event(event),
                    None => self.fail("the consumer thread ended"),
                },
                done = self.done.recv() => self.finish(done.expect("the requests hold a sender")),
                _ = look.tick() => self.look(),
                () = tokio::time::sleep(wake) => {}
            }
            // `yield_now` lets all other ready tasks run first, so that this iteration of the loop handles all their
            // results. With one result per iteration, each iteration would start one request and wake a thread for it.
            tokio::task::yield_now().await;
            self.take_arrived();
            self.act();
        }
        self.leave().await
    }

    /// Returns the time until the pipeline's next deadline, at most `ms_max` milliseconds.
    pub(super) fn until_next(&self, ms_max: i64) -> Duration {
        let next_ms = self.pipeline.next_ms();
        let wait_ms = next_ms.map_or(ms_max, |ms| (ms - steady_ms()).clamp(0, ms_max));
        Duration::from_millis(wait_ms.unsigned_abs())
    }

    /// Handles the request results and consumer events that have already arrived.
    pub(super) fn take_arrived(&mut self) {
        for _ in 0..ROUND_MAX {
            let (done, event) = (self.done.try_recv().ok(), self.client.try_event());
            if done.is_none() && event.is_none() {
                break;
            }
            if let Some(done) = done {
                self.finish(done);
            }
            if let Some(event) = event {
                self.event(event);
            }
        }
    }

    /// Handles an event from the consumer thread.
    pub(super) fn event(&mut self, event: ConsumerEvent) {
        let now_ms = steady_ms();
        match event {
            ConsumerEvent::Assigned(partitions) => {
                if partitions.is_empty() {
                    // The group has more members than partitions, so this member waits for a partition.
                    self.host.status.set_waiting(ConsumeWait::Start, None);
                }
                self.pipeline.assigned(now_ms, &partitions);
            }
            ConsumerEvent::Revoked {
                partitions,
                lost,
                answer,
            } => {
                for partition in &partitions {
                    self.forget(*partition);
                }
                if partitions.contains(&0) {
                    self.stop_rollups();
                }
                self.revokes.add(&partitions, Some(answer));
                let drain_max = self.options.drain_max;
                let drain_ms = i64::try_from(drain_max.as_millis()).unwrap_or(i64::MAX);
                self.pipeline.revoked(now_ms, &partitions, lost, drain_ms);
            }
            ConsumerEvent::Records(runs) => {
                for run in runs {
                    if run.producer_time > 0 {
                        self.host.metrics.producer_time.inc_by(run.producer_time);
                        self.log_producer_time();
                    }
                    self.pipeline
                        .records(now_ms, run.partition, run.assignment, run.records);
                }
            }
            ConsumerEvent::End {
                partition,
                assignment,
                at,
            } => self.pipeline.reached_end(now_ms, partition, assignment, at),
            ConsumerEvent::OutOfRange => self.check_ranges(self.positions()),
            ConsumerEvent::TopicMissing => self.topic_missing(),
            ConsumerEvent::MemberRefused(code) => {
                let failure = membership::refused(code, &self.options.group, "--group");
                self.end = Some(Err(SettingsError(failure).into()));
            }
            ConsumerEvent::Fatal { fenced: true, .. } => {
                let failure = membership::fenced("--group-instance-id");
                self.end = Some(Err(SettingsError(failure).into()));
            }
            ConsumerEvent::Fatal { text, .. } => {
                self.fail(&format!("the Kafka client cannot continue: {text}"));
            }
        }
    }

    /// Handles the result of a request.
    pub(super) fn finish(&mut self, done: Done) {
        let now_ms = steady_ms();
        let chance = fastrand::u32(..);
        match done {
            Done::Batch(batch, outcome, error) => {
                let table = match batch.table {
                    PutTable::Raw => keys::RAW,
                    PutTable::Alerts => keys::ALERTS,
                };
                self.write_ended(table, error.as_ref());
                self.pipeline
                    .batch_answered(now_ms, batch, &outcome, chance);
            }
            Done::Update(update, Ok((outcome, error))) => {
                let table = match update.row.window_start_ms {
                    None => keys::TOTALS,
                    Some(_) => keys::AGGREGATIONS,
                };
                self.write_ended(table, error.as_ref());
                self.pipeline
                    .update_answered(now_ms, &update, outcome, chance);
            }
            Done::Update(_, Err(error)) => {
                let text = "a row cannot be updated, because this program has a bug or another program wrote to the table";
                let error = SettingsError::new(text).with_why(error.to_string());
                self.end = Some(Err(error.into()));
            }
            Done::Rejected(ticket) => self.pipeline.reject_done(ticket),
            Done::Refused(table, ticket) => self.pipeline.refused_done(table, ticket),
            Done::Created {
                partition,
                assignment,
            } => self
                .requests
                .locate(vec![(partition, assignment)], Duration::ZERO),
            Done::NotCreated(missing) => {
                self.not_located(now_ms, missing);
                self.show_waiting_starts();
            }
            Done::Published(publish) => self.pipeline.published(now_ms, &publish),
            Done::PublishFailed(publish) => self.pipeline.publish_failed(now_ms, &publish),
            Done::ProgressMissing(asked_ms, publish) => {
                self.pipeline.progress_missing(asked_ms, publish);
            }
            Done::TablesRead(id, asked_ms) => {
                self.host.status.set_waiting(ConsumeWait::Tables, None);
                self.pipeline.tables_read(&id, asked_ms);
            }
            Done::TablesUnread(trouble) => self.tables_unread(trouble),
            Done::TableMissing(table) => self.pipeline.table_missing(table),
            Done::GapRead {
                partition,
                assignment,
                gap,
                second,
            } => self
                .pipeline
                .gap_checked(now_ms, partition, assignment, gap, second),
            Done::Kafka(generation, answer) if self.requests.answers.is_current(generation) => {
                self.answered(now_ms, answer);
            }
            Done::Kafka(..) => {}
        }
    }

    fn answered(&mut self, now_ms: SteadyMs, answer: Answer) {
        match answer {
            Answer::Located(Ok(found)) => self.located(now_ms, found),
            Answer::Located(Err(error)) => self.end = Some(Err(error.into())),
            Answer::Topic(id) => self.pipeline.topic_checked(now_ms, id.as_deref()),
            Answer::Committed(taken) => self.pipeline.commit_done(now_ms, taken),
            Answer::Looked(looked) => self.looked(now_ms, &looked),
            Answer::Unreadable(positions) => self.restart_unreadable(&positions),
            Answer::RangesUnknown => self.check_ranges(self.positions()),
            Answer::AtEnd(left) => {
                self.topic.look_ended();
                if let Some(left) = left {
                    self.host.status.set_left(left);
                }
                if left == Some(0) {
                    tracing::info!("the group has committed the end of every partition");
                    self.end = Some(Ok(()));
                }
            }
        }
    }

    /// Restarts the partitions that the Kafka client may no longer read.
    fn restart_unreadable(&mut self, positions: &[ReadPosition]) {
        let now = self.positions();
        for at in positions {
            let (partition, position) = (at.partition, at.next.0);
            let is_current = now.iter().any(|now| now.assignment == at.assignment);
            if is_current && self.restarts.is_first(*at) {
                tracing::warn!(
                    partition,
                    position,
                    "Kafka cannot continue at the position, looking at the log again"
                );
                self.pipeline.out_of_range(partition, at.assignment);
            }
        }
    }

    fn located(&mut self, now_ms: SteadyMs, found: Found) {
        for l in found.located {
            self.requests.set_topic_id(&l.facts.topic_id);
            self.starts.end(l.partition);
            self.pipeline
                .located(now_ms, l.partition, l.assignment, &l.facts, &l.tables);
        }
        for missing in found.missing {
            self.not_located(now_ms, missing);
        }
        self.show_waiting_starts();
    }

    fn not_located(&mut self, now_ms: SteadyMs, missing: Unlocated) {
        let (partition, assignment) = (missing.partition, missing.assignment);
        if self.pipeline.has(partition, assignment) {
            self.starts.wait(partition, missing.why);
        }
        self.pipeline.not_located(now_ms, partition, assignment);
    }

    /// Shows in the status why the consumer cannot start reading some partitions yet.
    fn show_waiting_starts(&mut self) {
        let waiting = self.starts.first().map(|why| format!("waiting for {why}"));
        if let Some(waiting) = &waiting
            && self.log_limit.allows("start")
        {
            tracing::warn!("{waiting}");
        }
        self.host.status.set_waiting(ConsumeWait::Start, waiting);
    }

    fn write_ended(&mut self, table: usize, error: Option<&StoreError>) {
        let (status, limit) = (&self.host.status, &mut self.log_limit);
        self.write_errors.note(table, error, status, limit);
        if error.is_some_and(|error| error.kind() == StoreErrorKind::NotFound) {
            self.pipeline.table_missing(table);
        }
    }

    fn tables_unread(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Wait(why) => {
                self.pipeline.tables_unread(sys::boot_ms());
                if self.pipeline.holds_writes() {
                    let waiting = Some(format!("waiting for {why}"));
                    self.host.status.set_waiting(ConsumeWait::Tables, waiting);
                }
            }
            Trouble::Settings(error) => self.end = Some(Err(error.into())),
        }
    }

    /// Periodically updates the status and the metrics, and requests the topic's id and the log ends.
    fn look(&mut self) {
        let status = &self.host.status;
        if self.pipeline.in_flight() == 0 {
            self.write_errors.clear(status, &mut self.log_limit);
        }
        status.set_beat(self.client.beat_ms());
        let idle = self.pipeline.workers().next().is_none();
        if idle && let Some(refusal) = self.client.errors().refusal() {
            status.still_waiting(refusal.to_string());
        }
        report_watermarks(&self.pipeline, &self.host);
        if let Some(rollups) = &mut self.rollups {
            let mut workers = self.pipeline.workers().map(Worker::place);
            let first = workers.find(|place| place.partition == 0);
            rollups.look(first.map(|place| place.assignment), self.requests.locator());
        }
        let partitions = self.positions().iter().map(|at| at.partition).collect();
        let answers = self.requests.answers();
        self.topic
            .look(self.requests.locator(), answers, partitions);
    }

    /// Handles the brokers' answer about the topic's id and the log ends.
    fn looked(&mut self, now_ms: SteadyMs, looked: &Looked) {
        match &looked.topic {
            TopicNow::Is(id) => {
                self.host.status.set_waiting(ConsumeWait::Topic, None);
                self.pipeline.topic_seen(now_ms, id);
            }
            TopicNow::Missing => self.topic_missing(),
            TopicNow::Unknown => {}
        }
        if let Some(ends) = &looked.ends {
            report_lag(&self.pipeline, &self.host, &self.options.topic, ends);
            let reading_paused = self.client.budget().is_tight();
            self.pipeline.log_ends(now_ms, ends, reading_paused);
            self.host.status.set_stuck(self.pipeline.stuck());
        }
    }

    fn check_ranges(&self, mut positions: Vec<ReadPosition>) {
        let now = self.positions();
        positions.retain(|at| now.contains(at));
        check_ranges(self.requests.locator(), self.requests.answers(), positions);
    }

    /// Returns the read position of each running partition.
    fn positions(&self) -> Vec<ReadPosition> {
        let position = |w: &Worker| ReadPosition {
            partition: w.place().partition,
            assignment: w.place().assignment,
            next: w.position(),
        };
        self.pipeline.workers().map(position).collect()
    }

    fn topic_missing(&mut self) {
        let what = format!(
            "waiting for topic {} to exist (citystream init-tables creates it)",
            self.options.topic
        );
        self.host.status.set_waiting(ConsumeWait::Topic, Some(what));
        if self.log_limit.allows("topic") {
            let todo = crate::kafka::MISSING_REMEDY;
            tracing::warn!(todo, "the topic does not exist, waiting for it");
        }
    }

    fn log_producer_time(&mut self) {
        if !self.producer_time_logged && !self.host.producer_time_is_fine {
            self.producer_time_logged = true;
            tracing::warn!(
                topic = self.options.topic,
                "records carry the producer's time, so a wrong clock can move the watermark; set message.timestamp.type=LogAppendTime"
            );
        }
    }

    fn fail(&mut self, text: &str) {
        self.end = Some(Err(anyhow::anyhow!("{text}")));
    }
}
