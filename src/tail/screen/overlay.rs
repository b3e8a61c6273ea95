//! What lies over the board: the list of keys, and a record in full.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, BorderType, Clear, Widget as _};

use super::text::{bold, count, dim, exact_time, fit, of_severity, wrap};
use super::view::Kind;
use crate::core::parse::VALUE_BYTES_MAX;
use crate::kafka::reader::Letter;
use crate::tail::board::{Seen, What};
use crate::tail::classify::Sighting;
use crate::tail::dead_letters;

/// Widest box.
const COLUMNS_MAX: u16 = 96;

/// Characters shown of a rejected record's value: all of one that could have been an event.
const VALUE_CHARS_MAX: usize = VALUE_BYTES_MAX;

/// Keys and what they do, at length and in short.
const KEYS: [(&str, &str, &str); 14] = [
    ("q", "leave; the counts stay on the terminal", "leave"),
    (
        "space",
        "freeze what is shown, and let it go on",
        "freeze, go on",
    ),
    (
        "/",
        "filter: words that must all occur, severities",
        "filter by words",
    ),
    ("esc", "drop filter and choice", "drop filter and choice"),
    (
        "s",
        "sort by total, rate, alerts or name",
        "order of the rows",
    ),
    (
        "w",
        "windows of a minute, 5 minutes, an hour, a day",
        "length of windows",
    ),
    (
        "a",
        "list alerts only, or all events",
        "alerts or all events",
    ),
    ("↑ ↓", "choose a record", "choose a record"),
    (
        "enter",
        "show the chosen record in full, or the newest",
        "show it in full",
    ),
    (
        "← →",
        "there: the record above or below",
        "the one above, below",
    ),
    ("PgUp PgDn", "scroll the rows", "scroll the rows"),
    (
        "e",
        "export what is shown into a JSON file here",
        "export into a file",
    ),
    (
        "Ctrl-Z",
        "stop until fg; Ctrl-L draws anew",
        "stop until fg",
    ),
    ("?", "this list; any key closes it", "this list"),
];
/// What keys do otherwise where rejected records are shown: at length and in short, or nothing.
const KEYS_OF_LETTERS: [(&str, Option<(&str, &str)>); 3] = [
    (
        "/",
        Some((
            "filter the list: words that must all occur",
            "filter the list",
        )),
    ),
    (
        "s",
        Some(("sort by total, rate or reason", "order of the rows")),
    ),
    ("a", None),
];
/// Columns of the keys in their list.
const KEY_COLUMNS: usize = 11;
/// From this width on things are said at length.
const ROOMY: u16 = 64;

/// Draws the list of keys.
pub(super) fn help(buf: &mut Buffer, area: Rect, kind: Kind) {
    let keys = KEYS.iter().filter_map(|(key, long, short)| {
        let other = KEYS_OF_LETTERS.iter().find(|(other, _)| other == key);
        match (kind, other) {
            (Kind::Letters, Some((key, does))) => does.map(|(long, short)| (*key, long, short)),
            (Kind::Events, _) | (_, None) => Some((*key, *long, *short)),
        }
    });
    let lines = keys.map(|(key, long, short)| {
        Text::from(vec![
            Span::styled(fit(key, KEY_COLUMNS, false), bold()),
            Span::raw(if area.width < ROOMY { short } else { long }),
        ])
    });
    let lines: Vec<Text<'_>> = lines.collect();
    boxed(buf, area, " keys ", &lines, 0, "");
}

/// Draws a record in full, scrolled to a line.
pub(super) fn record(buf: &mut Buffer, area: Rect, seen: &Seen, scroll: u16, topic: &str) {
    let inner = usize::from(area.width.min(COLUMNS_MAX).saturating_sub(4));
    let (name, fields) = match &seen.what {
        What::Event(sighting) => ("event", of_event(sighting, topic)),
        What::Letter(letter) => ("rejected record", of_letter(letter)),
    };
    let mut lines = Vec::new();
    for (name, text, style) in fields {
        for (at, part) in wrap(&text, inner.saturating_sub(10).max(1))
            .into_iter()
            .enumerate()
        {
            let name = if at == 0 { name } else { "" };
            lines.push(Text::from(vec![
                Span::styled(format!("{name:<10}"), dim()),
                Span::styled(part, style),
            ]));
        }
    }
    let title = format!(" {name} {} ", count(seen.number));
    boxed(buf, area, &title, &lines, scroll, " ← → next  esc close ");
}

