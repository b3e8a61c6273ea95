//! `citystream check`: tests whether a role can run on this host, before the role is started.
//!
//! The command parses the settings as the role would, and then tests the host, Kafka and DynamoDB with calls that
//! change nothing. The command prints one row for each test. The row of a failed test also tells the operator what to
//! do:
//!
//! ```text
//! ok     Kafka                3 brokers answer at b-1:9092
//! away   topic city-events    does not exist
//!                           > run citystream init-tables
//! ```
//!
//! | outcome | means | exit |
//! |---|---|---|
//! | `ok` | fine | 0 |
//! | `note` | it works, but the operator should know this | 0 |
//! | `away` | something is missing or does not answer; the role would wait for it | 1 |
//! | `wrong` | a setting is wrong or a right is missing; the role would stop, or wait in vain | 2 |

pub(crate) mod dynamo;
pub(crate) mod host;
pub(crate) mod kafka;

use std::io::Write as _;

use crate::exit::Exit;
use crate::output::{columns, lines};
use crate::settings::hide_login;

/// Minimum number of terminal columns for printing the name and the result of a test side by side. On a narrower
/// terminal, the result is printed below the name of the test.
const WIDE_COLUMNS_MIN: usize = 80;

/// The outcome of one test, ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CheckOutcome {
    Ok,
    Note,
    Away,
    Wrong,
}

impl CheckOutcome {
    const fn name(self) -> &'static str {
        match self {
            CheckOutcome::Ok => "ok",
            CheckOutcome::Note => "note",
            CheckOutcome::Away => "away",
            CheckOutcome::Wrong => "wrong",
        }
    }

    const fn exit(self) -> Exit {
        match self {
            CheckOutcome::Ok | CheckOutcome::Note => Exit::Done,
            CheckOutcome::Away => Exit::Failed,
            CheckOutcome::Wrong => Exit::Settings,
        }
    }
}

/// A row of the table that `check` prints.
#[derive(Clone, Debug)]
struct CheckRow {
    outcome: CheckOutcome,
    /// The name of the test, such as `topic city-events`.
    what: String,
    /// The result of the test, such as `does not exist`.
    found: String,
    /// Advice for the operator, or `None` if the operator does not need to do anything.
    remedy: Option<String>,
}

/// The table of test results. Each row is printed as soon as the row is added.
pub(crate) struct CheckTable {
    worst: CheckOutcome,
}

impl CheckTable {
    /// Returns a table without rows.
    pub(crate) fn new() -> CheckTable {
        CheckTable {
            worst: CheckOutcome::Ok,
        }
    }

    /// Returns the exit code that belongs to the worst outcome in the table.
    pub(crate) fn exit(&self) -> Exit {
        self.worst.exit()
    }

    /// Adds a row for a test that has succeeded.
    pub(crate) fn add_ok(&mut self, what: &str, found: impl Into<String>) {
        self.add(CheckOutcome::Ok, what, found, None);
    }

    /// Adds a row for a test that found a problem, with advice for the operator.
    fn add_bad(
        &mut self,
        outcome: CheckOutcome,
        what: &str,
        found: impl Into<String>,
        remedy: &str,
    ) {
        self.add(outcome, what, found, Some(remedy.to_owned()));
    }

    pub(crate) fn add(
        &mut self,
        outcome: CheckOutcome,
        what: &str,
        found: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.worst = self.worst.max(outcome);
        let row = CheckRow {
            outcome,
            what: what.to_owned(),
            found: hide_login(&found.into()),
            remedy,
        };
        let mut out = std::io::stdout().lock();
        // A closed pipe is not an error, because the exit code still reports the result.
        let printed = out.write_all(row.text(columns(&out)).as_bytes());
        if let Err(error) = printed {
            tracing::debug!(%error, "failed to print a row");
        }
    }
}

impl CheckRow {
    /// Returns the row as text. On a terminal, long lines are wrapped. On a narrow terminal, the result of the test is
    /// printed below the name of the test.
    fn text(&self, columns: Option<usize>) -> String {
        let name = self.outcome.name();
        let is_narrow = columns.is_some_and(|columns| columns < WIDE_COLUMNS_MIN);
        let (mut text, first, indent) = if is_narrow {
            let above = lines(&format!("{name:<5}  "), &self.what, 7, columns);
            (above, " ".repeat(7), 7)
        } else {
            let first = format!("{name:<5}  {:<32}  ", self.what);
            (String::new(), first, 41)
        };
        text.push_str(&lines(&first, &self.found, indent, columns));
        if let Some(remedy) = &self.remedy {
            let first = format!("{:indent$}> ", "");
            text.push_str(&lines(&first, remedy, indent + 2, columns));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_row_decides_the_exit_code() {
        let mut table = CheckTable::new();
        for (outcome, code) in [
            (CheckOutcome::Ok, 0),
            (CheckOutcome::Note, 0),
            (CheckOutcome::Away, 1),
            (CheckOutcome::Wrong, 2),
            (CheckOutcome::Ok, 2),
        ] {
            table.add(outcome, "a", "b", None);
            assert_eq!(table.worst.exit().code(), code);
        }
    }

    #[test]
    fn a_remedy_is_printed_below_the_finding() {
        let row = CheckRow {
            outcome: CheckOutcome::Away,
            what: "topic t".to_owned(),
            found: "does not exist".to_owned(),
            remedy: Some("make it".to_owned()),
        };
        let text = row.text(None);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("away   topic t "));
        assert_eq!(lines[0].find("does"), lines[1].find("> make"));
        assert_eq!(row.text(Some(120)), text);
        let narrow = "away   topic t\n       does not\n       exist\n       > make it\n";
        assert_eq!(row.text(Some(16)), narrow);
    }
}
