//! Parses the bytes of a record. The result is an event, a heartbeat, or the reason why the record is rejected.
//!
//! The parser returns a result for every input and never panics. The parser checks every part of the value, including
//! unknown fields. The parser rejects a value as `not_json` if any part has one of four flaws: a key that occurs twice
//! in one object, a lone surrogate, a number that overflows a double, or more than 127 levels of nesting. The parser
//! checks the rules in the order of the following table, and rejects the record for the first broken rule:
//!
//! | order | reason | when |
//! |---|---|---|
//! | 1 | `empty` | no value, or 0 bytes |
//! | 2 | `too_large` | more than 65,536 bytes |
//! | 3 | `not_utf8` | the value is not valid UTF-8 |
//! | 4 | `not_json` | not one strict JSON object |
//! | 5 | `missing_field` | city, event_type, severity or timestamp absent |
//! | 6–11 | `bad_…` | the field breaks its rule, for example with `null` or a value of the wrong type |
//!
//! Every change to the results of the parser must also increase [`crate::RULES`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::value::RawValue;

use crate::clock::UnixMs;
use crate::event::{Event, Severity};
use crate::time::parse_timestamp;

/// Maximum size of a record's value in bytes.
pub const VALUE_BYTES_MAX: usize = 65_536;
/// Maximum length of a city in Unicode scalar values, after trimming.
pub const CITY_CHARS_MAX: usize = 64;
/// Maximum length of an event type in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;
/// Maximum length of a description in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// Maximum length of an event id in Unicode scalar values.
pub const EVENT_ID_CHARS_MAX: usize = 128;
/// Maximum depth of nesting in a record's value. The outermost object is level 1.
pub const DEPTH_MAX: usize = 127;
/// The name of the header that turns a record without a value into a heartbeat.
pub const HEARTBEAT_HEADER: &str = "citystream-heartbeat";

/// The reason why a record is rejected. Metrics use the reason as a label, and dead letters contain it in a header.
/// Users depend on the names, so no reason may be renamed or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record has no value, or a value of 0 bytes.
    Empty,
    /// The value has more than [`VALUE_BYTES_MAX`] bytes.
    TooLarge,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not one strict JSON object.
    NotJson,
    /// At least one of the four required fields is missing.
    MissingField,
    /// The city is not a valid name of a city.
    BadCity,
    /// The event type is not a valid name of an event type.
    BadEventType,
    /// The severity is not `low`, `medium`, `high` or `critical`.
    BadSeverity,
    /// The timestamp does not match the grammar of timestamps, or is out of range.
    BadTimestamp,
    /// The description is not a string, or is too long.
    BadDescription,
    /// The event id is not a string, is too long, or contains control characters.
    BadEventId,
    /// The record has more than one heartbeat header, or the header's value is not a number of 1 to 15 digits.
    BadHeartbeat,
    /// DynamoDB refused the raw item or the alert of the event. The counts still include the event.
    RefusedByTable,
}

impl Reason {
    /// All reasons, in the order in which the parser checks the rules.
    pub const ALL: [Reason; 13] = [
        Reason::Empty,
        Reason::TooLarge,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::MissingField,
        Reason::BadCity,
        Reason::BadEventType,
        Reason::BadSeverity,
        Reason::BadTimestamp,
        Reason::BadDescription,
        Reason::BadEventId,
        Reason::BadHeartbeat,
        Reason::RefusedByTable,
    ];

    /// Returns the name of the reason that headers, metrics and messages contain.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::TooLarge => "too_large",
            Reason::NotUtf8 => "not_utf8",
            Reason::NotJson => "not_json",
            Reason::MissingField => "missing_field",
            Reason::BadCity => "bad_city",
            Reason::BadEventType => "bad_event_type",
            Reason::BadSeverity => "bad_severity",
            Reason::BadTimestamp => "bad_timestamp",
            Reason::BadDescription => "bad_description",
            Reason::BadEventId => "bad_event_id",
            Reason::BadHeartbeat => "bad_heartbeat",
            Reason::RefusedByTable => "refused_by_table",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The result of parsing a record that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The first rule that the record breaks.
    pub reason: Reason,
    /// A human-readable sentence with details. The text may change between versions.
    pub detail: String,
}

