//! Rejected records of the dead-letter topic: why each was rejected, where it came from, and what it
//! was, as lines or as counts by reason.
//!
//! The reason and the origin stand in headers behind the record's own, so the last of a name counts.

use std::collections::BTreeMap;
use std::io::Write as _;

use base64::Engine as _;
use serde_json::Value;

use super::line::push_printable;
use crate::core::time::format_millis;
use crate::kafka::reader::Letter;

/// Most different reasons that are counted apart; more are somebody else's topic.
const REASONS_MAX: usize = 100;
/// How the original's beginning is cut on a line for people, in characters.
const PREVIEW_CHARS: usize = 120;
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
    let found = letter.headers.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Returns why a record was rejected.
fn reason(letter: &Letter) -> &str {
    header(letter, "reason").unwrap_or("unknown")
}

/// Appends a letter as one JSON object and a line end:
/// `{"reason","detail","source_topic","source_topic_id","source_partition","source_offset"`
/// `[,"source_timestamp"][,"truncated","sha256"],"key","value","partition","offset"}`.
///
/// Key and value are text, or null; where they are no UTF-8 they stand as `key_base64` and
/// `value_base64`.
pub(super) fn push_json(out: &mut Vec<u8>, letter: &Letter) {
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
}

/// Appends `time  reason  topic/partition/offset  detail: beginning of the value` and a line end.
/// The time is the record's own.
pub(super) fn push_text(out: &mut Vec<u8>, letter: &Letter) {
    let of = |name: &str| header(letter, name).unwrap_or("?");
    let time = header(letter, "source_timestamp").and_then(|text| text.parse().ok());
    let time = time.map_or_else(|| "-".to_owned(), format_millis);
    let origin = format!(
        "{}/{}/{}",
        of("source_topic"),
        of("source_partition"),
        of("source_offset")
    );
    let written = write!(out, "{time:<24}  ");
    debug_assert!(written.is_ok(), "memory takes any text");
    let mut line = String::new();
    push_printable(
        &mut line,
        &format!("{:<16}  {origin:<24}  ", reason(letter)),
    );
    push_printable(&mut line, of("detail"));
    let value = letter.value.as_deref().map(String::from_utf8_lossy);
    match (value, header(letter, "truncated")) {
        (_, Some(bytes)) => {
            line.push_str("  (too large to keep, bytes: ");
            push_printable(&mut line, bytes);
            line.push(')');
        }
        (None, None) => line.push_str("  (no value)"),
        (Some(value), None) => {
            line.push_str("  ");
            let mut chars = value.chars();
            let start: String = chars.by_ref().take(PREVIEW_CHARS).collect();
            push_printable(&mut line, &start);
            if chars.next().is_some() {
                line.push('…');
            }
        }
    }
    out.extend_from_slice(line.trim_end().as_bytes());
    out.push(b'\n');
}

/// Letters counted by reason.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    counts: BTreeMap<String, u64>,
    /// All letters.
    pub(super) sum: u64,
}

impl Reasons {
    /// Counts a letter.
    pub(super) fn add(&mut self, letter: &Letter) {
        self.sum += 1;
        let reason = reason(letter);
        if let Some(count) = self.counts.get_mut(reason) {
            *count += 1;
        } else if self.counts.len() < REASONS_MAX {
            self.counts.insert(reason.to_owned(), 1);
        }
    }

    /// Returns a line per reason, the most frequent first, then the sum.
    pub(super) fn table(&self) -> String {
        let mut rows: Vec<(&str, u64)> =
            self.counts.iter().map(|(r, n)| (r.as_str(), *n)).collect();
        rows.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        rows.push(("all", self.sum));
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
        text
    }
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
    fn text_is_one_harmless_line() {
        let long = "é\n".repeat(PREVIEW_CHARS);
        for (value, end) in [
            (Some(&b"{\r\n"[..]), "  {\\r\\n\n"),
            (None, "  (no value)\n"),
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
        push_text(&mut out, &letter(&[("truncated", "70000")], None));
        let line = String::from_utf8(out).unwrap();
        assert!(
            line.starts_with("-  ") && line.contains("unknown"),
            "{line}"
        );
        assert!(
            line.ends_with("(too large to keep, bytes: 70000)\n"),
            "{line}"
        );
    }

    #[test]
    fn the_table_counts_by_reason() {
        let mut reasons = Reasons::default();
        for reason in ["bad_city", "not_json", "not_json"] {
            reasons.add(&letter(&[("reason", reason)], None));
        }
        let want =
            "reason     records\nnot_json         2\nbad_city         1\nall              3\n";
        assert_eq!(reasons.table(), want);
        for n in 0..2 * REASONS_MAX {
            reasons.add(&letter(&[("reason", &n.to_string())], None));
        }
        assert_eq!(reasons.counts.len(), REASONS_MAX);
        assert_eq!(reasons.sum, 203);
    }
}
