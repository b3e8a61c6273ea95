//! What a comparison found, for people and for programs.

use std::io::{self, Write};

use indicatif::HumanCount;
use serde_json::{Value, json};

use crate::core::audit::{Incomparable, Outcome, Seen, Sums};
use crate::core::time::format_millis;

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// A range was asked for.
    pub ranged: bool,
    /// Event times and window starts `[from, until)`.
    pub range: (i64, i64),
    /// The rows.
    pub outcome: Outcome,
    /// What the log held.
    pub seen: Seen,
    /// How often the log was read.
    pub passes: u32,
    /// Most bytes that rows took at a time.
    pub bytes_peak: usize,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// Tells whether log and tables agree in every row that can be compared.
    pub fn agrees(&self) -> bool {
        self.outcome.difference_count == 0
    }

    /// Returns the events of all rows of counts that can be compared: of the totals, late events
    /// included; where those cannot be compared or a range was asked for, of the windows.
    pub fn events(&self) -> Sums {
        let totals = self.outcome.compared.contains_key("totals");
        if totals && !self.ranged {
            self.outcome.totals
        } else {
            self.outcome.windows
        }
    }

    /// Returns how many rows could not be compared.
    pub fn incomparable(&self) -> u64 {
        self.outcome.incomparable.values().sum()
    }

    /// Returns `log 33,960 = tables 33,960, difference 0`.
    pub fn summary(&self) -> String {
        let Sums { log, tables } = self.events();
        let sign = if log == tables { "=" } else { "!=" };
        let count = |n: i64| {
            let minus = if n < 0 { "-" } else { "" };
            format!("{minus}{}", HumanCount(n.unsigned_abs()))
        };
        format!(
            "log {} {sign} tables {}, difference {}",
            count(log),
            count(tables),
            HumanCount(self.outcome.difference_count)
        )
    }

    /// Writes lines for people; the last one is the summary.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for d in &self.outcome.differences {
            let line = format!("{} {}: {}", d.kind.name(), d.key, d.detail);
            writeln!(out, "{}", printable(&line))?;
        }
        let shown = u64::try_from(self.outcome.differences.len()).unwrap_or(u64::MAX);
        let more = self.outcome.difference_count.saturating_sub(shown);
        if more > 0 {
            writeln!(out, "... and {} more rows that differ", HumanCount(more))?;
        }
        let compared = |kind: &str| self.outcome.compared.get(kind).copied().unwrap_or(0);
        writeln!(
            out,
            "compared {} raw events, {} alerts, {} windows, {} totals with {} records of the log",
            HumanCount(compared("raw event")),
            HumanCount(compared("alert")),
            HumanCount(compared("window")),
            HumanCount(compared("totals")),
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
                "not stored yet, as far as consumers say: {count} events"
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
        let reasons = self.outcome.incomparable.iter();
        let incomparable: serde_json::Map<String, Value> = reasons
            .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
            .collect();
        json!({
            "agree": self.agrees(),
            "log": log,
            "tables": tables,
            "difference": self.outcome.difference_count,
            "differences": differences.collect::<Vec<_>>(),
            "compared": {
                "raw_events": compared("raw event"), "alerts": compared("alert"),
                "windows": compared("window"), "totals": compared("totals"),
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

/// Returns the text with control characters as escapes: keys and contents are anybody's.
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
