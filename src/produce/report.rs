//! What `produce` says on standard error: progress, bad lines, the summary.
//!
//! A bar on a terminal; elsewhere one plain line every ten seconds, without escape codes. With
//! `--log-format json` everything is a log line, so that each line is an object. The bar counts
//! acknowledged events of as many as there will be: `--count`, or what the file holds ([`find_total`]).

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::core::parse::Reject;
use crate::core::progress::{Progress, show_eta};
use crate::core::replay::Replay;
use crate::kafka::tally::{Counts, Tally};
use crate::produce::input::Input;
use crate::produce::pump::Trouble;
use crate::settings::{LogFormat, Produce};
use crate::telemetry::{self, can_draw, steady_ms};

/// Time between two plain lines, and between two complaints about Kafka.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Frames a second of the bar.
const FRAMES: u8 = 10;
/// Columns that the whole line fits in; on fewer it goes without the bar and the rate.
const COLUMNS_MIN: u16 = 80;

pub(crate) struct Report {
    tally: Arc<Tally>,
    bar: Option<ProgressBar>,
    total: Arc<Mutex<Total>>,
    json: bool,
    last: Mutex<Last>,
}

/// When something was said last, and the acknowledged events by then.
struct Last {
    line: (Instant, u64),
    progress: Progress,
    /// When the first event was sent, by [`steady_ms`].
    begun_ms: Option<i64>,
    stall: Option<Instant>,
}

/// How much there is to send, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    /// Events, or lines of which the bad ones are still to be taken off.
    count: Option<u64>,
    /// When the last one is due, in milliseconds after the first; with `--speed` only.
    due_ms: Option<i64>,
}

impl Report {
    pub(crate) fn new(args: &Produce, tally: Arc<Tally>) -> Report {
        let json = args.log.log_format == Some(LogFormat::Json);
        let draws = !json && can_draw(&std::io::stderr());
        let total = Arc::new(Mutex::new(Total {
            count: args.count.filter(|_| args.input.is_none()),
            due_ms: None,
        }));
        if draws && let Some(path) = args.input.clone().filter(|path| path.as_os_str() != "-") {
            let (count, speed, total) = (args.count, args.speed, Arc::clone(&total));
            // Of a long file it takes a while, and nothing waits for it.
            let counting = move || {
                let found = find_total(&path, count, speed);
                *total.lock().expect("no panic holds the lock") = found;
            };
            std::thread::spawn(counting);
        }
        Report {
            bar: draws.then(bar),
            total,
            tally,
            json,
            last: Mutex::new(Last {
                line: (Instant::now(), 0),
                progress: Progress::new(steady_ms(), 0),
                begun_ms: None,
                stall: None,
            }),
        }
    }

    /// To be called about ten times a second.
    pub(crate) fn tick(&self) {
        let counts = self.tally.counts();
        let mut last = self
            .last
            .lock()
            .expect("no panic is possible while the lock is held");
        if let Err(why) = self.tally.stalling()
            && last.stall.is_none_or(|at| at.elapsed() >= LINE_EVERY)
        {
            last.stall = Some(Instant::now());
            tracing::warn!(waiting = counts.undelivered(), why, "waiting for kafka");
        }
        if let Some(bar) = &self.bar {
            let now_ms = steady_ms();
            last.progress.look(now_ms, counts.acked);
            if counts.sent > 0 {
                last.begun_ms.get_or_insert(now_ms);
            }
            let total = *self.total.lock().expect("no panic holds the lock");
            let since_ms = last.begun_ms.map(|begun_ms| now_ms - begun_ms);
            draw(bar, &counts, total, &last.progress, since_ms);
        } else if last.line.0.elapsed() >= LINE_EVERY {
            let rate = per_second(last.line, counts.acked);
            last.line = (Instant::now(), counts.acked);
            if self.json {
                let Counts {
                    sent, acked, bad, ..
                } = counts;
                tracing::info!(sent, acked, bad, per_second = rate.round(), "producing");
            } else {
                say(&text(&counts, rate));
            }
        }
    }

