//! What is typed behind `/`: words that must all occur, and severities.

use super::view::Kind;
use crate::core::event::Severity;
use crate::tail::board::What;
use crate::tail::dead_letters;

/// Characters of a rejected record's value in which words are looked for: five hundred values are gone
/// through for each picture.
const VALUE_CHARS_MAX: usize = 1_000;

/// A filter on what the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// As it was typed.
    pub(super) text: String,
    /// In lower case.
    words: Vec<String>,
    /// The severities that are shown: all, if none is named.
    pub(super) severities: [bool; 4],
}

impl Query {
    /// Reads a filter. Any text is one: `nyc critical` is critical events of New York. Rejected records
    /// have no severity, so there it is a word as others.
    pub(super) fn parse(text: &str, kind: Kind) -> Query {
        let mut query = Query {
            text: text.to_owned(),
            words: Vec::new(),
            severities: [false; 4],
        };
        for word in text.split_whitespace() {
            let word = word.to_lowercase();
            // As columns are headed, too.
            let name = match &*word {
                "med" => "medium",
                "crit" => "critical",
                other => other,
            };
            match Severity::from_name(name) {
                Some(severity) if kind == Kind::Events => {
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

    /// Tells whether everything passes.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.severities == [true; 4]
    }

    /// Tells whether a row's records pass, severities aside.
    pub(super) fn takes_row(&self, city: &str, event_type: &str) -> bool {
        self.occur(|| format!("{city} {event_type}"))
    }

    /// Tells whether a record passes. Words may also occur in an event's description and id; and in a
    /// rejected record's detail, origin and the beginning of its value.
    pub(super) fn takes(&self, what: &What) -> bool {
        match what {
            What::Event(seen) => {
                let event = &seen.event;
                self.severities[event.severity.index()]
                    && self.occur(|| {
                        let id = event.event_id.as_deref().unwrap_or_default();
                        format!(
                            "{} {} {} {id}",
                            event.city, event.event_type, event.description
                        )
                    })
            }
            What::Letter(letter) => self.occur(|| {
                let (reason, detail) = (dead_letters::reason(letter), dead_letters::detail(letter));
                let origin = dead_letters::origin(letter).join("/");
                let value = dead_letters::content(letter, VALUE_CHARS_MAX);
                format!("{reason} {detail} {origin} {value}")
            }),
        }
    }

    /// Tells whether all words occur in a text.
    fn occur(&self, text: impl FnOnce() -> String) -> bool {
        self.words.is_empty() || {
            let text = text().to_lowercase();
            self.words.iter().all(|word| text.contains(word))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::board::tests::{letter, said};
    use crate::tail::classify::Said;

    #[test]
    fn words_must_all_occur_and_severities_are_a_choice() {
        let Said::Event(seen) = said("São Paulo", "traffic", Severity::High, 0) else {
            unreachable!("it is an event");
        };
        let seen = What::Event(seen);
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
            let query = Query::parse(text, Kind::Events);
            assert_eq!(query.takes_row("São Paulo", "traffic"), row, "{text}");
            assert_eq!(query.takes(&seen), record, "{text}");
        }
        let parse = |text| Query::parse(text, Kind::Events);
        assert!(parse(" ").is_empty() && !parse("low").is_empty());
        assert_eq!(parse("med crit").severities, [false, true, false, true]);
    }

    #[test]
    fn a_rejected_record_passes_by_reason_detail_origin_or_the_beginning_of_its_value() {
        let long = format!("{{\"City\":\"NYC\", {}, end", "x".repeat(VALUE_CHARS_MAX));
        let letter = What::Letter(letter("not_json", 3, 17, Some(long.as_bytes())));
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
            let query = Query::parse(text, Kind::Letters);
            assert_eq!(query.takes(&letter), passes, "{text}");
            assert_eq!(query.severities, [true; 4], "{text}");
        }
    }
}
