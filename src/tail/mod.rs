//! `citystream tail`: shows live counts by city, type and severity, the events themselves, or the dead letters.
//!
//! `tail` reads the topic without a consumer group and commits nothing, so `tail` does not affect consumers. On a
//! terminal, `tail` shows a live screen ([`screen`]). If the output is not a terminal, `tail` prints lines
//! ([`printer`]). With `--incidents`, `tail` reads the table of incidents instead of the topic ([`incidents`]).

mod board;
mod classify;
mod count_table;
mod counts;
mod dead_letters;
mod event_line;
mod filter_hint;
mod history;
pub(crate) mod incidents;
mod printable;
mod printer;
pub(crate) mod screen;
pub mod terminal;

use std::io;
use std::ops::ControlFlow;

use anyhow::Context as _;

use crate::exit::SettingsError;
use crate::kafka::reader::{LogReader, ReadRange, ReadStart};
use crate::output;
use crate::settings::Tail;
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;
use printer::Printer;

/// The hint that a user sees if `tail` starts at the end of the log and receives no record.
const QUIET_HINT: &str = "only new records are shown; --from beginning shows the older ones, too";

/// Returns the name of the topic to read.
pub(crate) fn topic(args: &Tail) -> String {
    if args.dlq {
        args.kafka.dlq_topic()
    } else {
        args.kafka.topic.clone()
    }
}

/// Returns the range of the log to read.
///
/// # Errors
/// Returns an error if the end of the range is before its beginning.
pub(crate) fn range(args: &Tail) -> anyhow::Result<ReadRange> {
    let now_ms = unix_ms();
    let start = ReadStart::from_setting(args.from, now_ms);
    let until_ms = args.until.map(|moment| moment.at(now_ms));
    if let (ReadStart::At(from_ms), Some(until_ms)) = (start, until_ms)
        && from_ms >= until_ms
    {
        return Err(SettingsError::new("--from must be before --until").into());
    }
    Ok(ReadRange {
        start,
        until_ms,
        stop_at_end: args.exit_at_end,
    })
}

/// Reads the log and prints lines to standard output.
///
/// The function returns at the end of the range, after the number of records that `-n` allows, or when `shutdown` is
/// triggered. The function also returns when the program that reads the output of `tail` closes the pipe.
///
/// # Errors
/// Returns an error if reading fails or the output cannot be written.
pub(crate) fn print_lines(
    reader: &LogReader,
    range: &ReadRange,
    args: &Tail,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let columns = output::columns(&out);
    let mut printer = Printer::new(args, &mut out, columns);
    let mut written = Ok(());
    reader.run(range, shutdown, &mut |step| match printer.step(step) {
        Ok(flow) => flow,
        Err(error) => {
            written = Err(error);
            ControlFlow::Break(())
        }
    })?;
    match written.and_then(|()| printer.finish()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write the output"),
    }
}

/// Decreases the number of records that `-n` still allows. Returns true if the current record is the last record that
/// `-n` allows.
fn count_down(left: &mut Option<u64>) -> bool {
    left.as_mut().is_some_and(|left| {
        *left -= 1;
        *left == 0
    })
}
