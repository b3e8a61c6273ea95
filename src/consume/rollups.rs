//! Runs the rollup task, which sums windows into hour rows and day rows. The consumer that owns partition 0 runs this
//! task.
//!
//! The rollup task does not affect commits: it shares no lock with the pipeline and sends its own requests. When
//! partition 0 is revoked, the consumer aborts the rollup task immediately. An abort is safe at any time, because the
//! next rollup task begins at the rollup mark in the tables. If two consumers run rollup tasks at the same time, both
//! write the same rows. After a failure, the rollup task logs a warning, counts the failure in a metric, and tries
//! again.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::blocking::run_blocking;
use crate::consume::locate::{ANSWER_TIMEOUT, Locator};
use crate::consume::trouble::{Trouble, dynamodb, kafka};
use crate::core::clock::UnixMs;
use crate::core::rollup::{
    LOOK_INTERVAL_MS, Roll, RollupFacts, RollupMark, RollupWait, SETTLE_MS, next_look_ms, plan,
    windows_per_hour,
};
use crate::store::error::StoreError;
use crate::store::rollups::{RollError, RollupWriter, Speed};
use crate::telemetry::Metrics;

/// The schedule and the speed of rollups.
#[derive(Clone, Copy, Debug)]
pub struct RollupPace {
    /// Time between two checks for hours that are due for rollup.
    pub interval: Duration,
    /// Time for which the rollup task waits before it assumes that the index contains every window.
    pub settle: Duration,
    /// The speed at which the rollup task reads windows.
    pub speed: Speed,
}

impl RollupPace {
    /// The pace of rollups for tables in Amazon DynamoDB, where every read costs money.
    pub const PACED: RollupPace = RollupPace {
        interval: Duration::from_millis(LOOK_INTERVAL_MS),
        settle: Duration::from_millis(SETTLE_MS),
        speed: Speed::Paced,
    };
    /// The pace of rollups for tables in the embedded database. Reads from this database are free, and its indexes do
    /// not lag behind their tables.
    pub const EMBEDDED: RollupPace = RollupPace {
        interval: Duration::from_secs(5),
        settle: Duration::ZERO,
        speed: Speed::Full,
    };
}

/// The rollup task of this consumer, if one is running.
pub(super) struct Rollups {
    writer: RollupWriter,
    metrics: Metrics,
    pace: RollupPace,
    /// The assignment of partition 0 for which the rollup task was started.
    assignment: Option<u64>,
    task: Option<JoinHandle<()>>,
}

impl Rollups {
    pub(super) fn new(writer: RollupWriter, metrics: Metrics, pace: RollupPace) -> Rollups {
        Rollups {
            writer: writer.with_settle(pace.settle),
            metrics,
            pace,
            assignment: None,
            task: None,
        }
    }

    /// Starts the rollup task for a new assignment of partition 0, or ends it if this consumer no longer owns partition
    /// 0. A stopped rollup task does not start again during the same assignment, because partition 0 may be draining.
    pub(super) fn look(&mut self, assignment: Option<u64>, locator: &Locator) {
        if assignment == self.assignment {
            return;
        }
        self.stop();
        self.assignment = assignment;
        if assignment.is_none() {
            return;
        }
        let work = RollupWork {
            writer: self.writer.clone(),
            locator: locator.clone(),
            metrics: self.metrics.clone(),
            speed: self.pace.speed,
            waiting: None,
        };
        self.task = Some(tokio::spawn(work.run(self.pace.interval)));
    }

    /// Aborts the rollup task at once.
    pub(super) fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            self.metrics.rollups_until_seconds.set(0);
        }
    }
}

impl Drop for Rollups {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The clients, settings and state of the rollup task.
struct RollupWork {
    writer: RollupWriter,
    locator: Locator,
    metrics: Metrics,
    speed: Speed,
    /// The reason why no hour was due at the last check, or `None` if an hour was due.
    waiting: Option<RollupWait>,
}

/// The reason why the rollup task has not rolled up all hours that were due.
enum Missed {
    /// The rollup task could not find out which hours are due, or must not write now. Such an attempt does not count as
    /// a failed rollup.
    Unasked(String),
    /// A read or a write in DynamoDB has failed.
    Failed(String),
}

impl RollupWork {
    async fn run(mut self, interval: Duration) {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let mut failures = 0;
        loop {
            let pause_ms = next_look_ms(interval_ms, failures);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let rows_before = self.metrics.rollup_rows.get();
            match self.roll_up().await {
                Ok(()) => failures = 0,
                Err(Missed::Unasked(why)) => tracing::debug!(why, "no rollups now"),
                Err(Missed::Failed(why)) => {
                    // The wait before the next attempt grows only if the failed attempt has written no rows, so that
                    // occasional errors do not slow down the rollup of many hours.
                    let is_stuck = self.metrics.rollup_rows.get() == rows_before;
                    failures = if is_stuck { failures + 1 } else { 1 };
                    self.metrics.rollup_failures.inc();
                    tracing::warn!(
                        error = why,
                        failures,
                        "failed to roll up hours, long ranges cost more reads until that works"
                    );
                }
            }
        }
    }

