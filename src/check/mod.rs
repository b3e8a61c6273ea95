//! `citystream check`: tests whether a role can run here, before it is started.
//!
//! The command parses the settings as the role would. Then it tests the host, Kafka and DynamoDB with
//! calls that change nothing. It prints one row per test, with a remedy if the test fails:
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

/// Terminal width from which the finding is printed next to the tested thing, not below it.
const WIDE_COLUMNS_MIN: usize = 80;

/// The outcome of one test, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Ok,
    Note,
    Away,
    Wrong,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Away => "away",
            Outcome::Wrong => "wrong",
        }
    }

    const fn exit(self) -> Exit {
        match self {
            Outcome::Ok | Outcome::Note => Exit::Done,
            Outcome::Away => Exit::Failed,
            Outcome::Wrong => Exit::Settings,
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
struct Row {
    outcome: Outcome,
    /// The tested thing.
    what: String,
    /// The finding.
    found: String,
    /// What to do, if there is something to do.
    remedy: Option<String>,
}

/// The table. Each row is printed at once.
pub(crate) struct CheckTable {
    worst: Outcome,
}

impl CheckTable {
    /// Returns a table without rows.
    pub(crate) fn new() -> CheckTable {
        CheckTable { worst: Outcome::Ok }
    }

    /// Returns the exit that the worst row demands.
    pub(crate) fn exit(&self) -> Exit {
        self.worst.exit()
    }

    /// Adds a row for a test that succeeded.
    pub(crate) fn add_ok(&mut self, what: &str, found: impl Into<String>) {
        self.add(Outcome::Ok, what, found, None);
    }

    /// Adds a row with a remedy.
    fn add_bad(&mut self, outcome: Outcome, what: &str, found: impl Into<String>, remedy: &str) {
        self.add(outcome, what, found, Some(remedy.to_owned()));
    }

    fn add(
        &mut self,
        outcome: Outcome,
        what: &str,
        found: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.worst = self.worst.max(outcome);
        let row = Row {
            outcome,
            what: what.to_owned(),
            found: hide_login(&found.into()),
            remedy,
        };
        let mut out = std::io::stdout().lock();
        // If the reader of the output has closed the pipe, the exit code still gives the result.
        let printed = out.write_all(row.text(columns(&out)).as_bytes());
        if let Err(error) = printed {
            tracing::debug!(%error, "failed to print a row");
        }
    }
}

impl Row {
    /// Returns the row as text. On a terminal, long lines are broken; on a narrow one, the finding is
    /// printed below the tested thing.
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
            (Outcome::Ok, 0),
            (Outcome::Note, 0),
            (Outcome::Away, 1),
            (Outcome::Wrong, 2),
            (Outcome::Ok, 2),
        ] {
            table.add(outcome, "a", "b", None);
            assert_eq!(table.worst.exit().code(), code);
        }
    }

    #[test]
    fn a_remedy_is_printed_below_the_finding() {
        let row = Row {
            outcome: Outcome::Away,
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
