//! Reads the events of an input in either format, NDJSON or CSV.

use std::io::{self, Read};
use std::sync::Arc;

use super::lines::{InputLines, open_lines};
use super::mapping::{CsvRules, Mapping, Written};
use super::rows::{InputRows, open_rows};
use super::{InputError, InputEvent, InputLine, LineBatch};
use crate::core::parse::{Reason, Reject, VALUE_BYTES_MAX, parse_borrowed_event};

/// The format of an input, with the rules for reading it.
#[derive(Clone, Debug)]
pub enum InputFormatRules {
    /// One JSON object per line.
    Ndjson,
    /// A CSV file, together with the rules that convert its rows to events.
    Csv(Arc<CsvRules>),
}

/// An input that has been opened.
pub(super) enum Records {
    Lines(InputLines),
    Rows(Box<MappedRows>),
}

/// The rows of a CSV file, together with the mapping of its columns to event fields.
pub(super) struct MappedRows {
    rows: InputRows,
    mapping: Mapping,
    json: Vec<u8>,
}

impl Records {
    /// Opens an input of either format. For a CSV file, the function also reads the first row, which names the columns.
    ///
    /// # Errors
    /// Returns [`InputError::Read`] if reading fails, and [`InputError::Columns`] if the first row does not name the
    /// columns that the rules need.
    pub(super) fn open(
        input: impl Read + Send + 'static,
        format: &InputFormatRules,
    ) -> Result<Records, InputError> {
        let failed = |source| InputError::Read { line: 0, source };
        Ok(match format {
            InputFormatRules::Ndjson => Records::Lines(open_lines(input).map_err(failed)?),
            InputFormatRules::Csv(rules) => {
                let mut rows = open_rows(input).map_err(failed)?;
                let header = rows.read_row().map_err(failed)?;
                let mapping = rules.find_columns(header.as_ref());
                Records::Rows(Box::new(MappedRows {
                    mapping: mapping.map_err(InputError::Columns)?,
                    rows,
                    json: Vec::new(),
                }))
            }
        })
    }

    /// Returns the number of lines that were read so far.
    pub(super) fn number(&self) -> u64 {
        match self {
            Records::Lines(lines) => lines.number(),
            Records::Rows(mapped) => mapped.rows.number() - 1,
        }
    }

    /// Returns true if the next read has to wait for the stream, possibly for a long time.
    pub(super) fn is_buffer_empty(&self) -> bool {
        match self {
            Records::Lines(lines) => lines.is_buffer_empty(),
            Records::Rows(mapped) => mapped.rows.is_buffer_empty(),
        }
    }

    /// Skips one line or row. Returns `false` at the end of the input.
    pub(super) fn skip(&mut self) -> io::Result<bool> {
        match self {
            Records::Lines(lines) => Ok(lines.read_line()?.is_some()),
            Records::Rows(mapped) => Ok(mapped.rows.read_row()?.is_some()),
        }
    }

    /// Appends the next line or row to a batch. Returns `false` at the end of the input.
    pub(super) fn read_into(&mut self, batch: &mut LineBatch) -> io::Result<bool> {
        let (number, outcome) = match self {
            Records::Lines(lines) => {
                let Some(line) = lines.read_line()? else {
                    return Ok(false);
                };
                let outcome = match line.too_long_bytes {
                    Some(bytes) => Err(too_large(format!("{bytes} bytes"))),
                    None => parse_value(line.value, batch),
                };
                (line.number, outcome)
            }
            Records::Rows(mapped) => match mapped.read_into(batch)? {
                Some(read) => read,
                None => return Ok(false),
            },
        };
        batch.lines.push(InputLine { number, outcome });
        Ok(true)
    }
}

impl MappedRows {
    /// Returns the line number of the next row, together with its event or the reason for its rejection. Returns `None`
    /// at the end of the input.
    fn read_into(
        &mut self,
        batch: &mut LineBatch,
    ) -> io::Result<Option<(u64, Result<InputEvent, Reject>)>> {
        let Some(row) = self.rows.read_row()? else {
            return Ok(None);
        };
        if let Some(size) = row.too_large {
            let text = format!("{} bytes up to line {}", size.bytes, size.last_line);
            return Ok(Some((row.number, Err(too_large(text)))));
        }
        let written = self.mapping.write_event(&row, &mut self.json);
        let outcome = written.and_then(|written| {
            let parsed = parse_value(&self.json, batch);
            parsed.map_err(|reject| explain_time(reject, written))
        });
        Ok(Some((row.number, outcome)))
    }
}

/// If an event was rejected because of its timestamp, the function replaces the detail of the reject with the reason
/// why the CSV cell is not a valid time.
fn explain_time(reject: Reject, written: Written) -> Reject {
    match written.wrong_time {
        Some(detail) if reject.reason == Reason::BadTimestamp => Reject { detail, ..reject },
        _ => reject,
    }
}

fn too_large(size: String) -> Reject {
    Reject {
        reason: Reason::TooLarge,
        detail: format!("{size}, at most {VALUE_BYTES_MAX}"),
    }
}

/// Parses the value of a record. If the value is a valid event, the function appends the event to `batch`.
fn parse_value(value: &[u8], batch: &mut LineBatch) -> Result<InputEvent, Reject> {
    let event = parse_borrowed_event(value)?;
    let (city, start) = (batch.cities.len(), batch.values.len());
    batch.cities.push_str(&event.city);
    batch.values.extend_from_slice(value);
    Ok(InputEvent {
        time_ms: event.time_ms,
        city: city..batch.cities.len(),
        value: start..batch.values.len(),
    })
}
