//! `citystream verify`: reads the log and the tables and says whether they agree.
//!
//! It joins no group, commits nothing and writes nothing; the tables are read by Query and by key.
//! Once, it ends with the answer as its exit code; with `--watch` it goes on, and shows the answer as
//! metrics. [`compare::compare`] is the comparison as a function, for use inside of other roles.

pub mod compare;
pub mod explain;
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
use compare::Options;

pub use report::Report;

/// Returns what to compare, of now.
pub(crate) fn options(args: &Verify) -> Options {
    let now_ms = unix_ms();
    Options {
        from_ms: args.from.map(|m| m.at(now_ms)),
        until_ms: args.until.map(|m| m.at(now_ms)),
        raw_ttl_ms: args.raw_ttl,
        alert_ttl_ms: args.alert_ttl,
        memory_bytes: usize::try_from(args.memory_budget).unwrap_or(usize::MAX),
    }
}

/// Prints a report; a reader that is gone is no error.
pub(crate) fn print(
    report: &Report,
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

/// Shows how many records were read.
pub(crate) fn progress(read: &Arc<AtomicU64>) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .expect("a constant template is right");
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
