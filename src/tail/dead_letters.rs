//! Rejected records of the dead-letter topic: why each was rejected, where it came from, and what it
//! was, as lines or as counts by reason.
//!
//! The reason and the origin stand in headers after the record's own, which may have the same names: only
//! the last `reason` and what follows it count.

use std::io::Write as _;

use base64::Engine as _;
use indicatif::HumanCount;
use serde_json::Value;

use super::counts::Counts;
use super::event_line::{escape_hidden, push_printable};
use crate::core::time::{TIME_MS_END, format_millis};
use crate::core::window::Rules;
use crate::kafka::reader::Letter;

/// How the original's beginning is cut on a line for people, in characters.
const PREVIEW_CHARS: usize = 120;
/// Most characters of a reason, which names a row: another producer's may be of any length.
const REASON_CHARS_MAX: usize = 64;
/// What a header takes in memory beside its text.
const HEADER_BYTES: usize = 64;
/// A letter's headers that hold text, in the order of the output.
const TEXTS: [&str; 4] = ["reason", "detail", "source_topic", "source_topic_id"];
/// And those that hold numbers.
const NUMBERS: [&str; 4] = [
    "source_partition",
    "source_offset",
    "source_timestamp",
    "truncated",
];

fn header<'a>(letter: &'a Letter, name: &str) -> Option<&'a str> {
    let ours = &letter.headers[own_headers(letter).len()..];
    let found = ours.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Returns why a record was rejected, in [`REASON_CHARS_MAX`] characters at most.
pub(super) fn reason(letter: &Letter) -> &str {
    let reason = header(letter, "reason").unwrap_or("unknown");
    let end = reason.char_indices().nth(REASON_CHARS_MAX);
    end.map_or(reason, |(end, _)| &reason[..end])
}

/// Returns how much memory a letter takes, in bytes.
pub(super) fn bytes(letter: &Letter) -> usize {
    let headers = letter
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + HEADER_BYTES);
    let [key, value] = [&letter.key, &letter.value].map(|part| part.as_ref().map_or(0, Vec::len));
    headers.sum::<usize>() + key + value
}

/// Returns what exactly was wrong.
pub(super) fn detail(letter: &Letter) -> &str {
    header(letter, "detail").unwrap_or("?")
}

/// Returns the record's own timestamp in Unix milliseconds.
pub(super) fn source_ms(letter: &Letter) -> Option<i64> {
    header(letter, "source_timestamp")?.parse().ok()
}

/// Returns the time by which a letter is shown among others, in Unix milliseconds: the record's own,
/// or else that of its rejection.
pub(super) fn time_ms(letter: &Letter) -> Option<i64> {
    let rules = Rules::default();
    let of_an_event = |ms: &i64| (0..TIME_MS_END).contains(ms);
    let own = source_ms(letter).filter(of_an_event);
    // One that is far ahead would push all others out of sight.
    let own = own.filter(|ms| !rules.is_future(*ms, letter.record_ms));
    own.or(letter.record_ms.filter(of_an_event))
}

/// Returns the record's topic, partition and offset.
pub(super) fn origin(letter: &Letter) -> [&str; 3] {
    ["source_topic", "source_partition", "source_offset"]
        .map(|name| header(letter, name).unwrap_or("?"))
}

/// Returns what tells the record from all others: its topic's id, its partition and its offset.
pub(super) fn identity(letter: &Letter) -> Option<[&str; 3]> {
    let [topic_id, partition, offset] = ["source_topic_id", "source_partition", "source_offset"];
    Some([
        header(letter, topic_id)?,
        header(letter, partition)?,
        header(letter, offset)?,
    ])
}

/// Returns the headers that the record came with.
pub(super) fn own_headers(letter: &Letter) -> &[(String, String)] {
    let ours = letter
        .headers
        .iter()
        .rposition(|(name, _)| name == "reason");
    &letter.headers[..ours.unwrap_or(letter.headers.len())]
}

/// Returns the record's key.
pub(super) fn key(letter: &Letter) -> Option<String> {
    letter.key.as_deref().map(text)
}

/// Returns bytes as text, with `\xff` in the place of what is no UTF-8.
fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Returns at most `chars_max` characters of the record's value, or why there is none.
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
    // A character takes four bytes at most, so no more need be looked at.
    let head = &value[..value.len().min(chars_max.saturating_mul(4))];
    let text = text(head);
    let start: String = text.chars().take(chars_max).collect();
    if start.len() < text.len() || head.len() < value.len() {
        start + "…"
    } else {
        start
    }
}

