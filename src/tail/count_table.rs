//! The table of counts that `tail` prints when it ends.
//!
//! If a table is wider than the terminal, the headings are shortened first. If the table is still too wide, columns are
//! omitted, and finally names are shortened.

use std::cmp::Reverse;

use super::counts::{CountRow, LiveCounts};
use super::printable::{fit, printable, width};
use crate::output;

/// The columns that a narrow table omits, in the order of omission. The column `total` still includes the counts of
/// omitted columns.
const OPTIONAL_COLUMNS: [&str; 4] = ["late", "low", "med", "high"];
/// Minimum width of a shortened name, in columns. If names were even shorter, different rows would often look the same.
const NAME_WIDTH_MIN: usize = 4;

/// Returns the table of event counts, with a line for each city and event type, a line for the sum, and a line for the
/// rejected records.
pub(super) fn event_table(
    counts: &LiveCounts,
    with_late: bool,
    width_max: Option<usize>,
) -> String {
    let mut rows: Vec<_> = counts.rows().collect();
    rows.push(("all", "", &counts.sum));
    let names = |heading, name: fn(&(&str, &str, &CountRow)) -> String| {
        TextColumn::new(heading, false, rows.iter().map(name))
    };
    let numbers = |heading, number: fn(&CountRow) -> u64| {
        let cells = rows.iter().map(|(_, _, row)| number(row).to_string());
        TextColumn::new(heading, true, cells)
    };
    let mut table = vec![
        names("city", |row| printable(row.0)),
        names("type", |row| printable(row.1)),
        numbers("low", |row| row.severities[0]),
        numbers("medium", |row| row.severities[1]),
        numbers("high", |row| row.severities[2]),
        numbers("critical", |row| row.severities[3]),
        numbers("total", CountRow::total),
    ];
    if with_late {
        table.push(numbers("late", |row| row.late));
    }
    let mut text = aligned(table, width_max);
    if counts.rejected_total() > 0 {
        let rejected = counts.rejected_text();
        text.push_str(&output::lines("rejected: ", &rejected, 2, width_max));
    }
    text
}

/// Returns the table of dead-letter counts, with a line for each reject reason, a line for the sum, and the number of
/// repeats. The most frequent reason comes first.
pub(super) fn dead_letter_table(counts: &LiveCounts, width_max: Option<usize>) -> String {
    let mut rows: Vec<_> = counts.rows().collect();
    rows.sort_by_key(|(reason, _, row)| (Reverse(row.total()), *reason));
    rows.push(("all", "", &counts.sum));
    let reasons = rows.iter().map(|row| printable(row.0));
    let totals = rows.iter().map(|row| row.2.total().to_string());
    let table = vec![
        TextColumn::new("reason", false, reasons),
        TextColumn::new("records", true, totals),
    ];
    let mut text = aligned(table, width_max);
    if counts.repeat_count > 0 {
        text.push_str(&output::lines("", &counts.repeats_text(), 2, width_max));
    }
    text
}

struct TextColumn {
    heading: &'static str,
    is_number: bool,
    cells: Vec<String>,
    width: usize,
}

impl TextColumn {
    fn new(
        heading: &'static str,
        is_number: bool,
        cells: impl Iterator<Item = String>,
    ) -> TextColumn {
        let cells: Vec<String> = cells.collect();
        let widest = cells.iter().map(|cell| width(cell)).max().unwrap_or(0);
        TextColumn {
            heading,
            is_number,
            width: widest.max(heading.len()),
            cells,
        }
    }

    fn shorten_heading(self) -> TextColumn {
        let heading = match self.heading {
            "medium" => "med",
            "critical" => "crit",
            other => other,
        };
        TextColumn::new(heading, self.is_number, self.cells.into_iter())
    }
}

