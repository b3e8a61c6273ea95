//! Prints three things to standard error: the progress of `produce`, each invalid line, and a summary.
//!
//! On a terminal, the report draws a progress bar. If standard error is not a terminal, the report prints a line of
//! text every ten seconds. With `--log-format json`, the report writes only log lines, so that each line is a JSON
//! object. The progress bar compares the number of acknowledged events with the expected number of events. The expected
//! number of events is `--count`, or the number of lines in the file ([`find_total`]).

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::core::clock::SteadyMs;
use crate::core::parse::Reject;
use crate::core::progress::{TaskProgress, show_eta};
use crate::core::replay::Replay;
use crate::produce::deliveries::{Deliveries, DeliveryCounts};
use crate::produce::input::{Input, InputFormatRules};
use crate::produce::input_rules;
use crate::produce::pump::FaultCounts;
use crate::settings::{LogFormat, Produce};
use crate::telemetry::{self, LogLimit, can_draw, steady_ms};

/// Time between two lines of text that show the progress, if no progress bar is drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Number of times per second that the progress bar is drawn.
const FRAMES: u8 = 10;
/// Number of terminal columns that the complete progress line needs. On a narrower terminal, the progress line omits
/// the bar and the rate.
const COLUMNS_MIN: u16 = 80;

pub(crate) struct ProgressReport {
    deliveries: Arc<Deliveries>,
    bar: Option<ProgressBar>,
    total: Arc<Mutex<ExpectedTotal>>,
    json: bool,
    last: Mutex<LastShown>,
}

/// The state of the progress display after its last update.
struct LastShown {
    /// The time at which the last line of text was printed, and the number of acknowledged events at that time.
    line: (Instant, u64),
    progress: TaskProgress,
    /// The time at which the first event was sent.
    begun_ms: Option<SteadyMs>,
    stall_limit: LogLimit,
}

/// The number of events that the role will send, if that number is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ExpectedTotal {
    /// The expected number of events. Without `--speed`, the expected number of events is the number of lines,
    /// including invalid lines.
    count: Option<u64>,
    /// With `--speed`, the time in milliseconds that the replay takes from the first event to the last event; otherwise
    /// `None`.
    due_ms: Option<i64>,
}

impl ProgressReport {
    pub(crate) fn new(args: &Produce, deliveries: Arc<Deliveries>) -> ProgressReport {
        let json = args.log.log_format == Some(LogFormat::Json);
        let draws = !json && can_draw(&std::io::stderr());
        let total = Arc::new(Mutex::new(ExpectedTotal {
            count: args.count.filter(|_| args.input.is_none()),
            due_ms: None,
        }));
        let file = args.input.clone().filter(|path| path.as_os_str() != "-");
        if draws && let (Some(path), Ok(format)) = (file, input_rules(args)) {
            let (count, speed, total) = (args.count, args.speed, Arc::clone(&total));
            // Counting the lines of a long file takes a while, so a separate thread counts while the role sends events.
            let counting = move || {
                let found = find_total(&path, &format, count, speed);
                *total.lock().expect("no panic holds the lock") = found;
            };
            std::thread::spawn(counting);
        }
        ProgressReport {
            bar: draws.then(bar),
            total,
            deliveries,
            json,
            last: Mutex::new(LastShown {
                line: (Instant::now(), 0),
                progress: TaskProgress::new(steady_ms(), 0),
                begun_ms: None,
                stall_limit: LogLimit::default(),
            }),
        }
    }

    /// Updates the progress display. The caller calls this function about ten times a second.
    pub(crate) fn update(&self) {
        let counts = self.deliveries.counts();
        let mut last = self
            .last
            .lock()
            .expect("no panic is possible while the lock is held");
        if let Err(why) = self.deliveries.check_flow_once_connected()
            && last.stall_limit.allows()
        {
            tracing::warn!(waiting = counts.undelivered(), why, "waiting for Kafka");
        }
        if let Some(bar) = &self.bar {
            let now_ms = steady_ms();
            last.progress.look(now_ms, counts.acknowledged);
            if counts.sent > 0 {
                last.begun_ms.get_or_insert(now_ms);
            }
            let total = *self.total.lock().expect("no panic holds the lock");
            let since_ms = last.begun_ms.map(|begun_ms| now_ms - begun_ms);
            draw(bar, &counts, total, &last.progress, since_ms);
        } else if last.line.0.elapsed() >= LINE_EVERY {
            let rate = per_second(last.line, counts.acknowledged);
            last.line = (Instant::now(), counts.acknowledged);
            if self.json {
                let (sent, acked, bad) = (counts.sent, counts.acknowledged, counts.bad);
                tracing::info!(sent, acked, bad, per_second = rate.round(), "producing");
            } else {
                print_line(&progress_text(&counts, rate));
            }
        }
    }

