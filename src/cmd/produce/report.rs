//! What `produce` says on standard error: progress, bad lines, the summary.
//!
//! A bar on a terminal; elsewhere one plain line every ten seconds, without escape codes. With
//! `--log-format json` everything is a log line, so that each line is an object.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::core::parse::Reject;
use crate::kafka::input::InputProgress;
use crate::kafka::pump::{Source, Trouble};
use crate::kafka::tally::{Counts, Tally};
use crate::settings::{LogFormat, Produce};
use crate::telemetry::{self, can_draw};

/// Time between two plain lines, and between two complaints about Kafka.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Frames a second of the bar.
const FRAMES: u8 = 10;
/// Columns that the whole line fits in; on fewer it goes without the bar and the rate.
const COLUMNS_MIN: u16 = 80;

pub(super) struct Report {
    tally: Arc<Tally>,
    input: Option<InputProgress>,
    bar: Option<ProgressBar>,
    json: bool,
    last: Mutex<Last>,
}

/// When something was said last, and the acknowledged events by then.
struct Last {
    line: (Instant, u64),
    shown: (Instant, u64),
    per_second: f64,
    stall: Option<Instant>,
}

impl Report {
    pub(super) fn new(args: &Produce, source: &Source, tally: Arc<Tally>) -> Report {
        let input = match source {
            Source::Input(input, _) => Some(input.progress()),
            Source::Synthetic(_) => None,
        };
        let json = args.log.log_format == Some(LogFormat::Json);
        let bytes = input.as_ref().and_then(|input| input.bytes_total);
        let now = Instant::now();
        Report {
            bar: (!json && can_draw(&std::io::stderr())).then(|| bar(args.count, bytes)),
            input,
            tally,
            json,
            last: Mutex::new(Last {
                line: (now, 0),
                shown: (now, 0),
                per_second: 0.0,
                stall: None,
            }),
        }
    }

    /// To be called about ten times a second.
    pub(super) fn tick(&self) {
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
            if last.shown.0.elapsed() >= Duration::from_secs(1) {
                last.per_second = per_second(last.shown, counts.acked);
                last.shown = (Instant::now(), counts.acked);
            }
            match &self.input {
                Some(input) if input.bytes_total.is_some() => bar.set_position(input.bytes_read()),
                _ => bar.set_position(counts.acked),
            }
            bar.set_message(text(&counts, last.per_second));
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
    pub(super) fn bad_line(&self, line: u64, reject: &Reject) {
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
    pub(super) fn summary(&self, counts: &Counts, undelivered: u64, trouble: Trouble) {
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

fn bar(count: Option<u64>, bytes: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(FRAMES);
    let is_wide = crossterm::terminal::size().is_ok_and(|(columns, _)| columns >= COLUMNS_MIN);
    let (length, template) = match (bytes, count) {
        // With both, whichever ends first does; the bytes have the truer rate.
        (Some(bytes), None) if is_wide => (
            Some(bytes),
            "{bar:24} {bytes}/{total_bytes}  {msg}  eta {eta}",
        ),
        (_, Some(count)) if is_wide => (
            Some(count),
            "{bar:24} {human_pos}/{human_len}  {msg}  eta {eta}",
        ),
        (Some(bytes), None) => (Some(bytes), "{bytes}/{total_bytes}  eta {eta}"),
        (_, Some(count)) => (Some(count), "{human_pos}/{human_len}  eta {eta}"),
        (None, None) => (None, "{spinner} {msg}"),
    };
    let bar = ProgressBar::with_draw_target(length, target);
    let style = ProgressStyle::with_template(template).expect("a constant template is right");
    bar.set_style(style);
    bar
}

fn text(counts: &Counts, per_second: f64) -> String {
    let mut out = format!(
        "{} acknowledged, {}/s",
        HumanCount(counts.acked),
        whole(per_second)
    );
    for (name, count) in [("bad", counts.bad), ("failed", counts.failed)] {
        if count > 0 {
            out.push_str(&format!(", {count} {name}"));
        }
    }
    out
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
    telemetry::say(&format!("citystream: {text}"));
}
