//! NDJSON from a file, a .gz file or standard input, read and judged on a thread of its own.
//!
//! Lines end with LF or CRLF; the value is the line without it, byte for byte. A byte order mark at
//! the start is dropped, empty lines are skipped but numbered. A line longer than a record may be is
//! `too_large` and costs no memory beyond that limit. Whether the bytes are gzip is told by their
//! first two bytes, never the start of JSON, so a name or a pipe makes no difference.
//!
//! Reading stands on its own thread since a pipe may stay silent for hours, while heartbeats and a
//! request to stop must not wait for it. It hands over at the end of each buffer, so that a line
//! that has arrived is never held back for the next.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use flate2::read::MultiGzDecoder;

use crate::core::parse::{Reason, Reject, VALUE_BYTES_MAX, judge_event};
use crate::core::replay::Replay;

/// Bytes read at once; also what a batch holds at most beside one line.
const BUFFER_BYTES: usize = 256 * 1024;
/// Compressed bytes read at once: a small part of a batch.
const PACKED_BYTES: usize = 16 * 1024;
/// Batches between the reading thread and the producer: enough to keep both busy.
const BATCHES_MAX: usize = 4;

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file cannot be opened.
    #[error("failed to open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading failed in the middle, as in a truncated .gz file.
    #[error("failed to read the input after line {line}")]
    Read {
        /// Number of the last complete line.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The reading thread cannot be started.
    #[error("failed to start reading the input")]
    Start(#[source] io::Error),
}

/// One line that is not empty.
#[derive(Debug, PartialEq, Eq)]
pub struct InputLine {
    /// Counted from 1, empty lines included.
    pub number: u64,
    /// Its event, or why it is none.
    pub outcome: Result<InputEvent, Reject>,
}

/// A valid event; its batch has its texts.
#[derive(Debug, PartialEq, Eq)]
pub struct InputEvent {
    /// Event time in Unix milliseconds.
    pub time_ms: i64,
    city: Range<usize>,
    value: Range<usize>,
}

/// Some lines in order, with the bytes of those that are events.
#[derive(Debug, Default)]
pub struct LineBatch {
    /// The lines.
    pub lines: Vec<InputLine>,
    values: Vec<u8>,
    cities: String,
}

impl LineBatch {
    /// Returns the line's bytes as they stood.
    pub fn value(&self, event: &InputEvent) -> &[u8] {
        &self.values[event.value.clone()]
    }

    /// Returns the event's city, trimmed.
    pub fn city(&self, event: &InputEvent) -> &str {
        &self.cities[event.city.clone()]
    }
}

/// An input being read.
#[derive(Debug)]
pub struct Input {
    batches: Receiver<Result<LineBatch, InputError>>,
}

/// What [`Input::next_batch`] found.
#[derive(Debug)]
pub enum NextBatch {
    /// Some lines.
    Lines(LineBatch),
    /// Nothing arrived in time.
    Nothing,
    /// The input is at its end.
    End,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`InputError::Open`] where the file cannot be opened.
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

    /// Reads from anything.
    ///
    /// # Errors
    /// [`InputError::Start`] where no thread can be started.
    pub fn from_reader(reader: impl Read + Send + 'static) -> Result<Input, InputError> {
        let (sender, batches) = sync_channel(BATCHES_MAX);
        // Never joined: a read from a silent pipe cannot be interrupted; it ends with the process.
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read_all(reader, &sender))
            .map_err(InputError::Start)?;
        Ok(Input { batches })
    }

    /// Reads a whole file and returns its largest event time; `None` without any event.
    ///
    /// # Errors
    /// [`InputError`] where the file cannot be opened or read.
    pub fn newest_ms(path: &Path) -> Result<Option<i64>, InputError> {
        let input = Input::open(path)?;
        let mut newest_ms = None;
        loop {
            match input.next_batch(Duration::from_secs(1))? {
                NextBatch::Lines(batch) => {
                    let events = batch.lines.iter().filter_map(|l| l.outcome.as_ref().ok());
                    newest_ms = newest_ms.max(events.map(|event| event.time_ms).max());
                }
                NextBatch::Nothing => {}
                NextBatch::End => return Ok(newest_ms),
            }
        }
    }

    /// DeliveryCounts the lines of a file that are not empty, at most `lines_max`, without judging them.
    ///
    /// # Errors
    /// Where the file cannot be opened or read.
    pub fn count_lines(path: &Path, lines_max: u64) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let mut lines = unpacked(first_two(&mut file)?, file);
        let mut count = 0;
        while count < lines_max && lines.read_line()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Reads a whole file, or its first `events_max` events, and returns how many there are and when
    /// the last of them is due, in milliseconds after the first.
    ///
    /// # Errors
    /// [`InputError`] where the file cannot be opened or read.
    pub fn last_due(
        path: &Path,
        mut replay: Replay,
        events_max: u64,
    ) -> Result<(u64, i64), InputError> {
        let input = Input::open(path)?;
        let (mut events, mut due_ms) = (0, 0);
        loop {
            match input.next_batch(Duration::from_secs(1))? {
                NextBatch::Lines(batch) => {
                    for event in batch.lines.iter().filter_map(|l| l.outcome.as_ref().ok()) {
                        if events == events_max {
                            return Ok((events, due_ms));
                        }
                        events += 1;
                        due_ms = replay.due_ms(event.time_ms);
                    }
                }
                NextBatch::Nothing => {}
                NextBatch::End => return Ok((events, due_ms)),
            }
        }
    }

    /// Waits at most `timeout` for the next lines.
    ///
    /// # Errors
    /// [`InputError::Read`] where reading failed; what came before it was handed over already.
    pub fn next_batch(&self, timeout: Duration) -> Result<NextBatch, InputError> {
        match self.batches.recv_timeout(timeout) {
            Ok(Ok(batch)) => Ok(NextBatch::Lines(batch)),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Ok(NextBatch::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(NextBatch::End),
        }
    }
}

