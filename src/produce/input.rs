//! Reads lines of JSON from a file, a .gz file or standard input, and checks them, on a separate thread.
//!
//! The value of a record is the line as it is, without its line break (`lines`). A line that is longer than a record
//! may be is rejected as `too_large`.
//!
//! A pipe may stay silent for hours, but heartbeats and a request to stop must not wait for it. Therefore a separate
//! thread reads. It sends a batch at the end of each buffer, so that a line that has arrived never waits for the next.

mod lines;

use std::fs::File;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::core::parse::{Reason, Reject, VALUE_BYTES_MAX, judge_event};
use crate::core::replay::Replay;
use lines::{BUFFER_BYTES, InputLines, RawLine, open_lines};

/// Most batches between the reading thread and the producer. They keep both threads busy.
const BATCHES_MAX: usize = 4;

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file cannot be opened.
    #[error("failed to open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Reading failed in the middle, as in a truncated .gz file.
    #[error("failed to read the input after line {line}")]
    Read {
        /// The number of the last complete line.
        line: u64,
        /// The error of the system or of the decoder.
        source: io::Error,
    },
    /// The system cannot start the reading thread.
    #[error("failed to start reading the input")]
    Start(#[source] io::Error),
}

/// A line that is not empty.
#[derive(Debug, PartialEq, Eq)]
pub struct InputLine {
    /// The line number, from 1. Empty lines are numbered too.
    pub number: u64,
    /// The event, or why the line is not one.
    pub outcome: Result<InputEvent, Reject>,
}

/// A valid event. [`LineBatch`] holds its city and its value.
#[derive(Debug, PartialEq, Eq)]
pub struct InputEvent {
    /// Event time in Unix milliseconds.
    pub time_ms: i64,
    city: Range<usize>,
    value: Range<usize>,
}

/// Lines in order, with the bytes of those that are events.
#[derive(Debug, Default)]
pub struct LineBatch {
    /// The lines.
    pub lines: Vec<InputLine>,
    values: Vec<u8>,
    cities: String,
}

impl LineBatch {
    /// Returns the bytes of the line.
    pub fn value(&self, event: &InputEvent) -> &[u8] {
        &self.values[event.value.clone()]
    }

    /// Returns the trimmed city of the event.
    pub fn city(&self, event: &InputEvent) -> &str {
        &self.cities[event.city.clone()]
    }
}

/// An input that a thread is reading.
#[derive(Debug)]
pub struct Input {
    batches: Receiver<Result<LineBatch, InputError>>,
}

