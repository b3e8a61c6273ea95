//! Draws the table of counts, with as many columns as fit on the screen. The table has a row for each city and event
//! type, or for each reject reason.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::chart;
use super::format::{
    ROOMY_COLUMNS, bold, count, dim, rate, severity_style, short_count, short_severity,
};
use super::picture::Picture;
use super::record_kind::RecordKind;
use super::view::{ScreenView, Sort, VisibleRow};
use crate::core::event::Severity;
use crate::tail::history::{LENGTHS, WINDOWS};
use crate::tail::printable::{fit, width};

/// Maximum width of a city or a reject reason, in columns.
const CITY_COLUMNS_MAX: usize = 24;
/// Maximum width of an event type, in columns.
const TYPE_COLUMNS_MAX: usize = 16;
/// Minimum width of the small chart in a row, in columns. If the table has fewer free columns, the rows have no small
/// charts.
const SPARK_COLUMNS_MIN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// The column for the city or the reject reason.
    City,
    Type,
    Severity(Severity),
    Total,
    Late,
    Rate,
    Spark,
}

/// The columns of the table from left to right, each with its rank. If not all columns fit, the table omits the columns
/// with the highest ranks.
const COLUMNS: [(Column, u8); 10] = [
    (Column::City, 0),
    (Column::Type, 2),
    (Column::Severity(Severity::Low), 8),
    (Column::Severity(Severity::Medium), 7),
    (Column::Severity(Severity::High), 5),
    (Column::Severity(Severity::Critical), 4),
    (Column::Total, 1),
    (Column::Late, 9),
    (Column::Rate, 6),
    (Column::Spark, 3),
];

/// Draws the headings and as many rows as fit, beginning at the scroll position. The row that the user has chosen is
/// always visible. If not all rows fit, the last line says which rows are visible.
pub(super) fn draw(buf: &mut Buffer, area: Rect, picture: &Picture<'_>) {
    let (rows, view) = (&picture.rows, picture.view);
    let columns = columns(area.width.into(), picture);
    let headings = columns.iter().flat_map(|(column, columns)| {
        let is_sorted = matches!(
            (column, view.sort),
            (Column::City, Sort::Name)
                | (Column::Total, Sort::Total)
                | (Column::Rate, Sort::Rate)
                | (Column::Severity(Severity::Critical), Sort::Alerts)
        );
        let style = if is_sorted { bold() } else { dim() };
        let text = fit(
            &heading(*column, view, *columns),
            *columns,
            is_number(*column),
        );
        [Span::styled(text, style), Span::raw(" ")]
    });
    buf.set_line(area.x, area.y, &Line::from_iter(headings), area.width);
    let lines = usize::from(area.height.saturating_sub(1));
    let room = if rows.len() > lines {
        lines.saturating_sub(1)
    } else {
        lines
    };
    let chosen = view.chosen_row_index(rows);
    // Scrolling stops when the last row is visible, so that the last page is always full.
    let first = view.scroll.min(rows.len().saturating_sub(room));
    let first = chosen.map_or(first, |at| first.clamp((at + 1).saturating_sub(room), at));
    for (at, row) in rows.iter().enumerate().skip(first).take(room) {
        let y = area.y + 1 + u16::try_from(at - first).unwrap_or(u16::MAX);
        let spans = columns.iter().flat_map(|(column, columns)| {
            let (text, style) = cell(row, *column, picture, *columns);
            let text = fit(&text, *columns, is_number(*column));
            [Span::styled(text, style), Span::raw(" ")]
        });
        buf.set_line(area.x, y, &Line::from_iter(spans), area.width);
        if chosen == Some(at) {
            buf.set_style(Rect::new(area.x, y, area.width, 1), Modifier::REVERSED);
        }
    }
    if room < lines {
        let last = (first + room).min(rows.len());
        let text = format!("rows {}–{last} of {}", first + 1, rows.len());
        buf.set_stringn(area.x, area.bottom() - 1, text, area.width.into(), dim());
    }
}

fn is_number(column: Column) -> bool {
    !matches!(column, Column::City | Column::Type)
}

