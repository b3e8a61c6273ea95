//! `produce --dry-run`: reads the input like a normal run, shows the first events and counts the lines that would be
//! rejected, but sends nothing.
//!
//! The events go to standard output, one JSON object per line, exactly as a normal run would send them. The counts of a
//! dry run go to standard error. The exit code of a dry run is the same as that of a normal run that delivers all its
//! events.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::HumanCount;

use super::input::{Input, LineBatch, NextBatch};
use super::pump::with_time;
use super::report::print_line;
use super::{input_error, input_rules, open, replay};
use crate::core::parse::{Reason, Reject};
use crate::core::replay::Replay;
use crate::exit::Exit;
use crate::settings::{LogFormat, Produce};
use crate::shutdown::Shutdown;

/// Number of events that a dry run shows.
const EVENTS_SHOWN: u64 = 10;
/// Maximum wait for input before the program checks whether a stop was requested.
const INPUT_WAIT: Duration = Duration::from_millis(100);

/// The results of checking the input.
#[derive(Debug, Default)]
struct Findings {
    /// Number of events that a normal run would send.
    events: u64,
    /// The lines that a normal run would reject, grouped by reason.
    rejects: BTreeMap<Reason, Rejects>,
}

/// The lines that a normal run would reject for the same reason.
#[derive(Debug)]
struct Rejects {
    count: u64,
    first_line: u64,
    first_detail: String,
}

/// Checks the input until the input ends or `--count` events have been found.
///
/// # Errors
/// Returns an error if the input cannot be read, the output cannot be written, or a stop is requested.
pub(crate) fn run(args: &Produce, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let path = args.input.as_deref().context("--dry-run needs --input")?;
    let format = input_rules(args)?;
    let input = open(path, &format)?;
    let mut replay = replay(args, path, &format)?;
    let mut findings = Findings::default();
    let events_max = args.count.unwrap_or(u64::MAX);
    let mut out = io::stdout().lock();
    while findings.events < events_max {
        if shutdown.is_triggered() {
            anyhow::bail!("stopped before the end of the input was checked");
        }
        let batch = match next_batch(&input)? {
            NextBatch::Lines(batch) => batch,
            NextBatch::Nothing => continue,
            NextBatch::End => break,
        };
        match findings.take(&batch, &mut replay, events_max, &mut out) {
            // If the reader of standard output has closed the pipe, the counts that are printed to standard error are
            // still useful.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            other => other.context("failed to write the output")?,
        }
    }
    findings.report(args.log.log_format == Some(LogFormat::Json));
    Ok(if findings.rejects.is_empty() || args.skip_bad {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn next_batch(input: &Input) -> anyhow::Result<NextBatch> {
    input.next_batch(INPUT_WAIT).map_err(input_error)
}

impl Findings {
    /// Counts the lines of a batch, and writes the first events of the run. All lines are counted even if writing
    /// fails.
    fn take(
        &mut self,
        batch: &LineBatch,
        replay: &mut Replay,
        events_max: u64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut written = Ok(());
        for line in &batch.lines {
            if self.events == events_max {
                break;
            }
            let event = match &line.outcome {
                Ok(event) => event,
                Err(reject) => {
                    self.count_reject(line.number, reject);
                    continue;
                }
            };
            self.events += 1;
            if self.events > EVENTS_SHOWN || written.is_err() {
                continue;
            }
            replay.due_ms(event.time_ms);
            let value = batch.value(event);
            let moved_ms = replay.moved_ms(event.time_ms);
            let moved = moved_ms.and_then(|ms| with_time(value, ms));
            let shown = moved.as_deref().map_or(value, str::as_bytes);
            written = out.write_all(&[shown, b"\n"].concat());
        }
        written.and_then(|()| out.flush())
    }

    fn count_reject(&mut self, line: u64, reject: &Reject) {
        let rejects = self
            .rejects
            .entry(reject.reason)
            .or_insert_with(|| Rejects {
                count: 0,
                first_line: line,
                first_detail: reject.detail.clone(),
            });
        rejects.count += 1;
    }

    fn report(&self, json: bool) {
        let rejected: u64 = self.rejects.values().map(|rejects| rejects.count).sum();
        for (reason, rejects) in &self.rejects {
            let (reason, count) = (reason.name(), rejects.count);
            let (line, detail) = (rejects.first_line, &rejects.first_detail);
            if json {
                tracing::warn!(reason, count, line, detail, "found invalid lines");
            } else {
                let count = HumanCount(count);
                print_line(&format!(
                    "{reason}: {count}, first in line {line}: {detail}"
                ));
            }
        }
        if json {
            tracing::info!(events = self.events, rejected, "done checking the input");
        } else {
            let (events, rejected) = (HumanCount(self.events), HumanCount(rejected));
            print_line(&format!(
                "dry run: {events} events would be sent, {rejected} rejected; nothing was sent"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::UnixMs;
    use crate::produce::input::InputFormatRules;

    fn batch() -> LineBatch {
        let event = |minute: u32| {
            format!(
                "{{\"city\":\"NYC\",\"event_type\":\"a\",\"severity\":\"low\",\"timestamp\":\"2013-01-01T06:{minute:02}:00Z\"}}\n"
            )
        };
        let mut text: String = (0..12).map(event).collect();
        text.insert_str(0, "{}\n{\n{}\n");
        let input = Input::from_reader(io::Cursor::new(text), &InputFormatRules::Ndjson);
        let next = input.expect("a thread").next_batch(Duration::from_secs(60));
        let NextBatch::Lines(batch) = next.expect("readable") else {
            panic!("no lines")
        };
        batch
    }

    #[test]
    fn the_first_events_are_shown_as_they_would_be_sent_and_all_are_counted() {
        for (events_max, events, shown) in [(u64::MAX, 12, 10), (2, 2, 2)] {
            let (mut findings, mut out) = (Findings::default(), Vec::new());
            let now_ms = UnixMs(1_700_000_000_000);
            let mut replay = Replay::at_speed(Some(1.0)).restamped(now_ms, None);
            let taken = findings.take(&batch(), &mut replay, events_max, &mut out);
            taken.expect("memory takes it");
            assert_eq!(findings.events, events);
            let counts: Vec<(&str, u64, u64)> = findings
                .rejects
                .iter()
                .map(|(reason, it)| (reason.name(), it.count, it.first_line))
                .collect();
            assert_eq!(counts, [("not_json", 1, 2), ("missing_field", 2, 1)]);
            let out = String::from_utf8(out).expect("UTF-8");
            assert_eq!(out.lines().count(), shown);
            let second = out.lines().nth(1).expect("two lines");
            assert!(second.contains("2023-11-14T22:14:20.000Z"), "{second}");
        }
    }

    /// A pipe whose reading end has been closed.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_are_counted_after_the_reader_has_closed() {
        let mut findings = Findings::default();
        let taken = findings.take(&batch(), &mut Replay::default(), u64::MAX, &mut Closed);
        assert_eq!(taken.expect_err("closed").kind(), ErrorKind::BrokenPipe);
        assert_eq!(findings.events, 12);
    }
}
