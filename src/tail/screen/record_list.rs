//! The list of the last records.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};

use super::query::Query;
use super::text::{Detail, cut, dim, fit, of_severity, short_severity, time, width};
use crate::core::parse::Reason;
use crate::kafka::reader::Letter;
use crate::tail::board::{Board, Seen, What};
use crate::tail::classify::Sighting;
use crate::tail::dead_letters;

/// From this width on what was wrong with a rejected record stands before its value.
const WITH_DETAIL: u16 = 110;
/// Columns of that.
const DETAIL_COLUMNS: usize = 36;
/// From this width on severities are written in full and types are not cut.
const ROOMY: u16 = 60;

/// Draws as many records as fit, the newest first; the chosen one is always among them.
pub(super) fn draw(
    buf: &mut Buffer,
    area: Rect,
    board: &Board,
    query: &Query,
    all_records: bool,
    chosen: Option<u64>,
) {
    let records: Vec<&Seen> = list(board, query, all_records)
        .map(|seen| &**seen)
        .collect();
    let chosen = chosen.and_then(|chosen| records.iter().position(|seen| seen.number <= chosen));
    let room = usize::from(area.height);
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(room));
    let shown = &records[first.min(records.len())..];
    let widths = widths(shown.iter().take(room).copied());
    for (at, (y, seen)) in (area.y..area.bottom()).zip(shown).enumerate() {
        let line = match &seen.what {
            What::Event(event) => event_line(event, area.width, widths.0),
            What::Letter(letter) => letter_line(letter, area.width, widths),
        };
        buf.set_line(area.x, y, &line, area.width);
        if chosen == Some(first + at) {
            let style = Style::new().add_modifier(Modifier::REVERSED);
            buf.set_style(
                Rect {
                    y,
                    height: 1,
                    ..area
                },
                style,
            );
        }
    }
    if records.is_empty() && area.height > 0 {
        let text = if query.is_empty() {
            "none yet"
        } else {
            "none that the filter lets through"
        };
        buf.set_line(area.x, area.y, &Text::styled(text, dim()), area.width);
        if let Some(hint) = board.hint.as_ref().filter(|_| area.height > 1) {
            let hint = cut(hint, area.width.into());
            buf.set_line(area.x, area.y + 1, &Text::raw(hint), area.width);
        }
    }
}

/// Returns the records of a list that pass, the newest first.
pub(super) fn list<'a>(
    board: &'a Board,
    query: &'a Query,
    all_records: bool,
) -> impl Iterator<Item = &'a Arc<Seen>> + 'a {
    let records = if all_records {
        &board.records
    } else {
        &board.alerts
    };
    records.iter().filter(|seen| query.takes(&seen.what))
}

/// Returns how wide the columns of varying width are: city; or reason and place.
fn widths<'a>(shown: impl Iterator<Item = &'a Seen>) -> (usize, usize) {
    let widths = shown.map(|seen| match &seen.what {
        What::Event(sighting) => (width(&sighting.event.city), 0),
        What::Letter(letter) => (width(dead_letters::reason(letter)), width(&place(letter))),
    });
    let (first, second) = widths.fold((0, 0), |(a, b), (c, d)| (a.max(c), b.max(d)));
    (first.clamp(4, 16), second.clamp(4, 16))
}

/// Returns where a rejected record lies in its topic, which is the same for all.
fn place(letter: &Letter) -> String {
    let [_, partition, offset] = dead_letters::origin(letter);
    format!("{partition}/{offset}")
}

fn detail(columns: u16) -> Detail {
    match columns {
        0..60 => Detail::Time,
        60..100 => Detail::Day,
        _ => Detail::Date,
    }
}

fn letter_line(letter: &Letter, columns: u16, widths: (usize, usize)) -> Text<'static> {
    let reason = dead_letters::reason(letter);
    let detail = detail(columns);
    let time = match dead_letters::source_ms(letter) {
        Some(ms) => time(ms, detail),
        None => fit("-", time(0, detail).len(), false),
    };
    // What a table refuses is an event, and whoever sent it cannot mend it.
    let style = if reason == Reason::RefusedByTable.name() {
        Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
    } else {
        Style::new().fg(Color::Yellow)
    };
    let reason_columns = if columns >= ROOMY {
        widths.0
    } else {
        widths.0.min(13)
    };
    let mut spans = vec![
        Span::styled(time, dim()),
        Span::raw(" "),
        Span::styled(fit(reason, reason_columns, false), style),
        Span::raw(" "),
        Span::raw(fit(&place(letter), widths.1, false)),
        Span::raw(" "),
    ];
    if columns >= WITH_DETAIL {
        let text = fit(dead_letters::detail(letter), DETAIL_COLUMNS, false);
        spans.extend([Span::styled(text, dim()), Span::raw(" ")]);
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let left = usize::from(columns).saturating_sub(used);
    if left > 3 {
        spans.push(Span::raw(cut(&dead_letters::content(letter, left), left)));
    }
    Text::from(spans)
}

fn event_line(seen: &Sighting, columns: u16, city: usize) -> Text<'static> {
    let event = &seen.event;
    let severity = of_severity(event.severity);
    let roomy = columns >= ROOMY;
    let (name, kind) = if roomy {
        (fit(event.severity.name(), 8, false), 12)
    } else {
        (fit(short_severity(event.severity), 4, false), 8)
    };
    let mut spans = vec![
        Span::styled(time(event.time_ms, detail(columns)), dim()),
        Span::raw(" "),
        Span::styled(name, severity),
        Span::raw(" "),
        Span::raw(fit(&event.city, city, false)),
        Span::raw(" "),
        Span::raw(fit(&event.event_type, kind, false)),
        Span::raw(" "),
    ];
    for (holds, word) in [(seen.late, "late "), (seen.future, "future ")] {
        if holds {
            spans.push(Span::styled(word, dim().add_modifier(Modifier::ITALIC)));
        }
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let left = usize::from(columns).saturating_sub(used);
    if left > 3 {
        spans.push(Span::raw(cut(&event.description, left)));
    }
    Text::from(spans)
}
