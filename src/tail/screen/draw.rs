//! Draws the live screen: arranges its parts, and draws the lines of numbers and the line of keys.
//!
//! The board holds the data, and the view holds the user's choices. The content of the screen depends only on the board
//! and the view, so tests need no terminal. If the screen is too small, the least important parts are omitted first.
//! All important parts fit on screens of 40 to 200 columns.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::chart::{self, Bars};
use super::format::{
    ROOMY_COLUMNS, TimeDetail, bold, count, dim, rate, severity_style, short_count, short_severity,
    time,
};
use super::picture::{Heading, Picture};
use super::record_kind::RecordKind;
use super::view::{Focus, Overlay, ScreenView};
use super::{overlay, record_list, table};
use crate::core::event::Severity;
use crate::tail::board::{Board, ReadState};
use crate::tail::history::{LENGTHS, WINDOWS};
use crate::tail::printable::cut;

/// Minimum screen size that the live screen needs, in columns and lines.
const SCREEN_MIN: (u16, u16) = (24, 6);
/// Minimum screen width at which the table and the list of records are drawn side by side, in columns.
const SIDE_BY_SIDE_COLUMNS: u16 = 150;
/// Maximum lag, in records, at which the screen shows "live". The reader needs only a moment for 1,000 records, so a
/// lag of up to 1,000 records counts as live.
const LIVE_LAG_MAX: u64 = 1_000;

/// Draws the whole screen. Returns the position of the cursor if the cursor is visible.
pub(super) fn draw(
    buf: &mut Buffer,
    heading: &Heading,
    live: &Board,
    view: &ScreenView,
) -> Option<(u16, u16)> {
    let area = buf.area;
    if area.width < SCREEN_MIN.0 || area.height < SCREEN_MIN.1 {
        let text = format!("tail needs {}×{}", SCREEN_MIN.0, SCREEN_MIN.1);
        draw_text(buf, area, &text, Style::new());
        return None;
    }
    let picture = &Picture::new(heading, live, view);
    draw_head(buf, band(area, 0, 1), picture);
    draw_numbers(buf, band(area, 1, 1), picture);
    if view.kind == RecordKind::Events {
        draw_severities(buf, band(area, 2, 1), picture);
    }
    let places = Places::new(area, picture.rows.len(), view.kind);
    if places.chart.height > 0 {
        draw_chart(buf, places.chart, picture);
    }
    table::draw(buf, places.table, picture);
    if places.records.height > 0 {
        draw_records(buf, places.records, picture);
    }
    let cursor = draw_foot(buf, band(area, area.height - 1, 1), picture);
    match &view.overlay {
        Overlay::Help => overlay::help(buf, area, view.kind),
        Overlay::Record(record, line) => overlay::record(buf, area, record, *line, &heading.topic),
        Overlay::Nothing | Overlay::Typing(_) => {}
    }
    cursor
}

/// The screen areas of the chart, the table and the list of records. A part whose area has the height 0 is not drawn.
struct Places {
    chart: Rect,
    table: Rect,
    records: Rect,
}

impl Places {
    fn new(area: Rect, row_count: usize, kind: RecordKind) -> Places {
        let numbers = match kind {
            RecordKind::Events => 3,
            RecordKind::DeadLetters => 2,
        };
        let rest = band(area, numbers, area.height - numbers - 1);
        // The height of the chart includes one line for the chart's title.
        let chart_height = match area.height {
            40.. => 8,
            30.. => 5,
            22.. => 3,
            _ => 0,
        };
        let chart = band(rest, 0, chart_height);
        let rest = below(rest, chart_height);
        let table_height = u16::try_from(row_count.max(1)).unwrap_or(u16::MAX);
        let table_height = table_height.saturating_add(1);
        if area.width >= SIDE_BY_SIDE_COLUMNS {
            let left = Rect {
                width: match kind {
                    RecordKind::Events => area.width * 3 / 5,
                    // The counts of dead letters need few columns, but the values of dead letters are long.
                    RecordKind::DeadLetters => area.width * 2 / 5,
                },
                ..rest
            };
            let records = Rect {
                x: left.right() + 2,
                width: rest.width - left.width - 2,
                ..rest
            };
            let table = band(left, 0, table_height);
            return Places {
                chart,
                table,
                records,
            };
        }
        let records_min = if rest.height >= 7 {
            (rest.height / 3).max(3)
        } else {
            0
        };
        let table = band(rest, 0, table_height.min(rest.height - records_min));
        let mut records = below(rest, table.height);
        if records_min == 0 {
            records.height = 0;
        }
        Places {
            chart,
            table,
            records,
        }
    }
}

