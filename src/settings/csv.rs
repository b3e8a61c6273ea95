//! Options of `produce` that assign the columns of a CSV file to the fields of an event.
//!
//! A list such as `city=Borough,timestamp=Created Date` is parsed as one line of CSV. If a column name contains a
//! comma, the pair is written in quotes, as in `"city=Borough, district"`.

use clap::{Args, ValueEnum};
use jiff::ZonedDateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use super::nearest;
use super::values::{parse_severity, parse_text};
use crate::core::event::Severity;

/// The format of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values whose first row names the columns.
    Csv,
}

/// A field of an event that can get its text from a column of a CSV file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventField {
    /// The field `city`.
    City,
    /// The field `event_type`.
    EventType,
    /// The field `severity`.
    Severity,
    /// The field `timestamp`.
    Timestamp,
    /// The field `description`.
    Description,
    /// The field `event_id`.
    EventId,
}

impl EventField {
    /// All event fields, in the order in which they appear in an event.
    pub const ALL: [EventField; 6] = [
        EventField::City,
        EventField::EventType,
        EventField::Severity,
        EventField::Timestamp,
        EventField::Description,
        EventField::EventId,
    ];

    /// Returns the name of the field in the JSON object of an event.
    pub const fn name(self) -> &'static str {
        match self {
            EventField::City => "city",
            EventField::EventType => "event_type",
            EventField::Severity => "severity",
            EventField::Timestamp => "timestamp",
            EventField::Description => "description",
            EventField::EventId => "event_id",
        }
    }

    /// Returns true if the field is required in every event.
    pub const fn is_required(self) -> bool {
        !matches!(self, EventField::Description | EventField::EventId)
    }
}

/// The value of `--map` or `--set`: a list of fields, each with the name of a column or with a fixed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldList(pub Vec<(EventField, String)>);

/// The value of `--severity-map`: a list of words, each with the severity to which the word is mapped. The word `*`
/// stands for every word that is neither in the list nor a severity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeverityList(pub Vec<(String, Severity)>);

/// The options for CSV. Each needs `--input`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "CSV input")]
pub struct CsvArgs {
    /// Column of each field, such as city=Borough. Fields are city, event_type, severity, timestamp,
    /// description and event_id; can be repeated
    #[arg(long, value_name = "FIELD=COLUMN,…", requires = "input", value_parser = parse_fields)]
    pub map: Vec<FieldList>,

    /// Fields with the same text in every event, such as severity=low; can be repeated
    #[arg(long, value_name = "FIELD=TEXT,…", requires = "input", value_parser = parse_fields)]
    pub set: Vec<FieldList>,

    /// What the words of the severity column mean, such as Minor=low,Major=high. *=low is for every
    /// other word that is not a severity; can be repeated
    #[arg(long, value_name = "WORD=SEVERITY,…", requires = "input", value_parser = parse_severities)]
    pub severity_map: Vec<SeverityList>,

    /// Format of the timestamp column, such as '%m/%d/%Y %I:%M:%S %p' [default: RFC 3339]
    #[arg(long, value_name = "FORMAT", requires = "input", value_parser = parse_time_format)]
    pub time_format: Option<String>,

    /// Time zone of timestamps without an offset, such as America/New_York or UTC
    #[arg(long, value_name = "ZONE", requires = "input", value_parser = parse_zone)]
    pub time_zone: Option<TimeZone>,
}

impl CsvArgs {
    /// Returns the name of the first CSV option that the user has given, or `None` if the user has given no CSV option.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            (!self.map.is_empty(), "--map"),
            (!self.set.is_empty(), "--set"),
            (!self.severity_map.is_empty(), "--severity-map"),
            (self.time_format.is_some(), "--time-format"),
            (self.time_zone.is_some(), "--time-zone"),
        ];
        given
            .into_iter()
            .find_map(|(is_given, name)| is_given.then_some(name))
    }
}

/// Splits a list of `NAME=VALUE` into pairs, and removes the spaces around names and values.
fn parse_pairs(text: &str, expected: &str) -> Result<Vec<(String, String)>, String> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).from_reader(text.as_bytes());
    let mut rows = reader.records();
    let (Some(Ok(row)), None) = (rows.next(), rows.next()) else {
        return Err(expected.to_owned());
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let is_whole = !name.is_empty() && !value.is_empty();
        is_whole.then(|| (name.to_owned(), value.to_owned()))
    };
    row.iter()
        .map(|text| pair(text).ok_or_else(|| format!("{expected}, not {text:?}")))
        .collect()
}

