//! The filter that the user types after `/`. The filter consists of severities, and of words that must all occur in a
//! record.

use super::record_kind::RecordKind;
use crate::core::event::Severity;
use crate::tail::board::RecordContent;
use crate::tail::dead_letters;

/// Number of characters that the filter searches in the value of a dead letter. The limit keeps drawing fast, because
/// each update of the screen may search the values of 500 dead letters.
const VALUE_CHARS_MAX: usize = 1_000;

/// A filter for the rows and records on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The filter as the user typed it.
    pub(super) text: String,
    /// The words of the filter in lower case.
    words: Vec<String>,
    /// The severities that are shown. If the filter names no severity, all severities are shown.
    pub(super) severities: [bool; 4],
}

impl Query {
    /// Parses the text of a filter. Every text is a valid filter. For example, the filter `nyc critical` shows the
    /// critical events of New York.
    ///
    /// Dead letters have no severity, so a filter for dead letters treats the name of a severity as an ordinary word.
    pub(super) fn parse(text: &str, kind: RecordKind) -> Query {
        let mut query = Query {
            text: text.to_owned(),
            words: Vec::new(),
            severities: [false; 4],
        };
        for word in text.split_whitespace() {
            let word = word.to_lowercase();
            // The user may also type the short severity names that the column headings show, such as `crit`.
            let name = match &*word {
                "med" => "medium",
                "crit" => "critical",
                other => other,
            };
            match Severity::from_name(name) {
                Some(severity) if kind == RecordKind::Events => {
                    query.severities[severity.index()] = true;
                }
                _ => query.words.push(word),
            }
        }
        if query.severities == [false; 4] {
            query.severities = [true; 4];
        }
        query
    }

    /// Returns true if the filter is empty. All rows and records pass an empty filter.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.severities == [true; 4]
    }

    /// Returns true if a row passes the filter. The function does not check severities.
    pub(super) fn passes_row(&self, city: &str, event_type: &str) -> bool {
        self.words_occur(|| format!("{city} {event_type}"))
    }

    /// Returns true if a record passes the filter.
    ///
    /// In an event, the words of the filter may occur in the city, the event type, the description or the event id. In
    /// a dead letter, the words of the filter may occur in the reason, the detail, the origin, or the beginning of the
    /// value.
    pub(super) fn passes(&self, content: &RecordContent) -> bool {
        match content {
            RecordContent::Event(event) => {
                let event = &event.event;
                self.severities[event.severity.index()]
                    && self.words_occur(|| {
                        let id = event.event_id.as_deref().unwrap_or_default();
                        format!(
                            "{} {} {} {id}",
                            event.city, event.event_type, event.description
                        )
                    })
            }
            RecordContent::DeadLetter(letter) => self.words_occur(|| {
                let (reason, detail) = (dead_letters::reason(letter), dead_letters::detail(letter));
                let origin = dead_letters::origin(letter).join("/");
                let value = dead_letters::content(letter, VALUE_CHARS_MAX);
                format!("{reason} {detail} {origin} {value}")
            }),
        }
    }

    /// Returns true if all words of the filter occur in a text.
    fn words_occur(&self, text: impl FnOnce() -> String) -> bool {
        self.words.is_empty() || {
            let text = text().to_lowercase();
            self.words.iter().all(|word| text.contains(word))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::board::tests::{event, letter};

    #[test]
    fn all_words_must_occur_and_any_of_the_severities() {
        let event = event("São Paulo", "traffic", Severity::High, 0);
        let event = RecordContent::Event(event);
        for (text, row, record) in [
            ("", true, true),
            ("  ", true, true),
            ("SÃO", true, true),
            ("paulo traf", true, true),
            ("paulo weather", false, false),
            ("high", true, true),
            ("critical", true, false),
            ("crit HIGH traffic", true, true),
            ("traffic in", false, true),
        ] {
            let query = Query::parse(text, RecordKind::Events);
            assert_eq!(query.passes_row("São Paulo", "traffic"), row, "{text}");
            assert_eq!(query.passes(&event), record, "{text}");
        }
        let parse = |text| Query::parse(text, RecordKind::Events);
        assert!(parse(" ").is_empty() && !parse("low").is_empty());
        assert_eq!(parse("med crit").severities, [false, true, false, true]);
    }

    #[test]
    fn a_dead_letter_is_found_by_reason_detail_origin_or_the_beginning_of_its_value() {
        let long = format!("{{\"City\":\"NYC\", {}, end", "x".repeat(VALUE_CHARS_MAX));
        let letter = RecordContent::DeadLetter(letter("not_json", 3, 17, Some(long.as_bytes())));
        for (text, passes) in [
            ("", true),
            ("NOT_", true),
            ("wrong", true),
            ("city-events/3/17", true),
            ("not_json \"nyc\"", true),
            ("bad_city", false),
            ("end", false),
            ("low", false),
        ] {
            let query = Query::parse(text, RecordKind::DeadLetters);
            assert_eq!(query.passes(&letter), passes, "{text}");
            assert_eq!(query.severities, [true; 4], "{text}");
        }
    }
}
