//! Extracts information from a dead letter: why its record was rejected, where the record came from, and what the
//! record contained.
//!
//! In a dead letter, the headers of the rejected record come first, and the headers that the consumer adds come last. A
//! header of the rejected record may have the same name as a header of the consumer. Only the last header named
//! `reason` and the headers after that header are certain to come from the consumer.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::printable::{escape_json, printable};
use crate::core::clock::UnixMs;
use crate::core::time::{format_millis, is_event_time};
use crate::core::window::Rules;
use crate::kafka::reader::Letter;

/// Maximum number of characters that a text line shows of a rejected record's value.
const PREVIEW_CHARS: usize = 120;
/// Maximum length of a reason, in characters. A longer reason is cut, because each reason becomes the name of a row on
/// the screen. Another producer may write dead letters with reasons of any length.
const REASON_CHARS_MAX: usize = 64;
/// Memory that each header needs in addition to its text, in bytes.
const HEADER_BYTES: usize = 64;
/// The headers that contain text, in the order of the JSON output.
const TEXT_HEADERS: [&str; 4] = ["reason", "detail", "source_topic", "source_topic_id"];
/// The headers that contain numbers.
const NUMBER_HEADERS: [&str; 4] = [
    "source_partition",
    "source_offset",
    "source_timestamp",
    "truncated",
];

fn header<'a>(letter: &'a Letter, name: &str) -> Option<&'a str> {
    let added = &letter.headers[own_headers(letter).len()..];
    let found = added.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Returns the headers that the rejected record had before the consumer added its own headers.
pub(super) fn own_headers(letter: &Letter) -> &[(String, String)] {
    let headers = &letter.headers;
    let added = headers.iter().rposition(|(name, _)| name == "reason");
    &headers[..added.unwrap_or(headers.len())]
}

/// Returns the reject reason, shortened to at most 64 characters.
pub(super) fn reason(letter: &Letter) -> &str {
    let reason = header(letter, "reason").unwrap_or("unknown");
    let end = reason.char_indices().nth(REASON_CHARS_MAX);
    end.map_or(reason, |(end, _)| &reason[..end])
}

/// Returns the consumer's detailed explanation of the rejection.
pub(super) fn detail(letter: &Letter) -> &str {
    header(letter, "detail").unwrap_or("?")
}

/// Returns the memory that a dead letter needs, in bytes.
pub(super) fn bytes(letter: &Letter) -> usize {
    let headers = letter.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len() + HEADER_BYTES);
    let [key, value] = [&letter.key, &letter.value].map(|part| part.as_ref().map_or(0, Vec::len));
    headers.sum::<usize>() + key + value
}

/// Returns the timestamp of the rejected record.
pub(super) fn source_ms(letter: &Letter) -> Option<UnixMs> {
    header(letter, "source_timestamp")?.parse().ok().map(UnixMs)
}

/// Returns the time at which the charts show a dead letter.
///
/// Normally, the function returns the timestamp of the rejected record. If the timestamp of the rejected record is
/// missing, invalid or too far in the future, the function returns the timestamp of the dead letter.
pub(super) fn time_ms(letter: &Letter) -> Option<UnixMs> {
    let in_range = |ms: &UnixMs| is_event_time(*ms);
    // A timestamp far in the future would move all other windows out of the chart.
    let is_future = |ms| Rules::default().is_future(ms, letter.record_ms);
    let own = source_ms(letter).filter(in_range);
    let own = own.filter(|ms| !is_future(*ms));
    own.or(letter.record_ms.filter(in_range))
}

/// Returns the topic, partition and offset of the rejected record.
pub(super) fn origin(letter: &Letter) -> [&str; 3] {
    ["source_topic", "source_partition", "source_offset"]
        .map(|name| header(letter, name).unwrap_or("?"))
}

/// Returns the topic id, the partition and the offset of the rejected record, which together identify the record.
pub(super) fn identity(letter: &Letter) -> Option<[&str; 3]> {
    Some([
        header(letter, "source_topic_id")?,
        header(letter, "source_partition")?,
        header(letter, "source_offset")?,
    ])
}

