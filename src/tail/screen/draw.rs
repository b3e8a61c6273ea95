//! The picture: where each part of the screen stands, and its lines of numbers and keys.
//!
//! A function of the board and the view, so that tests can look at it without a terminal. From 40 to
//! 200 columns nothing is cut that matters: what does not fit is left out, the least important first.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};

use super::chart::{self, Bars};
use super::text::{
    Detail, bold, count, cut, dim, of_severity, rate, short_count, short_severity, time,
};
use super::view::{Kind, Line, Over, View};
use super::{overlay, record_list, table};
use crate::core::event::Severity;
use crate::tail::board::{Board, State};
use crate::tail::history::{LENGTHS, WINDOWS};

/// Smallest screen on which anything is worth drawing.
const SMALLEST: (u16, u16) = (24, 6);
/// From this width on, rows and records stand side by side.
const SIDE_BY_SIDE: u16 = 150;
/// Records behind the log's end that are a moment's worth; their number stands beside it.
const LIVE_BEHIND_MAX: u64 = 1_000;

/// What does not change while the screen is up.
#[derive(Clone, Debug)]
pub(super) struct Heading {
    /// The topic.
    pub(super) topic: String,
    /// Where reading began, `from beginning`.
    pub(super) from: String,
    /// What the command line lets through; empty if all.
    pub(super) filter: String,
}

/// Draws everything, and returns where the cursor stands, if it is to be seen.
pub(super) fn draw(
    buf: &mut Buffer,
    heading: &Heading,
    live: &Board,
    view: &View,
) -> Option<(u16, u16)> {
    let area = buf.area;
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("tail needs {}×{}", SMALLEST.0, SMALLEST.1);
        buf.set_stringn(area.x, area.y, text, area.width.into(), Style::new());
        return None;
    }
    let board = view.shown(live);
    let lines = view.lines(board);
    head(buf, line_at(area, 0), heading, live, view);
    numbers(buf, line_at(area, 1), &lines, board, view);
    if view.kind == Kind::Events {
        shares(buf, line_at(area, 2), &lines);
    }
    let places = places(area, lines.len(), view.kind);
    if let Some(place) = places.chart {
        draw_chart(buf, place, &lines, board, view);
    }
    table::draw(buf, places.table, &lines, board, view);
    if let Some(place) = places.records {
        list(buf, place, board, view, true);
    }
    if let Some(place) = places.others {
        list(buf, place, board, view, false);
    }
    let cursor = foot(buf, line_at(area, area.height - 1), live, view);
    match &view.over {
        Over::Help => overlay::help(buf, area, view.kind),
        Over::Record(seen, line) => overlay::record(buf, area, seen, *line, &heading.topic),
        Over::Nothing | Over::Typing(_) => {}
    }
    cursor
}