/// What [`Input::next_batch`] returns.
#[derive(Debug)]
pub enum NextBatch {
    /// The next lines.
    Lines(LineBatch),
    /// No line arrived in time.
    Nothing,
    /// The input has ended.
    End,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`InputError::Open`] when the file cannot be opened.
    pub fn open(path: &Path) -> Result<Input, InputError> {
        if path.as_os_str() == "-" {
            return Input::from_reader(io::stdin());
        }
        let failed = |source| InputError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Input::from_reader(file)
    }

    /// Reads from a stream.
    ///
    /// # Errors
    /// [`InputError::Start`] when the system cannot start a thread.
    pub fn from_reader(reader: impl Read + Send + 'static) -> Result<Input, InputError> {
        let (sender, batches) = sync_channel(BATCHES_MAX);
        // The thread is never joined, because a read from a silent pipe cannot be interrupted. It ends with the
        // process.
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || send_lines(reader, &sender))
            .map_err(InputError::Start)?;
        Ok(Input { batches })
    }

    /// Reads a whole file and returns its largest event time; `None` if it has no event.
    ///
    /// # Errors
    /// [`InputError`] when the file cannot be opened or read.
    pub fn newest_ms(path: &Path) -> Result<Option<i64>, InputError> {
        let mut newest_ms = None;
        Input::for_each_event(path, |event| {
            newest_ms = newest_ms.max(Some(event.time_ms));
            ControlFlow::Continue(())
        })?;
        Ok(newest_ms)
    }

    /// Counts the lines of a file that are not empty, at most `lines_max`, without checking them.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn count_lines(path: &Path, lines_max: u64) -> io::Result<u64> {
        let mut lines = open_lines(File::open(path)?)?;
        let mut count = 0;
        while count < lines_max && lines.read_line()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Reads at most `events_max` events of a file. Returns their number, and when the last of them is due, in
    /// milliseconds after the first.
    ///
    /// # Errors
    /// [`InputError`] when the file cannot be opened or read.
    pub fn last_due(
        path: &Path,
        mut replay: Replay,
        events_max: u64,
    ) -> Result<(u64, i64), InputError> {
        let (mut events, mut due_ms) = (0, 0);
        Input::for_each_event(path, |event| {
            if events == events_max {
                return ControlFlow::Break(());
            }
            events += 1;
            due_ms = replay.due_ms(event.time_ms);
            ControlFlow::Continue(())
        })?;
        Ok((events, due_ms))
    }

    /// Calls `take` with each event of a file, until it breaks.
    fn for_each_event(
        path: &Path,
        mut take: impl FnMut(&InputEvent) -> ControlFlow<()>,
    ) -> Result<(), InputError> {
        let input = Input::open(path)?;
        loop {
            match input.next_batch(Duration::from_secs(1))? {
                NextBatch::Lines(batch) => {
                    let mut events = batch.lines.iter().filter_map(|l| l.outcome.as_ref().ok());
                    if events.try_for_each(&mut take).is_break() {
                        return Ok(());
                    }
                }
                NextBatch::Nothing => {}
                NextBatch::End => return Ok(()),
            }
        }
    }

    /// Waits at most `timeout` for the next lines.
    ///
    /// # Errors
    /// [`InputError::Read`] when reading failed. All lines before the failure have been returned already.
    pub fn next_batch(&self, timeout: Duration) -> Result<NextBatch, InputError> {
        match self.batches.recv_timeout(timeout) {
            Ok(Ok(batch)) => Ok(NextBatch::Lines(batch)),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Ok(NextBatch::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(NextBatch::End),
        }
    }
}

/// Sends all lines of the input in batches, and the error that ends it.
fn send_lines(
    input: impl Read + Send + 'static,
    sender: &SyncSender<Result<LineBatch, InputError>>,
) {
    let mut line = 0;
    let done = open_lines(input).and_then(|mut lines| {
        let done = send_batches(&mut lines, sender);
        line = lines.number();
        done
    });
    if let Err(source) = done {
        // If the receiver is gone, the error is of no use.
        let _gone = sender.send(Err(InputError::Read { line, source }));
    }
}

fn send_batches(
    lines: &mut InputLines,
    sender: &SyncSender<Result<LineBatch, InputError>>,
) -> io::Result<()> {
    let mut batch = LineBatch::default();
    loop {
        let more = lines.read_line().map(|line| {
            let Some(line) = line else { return false };
            let outcome = parse_line(&line, &mut batch.values, &mut batch.cities);
            batch.lines.push(InputLine {
                number: line.number,
                outcome,
            });
            true
        });
        let ended = !matches!(more, Ok(true));
        if (ended || lines.is_buffer_empty() || batch.values.len() >= BUFFER_BYTES)
            && !batch.lines.is_empty()
            && sender.send(Ok(std::mem::take(&mut batch))).is_err()
        {
            return Ok(());
        }
        if !more? {
            return Ok(());
        }
    }
}

