//! The rows by city and type, or by reason: which columns fit, and drawing them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::text::{Line as Text, Span};

use super::chart;
use super::text::{bold, count, dim, fit, of_severity, rate, short_count, short_severity, width};
use super::view::{Kind, Line, Sort, View};
use crate::core::event::Severity;
use crate::tail::board::Board;
use crate::tail::history::{LENGTHS, WINDOWS};

/// Widest city.
const CITY_MAX: usize = 24;
/// Widest type.
const TYPE_MAX: usize = 16;
/// Narrowest chart of a row that is worth its place.
const SPARK_MIN: usize = 8;

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    City,
    Type,
    Severity(Severity),
    Total,
    Late,
    Rate,
    Spark,
}

/// In the order of the screen.
const ORDER: [Column; 10] = [
    Column::City,
    Column::Type,
    Column::Severity(Severity::Low),
    Column::Severity(Severity::Medium),
    Column::Severity(Severity::High),
    Column::Severity(Severity::Critical),
    Column::Total,
    Column::Late,
    Column::Rate,
    Column::Spark,
];

/// In the order in which they get their place.
const PRIORITY: [Column; 10] = [
    Column::City,
    Column::Total,
    Column::Type,
    Column::Spark,
    Column::Severity(Severity::Critical),
    Column::Severity(Severity::High),
    Column::Rate,
    Column::Severity(Severity::Medium),
    Column::Severity(Severity::Low),
    Column::Late,
];

/// The same of rejected records.
const PRIORITY_OF_LETTERS: [Column; 4] = [Column::City, Column::Total, Column::Spark, Column::Rate];

/// Draws the head and as many rows as fit, from the one the view is scrolled to.
pub(super) fn draw(buf: &mut Buffer, area: Rect, lines: &[Line<'_>], board: &Board, view: &View) {
    let columns = columns(area.width.into(), lines, board, view);
    let mut head = Vec::new();
    for (column, wide) in &columns {
        let sorted = matches!(
            (column, view.sort),
            (Column::City, Sort::Name)
                | (Column::Total, Sort::Total)
                | (Column::Rate, Sort::Rate)
                | (Column::Severity(Severity::Critical), Sort::Alerts)
        );
        let style = if sorted { bold() } else { dim() };
        let text = fit(&title(*column, view, *wide), *wide, is_number(*column));
        head.extend([Span::styled(text, style), Span::raw(" ")]);
    }
    buf.set_line(area.x, area.y, &Text::from(head), area.width);
    let room = usize::from(area.height.saturating_sub(1));
    let shown = lines.iter().skip(first(lines.len(), room, view.scroll));
    for (y, line) in (area.y + 1..area.bottom()).zip(shown) {
        let spans = columns.iter().flat_map(|(column, wide)| {
            let (text, style) = cell(line, *column, board, view, *wide);
            let text = fit(&text, *wide, is_number(*column));
            [Span::styled(text, style), Span::raw(" ")]
        });
        buf.set_line(area.x, y, &Text::from_iter(spans), area.width);
    }
}

/// Returns the first row that is shown: no place is left empty while rows are out of sight.
pub(super) fn first(rows: usize, room: usize, scroll: usize) -> usize {
    scroll.min(rows.saturating_sub(room))
}

fn is_number(column: Column) -> bool {
    !matches!(column, Column::City | Column::Type)
}

fn title(column: Column, view: &View, wide: usize) -> String {
    match column {
        Column::City if view.kind == Kind::Letters => "reason".to_owned(),
        Column::City => "city".to_owned(),
        Column::Type => "type".to_owned(),
        Column::Severity(severity) => short_severity(severity).to_owned(),
        Column::Total => "total".to_owned(),
        Column::Late => "late".to_owned(),
        Column::Rate => "per s".to_owned(),
        Column::Spark => {
            let name = LENGTHS[view.length].1;
            let long = format!("per {name}");
            if long.len() <= wide {
                long
            } else {
                name.to_owned()
            }
        }
    }
}

fn cell(
    line: &Line<'_>,
    column: Column,
    board: &Board,
    view: &View,
    wide: usize,
) -> (String, Style) {
    let number = |number: u64, style: Style| {
        let style = if number == 0 { dim() } else { style };
        let long = count(number);
        let text = if long.len() <= wide {
            long
        } else {
            short_count(number)
        };
        (text, style)
    };
    match column {
        Column::City => (line.city.to_owned(), Style::new()),
        Column::Type => (line.event_type.to_owned(), Style::new()),
        Column::Severity(severity) => number(line.tally[severity.index()], of_severity(severity)),
        Column::Total => number(line.total, bold()),
        Column::Late => number(line.row.late, Style::new()),
        Column::Rate => (
            rate(line.rate),
            if line.rate > 0.0 { Style::new() } else { dim() },
        ),
        Column::Spark => {
            let history = line.row.history.as_deref();
            let text = history.zip(board.times_ms).map(|(history, times_ms)| {
                chart::spark(history, view.query.severities, view.length, times_ms, wide)
            });
            (text.unwrap_or_default(), Style::new().fg(Color::Blue))
        }
    }
}

/// Returns the columns that fit, with their widths. What is left over goes to the charts.
fn columns(room: usize, lines: &[Line<'_>], board: &Board, view: &View) -> Vec<(Column, usize)> {
    let mut left = room;
    let mut taken = Vec::new();
    let (priority, city_max) = match view.kind {
        // Two names share what is there when it is little.
        Kind::Events => (&PRIORITY[..], CITY_MAX.min((room / 4).max(8))),
        Kind::Letters => (&PRIORITY_OF_LETTERS[..], CITY_MAX),
    };
    for column in priority.iter().copied() {
        let wide = match column {
            Column::City => {
                let least = title(column, view, 0).len();
                widest(lines.iter().map(|l| width(l.city)), least).min(city_max)
            }
            Column::Type => {
                let most = if room < 60 { 8 } else { TYPE_MAX };
                widest(lines.iter().map(|l| width(l.event_type)), 4).min(most)
            }
            Column::Severity(severity) => {
                let at = severity.index();
                let of_line = |l: &Line<'_>| number_width(l.tally[at], room);
                widest(lines.iter().map(of_line), 4)
            }
            Column::Total => widest(lines.iter().map(|l| number_width(l.total, room)), 5),
            // They are not counted by severity.
            Column::Late if !board.knows_late || view.query.severities != [true; 4] => continue,
            Column::Late => widest(lines.iter().map(|l| number_width(l.row.late, room)), 4),
            Column::Rate => widest(lines.iter().map(|l| rate(l.rate).len()), 5),
            Column::Spark => SPARK_MIN,
        };
        let needed = wide + usize::from(!taken.is_empty());
        if needed > left {
            continue;
        }
        left -= needed;
        taken.push((column, wide));
    }
    let mut columns: Vec<(Column, usize)> = ORDER
        .into_iter()
        .filter_map(|column| taken.iter().copied().find(|(c, _)| *c == column))
        .collect();
    if let Some((_, wide)) = columns.iter_mut().find(|(c, _)| *c == Column::Spark) {
        *wide = (*wide + left).min(WINDOWS);
    }
    columns
}

fn widest(widths: impl Iterator<Item = usize>, least: usize) -> usize {
    widths.max().unwrap_or(0).max(least)
}

/// A narrow screen has short numbers.
fn number_width(number: u64, room: usize) -> usize {
    if room < 60 {
        short_count(number).len()
    } else {
        count(number).len()
    }
}
