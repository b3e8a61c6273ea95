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
//! | `note` | works, and somebody should know | 0 |
//! | `away` | something is missing or does not answer; a role would wait for it | 1 |
//! | `wrong` | a setting or a right; a role would stop or stand still | 2 |

mod dynamo;
mod host;
mod kafka;

use std::io::Write as _;

use crate::cmd::Exit;
use crate::cmd::config::refuse;
use crate::cmd::wrapped::{columns, lines};
use crate::kafka::rights::User;
use crate::settings::{Check, Command, hide_login, parse_role};
use crate::shutdown::Shutdown;

/// From so many columns on what was found stands beside what was tried.
const ROOMY: usize = 80;

/// How one thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
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
struct Table {
    worst: Outcome,
}

impl Table {
    fn ok(&mut self, what: &str, found: impl Into<String>) {
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

/// Runs the checks.
///
/// # Errors
/// If standard error cannot be written; whatever is wrong with the role is a row.
pub async fn run(args: Check, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let parsed = match parse_role(args.role, &args.options) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(refuse(&error)),
    };
    let mut table = Table { worst: Outcome::Ok };
    table.ok(
        "settings",
        format!("citystream {} takes them", args.role.name()),
    );
    let work = async {
        match &parsed.command {
            Command::Produce(a) => {
                host::check(&mut table, args.role, Some(("--listen", a.listen))).await;
                let user = if a.from_dlq {
                    User::FromDlq
                } else {
                    User::Produce
                };
                kafka::check(&mut table, &a.kafka, user).await;
            }
            Command::Consume(a) => {
                host::check(&mut table, args.role, Some(("--listen", a.listen))).await;
                kafka::check(&mut table, &a.kafka, User::Consume(&a.group)).await;
                dynamo::check(&mut table, args.role, &a.tables, Some(&a.kafka.topic)).await;
            }
            Command::Serve(a) => {
                let address = std::net::SocketAddr::new(a.bind, a.port);
                host::check(&mut table, args.role, Some(("--port", address))).await;
                dynamo::check(&mut table, args.role, &a.tables, None).await;
            }
            Command::InitTables(a) => {
                host::check(&mut table, args.role, None).await;
                let user = if a.delete {
                    User::Delete(&a.group)
                } else {
                    User::InitTables
                };
                kafka::check(&mut table, &a.kafka, user).await;
                dynamo::check(&mut table, args.role, &a.tables, Some(&a.kafka.topic)).await;
            }
            Command::Tail(a) => {
                let user = if a.dlq { User::TailDlq } else { User::Tail };
                kafka::check(&mut table, &a.kafka, user).await;
            }
            Command::Verify(a) => {
                let listens = a.watch.map(|_| ("--listen", a.listen));
                host::check(&mut table, args.role, listens).await;
                kafka::check(&mut table, &a.kafka, User::Verify(&a.group)).await;
                dynamo::check(&mut table, args.role, &a.tables, Some(&a.kafka.topic)).await;
            }
            _ => {}
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.wait() => anyhow::bail!("stopped before all was tried"),
    }
    Ok(table.worst.exit())
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