    /// Finds the hours that are due for rollup, and rolls these hours up.
    async fn roll_up(&mut self) -> Result<(), Missed> {
        let (topic_id, partition_count) = self.locator.topic().await.map_err(Missed::unasked)?;
        let tables = self.writer.source().look().await.map_err(Missed::failed)?;
        let window_ms = tables.config.rules.window_ms;
        if windows_per_hour(window_ms).is_none() {
            return Err(Missed::Unasked("no hour is a sum of windows".to_owned()));
        }
        let mut facts = tables
            .facts(&topic_id, partition_count)
            .ok_or_else(|| Missed::Unasked("the tables count another topic id".to_owned()))?;
        self.find_ends(&mut facts).await?;
        let mark = tables.mark.as_ref();
        let is_current = |mark: &&RollupMark| mark.is_of(Some(&topic_id), &facts.tables_id);
        self.show(mark.filter(is_current));
        let plan = match plan(mark, &facts) {
            Ok(plan) => plan,
            Err(waiting) => {
                self.wait(waiting);
                return Ok(());
            }
        };
        self.waiting = None;
        let mut roll = Roll::new(plan, window_ms);
        let moved = |mark: &RollupMark| self.show(Some(mark));
        match self.writer.run(&mut roll, self.speed, moved).await {
            Ok(()) => Ok(()),
            Err(RollError::Store(error)) => Err(Missed::failed(error)),
            Err(other) => Err(Missed::Unasked(other.to_string())),
        }
    }

    /// Requests the committed offset and the log end of each partition without a published watermark from Kafka.
    async fn find_ends(&self, facts: &mut RollupFacts) -> Result<(), Missed> {
        let unclear = facts.unclear();
        if unclear.is_empty() {
            return Ok(());
        }
        let (inquiry, asked) = (self.locator.inquiry(), unclear.clone());
        let commits = run_blocking(move || inquiry.commits(&asked, ANSWER_TIMEOUT)).await;
        let commits = commits.map_err(|error| Missed::Unasked(kafka(&error)))?;
        for (partition, commit) in &commits {
            facts.add_commit(*partition, commit);
        }
        for (partition, range) in self.locator.ranges(unclear, ANSWER_TIMEOUT).await {
            let (_, end) = range.map_err(|error| Missed::Unasked(kafka(&error)))?;
            facts.set_end(partition, end);
        }
        Ok(())
    }

    fn show(&self, mark: Option<&RollupMark>) {
        let until_ms = mark.map_or(UnixMs(0), |mark| mark.until_ms);
        self.metrics.rollups_until_seconds.set(until_ms.0 / 1_000);
    }

    /// Logs the reason why the rollup waits, unless the last call had the same reason.
    fn wait(&mut self, waiting: RollupWait) {
        if self.waiting == Some(waiting) {
            return;
        }
        self.waiting = Some(waiting);
        match waiting {
            RollupWait::AllDone => tracing::debug!("all final hours are rolled up"),
            RollupWait::NotBegun(partition) => {
                tracing::info!(partition, "hours wait for a partition to be consumed");
            }
            RollupWait::NoWatermark(partition) => {
                tracing::info!(partition, "hours wait for the watermark of a partition");
            }
        }
    }
}

impl Missed {
    fn unasked(trouble: Trouble) -> Missed {
        Missed::Unasked(match trouble {
            Trouble::Wait(why) => why,
            Trouble::Settings(error) => error.to_string(),
        })
    }

    #[allow(clippy::needless_pass_by_value)] // `map_err` passes the error by value
    fn failed(error: StoreError) -> Missed {
        Missed::Failed(dynamodb(&error))
    }
}