    /// Reports an input line that was skipped.
    pub(crate) fn report_bad_line(&self, line: u64, reject: &Reject) {
        if self.json {
            let (reason, detail) = (reject.reason.name(), &reject.detail);
            tracing::warn!(line, reason, detail, "skipped an invalid line");
            return;
        }
        let text = format!("line {line}: {reject}");
        match &self.bar {
            Some(bar) => bar.suspend(|| print_line(&text)),
            None => print_line(&text),
        }
    }

    /// Prints the final counts of the run.
    pub(crate) fn report_summary(
        &self,
        counts: &DeliveryCounts,
        undelivered: u64,
        faults: FaultCounts,
    ) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.json {
            log_summary(counts, undelivered, faults);
        } else {
            print_summary(counts, undelivered, faults);
        }
    }
}

fn log_summary(counts: &DeliveryCounts, undelivered: u64, faults: FaultCounts) {
    tracing::info!(
        sent = counts.sent,
        acked = counts.acknowledged,
        failed = counts.failed,
        bad = counts.bad,
        undelivered,
        heartbeats = counts.heartbeats,
        seconds = counts.uptime.as_secs_f64(),
        rate = counts.per_second(),
        p50_us = counts.latency.p50_us,
        p99_us = counts.latency.p99_us,
        made_late = faults.late,
        made_bad = faults.bad,
        "done producing"
    );
}

fn print_summary(counts: &DeliveryCounts, undelivered: u64, faults: FaultCounts) {
    let acknowledged = if counts.acknowledged == 0 {
        "nothing was acknowledged".to_owned()
    } else {
        let latency = counts.latency;
        let (p50, p99) = (millis(latency.p50_us), millis(latency.p99_us));
        format!("acknowledged within {p50} (p50) and {p99} (p99)")
    };
    print_line(&format!(
        "sent {}, bad {}, failed {}, undelivered {}; {:.1} s, {}/s, {acknowledged}",
        HumanCount(counts.sent),
        HumanCount(counts.bad),
        HumanCount(counts.failed),
        HumanCount(undelivered),
        counts.uptime.as_secs_f64(),
        rate_text(counts.per_second()),
    ));
    if faults != FaultCounts::default() {
        let (late, bad) = (HumanCount(faults.late), HumanCount(faults.bad));
        print_line(&format!(
            "of these, {late} were made late and {bad} were made invalid"
        ));
    }
    if undelivered > 0 {
        print_line(&format!("{undelivered} events are undelivered"));
    }
}

fn bar() -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(FRAMES);
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style("{spinner} {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the constant template is valid")
}

/// Counts at most `count` events or lines of a file. If the file cannot be read, the total stays unknown. The thread
/// that reads the input for the pump reports the error.
fn find_total(
    path: &Path,
    format: &InputFormatRules,
    count: Option<u64>,
    speed: Option<f64>,
) -> ExpectedTotal {
    let most = count.unwrap_or(u64::MAX);
    match speed {
        Some(speed) => {
            let found = Input::last_due(path, format, Replay::at_speed(Some(speed)), most).ok();
            ExpectedTotal {
                count: found.map(|(events, _)| events),
                due_ms: found.map(|(_, due_ms)| due_ms),
            }
        }
        None => ExpectedTotal {
            count: Input::count_lines(path, format, most).ok(),
            due_ms: None,
        },
    }
}

/// Draws the progress bar. `since_ms` is the time in milliseconds since the first event was sent.
fn draw(
    bar: &ProgressBar,
    counts: &DeliveryCounts,
    total: ExpectedTotal,
    progress: &TaskProgress,
    since_ms: Option<i64>,
) {
    let Some((total, eta)) = total_and_eta(counts, total, progress, since_ms) else {
        bar.set_message(progress_text(counts, progress.per_second()));
        return;
    };
    let is_wide = crossterm::terminal::size().is_ok_and(|(columns, _)| columns >= COLUMNS_MIN);
    if bar.length() != Some(total) {
        bar.set_length(total);
        bar.set_style(style(if is_wide {
            "{bar:16} {human_pos}/{human_len} {msg}"
        } else {
            "{human_pos}/{human_len} {msg}"
        }));
    }
    let eta = show_eta(eta);
    // The message of the progress bar is set before the position of the bar. If the position were set first, the bar
    // could briefly show a remaining time although all events are already acknowledged.
    bar.set_message(if is_wide {
        let rate = rate_text(progress.per_second());
        format!("acknowledged{}, {rate}/s, {eta}", error_counts(counts))
    } else {
        eta
    });
    bar.set_position(counts.acknowledged);
}

/// Returns a text with the counts of invalid and failed events, which the caller appends to the count of acknowledged
/// events. The text omits counts that are zero.
fn error_counts(counts: &DeliveryCounts) -> String {
    let mut out = String::new();
    for (name, count) in [("bad", counts.bad), ("failed", counts.failed)] {
        if count > 0 {
            out.push_str(&format!(", {count} {name}"));
        }
    }
    out
}

