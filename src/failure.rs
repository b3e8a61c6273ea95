//! How a failed command says so: what failed, why, and what to do.
//!
//! ```text
//! citystream: failed to listen on 127.0.0.1:8080 (--listen)
//!   because: Address already in use (os error 98)
//!   > stop what listens there, or choose another address; port 0 picks a free one
//! ```
//!
//! The first line is the outermost error, `because` the chain below it. What to do stands at the end
//! of this program's own messages, behind the last semicolon; for errors of others it follows from
//! their kind, here and nowhere else.

use std::io::ErrorKind;

use crate::exit::{Exit, SettingsError};
use crate::kafka::REACH_REMEDY;
use crate::kafka::admin::AdminError;
use crate::output::{columns, lines};
use crate::produce::resend::ResendError;
use crate::settings::LogFormat;
use crate::store::error::{Kind, StoreError};
use crate::sys::TopicError;
use crate::telemetry;

/// What to do where DynamoDB does not answer.
const DYNAMODB_REMEDY: &str = "check AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB if it is set, and the way there; \
    citystream check --for ROLE tries it";

/// A failure in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What could not be done.
    pub what: String,
    /// Why, if more is known.
    pub why: Option<String>,
    /// What a person can do about it, if that is known.
    pub todo: Option<String>,
}

impl Failure {
    /// Takes an error apart.
    pub fn of(error: &anyhow::Error) -> Failure {
        let text = chain(error);
        let own = error.chain().any(|e| e.is::<SettingsError>()) || error.chain().len() == 1;
        let (text, todo) = match (advice(error), text.rsplit_once("; ")) {
            (Some(todo), _) => (text.as_str(), Some(todo.to_owned())),
            (None, Some((text, todo))) if own => (text, Some(todo.to_owned())),
            _ => (text.as_str(), of_system(&text).map(str::to_owned)),
        };
        let (what, why) = match text.split_once(": ") {
            Some((what, why)) => (what, Some(why.to_owned())),
            None => (text, None),
        };
        Failure {
            what: what.to_owned(),
            why,
            todo,
        }
    }

    /// Says it on standard error; as one JSON object if that was asked for.
    pub fn tell(&self, format: Option<LogFormat>) {
        if format == Some(LogFormat::Json) {
            let Failure { what, why, todo } = self;
            tracing::error!(what, why, todo, "failed");
        } else {
            telemetry::print_stderr(self.text(columns(&std::io::stderr())).trim_end());
        }
    }

    fn text(&self, columns: Option<usize>) -> String {
        let mut out = lines("citystream: ", &self.what, 2, columns);
        if let Some(why) = &self.why {
            // A foreign message may have lines of its own.
            for (at, line) in why.lines().enumerate() {
                let first = if at == 0 { "  because: " } else { "    " };
                out.push_str(&lines(first, line, 4, columns));
            }
        }
        if let Some(todo) = &self.todo {
            out.push_str(&lines("  > ", todo, 4, columns));
        }
        out
    }
}

/// The messages from the outermost on, without one that only repeats what came before it.
fn chain(error: &anyhow::Error) -> String {
    let mut out = String::new();
    for part in error.chain().map(ToString::to_string) {
        if out.is_empty() {
            out = part;
        } else if !out.ends_with(&part) {
            out = format!("{out}: {part}");
        }
    }
    out
}

/// What to do about errors of others, by their kind.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|error| {
        if let Some(error) = error.downcast_ref::<StoreError>() {
            return match error {
                // Only commands that end wait so: for tables in the making.
                StoreError::Waited { .. } => Some("run it again: it goes on where it stopped"),
                _ => of_store(error),
            };
        }
        if let Some(error) = error.downcast_ref::<AdminError>() {
            return of_admin(error);
        }
        if let Some(TopicError::Unreachable { .. }) = error.downcast_ref() {
            return Some(REACH_REMEDY);
        }
        if let Some(ResendError::Kafka { .. } | ResendError::Silence) = error.downcast_ref() {
            return Some("run it again: it goes on where it stopped, nothing is sent twice");
        }
        of_io(error.downcast_ref::<std::io::Error>()?.kind())
    })
}

/// The system's own words at the end of a message that was built from it.
fn of_system(text: &str) -> Option<&'static str> {
    [
        ("(os error 2)", "check the path, and that it is there"),
        (
            "(os error 13)",
            "let this user do it, or choose another place",
        ),
        ("is a directory", "give a file"),
    ]
    .into_iter()
    .find_map(|(end, todo)| text.ends_with(end).then_some(todo))
}