impl Reject {
    fn new(reason: Reason, detail: impl Into<String>) -> Reject {
        Reject {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// The content of a valid record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A valid event.
    Event(Event),
    /// A heartbeat, which contains only a time that moves the watermark.
    Heartbeat(UnixMs),
}

/// Parses a whole record. If the record has no value, its headers decide whether the record is a heartbeat.
///
/// `headers` must contain the value of each header named [`HEARTBEAT_HEADER`], or `None` for a header with a null
/// value.
///
/// # Errors
/// Returns a [`Reject`] for the first broken rule.
pub fn parse_record<'a>(
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = Option<&'a [u8]>>,
) -> Result<Body, Reject> {
    if let Some(value) = value {
        return parse_event(value).map(Body::Event);
    }
    let mut headers = headers.into_iter();
    let Some(first) = headers.next() else {
        return Err(Reject::new(Reason::Empty, "the record has no value"));
    };
    if headers.next().is_some() {
        return Err(Reject::new(
            Reason::BadHeartbeat,
            format!("more than one header {HEARTBEAT_HEADER}"),
        ));
    }
    parse_heartbeat(first).map(Body::Heartbeat).ok_or_else(|| {
        Reject::new(
            Reason::BadHeartbeat,
            format!("header {HEARTBEAT_HEADER} is not a number of 1 to 15 digits"),
        )
    })
}

fn parse_heartbeat(value: Option<&[u8]>) -> Option<UnixMs> {
    let digits = value?;
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(UnixMs)
}

/// A parsed event whose texts are borrowed from the record, except for texts with escape sequences.
#[derive(Debug)]
pub struct BorrowedEvent<'a> {
    /// The city of the event, as in [`Event::city`].
    pub city: Cow<'a, str>,
    /// The time of the event, as in [`Event::time_ms`].
    pub time_ms: UnixMs,
    /// The id that the producer gave the event, as in [`Event::event_id`].
    pub event_id: Option<Cow<'a, str>>,
    event_type: Cow<'a, str>,
    severity: Severity,
    description: Cow<'a, str>,
    extra: String,
}

impl From<BorrowedEvent<'_>> for Event {
    fn from(event: BorrowedEvent<'_>) -> Event {
        Event {
            city: event.city.into(),
            event_type: event.event_type.into(),
            severity: event.severity,
            time_ms: event.time_ms,
            description: event.description.into(),
            event_id: event.event_id.map(Into::into),
            extra: (!event.extra.is_empty()).then(|| (event.extra + "}").into_boxed_str()),
        }
    }
}

/// Parses the value of a record, or one line of NDJSON.
///
/// # Errors
/// Returns a [`Reject`] for the first broken rule.
pub fn parse_event(value: &[u8]) -> Result<Event, Reject> {
    parse_borrowed_event(value).map(Event::from)
}

/// Works like [`parse_event`], but does not copy the texts. For callers that forward the value unchanged and need only
/// a few fields.
///
/// # Errors
/// Returns a [`Reject`] for the first broken rule.
pub fn parse_borrowed_event(value: &[u8]) -> Result<BorrowedEvent<'_>, Reject> {
    if value.is_empty() {
        return Err(Reject::new(Reason::Empty, "the value has 0 bytes"));
    }
    if value.len() > VALUE_BYTES_MAX {
        let detail = format!("{} bytes, at most {VALUE_BYTES_MAX}", value.len());
        return Err(Reject::new(Reason::TooLarge, detail));
    }
    let text = std::str::from_utf8(value).map_err(|e| {
        Reject::new(
            Reason::NotUtf8,
            format!("invalid UTF-8 at byte {}", e.valid_up_to()),
        )
    })?;
    let fields = walk(text).map_err(|e| Reject::new(Reason::NotJson, detail(&e)))?;
    fields.into_event()
}

/// Returns the error message of serde_json. The function removes the line number 1 from the message, because a reader
/// of the log could mistake it for a line of a file.
fn detail(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} at column {column}"),
        None => text,
    }
}

/// The value of a known field: its text, or an error if the value is not a string.
type Field<'a> = Option<Result<Cow<'a, str>, ()>>;