/// Draws one of the two lists: the one that records are chosen from, or the other.
fn list(buf: &mut Buffer, area: Rect, board: &Board, view: &View, main: bool) {
    let all_records = view.all_records == main;
    let (name, total, kept) = if all_records {
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
    let hint = match (view.kind, main, all_records) {
        (Kind::Letters, _, _) | (_, false, _) => "",
        (_, true, true) => "a alerts only",
        (_, true, false) => "a all events",
    };
    rule(buf, line_at(area, 0), &title, hint);
    let chosen = view.chosen.filter(|_| main);
    record_list::draw(buf, below(area, 1), board, &view.query, all_records, chosen);
}

struct Places {
    chart: Option<Rect>,
    table: Rect,
    /// The list that records are chosen from.
    records: Option<Rect>,
    /// The other one, where there is room left.
    others: Option<Rect>,
}

/// Divides what is between the numbers and the keys.
fn places(area: Rect, rows: usize, kind: Kind) -> Places {
    // Lines of numbers; and one of keys.
    let above = match kind {
        Kind::Events => 3,
        Kind::Letters => 2,
    };
    let mut rest = Rect {
        y: area.y + above,
        height: area.height - above - 1,
        ..area
    };
    // With its title.
    let tall = match area.height {
        40.. => 8,
        30..40 => 5,
        22..30 => 3,
        _ => 0,
    };
    let chart = (tall > 0).then_some(Rect {
        height: tall,
        ..rest
    });
    rest = below(rest, tall);
    let rows = u16::try_from(rows).unwrap_or(u16::MAX).max(1);
    if area.width >= SIDE_BY_SIDE {
        let left = match kind {
            Kind::Events => area.width * 3 / 5,
            // Few columns of numbers, and long values.
            Kind::Letters => area.width * 2 / 5,
        };
        let records = Rect {
            x: rest.x + left + 2,
            width: rest.width - left - 2,
            ..rest
        };
        let table = Rect {
            width: left,
            height: rest.height.min(rows.saturating_add(1)),
            ..rest
        };
        let others = below(
            Rect {
                width: left,
                ..rest
            },
            table.height,
        );
        return Places {
            chart,
            table,
            records: Some(records),
            others: (others.height >= 4 && kind == Kind::Events).then_some(others),
        };
    }
    let least = if rest.height >= 7 {
        (rest.height / 3).max(3)
    } else {
        0
    };
    let table = (rest.height - least).min(rows.saturating_add(1));
    let left = rest.height - table;
    Places {
        chart,
        table: Rect {
            height: table,
            ..rest
        },
        records: (least > 0 && left >= 2).then(|| below(rest, table)),
        others: None,
    }
}

fn line_at(area: Rect, y: u16) -> Rect {
    Rect {
        y: area.y + y.min(area.height.saturating_sub(1)),
        height: area.height.min(1),
        ..area
    }
}

fn below(area: Rect, lines: u16) -> Rect {
    let lines = lines.min(area.height);
    Rect {
        y: area.y + lines,
        height: area.height - lines,
        ..area
    }
}

/// Draws spans from the left as far as they fit as a whole; returns the columns they take.
fn whole(buf: &mut Buffer, area: Rect, parts: &[Vec<Span<'_>>], gap: u16) -> u16 {
    let mut used = 0;
    for part in parts {
        let line = Text::from(part.clone());
        let wide = u16::try_from(line.width()).unwrap_or(u16::MAX);
        let space = if used == 0 { 0 } else { gap };
        if used + space + wide > area.width {
            break;
        }
        buf.set_line(area.x + used + space, area.y, &line, wide);
        used += space + wide;
    }
    used
}

fn to_the_right(buf: &mut Buffer, area: Rect, line: &Text<'_>) {
    let wide = u16::try_from(line.width())
        .unwrap_or(u16::MAX)
        .min(area.width);
    buf.set_line(area.right() - wide, area.y, line, wide);
}

fn head(buf: &mut Buffer, area: Rect, heading: &Heading, live: &Board, view: &View) {
    let (text, style) = match (&view.frozen, &live.state) {
        (Some(frozen), _) => {
            let since = live.counts.sum.total() - frozen.counts.sum.total();
            let style = Style::new().add_modifier(Modifier::REVERSED);
            (format!(" frozen, {} since ", count(since)), style)
        }
        (None, State::Waiting(why)) => {
            // The reason matters more than all that stands beside it.
            let room = usize::from(area.width.saturating_sub(16));
            let (what, _) = what_and_todo(why);
            let text = cut(&format!("◌ {what}"), room);
            (text, Style::new().fg(Color::Yellow))
        }
        (None, State::Reading(0..=LIVE_BEHIND_MAX)) => {
            ("● live".to_owned(), Style::new().fg(Color::Green))
        }
        (None, State::Reading(_)) => ("● catching up".to_owned(), Style::new().fg(Color::Cyan)),
    };
    let state = Text::styled(text, style);
    let room = area
        .width
        .saturating_sub(u16::try_from(state.width()).unwrap_or(0) + 1);
    let left = Rect {
        width: room,
        ..area
    };
    let topic = Span::styled(
        cut(&heading.topic, usize::from(room.saturating_sub(5))),
        bold(),
    );
    let name = if area.width >= 60 && room >= 26 {
        "citystream tail"
    } else {
        "tail"
    };
    let mut parts = vec![
        vec![
            Span::styled(name, Style::new().fg(Color::Cyan)),
            Span::raw(" "),
            topic,
        ],
        vec![Span::styled(heading.from.clone(), dim())],
    ];
    if !heading.filter.is_empty() {
        parts.push(vec![Span::raw(heading.filter.clone())]);
    }
    whole(buf, left, &parts, 2);
    to_the_right(buf, area, &state);
}

/// Divides a reason into what is wrong and what to do about it.
fn what_and_todo(why: &str) -> (&str, Option<&str>) {
    match why.split_once("; ") {
        Some((what, todo)) => (what, Some(todo)),
        None => (why, None),
    }
}

fn numbers(buf: &mut Buffer, area: Rect, lines: &[Line<'_>], board: &Board, view: &View) {
    let name = view.kind.name();
    let part = |value: String, label: String| {
        vec![Span::styled(value, bold()), Span::styled(label, dim())]
    };
    let named = |label: &'static str, value: String, style: Style| {
        vec![Span::styled(label, dim()), Span::styled(value, style)]
    };
    let all = board.counts.sum.total();
    if let (State::Waiting(why), 0) = (&board.state, all)
        && let (_, Some(todo)) = what_and_todo(why)
    {
        let text = cut(todo, area.width.into());
        let style = Style::new().fg(Color::Yellow);
        buf.set_stringn(area.x, area.y, text, area.width.into(), style);
        return;
    }
    let mut parts = Vec::new();
    if view.query.is_empty() || view.kind == Kind::Letters {
        parts.push(part(count(all), format!(" {name}")));
    } else {
        let shown: u64 = lines.iter().map(|line| line.total).sum();
        parts.push(part(count(shown), format!(" of {} {name}", count(all))));
    }
    let per_second = lines.iter().map(|line| line.rate).sum();
    parts.push(part(rate(per_second), "/s".to_owned()));
    if let State::Reading(behind) = board.state {
        let style = if behind > 0 {
            Style::new().fg(Color::Cyan)
        } else {
            bold()
        };
        parts.push(named("lag ", count(behind), style));
    }
    let rejected = board.counts.rejected_total();
    if rejected > 0 {
        let style = Style::new().fg(Color::Red);
        parts.push(named("rejected ", count(rejected), style));
    }
    if board.knows_late && view.query.severities == [true; 4] {
        let late: u64 = lines.iter().map(|line| line.row.late).sum();
        parts.push(named("late ", count(late), bold()));
    }
    if let Some(newest_ms) = board.newest_ms() {
        parts.push(named("newest ", time(newest_ms, Detail::Date), bold()));
    }
    if rejected > 0 {
        parts.push(vec![Span::styled(board.counts.rejected_text(), dim())]);
    }
    whole(buf, area, &parts, if area.width < 60 { 2 } else { 3 });
}

/// The four severities: their counts, and a bar that is as long as the rest of the line.
fn shares(buf: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    let mut tally = [0; 4];
    for line in lines {
        for (sum, count) in tally.iter_mut().zip(line.tally) {
            *sum += count;
        }
    }
    let part = |severity: Severity| {
        let number = tally[severity.index()];
        let (name, number) = if area.width >= 60 {
            (severity.name(), count(number))
        } else {
            (short_severity(severity), short_count(number))
        };
        vec![
            Span::styled(format!("{name} "), of_severity(severity)),
            Span::raw(number),
        ]
    };
    let gap = if area.width >= 60 { 3 } else { 1 };
    let used = whole(buf, area, &Severity::ALL.map(part), gap);
    let place = Rect {
        x: area.x + used + gap,
        width: area.width.saturating_sub(used + gap),
        ..area
    };
    let total: u64 = tally.iter().sum();
    if place.width < 12 || total == 0 {
        return;
    }
    let mut x = place.x;
    for severity in [
        Severity::Critical,
        Severity::High,
        Severity::Medium,
        Severity::Low,
    ] {
        let number = tally[severity.index()];
        let share = u128::from(number) * u128::from(place.width) / u128::from(total);
        let wide = u16::try_from(share).unwrap_or(0).max(u16::from(number > 0));
        let left = place.right().saturating_sub(x);
        let wide = if severity == Severity::Low && number > 0 {
            left
        } else {
            wide.min(left)
        };
        // A bold block is another character on some terminals.
        let style = of_severity(severity).remove_modifier(Modifier::BOLD);
        buf.set_stringn(x, place.y, "▬".repeat(wide.into()), wide.into(), style);
        x += wide;
    }
}

/// A title on a line across the area, with something at its right end.
fn rule(buf: &mut Buffer, area: Rect, title: &str, right: &str) {
    buf.set_stringn(
        area.x,
        area.y,
        "─".repeat(area.width.into()),
        area.width.into(),
        dim(),
    );
    let title = Text::from(vec![
        Span::styled(cut(title, area.width.into()), bold()),
        Span::raw(" "),
    ]);
    let right = Text::from(vec![Span::raw(" "), Span::styled(right, dim())]);
    buf.set_line(area.x, area.y, &title, area.width);
    if title.width() + right.width() + 2 <= usize::from(area.width) {
        to_the_right(buf, area, &right);
    }
}

fn draw_chart(buf: &mut Buffer, area: Rect, lines: &[Line<'_>], board: &Board, view: &View) {
    let what = match view.kind {
        Kind::Events => "events",
        Kind::Letters => "rejected",
    };
    let title = format!("{what} per {}", LENGTHS[view.length].1);
    let room = usize::from(area.width).min(WINDOWS);
    let Some(bars) = Bars::of(lines, board, view, room) else {
        rule(buf, line_at(area, 0), &title, "");
        return;
    };
    let (from_ms, until_ms) = bars.range_ms;
    let (from, until) = if view.length == LENGTHS.len() - 1 {
        let day = |ms| time(ms, Detail::Date)[..10].to_owned();
        (day(from_ms), day(until_ms))
    } else if area.width < 60 {
        let minute = |ms| time(ms, Detail::Time)[..5].to_owned();
        (minute(from_ms), minute(until_ms))
    } else {
        let minute = |ms| time(ms, Detail::Day)[..11].to_owned();
        (minute(from_ms), minute(until_ms))
    };
    let range = format!("most {} · {from} – {until}", count(bars.most()));
    rule(buf, line_at(area, 0), &title, &range);
    chart::draw(buf, below(area, 1), &bars);
}

/// The keys, or what is typed, or what there is to tell.
fn foot(buf: &mut Buffer, area: Rect, live: &Board, view: &View) -> Option<(u16, u16)> {
    if let Over::Typing(_) = view.over {
        let text = format!("/{}", view.query.text);
        let used = whole(buf, area, &[vec![Span::styled(text, bold())]], 0);
        let hint = "enter keeps it, esc drops it";
        if usize::from(used) + hint.len() + 3 <= area.width.into() {
            to_the_right(buf, area, &Text::styled(hint, dim()));
        }
        return Some((area.x + used.min(area.width - 1), area.y));
    }
    if let Some((text, is_error)) = view.message(live.now_ms) {
        let style = if is_error {
            Style::new().fg(Color::Red)
        } else {
            Style::new().fg(Color::Green)
        };
        let text = cut(text, area.width.into());
        buf.set_stringn(area.x, area.y, text, area.width.into(), style);
        return None;
    }
    let key = |key: &'static str, what: String| {
        vec![
            Span::styled(key, bold()),
            Span::styled(format!(" {what}"), dim()),
        ]
    };
    let filter = if view.query.is_empty() {
        "filter".to_owned()
    } else {
        format!("“{}”", cut(&view.query.text, 20))
    };
    let keys = [
        key("?", "help".to_owned()),
        key("q", "quit".to_owned()),
        key("/", filter),
        key("s", format!("by {}", view.sort.name(view.kind))),
        key("w", LENGTHS[view.length].1.to_owned()),
        key("space", "freeze".to_owned()),
        key("enter", "record".to_owned()),
        key("e", "export".to_owned()),
    ];
    whole(buf, area, &keys, 2);
    None
}
