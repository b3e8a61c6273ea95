//! Formats one event as a line: as a JSON object for programs, or as text for people.

use std::io::Write as _;

use super::printable::{escape_json, printable};
use crate::core::event::{Event, Offset};
use crate::core::keys::event_id;
use crate::core::time::format_millis;

/// The topic, partition and offset of an event's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordOrigin<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: Offset,
}

/// Appends the event as one JSON object and a line end.
///
/// The object is
/// `{"city","event_type","severity","timestamp","description","event_id"[,"extra"],"partition","offset"}`. The fields
/// contain the validated values, which are also the values that DynamoDB stores. The field `extra` contains all other
/// fields of the record with their values unchanged.
pub(super) fn push_json(out: &mut Vec<u8>, event: &Event, origin: RecordOrigin<'_>) {
    let begin = out.len();
    let id = event_id(event, origin.topic, origin.partition, origin.offset);
    let time = format_millis(event.time_ms);
    for (name, value) in [
        ("{\"city\":", &*event.city),
        (",\"event_type\":", &event.event_type),
        (",\"severity\":", event.severity.name()),
        (",\"timestamp\":", &time),
        (",\"description\":", &event.description),
        (",\"event_id\":", &id),
    ] {
        out.extend_from_slice(name.as_bytes());
        let written = serde_json::to_writer(&mut *out, value);
        debug_assert!(written.is_ok(), "memory takes any text");
    }
    if let Some(extra) = &event.extra {
        out.extend_from_slice(b",\"extra\":");
        // The sender's JSON may contain line ends. Valid JSON has line ends only between tokens, where a space means
        // the same.
        let is_line_end = |b| matches!(b, b'\n' | b'\r');
        out.extend(extra.bytes().map(|b| if is_line_end(b) { b' ' } else { b }));
    }
    let (partition, offset) = (origin.partition, origin.offset);
    let written = writeln!(out, ",\"partition\":{partition},\"offset\":{offset}}}");
    debug_assert!(written.is_ok(), "memory takes any text");
    escape_json(out, begin);
}

/// Appends an event as a text line with the fields `time city type severity description`.
pub(super) fn push_text(out: &mut Vec<u8>, event: &Event) {
    let line = printable(&format!(
        "{}  {:<8}  {:<12}  {:<8}  {}",
        format_millis(event.time_ms),
        event.city,
        event.event_type,
        event.severity.name(),
        event.description
    ));
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::parse_event;

    const ORIGIN: RecordOrigin<'static> = RecordOrigin {
        topic: "city-events",
        partition: 2,
        offset: Offset(17),
    };

    fn json(value: &str) -> String {
        let mut out = Vec::new();
        push_json(&mut out, &parse_event(value.as_bytes()).unwrap(), ORIGIN);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_documented_fields_and_no_others() {
        assert_eq!(
            json(
                r#"{"timestamp":"2013-01-01 07:00:00+01:00","city":" NYC ","event_type":"Traffic","severity":"HIGH"}"#
            ),
            concat!(
                r#"{"city":"NYC","event_type":"traffic","severity":"high","timestamp":"2013-01-01T06:00:00.000Z","#,
                r#""description":"","event_id":"city-events-2-17","partition":2,"offset":17}"#,
                "\n"
            )
        );
        let line = json(
            "{\"city\":\"S\u{e3}o \\\"P\\\"\",\"event_type\":\"x\",\"severity\":\"low\",\"timestamp\":\"2013-01-01T06:00:00Z\",\
             \"description\":\"a\\nb\",\"event_id\":\"e1\",\"n\":1.00,\"o\":{\r\n\"p\":[1,\n2]}}",
        );
        assert!(line.ends_with("\"event_id\":\"e1\",\"extra\":{\"n\":1.00,\"o\":{  \"p\":[1, 2]}},\"partition\":2,\"offset\":17}\n"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["city"], "S\u{e3}o \"P\"");
    }

    #[test]
    fn json_escapes_hidden_characters_without_changing_the_values() {
        let value = "{\"city\":\"N\u{200b}YC\",\"event_type\":\"x\",\"severity\":\"low\",\"timestamp\":\"2013-01-01T06:00:00Z\",\
             \"description\":\"a\u{9b}2J\u{7f}b\u{202e}c\u{e0041}\u{e9}\",\"event_id\":\"e\u{2066}1\",\"k\u{feff}\":\"\u{9d}\"}";
        let line = json(value);
        assert_eq!(printable(line.trim_end()), line.trim_end());
        let shown: serde_json::Value = serde_json::from_str(&line).unwrap();
        let sent: serde_json::Value = serde_json::from_str(value).unwrap();
        for name in ["city", "description", "event_id"] {
            assert_eq!(shown[name], sent[name], "{name}");
        }
        assert_eq!(shown["extra"]["k\u{feff}"], sent["k\u{feff}"]);
    }

    #[test]
    fn text_escapes_hidden_characters() {
        let value = r#"{"city":"NYC","event_type":"traffic","severity":"low","timestamp":"2013-01-01T06:00:00Z","description":"a\u001b[2Jb\nc\u202ed"}"#;
        let mut out = Vec::new();
        push_text(&mut out, &parse_event(value.as_bytes()).unwrap());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2013-01-01T06:00:00.000Z  NYC       traffic       low       a\\u{1b}[2Jb\\nc\\u{202e}d\n"
        );
    }
}