#[derive(Default)]
struct Fields<'a> {
    city: Field<'a>,
    event_type: Field<'a>,
    severity: Field<'a>,
    timestamp: Field<'a>,
    description: Field<'a>,
    event_id: Field<'a>,
    extra: String,
}

impl<'a> Fields<'a> {
    fn into_event(self) -> Result<BorrowedEvent<'a>, Reject> {
        let need = |field: &Field<'_>, name: &str| match field {
            Some(_) => Ok(()),
            None => Err(Reject::new(Reason::MissingField, format!("no {name}"))),
        };
        need(&self.city, "city")?;
        need(&self.event_type, "event_type")?;
        need(&self.severity, "severity")?;
        need(&self.timestamp, "timestamp")?;

        let city = field_text(self.city, Reason::BadCity)?.unwrap_or_default();
        let city = match city {
            Cow::Borrowed(city) => Cow::Borrowed(trim(city)),
            Cow::Owned(city) => Cow::Owned(trim(&city).to_owned()),
        };
        check_city(&city)?;
        let event_type = field_text(self.event_type, Reason::BadEventType)?.unwrap_or_default();
        let event_type = lower_case(event_type);
        if !is_event_type(&event_type) {
            let detail = format!("{} is not [a-z][a-z0-9_-]{{0,63}}", quoted(&event_type));
            return Err(Reject::new(Reason::BadEventType, detail));
        }
        let name = field_text(self.severity, Reason::BadSeverity)?.unwrap_or_default();
        let Some(severity) = Severity::from_name(&lower_case(Cow::Borrowed(&name))) else {
            let detail = format!("{} is not low, medium, high or critical", quoted(&name));
            return Err(Reject::new(Reason::BadSeverity, detail));
        };
        let time = field_text(self.timestamp, Reason::BadTimestamp)?.unwrap_or_default();
        let Some(time_ms) = parse_timestamp(&time) else {
            let detail = format!(
                "{} is not YYYY-MM-DDThh:mm:ss[.fff](Z or ±hh:mm) within 1970 to 9998 UTC",
                quoted(&time)
            );
            return Err(Reject::new(Reason::BadTimestamp, detail));
        };
        let description = field_text(self.description, Reason::BadDescription)?.unwrap_or_default();
        if description.len() > DESCRIPTION_BYTES_MAX {
            let detail = format!(
                "{} bytes, at most {DESCRIPTION_BYTES_MAX}",
                description.len()
            );
            return Err(Reject::new(Reason::BadDescription, detail));
        }
        let event_id = field_text(self.event_id, Reason::BadEventId)?;
        if let Some(id) = &event_id {
            check_event_id(id)?;
        }
        Ok(BorrowedEvent {
            city,
            time_ms,
            event_type,
            severity,
            description,
            event_id,
            extra: self.extra,
        })
    }
}

fn field_text(field: Field<'_>, reason: Reason) -> Result<Option<Cow<'_, str>>, Reject> {
    match field {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(())) => Err(Reject::new(reason, "not a string")),
    }
}

fn lower_case(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text
    }
}

/// Removes the characters U+0009, U+000A, U+000C, U+000D and U+0020 from both ends of a text.
pub fn trim(text: &str) -> &str {
    text.trim_matches(['\t', '\n', '\u{c}', '\r', ' '])
}

fn check_city(city: &str) -> Result<(), Reject> {
    let chars = city.chars().count();
    let detail = if chars == 0 {
        "empty".to_owned()
    } else if chars > CITY_CHARS_MAX {
        format!("{chars} characters, at most {CITY_CHARS_MAX}")
    } else if city.chars().any(is_control) {
        "has a control character".to_owned()
    } else if city.contains('#') {
        "has a #".to_owned()
    } else {
        return Ok(());
    };
    Err(Reject::new(Reason::BadCity, detail))
}

/// Returns true if `text` can be the city of an event: 1 to 64 characters, without control characters and `#`. The
/// caller must first remove white space at both ends with [`trim`].
pub fn is_city(text: &str) -> bool {
    check_city(text).is_ok()
}

