//! `citystream verify`: reads the log and the tables and says whether they agree.
//!
//! It joins no group, commits nothing and writes nothing; the tables are read by Query and by key.
//! Once, it ends with the answer as its exit code; with `--watch` it goes on, and shows the answer as
//! metrics. [`compare::compare`] is the comparison as a function, for use inside of other roles.

pub mod compare;
pub mod explain;
mod report;
mod watch;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::cmd::{Exit, SettingsError};
use crate::core::keys::TableNames;
use crate::kafka::client::client_config;
use crate::settings::{Verify, VerifyOutput};
use crate::shutdown::Shutdown;
use crate::store::client::{ConnectOptions, connect};
use crate::store::error::Kind;
use crate::telemetry::{Metrics, can_draw, unix_ms};
use compare::{Options, Source, compare};

pub use report::Report;

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run(args: Verify, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let kafka = client_config(&args.kafka, "verify")
        .map_err(|e| SettingsError(format!("{:#}", anyhow::Error::from(e))))?;
    let client = connect(ConnectOptions::default())
        .await
        .map_err(|error| match error.kind() {
            Kind::Settings => SettingsError(error.to_string()).into(),
            _ => anyhow::Error::new(error),
        })
        .context("failed to set up the connection to DynamoDB")?;
    let source = Source {
        client,
        names: TableNames::new(&args.tables.table_prefix),
        kafka,
        topic: args.kafka.topic.clone(),
        group: args.group.clone(),
    };
    let now_ms = unix_ms();
    let ends = (
        args.from.map(|m| m.at(now_ms)),
        args.until.map(|m| m.at(now_ms)),
    );
    if let (Some(from), Some(until)) = ends
        && from >= until
    {
        return Err(SettingsError("--from must lie before --until".to_owned()).into());
    }
    if let Some(window) = args.explain {
        let out = Arc::new(Mutex::new(io::stdout()));
        return explain::explain(&source, window, args.output, out, &metrics, &shutdown).await;
    }
    if args.watch.is_some() {
        return watch::watch(&args, &source, &metrics, &shutdown).await;
    }
    let read = Arc::new(AtomicU64::new(0));
    let bar = can_draw(&io::stderr()).then(|| progress(&read));
    let compared = compare(&source, &options(&args), &metrics, &read, &shutdown).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let Some(report) = compared? else {
        anyhow::bail!("stopped before the comparison was done");
    };
    print(&report, args.output, &mut io::stdout())?;
    Ok(if report.agrees() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Returns what to compare, of now.
fn options(args: &Verify) -> Options {
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
fn print(report: &Report, output: VerifyOutput, out: &mut dyn Write) -> anyhow::Result<()> {
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
fn progress(read: &Arc<AtomicU64>) -> ProgressBar {
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
