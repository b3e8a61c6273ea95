//! Splits a stream of bytes into the rows of a CSV file (RFC 4180). A field in quotes may contain line breaks.
//!
//! A row that exceeds the maximum size of a record is dropped while it is read, so that a large row needs no memory. An
//! unclosed quote can cause a very large row, because all lines up to the next quote then belong to the same row.

use std::io::{self, BufRead as _, BufReader, Cursor, ErrorKind, Read};
use std::ops::Range;

use csv_core::ReadFieldResult;

use super::lines::{BUFFER_BYTES, BYTE_ORDER_MARK, unpack};
use crate::core::parse::VALUE_BYTES_MAX;

/// Maximum size of a row in bytes, not counting its line break. A row may be as large as the value of a Kafka record.
const ROW_BYTES_MAX: u64 = VALUE_BYTES_MAX as u64;

/// The rows of an input that is already open.
pub(super) type InputRows = Rows<Box<dyn Read + Send>>;

/// Returns the rows of an input. The function drops a byte order mark, and unpacks an input that is compressed with
/// gzip.
pub(super) fn open_rows(input: impl Read + Send + 'static) -> io::Result<InputRows> {
    let mut bytes = unpack(input)?;
    let mut head = Vec::new();
    let mark_bytes = u64::try_from(BYTE_ORDER_MARK.len()).unwrap_or(0);
    bytes.by_ref().take(mark_bytes).read_to_end(&mut head)?;
    if head == BYTE_ORDER_MARK {
        head.clear();
    }
    let whole: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(bytes));
    Ok(Rows::new(BufReader::with_capacity(BUFFER_BYTES, whole)))
}

/// A row of a CSV file. The fields of a row are stored without enclosing quotes.
#[derive(Debug)]
pub(super) struct CsvRow<'a> {
    /// The number of the row's first line, counted from 1.
    pub(super) number: u64,
    /// The size of the row if the row is too large, otherwise `None`.
    pub(super) too_large: Option<RowSize>,
    text: &'a [u8],
    fields: &'a [Range<usize>],
}

/// The size of a row that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowSize {
    /// The size of the row in bytes, including quotes and commas, but not the line break at its end.
    pub(super) bytes: u64,
    /// The number of the row's last line.
    pub(super) last_line: u64,
}

impl<'a> CsvRow<'a> {
    /// Returns the number of fields in the row. A row that is too large has no fields.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns the field at `index`, or an empty slice if the row has no such field.
    pub(super) fn field(&self, index: usize) -> &'a [u8] {
        let range = self.fields.get(index).cloned().unwrap_or_default();
        &self.text[range]
    }
}

/// Reads CSV rows from a stream, and keeps at most the maximum size of one record in memory.
pub(super) struct Rows<R> {
    reader: BufReader<R>,
    core: csv_core::Reader,
    text: Box<[u8]>,
    fields: Vec<Range<usize>>,
}

impl<R: Read> Rows<R> {
    fn new(reader: BufReader<R>) -> Rows<R> {
        Rows {
            reader,
            core: csv_core::Reader::new(),
            // The buffer for the text of a row is one byte larger than the maximum size of a row, so a row that fills
            // the whole buffer is too large.
            text: vec![0; VALUE_BYTES_MAX + 1].into(),
            fields: Vec::new(),
        }
    }