    /// Reports one line of the input that was skipped.
    pub(crate) fn bad_line(&self, line: u64, reject: &Reject) {
        if self.json {
            let (reason, detail) = (reject.reason.name(), &reject.detail);
            tracing::warn!(line, reason, detail, "skipped a bad line");
            return;
        }
        let text = format!("line {line}: {reject}");
        match &self.bar {
            Some(bar) => bar.suspend(|| say(&text)),
            None => say(&text),
        }
    }

    /// Says how it ended.
    pub(crate) fn summary(&self, counts: &Counts, undelivered: u64, trouble: Trouble) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let Counts {
            sent,
            acked,
            failed,
            bad,
            heartbeats,
            latency,
            uptime,
        } = *counts;
        let seconds = uptime.as_secs_f64();
        let rate = counts.per_second();
        if self.json {
            let (p50_us, p99_us) = (latency.p50_us, latency.p99_us);
            let Trouble {
                late: made_late,
                bad: made_bad,
            } = trouble;
            tracing::info!(
                sent,
                acked,
                failed,
                bad,
                undelivered,
                heartbeats,
                seconds,
                rate,
                p50_us,
                p99_us,
                made_late,
                made_bad,
                "done producing"
            );
            return;
        }
        let acknowledged = if acked == 0 {
            "nothing was acknowledged".to_owned()
        } else {
            let (p50, p99) = (millis(latency.p50_us), millis(latency.p99_us));
            format!("acknowledged within {p50} (p50) and {p99} (p99)")
        };
        say(&format!(
            "sent {}, bad {}, failed {}, undelivered {}; {seconds:.1} s, {}/s, {acknowledged}",
            HumanCount(sent),
            HumanCount(bad),
            HumanCount(failed),
            HumanCount(undelivered),
            whole(rate),
        ));
        if trouble != Trouble::default() {
            let (late, bad) = (HumanCount(trouble.late), HumanCount(trouble.bad));
            say(&format!("of these made late {late}, made broken {bad}"));
        }
        if undelivered > 0 {
            say(&format!("{undelivered} events are undelivered"));
        }
    }
}

fn bar() -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(FRAMES);
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style("{spinner} {msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a constant template is right")
}

/// Counts what a file holds, of which at most `count` events are sent. Where it cannot be read, its
/// reading says so.
fn find_total(path: &Path, count: Option<u64>, speed: Option<f64>) -> Total {
    let most = count.unwrap_or(u64::MAX);
    match speed {
        Some(speed) => {
            let found = Input::last_due(path, Replay::at_speed(Some(speed)), most).ok();
            Total {
                count: found.map(|(events, _)| events),
                due_ms: found.map(|(_, due_ms)| due_ms),
            }
        }
        None => Total {
            count: Input::count_lines(path, most).ok(),
            due_ms: None,
        },
    }
}

