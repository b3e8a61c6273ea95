//! Reads the `[[rule]]` sections of the rules file.

use std::collections::BTreeSet;

use crate::core::event::Severity;
use crate::core::incident::rule::{Condition, Filter, OPEN_MAX, RULES_MAX, Rule};
use crate::core::parse::CITY_CHARS_MAX;
use crate::notify::config::section::{Notes, Placed, Section, is_name, remedy_for};

const KEYS: [&str; 10] = [
    "name",
    "city",
    "event_type",
    "severity",
    "group_by",
    "quiet",
    "count",
    "window",
    "silence",
    "open_max",
];
/// Default time without a new event after which an incident ends.
const QUIET_MS: i64 = 15 * 60_000;
/// Maximum value of the key `count` in a rule.
const COUNT_MAX: u32 = 1_000_000;
/// Maximum value of the key `open_max` in a rule. Each open incident takes about one kilobyte of memory.
const OPEN_LIMIT: u32 = 100_000;

/// Returns the valid rules, and notes the mistakes in the invalid rules.
pub(super) fn read_rules<'a>(notes: &mut Notes<'_>, sections: &[Section<'a>]) -> Vec<Rule> {
    if sections.is_empty() {
        notes.note(
            None,
            "the file has no rule",
            "add a section [[rule]] with name = \"critical\" and severity = [\"critical\"]",
        );
    }
    if let Some(beyond) = sections.get(RULES_MAX) {
        let what = format!("there are {} rules", sections.len());
        let remedy = format!("write at most {RULES_MAX} rules");
        notes.note(beyond.table.span().as_ref(), what, remedy);
    }
    let mut names = Vec::new();
    let mut rules = Vec::new();
    for section in sections {
        notes.unknown_keys(*section, &KEYS);
        let name = notes.name(*section);
        rules.extend(read_rule(notes, *section, name.as_ref()));
        names.extend(name);
    }
    notes.repeated_names("rule", &names);
    rules
}

fn read_rule<'a>(
    notes: &mut Notes<'_>,
    section: Section<'a>,
    name: Option<&Placed<&'a str>>,
) -> Option<Rule> {
    let filter = Filter {
        cities: read_list(notes, section, "city", city_flaw),
        event_types: read_list(notes, section, "event_type", event_type_flaw),
        severities: read_severities(notes, section),
    };
    let (by_city, by_event_type) = read_group(notes, section);
    let condition = read_condition(notes, section);
    let open_max = notes
        .whole(section, "open_max", OPEN_LIMIT)
        .unwrap_or(OPEN_MAX);
    Some(Rule {
        name: name?.value.into(),
        filter,
        by_city,
        by_event_type,
        condition: condition?,
        open_max,
    })
}

/// Returns the list of values of a key. Notes an empty list as a mistake, because no event would match the list.
fn read_values<'a>(
    notes: &mut Notes<'_>,
    section: Section<'a>,
    key: &str,
) -> Option<Vec<Placed<&'a str>>> {
    let values = notes.texts(section, key)?;
    if section
        .table
        .get(key)
        .and_then(toml_edit::Item::as_array)
        .is_some_and(toml_edit::Array::is_empty)
    {
        let span = section.key_span(key);
        let what = format!("{key} is an empty list, which admits no event");
        notes.note(span.as_ref(), what, "remove the key to admit all");
    }
    Some(values)
}

fn read_list<'a>(
    notes: &mut Notes<'_>,
    section: Section<'a>,
    key: &str,
    flaw: fn(&str) -> Option<String>,
) -> Option<BTreeSet<Box<str>>> {
    let values = read_values(notes, section, key)?;
    for value in &values {
        if let Some(remedy) = flaw(value.value) {
            let what = format!("no event has the {key} {:?}", value.value);
            notes.note(value.span.as_ref(), what, remedy);
        }
    }
    Some(values.iter().map(|value| value.value.into()).collect())
}

