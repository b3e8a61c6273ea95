//! Reads the sections of a TOML file, and notes each mistake with its line and column.

use std::fmt;
use std::ops::Range;

use toml_edit::{Item, Table};

use crate::settings::{nearest, parse_duration_ms};

/// Minimum duration that the rules file may contain.
pub(super) const DURATION_MS_MIN: i64 = 1_000;
/// Maximum duration that the rules file may contain: 30 days.
pub(super) const DURATION_MS_MAX: i64 = 30 * 24 * 3_600_000;
/// Maximum length of the name of a rule or a receiver, in bytes. Sort keys and metric labels contain the names of rules
/// and receivers.
const NAME_BYTES_MAX: usize = 64;

/// A mistake in the rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line of the mistake, counted from 1.
    pub line: usize,
    /// The column of the mistake in characters, counted from 1.
    pub column: usize,
    /// A description of the mistake.
    pub what: String,
    /// The correction that the user should make.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake {
            line,
            column,
            what,
            remedy,
        } = self;
        write!(f, "{line}:{column}: {what}; {remedy}")
    }
}

/// A value together with its position in the rules file.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Option<Range<usize>>,
}

/// One `[[rule]]` or `[[receiver]]` section of the rules file.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) table: &'a Table,
    /// The kind of the section, `rule` or `receiver`.
    pub(super) kind: &'static str,
}

impl<'a> Section<'a> {
    pub(super) fn has(self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns the position of a key, or the position of the section if the section does not contain the key.
    pub(super) fn key_span(self, key: &str) -> Option<Range<usize>> {
        let key = self.table.key(key).and_then(toml_edit::Key::span);
        key.or_else(|| self.table.span())
    }

    fn item(self, key: &str) -> Option<&'a Item> {
        self.table.get(key)
    }
}

