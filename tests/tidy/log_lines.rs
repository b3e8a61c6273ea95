//! The rules about log lines: lower case, no full stop, no field twice.

use crate::code::{File, blank, is_ident, is_rust, string_len};

/// Names in upper case that a message may begin with.
const NAMES: [&str; 4] = ["Kafka", "DynamoDB", "HTTP", "API"];

/// The keys that every log line has in JSON, next to its fields.
const LOG_KEYS: [&str; 5] = ["timestamp", "level", "message", "span", "spans"];

pub(crate) fn log_text(file: &File) -> Vec<String> {
    if !is_rust(file) || !file.path.starts_with("src/") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for message in log_lines(&file.text).into_iter().flat_map(|l| l.messages) {
        let first = message.split(' ').next().unwrap_or_default();
        if message.starts_with(|c: char| c.is_uppercase()) && !NAMES.contains(&first) {
            complaints.push(format!("logs {message:?}, which begins in upper case"));
        }
        if message.ends_with(['.', '!']) || message.is_empty() {
            complaints.push(format!(
                "logs {message:?}, which ends with a full stop or is empty"
            ));
        }
    }
    complaints
}

pub(crate) fn log_fields(file: &File) -> Vec<String> {
    if !is_rust(file) || !file.path.starts_with("src/") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for LogLine { fields, messages } in log_lines(&file.text) {
        for (n, field) in fields.iter().enumerate() {
            if LOG_KEYS.contains(&field.as_str()) || fields[..n].contains(field) {
                complaints.push(format!("logs {field} twice with {messages:?}"));
            }
        }
    }
    complaints
}

/// The arguments of a logging macro.
#[derive(Default)]
pub(crate) struct LogLine {
    /// String arguments without a field name: normally one.
    pub(crate) messages: Vec<String>,
    fields: Vec<String>,
}

/// Returns all log lines.
pub(crate) fn log_lines(text: &str) -> Vec<LogLine> {
    let code = blank(text);
    let mut lines = Vec::new();
    for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
        for (at, _) in code.match_indices(level) {
            if !code[..at].ends_with("tracing::") && code[..at].ends_with(is_ident) {
                continue;
            }
            let open = at + level.len();
            let (mut depth, mut n, mut start, mut from) = (0, open, true, open);
            let mut line = LogLine::default();
            let bytes = code.as_bytes();
            while n < bytes.len() {
                // `code` has spaces for a string, `text` has the string itself.
                if text.as_bytes()[n] == b'"' {
                    let len = string_len(&text.as_bytes()[n..]);
                    if depth == 0 && start {
                        line.messages.push(text[n + 1..n + len - 1].to_owned());
                    }
                    (n, start) = (n + len, false);
                    continue;
                }
                match bytes[n] {
                    b')' if depth == 0 => break,
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth -= 1,
                    b',' if depth == 0 => {
                        line.fields.extend(field(&code[from..n]));
                        (start, from) = (true, n + 1);
                    }
                    b if !b.is_ascii_whitespace() => start = false,
                    _ => {}
                }
                n += 1;
            }
            line.fields.extend(field(&code[from..n]));
            lines.push(line);
        }
    }
    lines
}

/// Returns the name of the field in an argument of a logging macro, `None` for the message.
fn field(argument: &str) -> Option<String> {
    let name = argument.split('=').next().unwrap_or_default().trim();
    let name = name.trim_start_matches(['%', '?']);
    (!name.is_empty()).then(|| name.to_owned())
}

#[test]
fn the_rules_about_log_lines_can_fail() {
    let rules = |file: &File| [log_text(file), log_fields(file)].concat();
    crate::assert_complaints(
        rules,
        &[
            (
                "src/a.rs",
                "fn f() { tracing::info!(a, b = \"B.\", \"went well\") }\n",
                0,
            ),
            (
                "src/a.rs",
                "fn f() { tracing::info!(a, \"Went well\") }\n",
                1,
            ),
            (
                "src/a.rs",
                "fn f() { debug!(a, message, %c, c = g(a, a), \"went well\") }\n",
                2,
            ),
            (
                "src/a.rs",
                "fn f() { warn!(a = g(1, \"X.\"), \"went well.\") }\n",
                1,
            ),
            (
                "src/a.rs",
                "fn f() { tracing::warn!(\"Kafka is away: {a}\") }\n",
                0,
            ),
        ],
    );
}
