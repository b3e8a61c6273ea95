//! `citystream tail`: live counts by city, type and severity, or the events themselves.
//!
//! Reads the topic without a group and commits nothing, so it disturbs nobody. The thread that polls
//! also parses and counts; drawing happens at most ten times a second, and output is buffered until
//! the log is quiet or 100 ms have passed, so that a hundred thousand events a second do not wait
//! for a terminal. A closed output pipe is a normal end.

mod counts;
mod line;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cmd::{Exit, SettingsError};
use crate::core::event::Event;
use crate::core::parse;
use crate::core::parse::Body;
use crate::core::watermark::MaxTime;
use crate::core::window::Rules;
use crate::kafka::client::client_config;
use crate::kafka::reader::{LogReader, Range, ReaderError, Record, Start, Step};
use crate::settings::{From, Output, Tail};
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;
use crate::telemetry::{Metrics, can_draw};
use counts::Counts;
use line::Place;

/// Time between two frames, and longest time that a line stays in the buffer.
const FRAME: Duration = Duration::from_millis(100);
/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Buffered output at most; one write of this size costs as much as one of a line.
const OUT_BYTES: usize = 64 * 1024;
/// Records between two looks at the clock: 1 ms at a million a second.
const CLOCK_EVERY: u32 = 1_000;

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run(args: Tail, _metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let config = client_config(&args.kafka, "tail")
        .map_err(|e| SettingsError(format!("{:#}", anyhow::Error::from(e))))?;
    let reader = LogReader::new(config, &args.kafka.topic)?;
    let work = tokio::task::spawn_blocking(move || {
        let bar = (args.output == Output::Table && can_draw(&io::stdout())).then(bar);
        follow(&reader, &args, &shutdown, &mut io::stdout(), bar)
    });
    work.await
        .context("the reader panicked")?
        .map_err(|error| match error.downcast_ref::<ReaderError>() {
            Some(ReaderError::Refused(refusal)) => SettingsError(refusal.to_string()).into(),
            _ => error,
        })?;
    Ok(Exit::Done)
}

/// Reads, filters, counts and prints. Returns at the end of the range, after `-n` events, once
/// stopping is asked for, or when nobody reads `out` any more.
fn follow(
    reader: &LogReader,
    args: &Tail,
    shutdown: &Shutdown,
    out: &mut dyn Write,
    bar: Option<ProgressBar>,
) -> anyhow::Result<()> {
    let start = match args.from {
        From::End => Start::End,
        From::Beginning => Start::Beginning,
        From::Ago(ms) => Start::At(unix_ms() - ms),
        From::At(ms) => Start::At(ms),
    };
    let range = Range {
        start,
        until_ms: args.until,
        stop_at_end: args.exit_at_end,
    };
    let mut view = View::new(args, out, bar);
    let mut written = Ok(());
    if args.events != Some(0) {
        reader.run(&range, shutdown, &mut |step| match view.step(step) {
            Ok(flow) => flow,
            Err(error) => {
                written = Err(error);
                ControlFlow::Break(())
            }
        })?;
    }
    match written.and_then(|()| view.finish()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write the output"),
    }
}

/// Which events are shown.
struct Filter {
    cities: Vec<String>,
    types: Vec<String>,
    severities: [bool; 4],
}

impl Filter {
    fn new(args: &Tail) -> Filter {
        let mut severities = [args.severities.is_empty(); 4];
        for severity in &args.severities {
            severities[severity.index()] = true;
        }
        Filter {
            cities: args
                .cities
                .iter()
                .map(|city| parse::trim(city).to_owned())
                .collect(),
            types: args.types.iter().map(|t| t.to_ascii_lowercase()).collect(),
            severities,
        }
    }

    fn passes(&self, event: &Event) -> bool {
        let among =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
        self.severities[event.severity.index()]
            && among(&self.cities, &event.city)
            && among(&self.types, &event.event_type)
    }
}

/// What is shown, and when.
struct View<'a> {
    filter: Filter,
    output: Output,
    topic: String,
    left: Option<u64>,
    counts: Counts,
    /// The largest time of each partition; kept only when read from the beginning, since lateness
    /// depends on everything before.
    times: Option<Vec<MaxTime>>,
    rules: Rules,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    bar: Option<ProgressBar>,
    unseen: u32,
    framed: Instant,
    /// When the last plain line was printed, and the number of events by then.
    line: (Instant, u64),
}

