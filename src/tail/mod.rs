//! `citystream tail`: live counts by city, type and severity, the events themselves, or what was
//! rejected and why.
//!
//! Reads the topic without a group and commits nothing, so it disturbs nobody. On a terminal it is a
//! live screen ([`screen`]); everything else is lines ([`printer`]). A closed output pipe is a
//! normal end.

mod board;
mod classify;
mod counts;
mod dead_letters;
mod event_line;
mod filter_hint;
mod history;
mod printer;
pub(crate) mod screen;
pub mod terminal;

use std::io::{self, Write};
use std::ops::ControlFlow;

use anyhow::Context as _;

use crate::exit::SettingsError;
use crate::kafka::reader::{LogReader, Range, Start};
use crate::settings::{From, Tail};
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;
use printer::Printer;

/// Returns the topic to read.
pub(crate) fn topic(args: &Tail) -> String {
    if args.dlq {
        args.kafka.dlq_topic()
    } else {
        args.kafka.topic.clone()
    }
}

/// Returns what to read.
pub(crate) fn range(args: &Tail) -> anyhow::Result<Range> {
    let start = match args.from {
        From::End => Start::End,
        From::Beginning => Start::Beginning,
        From::Ago(ms) => Start::At(unix_ms() - ms),
        From::At(ms) => Start::At(ms),
    };
    if let (Start::At(from_ms), Some(until_ms)) = (start, args.until)
        && from_ms >= until_ms
    {
        return Err(SettingsError("--from must lie before --until".to_owned()).into());
    }
    Ok(Range {
        start,
        until_ms: args.until,
        stop_at_end: args.exit_at_end,
    })
}

/// Reads and prints lines. Returns at the end of the range, after `-n` records, once stopping is
/// asked for, or when nobody reads `out` any more.
pub(crate) fn print(
    reader: &LogReader,
    range: &Range,
    args: &Tail,
    shutdown: &Shutdown,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut printer = Printer::new(args, out);
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
