//! Builds events from the rows of a CSV file: assigns columns to event fields, and converts each cell to the text of
//! its field.
//!
//! Each row becomes a JSON object that represents an event. The caller passes this JSON object to the parser for all
//! events, which decides whether the event is valid.
//!
//! | a cell | becomes |
//! |---|---|
//! | any | its text, without surrounding spaces |
//! | empty | no field |
//! | of `event_type`, if its text is not a valid event type | the text in lower case, with `-` in place of everything between ASCII letters and digits: `Noise - Street` becomes `noise-street` |
//! | of `severity`, if `--severity-map` contains its text | the severity mapped from the text |
//! | of `severity`, if `--severity-map` contains `*` and the cell is not a severity | the severity mapped from `*` |
//! | of `timestamp` | the instant in UTC ([`TimeRules`]) |
//!
//! Columns that are mapped to no field are not sent, because storing them with every raw event would cost DynamoDB
//! write units.

use std::borrow::Cow;

use super::local_time::TimeRules;
use super::rows::CsvRow;
use crate::core::event::Severity;
use crate::core::parse::{Reason, Reject, is_event_type, quoted, trim};
use crate::core::time::format_millis;
use crate::failure::Failure;
use crate::settings::{CsvArgs, EventField, nearest};

/// Maximum number of column names in an error message. For further columns, the error message states only their number.
const COLUMNS_SHOWN: usize = 50;

/// The rules that convert the rows of a CSV file to events, taken from the command-line options.
#[derive(Clone, Debug)]
pub struct CsvRules {
    sources: Vec<(EventField, FieldSource)>,
    severities: Vec<(String, Severity)>,
    time: TimeRules,
}

/// The source from which an event field gets its text.
#[derive(Clone, Debug)]
enum FieldSource {
    /// The field gets its text from the column with the given name.
    Column(String),
    /// The field has the given text in every event.
    Text(String),
}

impl CsvRules {
    /// Creates the rules that the command-line options define.
    ///
    /// # Errors
    /// Returns a failure if a field has two sources, or if a required field has no source.
    pub fn new(args: &CsvArgs) -> Result<CsvRules, Failure> {
        let columns = args.map.iter().flat_map(|list| &list.0);
        let columns = columns.map(|(field, name)| (*field, FieldSource::Column(name.clone())));
        let texts = args.set.iter().flat_map(|list| &list.0);
        let texts = texts.map(|(field, text)| (*field, FieldSource::Text(text.clone())));
        let sources: Vec<(EventField, FieldSource)> = columns.chain(texts).collect();
        let count = |field| sources.iter().filter(|(other, _)| *other == field).count();
        let twice = EventField::ALL.into_iter().find(|field| count(*field) > 1);
        if let Some(field) = twice {
            let what = format!("{} has two sources", field.name());
            let remedy = "give each field once, in --map or in --set";
            return Err(Failure::new(what).with_remedy(remedy));
        }
        let required = EventField::ALL.into_iter().filter(|f| f.is_required());
        let missing: Vec<&str> = required
            .filter(|field| count(*field) == 0)
            .map(EventField::name)
            .collect();
        if let Some(first) = missing.first() {
            let what = format!("no column is known for {}", missing.join(", "));
            return Err(Failure::new(what)
                .with_why("every event of a CSV file needs these fields")
                .with_remedy(format!(
                    "give --map {first}=COLUMN for a column, or --set {first}=TEXT for the same text in every event"
                )));
        }
        Ok(CsvRules {
            sources,
            severities: args
                .severity_map
                .iter()
                .flat_map(|list| list.0.clone())
                .collect(),
            time: TimeRules {
                format: args.time_format.clone(),
                zone: args.time_zone.clone(),
            },
        })
    }

    /// Finds the mapped columns in the first row of a CSV file.
    ///
    /// # Errors
    /// Returns a failure if the file has no first row, or if the first row does not name each needed column exactly
    /// once.
    pub(super) fn find_columns(&self, header: Option<&CsvRow<'_>>) -> Result<Mapping, Failure> {
        let what = "the first row of the CSV file does not name its columns";
        let Some(header) = header else {
            return Err(Failure::new(what).with_why("the file is empty"));
        };
        if header.too_large.is_some() {
            return Err(Failure::new(what).with_why("the row is too large"));
        }
        let names: Vec<String> = (0..header.len())
            .map(|index| trim(&String::from_utf8_lossy(header.field(index))).to_owned())
            .collect();
        let find = |(field, source): &(EventField, FieldSource)| {
            let cell = match source {
                FieldSource::Text(text) => Cell::Text(text.clone()),
                FieldSource::Column(name) => Cell::Column(find_column(&names, name, *field)?),
            };
            Ok::<_, Failure>((*field, cell))
        };
        Ok(Mapping {
            cells: self.sources.iter().map(find).collect::<Result<_, _>>()?,
            columns: names.len(),
            severities: self.severities.clone(),
            time: self.time.clone(),
        })
    }
}

