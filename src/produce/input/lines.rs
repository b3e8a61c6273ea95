//! Splits a stream of bytes into lines. A stream that is compressed with gzip is unpacked first.
//!
//! A line ends with LF or CRLF. A byte order mark at the start of the stream is dropped. Empty lines are skipped, but
//! they are counted in the line numbers. A line that exceeds the maximum size of a record is dropped while it is read,
//! so that a long line needs no memory.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

use crate::core::parse::VALUE_BYTES_MAX;

/// Number of bytes that the program requests from the input with one read.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;
/// Number of compressed bytes that the program requests with one read. A read of compressed bytes requests less than
/// [`BUFFER_BYTES`], because unpacking makes events several times larger.
const PACKED_BYTES: usize = 16 * 1024;

/// The byte order mark that some programs write at the start of a UTF-8 file.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of an input that is already open.
pub(super) type InputLines = Lines<BufReader<Box<dyn Read + Send>>>;

/// Returns the lines of an input. If the input is compressed with gzip, the function unpacks the input.
pub(super) fn open_lines(input: impl Read + Send + 'static) -> io::Result<InputLines> {
    let bytes = unpack(input)?;
    Ok(Lines::new(BufReader::with_capacity(BUFFER_BYTES, bytes)))
}

/// Returns the bytes of an input. If the input is compressed with gzip, the function unpacks the input.
///
/// The function recognizes gzip by its first two bytes, because neither JSON nor a CSV file begins with these bytes.
/// The file name is not used to recognize gzip, because a pipe has no name.
pub(super) fn unpack(mut input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    input.by_ref().take(2).read_to_end(&mut head)?;
    let is_gzip = head == [0x1f, 0x8b];
    let whole = Cursor::new(head).chain(input);
    Ok(if is_gzip {
        let packed = BufReader::with_capacity(PACKED_BYTES, whole);
        Box::new(MultiGzDecoder::new(packed))
    } else {
        Box::new(whole)
    })
}

/// A line without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawLine<'a> {
    /// The number of the line, counted from 1.
    pub(super) number: u64,
    /// The bytes of the line, or an empty slice if the line is too long.
    pub(super) value: &'a [u8],
    /// The length in bytes if the line exceeds the maximum length, otherwise `None`.
    pub(super) too_long_bytes: Option<u64>,
}

/// The length of a line, and the kind of its line break.
struct LineEnd {
    /// The number of bytes before the LF, including bytes that were not kept.
    length: u64,
    /// True if the line ends with CRLF.
    is_crlf: bool,
}

/// Reads lines from a stream, and keeps at most the maximum size of one record in memory.
pub(super) struct Lines<R> {
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

    /// Returns the number of lines that were read, including empty lines.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the next line that is not empty, or `None` at the end of the stream.
    pub(super) fn read_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        loop {
            let Some(end) = self.fill_line()? else {
                return Ok(None);
            };
            self.number += 1;
            let has_mark = self.at_start && self.line.starts_with(BYTE_ORDER_MARK);
            self.at_start = false;
            let start = if has_mark { BYTE_ORDER_MARK.len() } else { 0 };
            let without_mark = end.length - u64::try_from(start).unwrap_or(0);
            let bytes = without_mark - u64::from(end.is_crlf && without_mark > 0);
            if bytes == 0 {
                continue;
            }
            let (number, kept) = (self.number, usize::try_from(bytes).unwrap_or(usize::MAX));
            return Ok(Some(if kept <= VALUE_BYTES_MAX {
                RawLine {
                    number,
                    value: &self.line[start..start + kept],
                    too_long_bytes: None,
                }
            } else {
                RawLine {
                    number,
                    value: &[],
                    too_long_bytes: Some(bytes),
                }
            }));
        }
    }

    /// Reads up to the next line break, and keeps only the first bytes of a long line. Returns `None` at the end of the
    /// stream.
    fn fill_line(&mut self) -> io::Result<Option<LineEnd>> {
        // In addition to its value, a line may have a byte order mark of three bytes at its start, and a CR at its end.
        const KEEP_BYTES: usize = VALUE_BYTES_MAX + 4;
        self.line.clear();
        let (mut length, mut last_byte, mut has_lf) = (0u64, 0, false);
        while !has_lf {
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
            has_lf = end.is_some();
            let used = part.len() + usize::from(has_lf);
            self.reader.consume(used);
        }
        Ok((length > 0 || has_lf).then_some(LineEnd {
            length,
            is_crlf: has_lf && last_byte == b'\r',
        }))
    }
}

impl<R: Read> Lines<BufReader<R>> {
    /// Returns true if the buffer is empty. With an empty buffer, the next read has to wait for the stream, possibly
    /// for a long time.
    pub(super) fn is_buffer_empty(&self) -> bool {
        self.reader.buffer().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number and the text of each line. For a line that is too long, the text states the length of the
    /// line.
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
    fn a_line_at_the_limit_is_read_and_a_longer_one_needs_no_memory() {
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
}