    /// Returns the number of the line that the reader has reached, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.core.line()
    }

    /// Returns true if the buffer is empty. With an empty buffer, the next read has to wait for the stream, possibly
    /// for a long time.
    pub(super) fn is_buffer_empty(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    /// Returns the next row, or `None` at the end of the stream. Empty lines are skipped.
    pub(super) fn read_row(&mut self) -> io::Result<Option<CsvRow<'_>>> {
        while self.skip_breaks() {
            if fill(&mut self.reader)?.is_empty() {
                return Ok(None);
            }
        }
        let number = self.core.line();
        let end = self.read_fields()?;
        let last_line = self.core.line() - u64::from(end.has_lf);
        // The line breaks after a row are read together with the row. A line break that remained in the buffer would
        // delay the row until the next row arrives, because the reader passes rows on only when the buffer is empty.
        self.skip_breaks();
        Ok(Some(CsvRow {
            number,
            too_large: end.is_large.then_some(RowSize {
                bytes: end.bytes,
                last_line,
            }),
            text: &self.text,
            fields: &self.fields,
        }))
    }

    /// Skips the line breaks at the start of the buffer. Returns true if no bytes remain in the buffer.
    fn skip_breaks(&mut self) -> bool {
        let buffer = self.reader.buffer();
        let is_break = |b: &&u8| matches!(**b, b'\r' | b'\n');
        let breaks = buffer.iter().take_while(is_break).count();
        let is_empty = breaks == buffer.len();
        let lines = buffer[..breaks].iter().filter(|b| **b == b'\n').count();
        self.core
            .set_line(self.core.line() + u64::try_from(lines).unwrap_or(0));
        self.reader.consume(breaks);
        is_empty
    }

    /// Reads the fields of one row up to its line break. If the row is too large, none of its fields is kept.
    fn read_fields(&mut self) -> io::Result<RowEnd> {
        self.fields.clear();
        let (mut start, mut end, mut bytes) = (0, 0, 0u64);
        loop {
            // `csv_core` treats an empty buffer as the end of the stream.
            let buffer = fill(&mut self.reader)?;
            let (result, used, written) = self.core.read_field(buffer, &mut self.text[end..]);
            let last = buffer[..used].last().copied();
            self.reader.consume(used);
            bytes += u64::try_from(used).unwrap_or(u64::MAX);
            end += written;
            let record_end = match result {
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => false,
                ReadFieldResult::Field { record_end } => {
                    self.fields.push(start..end);
                    start = end;
                    record_end
                }
                ReadFieldResult::End => true,
            };
            let is_break = record_end && matches!(last, Some(b'\r' | b'\n'));
            bytes -= u64::from(is_break);
            let is_large = bytes > ROW_BYTES_MAX;
            if is_large || end == self.text.len() {
                self.fields.clear();
                (start, end) = (0, 0);
            }
            if record_end {
                return Ok(RowEnd {
                    bytes,
                    has_lf: is_break && last == Some(b'\n'),
                    is_large,
                });
            }
        }
    }
}

/// The size of a row, and the way in which the row ends.
struct RowEnd {
    /// The size of the row in bytes, without its line break.
    bytes: u64,
    /// True if the row ends with LF.
    has_lf: bool,
    /// True if the row is too large.
    is_large: bool,
}

