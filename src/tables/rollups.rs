//! `init-tables --rollups`: rolls up the hours that have no rollups yet, for example after an upgrade.
//!
//! Consumers also roll up hours, but use at most a hundred read units per second. The command `init-tables --rollups`
//! prints the cost, asks the operator for consent, and then works as fast as DynamoDB answers. The command starts after
//! the last hour that is already rolled up, and may run at the same time as consumers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::confirm::ask_rollups;
use super::explain::{DOLLARS_PER_MILLION, DOLLARS_PER_MILLION_READS};
use super::mark_settings;
use super::steps::{Finding, FindingOutcome};
use crate::blocking::run_blocking;
use crate::core::clock::UnixMs;
use crate::core::keys::TableNames;
use crate::core::progress::{TaskProgress, show_eta};
use crate::core::rollup::{
    HOUR_MS, Roll, RollupCost, RollupFacts, RollupMark, RollupPlan, RollupWait, day_start, plan,
    windows_per_hour,
};
use crate::core::time::format_seconds;
use crate::exit::SettingsError;
use crate::failure::Failure;
use crate::kafka::client::client_config;
use crate::kafka::survey::Survey;
use crate::settings::InitTables;
use crate::store::rollups::{RollError, RollupWriter, Speed};
use crate::telemetry::{self, Metrics, can_draw, steady_ms};

/// Time between two progress lines if standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Rolls up all final hours that have no rollups yet.
pub(crate) async fn roll_up(
    args: &InitTables,
    client: &Client,
    metrics: Metrics,
) -> anyhow::Result<Vec<Finding>> {
    let names = TableNames::new(&args.tables.table_prefix);
    let writer = RollupWriter::new(client.clone(), names, metrics);
    let kafka = client_config(&args.kafka, "init-tables")?;
    let survey = Survey::new(&kafka, &args.kafka.topic, &args.group).map_err(|error| {
        SettingsError::new("the Kafka client cannot start").with_why(error.to_string())
    })?;
    let survey = Arc::new(survey);
    let mut is_agreed = args.yes;
    loop {
        let (plan, window_ms) = match next_plan(args, &writer, &survey).await? {
            Next::Plan(plan, window_ms) => (*plan, window_ms),
            Next::Done(finding) => return Ok(vec![finding]),
        };
        let from_ms = agree(is_agreed, &writer, &plan, window_ms).await?;
        is_agreed = true;
        let mut shown = RollupDisplay::new(&plan, from_ms);
        let mut roll = Roll::new(plan, window_ms);
        let rolled = writer.run(&mut roll, Speed::Full, |mark| shown.moved(mark));
        match rolled.await {
            Ok(()) => return Ok(vec![made(FindingOutcome::Made, roll.mark().until_ms)]),
            // While this command was working, a consumer rolled up some of the same hours. The next iteration of the
            // loop plans only the hours that are not rolled up yet.
            Err(RollError::Overtaken) => {}
            Err(RollError::Store(error)) => return Err(mark_settings(error)),
            Err(error @ RollError::Replaced) => {
                anyhow::bail!(
                    Failure::new("stopped rolling up hours")
                        .with_why(error.to_string())
                        .with_remedy("run it again")
                )
            }
        }
    }
}

enum Next {
    /// The hours to roll up, and the length of a window in milliseconds.
    Plan(Box<RollupPlan>, i64),
    /// No hour is left that the command can roll up.
    Done(Finding),
}

/// Decides which hours to roll up next.
async fn next_plan(
    args: &InitTables,
    writer: &RollupWriter,
    survey: &Arc<Survey>,
) -> anyhow::Result<Next> {
    let asked = Arc::clone(survey);
    let topic = run_blocking(move || asked.topic()).await;
    let topic = topic.with_context(|| format!("no Kafka at {} (--brokers)", args.kafka.brokers))?;
    let topic = topic.ok_or_else(|| {
        Failure::new(format!("there is no topic {}", args.kafka.topic))
            .with_remedy(crate::kafka::MISSING_REMEDY)
    })?;
    let tables = writer.source().look().await.map_err(mark_settings)?;
    let window_ms = tables.config.rules.window_ms;
    if windows_per_hour(window_ms).is_none() {
        let what = "no rollups: the windows of these tables do not divide an hour".to_owned();
        return Ok(Next::Done(Finding::new(FindingOutcome::Kept, what)));
    }
    let topic_id = topic.id.to_string();
    let facts = tables.facts(&topic_id, topic.partitions).ok_or_else(|| {
        Failure::new("no hour can be rolled up yet")
            .with_why("no consumer has begun to count the topic as it is now")
            .with_remedy("start citystream consume")
    })?;
    let facts = with_ends(facts, survey).await?;
    match plan(tables.mark.as_ref(), &facts) {
        Ok(plan) => Ok(Next::Plan(Box::new(plan), window_ms)),
        Err(RollupWait::AllDone) => {
            let until_ms = tables.mark.map_or(UnixMs(0), |mark| mark.until_ms);
            Ok(Next::Done(made(FindingOutcome::Kept, until_ms)))
        }
        Err(RollupWait::NotBegun(partition)) => anyhow::bail!(
            Failure::new("no hour is final yet")
                .with_why(format!("no consumer has begun to count partition {partition}"))
                .with_remedy("start citystream consume")
        ),
        Err(RollupWait::NoWatermark(partition)) => anyhow::bail!(
            Failure::new("no hour is final yet")
                .with_why(format!(
                    "partition {partition} has records that are not counted, or no event whose time is sure"
                ))
                .with_remedy("let the consumers catch up, and let producers send heartbeats")
        ),
    }
}

