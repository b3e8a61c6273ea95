//! Reads and checks lines of JSON or rows of CSV from a file, a .gz file or standard input, in a separate thread.
//!
//! For JSON, the value of a Kafka record is exactly one line of the input, without its line break (module `lines`). For
//! CSV, the value of a Kafka record is a JSON object that is built from one row (modules `rows`, `mapping` and
//! `local_time`). A line or row that exceeds the maximum size of a record's value is rejected as `too_large`.
//!
//! A separate thread reads the input, because heartbeats and a request to stop must not wait for a pipe, which may be
//! silent for hours. The reading thread sends a batch to the producer after each buffer that it reads, so a complete
//! line never waits for the next line.

mod lines;
mod local_time;
mod mapping;
mod records;
mod rows;

use std::fs::File;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::core::clock::UnixMs;
use crate::core::parse::Reject;
use crate::core::replay::Replay;
use crate::failure::Failure;
use lines::BUFFER_BYTES;
use records::Records;

pub use mapping::CsvRules;
pub use records::InputFormatRules;

/// Maximum number of batches that wait between the reading thread and the producer. Four batches keep both threads
/// busy.
const BATCHES_MAX: usize = 4;

/// The reason why an input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The input file cannot be opened.
    #[error("failed to open {}", path.display())]
    Open {
        /// The path of the input file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Reading failed before the end of the input, for example because a .gz file is truncated.
    #[error("failed to read the input after line {line}")]
    Read {
        /// The number of the last line that was read completely.
        line: u64,
        /// The error of the operating system or of the decoder.
        source: io::Error,
    },
    /// The first row of a CSV file lacks a column that a command-line option names.
    #[error(transparent)]
    Columns(Failure),
    /// The operating system cannot start the reading thread.
    #[error("failed to start reading the input")]
    Start(#[source] io::Error),
}

/// A line of the input that is not empty, or a row of a CSV file.
#[derive(Debug, PartialEq, Eq)]
pub struct InputLine {
    /// The number of the line, counted from 1. The numbering includes empty lines. The number of a CSV row is the
    /// number of its first line.
    pub number: u64,
    /// The event in the line, or the reason why the line is not an event.
    pub outcome: Result<InputEvent, Reject>,
}

/// A valid event. The city and the value of the event are stored in the [`LineBatch`] that contains the event.
#[derive(Debug, PartialEq, Eq)]
pub struct InputEvent {
    /// The event time, in milliseconds since the Unix epoch.
    pub time_ms: UnixMs,
    city: Range<usize>,
    value: Range<usize>,
}

/// Consecutive lines of the input, together with the bytes of all valid events in these lines.
#[derive(Debug, Default)]
pub struct LineBatch {
    /// The lines of the batch.
    pub lines: Vec<InputLine>,
    values: Vec<u8>,
    cities: String,
}

impl LineBatch {
    /// Returns the bytes of the event's JSON object: a line of the input, or an object that is built from a CSV row.
    pub fn value(&self, event: &InputEvent) -> &[u8] {
        &self.values[event.value.clone()]
    }

    /// Returns the city of the event without surrounding white space.
    pub fn city(&self, event: &InputEvent) -> &str {
        &self.cities[event.city.clone()]
    }
}

/// An input file or input stream that a separate thread reads.
#[derive(Debug)]
pub struct Input {
    batches: Receiver<Result<LineBatch, InputError>>,
}

/// The result of [`Input::next_batch`].
#[derive(Debug)]
pub enum NextBatch {
    /// The next lines of the input.
    Lines(LineBatch),
    /// No line of the input arrived before the timeout.
    Nothing,
    /// The input has ended.
    End,
}

impl Input {
    /// Opens a file, or standard input for `-`. For a CSV file, the function also checks the first row.
    ///
    /// # Errors
    /// Returns [`InputError`] if the file cannot be opened, or if a CSV file lacks a column that the rules need.
    pub fn open(path: &Path, format: &InputFormatRules) -> Result<Input, InputError> {
        if path.as_os_str() == "-" {
            return Input::from_reader(io::stdin(), format);
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
        if !about.is_file() {
            return Input::from_reader(file, format);
        }
        // `Records::open` checks the columns, so that the program reports a wrong column before it waits for Kafka.
        let records = Records::open(file, format)?;
        Input::start(move |sender| send_lines(records, sender))
    }

    /// Returns an input that reads lines from a stream.
    ///
    /// # Errors
    /// Returns [`InputError::Start`] if the operating system cannot start a thread.
    pub fn from_reader(
        reader: impl Read + Send + 'static,
        format: &InputFormatRules,
    ) -> Result<Input, InputError> {
        let format = format.clone();
        Input::start(move |sender| match Records::open(reader, &format) {
            Ok(records) => send_lines(records, sender),
            Err(error) => {
                // If the receiver of the channel has been dropped, the error is no longer needed.
                let _gone = sender.send(Err(error));
            }
        })
    }

    /// Starts the reading thread.
    fn start(
        read: impl FnOnce(&SyncSender<Result<LineBatch, InputError>>) + Send + 'static,
    ) -> Result<Input, InputError> {
        let (sender, batches) = sync_channel(BATCHES_MAX);
        // The program never waits for the reading thread to end, because a read from a silent pipe cannot be
        // interrupted. The reading thread may therefore run until the process ends.
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read(&sender))
            .map_err(InputError::Start)?;
        Ok(Input { batches })
    }

    /// Reads a whole file and returns the largest event time in the file, or `None` if the file contains no event.
    ///
    /// # Errors
    /// Returns [`InputError`] if the file cannot be opened or read.
    pub fn newest_ms(path: &Path, format: &InputFormatRules) -> Result<Option<UnixMs>, InputError> {
        let mut newest_ms = None;
        Input::for_each_event(path, format, |event| {
            newest_ms = newest_ms.max(Some(event.time_ms));
            ControlFlow::Continue(())
        })?;
        Ok(newest_ms)
    }

    /// Counts the lines of a file that are not empty, or the rows of a CSV file, but does not check their content. The
    /// function stops counting after `lines_max` lines.
    ///
    /// # Errors
    /// Returns [`InputError`] if the file cannot be opened or read.
    pub fn count_lines(
        path: &Path,
        format: &InputFormatRules,
        lines_max: u64,
    ) -> Result<u64, InputError> {
        let file = File::open(path).map_err(|source| InputError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut records = Records::open(file, format)?;
        let mut count = 0;
        let failed = |source| InputError::Read { line: 0, source };
        while count < lines_max && records.skip().map_err(failed)? {
            count += 1;
        }
        Ok(count)
    }

    /// Reads at most `events_max` events of a file, and returns their number. The second result is the time, in
    /// milliseconds, that `replay` takes from the first event to the last event.
    ///
    /// # Errors
    /// Returns [`InputError`] if the file cannot be opened or read.
    pub fn last_due(
        path: &Path,
        format: &InputFormatRules,
        mut replay: Replay,
        events_max: u64,
    ) -> Result<(u64, i64), InputError> {
        let (mut events, mut due_ms) = (0, 0);
        Input::for_each_event(path, format, |event| {
            if events == events_max {
                return ControlFlow::Break(());
            }
            events += 1;
            due_ms = replay.due_ms(event.time_ms);
            ControlFlow::Continue(())
        })?;
        Ok((events, due_ms))
    }

    /// Calls the closure `take` with each event of a file, until `take` returns `Break`.
    fn for_each_event(
        path: &Path,
        format: &InputFormatRules,
        mut take: impl FnMut(&InputEvent) -> ControlFlow<()>,
    ) -> Result<(), InputError> {
        let input = Input::open(path, format)?;
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

    /// Waits at most `timeout` for the next lines of the input.
    ///
    /// # Errors
    /// Returns [`InputError::Read`] if reading failed. All lines before the failed read have already been returned.
    pub fn next_batch(&self, timeout: Duration) -> Result<NextBatch, InputError> {
        match self.batches.recv_timeout(timeout) {
            Ok(Ok(batch)) => Ok(NextBatch::Lines(batch)),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Ok(NextBatch::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(NextBatch::End),
        }
    }
}

/// Sends all lines of the input in batches. If reading fails, sends the error after the last batch.
fn send_lines(mut records: Records, sender: &SyncSender<Result<LineBatch, InputError>>) {
    if let Err(source) = send_batches(&mut records, sender) {
        let line = records.number();
        // If the receiver of the channel has been dropped, the error is no longer needed.
        let _gone = sender.send(Err(InputError::Read { line, source }));
    }
}

fn send_batches(
    records: &mut Records,
    sender: &SyncSender<Result<LineBatch, InputError>>,
) -> io::Result<()> {
    let mut batch = LineBatch::default();
    loop {
        let more = records.read_into(&mut batch);
        let ended = !matches!(more, Ok(true));
        if (ended || records.is_buffer_empty() || batch.values.len() >= BUFFER_BYTES)
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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const NDJSON: InputFormatRules = InputFormatRules::Ndjson;

    fn outcomes(bytes: Vec<u8>) -> Result<Vec<(u64, String)>, InputError> {
        let input = Input::from_reader(Cursor::new(bytes), &NDJSON)?;
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
        // The input consists of two concatenated gzip streams, like the output of the command `cat a.gz b.gz`.
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
        let input = Input::from_reader(reader, &NDJSON).expect("a thread");
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
        let lines = |max| Input::count_lines(file.path(), &NDJSON, max).expect("readable");
        assert_eq!(
            (lines(u64::MAX), lines(2)),
            (4, 2),
            "empty lines do not count"
        );
        let replay = Replay::at_speed(Some(60.0));
        let due = |max| Input::last_due(file.path(), &NDJSON, replay, max).expect("readable");
        assert_eq!(due(u64::MAX), (3, 30_000), "bad lines do not count");
        assert_eq!(due(1), (1, 0));
    }

    #[test]
    fn a_missing_file_is_named() {
        let path = Path::new("/nonexistent.ndjson");
        let error = Input::open(path, &NDJSON).expect_err("no such file");
        assert_eq!(error.to_string(), "failed to open /nonexistent.ndjson");
    }
}
