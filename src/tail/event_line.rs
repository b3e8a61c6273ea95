//! One event as a line: a JSON object for programs, or text for people.

use std::io::Write as _;

use crate::core::event::{Event, Offset};
use crate::core::keys::event_id;
use crate::core::time::format_millis;

/// Where an event was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Topic.
    pub(super) topic: &'a str,
    /// Partition.
    pub(super) partition: i32,
    /// Offset.
    pub(super) offset: Offset,
}

/// Appends the event as one JSON object and a line end.
///
/// `{"city","event_type","severity","timestamp","description","event_id"[,"extra"],"partition","offset"}`:
/// the fields after validation, as they are stored; `extra` holds the record's other fields with
/// their values as they stood.
pub(super) fn push_json(out: &mut Vec<u8>, event: &Event, place: Place<'_>) {
    let begin = out.len();
    let id = event_id(event, place.topic, place.partition, place.offset);
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
        // A value may stand on several lines; between tokens a line end means no more than a space,
        // and inside of strings it cannot stand.
        let one_line = extra
            .bytes()
            .map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b });
        out.extend(one_line);
    }
    let Place {
        partition, offset, ..
    } = place;
    let written = writeln!(out, ",\"partition\":{partition},\"offset\":{offset}}}");
    debug_assert!(written.is_ok(), "memory takes any text");
    escape_hidden(out, begin);
}

/// Appends `time  city  type  severity  description` and a line end. Nothing in it can play with the
/// terminal.
pub(super) fn push_text(out: &mut Vec<u8>, event: &Event) {
    let mut line = String::new();
    let head = format!(
        "{}  {:<8}  {:<12}  {:<8}  ",
        format_millis(event.time_ms),
        event.city,
        event.event_type,
        event.severity.name(),
    );
    push_printable(&mut line, &head);
    push_printable(&mut line, &event.description);
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

/// Tells whether a terminal obeys the character instead of showing it: a control character, one that
/// turns the direction of what follows, or one that takes no room. Names that differ by such a one are
/// two cities, so it must be seen. The ranges are Unicode's `Default_Ignorable_Code_Point`.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Puts JSON's own escapes in the place of hidden characters from byte `begin` on. They stand in strings
/// alone: between tokens, JSON has ASCII only.
pub(super) fn escape_hidden(out: &mut Vec<u8>, begin: usize) {
    if out[begin..].iter().all(|byte| *byte < 0x7f) {
        return;
    }
    let text = String::from_utf8_lossy(&out[begin..]).into_owned();
    out.truncate(begin);
    for c in text.chars() {
        if c >= ' ' && is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Appends text with escapes in the place of hidden characters, so that no record can play with the
/// terminal.
pub(super) fn push_printable(out: &mut String, text: &str) {
    for c in text.chars() {
        if is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::parse_event;

    const PLACE: Place<'static> = Place {
        topic: "city-events",
        partition: 2,
        offset: Offset(17),
    };

    fn json(value: &str) -> String {
        let mut out = Vec::new();
        push_json(&mut out, &parse_event(value.as_bytes()).unwrap(), PLACE);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_contracts_fields_and_nothing_else() {
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
    fn json_escapes_what_a_terminal_would_obey_and_says_the_same() {
        let value = "{\"city\":\"N\u{200b}YC\",\"event_type\":\"x\",\"severity\":\"low\",\"timestamp\":\"2013-01-01T06:00:00Z\",\
             \"description\":\"a\u{9b}2J\u{7f}b\u{202e}c\u{e0041}\u{e9}\",\"event_id\":\"e\u{2066}1\",\"k\u{feff}\":\"\u{9d}\"}";
        let line = json(value);
        assert!(line.chars().all(|c| c == '\n' || !is_hidden(c)), "{line:?}");
        let shown: serde_json::Value = serde_json::from_str(&line).unwrap();
        let sent: serde_json::Value = serde_json::from_str(value).unwrap();
        for name in ["city", "description", "event_id"] {
            assert_eq!(shown[name], sent[name], "{name}");
        }
        assert_eq!(shown["extra"]["k\u{feff}"], sent["k\u{feff}"]);
    }

    #[test]
    fn names_that_look_alike_are_shown_apart() {
        for hidden in [
            '\u{200b}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{ad}', '\u{3164}', '\u{fe0f}',
        ] {
            let mut out = String::new();
            push_printable(&mut out, &format!("NYC{hidden}"));
            assert_eq!(out, format!("NYC{}", hidden.escape_unicode()));
        }
        let mut out = String::new();
        push_printable(&mut out, "S\u{e3}o Sa\u{303}o \u{6771}\u{4eac}");
        assert_eq!(out, "S\u{e3}o Sa\u{303}o \u{6771}\u{4eac}");
    }

    #[test]
    fn text_escapes_what_could_play_with_the_terminal() {
        let value = r#"{"city":"NYC","event_type":"traffic","severity":"low","timestamp":"2013-01-01T06:00:00Z","description":"a\u001b[2Jb\nc\u202ed"}"#;
        let mut out = Vec::new();
        push_text(&mut out, &parse_event(value.as_bytes()).unwrap());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2013-01-01T06:00:00.000Z  NYC       traffic       low       a\\u{1b}[2Jb\\nc\\u{202e}d\n"
        );
    }
}
