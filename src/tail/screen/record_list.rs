//! Draws the list of the latest records.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::format::{ROOMY_COLUMNS, TimeDetail, dim, severity_style, short_severity, time};
use super::picture::Picture;
use crate::core::clock::UnixMs;
use crate::core::parse::Reason;
use crate::kafka::reader::Letter;
use crate::tail::board::{ListedRecord, RecordContent};
use crate::tail::classify::TailEvent;
use crate::tail::dead_letters;
use crate::tail::printable::{cut, fit, width};

/// Minimum screen width at which a list of dead letters has a column for the detail, in columns.
const DETAIL_FROM_COLUMNS: u16 = 110;
/// Width of the column for the detail of a dead letter, in columns of the terminal.
const DETAIL_COLUMNS: usize = 36;

/// Draws as many records as fit, with the newest record first. The record that the user has chosen is always visible.
pub(super) fn draw(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let records: Vec<_> = picture.view.records(picture.board).collect();
    if records.is_empty() {
        draw_empty(buf, area, picture);
        return;
    }
    let chosen = picture.view.chosen_index(&records);
    let room = usize::from(area.height);
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(room));
    let shown = &records[first.min(records.len())..];
    let widths = column_widths(shown.iter().take(room).map(|record| &***record));
    for (at, (y, record)) in (area.y..area.bottom()).zip(shown).enumerate() {
        let line = match &record.content {
            RecordContent::Event(event) => event_line(event, area.width, widths.0),
            RecordContent::DeadLetter(letter) => letter_line(letter, area.width, widths),
        };
        buf.set_line(area.x, y, &line, area.width);
        if chosen == Some(first + at) {
            let line = Rect::new(area.x, y, area.width, 1);
            buf.set_style(line, Modifier::REVERSED);
        }
    }
}

/// Draws a text that says why the list of records is empty.
fn draw_empty(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let text = if picture.view.query.is_empty() {
        "none yet"
    } else {
        "no record passes the filter"
    };
    let quiet = picture.heading.quiet_hint;
    let is_quiet = picture.board.counts.sum.total() == 0;
    let hint = picture.board.hint.as_deref();
    let hint = hint.or_else(|| quiet.filter(|_| is_quiet)).unwrap_or("");
    let hint = cut(hint, area.width.into());
    let lines = [Line::styled(text, dim()), Line::raw(hint)];
    for (y, line) in (area.y..area.bottom()).zip(&lines) {
        buf.set_line(area.x, y, line, area.width);
    }
}

/// Returns the widths of the first two columns in the list of records. In a list of events, the first column shows the
/// city, and the second width is not used. In a list of dead letters, the two columns show the reject reason and the
/// position in the log.
fn column_widths<'a>(shown: impl Iterator<Item = &'a ListedRecord>) -> (usize, usize) {
    let widths = shown.map(|record| match &record.content {
        RecordContent::Event(event) => (width(&event.event.city), 0),
        RecordContent::DeadLetter(letter) => {
            let place = place(letter);
            (width(dead_letters::reason(letter)), width(&place))
        }
    });
    let (first, second) = widths.fold((0, 0), |(a, b), (c, d)| (a.max(c), b.max(d)));
    (first.clamp(4, 16), second.clamp(4, 16))
}

/// Returns the partition and the offset of a rejected record. The function omits the topic, because all listed records
/// come from the same topic.
fn place(letter: &Letter) -> String {
    let [_, partition, offset] = dead_letters::origin(letter);
    format!("{partition}/{offset}")
}

fn time_detail(columns: u16) -> TimeDetail {
    match columns {
        0..60 => TimeDetail::Time,
        60..100 => TimeDetail::Day,
        _ => TimeDetail::Date,
    }
}

fn letter_line(letter: &Letter, columns: u16, widths: (usize, usize)) -> Line<'static> {
    let detail = time_detail(columns);
    let time = match dead_letters::source_ms(letter) {
        Some(ms) => time(ms, detail),
        None => fit("-", time(UnixMs(0), detail).len(), false),
    };
    let reason = dead_letters::reason(letter);
    // Bold red marks a valid event that a table refused, because the sender cannot correct such an event.
    let style = if reason == Reason::RefusedByTable.name() {
        Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
    } else {
        Style::new().fg(Color::Yellow)
    };
    let reason_columns = if columns >= ROOMY_COLUMNS {
        widths.0
    } else {
        widths.0.min(13)
    };
    let mut spans = vec![
        Span::styled(time, dim()),
        Span::styled(fit(reason, reason_columns, false), style),
        Span::raw(fit(&place(letter), widths.1, false)),
    ];
    if columns >= DETAIL_FROM_COLUMNS {
        let text = fit(dead_letters::detail(letter), DETAIL_COLUMNS, false);
        spans.push(Span::styled(text, dim()));
    }
    fill_line(spans, columns, |left| dead_letters::content(letter, left))
}

fn event_line(event: &TailEvent, columns: u16, city_columns: usize) -> Line<'static> {
    let (is_late, is_future, event) = (event.late, event.future, &event.event);
    let (severity, severity_columns, type_columns) = if columns >= ROOMY_COLUMNS {
        (event.severity.name(), 8, 12)
    } else {
        (short_severity(event.severity), 4, 8)
    };
    let severity = fit(severity, severity_columns, false);
    let mut spans = vec![
        Span::styled(time(event.time_ms, time_detail(columns)), dim()),
        Span::styled(severity, severity_style(event.severity)),
        Span::raw(fit(&event.city, city_columns, false)),
        Span::raw(fit(&event.event_type, type_columns, false)),
    ];
    for (holds, word) in [(is_late, "late"), (is_future, "future")] {
        if holds {
            spans.push(Span::styled(word, dim().add_modifier(Modifier::ITALIC)));
        }
    }
    fill_line(spans, columns, |_| event.description.to_string())
}

/// Returns a line that contains the spans, separated by spaces, and then as much of the text as fits.
fn fill_line(
    spans: Vec<Span<'static>>,
    columns: u16,
    text: impl FnOnce(usize) -> String,
) -> Line<'static> {
    let mut line = Line::default();
    for span in spans {
        line.push_span(span);
        line.push_span(" ");
    }
    let left = usize::from(columns).saturating_sub(line.width());
    // A text in three columns or fewer would be too short to be useful.
    if left > 3 {
        line.push_span(cut(&text(left), left));
    }
    line
}