/// Parses a line. Appends its bytes and its city if it is an event.
fn parse_line(
    line: &RawLine<'_>,
    values: &mut Vec<u8>,
    cities: &mut String,
) -> Result<InputEvent, Reject> {
    if let Some(bytes) = line.too_long_bytes {
        return Err(Reject {
            reason: Reason::TooLarge,
            detail: format!("{bytes} bytes, at most {VALUE_BYTES_MAX}"),
        });
    }
    let event = judge_event(line.value)?;
    let (city, value) = (cities.len(), values.len());
    cities.push_str(&event.city);
    values.extend_from_slice(line.value);
    Ok(InputEvent {
        time_ms: event.time_ms,
        city: city..cities.len(),
        value: value..values.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn outcomes(bytes: Vec<u8>) -> Result<Vec<(u64, String)>, InputError> {
        let input = Input::from_reader(Cursor::new(bytes))?;
        let mut out = Vec::new();
        loop {
            match input.next_batch(Duration::from_secs(60))? {
                NextBatch::Lines(batch) => {
                    for line in &batch.lines {
                        let text = match &line.outcome {
                            Ok(event) => String::from_utf8_lossy(batch.value(event)).into_owned(),
                            Err(reject) => reject.reason.name().to_owned(),
                        };
                        out.push((line.number, text));
                    }
                }
                NextBatch::Nothing => panic!("the input is in memory"),
                NextBatch::End => return Ok(out),
            }
        }
    }

    const GOOD: &str = r#" {"city":" NYC ","event_type":"Traffic","severity":"LOW","timestamp":"2013-01-01T06:00:00Z", "n":1.0}"#;

    #[test]
    fn good_lines_are_kept_byte_for_byte_and_bad_ones_have_a_reason() {
        let text = format!("{GOOD}\r\n\n{{}}\n[\n{GOOD}");
        let want = [(1, GOOD), (3, "missing_field"), (4, "not_json"), (5, GOOD)]
            .map(|(n, t)| (n, t.to_owned()));
        assert_eq!(outcomes(text.clone().into_bytes()).expect("readable"), want);

        let mut zipped = Vec::new();
        // Two gzip members, as `cat a.gz b.gz` writes them.
        for part in [&text.as_bytes()[..50], &text.as_bytes()[50..]] {
            let mut gz = GzEncoder::new(&mut zipped, Compression::fast());
            gz.write_all(part).expect("memory takes it");
            gz.finish().expect("memory takes it");
        }
        assert_eq!(outcomes(zipped.clone()).expect("readable"), want);

        zipped.truncate(zipped.len() - 4);
        let error = outcomes(zipped).expect_err("truncated");
        assert!(matches!(error, InputError::Read { .. }), "{error:?}");
    }

    #[test]
    fn many_batches_arrive_complete_and_in_order() {
        let text = format!("{GOOD}\n").repeat(20_000);
        let found = outcomes(text.into_bytes()).expect("readable");
        assert_eq!(found.len(), 20_000);
        assert!(
            found
                .iter()
                .zip(1..)
                .all(|((n, t), want)| *n == want && t == GOOD)
        );
    }

    #[test]
    fn a_line_does_not_wait_for_the_next() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let input = Input::from_reader(reader).expect("a thread");
        writer.write_all(GOOD.as_bytes()).expect("room");
        writer.write_all(b"\n").expect("room");
        let next = input.next_batch(Duration::from_secs(60)).expect("readable");
        let NextBatch::Lines(batch) = next else {
            panic!("{next:?}")
        };
        let [line] = &batch.lines[..] else {
            panic!("{batch:?}")
        };
        let event = line.outcome.as_ref().expect("it is good");
        assert_eq!(batch.city(event), "NYC");
        let next = input.next_batch(Duration::ZERO).expect("readable");
        assert!(matches!(next, NextBatch::Nothing));
        drop(writer);
        let next = input.next_batch(Duration::from_secs(60)).expect("readable");
        assert!(matches!(next, NextBatch::End));
    }

    #[test]
    fn the_lines_and_events_of_a_file_are_counted() {
        let at = |minute: u32| GOOD.replace("06:00:00", &format!("06:{minute:02}:00"));
        let text = format!("\n{}\n{{}}\n{}\r\n{}", at(0), at(30), at(20));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("room");
        let lines = |max| Input::count_lines(file.path(), max).expect("readable");
        assert_eq!(
            (lines(u64::MAX), lines(2)),
            (4, 2),
            "empty lines do not count"
        );
        let replay = Replay::at_speed(Some(60.0));
        let due = |max| Input::last_due(file.path(), replay, max).expect("readable");
        assert_eq!(due(u64::MAX), (3, 30_000), "bad lines do not count");
        assert_eq!(due(1), (1, 0));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Input::open(Path::new("/nonexistent.ndjson")).expect_err("no such file");
        assert_eq!(error.to_string(), "failed to open /nonexistent.ndjson");
    }
}
