//! Divides the body of an HTTP request into events, and checks each event by the rules of [`crate::parse`].
//!
//! A request body is one JSON value, a JSON array, or NDJSON, which has one JSON value per line. An accepted event
//! keeps the bytes that the client sent, with one exception: if the field `timestamp` is absent or `"now"`, this module
//! sets it to the time of arrival.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::clock::UnixMs;
use crate::parse::{Reason, Reject, parse_borrowed_event};
use crate::patch::{append_member, find_member, replace_member};
use crate::time::format_millis;

/// The value of the field `timestamp` that stands for the time of arrival.
pub const NOW: &str = "now";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Specifies how to divide a request body into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The content of the request body determines the format. A body that begins with `[` is an array of events. A body
    /// that is a single JSON value is one event. In any other body, each line is an event.
    Detect,
    /// Each line of the body is an event.
    Lines,
}

/// A part of a request body that should contain one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmittedLine<'a> {
    /// The position of the item in the request body, counted from 1. For NDJSON, the position is the line number,
    /// including empty lines. For an array, the position is the element number.
    pub line: u64,
    /// The bytes of the item as the client sent them, without a final line break.
    pub value: &'a [u8],
}

/// The reason why a request body cannot be divided into events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The request body contains no events.
    Empty,
    /// The request body contains more events than the allowed maximum.
    TooMany,
    /// The request body begins with `[`, but is not a valid JSON array. The field contains the JSON parser's error
    /// message with the position of the error.
    BrokenArray(String),
}

/// Divides a request body into at most `items_max` items.
///
/// In NDJSON, lines end with LF or CRLF. The function ignores empty lines, and a byte order mark at the start of the
/// body.
///
/// # Errors
/// Returns a [`BodyError`] if the body has no item, too many items, or a broken array.
pub fn split(
    body: &[u8],
    framing: Framing,
    items_max: usize,
) -> Result<Vec<SubmittedLine<'_>>, BodyError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let trimmed = body.trim_ascii();
    let items = match framing {
        _ if trimmed.is_empty() => Vec::new(),
        Framing::Detect if trimmed.starts_with(b"[") => split_array(trimmed, items_max)?,
        Framing::Detect if is_one_value(trimmed) => vec![SubmittedLine {
            line: 1,
            value: trimmed,
        }],
        Framing::Detect | Framing::Lines => split_lines(body, items_max)?,
    };
    if items.is_empty() {
        return Err(BodyError::Empty);
    }
    Ok(items)
}

fn is_one_value(body: &[u8]) -> bool {
    !body.contains(&b'\n') || serde_json::from_slice::<&RawValue>(body).is_ok()
}

fn split_lines(body: &[u8], items_max: usize) -> Result<Vec<SubmittedLine<'_>>, BodyError> {
    let mut items = Vec::new();
    for (line, value) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        if value.is_empty() {
            continue;
        }
        if items.len() == items_max {
            return Err(BodyError::TooMany);
        }
        items.push(SubmittedLine { line, value });
    }
    Ok(items)
}

fn split_array(body: &[u8], items_max: usize) -> Result<Vec<SubmittedLine<'_>>, BodyError> {
    let mut elements = Elements {
        items: Vec::new(),
        items_max,
        has_more: false,
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_seq(&mut elements);
    let read = read.and_then(|()| json.end());
    match read {
        _ if elements.has_more => Err(BodyError::TooMany),
        Ok(()) => Ok(elements.items),
        Err(error) => Err(BodyError::BrokenArray(error.to_string())),
    }
}

struct Elements<'a> {
    items: Vec<SubmittedLine<'a>>,
    items_max: usize,
    has_more: bool,
}

impl<'a> Visitor<'a> for &mut Elements<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut line = 1;
        while let Some(raw) = seq.next_element::<&'a RawValue>()? {
            if self.items.len() == self.items_max {
                self.has_more = true;
                return Err(A::Error::custom("too many elements"));
            }
            let value = raw.get().as_bytes();
            self.items.push(SubmittedLine { line, value });
            line += 1;
        }
        Ok(())
    }
}

/// A valid event of a request, with the key and the value of its Kafka record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidEvent<'a> {
    /// The city, which becomes the key of the record.
    pub city: Cow<'a, str>,
    /// The value of the record.
    pub value: Cow<'a, [u8]>,
    /// The id that the client gave the event, if there is one.
    pub event_id: Option<Box<str>>,
}