/// Returns a horizontal band of an area. The band starts at the line `top` and is `height` lines high, or less if the
/// area has too few lines.
fn band(area: Rect, top: u16, height: u16) -> Rect {
    let top = top.min(area.height);
    Rect {
        y: area.y + top,
        height: height.min(area.height - top),
        ..area
    }
}

fn below(area: Rect, lines: u16) -> Rect {
    band(area, lines, u16::MAX)
}

fn draw_text(buf: &mut Buffer, area: Rect, text: &str, style: Style) {
    let text = cut(text, area.width.into());
    buf.set_stringn(area.x, area.y, text, area.width.into(), style);
}

/// Draws as many parts as fit completely, from left to right. Returns the number of columns that the drawn parts use.
fn draw_parts(buf: &mut Buffer, area: Rect, parts: Vec<Vec<Span<'_>>>, gap: u16) -> u16 {
    let mut used = 0;
    for part in parts {
        let line = Line::from(part);
        let width = u16::try_from(line.width()).unwrap_or(u16::MAX);
        let x = if used == 0 { 0 } else { used + gap };
        if x.saturating_add(width) > area.width {
            break;
        }
        buf.set_line(area.x + x, area.y, &line, width);
        used = x + width;
    }
    used
}

fn draw_right(buf: &mut Buffer, area: Rect, line: &Line<'_>) {
    let width = u16::try_from(line.width()).unwrap_or(u16::MAX);
    let width = width.min(area.width);
    buf.set_line(area.right() - width, area.y, line, width);
}

/// Draws a horizontal line across the area, with a title at its left end and a text at its right end.
fn draw_rule(buf: &mut Buffer, area: Rect, title: &str, right: &str) {
    draw_text(buf, area, &"─".repeat(area.width.into()), dim());
    let title = cut(title, area.width.into());
    let title = Line::from(vec![Span::styled(title, bold()), Span::raw(" ")]);
    let right = Line::from(vec![Span::raw(" "), Span::styled(right, dim())]);
    buf.set_line(area.x, area.y, &title, area.width);
    if title.width() + right.width() + 2 <= usize::from(area.width) {
        draw_right(buf, area, &right);
    }
}

fn draw_head(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let Picture {
        heading,
        live,
        view,
        ..
    } = picture;
    let color = |color| Style::new().fg(color);
    let state = match (&view.frozen, &live.state) {
        (Some(frozen), _) => {
            let since = live.counts.sum.total() - frozen.counts.sum.total();
            let style = Style::new().add_modifier(Modifier::REVERSED);
            Line::styled(format!(" frozen, {} since ", count(since)), style)
        }
        (None, ReadState::Waiting(why)) => {
            // If the reader waits, the reason may use most of the first line, because the reason is more important than
            // the topic.
            let room = usize::from(area.width.saturating_sub(16));
            let text = cut(&format!("◌ {}", problem_and_remedy(why).0), room);
            Line::styled(text, color(Color::Yellow))
        }
        (None, ReadState::Reading(0..=LIVE_LAG_MAX)) => Line::styled("● live", color(Color::Green)),
        (None, ReadState::Reading(_)) => Line::styled("● catching up", color(Color::Cyan)),
    };
    let state_width = u16::try_from(state.width()).unwrap_or(0);
    let left = Rect {
        width: area.width.saturating_sub(state_width + 1),
        ..area
    };
    let name = if area.width >= ROOMY_COLUMNS && left.width >= 26 {
        "citystream tail"
    } else {
        "tail"
    };
    let topic = cut(&heading.topic, left.width.saturating_sub(5).into());
    let mut parts = vec![
        vec![
            Span::styled(name, color(Color::Cyan)),
            Span::raw(" "),
            Span::styled(topic, bold()),
        ],
        vec![Span::styled(heading.from.as_str(), dim())],
    ];
    if !heading.filter.is_empty() {
        parts.push(vec![Span::raw(heading.filter.as_str())]);
    }
    draw_parts(buf, left, parts, 2);
    draw_right(buf, area, &state);
}