/// Returns the expected number of events, and the estimated number of seconds until all events are acknowledged.
/// Returns `None` while the expected number of events is unknown.
fn total_and_eta(
    counts: &DeliveryCounts,
    total: ExpectedTotal,
    progress: &TaskProgress,
    since_ms: Option<i64>,
) -> Option<(u64, Option<u64>)> {
    let count = total.count?;
    // With `--speed`, `total` counts only the valid events of the file. Without `--speed`, `total` counts all lines of
    // the file, including lines that turn out to be invalid.
    let bad = if total.due_ms.is_some() {
        0
    } else {
        counts.bad
    };
    let count = count.saturating_sub(bad).max(counts.acknowledged);
    let left = count - counts.acknowledged;
    let eta = match total.due_ms {
        Some(due_ms) if left > 0 => {
            let left_ms = due_ms - since_ms.unwrap_or(0);
            Some(u64::try_from(left_ms.max(0)).unwrap_or(0).div_ceil(1_000))
        }
        _ => progress.seconds_left(left),
    };
    Some((count, eta))
}

fn progress_text(counts: &DeliveryCounts, per_second: f64) -> String {
    format!(
        "{} acknowledged, {}/s{}",
        HumanCount(counts.acknowledged),
        rate_text(per_second),
        error_counts(counts)
    )
}

#[allow(clippy::cast_precision_loss)]
fn per_second(since: (Instant, u64), acked: u64) -> f64 {
    acked.saturating_sub(since.1) as f64 / since.0.elapsed().as_secs_f64().max(0.001)
}

/// Formats a rate as text. A rate below 10 gets one decimal place, and a larger rate gets thousands separators.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rate_text(rate: f64) -> String {
    if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        HumanCount(rate.round() as u64).to_string()
    }
}

#[allow(clippy::cast_precision_loss)]
fn millis(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1_000.0)
}

/// Prints a line of the `produce` role to standard error, outside the log.
pub(super) fn print_line(text: &str) {
    telemetry::print_stderr(&format!("citystream: {text}"));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::produce::latency::LatencySummary;

    fn counts(acknowledged: u64, bad: u64) -> DeliveryCounts {
        DeliveryCounts {
            sent: acknowledged,
            acknowledged,
            failed: 0,
            bad,
            heartbeats: 0,
            latency: LatencySummary::default(),
            uptime: Duration::ZERO,
        }
    }

    fn at_rate(per_second: u64) -> TaskProgress {
        let mut progress = TaskProgress::new(SteadyMs(0), 0);
        progress.look(SteadyMs(1_000), per_second);
        progress
    }

    #[test]
    fn progress_compares_acknowledged_events_with_the_total() {
        let lines = |count| ExpectedTotal {
            count,
            due_ms: None,
        };
        let is = |acked, bad, total, rate| {
            total_and_eta(&counts(acked, bad), total, &at_rate(rate), None)
        };
        assert_eq!(
            is(9, 0, ExpectedTotal::default(), 5),
            None,
            "the total is unknown"
        );
        assert_eq!(is(0, 0, lines(Some(6_000)), 0), Some((6_000, None)));
        let half = is(3_000, 0, lines(Some(6_000)), 100);
        assert_eq!(half, Some((6_000, Some(30))));
        let with_bad = is(3_000, 1_000, lines(Some(6_000)), 100);
        assert_eq!(
            with_bad,
            Some((5_000, Some(20))),
            "bad lines are not events"
        );
        assert_eq!(is(10, 0, lines(Some(10)), 1), Some((10, Some(0))));
    }

    #[test]
    fn with_a_speed_the_last_event_decides_the_time_left() {
        let total = ExpectedTotal {
            count: Some(10),
            due_ms: Some(60_000),
        };
        let is =
            |acked, since_ms| total_and_eta(&counts(acked, 3), total, &at_rate(9_000), since_ms);
        assert_eq!(is(1, None), Some((10, Some(60))));
        assert_eq!(is(5, Some(45_500)), Some((10, Some(15))));
        assert_eq!(is(9, Some(70_000)), Some((10, Some(0))));
    }

    #[test]
    fn the_total_is_at_most_what_the_file_holds() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"a\nb\n\nc\n").expect("room");
        let ndjson = InputFormatRules::Ndjson;
        let total = |count, speed| find_total(file.path(), &ndjson, count, speed).count;
        assert_eq!(total(None, None), Some(3));
        assert_eq!(total(Some(2), None), Some(2));
        assert_eq!(total(Some(6_000), None), Some(3));
        assert_eq!(total(None, Some(2.0)), Some(0), "no line is an event");
        assert_eq!(
            find_total(Path::new("/nonexistent"), &ndjson, None, None).count,
            None
        );
    }
}