impl View<'_> {
    fn new<'a>(args: &Tail, out: &'a mut dyn Write, bar: Option<ProgressBar>) -> View<'a> {
        View {
            filter: Filter::new(args),
            output: args.output,
            topic: args.kafka.topic.clone(),
            left: args.events,
            counts: Counts::default(),
            times: (args.from == From::Beginning).then(Vec::new),
            rules: Rules::default(),
            out,
            buffer: Vec::with_capacity(OUT_BYTES),
            bar,
            unseen: 0,
            framed: Instant::now(),
            line: (Instant::now(), 0),
        }
    }

    fn step(&mut self, step: Step) -> io::Result<ControlFlow<()>> {
        match step {
            Step::Record(record) => {
                if self.take(&record)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                self.unseen += 1;
                if self.unseen >= CLOCK_EVERY {
                    self.frame()?;
                }
            }
            Step::Idle => {
                self.flush()?;
                self.frame()?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take(&mut self, record: &Record) -> io::Result<ControlFlow<()>> {
        let event = match &record.body {
            Ok(Body::Event(event)) => event,
            Ok(Body::Heartbeat(time_ms)) => {
                self.is_late(record, *time_ms);
                return Ok(ControlFlow::Continue(()));
            }
            Err(reject) => {
                self.counts.reject(reject.reason);
                return Ok(ControlFlow::Continue(()));
            }
        };
        // Events that are not shown move the watermark all the same.
        let late = self.is_late(record, event.time_ms);
        if !self.filter.passes(event) {
            return Ok(ControlFlow::Continue(()));
        }
        self.counts.add(event, late);
        match self.output {
            Output::Table => {}
            Output::Json => {
                let place = Place {
                    topic: &self.topic,
                    partition: record.partition,
                    offset: record.offset,
                };
                line::push_json(&mut self.buffer, event, place);
            }
            Output::Text => line::push_text(&mut self.buffer, event),
        }
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

    /// Judges a time by the partition's watermark as it stood, then lets it move the watermark.
    fn is_late(&mut self, record: &Record, time_ms: i64) -> bool {
        let (Some(times), Ok(index)) = (&mut self.times, usize::try_from(record.partition)) else {
            return false;
        };
        if times.len() <= index {
            times.resize(index + 1, MaxTime::default());
        }
        let late = times[index].is_late(time_ms, &self.rules);
        if !self.rules.is_future(time_ms, record.record_ms) {
            times[index].observe(time_ms);
        }
        late
    }

    /// Looks at the clock: draws, prints or flushes what is due.
    fn frame(&mut self) -> io::Result<()> {
        self.unseen = 0;
        if self.framed.elapsed() < FRAME {
            return Ok(());
        }
        self.framed = Instant::now();
        if self.output != Output::Table {
            return self.flush();
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.counts.table(self.times.is_some()));
        } else if self.line.0.elapsed() >= LINE_EVERY {
            let text = self.plain_line();
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
    fn plain_line(&self) -> String {
        let total = self.counts.sum.total();
        let rate = (total - self.line.1) as f64 / self.line.0.elapsed().as_secs_f64().max(0.001);
        let [low, medium, high, critical] = self.counts.sum.severities;
        let mut text = format!(
            "{} events, {}/s; low {low}, medium {medium}, high {high}, critical {critical}",
            HumanCount(total),
            HumanCount(rate.round() as u64),
        );
        if self.times.is_some() {
            text.push_str(&format!(", late {}", self.counts.sum.late));
        }
        if self.counts.rejected_total() > 0 {
            text.push_str(&format!(", rejected {}", self.counts.rejected_total()));
        }
        text
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
            self.out.flush()?;
        }
        Ok(())
    }

    /// Leaves the last picture behind.
    fn finish(mut self) -> io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.flush()?;
        if self.output == Output::Table {
            let table = self.counts.table(self.times.is_some());
            self.out.write_all(table.as_bytes())?;
        }
        self.out.flush()
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout_with_hz(10));
    bar.set_style(ProgressStyle::with_template("{msg}").expect("a constant template is right"));
    bar
}