/// Splits the text that explains why the reader waits into the problem and the remedy.
fn problem_and_remedy(why: &str) -> (&str, Option<&str>) {
    match why.split_once("; ") {
        Some((problem, remedy)) => (problem, Some(remedy)),
        None => (why, None),
    }
}

fn draw_numbers(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let Picture {
        board, view, rows, ..
    } = picture;
    let name = view.kind.name();
    let all = board.counts.sum.total();
    if let (ReadState::Waiting(why), 0) = (&board.state, all)
        && let (_, Some(remedy)) = problem_and_remedy(why)
    {
        draw_text(buf, area, remedy, Style::new().fg(Color::Yellow));
        return;
    }
    let value = |value: String, label: String| {
        vec![Span::styled(value, bold()), Span::styled(label, dim())]
    };
    let named = |label: &'static str, value: String, style: Style| {
        vec![Span::styled(label, dim()), Span::styled(value, style)]
    };
    let mut parts = Vec::new();
    if view.query.is_empty() || view.kind == RecordKind::DeadLetters {
        parts.push(value(count(all), format!(" {name}")));
    } else {
        let shown = rows.iter().map(|row| row.total).sum();
        parts.push(value(count(shown), format!(" of {} {name}", count(all))));
    }
    let per_second = rows.iter().map(|row| row.rate).sum();
    parts.push(value(rate(per_second), "/s".to_owned()));
    if let ReadState::Reading(lag) = board.state {
        let style = if lag > 0 {
            Style::new().fg(Color::Cyan)
        } else {
            bold()
        };
        parts.push(named("lag ", count(lag), style));
    }
    let rejected = board.counts.rejected_total();
    if rejected > 0 {
        let style = Style::new().fg(Color::Red);
        parts.push(named("rejected ", count(rejected), style));
    }
    if board.knows_late && view.query.severities == [true; 4] {
        let late = rows.iter().map(|row| row.row.late).sum();
        parts.push(named("late ", count(late), bold()));
    }
    if let Some(newest_ms) = board.newest_ms() {
        let newest = time(newest_ms, TimeDetail::Date);
        parts.push(named("newest ", newest, bold()));
    }
    if rejected > 0 {
        parts.push(vec![Span::styled(board.counts.rejected_text(), dim())]);
    }
    let gap = if area.width < ROOMY_COLUMNS { 2 } else { 3 };
    draw_parts(buf, area, parts, gap);
}

/// Draws a line with the counts of the four severities, followed by a bar that shows the share of each severity.
fn draw_severities(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let rows = &picture.rows;
    let sum = |severity: Severity| {
        let counts = rows.iter().map(|row| row.severities[severity.index()]);
        counts.sum::<u64>()
    };
    let is_roomy = area.width >= ROOMY_COLUMNS;
    let part = |severity: Severity| {
        let (name, number) = if is_roomy {
            (severity.name(), count(sum(severity)))
        } else {
            (short_severity(severity), short_count(sum(severity)))
        };
        let name = format!("{name} ");
        vec![
            Span::styled(name, severity_style(severity)),
            Span::raw(number),
        ]
    };
    let gap = if is_roomy { 3 } else { 1 };
    let parts = Severity::ALL.map(part).to_vec();
    let start = draw_parts(buf, area, parts, gap) + gap;
    let width = area.width.saturating_sub(start);
    let total: u64 = rows.iter().map(|row| row.total).sum();
    if width < 12 || total == 0 {
        return;
    }
    let mut left = width;
    for severity in Severity::ALL.into_iter().rev() {
        let share = u128::from(sum(severity)) * u128::from(width) / u128::from(total);
        let share = match (severity, sum(severity)) {
            (_, 0) => 0,
            // The severity "low" gets all remaining columns of the bar, so that rounding leaves no gap.
            (Severity::Low, _) => left,
            _ => u16::try_from(share).unwrap_or(0).clamp(1, left.max(1)),
        };
        let share = share.min(left);
        let x = area.right() - left;
        // Some terminals draw a bold block character differently from a normal block character.
        let style = severity_style(severity).remove_modifier(Modifier::BOLD);
        buf.set_stringn(x, area.y, "▬".repeat(share.into()), share.into(), style);
        left -= share;
    }
}