/// Collects the mistakes while the rules file is read.
pub(super) struct Notes<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Notes<'t> {
        Notes {
            text,
            mistakes: Vec::new(),
        }
    }

    /// Returns the mistakes in the order of the rules file.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|m| (m.line, m.column));
        self.mistakes
    }

    pub(super) fn line(&self, span: Option<&Range<usize>>) -> usize {
        self.place(span).0
    }

    fn place(&self, span: Option<&Range<usize>>) -> (usize, usize) {
        let start = span.map_or(0, |span| span.start);
        let before = self.text.get(..start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    pub(super) fn note(
        &mut self,
        span: Option<&Range<usize>>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (line, column) = self.place(span);
        self.mistakes.push(Mistake {
            line,
            column,
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    /// Notes a mistake for a required key that is missing in a section.
    pub(super) fn note_missing(&mut self, section: Section<'_>, key: &str, example: &str) {
        let what = format!("[[{}]] has no {key}", section.kind);
        self.note(
            section.table.span().as_ref(),
            what,
            format!("add {key} = {example}"),
        );
    }

    /// Notes a mistake for each key of the section that is not in the list `known`.
    pub(super) fn unknown_keys(&mut self, section: Section<'_>, known: &[&str]) {
        for (key, _) in section.table {
            if !known.contains(&key) {
                let span = section.key_span(key);
                let what = format!("[[{}]] has no key {key:?}", section.kind);
                self.note(
                    span.as_ref(),
                    what,
                    remedy_for(key, known.iter().copied(), "the keys are"),
                );
            }
        }
    }

    fn note_type(&mut self, item: &Item, key: &str, expected: &str) {
        let what = format!("{key} is of type {}", item.type_name());
        self.note(item.span().as_ref(), what, format!("write {expected}"));
    }

    pub(super) fn text<'a>(&mut self, section: Section<'a>, key: &str) -> Option<Placed<&'a str>> {
        let item = section.item(key)?;
        let span = item.span();
        let Some(value) = item.as_str() else {
            self.note_type(item, key, &format!("{key} = \"…\""));
            return None;
        };
        if value.trim().is_empty() {
            let what = format!("{key} is empty");
            self.note(span.as_ref(), what, "write a value, or remove the key");
            return None;
        }
        Some(Placed { value, span })
    }

    /// Returns the list of strings of a key. Notes a mistake if the value is not a list of strings.
    pub(super) fn texts<'a>(
        &mut self,
        section: Section<'a>,
        key: &str,
    ) -> Option<Vec<Placed<&'a str>>> {
        let item = section.item(key)?;
        let expected = format!("a list such as {key} = [\"…\"]");
        let Some(array) = item.as_array() else {
            self.note_type(item, key, &expected);
            return None;
        };
        let mut out = Vec::new();
        for value in array {
            match value.as_str() {
                Some(text) => out.push(Placed {
                    value: text,
                    span: value.span(),
                }),
                None => {
                    let what = format!("{key} holds a value of type {}", value.type_name());
                    self.note(value.span().as_ref(), what, format!("write {expected}"));
                }
            }
        }
        Some(out)
    }

    pub(super) fn duration_ms(&mut self, section: Section<'_>, key: &str) -> Option<i64> {
        let placed = self.text(section, key)?;
        match parse_duration_ms(placed.value, DURATION_MS_MIN, DURATION_MS_MAX) {
            Ok(ms) => Some(ms),
            Err(expected) => {
                let what = format!("{key} = {:?} is not a duration in range", placed.value);
                self.note(placed.span.as_ref(), what, expected);
                None
            }
        }
    }

    pub(super) fn whole(&mut self, section: Section<'_>, key: &str, max: u32) -> Option<u32> {
        let item = section.item(key)?;
        let Some(number) = item.as_integer() else {
            self.note_type(item, key, &format!("a whole number such as {key} = 50"));
            return None;
        };
        let whole = u32::try_from(number).ok().filter(|n| (1..=max).contains(n));
        if whole.is_none() {
            let what = format!("{key} = {number} is out of range");
            let remedy = format!("write a whole number from 1 to {max}");
            self.note(item.span().as_ref(), what, remedy);
        }
        whole
    }

    pub(super) fn flag(&mut self, section: Section<'_>, key: &str) -> Option<bool> {
        let item = section.item(key)?;
        let flag = item.as_bool();
        if flag.is_none() {
            self.note_type(item, key, &format!("{key} = true or {key} = false"));
        }
        flag
    }

    /// Returns the value of the key `name`. Notes a mistake if the name is missing or does not match
    /// `[a-z][a-z0-9-]{0,63}`.
    pub(super) fn name<'a>(&mut self, section: Section<'a>) -> Option<Placed<&'a str>> {
        if !section.has("name") {
            self.note_missing(section, "name", "\"…\"");
        }
        let placed = self.text(section, "name")?;
        if !is_name(placed.value, |c| c == '-') {
            let what = format!("{:?} is not a name", placed.value);
            let remedy = "write a lower-case letter, then at most 63 of a-z, 0-9 and -";
            self.note(placed.span.as_ref(), what, remedy);
            return None;
        }
        Some(placed)
    }

    /// Notes a mistake for each name that an earlier section of the same kind already uses.
    pub(super) fn repeated_names(&mut self, kind: &str, names: &[Placed<&str>]) {
        for (n, name) in names.iter().enumerate() {
            if let Some(first) = names[..n].iter().find(|other| other.value == name.value) {
                let line = self.line(first.span.as_ref());
                let what = format!("the {kind} of line {line} has the name {:?}", name.value);
                self.note(name.span.as_ref(), what, "give each a name of its own");
            }
        }
    }
}

/// Returns true if the text is a valid name. A valid name contains only lower-case letters, digits, and the further
/// characters that `admits` accepts. A name begins with a lower-case letter, and is at most 64 bytes long.
pub(super) fn is_name(text: &str, admits: impl Fn(char) -> bool) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || admits(c))
}

/// Returns advice for a wrong name: the most similar valid name, or a list of all valid names.
pub(super) fn remedy_for<'n>(
    wrong: &str,
    names: impl Iterator<Item = &'n str> + Clone,
    introduction: &str,
) -> String {
    match nearest(wrong, names.clone()) {
        Some(name) => format!("write {name}"),
        None => {
            let all: Vec<&str> = names.collect();
            format!("{introduction} {}", all.join(", "))
        }
    }
}