/// Fetches the group's committed offsets and the log ends from Kafka if a partition has no published watermark.
async fn with_ends(mut facts: RollupFacts, survey: &Arc<Survey>) -> anyhow::Result<RollupFacts> {
    if facts.unclear().is_empty() {
        return Ok(facts);
    }
    let (asked, partitions) = (Arc::clone(survey), facts.partition_count);
    let answers = run_blocking(move || (asked.commits(partitions), asked.ends(partitions))).await;
    match answers.0 {
        Ok(commits) => {
            for (partition, commit) in commits {
                facts.add_commit(partition, &commit);
            }
        }
        // The command can continue without the committed offsets, because the progress items contain older copies of
        // the same restart points.
        Err(error) => tracing::warn!(%error, "failed to read the group's commits"),
    }
    let ends = answers
        .1
        .context("failed to ask Kafka where the log ends")?;
    for (partition, (_, end)) in ends {
        facts.set_end(partition, end);
    }
    Ok(facts)
}

/// Prints the cost of the plan, and asks the operator for consent unless the operator has already agreed. Returns the
/// start of the first day that has windows, or the beginning of the plan, whichever is later.
async fn agree(
    is_agreed: bool,
    writer: &RollupWriter,
    plan: &RollupPlan,
    window_ms: i64,
) -> anyhow::Result<UnixMs> {
    let source = writer.source();
    let (series, event_types) = source.count().await.map_err(mark_settings)?;
    let begin_ms = plan.mark.until_ms;
    let first = source.first_window(begin_ms).await.map_err(mark_settings)?;
    let from_ms = first.map_or(plan.target_ms, day_start);
    let from_ms = from_ms.clamp(begin_ms, plan.target_ms);
    let windows = windows_per_hour(window_ms).unwrap_or_default();
    let cost = RollupCost::of(from_ms, plan.target_ms, series, event_types, windows);
    let text = describe_cost(&cost, series, from_ms, plan.target_ms);
    telemetry::print_stderr(&text);
    if !is_agreed {
        ask_rollups().await?;
    }
    Ok(from_ms)
}

#[allow(clippy::cast_precision_loss)] // the amount is shown with two decimals
fn describe_cost(cost: &RollupCost, series: u64, from_ms: UnixMs, until_ms: UnixMs) -> String {
    let dollars = (cost.read_units as f64 * DOLLARS_PER_MILLION_READS
        + cost.write_units as f64 * DOLLARS_PER_MILLION)
        / 1e6;
    format!(
        "rolling up {} hours of {} series, {} to {}: at most {} read units and {} write units, \
         ${dollars:.2} on demand in us-east-1",
        HumanCount(cost.hours),
        HumanCount(series),
        format_seconds(from_ms),
        format_seconds(until_ms),
        HumanCount(cost.read_units),
        HumanCount(cost.write_units),
    )
}

fn made(outcome: FindingOutcome, until_ms: UnixMs) -> Finding {
    let what = match until_ms {
        UnixMs(0) => "no rollups: no hour is final yet".to_owned(),
        ms => format!("rollups of all hours before {}", format_seconds(ms)),
    };
    Finding::new(outcome, what)
}

/// Prints the progress to standard error. On a terminal, the progress line is updated in place. If standard error is
/// not a terminal, a new line is printed every ten seconds.
struct RollupDisplay {
    bar: Option<ProgressBar>,
    from_ms: UnixMs,
    target_ms: UnixMs,
    progress: TaskProgress,
    line: Instant,
}

impl RollupDisplay {
    fn new(plan: &RollupPlan, from_ms: UnixMs) -> RollupDisplay {
        let bar = can_draw(&std::io::stderr()).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                .expect("the template is constant");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_message("waiting a minute, until the index shows all windows");
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        RollupDisplay {
            bar,
            from_ms,
            target_ms: plan.target_ms,
            progress: TaskProgress::new(steady_ms(), 0),
            line: Instant::now(),
        }
    }

    fn moved(&mut self, mark: &RollupMark) {
        let hours = |from_ms: UnixMs, until_ms: UnixMs| {
            u64::try_from((until_ms - from_ms) / HOUR_MS).unwrap_or_default()
        };
        let done = hours(self.from_ms, mark.until_ms);
        self.progress.look(steady_ms(), done);
        let left = self
            .progress
            .seconds_left(hours(mark.until_ms, self.target_ms));
        let text = format!(
            "rolled up {} of {} hours, {}",
            HumanCount(done),
            HumanCount(hours(self.from_ms, self.target_ms)),
            show_eta(left)
        );
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if self.line.elapsed() >= LINE_EVERY => {
                self.line = Instant::now();
                telemetry::print_stderr(&text);
            }
            None => {}
        }
    }
}

impl Drop for RollupDisplay {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_report_has_hours_units_and_dollars() {
        let (from_ms, until_ms) = (UnixMs(1_356_998_400_000), UnixMs(1_359_676_800_000));
        let cost = RollupCost::of(from_ms, until_ms, 24, 4, 12);
        let text = describe_cost(&cost, 24, from_ms, until_ms);
        assert_eq!(
            text,
            "rolling up 744 hours of 24 series, 2013-01-01T00:00:00Z to 2013-02-01T00:00:00Z: at most \
             217,608 read units and 21,732 write units, $0.04 on demand in us-east-1"
        );
    }
}
