//! `tail` without a screen: lines of events or rejected records, or counts: a line each ten seconds
//! and the table at the end.
//!
//! Output is buffered until the log is quiet or 100 ms have passed, so that a hundred thousand events
//! a second do not wait for whoever reads them.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::classify::{Intake, Said};
use super::counts::Counts;
use super::dead_letters;
use super::event_line::{self, Place};
use crate::kafka::reader::{Letter, Record, Step};
use crate::settings::{Output, Tail};

/// Longest time that a line stays in the buffer.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// Time between two lines of counts.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Buffered output at most; one write of this size costs as much as one of a line.
const OUT_BYTES: usize = 64 * 1024;
/// Records between two looks at the clock: 1 ms at a million a second.
const CLOCK_EVERY: u32 = 1_000;

/// What is printed, and when.
pub(super) struct Printer<'a> {
    intake: Intake,
    output: Output,
    topic: String,
    left: Option<u64>,
    counts: Counts,
    /// Dead letters are shown.
    dlq: bool,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    unseen: u32,
    flushed: Instant,
    /// When the last line of counts was printed, and the number of records by then.
    line: (Instant, u64),
    /// A hint was told.
    hinted: bool,
}

impl Printer<'_> {
    /// Returns a printer that has seen nothing yet.
    pub(super) fn new<'a>(args: &Tail, out: &'a mut dyn Write) -> Printer<'a> {
        Printer {
            intake: Intake::new(args),
            output: args.output(),
            topic: args.kafka.topic.clone(),
            left: args.events,
            counts: Counts::default(),
            dlq: args.dlq,
            out,
            buffer: Vec::with_capacity(OUT_BYTES),
            unseen: 0,
            flushed: Instant::now(),
            line: (Instant::now(), 0),
            hinted: false,
        }
    }

    /// Takes what the reader calls back with; breaks once enough was seen.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(super) fn step(&mut self, step: Step) -> io::Result<ControlFlow<()>> {
        match step {
            Step::Record(record) => {
                if self.take(record)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                self.tick()?;
            }
            Step::Letter(letter) => {
                if self.take_letter(&letter)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                self.tick()?;
            }
            Step::Idle => {
                self.flush()?;
                self.look()?;
            }
            // The log says what is waited for.
            Step::Behind(_) | Step::Waiting(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take(&mut self, record: Record) -> io::Result<ControlFlow<()>> {
        let seen = match self.intake.take(record) {
            Said::Event(seen) => seen,
            Said::Rejected(reason) => {
                self.counts.reject(reason);
                return Ok(ControlFlow::Continue(()));
            }
            Said::Letter(_) | Said::Nothing => return Ok(ControlFlow::Continue(())),
        };
        self.counts.add(&seen);
        match self.output {
            Output::Table => {}
            Output::Json => {
                let place = Place {
                    topic: &self.topic,
                    partition: seen.partition,
                    offset: seen.offset,
                };
                event_line::push_json(&mut self.buffer, &seen.event, place);
            }
            Output::Text => event_line::push_text(&mut self.buffer, &seen.event),
        }
        self.one_less()
    }

    fn take_letter(&mut self, letter: &Letter) -> io::Result<ControlFlow<()>> {
        self.counts.add_letter(letter);
        match self.output {
            Output::Table => {}
            Output::Json => dead_letters::push_json(&mut self.buffer, letter),
            Output::Text => dead_letters::push_text(&mut self.buffer, letter),
        }
        self.one_less()
    }

    fn one_less(&mut self) -> io::Result<ControlFlow<()>> {
        if self.buffer.len() >= OUT_BYTES {
            self.flush()?;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn tick(&mut self) -> io::Result<()> {
        self.unseen += 1;
        if self.unseen >= CLOCK_EVERY {
            self.look()?;
        }
        Ok(())
    }

    /// Looks at the clock: prints or flushes what is due.
    fn look(&mut self) -> io::Result<()> {
        self.unseen = 0;
        if self.flushed.elapsed() < FLUSH_EVERY {
            return Ok(());
        }
        self.flushed = Instant::now();
        let line_is_due = self.line.0.elapsed() >= LINE_EVERY;
        if line_is_due {
            self.hint();
        }
        if self.output != Output::Table {
            return self.flush();
        }
        if line_is_due {
            let text = self.counts_line();
            self.line = (Instant::now(), self.counts.sum.total());
            writeln!(self.out, "{text}")?;
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
        let rate = (total - self.line.1) as f64 / self.line.0.elapsed().as_secs_f64().max(0.001);
        let (total, rate) = (HumanCount(total), HumanCount(rate.round() as u64));
        if self.dlq {
            let mut text = format!("{total} rejected records, {rate}/s");
            if self.counts.repeat_count > 0 {
                text.push_str("; ");
                text.push_str(&dead_letters::repeats(&self.counts));
            }
            return text;
        }
        let [low, medium, high, critical] = self.counts.sum.severities;
        let mut text = format!(
            "{total} events, {rate}/s; low {low}, medium {medium}, high {high}, critical {critical}"
        );
        if self.intake.knows_late() {
            text.push_str(&format!(", late {}", self.counts.sum.late));
        }
        if self.counts.rejected_total() > 0 {
            text.push_str(&format!(", rejected {}", self.counts.rejected_total()));
        }
        text
    }

    /// Says once what is known of names that no event has.
    fn hint(&mut self) {
        if let Some(hint) = self.intake.hint().filter(|_| !self.hinted) {
            let mut text = String::new();
            event_line::push_printable(&mut text, hint);
            tracing::warn!("{text}");
            self.hinted = true;
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

    /// Prints what is left, and the table if counts were asked for.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.hint();
        if self.output == Output::Table {
            let table = if self.dlq {
                dead_letters::table(&self.counts)
            } else {
                self.counts.table(self.intake.knows_late())
            };
            self.out.write_all(table.as_bytes())?;
        }
        self.out.flush()
    }
}