fn check_event_id(id: &str) -> Result<(), Reject> {
    let chars = id.chars().count();
    let detail = if chars == 0 {
        "empty".to_owned()
    } else if chars > EVENT_ID_CHARS_MAX {
        format!("{chars} characters, at most {EVENT_ID_CHARS_MAX}")
    } else if id.chars().any(is_control) {
        "has a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Reject::new(Reason::BadEventId, detail))
}

/// Returns true if `text` can be an event type, which must match `[a-z][a-z0-9_-]{0,63}`.
pub fn is_event_type(text: &str) -> bool {
    let b = text.as_bytes();
    (1..=EVENT_TYPE_BYTES_MAX).contains(&b.len())
        && b[0].is_ascii_lowercase()
        && b.iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-'))
}

/// Returns true for the characters U+0000 to U+001F and U+007F to U+009F.
fn is_control(c: char) -> bool {
    c.is_control()
}

/// Returns the text in quotes, cut to 64 characters so that it fits into a header or a log line.
pub fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    if cut.len() < text.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}

/// Parses the text as one JSON object. Returns the known fields, and the raw text of all other fields.
fn walk(text: &str) -> Result<Fields<'_>, serde_json::Error> {
    use serde::Deserializer as _;
    let mut de = serde_json::Deserializer::from_str(text);
    let fields = de.deserialize_map(RecordVisitor)?;
    de.end()?;
    Ok(fields)
}

struct RecordVisitor;

impl<'de> serde::de::Visitor<'de> for RecordVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        use serde::de::Error as _;
        let mut fields = Fields::default();
        let mut other_keys = BTreeSet::new();
        while let Some(ObjectKey(key)) = map.next_key()? {
            let field = match &*key {
                "city" => &mut fields.city,
                "event_type" => &mut fields.event_type,
                "severity" => &mut fields.severity,
                "timestamp" => &mut fields.timestamp,
                "description" => &mut fields.description,
                "event_id" => &mut fields.event_id,
                _ => {
                    let raw: &RawValue = map.next_value()?;
                    check_value(raw.get()).map_err(A::Error::custom)?;
                    fields
                        .extra
                        .push(if fields.extra.is_empty() { '{' } else { ',' });
                    let name = serde_json::to_string(&*key).map_err(A::Error::custom)?;
                    fields.extra.push_str(&name);
                    fields.extra.push(':');
                    fields.extra.push_str(raw.get());
                    if !other_keys.insert(key) {
                        return Err(A::Error::custom("a key occurs twice"));
                    }
                    continue;
                }
            };
            if field.is_some() {
                return Err(A::Error::custom(format!("key {key} occurs twice")));
            }
            *field = Some(map.next_value_seed(PathWalk { depth: 1 })?.ok_or(()));
        }
        Ok(fields)
    }
}

/// Checks that the raw text of a field is strict JSON. The check does not change the raw text.
fn check_value(text: &str) -> Result<(), serde_json::Error> {
    use serde::de::DeserializeSeed as _;
    let mut de = serde_json::Deserializer::from_str(text);
    PathWalk { depth: 1 }.deserialize(&mut de)?;
    de.end()
}

/// The key of a field in an object. The key is borrowed from the text if it contains no escapes.
struct ObjectKey<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for ObjectKey<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<ObjectKey<'de>, D::Error> {
        struct KeyVisitor;
        impl<'de> serde::de::Visitor<'de> for KeyVisitor {
            type Value = ObjectKey<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<ObjectKey<'de>, E> {
                Ok(ObjectKey(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<ObjectKey<'de>, E> {
                Ok(ObjectKey(Cow::Owned(v.to_owned())))
            }
        }
        de.deserialize_str(KeyVisitor)
    }
}

/// A check of one JSON value at the nesting level `depth`. The check returns the text of the value if the value is a
/// string.
#[derive(Clone, Copy)]
struct PathWalk {
    depth: usize,
}

impl PathWalk {
    fn deeper<E: serde::de::Error>(self) -> Result<PathWalk, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("more than {DEPTH_MAX} levels")));
        }
        Ok(PathWalk {
            depth: self.depth + 1,
        })
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for PathWalk {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for PathWalk {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(v.to_owned())))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::Error as _;
        let inner = self.deeper()?;
        let mut keys = BTreeSet::new();
        while let Some(ObjectKey(key)) = map.next_key()? {
            map.next_value_seed(inner)?;
            if !keys.insert(key) {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