/// Returns the index of the column that is named `wanted`.
fn find_column(names: &[String], wanted: &str, field: EventField) -> Result<usize, Failure> {
    let mut found = names.iter().enumerate().filter(|(_, name)| *name == wanted);
    let option = format!("--map {}={wanted}", field.name());
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(index),
        (None, _) => {
            let meant = nearest(wanted, names.iter().map(String::as_str));
            let shown = names.iter().take(COLUMNS_SHOWN);
            let shown: Vec<String> = shown.map(|name| quoted(name)).collect();
            let mut columns = shown.join(", ");
            if names.len() > COLUMNS_SHOWN {
                columns.push_str(&format!(" and {} more", names.len() - COLUMNS_SHOWN));
            }
            let failure = Failure::new(format!("the CSV file has no column {wanted} ({option})"))
                .with_why(format!("its columns are {columns}"));
            Err(match meant {
                Some(meant) => failure.with_remedy(format!("did you mean {}?", quoted(meant))),
                None => failure,
            })
        }
        (Some(_), Some(_)) => {
            let what = format!("the CSV file has two columns {wanted} ({option})");
            Err(Failure::new(what).with_remedy("rename one of them in the first row"))
        }
    }
}

/// The rules for one CSV file, in which each column name is replaced by the index of the column.
#[derive(Debug)]
pub(super) struct Mapping {
    cells: Vec<(EventField, Cell)>,
    columns: usize,
    severities: Vec<(String, Severity)>,
    time: TimeRules,
}

#[derive(Debug)]
enum Cell {
    Column(usize),
    Text(String),
}

/// The result of [`Mapping::write_event`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The reason why the timestamp cell cannot be parsed as a time. If the timestamp cell cannot be parsed, the event
    /// gets an empty timestamp.
    pub(super) wrong_time: Option<String>,
}

impl Mapping {
    /// Converts a row to an event, and writes the event as a JSON object into `json`.
    ///
    /// # Errors
    /// Returns a reject if the cells of the row cannot be assigned to the columns, or if a cell is not UTF-8.
    pub(super) fn write_event(
        &self,
        row: &CsvRow<'_>,
        json: &mut Vec<u8>,
    ) -> Result<Written, Reject> {
        json.clear();
        if row.len() != self.columns {
            return Err(Reject {
                reason: Reason::MissingField,
                detail: format!(
                    "{} cells, but the file has {} columns",
                    row.len(),
                    self.columns
                ),
            });
        }
        let mut written = Written::default();
        for (field, cell) in &self.cells {
            let text = match cell {
                Cell::Text(text) => text,
                Cell::Column(index) => text_of(row.field(*index), *field)?,
            };
            let text = match field {
                EventField::Severity => self.severity(text),
                EventField::EventType => event_type(text),
                EventField::Timestamp if !text.is_empty() => match self.time.parse(text) {
                    Ok(time_ms) => format_millis(time_ms).into(),
                    Err(why) => {
                        written.wrong_time = Some(format!("{} {why}", quoted(text)));
                        push_field(json, *field, "");
                        continue;
                    }
                },
                _ => text.into(),
            };
            if !text.is_empty() {
                push_field(json, *field, &text);
            }
        }
        json.extend_from_slice(if json.is_empty() { b"{}" } else { b"}" });
        Ok(written)
    }

    fn severity<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_meant = |word: &str| word.eq_ignore_ascii_case(text);
        let exact = self.severities.iter().find(|(word, _)| is_meant(word));
        let other = || self.severities.iter().find(|(word, _)| word == "*");
        let is_severity = Severity::from_name(&text.to_ascii_lowercase()).is_some();
        match exact.or_else(|| other().filter(|_| !is_severity)) {
            Some((_, severity)) => severity.name().into(),
            None => text.into(),
        }
    }
}

