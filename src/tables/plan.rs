//! Prints the plan of `init-tables` before the command changes anything. With `--check`, prints a table of all
//! differences between the settings and the existing tables and topics.
//!
//! ```text
//! state    what                             difference
//! kept     table citystream-raw-events      -
//! differs  topic city-events                has 12 partitions instead of 6
//! missing  topic city-events-dlq            -
//! 2 of 7 differ; citystream init-tables creates what is missing, or reports why it cannot
//! ```

use std::fmt::Write as _;

use crate::output;
use crate::tables::steps::{Finding, FindingOutcome};
use crate::telemetry;

/// Prints the plan to standard error: the tables and topics that will be created or changed.
pub(super) fn print_plan(tables: &[Finding], topics: &[Finding]) {
    telemetry::write_stderr(plan_text(tables, topics).as_bytes());
}

fn plan_text(tables: &[Finding], topics: &[Finding]) -> String {
    let mut lines = String::new();
    for finding in tables.iter().chain(topics) {
        let verb = match finding.outcome {
            FindingOutcome::Missing => "make",
            FindingOutcome::Differs => "change",
            FindingOutcome::Made
            | FindingOutcome::Kept
            | FindingOutcome::Changed
            | FindingOutcome::Deleted
            | FindingOutcome::Absent => continue,
        };
        let notes = if finding.notes.is_empty() {
            String::new()
        } else {
            format!(": {}", finding.notes.join("; "))
        };
        let _infallible = writeln!(lines, "  {verb:<6} {}{notes}", finding.what);
    }
    if lines.is_empty() {
        return "plan: nothing to create or change\n".to_owned();
    }
    format!("plan:\n{lines}")
}

/// Prints the findings as a table to standard output. If standard output is a closed pipe, the function returns no
/// error.
///
/// # Errors
/// Returns an error if writing fails for a reason other than a closed pipe.
pub(crate) fn print_table(findings: &[Finding]) -> std::io::Result<()> {
    output::print(&table(findings))
}

fn table(findings: &[Finding]) -> String {
    let whats = findings.iter().map(|f| f.what.chars().count());
    let width = whats.max().unwrap_or(0);
    let mut out = format!("{:<8} {:<width$}  difference\n", "state", "what");
    for finding in findings {
        // If a table or topic agrees with the settings, its notes are not differences, and the column `difference`
        // shows `-`.
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
            "{count} of {all} differ; citystream init-tables creates what is missing, or reports why it cannot\n"
        ),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(outcome: FindingOutcome, what: &str, notes: &[&str]) -> Finding {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        Finding::with_notes(outcome, what.to_owned(), notes)
    }

    #[test]
    fn the_plan_names_only_what_is_created_or_changed() {
        let tables = [
            finding(FindingOutcome::Missing, "table a", &[]),
            finding(FindingOutcome::Kept, "table b", &["so"]),
            finding(FindingOutcome::Differs, "table c", &["TTL on ttl is off"]),
        ];
        let topics = [finding(
            FindingOutcome::Missing,
            "topic d",
            &["6 partitions"],
        )];
        assert_eq!(
            plan_text(&tables, &topics),
            "plan:\n  make   table a\n  change table c: TTL on ttl is off\n  make   topic d: 6 partitions\n"
        );
        assert_eq!(
            plan_text(&tables[1..2], &[]),
            "plan: nothing to create or change\n"
        );
    }

    #[test]
    fn each_difference_has_a_line_in_the_table() {
        let findings = [
            finding(FindingOutcome::Kept, "table long-name", &["4 shards"]),
            finding(FindingOutcome::Differs, "topic t", &["has a", "has b"]),
            finding(FindingOutcome::Missing, "topic u", &[]),
        ];
        assert_eq!(
            table(&findings),
            "state    what             difference\n\
             kept     table long-name  -\n\
             differs  topic t          has a\n         \
             \u{20}                has b\n\
             missing  topic u          -\n\
             2 of 3 differ; citystream init-tables creates what is missing, or reports why it cannot\n"
        );
        assert!(table(&findings[..1]).ends_with("all 1 as they should be\n"));
    }
}
