//! `citystream verify`: reads the log and the tables, and reports whether they agree.
//!
//! It joins no group, commits nothing and writes nothing. It reads the tables by Query and by key. One
//! comparison ends with the result as its exit code. With `--watch` it compares again and again, and
//! shows the result as metrics. Other roles can call [`compare::compare`].

pub mod compare;
pub mod explain;
mod key_pages;
mod report;
pub(crate) mod watch;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::settings::{Verify, VerifyOutput};
use crate::telemetry::unix_ms;
use compare::CompareOptions;

pub use report::VerifyReport;

/// Returns what to compare. Relative times of the command line count from now.
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

/// Prints a report. A closed pipe is not an error.
pub(crate) fn print(
    report: &VerifyReport,
    output: VerifyOutput,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let written = match output {
        VerifyOutput::Text => report.write_text(out),
        VerifyOutput::Json => writeln!(out, "{}", report.json()),
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write the output"),
    }
}

/// Shows on the terminal how many records were read.
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