fn text_of(cell: &[u8], field: EventField) -> Result<&str, Reject> {
    let text = std::str::from_utf8(cell).map_err(|error| Reject {
        reason: Reason::NotUtf8,
        detail: format!(
            "invalid UTF-8 at byte {} of the {}",
            error.valid_up_to(),
            field.name()
        ),
    })?;
    Ok(trim(text))
}

/// Converts the text of a cell to an event type. A text without ASCII letters and digits is returned unchanged.
fn event_type(text: &str) -> Cow<'_, str> {
    if is_event_type(&text.to_ascii_lowercase()) {
        return text.into();
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return text.into();
    }
    words.join("-").to_ascii_lowercase().into()
}

/// Appends a field to a JSON object that has no closing brace yet.
fn push_field(json: &mut Vec<u8>, field: EventField, text: &str) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.push(b'"');
    json.extend_from_slice(field.name().as_bytes());
    json.extend_from_slice(b"\":");
    serde_json::to_writer(json, text).expect("memory takes it");
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;
    use std::time::Duration;

    use clap::Parser as _;

    use super::super::{Input, InputError, InputFormatRules, NextBatch};
    use super::*;
    use crate::settings::{Cli, Command};

    fn rules(options: &[&str]) -> Result<CsvRules, Failure> {
        let line = ["citystream", "produce", "--input", "a.csv"]
            .iter()
            .chain(options);
        match Cli::try_parse_from(line).expect("valid").command {
            Command::Produce(args) => CsvRules::new(&args.csv),
            other => panic!("{other:?}"),
        }
    }

    /// Returns the line number of each row, together with its event or the reason for its rejection.
    fn events(options: &[&str], file: &[u8]) -> Result<Vec<(u64, String)>, InputError> {
        let format = InputFormatRules::Csv(Arc::new(rules(options).expect("complete")));
        let input = Input::from_reader(Cursor::new(file.to_vec()), &format)?;
        let mut out = Vec::new();
        loop {
            let batch = match input.next_batch(Duration::from_secs(60))? {
                NextBatch::Lines(batch) => batch,
                NextBatch::Nothing => panic!("the input is in memory"),
                NextBatch::End => return Ok(out),
            };
            for line in &batch.lines {
                let text = match &line.outcome {
                    Ok(event) => String::from_utf8_lossy(batch.value(event)).into_owned(),
                    Err(reject) => reject.to_string(),
                };
                out.push((line.number, text));
            }
        }
    }

    const COLUMNS: [&str; 4] = [
        "--map",
        "city=Borough,event_type=Type,severity=Priority",
        "--map",
        "timestamp=Created Date,description=Text,event_id=Key",
    ];

    #[test]
    fn cells_become_fields() {
        let file = "Priority,Key,Text,unused, Borough ,Type,Created Date\r\n\
            low,7,\"a \"\"b\"\"\nc\",x,  NYC ,Traffic,2013-01-01T06:00:00.5Z\r\n\
            \r\n\
            HIGH,,,,Bronx,Noise - Street/Sidewalk,2013-01-01T07:00:00+01:00\r\n";
        let want = [
            (
                2,
                r#"{"city":"NYC","event_type":"Traffic","severity":"low","timestamp":"2013-01-01T06:00:00.500Z","description":"a \"b\"\nc","event_id":"7"}"#,
            ),
            (
                5,
                r#"{"city":"Bronx","event_type":"noise-street-sidewalk","severity":"HIGH","timestamp":"2013-01-01T06:00:00.000Z"}"#,
            ),
        ];
        let want = want.map(|(line, text)| (line, text.to_owned()));
        assert_eq!(events(&COLUMNS, file.as_bytes()).expect("readable"), want);
    }

    #[test]
    fn rejected_rows_have_the_reasons_of_the_parser() {
        let head = "Borough,Type,Priority,Created Date,Text,Key\n";
        let long = "x".repeat(4_097);
        let huge = "x".repeat(70_000);
        for (row, reject) in [
            (
                ",a,low,2013-01-01T06:00:00Z,,",
                "missing_field: no city".to_owned(),
            ),
            (
                "NYC,a,low",
                "missing_field: 3 cells, but the file has 6 columns".to_owned(),
            ),
            (
                "NYC,a,low,2013-01-01T06:00:00Z,a,b,c",
                "missing_field: 7 cells, but the file has 6 columns".to_owned(),
            ),
            ("a#b,a,low,yesterday,,", "bad_city: has a #".to_owned()),
            (
                "NYC,4x4,low,2013-01-01T06:00:00Z,,",
                "bad_event_type: \"4x4\" is not [a-z][a-z0-9_-]{0,63}".to_owned(),
            ),
            (
                "NYC,-/-,low,2013-01-01T06:00:00Z,,",
                "bad_event_type: \"-/-\" is not [a-z][a-z0-9_-]{0,63}".to_owned(),
            ),
            (
                "NYC,a,Minor,2013-01-01T06:00:00Z,,",
                "bad_severity: \"Minor\" is not low, medium, high or critical".to_owned(),
            ),
            (
                "NYC,a,low,2013-01-01T06:00:00,,",
                "bad_timestamp: \"2013-01-01T06:00:00\" has no offset; give --time-zone".to_owned(),
            ),
            (
                &format!("NYC,a,low,2013-01-01T06:00:00Z,{long},"),
                "bad_description: 4097 bytes, at most 4096".to_owned(),
            ),
            (
                &format!("NYC,a,low,2013-01-01T06:00:00Z,{huge},"),
                "too_large: 70032 bytes up to line 2, at most 65536".to_owned(),
            ),
        ] {
            let file = format!("{head}{row}\nNYC,a,low,2013-01-01T06:00:00Z,,\n");
            let found = events(&COLUMNS, file.as_bytes()).expect("readable");
            assert_eq!(found[0], (2, reject));
            assert!(found[1].1.starts_with("{\"city\":\"NYC\""), "{found:?}");
        }
        let file = [
            head.as_bytes(),
            b"NYC,a,low,2013-01-01T06:00:00Z,caf\xe9,\n",
        ]
        .concat();
        let found = events(&COLUMNS, &file).expect("readable");
        let reject = "not_utf8: invalid UTF-8 at byte 3 of the description";
        assert_eq!(found, [(2, reject.to_owned())]);
    }

    #[test]
    fn texts_and_words_fill_fields() {
        let options = [
            "--map",
            "city=c,timestamp=t,severity=s",
            "--set",
            "event_type=Noise",
            "--severity-map",
            "Minor=low,*=medium,low=high",
            "--time-format",
            "%d.%m.%Y %H:%M",
            "--time-zone",
            "Europe/Berlin",
        ];
        for (word, severity) in [
            ("minor", "low"),
            ("low", "high"),
            ("Critical", "Critical"),
            ("P7", "medium"),
            ("", "medium"),
        ] {
            let file = format!("c,t,s\nNYC,01.02.2013 07:00,{word}\n");
            let want = format!(
                r#"{{"city":"NYC","timestamp":"2013-02-01T06:00:00.000Z","severity":"{severity}","event_type":"Noise"}}"#
            );
            let found = events(&options, file.as_bytes()).expect("readable");
            assert_eq!(found, [(2, want)], "{word}");
        }
        let found = events(&options, b"c,t,s\nNYC,1 Feb,low\n").expect("readable");
        let reject = "bad_timestamp: \"1 Feb\" does not match --time-format";
        assert!(found[0].1.starts_with(reject), "{found:?}");
    }

    #[test]
    fn the_options_must_give_each_required_field_once() {
        for (options, what) in [
            (
                &["--map", "city=a,severity=b"][..],
                "no column is known for event_type, timestamp",
            ),
            (
                &[][..],
                "no column is known for city, event_type, severity, timestamp",
            ),
            (&["--map", "city=a,city=b"], "city has two sources"),
            (
                &["--map", "city=a", "--set", "city=b"],
                "city has two sources",
            ),
        ] {
            assert_eq!(rules(options).expect_err(what).what, what);
        }
    }

    #[test]
    fn the_first_row_must_name_each_column_once() {
        let huge = "x".repeat(70_000);
        for (head, words) in [
            ("", "the file is empty"),
            ("\n\n", "the file is empty"),
            (&*huge, "the row is too large"),
            (
                "Boroughs,Type,Priority",
                r#"its columns are "Boroughs", "Type", "Priority"; did you mean "Boroughs"?"#,
            ),
            (
                "Borough,Type,Priority,Borough",
                "has two columns Borough (--map city=Borough)",
            ),
        ] {
            let error = events(&COLUMNS, head.as_bytes()).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        }
        let many = format!("{}z", "z,".repeat(59));
        let error = events(&COLUMNS, many.as_bytes()).expect_err("no column");
        assert!(error.to_string().contains("\"z\" and 10 more"), "{error}");
    }
}
