//! The counts that `tail` shows: events by city, type and severity, late ones, rejected records; or
//! dead letters by reason, each reason a row.
//!
//! Memory is bounded: beyond [`ROWS_MAX`] rows the rest counts under one row. For a
//! screen each row also keeps its recent past, see [`History`]: 7 KB a row.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use unicode_width::UnicodeWidthStr as _;

use super::classify::Sighting;
use super::dead_letters;
use super::event_line::push_printable;
use super::history::History;
use crate::core::parse::Reason;
use crate::kafka::reader::Letter;

/// Most rows; a feed with more different cities or reasons than this is broken.
pub(super) const ROWS_MAX: usize = 10_000;
/// Most rejected records that are remembered to recognize repeats: 16 MB. Letters after that all count.
const REJECTED_KNOWN_MAX: usize = 1_000_000;
/// The row of what is beyond [`ROWS_MAX`]. No event can have this city, and no letter this reason.
const OTHER: &str = "#other";

/// The counts of one city and type, of one reason, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Events by severity, in rising order, late ones too; letters are all in the first place.
    pub(super) severities: [u64; 4],
    /// Events that came after their window was over.
    pub(super) late: u64,
    /// The recent past, where it is kept.
    pub(super) history: Option<Box<History>>,
}

impl Row {
    /// Returns the number of events.
    pub(super) fn total(&self) -> u64 {
        self.severities.iter().sum()
    }

    fn add(&mut self, seen: &Sighting) {
        self.severities[seen.event.severity.index()] += 1;
        self.late += u64::from(seen.late);
        // A time that cannot be believed would push all others out of sight.
        if let (Some(history), false) = (&mut self.history, seen.future) {
            history.add(seen.event.time_ms, seen.event.severity.index());
        }
    }

    fn add_letter(&mut self, time_ms: Option<i64>) {
        self.severities[0] += 1;
        if let Some((history, time_ms)) = self.history.as_mut().zip(time_ms) {
            history.add(time_ms, 0);
        }
    }
}

/// Everything counted so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    rows: BTreeMap<Box<str>, BTreeMap<Box<str>, Row>>,
    row_count: usize,
    with_history: bool,
    /// All events.
    pub(super) sum: Row,
    /// Records that are neither events nor heartbeats, by reason.
    pub(super) rejected: [u64; Reason::ALL.len()],
    /// Letters about records that an earlier letter is about: consumers that start again reject again.
    pub(super) repeat_count: u64,
    /// Hashes of the records that letters are about.
    known: HashSet<u64>,
    hasher: RandomState,
}

impl Counts {
    /// Returns counts whose rows keep their recent past.
    pub(super) fn with_history() -> Counts {
        Counts {
            with_history: true,
            ..Counts::default()
        }
    }

    /// Counts one event.
    pub(super) fn add(&mut self, seen: &Sighting) {
        self.sum.add(seen);
        let event = &seen.event;
        self.count(&event.city, &event.event_type, |row| row.add(seen));
    }

    /// Counts one dead letter. Returns `false` if an earlier letter is about the same record.
    pub(super) fn add_letter(&mut self, letter: &Letter) -> bool {
        if self.is_repeat(letter) {
            self.repeat_count += 1;
            return false;
        }
        let time_ms = dead_letters::time_ms(letter);
        self.sum.add_letter(time_ms);
        self.count(dead_letters::reason(letter), "", |row| {
            row.add_letter(time_ms)
        });
        true
    }

    fn is_repeat(&mut self, letter: &Letter) -> bool {
        let Some(identity) = dead_letters::identity(letter) else {
            return false;
        };
        let hash = self.hasher.hash_one(identity);
        if self.known.len() >= REJECTED_KNOWN_MAX {
            return self.known.contains(&hash);
        }
        !self.known.insert(hash)
    }

    /// Counts in the row of two names, or in that of the rest where there are too many.
    fn count(&mut self, city: &str, event_type: &str, count: impl FnOnce(&mut Row)) {
        let row = self
            .rows
            .get_mut(city)
            .and_then(|types| types.get_mut(event_type));
        if let Some(row) = row {
            count(row);
            return;
        }
        let (city, event_type) = if self.row_count < ROWS_MAX {
            self.row_count += 1;
            (city, event_type)
        } else {
            (OTHER, "")
        };
        let types = self.rows.entry(city.into()).or_default();
        let row = types.entry(event_type.into()).or_insert_with(|| Row {
            history: self.with_history.then(Box::default),
            ..Row::default()
        });
        count(row);
    }

