//! The result of a comparison, which can be printed as text and as JSON.

use std::io::{self, Write};

use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::core::audit::{AuditOutcome, Incomparable, LogCounts, Mismatch, PROGRESS_ITEM, Sums};
use crate::core::clock::UnixMs;
use crate::core::time::format_millis;

/// The result of a comparison.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// True if the comparison was limited to a range of event times.
    pub ranged: bool,
    /// The range of event times and window starts that the comparison covered. The range includes its start and
    /// excludes its end.
    pub range: (UnixMs, UnixMs),
    /// The result of comparing the rows.
    pub outcome: AuditOutcome,
    /// The counts of the records in the log.
    pub seen: LogCounts,
    /// The number of times that the comparison read the log.
    pub passes: u32,
    /// Peak memory of all rows during the comparison, in bytes.
    pub bytes_peak: usize,
    /// Duration of the comparison in seconds.
    pub seconds: f64,
}

impl VerifyReport {
    /// Returns true if the log and the tables agree in every row that can be compared.
    pub fn agrees(&self) -> bool {
        self.outcome.difference_count == 0
    }

    /// Returns the number of events in the log and in the tables, over all rows that can be compared. Normally, the
    /// function adds up the totals rows, which include late events. If the totals rows cannot be compared or the
    /// comparison was limited to a range, the function adds up the window rows instead.
    pub fn events(&self) -> Sums {
        let totals = self.outcome.compared.contains_key("totals");
        if totals && !self.ranged {
            self.outcome.totals
        } else {
            self.outcome.windows
        }
    }

    /// Returns true if at least one row of counts was compared, or if no row had to be left out of the comparison, for
    /// example because the tables are empty.
    pub fn has_counts(&self) -> bool {
        let compared = |kind| {
            self.outcome
                .compared
                .get(kind)
                .is_some_and(|count| *count > 0)
        };
        compared("totals") || compared("window") || self.incomparable() == 0
    }

    /// Returns true if at least one row was compared, or if no row had to be left out of the comparison, for example
    /// because the tables are empty. Progress items do not count as rows, because a progress item says nothing about
    /// the other tables.
    pub fn has_rows(&self) -> bool {
        let mut compared = self.outcome.compared.iter();
        compared.any(|(kind, count)| *kind != PROGRESS_ITEM && *count > 0)
            || self.incomparable() == 0
    }

    /// Returns the number of rows that could not be compared.
    pub fn incomparable(&self) -> u64 {
        self.outcome.incomparable.values().sum()
    }

    /// Returns a summary such as `log 33,960 = tables 33,960, difference 0`. If rows differ, the summary has `≠`
    /// instead of `=` and lists the differences.
    ///
    /// The sign is `=` only if all rows agree. Individual rows can differ even if the sums are equal.
    pub fn summary(&self) -> String {
        if !self.has_counts() && self.agrees() {
            return "no counts can be compared, difference 0".to_owned();
        }
        let Sums { log, tables } = self.events();
        let sign = if self.agrees() { "=" } else { "≠" };
        let count = |n: i64| {
            let minus = if n < 0 { "-" } else { "" };
            format!("{minus}{}", HumanCount(n.unsigned_abs()))
        };
        let mut out = format!(
            "log {} {sign} tables {}, difference {}",
            count(log),
            count(tables),
            HumanCount(self.outcome.difference_count)
        );
        if !self.agrees() {
            let one = self.outcome.difference_count == 1;
            out.push_str(if one { " row" } else { " rows" });
            let rows = self.outcome.differing.iter();
            let rows: Vec<String> = rows
                .map(|((row, how), count)| describe_rows(row, *how, *count))
                .collect();
            out.push_str(&format!(": {}", rows.join(", ")));
            if log == tables {
                out.push_str("; the sums are equal, the rows are not");
            }
        }
        out
    }

