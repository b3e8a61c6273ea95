//! `citystream verify`: reads the log and the tables, and reports whether their counts agree.
//!
//! The command joins no consumer group, commits no offsets, and writes nothing. The command reads rows of the tables
//! with Query requests and by key. Without `--watch`, the command compares once, and its exit code shows the result.
//! With `--watch`, the command compares repeatedly and shows the results as metrics. With `--incidents`, the command
//! compares the incidents of `notify` instead of the counts ([`incidents`]). Other roles can call [`compare::compare`].

pub mod compare;
pub mod explain;
pub mod incidents;
mod key_pages;
mod report;
mod rollups;
pub(crate) mod watch;

use rdkafka::ClientConfig;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::settings::{Verify, VerifyOutput};
use crate::telemetry::unix_ms;
use compare::CompareOptions;

pub use incidents::IncidentReport;
pub use report::VerifyReport;

/// Returns the settings of the comparison. Relative times on the command line are relative to the current time.
pub(crate) fn options(args: &Verify) -> CompareOptions {
    let now_ms = unix_ms();
    CompareOptions {
        from_ms: args.from.map(|m| m.at(now_ms)),
        until_ms: args.until.map(|m| m.at(now_ms)),
        raw_ttl_ms: args.raw_ttl,
        alert_ttl_ms: args.alert_ttl,
        memory_bytes: usize::try_from(args.memory_budget).unwrap_or(usize::MAX),
    }
}

/// Prints a report. If the output is a closed pipe, the function returns no error.
pub(crate) fn print_report(
    report: &VerifyReport,
    output: VerifyOutput,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let written = match output {
        VerifyOutput::Text => report.write_text(out),
        VerifyOutput::Json => writeln!(out, "{}", report.json()),
    };
    finish(written.and_then(|()| out.flush()))
}

/// Prints a report about incidents. If the output is a closed pipe, the function returns no error.
pub(crate) fn print_incidents(
    report: &IncidentReport,
    output: VerifyOutput,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    finish(report.write(output, out))
}

fn finish(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write the output"),
    }
}

/// Shows on the terminal how many records of the log have been read.
pub(crate) fn show_progress(read: &Arc<AtomicU64>) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .expect("the template is constant");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.set_message("reading the tables");
    bar.enable_steady_tick(Duration::from_millis(100));
    let (shown, read) = (bar.clone(), Arc::clone(read));
    tokio::spawn(async move {
        while !shown.is_finished() {
            let count = read.load(Ordering::Relaxed);
            if count > 0 {
                shown.set_message(format!("read {} records of the log", HumanCount(count)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    bar
}

/// Returns the beginning of the error message for a cluster in which no broker answers.
fn unreached(kafka: &ClientConfig) -> String {
    let brokers = kafka.get("bootstrap.servers").unwrap_or_default();
    format!("failed to reach Kafka at {brokers}")
}