fn heading(column: Column, view: &ScreenView, columns: usize) -> String {
    let text = match column {
        Column::City if view.kind == RecordKind::DeadLetters => "reason",
        Column::City => "city",
        Column::Type => "type",
        Column::Severity(severity) => short_severity(severity),
        Column::Total => "total",
        Column::Late => "late",
        Column::Rate => "per s",
        Column::Spark => {
            let name = LENGTHS[view.length].1;
            let text = format!("per {name}");
            return if text.len() <= columns {
                text
            } else {
                name.to_owned()
            };
        }
    };
    text.to_owned()
}

fn cell(
    row: &VisibleRow<'_>,
    column: Column,
    picture: &Picture<'_>,
    columns: usize,
) -> (String, Style) {
    let number = |number: u64, style: Style| {
        let style = if number == 0 { dim() } else { style };
        let text = count(number);
        if text.len() <= columns {
            (text, style)
        } else {
            (short_count(number), style)
        }
    };
    match column {
        Column::City => (row.city.to_owned(), Style::new()),
        Column::Type => (row.event_type.to_owned(), Style::new()),
        Column::Severity(severity) => {
            number(row.severities[severity.index()], severity_style(severity))
        }
        Column::Total => number(row.total, bold()),
        Column::Late => number(row.row.late, Style::new()),
        Column::Rate => {
            let style = if row.rate > 0.0 { Style::new() } else { dim() };
            (rate(row.rate), style)
        }
        Column::Spark => {
            let history = row.row.history.as_deref();
            let text = history
                .zip(picture.board.times_ms)
                .map(|(history, times_ms)| {
                    let view = picture.view;
                    let severities = view.query.severities;
                    chart::spark(history, severities, view.length, times_ms, columns)
                });
            (text.unwrap_or_default(), Style::new().fg(Color::Blue))
        }
    }
}

/// Returns the columns that fit, in order from left to right, each with its width. The small chart uses the remaining
/// width.
fn columns(room: usize, picture: &Picture<'_>) -> Vec<(Column, usize)> {
    let (rows, view) = (&picture.rows, picture.view);
    let is_roomy = room >= usize::from(ROOMY_COLUMNS);
    let city_max = match view.kind {
        // On a narrow screen, the city gets fewer columns, so that there is room for the event type.
        RecordKind::Events => CITY_COLUMNS_MAX.min((room / 4).max(8)),
        RecordKind::DeadLetters => CITY_COLUMNS_MAX,
    };
    let widest = |least: usize, cell_width: &dyn Fn(&VisibleRow<'_>) -> usize| {
        rows.iter().map(cell_width).max().unwrap_or(0).max(least)
    };
    let number_width = |number: u64| {
        let text = if is_roomy {
            count(number)
        } else {
            short_count(number)
        };
        text.len()
    };
    let mut left = room;
    let mut taken = Vec::new();
    let mut by_rank = COLUMNS;
    by_rank.sort_by_key(|(_, rank)| *rank);
    for (column, _) in by_rank {
        let columns = match column {
            // Dead letters have no event type and no severity, and they are never late.
            Column::Type | Column::Severity(_) | Column::Late
                if view.kind == RecordKind::DeadLetters =>
            {
                continue;
            }
            Column::City => {
                let least = heading(column, view, 0).len();
                widest(least, &|row| width(row.city)).min(city_max)
            }
            Column::Type => {
                let most = if is_roomy { TYPE_COLUMNS_MAX } else { 8 };
                widest(4, &|row| width(row.event_type)).min(most)
            }
            Column::Severity(severity) => {
                widest(4, &|row| number_width(row.severities[severity.index()]))
            }
            Column::Total => widest(5, &|row| number_width(row.total)),
            // The column for late events is omitted while severities are filtered, because late events are not counted
            // by severity.
            Column::Late if !picture.board.knows_late || view.query.severities != [true; 4] => {
                continue;
            }
            Column::Late => widest(4, &|row| number_width(row.row.late)),
            Column::Rate => widest(5, &|row| rate(row.rate).len()),
            Column::Spark => SPARK_COLUMNS_MIN,
        };
        let needed = columns + usize::from(!taken.is_empty());
        if needed <= left {
            left -= needed;
            taken.push((column, columns));
        }
    }
    taken.sort_by_key(|(column, _)| COLUMNS.iter().position(|(other, _)| other == column));
    if let Some((_, columns)) = taken.iter_mut().find(|(c, _)| *c == Column::Spark) {
        *columns = (*columns + left).min(WINDOWS);
    }
    taken
}