/// Appends a letter as one JSON object and a line end:
/// `{"reason","detail","source_topic","source_topic_id","source_partition","source_offset"`
/// `[,"source_timestamp"][,"truncated","sha256"],"key","value","partition","offset"}`.
///
/// Key and value are text, or null; where they are no UTF-8 they stand as `key_base64` and
/// `value_base64`.
pub(super) fn push_json(out: &mut Vec<u8>, letter: &Letter) {
    let begin = out.len();
    let mut fields: Vec<(String, Value)> = Vec::new();
    for name in TEXTS {
        fields.push((name.to_owned(), header(letter, name).into()));
    }
    for name in NUMBERS {
        if let Some(number) = header(letter, name).and_then(|text| text.parse::<i64>().ok()) {
            fields.push((name.to_owned(), number.into()));
        }
    }
    if let Some(hash) = header(letter, "sha256") {
        fields.push(("sha256".to_owned(), hash.into()));
    }
    for (name, bytes) in [("key", &letter.key), ("value", &letter.value)] {
        fields.push(match bytes.as_deref().map(str::from_utf8) {
            None => (name.to_owned(), Value::Null),
            Some(Ok(text)) => (name.to_owned(), text.into()),
            Some(Err(_)) => {
                let base64 = base64::engine::general_purpose::STANDARD;
                let text = base64.encode(bytes.as_deref().unwrap_or_default());
                (format!("{name}_base64"), text.into())
            }
        });
    }
    fields.push(("partition".to_owned(), letter.partition.into()));
    fields.push(("offset".to_owned(), letter.offset.0.into()));
    for (at, (name, value)) in fields.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        let written = serde_json::to_writer(&mut *out, value);
        debug_assert!(written.is_ok(), "memory takes any text");
    }
    out.extend_from_slice(b"}\n");
    escape_hidden(out, begin);
}

/// Appends `time  reason  topic/partition/offset  detail: beginning of the value` and a line end.
/// The time is the record's own.
pub(super) fn push_text(out: &mut Vec<u8>, letter: &Letter) {
    let time = source_ms(letter).map_or_else(|| "-".to_owned(), format_millis);
    let origin = origin(letter).join("/");
    let written = write!(out, "{time:<24}  ");
    debug_assert!(written.is_ok(), "memory takes any text");
    let mut line = String::new();
    push_printable(
        &mut line,
        &format!("{:<16}  {origin:<24}  ", reason(letter)),
    );
    push_printable(&mut line, detail(letter));
    line.push_str("  ");
    push_printable(&mut line, &content(letter, PREVIEW_CHARS));
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

/// Returns a line per reason, the most frequent first, then the sum, then how many letters were repeats.
pub(super) fn table(counts: &Counts) -> String {
    let rows = counts.rows();
    let mut rows: Vec<(&str, u64)> = rows.map(|(reason, _, row)| (reason, row.total())).collect();
    rows.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    rows.push(("all", counts.sum.total()));
    let width = rows.iter().map(|(r, _)| r.chars().count()).max();
    let width = width.unwrap_or(0).max("reason".len());
    let mut text = String::new();
    push_printable(
        &mut text,
        &format!("{:<width$}  {:>8}", "reason", "records"),
    );
    text.push('\n');
    for (reason, count) in rows {
        push_printable(&mut text, &format!("{reason:<width$}  {count:>8}"));
        text.push('\n');
    }
    if counts.repeat_count > 0 {
        text.push_str(&repeats(counts));
        text.push('\n');
    }
    text
}

/// Returns how many letters were about records that other letters are about.
pub(super) fn repeats(counts: &Counts) -> String {
    let count = HumanCount(counts.repeat_count);
    format!("rejected again after a restart: {count}")
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
            record_ms: Some(1_357_020_001_000),
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
    fn json_says_why_where_and_what() {
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
    fn headers_that_the_record_came_with_say_nothing_about_it() {
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
    fn text_is_one_harmless_line() {
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
    fn a_letter_of_any_producer_takes_little_beside_what_is_counted() {
        let long = "é".repeat(1 << 20);
        let letter = letter(&[("reason", &long), ("reason", &long)], None);
        assert_eq!(reason(&letter), "é".repeat(REASON_CHARS_MAX));
        let mut counts = Counts::default();
        counts.add_letter(&letter);
        assert!(table(&counts).len() < 1_000);
        let mut many = letter;
        many.headers = vec![(String::new(), String::new()); 1_000];
        assert!(bytes(&many) >= 1_000 * size_of::<(String, String)>());
    }

    #[test]
    fn the_table_counts_by_reason() {
        let mut counts = Counts::default();
        for reason in ["bad_city", "not_json", "not_json"] {
            counts.add_letter(&letter(&[("reason", reason)], None));
        }
        let want =
            "reason     records\nnot_json         2\nbad_city         1\nall              3\n";
        assert_eq!(table(&counts), want);
    }

    #[test]
    fn a_record_that_was_rejected_twice_is_counted_once() {
        let mut counts = Counts::default();
        let at = |offset| {
            let source = [("source_topic_id", "T"), ("source_partition", "3")];
            let mut headers = vec![("reason", "not_json")];
            headers.extend(source);
            headers.push(("source_offset", offset));
            letter(&headers, None)
        };
        for offset in ["17", "18", "17", "17"] {
            counts.add_letter(&at(offset));
        }
        let want = "reason     records\nnot_json         2\nall              2\nrejected again after a restart: 2\n";
        assert_eq!(table(&counts), want);
    }
}