/// Checks whether an item that arrived at `arrival_ms` is a valid event.
///
/// # Errors
/// Returns a [`Reject`] for the first rule that the item breaks.
pub fn judge<'a>(item: &SubmittedLine<'a>, arrival_ms: UnixMs) -> Result<ValidEvent<'a>, Reject> {
    let reject = match parse_borrowed_event(item.value) {
        Ok(event) => {
            return Ok(ValidEvent {
                city: event.city,
                value: Cow::Borrowed(item.value),
                event_id: event.event_id.map(|id| id.into_owned().into_boxed_str()),
            });
        }
        Err(reject) => reject,
    };
    // The function looks for a missing timestamp only after the parser has rejected the item, so that a valid item is
    // parsed only once.
    let Some(timed) = with_arrival_time(item.value, reject.reason, arrival_ms) else {
        return Err(reject);
    };
    let event = parse_borrowed_event(timed.as_bytes())?;
    Ok(ValidEvent {
        city: Cow::Owned(event.city.into_owned()),
        event_id: event.event_id.map(|id| id.into_owned().into_boxed_str()),
        value: Cow::Owned(timed.into_bytes()),
    })
}

/// Returns the value with the time of arrival in the field `timestamp`, or `None` unless this field is absent or
/// `"now"`.
fn with_arrival_time(value: &[u8], reason: Reason, arrival_ms: UnixMs) -> Option<String> {
    if !matches!(reason, Reason::MissingField | Reason::BadTimestamp) {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let time = format!("\"{}\"", format_millis(arrival_ms));
    match find_member(text, "timestamp") {
        None => append_member(text, "timestamp", &time),
        Some(range) => {
            let given: String = serde_json::from_str(&text[range]).ok()?;
            (given == NOW).then(|| replace_member(text, "timestamp", &time))?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4;

    /// Returns the number and the text of each item.
    fn items(body: &[u8], framing: Framing) -> Result<Vec<(u64, String)>, BodyError> {
        let items = split(body, framing, MAX)?;
        let text = |item: &SubmittedLine<'_>| String::from_utf8_lossy(item.value).into_owned();
        Ok(items.iter().map(|item| (item.line, text(item))).collect())
    }

    #[test]
    fn one_value_an_array_and_lines_are_told_apart() {
        type Case = (&'static [u8], &'static [(u64, &'static str)]);
        let cases: [Case; 13] = [
            (b"{}", &[(1, "{}")]),
            (b"\xef\xbb\xbf {}\r\n\n", &[(1, "{}")]),
            (b"{\n\"a\": 1\n}\n", &[(1, "{\n\"a\": 1\n}")]),
            (b"{broken", &[(1, "{broken")]),
            (b"{}\n{}", &[(1, "{}"), (2, "{}")]),
            (b"\n\r\n{}\r\n\n x\r\n", &[(3, "{}"), (5, " x")]),
            (b"{broken\n{}\n", &[(1, "{broken"), (2, "{}")]),
            (b"7\n\xff\n", &[(1, "7"), (2, "\u{fffd}")]),
            (b"[{}]", &[(1, "{}")]),
            (
                b" [ {\"a\":[1]} ,7,\n\"x\" ] ",
                &[(1, "{\"a\":[1]}"), (2, "7"), (3, "\"x\"")],
            ),
            (b"[[]]", &[(1, "[]")]),
            (b"[1,2,3,4]", &[(1, "1"), (2, "2"), (3, "3"), (4, "4")]),
            (b"1\n2\n3\n4\n", &[(1, "1"), (2, "2"), (3, "3"), (4, "4")]),
        ];
        for (body, want) in cases {
            let want: Vec<_> = want.iter().map(|(n, t)| (*n, (*t).to_owned())).collect();
            assert_eq!(items(body, Framing::Detect), Ok(want), "{body:?}");
        }
    }

    #[test]
    fn lines_are_not_detected_but_declared() {
        let want = vec![(1, "[".to_owned()), (2, "{}".to_owned())];
        assert_eq!(items(b"[\n{}", Framing::Lines), Ok(want));
        let pretty = items(b"{\n}", Framing::Lines).expect("two lines");
        assert_eq!(pretty.len(), 2);
    }

    #[test]
    fn a_body_without_events_and_one_with_too_many_are_refused() {
        for body in [&b""[..], b" \r\n\n", b"\xef\xbb\xbf", b"[]", b" [ ] "] {
            assert_eq!(
                items(body, Framing::Detect),
                Err(BodyError::Empty),
                "{body:?}"
            );
        }
        for body in [&b"[1,2,3,4,5]"[..], b"1\n2\n3\n4\n5", b"[1,2,3,4,5,"] {
            assert_eq!(
                items(body, Framing::Detect),
                Err(BodyError::TooMany),
                "{body:?}"
            );
        }
    }

    #[test]
    fn a_broken_array_is_refused_as_a_whole_and_says_where_it_breaks() {
        for (body, words) in [
            (&b"[{},"[..], "EOF"),
            (b"[{},\n{]", "line 2"),
            (b"[{}] x", "trailing"),
            (b"[\xff]", "line 1"),
        ] {
            match items(body, Framing::Detect) {
                Err(BodyError::BrokenArray(why)) => assert!(why.contains(words), "{why}"),
                other => panic!("{body:?}: {other:?}"),
            }
        }
    }

    const ARRIVAL: UnixMs = UnixMs(1_357_020_000_000);

    fn judged(text: &str) -> Result<(String, String), Reason> {
        let item = SubmittedLine {
            line: 1,
            value: text.as_bytes(),
        };
        match judge(&item, ARRIVAL) {
            Ok(event) => {
                let value = String::from_utf8(event.value.into_owned()).expect("it is valid");
                Ok((event.city.into_owned(), value))
            }
            Err(reject) => Err(reject.reason),
        }
    }

    #[test]
    fn a_valid_event_keeps_its_bytes_and_its_city_is_trimmed() {
        let text = r#" {"city":" NYC ","event_type":"Traffic","severity":"LOW","timestamp":"2013-01-01T06:00:00Z","n":1.0}"#;
        assert_eq!(judged(text), Ok(("NYC".to_owned(), text.to_owned())));
        let with_id = text.replace("\"n\":1.0", r#""event_id":"a\u0062""#);
        let item = SubmittedLine {
            line: 1,
            value: with_id.as_bytes(),
        };
        let event = judge(&item, ARRIVAL).expect("valid");
        assert_eq!(event.event_id.as_deref(), Some("ab"));
        assert!(matches!(event.value, Cow::Borrowed(_)));
    }

    #[test]
    fn only_an_absent_time_and_now_become_the_time_of_arrival() {
        let event = |rest: &str| {
            format!(r#"{{"city":"NYC","event_type":"traffic","severity":"low"{rest}}}"#)
        };
        let timed = event(r#","timestamp":"2013-01-01T06:00:00.000Z""#);
        let want = Ok(("NYC".to_owned(), timed.clone()));
        assert_eq!(judged(&event("")), want);
        assert_eq!(judged(&event(r#","timestamp":"now""#)), want);
        assert_eq!(judged(&event(r#","timestamp":"no\u0077""#)), want);
        let nested = event(r#","timestamp":"now","a":{"timestamp":"now"}"#);
        let kept = timed.replace('}', r#","a":{"timestamp":"now"}}"#);
        assert_eq!(judged(&nested), Ok(("NYC".to_owned(), kept)));
        for (rest, reason) in [
            (r#","timestamp":"Now""#, Reason::BadTimestamp),
            (r#","timestamp":null"#, Reason::BadTimestamp),
            (r#","timestamp":"""#, Reason::BadTimestamp),
            (r#","timestamp":"now","timestamp":"now""#, Reason::NotJson),
            (
                r#","timestamp":"now","description":7"#,
                Reason::BadDescription,
            ),
            (r#","event_id":"""#, Reason::BadEventId),
        ] {
            assert_eq!(judged(&event(rest)), Err(reason), "{rest}");
        }
    }

    #[test]
    fn the_time_of_arrival_does_not_hide_another_broken_rule() {
        for (text, reason) in [
            ("", Reason::Empty),
            ("[]", Reason::NotJson),
            ("{}", Reason::MissingField),
            (
                r#"{"event_type":"traffic","severity":"low"}"#,
                Reason::MissingField,
            ),
            (
                r#"{"city":"a#b","event_type":"traffic","severity":"low"}"#,
                Reason::BadCity,
            ),
            (
                r#"{"city":"NYC","event_type":"traffic","severity":"bad","timestamp":"now"}"#,
                Reason::BadSeverity,
            ),
        ] {
            assert_eq!(judged(text), Err(reason), "{text}");
        }
        // With the added timestamp, the value is larger than a record's value may be.
        let fill = "x".repeat(65_536 - 65);
        let text =
            format!(r#"{{"city":"NYC","event_type":"traffic","severity":"low","a":"{fill}"}}"#);
        assert!(text.len() <= 65_536, "{}", text.len());
        assert_eq!(judged(&text), Err(Reason::TooLarge));
    }
}