    /// Writes the report as text, with the summary as the last line.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for d in &self.outcome.differences {
            let line = format!("{} {}: {}", d.kind.name(), d.key, d.detail);
            writeln!(out, "{}", printable(&line))?;
        }
        for wrong in &self.outcome.wrong_sums {
            let (partition, detail) = (wrong.partition, &wrong.detail);
            writeln!(
                out,
                "wrong {PROGRESS_ITEM} of partition {partition}: {detail}"
            )?;
        }
        let shown = self.outcome.differences.len() + self.outcome.wrong_sums.len();
        let shown = u64::try_from(shown).unwrap_or(u64::MAX);
        let more = self.outcome.difference_count.saturating_sub(shown);
        if more > 0 {
            writeln!(out, "... and {} more rows that differ", HumanCount(more))?;
        }
        let compared = |kind: &str| self.outcome.compared.get(kind).copied().unwrap_or(0);
        let rollups = match (compared("hour"), compared("day")) {
            (0, 0) => String::new(),
            (hours, days) => format!(", {} hours, {} days", HumanCount(hours), HumanCount(days)),
        };
        writeln!(
            out,
            "compared {} raw events, {} alerts, {} windows, {} totals, {} progress items{rollups} with {} records of the log",
            HumanCount(compared("raw event")),
            HumanCount(compared("alert")),
            HumanCount(compared("window")),
            HumanCount(compared("totals")),
            HumanCount(compared(PROGRESS_ITEM)),
            HumanCount(self.seen.records),
        )?;
        for reason in Incomparable::ALL {
            if let Some(count) = self.outcome.incomparable.get(&reason) {
                let count = HumanCount(*count);
                writeln!(out, "not comparable: {count} rows ({})", reason.reason())?;
            }
        }
        if self.seen.unclaimed > 0 {
            let count = HumanCount(self.seen.unclaimed);
            writeln!(
                out,
                "not stored yet, according to the consumers: {count} events"
            )?;
        }
        writeln!(out, "{}", self.summary())
    }

    /// Returns the report as one JSON object.
    pub fn json(&self) -> Value {
        let compared = |kind: &str| self.outcome.compared.get(kind).copied().unwrap_or(0);
        let Sums { log, tables } = self.events();
        let differences = self.outcome.differences.iter().map(|d| {
            json!({
                "kind": d.kind.name(), "row": d.key.kind(), "key": d.key.in_table(),
                "detail": d.detail,
            })
        });
        let wrong_sums = self.outcome.wrong_sums.iter().map(|wrong| {
            json!({
                "kind": Mismatch::Wrong.name(), "row": PROGRESS_ITEM,
                "key": wrong.partition.to_string(), "detail": wrong.detail,
            })
        });
        let reasons = self.outcome.incomparable.iter();
        let incomparable: serde_json::Map<String, Value> = reasons
            .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
            .collect();
        json!({
            "agree": self.agrees(),
            "log": log,
            "tables": tables,
            "difference": self.outcome.difference_count,
            "differences": differences.chain(wrong_sums).collect::<Vec<_>>(),
            "compared": {
                "raw_events": compared("raw event"), "alerts": compared("alert"),
                "windows": compared("window"), "totals": compared("totals"),
                "progress_items": compared(PROGRESS_ITEM),
                "hours": compared("hour"), "days": compared("day"),
            },
            "not_comparable": incomparable,
            "records": self.seen.records,
            "events": self.seen.events,
            "late": self.seen.late,
            "rejected": self.seen.rejected,
            "not_stored_yet": self.seen.unclaimed,
            "from": self.ranged.then(|| format_millis(self.range.0)),
            "until": self.ranged.then(|| format_millis(self.range.1)),
            "passes": self.passes,
            "bytes_peak": self.bytes_peak,
            "seconds": self.seconds,
        })
    }
}

/// Returns a text that describes a number of differing rows, such as `2 raw events missing`.
fn describe_rows(row: &str, how: Mismatch, count: u64) -> String {
    let rows = match (row, count) {
        ("totals", 1) => "totals row".to_owned(),
        ("totals", _) => "totals rows".to_owned(),
        (row, 1) => row.to_owned(),
        (row, _) => format!("{row}s"),
    };
    let how = match how {
        Mismatch::Missing => "missing",
        Mismatch::Wrong => "wrong",
        Mismatch::Extra => "too many",
        Mismatch::Fence => "with a broken fence",
    };
    format!("{} {rows} {how}", HumanCount(count))
}

/// Returns the text with control characters replaced by escapes. Any producer can put control characters into keys and
/// values, but a terminal must not interpret these characters.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report(
        log: i64,
        tables: i64,
        differing: &[((&'static str, Mismatch), u64)],
    ) -> VerifyReport {
        let outcome = AuditOutcome {
            difference_count: differing.iter().map(|(_, count)| count).sum(),
            differing: differing.iter().copied().collect(),
            compared: BTreeMap::from([("totals", 1)]),
            totals: Sums { log, tables },
            ..AuditOutcome::default()
        };
        VerifyReport {
            outcome,
            ..VerifyReport::default()
        }
    }

    #[test]
    fn the_summary_says_equal_only_if_every_row_is() {
        assert_eq!(
            report(39_961, 39_961, &[]).summary(),
            "log 39,961 = tables 39,961, difference 0"
        );
        assert_eq!(
            report(39_961, 39_961, &[(("window", Mismatch::Wrong), 1)]).summary(),
            "log 39,961 ≠ tables 39,961, difference 1 row: 1 window wrong; the sums are equal, the rows are not"
        );
        let mut other_log = report(0, 0, &[]);
        other_log.outcome.compared = BTreeMap::from([("raw event", 14)]);
        other_log.outcome.incomparable = BTreeMap::from([(Incomparable::Remade, 40)]);
        assert_eq!(
            other_log.summary(),
            "no counts can be compared, difference 0"
        );
        assert!(other_log.has_rows());
        other_log.outcome.compared = BTreeMap::from([(PROGRESS_ITEM, 3)]);
        assert!(!other_log.has_rows());
        assert!(VerifyReport::default().has_rows());
        let many = [
            (("raw event", Mismatch::Missing), 1_200),
            (("totals", Mismatch::Wrong), 1),
            (("totals", Mismatch::Fence), 2),
        ];
        assert_eq!(
            report(9, 8, &many).summary(),
            "log 9 ≠ tables 8, difference 1,203 rows: 1,200 raw events missing, 1 totals row wrong, \
             2 totals rows with a broken fence"
        );
    }
}