/// Shows how far it is; `since_ms` is how long ago the first event was sent.
fn draw(
    bar: &ProgressBar,
    counts: &Counts,
    total: Total,
    progress: &Progress,
    since_ms: Option<i64>,
) {
    let Some((total, eta)) = standing(counts, total, progress, since_ms) else {
        bar.set_message(text(counts, progress.per_second()));
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
    // The message first: no frame shows all events beside a time left.
    bar.set_message(if is_wide {
        let rate = whole(progress.per_second());
        format!("acknowledged{}, {rate}/s, {eta}", unusual(counts))
    } else {
        eta
    });
    bar.set_position(counts.acked);
}

/// Returns what went wrong so far, to follow other counts.
fn unusual(counts: &Counts) -> String {
    let mut out = String::new();
    for (name, count) in [("bad", counts.bad), ("failed", counts.failed)] {
        if count > 0 {
            out.push_str(&format!(", {count} {name}"));
        }
    }
    out
}

/// Returns how many events there will be and the seconds until the last is acknowledged; nothing where
/// nobody knows.
fn standing(
    counts: &Counts,
    total: Total,
    progress: &Progress,
    since_ms: Option<i64>,
) -> Option<(u64, Option<u64>)> {
    let count = total.count?;
    // At a speed only events were counted; otherwise every line, and some turn out to be none.
    let bad = if total.due_ms.is_some() {
        0
    } else {
        counts.bad
    };
    let count = count.saturating_sub(bad).max(counts.acked);
    let left = count - counts.acked;
    let eta = match total.due_ms {
        Some(due_ms) if left > 0 => {
            let left_ms = due_ms - since_ms.unwrap_or(0);
            Some(u64::try_from(left_ms.max(0)).unwrap_or(0).div_ceil(1_000))
        }
        _ => progress.seconds_left(left),
    };
    Some((count, eta))
}

fn text(counts: &Counts, per_second: f64) -> String {
    format!(
        "{} acknowledged, {}/s{}",
        HumanCount(counts.acked),
        whole(per_second),
        unusual(counts)
    )
}

#[allow(clippy::cast_precision_loss)]
fn per_second(since: (Instant, u64), acked: u64) -> f64 {
    acked.saturating_sub(since.1) as f64 / since.0.elapsed().as_secs_f64().max(0.001)
}

/// One decimal below 10, thousands separated above.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(rate: f64) -> String {
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

/// The role's plain voice, beside the log.
pub(super) fn say(text: &str) {
    telemetry::print_stderr(&format!("citystream: {text}"));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::kafka::latency::LatencySummary;

    fn counts(acked: u64, bad: u64) -> Counts {
        Counts {
            sent: acked,
            acked,
            failed: 0,
            bad,
            heartbeats: 0,
            latency: LatencySummary::default(),
            uptime: Duration::ZERO,
        }
    }

    fn at_rate(per_second: u64) -> Progress {
        let mut progress = Progress::new(0, 0);
        progress.look(1_000, per_second);
        progress
    }

    #[test]
    fn progress_counts_acknowledged_events_of_as_many_as_there_will_be() {
        let lines = |count| Total {
            count,
            due_ms: None,
        };
        let is =
            |acked, bad, total, rate| standing(&counts(acked, bad), total, &at_rate(rate), None);
        assert_eq!(is(9, 0, Total::default(), 5), None, "nobody knows yet");
        assert_eq!(is(0, 0, lines(Some(6_000)), 0), Some((6_000, None)));
        let half = is(3_000, 0, lines(Some(6_000)), 100);
        assert_eq!(half, Some((6_000, Some(30))));
        let with_bad = is(3_000, 1_000, lines(Some(6_000)), 100);
        assert_eq!(with_bad, Some((5_000, Some(20))), "bad lines are none");
        assert_eq!(is(10, 0, lines(Some(10)), 1), Some((10, Some(0))));
    }

    #[test]
    fn at_a_speed_the_time_left_is_that_of_the_last_event() {
        let total = Total {
            count: Some(10),
            due_ms: Some(60_000),
        };
        let is = |acked, since_ms| standing(&counts(acked, 3), total, &at_rate(9_000), since_ms);
        assert_eq!(is(1, None), Some((10, Some(60))));
        assert_eq!(is(5, Some(45_500)), Some((10, Some(15))));
        assert_eq!(is(9, Some(70_000)), Some((10, Some(0))));
    }

    #[test]
    fn a_count_beyond_the_file_is_what_the_file_holds() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"a\nb\n\nc\n").expect("room");
        let total = |count, speed| find_total(file.path(), count, speed).count;
        assert_eq!(total(None, None), Some(3));
        assert_eq!(total(Some(2), None), Some(2));
        assert_eq!(total(Some(6_000), None), Some(3));
        assert_eq!(total(None, Some(2.0)), Some(0), "none of them is an event");
        assert_eq!(
            find_total(Path::new("/nonexistent"), None, None).count,
            None
        );
    }
}
