//! What is typed behind `/`: words that must all occur, and severities.

use crate::cmd::tail::intake::Sighting;
use crate::core::event::Severity;

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
    /// Reads a filter. Any text is one: `nyc critical` is critical events of New York.
    pub(super) fn parse(text: &str) -> Query {
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
                Some(severity) => query.severities[severity.index()] = true,
                None => query.words.push(word),
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

    /// Tells whether a row's events pass, severities aside.
    pub(super) fn takes_row(&self, city: &str, event_type: &str) -> bool {
        self.words.is_empty() || {
            let text = format!("{city} {event_type}").to_lowercase();
            self.words.iter().all(|word| text.contains(word))
        }
    }

    /// Tells whether a record passes; words may also occur in its description and id.
    pub(super) fn takes(&self, seen: &Sighting) -> bool {
        let event = &seen.event;
        self.severities[event.severity.index()]
            && (self.words.is_empty() || {
                let id = event.event_id.as_deref().unwrap_or_default();
                let text = format!(
                    "{} {} {} {id}",
                    event.city, event.event_type, event.description
                );
                let text = text.to_lowercase();
                self.words.iter().all(|word| text.contains(word))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::tail::board::tests::said;
    use crate::cmd::tail::intake::Said;

    #[test]
    fn words_must_all_occur_and_severities_are_a_choice() {
        let Said::Event(seen) = said("São Paulo", "traffic", Severity::High, 0) else {
            unreachable!("it is an event");
        };
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
            let query = Query::parse(text);
            assert_eq!(query.takes_row("São Paulo", "traffic"), row, "{text}");
            assert_eq!(query.takes(&seen), record, "{text}");
        }
        assert!(Query::parse(" ").is_empty() && !Query::parse("low").is_empty());
        assert_eq!(
            Query::parse("med crit").severities,
            [false, true, false, true]
        );
    }
}