/// Returns the table as lines of text. Names are aligned left, and numbers are aligned right.
fn aligned(mut table: Vec<TextColumn>, width_max: Option<usize>) -> String {
    let is_too_wide = |table: &[TextColumn], gap: usize| {
        let cells = table.iter().map(|column| column.width).sum::<usize>();
        width_max.is_some_and(|max| cells + gap * (table.len() - 1) > max)
    };
    let mut gap = 2;
    if is_too_wide(&table, gap) {
        gap = 1;
        table = table.into_iter().map(TextColumn::shorten_heading).collect();
    }
    for heading in OPTIONAL_COLUMNS {
        if is_too_wide(&table, gap) {
            table.retain(|column| column.heading != heading);
        }
    }
    while is_too_wide(&table, gap) {
        let names = table.iter_mut().filter(|column| !column.is_number);
        match names.max_by_key(|column| column.width) {
            Some(name) if name.width > NAME_WIDTH_MIN => name.width -= 1,
            _ => break,
        }
    }
    let line = |cell: &dyn Fn(&TextColumn) -> String| {
        let cells = table.iter();
        let cells = cells.map(|column| fit(&cell(column), column.width, column.is_number));
        let line = cells.collect::<Vec<String>>().join(&" ".repeat(gap));
        format!("{}\n", line.trim_end())
    };
    let row_count = table.first().map_or(0, |column| column.cells.len());
    let rows = (0..row_count).map(|row| line(&|column| column.cells[row].clone()));
    std::iter::once(line(&|column| column.heading.to_owned()))
        .chain(rows)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::board::tests::{event, letter};
    use super::super::classify::TailEvent;
    use super::*;
    use crate::core::event::Severity;
    use crate::core::parse::Reason;

    fn counts() -> LiveCounts {
        let mut counts = LiveCounts::default();
        let traffic = |city| event(city, "traffic", Severity::Low, 0);
        counts.add_event(&traffic("São Paulo"));
        counts.add_event(&traffic("東京"));
        for late in [true, false] {
            counts.add_event(&TailEvent {
                late,
                ..event("NYC", "weather", Severity::Critical, 0)
            });
        }
        counts.add_rejected(Reason::BadCity);
        counts.add_rejected(Reason::NotJson);
        counts.add_rejected(Reason::NotJson);
        counts
    }

    #[test]
    fn the_table_has_a_line_for_each_city_and_type_and_for_the_sum() {
        let want = "\
city       type     low  medium  high  critical  total  late
NYC        weather    0       0     0         2      2     1
São Paulo  traffic    1       0     0         0      1     0
東京       traffic    1       0     0         0      1     0
all                   2       0     0         2      4     1
rejected: not_json 2, bad_city 1
";
        assert_eq!(event_table(&counts(), true, None), want);
        assert_eq!(event_table(&counts(), true, Some(60)), want);
        assert!(!event_table(&counts(), false, None).contains("late"));
    }

    #[test]
    fn a_narrow_table_has_shorter_headings_then_fewer_columns_then_shorter_names() {
        let want = "\
city      type    low med high crit total late
NYC       weather   0   0    0    2     2    1
São Paulo traffic   1   0    0    0     1    0
東京      traffic   1   0    0    0     1    0
all                 2   0    0    2     4    1
rejected: not_json 2, bad_city 1
";
        assert_eq!(event_table(&counts(), true, Some(59)), want);
        let want = "\
city      type    med high crit total
NYC       weather   0    0    2     2
São Paulo traffic   0    0    0     1
東京      traffic   0    0    0     1
all                 0    0    2     4
rejected: not_json 2, bad_city 1
";
        assert_eq!(event_table(&counts(), true, Some(40)), want);
        let want = "\
city    type   crit total
NYC     weath…    2     2
São Pa… traff…    0     1
東京    traff…    0     1
all               2     4
rejected: not_json 2,
  bad_city 1
";
        assert_eq!(event_table(&counts(), true, Some(25)), want);
        for width_max in 20..80 {
            let text = event_table(&counts(), true, Some(width_max));
            assert!(text.lines().all(|line| width(line) <= width_max), "{text}");
        }
    }

    #[test]
    fn dead_letters_are_counted_by_reason_and_repeats_once() {
        let mut counts = LiveCounts::default();
        for (reason, offset) in [("bad_city", 17), ("not_json", 18), ("not_json", 19)] {
            counts.add_dead_letter(&letter(reason, 3, offset, None));
        }
        let table = "reason    records\nnot_json        2\nbad_city        1\nall             3\n";
        assert_eq!(dead_letter_table(&counts, None), table);
        for offset in [17, 18] {
            assert!(!counts.add_dead_letter(&letter("not_json", 3, offset, None)));
        }
        let repeats = "rejected again after a restart: 2\n";
        assert_eq!(
            dead_letter_table(&counts, Some(40)),
            format!("{table}{repeats}")
        );
    }
}