/// Returns a correction for a city name that no event can have, or `None` if the name is valid.
fn city_flaw(city: &str) -> Option<String> {
    let trimmed = city.trim();
    if !trimmed.is_empty() && trimmed != city {
        return Some(format!("write {trimmed:?}"));
    }
    let is_valid = (1..=CITY_CHARS_MAX).contains(&city.chars().count())
        && !city.contains(|c: char| c.is_control() || c == '#');
    (!is_valid)
        .then(|| format!("write 1 to {CITY_CHARS_MAX} characters without # and control characters"))
}

/// Returns a correction for an event type that no event can have, or `None` if the type is valid.
fn event_type_flaw(event_type: &str) -> Option<String> {
    let is_valid = |text: &str| is_name(text, |c| c == '-' || c == '_');
    let lower = event_type.trim().to_ascii_lowercase();
    match (is_valid(event_type), is_valid(&lower)) {
        (true, _) => None,
        (false, true) => Some(format!("write {lower:?}")),
        (false, false) => {
            Some("write a lower-case letter, then at most 63 of a-z, 0-9, _ and -".to_owned())
        }
    }
}

fn read_severities<'a>(notes: &mut Notes<'_>, section: Section<'a>) -> Option<Vec<Severity>> {
    let values = read_values(notes, section, "severity")?;
    let mut severities = BTreeSet::new();
    for value in values {
        match Severity::from_name(value.value) {
            Some(severity) => {
                severities.insert(severity);
            }
            None => {
                let names = Severity::ALL.into_iter().map(Severity::name);
                let lower = value.value.trim().to_ascii_lowercase();
                let what = format!("{:?} is not a severity", value.value);
                let remedy = remedy_for(&lower, names, "the severities are");
                notes.note(value.span.as_ref(), what, remedy);
            }
        }
    }
    Some(severities.into_iter().collect())
}

/// Returns two flags: whether the rule groups by city, and whether it groups by event type.
fn read_group<'a>(notes: &mut Notes<'_>, section: Section<'a>) -> (bool, bool) {
    let Some(values) = notes.texts(section, "group_by") else {
        return (true, true);
    };
    let names = ["city", "event_type"];
    for value in &values {
        if !names.contains(&value.value) {
            let what = format!("a rule cannot group by {:?}", value.value);
            let remedy = remedy_for(value.value, names.into_iter(), "a rule groups by");
            notes.note(value.span.as_ref(), what, remedy);
        }
    }
    let has = |name: &str| values.iter().any(|value| value.value == name);
    (has("city"), has("event_type"))
}

fn read_condition<'a>(notes: &mut Notes<'_>, section: Section<'a>) -> Option<Condition> {
    let quiet_ms = notes.duration_ms(section, "quiet").unwrap_or(QUIET_MS);
    let count = notes.whole(section, "count", COUNT_MAX);
    let window_ms = notes.duration_ms(section, "window");
    let silence_ms = notes.duration_ms(section, "silence");
    let counts = section.has("count") || section.has("window");
    if section.has("silence") {
        let span = section.key_span("silence");
        if counts {
            let what = "the rule mixes a count and a silence";
            notes.note(span.as_ref(), what, "write two rules");
        }
        if section.has("quiet") {
            let span = section.key_span("quiet");
            let what = "a silence ends with the next event, so quiet has no meaning";
            notes.note(span.as_ref(), what, "remove quiet");
        }
        return Some(Condition::Silence {
            silence_ms: silence_ms?,
        });
    }
    if !counts {
        return Some(Condition::Event { quiet_ms });
    }
    for (key, example) in [("count", "50"), ("window", "\"5m\"")] {
        if !section.has(key) {
            notes.note_missing(section, key, example);
        }
    }
    Some(Condition::Count {
        count: u64::from(count?),
        window_ms: window_ms?,
        quiet_ms,
    })
}