    /// Returns the rows with their city and type, or reason and nothing.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        self.rows.iter().flat_map(|(city, types)| {
            types
                .iter()
                .map(|(event_type, row)| (&**city, &**event_type, row))
        })
    }

    /// Notes each row's counts in place `at` of its past.
    pub(super) fn mark(&mut self, at: usize) {
        for row in self.rows.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(history) = &mut row.history {
                history.mark(at, row.severities);
            }
        }
    }

    /// Counts one rejected record.
    pub(super) fn reject(&mut self, reason: Reason) {
        if let Some(index) = Reason::ALL.iter().position(|r| *r == reason) {
            self.rejected[index] += 1;
        }
    }

    /// Returns the number of rejected records.
    pub(super) fn rejected_total(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Returns the table, a line per city and type, then the sum, then what was rejected.
    pub(super) fn table(&self, with_late: bool) -> String {
        let mut lines: Vec<Vec<String>> = Vec::new();
        let mut head: Vec<String> = ["city", "type", "low", "medium", "high", "critical", "total"]
            .map(str::to_owned)
            .to_vec();
        head.extend(with_late.then(|| "late".to_owned()));
        lines.push(head);
        let line = |city: &str, event_type: &str, row: &Row| {
            let mut line = vec![String::new(), event_type.to_owned()];
            push_printable(&mut line[0], city);
            line.extend(row.severities.iter().map(u64::to_string));
            line.push(row.total().to_string());
            line.extend(with_late.then(|| row.late.to_string()));
            line
        };
        for (city, event_type, row) in self.rows() {
            lines.push(line(city, event_type, row));
        }
        lines.push(line("all", "", &self.sum));
        let mut out = aligned(&lines);
        if self.rejected_total() > 0 {
            out.push_str("rejected: ");
            out.push_str(&self.rejected_text());
            out.push('\n');
        }
        out
    }

    /// Returns `not_json 3, bad_city 1`, in the order of judgement.
    pub(super) fn rejected_text(&self) -> String {
        let reasons = Reason::ALL.iter().zip(self.rejected);
        let told: Vec<String> = reasons
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        told.join(", ")
    }
}

/// The first two columns to the left, numbers to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let cells = lines.iter().map(|line| line[at].width());
            cells.max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width.saturating_sub(cell.width()));
            let (before, behind) = if at < 2 { ("", &*space) } else { (&*space, "") };
            text.extend([before, cell, behind, "  "]);
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{Event, Offset, Severity};

    fn seen(city: &str, event_type: &str, severity: Severity, late: bool) -> Sighting {
        Sighting {
            event: Event {
                city: city.into(),
                event_type: event_type.into(),
                severity,
                time_ms: 0,
                description: "".into(),
                event_id: None,
                extra: None,
            },
            late,
            future: false,
            partition: 0,
            offset: Offset(0),
            record_ms: None,
        }
    }

    #[test]
    fn the_table_has_a_line_per_city_and_type_and_the_sum() {
        let mut counts = Counts::default();
        counts.add(&seen("São Paulo", "traffic", Severity::Low, false));
        counts.add(&seen("東京", "traffic", Severity::Low, false));
        counts.add(&seen("NYC", "weather", Severity::Critical, true));
        counts.add(&seen("NYC", "weather", Severity::Critical, false));
        counts.reject(Reason::BadCity);
        counts.reject(Reason::NotJson);
        counts.reject(Reason::NotJson);
        let want = "\
city       type     low  medium  high  critical  total  late
NYC        weather    0       0     0         2      2     1
São Paulo  traffic    1       0     0         0      1     0
東京       traffic    1       0     0         0      1     0
all                   2       0     0         2      4     1
rejected: not_json 2, bad_city 1
";
        assert_eq!(counts.table(true), want);
        assert!(!counts.table(false).contains("late"));
    }

    #[test]
    fn rows_are_bounded() {
        let mut counts = Counts::default();
        for n in 0..ROWS_MAX + 5 {
            counts.add(&seen(&format!("c{n}"), "traffic", Severity::Low, false));
        }
        assert_eq!(counts.rows.len(), ROWS_MAX + 1);
        assert_eq!(counts.rows[OTHER][""].total(), 5);
        assert_eq!(counts.sum.total(), 10_005);
        assert_eq!(counts.rows().count(), ROWS_MAX + 1);
    }
}