fn parse_fields(text: &str) -> Result<FieldList, String> {
    let pairs = parse_pairs(
        text,
        "expected a list such as city=Borough,severity=Priority",
    )?;
    let field = |(name, value): (String, String)| {
        let known = EventField::ALL.into_iter().find(|f| f.name() == name);
        let names = || EventField::ALL.map(EventField::name);
        known.map(|field| (field, value)).ok_or_else(|| {
            let meant = nearest(&name, names().into_iter());
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            format!("{name} is not one of {}{meant}", names().join(", "))
        })
    };
    pairs
        .into_iter()
        .map(field)
        .collect::<Result<_, _>>()
        .map(FieldList)
}

fn parse_severities(text: &str) -> Result<SeverityList, String> {
    let pairs = parse_pairs(text, "expected a list such as Minor=low,Major=high,*=low")?;
    let meaning = |(word, name): (String, String)| {
        let severity = parse_severity(&name).map_err(|error| format!("{error}, not {name:?}"));
        Ok((word, severity?))
    };
    pairs
        .into_iter()
        .map(meaning)
        .collect::<Result<_, _>>()
        .map(SeverityList)
}

/// Checks a format of [jiff's strtime](https://docs.rs/jiff/latest/jiff/fmt/strtime/): the format must include a date,
/// and must be able to parse its own output.
fn parse_time_format(text: &str) -> Result<String, String> {
    let text = parse_text(text)?;
    let fails = |error: jiff::Error| format!("cannot read times: {error}");
    let sample: ZonedDateTime = "2013-02-03T16:05:06+00:00[UTC]".parse().map_err(fails)?;
    let written = strtime::format(&text, &sample).map_err(fails)?;
    let read = strtime::parse(&text, &written).map_err(fails)?;
    if read.timestamp().is_none() {
        read.to_datetime().map_err(fails)?;
    }
    Ok(text)
}

fn parse_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_unknown| {
        "expected the name of a time zone, such as America/New_York or UTC".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_line_of_csv() {
        let list =
            parse_fields("city=Borough, timestamp = Created Date ,\"event_id=a=b, \"\"c\"\"\"");
        let want = [
            (EventField::City, "Borough"),
            (EventField::Timestamp, "Created Date"),
            (EventField::EventId, "a=b, \"c\""),
        ];
        let want = want.map(|(field, text)| (field, text.to_owned()));
        assert_eq!(list, Ok(FieldList(want.to_vec())));
        for (text, words) in [
            ("", "such as city=Borough"),
            ("city", "not \"city\""),
            ("city=", "not \"city=\""),
            ("city=a,,", "not \"\""),
            ("city=a\nseverity=b", "such as city=Borough"),
            ("citty=a", "did you mean city?"),
            (
                "zip=a",
                "city, event_type, severity, timestamp, description, event_id",
            ),
        ] {
            let error = parse_fields(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn words_mean_severities() {
        let list = parse_severities("Minor=LOW,*=medium").expect("a list");
        let want = [("Minor", Severity::Low), ("*", Severity::Medium)];
        assert_eq!(list.0, want.map(|(word, s)| (word.to_owned(), s)));
        let error = parse_severities("Minor=tiny").expect_err("no severity");
        assert!(
            error.contains("low, medium, high or critical, not \"tiny\""),
            "{error}"
        );
    }

    #[test]
    fn a_time_format_must_be_able_to_read_a_date() {
        for text in [
            "%m/%d/%Y %I:%M:%S %p",
            "%Y-%m-%d",
            "%Y-%m-%dT%H:%M:%S%.f",
            "%d.%m.%y %H:%M",
            "%d %b %Y %R %z",
            "%s",
        ] {
            assert_eq!(parse_time_format(text).as_deref(), Ok(text));
        }
        for text in ["", "%H:%M", "%Y-%m", "%!", "YYYY-MM-DD", "%Y-%m-%d %Z"] {
            assert!(parse_time_format(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_zone_has_a_name() {
        assert!(parse_zone("America/New_York").is_ok() && parse_zone("UTC").is_ok());
        for text in ["", "EST5", "New York"] {
            assert!(parse_zone(text).is_err(), "{text}");
        }
    }
}