/// Returns the bytes in the buffer. If the buffer is empty, the function first reads from the stream. At the end of the
/// stream, the returned slice is empty.
fn fill<R: Read>(reader: &mut BufReader<R>) -> io::Result<&[u8]> {
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reader.buffer())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Returns the line number and the fields of each row. If a row is too large, its fields are replaced by a text
    /// with the size of the row.
    fn rows(bytes: &[u8], buffer: usize) -> Vec<(u64, Vec<String>)> {
        let mut rows = Rows::new(BufReader::with_capacity(buffer, bytes));
        let mut out = Vec::new();
        while let Some(row) = rows.read_row().expect("memory is readable") {
            let fields = match row.too_large {
                Some(RowSize { bytes, last_line }) => {
                    vec![format!("{bytes} bytes up to line {last_line}")]
                }
                None => (0..row.len())
                    .map(|n| String::from_utf8_lossy(row.field(n)).into_owned())
                    .collect(),
            };
            out.push((row.number, fields));
        }
        out
    }

    #[test]
    fn rows_have_fields_and_the_numbers_of_their_lines() {
        type Case = (&'static str, &'static [(u64, &'static [&'static str])]);
        let cases: [Case; 9] = [
            ("", &[]),
            ("\r\n\n", &[]),
            ("a,b", &[(1, &["a", "b"])]),
            ("a,b\n,\n", &[(1, &["a", "b"]), (2, &["", ""])]),
            (
                "a\r\n\r\n\"b\"\r\nc",
                &[(1, &["a"]), (3, &["b"]), (4, &["c"])],
            ),
            (
                "\"a\nb\",\"c, \"\"d\"\"\"\n\n\ne\n",
                &[(1, &["a\nb", "c, \"d\""]), (5, &["e"])],
            ),
            ("a\rb\n", &[(1, &["a"]), (1, &["b"])]),
            ("a\n\"b,c\nd\n", &[(1, &["a"]), (2, &["b,c\nd\n"])]),
            ("a\"b,c\n", &[(1, &["a\"b", "c"])]),
        ];
        for (text, want) in cases {
            let want: Vec<(u64, Vec<String>)> = want
                .iter()
                .map(|(n, fields)| (*n, fields.iter().map(ToString::to_string).collect()))
                .collect();
            for buffer in [1, 2, 3, 100] {
                assert_eq!(rows(text.as_bytes(), buffer), want, "{text:?} by {buffer}");
            }
        }
    }

    #[test]
    fn a_row_at_the_limit_is_read_and_a_larger_one_needs_no_memory() {
        let half = "x".repeat(VALUE_BYTES_MAX / 2);
        let exact = format!("{half},{}", &half[1..]);
        for end in ["\n", "\r\n", ""] {
            for buffer in [7, 1_000_000] {
                let found = rows(format!("{exact}{end}a{end}").as_bytes(), buffer);
                let want = if end.is_empty() {
                    vec![format!("{} bytes up to line 1", VALUE_BYTES_MAX + 1)]
                } else {
                    vec![half.clone(), half[1..].to_owned()]
                };
                assert_eq!(found[0], (1, want));
                let over = rows(format!("x{exact}{end}{end}b,c{end}").as_bytes(), buffer);
                let size = VALUE_BYTES_MAX + 1 + if end.is_empty() { 3 } else { 0 };
                let want = (1, vec![format!("{size} bytes up to line 1")]);
                assert_eq!(over[0], want);
                let after = (3, vec!["b".to_owned(), "c".to_owned()]);
                assert_eq!(over.get(1), (!end.is_empty()).then_some(&after));
            }
        }
        let long = format!("\"{}\n\",\nb", "x\n,".repeat(VALUE_BYTES_MAX));
        let lines = u64::try_from(VALUE_BYTES_MAX).expect("small") + 2;
        for buffer in [1_000, 1_000_000] {
            let size = format!("{} bytes up to line {lines}", 3 * VALUE_BYTES_MAX + 4);
            let want = [(1, vec![size]), (lines + 1, vec!["b".to_owned()])];
            assert_eq!(rows(long.as_bytes(), buffer), want);
        }
        let many = ",".repeat(VALUE_BYTES_MAX);
        assert_eq!(rows(many.as_bytes(), 10)[0].1.len(), VALUE_BYTES_MAX + 1);
    }

    #[test]
    fn a_row_does_not_wait_for_the_next() {
        for end in ["\n", "\r\n"] {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let mut rows = Rows::new(BufReader::new(reader));
            let text = format!("a,b{end}");
            writer.write_all(text.as_bytes()).expect("room");
            let row = rows.read_row().expect("readable").expect("a row");
            assert_eq!(row.len(), 2);
            assert!(rows.is_buffer_empty(), "the next row would be waited for");
        }
    }

    #[test]
    fn a_byte_order_mark_and_gzip_are_removed() {
        let text = "\u{feff}\"a\",b\n";
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(text.as_bytes()).expect("memory takes it");
        let packed = gz.finish().expect("memory takes it");
        for bytes in [text.as_bytes().to_vec(), packed, b"a,b".to_vec()] {
            let mut rows = open_rows(Cursor::new(bytes)).expect("readable");
            let row = rows.read_row().expect("readable").expect("a row");
            assert_eq!(
                (row.field(0), row.field(1), row.len()),
                (&b"a"[..], &b"b"[..], 2)
            );
        }
        for bytes in [&b""[..], b"a"] {
            let mut rows = open_rows(bytes).expect("readable");
            let row = rows.read_row().expect("readable");
            assert_eq!(row.map_or(0, |row| row.len()), bytes.len());
        }
    }
}