/// Returns the key of the rejected record as text.
pub(super) fn key(letter: &Letter) -> Option<String> {
    letter.key.as_deref().map(lossless_text)
}

/// Returns bytes as text. Each byte that is not UTF-8 becomes an escape such as `\xff`.
fn lossless_text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Returns at most `chars_max` characters of the rejected record's value. If the rejected record has no value, the
/// function returns a note such as `(no value)`.
pub(super) fn content(letter: &Letter, chars_max: usize) -> String {
    if let Some(bytes) = header(letter, "truncated") {
        return format!("(too large to keep, bytes: {bytes})");
    }
    let Some(value) = letter.value.as_deref() else {
        return "(no value)".to_owned();
    };
    if value.is_empty() {
        return "(0 bytes)".to_owned();
    }
    // A character has at most four bytes, so decoding four bytes for each wanted character is enough.
    let head = &value[..value.len().min(chars_max.saturating_mul(4))];
    let text = lossless_text(head);
    let start: String = text.chars().take(chars_max).collect();
    if start.len() < text.len() || head.len() < value.len() {
        start + "…"
    } else {
        start
    }
}

/// Appends a dead letter as one JSON object and a line end:
/// `{"reason","detail","source_topic","source_topic_id","source_partition","source_offset"`
/// `[,"source_timestamp"][,"truncated","sha256"],"key","value","partition","offset"}`.
///
/// The fields `key` and `value` contain strings or null. If the key is not UTF-8, the field `key_base64` replaces the
/// field `key`. If the value is not UTF-8, the field `value_base64` replaces the field `value`.
pub(super) fn push_json(out: &mut Vec<u8>, letter: &Letter) {
    let begin = out.len();
    let texts = TEXT_HEADERS.map(|name| (name, Value::from(header(letter, name))));
    let mut fields = texts.to_vec();
    for name in NUMBER_HEADERS {
        if let Some(number) = header(letter, name).and_then(|text| text.parse::<i64>().ok()) {
            fields.push((name, number.into()));
        }
    }
    if let Some(hash) = header(letter, "sha256") {
        fields.push(("sha256", hash.into()));
    }
    for (name, name_base64, bytes) in [
        ("key", "key_base64", &letter.key),
        ("value", "value_base64", &letter.value),
    ] {
        let bytes = bytes.as_deref();
        fields.push(match bytes.map(str::from_utf8).transpose() {
            Ok(text) => (name, text.into()),
            Err(_) => (name_base64, bytes.map(|b| STANDARD.encode(b)).into()),
        });
    }
    fields.push(("partition", letter.partition.into()));
    fields.push(("offset", letter.offset.0.into()));
    for (at, (name, value)) in fields.iter().enumerate() {
        let before = if at == 0 { '{' } else { ',' };
        let written = write!(out, "{before}\"{name}\":{value}");
        debug_assert!(written.is_ok(), "memory takes any text");
    }
    out.extend_from_slice(b"}\n");
    escape_json(out, begin);
}

