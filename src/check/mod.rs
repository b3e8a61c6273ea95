//! `citystream check`: whether a role could run here, tried before it is started.
//!
//! It takes the settings as the role would, then tries the host, Kafka and DynamoDB by calls that
//! change nothing, and prints one line each, with what to do where something is amiss:
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
//! | `note` | works, and the operator should know it | 0 |
//! | `away` | something is missing or does not answer; a role would wait for it | 1 |
//! | `wrong` | a setting or a right; a role would stop or stand still | 2 |

pub(crate) mod dynamo;
pub(crate) mod host;
pub(crate) mod kafka;

use std::io::Write as _;

use crate::exit::Exit;
use crate::output::{columns, lines};
use crate::settings::hide_login;

/// From so many columns on what was found stands beside what was tried.
const ROOMY: usize = 80;

/// How one thing was found.
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

/// A line of the table.
#[derive(Clone, Debug)]
struct Row {
    outcome: Outcome,
    /// What was tried.
    what: String,
    /// What was found.
    found: String,
    /// What to do, if anything.
    remedy: Option<String>,
}

/// The table, printed as it grows.
pub(crate) struct Table {
    worst: Outcome,
}

impl Table {
    /// Returns a table without rows.
    pub(crate) fn new() -> Table {
        Table { worst: Outcome::Ok }
    }

    /// Returns how a command ends whose rows these are.
    pub(crate) fn exit(&self) -> Exit {
        self.worst.exit()
    }

    pub(crate) fn ok(&mut self, what: &str, found: impl Into<String>) {
        self.row(Outcome::Ok, what, found, None);
    }

    fn bad(&mut self, outcome: Outcome, what: &str, found: impl Into<String>, remedy: &str) {
        self.row(outcome, what, found, Some(remedy.to_owned()));
    }

    fn row(
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
        // A reader that is gone is no reason to stop trying: the exit code still tells.
        let printed = out.write_all(row.text(columns(&out)).as_bytes());
        if let Err(error) = printed {
            tracing::debug!(%error, "failed to print a row");
        }
    }
}

impl Row {
    /// Returns the row in the lines of a terminal, if it is one; on a narrow one what was found stands below what
    /// was tried.
    fn text(&self, columns: Option<usize>) -> String {
        let name = self.outcome.name();
        let is_narrow = columns.is_some_and(|columns| columns < ROOMY);
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
        let mut table = Table { worst: Outcome::Ok };
        for (outcome, code) in [
            (Outcome::Ok, 0),
            (Outcome::Note, 0),
            (Outcome::Away, 1),
            (Outcome::Wrong, 2),
            (Outcome::Ok, 2),
        ] {
            table.row(outcome, "a", "b", None);
            assert_eq!(table.worst.exit().code(), code);
        }
    }

    #[test]
    fn a_remedy_stands_below_what_was_found() {
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
