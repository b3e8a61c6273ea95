//! What will be done, before it is done, and the table of `--check`.
//!
//! ```text
//! state    what                             difference
//! kept     table citystream-raw-events      -
//! differs  topic city-events                has 12 partitions instead of 6
//! missing  topic city-events-dlq            -
//! 2 of 7 differ; citystream init-tables makes what is missing, or says why not
//! ```

use std::fmt::Write as _;

use crate::output;
use crate::tables::steps::{Finding, Outcome};
use crate::telemetry;

/// Says on standard error what is going to be made and changed.
pub(super) fn tell(tables: &[Finding], topics: &[Finding]) {
    telemetry::write_stderr(text(tables, topics).as_bytes());
}

fn text(tables: &[Finding], topics: &[Finding]) -> String {
    let mut lines = String::new();
    for finding in tables.iter().chain(topics) {
        let verb = match finding.outcome {
            Outcome::Missing => "make",
            Outcome::Differs => "change",
            Outcome::Made
            | Outcome::Kept
            | Outcome::Changed
            | Outcome::Deleted
            | Outcome::Absent => continue,
        };
        let notes = if finding.notes.is_empty() {
            String::new()
        } else {
            format!(": {}", finding.notes.join("; "))
        };
        let _infallible = writeln!(lines, "  {verb:<6} {}{notes}", finding.what);
    }
    if lines.is_empty() {
        return "plan: nothing to make or change\n".to_owned();
    }
    format!("plan:\n{lines}")
}

/// Prints the findings as a table to standard output; a reader that is gone is no error.
///
/// # Errors
/// If standard output cannot be written for another reason.
pub(crate) fn print_table(findings: &[Finding]) -> std::io::Result<()> {
    output::print(&table(findings))
}

fn table(findings: &[Finding]) -> String {
    let whats = findings.iter().map(|f| f.what.chars().count());
    let width = whats.max().unwrap_or(0);
    let mut out = format!("{:<8} {:<width$}  difference\n", "state", "what");
    for finding in findings {
        // What is as it should be has notes that say how it is.
        let notes: Vec<&str> = finding.notes.iter().map(String::as_str).collect();
        let notes = match notes.as_slice() {
            notes if notes.is_empty() || !finding.outcome.is_difference() => &["-"],
            notes => notes,
        };
        for (at, note) in notes.iter().enumerate() {
            let (state, what) = if at == 0 {
                (finding.outcome.name(), finding.what.as_str())
            } else {
                ("", "")
            };
            let _infallible = writeln!(out, "{state:<8} {what:<width$}  {note}");
        }
    }
    let (all, count) = (
        findings.len(),
        findings
            .iter()
            .filter(|f| f.outcome.is_difference())
            .count(),
    );
    out.push_str(&match count {
        0 => format!("all {all} as they should be\n"),
        count => format!(
            "{count} of {all} differ; citystream init-tables makes what is missing, or says why not\n"
        ),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(outcome: Outcome, what: &str, notes: &[&str]) -> Finding {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        Finding::with_notes(outcome, what.to_owned(), notes)
    }

    #[test]
    fn the_plan_names_what_is_made_and_changed_only() {
        let tables = [
            finding(Outcome::Missing, "table a", &[]),
            finding(Outcome::Kept, "table b", &["so"]),
            finding(Outcome::Differs, "table c", &["TTL on ttl is off"]),
        ];
        let topics = [finding(Outcome::Missing, "topic d", &["6 partitions"])];
        assert_eq!(
            text(&tables, &topics),
            "plan:\n  make   table a\n  change table c: TTL on ttl is off\n  make   topic d: 6 partitions\n"
        );
        assert_eq!(
            text(&tables[1..2], &[]),
            "plan: nothing to make or change\n"
        );
    }

    #[test]
    fn differences_stand_in_a_table() {
        let findings = [
            finding(Outcome::Kept, "table long-name", &["4 shards"]),
            finding(Outcome::Differs, "topic t", &["has a", "has b"]),
            finding(Outcome::Missing, "topic u", &[]),
        ];
        assert_eq!(
            table(&findings),
            "state    what             difference\n\
             kept     table long-name  -\n\
             differs  topic t          has a\n         \
             \u{20}                has b\n\
             missing  topic u          -\n\
             2 of 3 differ; citystream init-tables makes what is missing, or says why not\n"
        );
        assert!(table(&findings[..1]).ends_with("all 1 as they should be\n"));
    }
}