/// Appends a dead letter as a text line with the fields `time reason topic/partition/offset detail beginning of the
/// value`.
///
/// The first field, `time`, is the timestamp of the rejected record.
pub(super) fn push_text(out: &mut Vec<u8>, letter: &Letter) {
    let time = source_ms(letter).map_or_else(|| "-".to_owned(), format_millis);
    let line = printable(&format!(
        "{time:<24}  {:<16}  {:<24}  {}  {}",
        reason(letter),
        origin(letter).join("/"),
        detail(letter),
        content(letter, PREVIEW_CHARS)
    ));
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Offset;

    fn letter(headers: &[(&str, &str)], value: Option<&[u8]>) -> Letter {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Letter {
            partition: 0,
            offset: Offset(5),
            record_ms: Some(UnixMs(1_357_020_001_000)),
            headers: headers.iter().map(own).collect(),
            key: Some(b"\xff".to_vec()),
            value: value.map(<[u8]>::to_vec),
        }
    }

    const HEADERS: [(&str, &str); 8] = [
        ("reason", "the record's own header of this name"),
        ("reason", "not_json"),
        ("detail", "expected value\u{1b}[2J"),
        ("source_topic", "city-events"),
        ("source_topic_id", "abc"),
        ("source_partition", "3"),
        ("source_offset", "17"),
        ("source_timestamp", "1357020000000"),
    ];

    #[test]
    fn json_has_the_reason_the_origin_and_the_record() {
        let mut out = Vec::new();
        push_json(&mut out, &letter(&HEADERS, Some(b"{\n")));
        let line = String::from_utf8(out).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"reason":"not_json","detail":"expected value\u001b[2J","source_topic":"city-events","source_topic_id":"abc","#,
                r#""source_partition":3,"source_offset":17,"source_timestamp":1357020000000,"key_base64":"/w==","value":"{\n","#,
                r#""partition":0,"offset":5}"#,
                "\n"
            )
        );
        let mut out = Vec::new();
        let cut = [
            ("reason", "too_large"),
            ("truncated", "9"),
            ("sha256", "0a"),
        ];
        push_json(&mut out, &letter(&cut, None));
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&value["truncated"], &value["sha256"]),
            (&9.into(), &"0a".into())
        );
        assert_eq!(value["value"], Value::Null);
        assert_eq!(value["detail"], Value::Null);
    }

    #[test]
    fn the_headers_of_the_record_itself_do_not_count() {
        let mut headers = vec![("truncated", "9"), ("sha256", "0a"), ("detail", "mine")];
        headers.extend(HEADERS.iter().filter(|(name, _)| *name != "detail"));
        let letter = letter(&headers, Some(b"{\n"));
        let mut out = Vec::new();
        push_json(&mut out, &letter);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["reason"], "not_json");
        assert_eq!(value["detail"], Value::Null);
        assert!(value.get("truncated").is_none() && value.get("sha256").is_none());
        assert_eq!(content(&letter, 10), "{\n");
    }

    #[test]
    fn text_is_one_line_with_escapes() {
        let long = "é\n".repeat(PREVIEW_CHARS);
        for (value, end) in [
            (Some(&b"{\r\n"[..]), "  {\\r\\n\n"),
            (None, "  (no value)\n"),
            (Some(b""), "  (0 bytes)\n"),
            (Some(b"a\xffb\xc3"), "  a\\xffb\\xc3\n"),
            (Some(long.as_bytes()), "é\\n…\n"),
        ] {
            let mut out = Vec::new();
            push_text(&mut out, &letter(&HEADERS, value));
            let line = String::from_utf8(out).unwrap();
            let start = "2013-01-01T06:00:00.000Z  not_json          city-events/3/17          expected value\\u{1b}[2J  ";
            assert!(line.starts_with(start) && line.ends_with(end), "{line:?}");
            assert_eq!(line.matches('\n').count(), 1);
        }
        let mut out = Vec::new();
        push_text(
            &mut out,
            &letter(&[("reason", "too_large"), ("truncated", "70000")], None),
        );
        let line = String::from_utf8(out).unwrap();
        assert!(
            line.starts_with("-  ") && line.contains("too_large"),
            "{line}"
        );
        assert!(
            line.ends_with("(too large to keep, bytes: 70000)\n"),
            "{line}"
        );
    }

    #[test]
    fn a_reason_of_any_length_is_cut_and_every_header_counts_as_memory() {
        let long = "é".repeat(1 << 20);
        let letter = letter(&[("reason", &long), ("reason", &long)], None);
        assert_eq!(reason(&letter), "é".repeat(REASON_CHARS_MAX));
        let mut many = letter;
        many.headers = vec![(String::new(), String::new()); 1_000];
        assert!(bytes(&many) >= 1_000 * size_of::<(String, String)>());
    }
}