fn draw_chart(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let view = picture.view;
    let what = match view.kind {
        RecordKind::Events => "events",
        RecordKind::DeadLetters => "rejected",
    };
    let title = format!("{what} per {}", LENGTHS[view.length].1);
    let room = usize::from(area.width).min(WINDOWS);
    let Some(bars) = Bars::new(picture, room) else {
        draw_rule(buf, band(area, 0, 1), &title, "");
        return;
    };
    let (detail, length) = if view.length == LENGTHS.len() - 1 {
        (TimeDetail::Date, "2013-01-31".len())
    } else if area.width < ROOMY_COLUMNS {
        (TimeDetail::Time, "22:54".len())
    } else {
        (TimeDetail::Day, "01-31 22:54".len())
    };
    let [from, until] = [bars.range_ms.0, bars.range_ms.1].map(|ms| time(ms, detail));
    let (from, until) = (&from[..length], &until[..length]);
    let range = format!("most {} · {from} – {until}", count(bars.most()));
    draw_rule(buf, band(area, 0, 1), &title, &range);
    chart::draw(buf, below(area, 1), &bars);
}

/// Draws the list of the latest alerts or of the latest records.
fn draw_records(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let Picture { board, view, .. } = picture;
    let (name, total, kept) = if view.all_records {
        let total = board.counts.sum.total();
        (view.kind.name(), total, board.records.len())
    } else {
        ("alerts", board.alert_count, board.alerts.len())
    };
    let title = if view.query.is_empty() {
        format!("{name} {}", count(total))
    } else {
        format!("{name} among the last {kept}")
    };
    let hint = match (view.kind, view.all_records) {
        (RecordKind::DeadLetters, _) => "",
        (RecordKind::Events, true) => "a alerts only",
        (RecordKind::Events, false) => "a all events",
    };
    draw_rule(buf, band(area, 0, 1), &title, hint);
    record_list::draw(buf, below(area, 1), picture);
}

/// Draws the bottom line, which shows the filter that the user is typing, a message, or the keys.
fn draw_foot(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) -> Option<(u16, u16)> {
    let Picture { live, view, .. } = picture;
    if let Overlay::Typing(_) = view.overlay {
        let text = format!("/{}", view.query.text);
        let used = draw_parts(buf, area, vec![vec![Span::styled(text, bold())]], 0);
        let hint = "enter keeps it, esc drops it";
        if usize::from(used) + hint.len() + 3 <= area.width.into() {
            draw_right(buf, area, &Line::styled(hint, dim()));
        }
        return Some((area.x + used.min(area.width - 1), area.y));
    }
    if let Some((text, is_error)) = view.message(live.now_ms) {
        let color = if is_error { Color::Red } else { Color::Green };
        draw_text(buf, area, text, Style::new().fg(color));
        return None;
    }
    let filter = if view.query.is_empty() {
        "filter".to_owned()
    } else {
        format!("“{}”", cut(&view.query.text, 20))
    };
    let sort = format!("by {}", view.sort.name(view.kind));
    let (other_list, enter) = match view.focus {
        Focus::Records => ("rows", "record"),
        Focus::Rows => ("records", "filter by row"),
    };
    let keys = [
        ("?", "help"),
        ("q", "quit"),
        ("/", &filter),
        ("s", &sort),
        ("w", LENGTHS[view.length].1),
        ("space", "freeze"),
        ("enter", enter),
        ("tab", other_list),
        ("e", "export"),
    ];
    let keys = keys.map(|(key, action)| {
        let action = Span::styled(format!(" {action}"), dim());
        vec![Span::styled(key, bold()), action]
    });
    draw_parts(buf, area, keys.to_vec(), 2);
    None
}