fn of_io(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::AddrInUse => {
            Some("stop what listens there, or choose another address; port 0 picks a free one")
        }
        ErrorKind::AddrNotAvailable => Some("choose an address of this host, such as 127.0.0.1"),
        ErrorKind::PermissionDenied => Some("let this user do it, or choose another place"),
        ErrorKind::StorageFull => Some("make room there"),
        _ => None,
    }
}

/// What to do about an answer of DynamoDB's, or about none, while a role goes on trying.
pub(crate) fn of_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Request(request) => match (request.kind, request.code.as_str()) {
            (Kind::NotFound, _) => {
                Some("run citystream init-tables first, with the same --table-prefix")
            }
            _ if error.is_about_credentials() => Some(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run on an instance with a role",
            ),
            (Kind::Denied, _) => Some(
                "check the AWS credentials and their rights: citystream print iam shows what each role needs",
            ),
            (_, "Dispatch" | "Timeout" | "Response") => Some(DYNAMODB_REMEDY),
            (Kind::Throttled, _) => Some("wait, or raise the limits of table and account"),
            _ => None,
        },
        StoreError::Different { .. } => Some("other tables need another --table-prefix"),
        StoreError::Waited { .. } => Some(DYNAMODB_REMEDY),
        StoreError::Settings { .. } | StoreError::Corrupt { .. } | StoreError::TooCostly { .. } => {
            None
        }
    }
}

fn of_admin(error: &AdminError) -> Option<&'static str> {
    match error {
        AdminError::Kafka { .. } => Some(REACH_REMEDY),
        AdminError::Login(_) => Some("check the AWS credentials and AWS_REGION"),
        AdminError::Topic { .. } => Some("check the rights on the topic, and --replication"),
        _ => None,
    }
}

impl Exit {
    /// Tells a failure and returns how the process ends.
    pub fn after(error: &anyhow::Error, format: Option<LogFormat>) -> Exit {
        Failure::of(error).tell(format);
        Exit::of(error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn shown(error: &anyhow::Error) -> String {
        let text = Failure::of(error).text(None);
        let own = text
            .strip_prefix("citystream: ")
            .and_then(|t| t.strip_suffix('\n'));
        own.expect("it begins and ends so").to_owned()
    }

    #[test]
    fn an_error_has_three_parts() {
        let taken: Result<(), _> = Err(std::io::Error::from(ErrorKind::AddrInUse));
        let error = taken
            .context("failed to listen on a:1 (--listen)")
            .expect_err("taken");
        assert_eq!(
            shown(&error),
            "failed to listen on a:1 (--listen)\n  because: address in use\n  \
             > stop what listens there, or choose another address; port 0 picks a free one"
        );
        let error = SettingsError("--bind 0.0.0.0: open to all; give --auth-token-file".to_owned());
        assert_eq!(
            shown(&error.into()),
            "--bind 0.0.0.0\n  because: open to all\n  > give --auth-token-file"
        );
        let error = anyhow::anyhow!("a message; of\nothers").context("failed to do it");
        assert_eq!(
            shown(&error),
            "failed to do it\n  because: a message; of\n    others"
        );
        let stopped = anyhow::anyhow!("stopped; run it again");
        assert_eq!(shown(&stopped), "stopped\n  > run it again");
        let narrow = Failure::of(&stopped).text(Some(14));
        assert_eq!(narrow, "citystream: stopped\n  > run it\n    again\n");
    }

    #[test]
    fn what_repeats_its_source_is_said_once() {
        let error = anyhow::anyhow!("no route")
            .context("no route")
            .context("failed: no route");
        assert_eq!(shown(&error), "failed\n  because: no route");
    }

    #[test]
    fn who_waits_and_who_has_given_up_get_their_own_advice() {
        let waited = || StoreError::Waited {
            what: "DynamoDB".to_owned(),
            seconds: 4,
        };
        let going_on = of_store(&waited()).expect("advice");
        assert!(going_on.starts_with("check AWS_REGION"), "{going_on}");
        let ended = Failure::of(&waited().into()).todo.expect("advice");
        assert!(ended.starts_with("run it again"), "{ended}");
    }

    #[test]
    fn missing_tables_say_which_command_makes_them() {
        let request = crate::store::error::RequestError {
            kind: Kind::NotFound,
            operation: "GetItem",
            table: "t".to_owned(),
            key: None,
            code: "ResourceNotFoundException".to_owned(),
            message: String::new(),
            request_id: None,
            throttling: Vec::new(),
        };
        let error = anyhow::Error::from(StoreError::Request(Box::new(request)));
        assert!(shown(&error).contains("\n  > run citystream init-tables"));
    }
}
