//! `tail` without a screen: one line for each event or dead letter, or counts every ten seconds and a table at the end.
//!
//! Lines are buffered until the log is quiet or 100 ms have passed, so that a hundred thousand events a second need
//! few writes.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::classify::{Classified, Classifier};
use super::count_table::{dead_letter_table, event_table};
use super::counts::LiveCounts;
use super::event_line::{self, RecordOrigin};
use super::printable::printable;
use super::{count_down, dead_letters};
use crate::kafka::reader::ReadStep;
use crate::settings::{Output, Tail};

/// The longest time that a line stays in the buffer.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// The time between two lines of counts.
const COUNTS_EVERY: Duration = Duration::from_secs(10);
/// The size of the buffer. One write of this size costs as much as the write of one line.
const BUFFER_BYTES: usize = 64 * 1024;
/// The printer looks at the clock after this many records: every 1 ms at a million records a second.
const RECORDS_PER_LOOK: u32 = 1_000;

/// Prints what the reader delivers.
pub(super) struct Printer<'a> {
    classifier: Classifier,
    output: Output,
    /// Whether records come from the dead-letter topic.
    dlq: bool,
    topic: String,
    /// The number of lines until the end (`-n`).
    left: Option<u64>,
    counts: LiveCounts,
    out: &'a mut dyn Write,
    /// The width of the terminal that `out` writes to.
    columns: Option<usize>,
    buffer: Vec<u8>,
    records_since_look: u32,
    flushed_at: Instant,
    /// When the last line of counts was printed, and the total at that time.
    counts_at: (Instant, u64),
    hint_logged: bool,
}

impl Printer<'_> {
    /// Returns a printer at the beginning of the log.
    pub(super) fn new<'a>(
        args: &Tail,
        out: &'a mut dyn Write,
        columns: Option<usize>,
    ) -> Printer<'a> {
        Printer {
            classifier: Classifier::new(args),
            output: args.output(),
            dlq: args.dlq,
            topic: args.kafka.topic.clone(),
            left: args.events,
            counts: LiveCounts::default(),
            out,
            columns,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            records_since_look: 0,
            flushed_at: Instant::now(),
            counts_at: (Instant::now(), 0),
            hint_logged: false,
        }
    }

    /// Handles one step of the reader. Breaks after the last line of `-n`.
    ///
    /// # Errors
    /// Returns an error if the output cannot be written.
    pub(super) fn step(&mut self, step: ReadStep) -> io::Result<ControlFlow<()>> {
        let classified = match step {
            ReadStep::Record(record) => self.classifier.classify(record),
            ReadStep::Letter(letter) => Classified::DeadLetter(letter),
            ReadStep::Idle => {
                self.flush()?;
                self.print_due()?;
                return Ok(ControlFlow::Continue(()));
            }
            // The reader logs what it waits for.
            ReadStep::Behind(_) | ReadStep::Waiting(_) => return Ok(ControlFlow::Continue(())),
        };
        if self.print(&classified) && count_down(&mut self.left) {
            return Ok(ControlFlow::Break(()));
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        self.records_since_look += 1;
        if self.records_since_look >= RECORDS_PER_LOOK {
            self.print_due()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Counts a record and buffers its line. Returns whether it is an event or a dead letter.
    fn print(&mut self, classified: &Classified) -> bool {
        match classified {
            Classified::Event(event) => {
                self.counts.add_event(event);
                match self.output {
                    Output::Table => {}
                    Output::Json => {
                        let origin = RecordOrigin {
                            topic: &self.topic,
                            partition: event.partition,
                            offset: event.offset,
                        };
                        event_line::push_json(&mut self.buffer, &event.event, origin);
                    }
                    Output::Text => event_line::push_text(&mut self.buffer, &event.event),
                }
            }
            Classified::DeadLetter(letter) => {
                self.counts.add_dead_letter(letter);
                match self.output {
                    Output::Table => {}
                    Output::Json => dead_letters::push_json(&mut self.buffer, letter),
                    Output::Text => dead_letters::push_text(&mut self.buffer, letter),
                }
            }
            Classified::Rejected(reason) => {
                self.counts.add_rejected(*reason);
                return false;
            }
            Classified::Hidden => return false,
        }
        true
    }

    /// Looks at the clock, and flushes lines or prints counts if it is time to.
    fn print_due(&mut self) -> io::Result<()> {
        self.records_since_look = 0;
        if self.flushed_at.elapsed() < FLUSH_EVERY {
            return Ok(());
        }
        self.flushed_at = Instant::now();
        self.flush()?;
        if self.counts_at.0.elapsed() < COUNTS_EVERY {
            return Ok(());
        }
        self.log_hint();
        let counts = self.counts_line();
        self.counts_at = (Instant::now(), self.counts.sum.total());
        if self.output == Output::Table {
            writeln!(self.out, "{counts}")?;
            self.out.flush()?;
        }
        Ok(())
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    fn counts_line(&self) -> String {
        let total = self.counts.sum.total();
        let (printed_at, before) = self.counts_at;
        let rate = (total - before) as f64 / printed_at.elapsed().as_secs_f64().max(0.001);
        let (total, rate) = (HumanCount(total), HumanCount(rate.round() as u64));
        if self.dlq {
            let mut text = format!("{total} rejected records, {rate}/s");
            if self.counts.repeat_count > 0 {
                text.push_str("; ");
                text.push_str(&self.counts.repeats_text());
            }
            return text;
        }
        let [low, medium, high, critical] = self.counts.sum.severities;
        let mut text = format!(
            "{total} events, {rate}/s; low {low}, medium {medium}, high {high}, critical {critical}"
        );
        if self.classifier.knows_late() {
            text.push_str(&format!(", late {}", self.counts.sum.late));
        }
        if self.counts.rejected_total() > 0 {
            text.push_str(&format!(", rejected {}", self.counts.rejected_total()));
        }
        text
    }

    /// Logs the hint about a filter that matches no event, once.
    fn log_hint(&mut self) {
        if let Some(hint) = self.classifier.hint().filter(|_| !self.hint_logged) {
            tracing::warn!(hint = %printable(hint), "no event matches a name in the filter");
            self.hint_logged = true;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
            self.out.flush()?;
        }
        Ok(())
    }

    /// Prints the buffered lines, or the table with `--output table`.
    ///
    /// # Errors
    /// Returns an error if the output cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.log_hint();
        if self.output == Output::Table {
            let table = if self.dlq {
                dead_letter_table(&self.counts, self.columns)
            } else {
                event_table(&self.counts, self.classifier.knows_late(), self.columns)
            };
            self.out.write_all(table.as_bytes())?;
        }
        self.out.flush()
    }
}