/// A line of a record in full, or several if it is long.
type Field = (&'static str, String, Style);

fn of_event(sighting: &Sighting, topic: &str) -> Vec<Field> {
    let event = &sighting.event;
    let id = crate::core::keys::event_id(event, topic, sighting.partition, sighting.offset);
    let kafka = match sighting.record_ms {
        Some(ms) => format!(
            "{}, {} the event",
            exact_time(ms),
            after(ms - event.time_ms)
        ),
        None => "without a timestamp".to_owned(),
    };
    let mut fields: Vec<Field> = vec![
        ("city", event.city.to_string(), bold()),
        ("type", event.event_type.to_string(), Style::new()),
        (
            "severity",
            event.severity.name().to_owned(),
            of_severity(event.severity),
        ),
        ("time", exact_time(event.time_ms), Style::new()),
        ("record", kafka, Style::new()),
        ("event id", id, Style::new()),
        (
            "place",
            format!(
                "partition {}, offset {}",
                sighting.partition, sighting.offset
            ),
            Style::new(),
        ),
    ];
    if sighting.late {
        let text = "late: its window was over, so it is in the totals alone";
        fields.push(("", text.to_owned(), bold()));
    }
    if sighting.future {
        let text = "future: its time is ahead of its record's, and moves no window";
        fields.push(("", text.to_owned(), bold()));
    }
    if !event.description.is_empty() {
        fields.push(("text", event.description.to_string(), Style::new()));
    }
    if let Some(extra) = &event.extra {
        fields.push(("extra", extra.to_string(), Style::new()));
    }
    fields
}

fn of_letter(letter: &Letter) -> Vec<Field> {
    let time = |ms: Option<i64>| ms.map_or_else(|| "without a timestamp".to_owned(), exact_time);
    let [topic, partition, offset] = dead_letters::origin(letter);
    let mut fields: Vec<Field> = vec![
        ("reason", dead_letters::reason(letter).to_owned(), bold()),
        (
            "detail",
            dead_letters::detail(letter).to_owned(),
            Style::new(),
        ),
        (
            "place",
            format!("{topic}, partition {partition}, offset {offset}"),
            Style::new(),
        ),
        (
            "record",
            time(dead_letters::source_ms(letter)),
            Style::new(),
        ),
        ("rejected", time(letter.record_ms), Style::new()),
        (
            "kept at",
            format!("partition {}, offset {}", letter.partition, letter.offset),
            Style::new(),
        ),
    ];
    if let Some(key) = dead_letters::key(letter) {
        fields.push(("key", key, Style::new()));
    }
    for (name, value) in dead_letters::own_headers(letter) {
        fields.push(("header", format!("{name}: {value}"), Style::new()));
    }
    let value = dead_letters::content(letter, VALUE_CHARS_MAX);
    fields.push(("value", value, Style::new()));
    fields
}

/// Returns how long after, or before.
fn after(ms: i64) -> String {
    let (size, word) = if ms < 0 {
        (-ms, "before")
    } else {
        (ms, "after")
    };
    let text = match size {
        0..1_000 => format!("{size} ms"),
        1_000..120_000 => format!("{}.{} s", size / 1_000, size % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", size / 60_000),
        7_200_000..172_800_000 => format!("{} h", size / 3_600_000),
        _ => format!("{} days", count((size / 86_400_000).unsigned_abs())),
    };
    format!("{text} {word}")
}

/// Draws lines in a box in the middle; as many as fit, from the one it is scrolled to.
fn boxed(buf: &mut Buffer, area: Rect, title: &str, lines: &[Text<'_>], scroll: u16, hint: &str) {
    let count = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let width = area.width.min(COLUMNS_MAX);
    let height = area.height.min(count.saturating_add(2));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buf);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .title_top(Text::styled(title, bold()))
        .title_bottom(Text::styled(hint, dim()).right_aligned());
    let inner = block.inner(place);
    block.render(place, buf);
    let first = scroll.min(count.saturating_sub(inner.height));
    for (y, line) in (inner.y..inner.bottom()).zip(&lines[usize::from(first)..]) {
        let width = inner.width.saturating_sub(2);
        buf.set_line(inner.x + 1, y, line, width);
    }
}