fn read_all<R: Read + Send + 'static>(
    mut raw: R,
    sender: &SyncSender<Result<LineBatch, InputError>>,
) {
    let mut line = 0;
    let done = first_two(&mut raw).and_then(|head| {
        let mut lines = unpacked(head, raw);
        let done = hand_over(&mut lines, sender);
        line = lines.number;
        done
    });
    if let Err(source) = done {
        // The receiver may be gone, and then nobody wants to know.
        let _gone = sender.send(Err(InputError::Read { line, source }));
    }
}

/// Returns the lines of an input that begins with `head`, unpacked if that says gzip.
fn unpacked<R: Read + Send + 'static>(head: Vec<u8>, rest: R) -> Lines<BufReader<Box<dyn Read>>> {
    let gzip = head == [0x1f, 0x8b];
    let whole = Cursor::new(head).chain(rest);
    let reader: Box<dyn Read> = if gzip {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            PACKED_BYTES,
            whole,
        )))
    } else {
        Box::new(whole)
    };
    Lines::new(BufReader::with_capacity(BUFFER_BYTES, reader))
}

fn hand_over(
    lines: &mut Lines<BufReader<Box<dyn Read>>>,
    sender: &SyncSender<Result<LineBatch, InputError>>,
) -> io::Result<()> {
    let mut batch = LineBatch::default();
    loop {
        let more = lines.read_line().map(|line| {
            let Some(line) = line else { return false };
            let outcome = judge(&line, &mut batch.values, &mut batch.cities);
            batch.lines.push(InputLine {
                number: line.number,
                outcome,
            });
            true
        });
        let last = !matches!(more, Ok(true));
        if (last || lines.reader.buffer().is_empty() || batch.values.len() >= BUFFER_BYTES)
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

/// Judges a line and appends its bytes and its city if it is an event.
fn judge(
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

/// At most the first two bytes.
fn first_two(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(2).read_to_end(&mut head)?;
    Ok(head)
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
struct RawLine<'a> {
    number: u64,
    /// Cut off if the line is too long.
    value: &'a [u8],
    too_long_bytes: Option<u64>,
}

/// Cuts a stream into lines, holding at most one record's worth of a line.
struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    at_start: bool,
}

impl<R: BufRead> Lines<R> {
    fn new(reader: R) -> Lines<R> {
        Lines {
            reader,
            line: Vec::new(),
            number: 0,
            at_start: true,
        }
    }

    /// Returns the next line that is not empty, or `None` at the end.
    fn read_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        // Room for the mark at the start and the CR before the LF, which do not count.
        const KEEP_BYTES: usize = VALUE_BYTES_MAX + 4;
        loop {
            self.line.clear();
            let (mut length, mut last_byte, mut ended) = (0u64, 0, false);
            loop {
                let buffer = match self.reader.fill_buf() {
                    Ok(buffer) => buffer,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                };
                if buffer.is_empty() {
                    break;
                }
                let end = memchr::memchr(b'\n', buffer);
                let part = &buffer[..end.unwrap_or(buffer.len())];
                let room = KEEP_BYTES - self.line.len();
                self.line.extend_from_slice(&part[..part.len().min(room)]);
                length += u64::try_from(part.len()).unwrap_or(u64::MAX);
                last_byte = part.last().copied().unwrap_or(last_byte);
                let used = part.len() + usize::from(end.is_some());
                self.reader.consume(used);
                if end.is_some() {
                    ended = true;
                    break;
                }
            }
            if length == 0 && !ended {
                return Ok(None);
            }
            self.number += 1;
            let mark = self.at_start && self.line.starts_with(b"\xef\xbb\xbf");
            self.at_start = false;
            let start = if mark { 3 } else { 0 };
            let carriage_return = ended && length > start && last_byte == b'\r';
            let bytes = length - start - u64::from(carriage_return);
            if bytes == 0 {
                continue;
            }
            let start = usize::from(mark) * 3;
            return Ok(Some(match usize::try_from(bytes) {
                Ok(bytes) if bytes <= VALUE_BYTES_MAX => RawLine {
                    number: self.number,
                    value: &self.line[start..start + bytes],
                    too_long_bytes: None,
                },
                _ => RawLine {
                    number: self.number,
                    value: &[],
                    too_long_bytes: Some(bytes),
                },
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Every line as (number, value), a line too long as its length.
    fn lines(bytes: &[u8], buffer: usize) -> Vec<(u64, String)> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, bytes));
        let mut out = Vec::new();
        while let Some(line) = lines.read_line().expect("memory is readable") {
            let text = match line.too_long_bytes {
                Some(bytes) => format!("{bytes} bytes"),
                None => String::from_utf8_lossy(line.value).into_owned(),
            };
            out.push((line.number, text));
        }
        assert!(lines.line.capacity() < 3 * VALUE_BYTES_MAX);
        out
    }

    #[test]
    fn lines_end_with_lf_or_crlf() {
        type Case = (&'static [u8], &'static [(u64, &'static str)]);
        let cases: [Case; 12] = [
            (b"", &[]),
            (b"a", &[(1, "a")]),
            (b"a\n", &[(1, "a")]),
            (b"a\r\nb\n", &[(1, "a"), (2, "b")]),
            (b"\n\r\na\n\n", &[(3, "a")]),
            (b"a\r\r\n", &[(1, "a\r")]),
            (b"a\rb\n", &[(1, "a\rb")]),
            (b"a\r", &[(1, "a\r")]),
            (b" a \n", &[(1, " a ")]),
            (
                b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n",
                &[(1, "a"), (2, "\u{feff}b")],
            ),
            (b"\xef\xbb\xbf", &[]),
            (b"\xef\xbb\xbf\r\nb", &[(2, "b")]),
        ];
        for (bytes, want) in cases {
            let want: Vec<(u64, String)> =
                want.iter().map(|(n, t)| (*n, (*t).to_owned())).collect();
            for buffer in [1, 2, 3, 100] {
                assert_eq!(lines(bytes, buffer), want, "{bytes:?} by {buffer}");
            }
        }
    }

    #[test]
    fn a_line_of_the_limit_passes_and_a_longer_one_costs_no_memory() {
        let exact = "x".repeat(VALUE_BYTES_MAX);
        for end in ["\n", "\r\n", ""] {
            assert_eq!(lines(format!("{exact}{end}").as_bytes(), 1_000)[0].1, exact);
        }
        let marked = format!("\u{feff}{exact}\r\n");
        assert_eq!(lines(marked.as_bytes(), 1_000)[0].1, exact);
        let long = "x".repeat(10 * VALUE_BYTES_MAX + 1);
        let found = lines(format!("{long}\r\nb\n{exact}y").as_bytes(), 1_000);
        let want = [
            (1, format!("{} bytes", 10 * VALUE_BYTES_MAX + 1)),
            (2, "b".to_owned()),
            (3, format!("{} bytes", VALUE_BYTES_MAX + 1)),
        ];
        assert_eq!(found, want);
    }

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
    fn good_lines_are_kept_as_they_stand_and_bad_ones_have_a_reason() {
        let text = format!("{GOOD}\r\n\n{{}}\n[\n{GOOD}");
        let want = [(1, GOOD), (3, "missing_field"), (4, "not_json"), (5, GOOD)]
            .map(|(n, t)| (n, t.to_owned()));
        assert_eq!(outcomes(text.clone().into_bytes()).expect("readable"), want);

        let mut zipped = Vec::new();
        // Two members, as `cat a.gz b.gz` makes them.
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
    fn many_batches_come_in_order_and_whole() {
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
    fn a_line_is_handed_over_without_waiting_for_the_next() {
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
    fn a_file_says_how_much_it_holds_before_it_is_sent() {
        let at = |minute: u32| GOOD.replace("06:00:00", &format!("06:{minute:02}:00"));
        let text = format!("\n{}\n{{}}\n{}\r\n{}", at(0), at(30), at(20));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("room");
        let lines = |max| Input::count_lines(file.path(), max).expect("readable");
        assert_eq!((lines(u64::MAX), lines(2)), (4, 2), "empty lines are none");
        let replay = Replay::at_speed(Some(60.0));
        let due = |max| Input::last_due(file.path(), replay, max).expect("readable");
        assert_eq!(due(u64::MAX), (3, 30_000), "broken ones are no events");
        assert_eq!(due(1), (1, 0));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Input::open(Path::new("/nonexistent.ndjson")).expect_err("no such file");
        assert_eq!(error.to_string(), "failed to open /nonexistent.ndjson");
    }
}
