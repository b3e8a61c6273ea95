//! Prints the output of `tail` when there is no live screen. The printer writes a line for each event or dead letter.
//! With `--output table`, the printer writes only counts: one line every ten seconds, and a table at the end.
//!
//! The printer buffers lines until no record arrives for a moment or 100 ms have passed. Buffering many lines for each
//! write makes the output fast at a high event rate.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::classify::{Classified, Classifier};
use super::count_table::{dead_letter_table, event_table};
use super::counts::LiveCounts;
use super::event_line::{self, RecordOrigin};
use super::printable::printable;
use super::{QUIET_HINT, count_down, dead_letters};
use crate::kafka::reader::ReadStep;
use crate::settings::{StartFrom, Tail, TailOutput};

/// Maximum time that a line stays in the buffer.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// Time between two lines that show the counts so far.
const COUNTS_EVERY: Duration = Duration::from_secs(10);
/// Size of the output buffer in bytes. A write of 64 KiB takes about as long as a write of a single line.
const BUFFER_BYTES: usize = 64 * 1024;
/// Number of records after which the printer reads the clock. At a million records per second, the printer reads the
/// clock every millisecond.
const RECORDS_PER_LOOK: u32 = 1_000;

/// Prints the records that the reader delivers.
pub(super) struct Printer<'a> {
    classifier: Classifier,
    output: TailOutput,
    /// True if the records come from the dead-letter topic.
    dlq: bool,
    topic: String,
    /// The remaining number of lines that the option `-n` allows, or `None` if `-n` is not given.
    left: Option<u64>,
    counts: LiveCounts,
    out: &'a mut dyn Write,
    /// The width of the terminal to which `out` writes, in columns.
    columns: Option<usize>,
    buffer: Vec<u8>,
    records_since_look: u32,
    flushed_at: Instant,
    /// The time at which counts were last printed, and the total number of records at that time.
    counts_at: (Instant, u64),
    hint_logged: bool,
    /// True if `tail` prints only new records and no record has arrived yet.
    may_be_quiet: bool,
}

impl Printer<'_> {
    /// Returns a printer that has not printed any record yet.
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
            may_be_quiet: args.from == StartFrom::End,
        }
    }

    /// Processes one report of the reader, such as a new record. Returns `Break` after the last line that `-n` allows.
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
            // The reader itself logs why it is waiting, so the printer does not report the wait.
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

    /// Counts a record and adds its line to the output buffer. Returns true if the record is an event or a dead letter.
    fn print(&mut self, classified: &Classified) -> bool {
        match classified {
            Classified::Event(event) => {
                self.counts.add_event(event);
                match self.output {
                    TailOutput::Table => {}
                    TailOutput::Json => {
                        let origin = RecordOrigin {
                            topic: &self.topic,
                            partition: event.partition,
                            offset: event.offset,
                        };
                        event_line::push_json(&mut self.buffer, &event.event, origin);
                    }
                    TailOutput::Text => event_line::push_text(&mut self.buffer, &event.event),
                }
            }
            Classified::DeadLetter(letter) => {
                self.counts.add_dead_letter(letter);
                match self.output {
                    TailOutput::Table => {}
                    TailOutput::Json => dead_letters::push_json(&mut self.buffer, letter),
                    TailOutput::Text => dead_letters::push_text(&mut self.buffer, letter),
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

    /// Reads the clock, flushes buffered lines if a flush is due, and prints counts if counts are due.
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
        if self.may_be_quiet && self.counts.sum.total() == 0 {
            tracing::info!("{QUIET_HINT}");
        }
        self.may_be_quiet = false;
        let counts = self.counts_line();
        self.counts_at = (Instant::now(), self.counts.sum.total());
        if self.output == TailOutput::Table {
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

    /// Logs a hint if the filter contains a name that matches no event. The function logs at most one hint in the whole
    /// run.
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

    /// Prints the buffered lines. With `--output table`, also prints the table of counts.
    ///
    /// # Errors
    /// Returns an error if the output cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.log_hint();
        if self.output == TailOutput::Table {
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
