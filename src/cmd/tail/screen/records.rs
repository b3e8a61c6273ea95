//! The list of the last records.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line as Text, Span};

use super::query::Query;
use super::text::{Detail, cut, dim, fit, of_severity, short_severity, time, width};
use crate::cmd::tail::board::{Board, Seen};

/// From this width on severities are written in full and types are not cut.
const ROOMY: u16 = 60;

/// Draws as many records as fit, the newest first; the chosen one is always among them.
pub(super) fn draw(
    buf: &mut Buffer,
    area: Rect,
    board: &Board,
    query: &Query,
    all_events: bool,
    chosen: Option<u64>,
) {
    let records: Vec<&Seen> = list(board, query, all_events).map(|seen| &**seen).collect();
    let chosen = chosen.and_then(|chosen| records.iter().position(|seen| seen.number <= chosen));
    let room = usize::from(area.height);
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(room));
    let shown = &records[first.min(records.len())..];
    let city = shown
        .iter()
        .take(room)
        .map(|seen| width(&seen.sighting.event.city));
    let city = city.max().unwrap_or(0).clamp(4, 16);
    for (at, (y, seen)) in (area.y..area.bottom()).zip(shown).enumerate() {
        let line = line(seen, area.width, city);
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
    }
}

/// Returns the records of a list that pass, the newest first.
pub(super) fn list<'a>(
    board: &'a Board,
    query: &'a Query,
    all_events: bool,
) -> impl Iterator<Item = &'a Arc<Seen>> + 'a {
    let records = if all_events {
        &board.events
    } else {
        &board.alerts
    };
    records.iter().filter(|seen| query.takes(&seen.sighting))
}

fn line(seen: &Seen, columns: u16, city: usize) -> Text<'static> {
    let event = &seen.sighting.event;
    let severity = of_severity(event.severity);
    let roomy = columns >= ROOMY;
    let detail = match columns {
        0..60 => Detail::Time,
        60..100 => Detail::Day,
        _ => Detail::Date,
    };
    let (name, kind) = if roomy {
        (fit(event.severity.name(), 8, false), 12)
    } else {
        (fit(short_severity(event.severity), 4, false), 8)
    };
    let mut spans = vec![
        Span::styled(time(event.time_ms, detail), dim()),
        Span::raw(" "),
        Span::styled(name, severity),
        Span::raw(" "),
        Span::raw(fit(&event.city, city, false)),
        Span::raw(" "),
        Span::raw(fit(&event.event_type, kind, false)),
        Span::raw(" "),
    ];
    for (holds, word) in [
        (seen.sighting.late, "late "),
        (seen.sighting.future, "future "),
    ] {
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
