//! Reports the error that ends a command, together with a remedy that depends on the type of the error.
//!
//! Only this module contains the remedies for errors of the operating system, of Kafka and of DynamoDB. Errors of this
//! program that have their own remedy contain a [`Failure`].

use std::error::Error;
use std::io::ErrorKind;

use crate::exit::{Exit, SettingsError, refusal_of};
use crate::failure::Failure;
use crate::kafka::REACH_REMEDY;
use crate::kafka::admin::AdminError;
use crate::kafka::client::ClientConfigError;
use crate::kafka::iam::IamError;
use crate::output::columns;
use crate::produce::resend::ResendError;
use crate::settings::LogFormat;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::sys::TopicError;
use crate::telemetry;

const DYNAMODB_REMEDY: &str = "check AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB if it is set, and the network; \
    citystream check --for ROLE tests the connection";
const PERMISSION_REMEDY: &str = "give this user the permission, or choose another place";
const CONTINUE_REMEDY: &str = "run it again: it continues where it stopped";

/// Prints an error to standard error, and returns the exit code.
///
/// With `--log-format json`, the report is one JSON object.
pub fn report(error: &anyhow::Error, format: Option<LogFormat>) -> Exit {
    let failure = describe_error(error);
    if format == Some(LogFormat::Json) {
        let Failure { what, why, remedy } = failure;
        tracing::error!(what, why, todo = remedy, "failed");
    } else {
        telemetry::print_stderr(failure.to_lines(columns(&std::io::stderr())).trim_end());
    }
    Exit::of(error)
}

/// Converts an error to a [`Failure`]. The message of the outermost error becomes `what`, and the messages of its
/// sources become `why`.
///
/// The [`Failure`] gets its remedy from the outermost error that has a remedy. If the message of an error already ends
/// with the message of its source, the message of the source is not repeated.
pub fn describe_error(error: &anyhow::Error) -> Failure {
    let mut texts: Vec<String> = Vec::new();
    let mut remedy = None;
    for error in error.chain() {
        let Failure {
            what,
            why,
            remedy: own,
        } = describe_one(error);
        for text in std::iter::once(what).chain(why) {
            if let Some(last) = texts.last_mut() {
                if let Some(rest) = last.strip_suffix(&format!(": {text}")) {
                    *last = rest.to_owned();
                } else if *last == text {
                    continue;
                }
            }
            texts.push(text);
        }
        remedy = remedy.or(own);
    }
    let mut texts = texts.into_iter();
    let what = texts.next().unwrap_or_default();
    let why: Vec<String> = texts.collect();
    Failure {
        what,
        why: (!why.is_empty()).then(|| why.join(": ")),
        remedy,
    }
}

/// Converts a single error to a [`Failure`], and ignores the sources of the error.
fn describe_one(error: &(dyn Error + 'static)) -> Failure {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.clone();
    }
    if let Some(SettingsError(failure)) = error.downcast_ref() {
        return failure.clone();
    }
    if let Some(error) = error.downcast_ref::<ClientConfigError>() {
        return Failure::from(error);
    }
    if let Some(error) = error.downcast_ref::<IamError>() {
        return Failure::from(error);
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return describe_store_error(error);
    }
    if let Some(error) = error.downcast_ref::<ResendError>() {
        return Failure::from(error);
    }
    if let Some(refusal) = refusal_of(error) {
        return refusal.into();
    }
    if let Some(error) = error.downcast_ref::<AdminError>() {
        return of_admin(error);
    }
    if let Some(TopicError::Unreachable { topic, reason }) = error.downcast_ref() {
        return Failure::new(format!("failed to ask Kafka about topic {topic}"))
            .with_why(reason)
            .with_remedy(REACH_REMEDY);
    }
    Failure {
        remedy: of_system(error).map(str::to_owned),
        ..Failure::new(error.to_string())
    }
}

fn describe_store_error(error: &StoreError) -> Failure {
    let failure = match error {
        StoreError::Settings(failure) => return failure.clone(),
        // The error `Waited` ends only commands that wait until a table is active, so the remedy is to run the command
        // again.
        StoreError::Waited { .. } => {
            return Failure::new(error.to_string()).with_remedy(CONTINUE_REMEDY);
        }
        StoreError::Request(request) => Failure::from(&**request),
        _ => Failure::new(error.to_string()),
    };
    Failure {
        remedy: of_store(error).map(str::to_owned),
        ..failure
    }
}

/// Returns the remedy for an error of the operating system.
fn of_system(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match error.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::NotFound => Some("check the path, and that the file or folder exists"),
        ErrorKind::IsADirectory => Some("give a file"),
        ErrorKind::AddrInUse => Some(
            "stop the program that listens there, or choose another address; port 0 picks a free one",
        ),
        ErrorKind::AddrNotAvailable => Some("choose an address of this host, such as 127.0.0.1"),
        ErrorKind::PermissionDenied => Some(PERMISSION_REMEDY),
        ErrorKind::StorageFull => Some("free space on that file system"),
        _ => None,
    }
}

/// Returns the remedy for an error of DynamoDB, for a role that sends the failed request again and again.
pub(crate) fn of_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Request(request) => match (request.kind, request.code.as_str()) {
            // Without `--incidents`, `init-tables` does not create the incident table.
            (StoreErrorKind::NotFound, _) if request.table.ends_with("-incidents") => {
                Some("run citystream init-tables --incidents first, with the same --table-prefix")
            }
            (StoreErrorKind::NotFound, _) => {
                Some("run citystream init-tables first, with the same --table-prefix")
            }
            _ if error.is_about_credentials() => Some(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run on an instance with a role",
            ),
            (StoreErrorKind::Denied, _) => Some(
                "check the AWS credentials and their rights: citystream print iam shows what each role needs",
            ),
            (_, "Dispatch" | "Timeout" | "Response") => Some(DYNAMODB_REMEDY),
            (StoreErrorKind::Throttled, _) => {
                Some("wait, or raise the limits of the table and the account")
            }
            _ => None,
        },
        StoreError::Different { .. } => Some("use another --table-prefix for other tables"),
        StoreError::Waited { .. } => Some(DYNAMODB_REMEDY),
        StoreError::Settings { .. } | StoreError::Corrupt { .. } | StoreError::TooCostly { .. } => {
            None
        }
    }
}

fn of_admin(error: &AdminError) -> Failure {
    match error {
        AdminError::Settings(error) => error.into(),
        AdminError::Describe(error) => describe_one(error),
        AdminError::Kafka { what, reason } => Failure::new(format!("failed to {what}"))
            .with_why(reason.to_string())
            .with_remedy(REACH_REMEDY),
        AdminError::Topic { what, code } => Failure::new(format!("failed to {what}"))
            .with_why(code.to_string())
            .with_remedy("check the rights on the topic, and --replication"),
        // For `NoRegion` and `Profile`, the `IamError` itself has a more specific remedy.
        AdminError::Login(IamError::NoRegion | IamError::Profile(_)) => {
            Failure::new(error.to_string())
        }
        AdminError::Login(_) => {
            Failure::new(error.to_string()).with_remedy("check the AWS credentials and AWS_REGION")
        }
        _ => Failure::new(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn shown(error: &anyhow::Error) -> String {
        let text = describe_error(error).to_lines(None);
        let own = text
            .strip_prefix("citystream: ")
            .and_then(|t| t.strip_suffix('\n'));
        own.expect("it begins and ends so").to_owned()
    }

    #[test]
    fn contexts_and_sources_become_what_and_why() {
        let taken: Result<(), _> = Err(std::io::Error::from(ErrorKind::AddrInUse));
        let error = taken
            .context("failed to listen on a:1 (--listen)")
            .expect_err("taken");
        assert_eq!(
            shown(&error),
            "failed to listen on a:1 (--listen)\n  because: address in use\n  \
             > stop the program that listens there, or choose another address; port 0 picks a free one"
        );
        let error = SettingsError::new("--bind 0.0.0.0")
            .with_why("open to all")
            .with_remedy("give --auth-token-file");
        assert_eq!(
            shown(&error.into()),
            "--bind 0.0.0.0\n  because: open to all\n  > give --auth-token-file"
        );
        let error = anyhow::anyhow!("a message; of: others").context("failed to do it");
        assert_eq!(
            shown(&error),
            "failed to do it\n  because: a message; of: others"
        );
        let error = anyhow::Error::from(StoreError::Settings(
            Failure::new("no region").with_remedy("set one"),
        ));
        assert_eq!(
            shown(&error.context("failed to connect")),
            "failed to connect\n  because: no region\n  > set one"
        );
    }

    #[test]
    fn a_message_that_repeats_its_source_is_shown_once() {
        let error = anyhow::anyhow!("no route")
            .context("no route")
            .context("failed: no route");
        assert_eq!(shown(&error), "failed\n  because: no route");
    }

    #[test]
    fn a_role_that_waits_and_a_command_that_gave_up_get_different_remedies() {
        let waited = || StoreError::Waited {
            what: "DynamoDB".to_owned(),
            seconds: 4,
        };
        let waiting = of_store(&waited()).expect("a remedy");
        assert!(waiting.starts_with("check AWS_REGION"), "{waiting}");
        let ended = describe_error(&waited().into()).remedy.expect("a remedy");
        assert!(ended.starts_with("run it again"), "{ended}");
    }

    #[test]
    fn a_missing_table_names_the_command_that_creates_it() {
        for (table, command) in [
            ("t-totals", "citystream init-tables first"),
            ("t-incidents", "citystream init-tables --incidents first"),
        ] {
            let request = crate::store::error::RequestError {
                kind: StoreErrorKind::NotFound,
                operation: "GetItem",
                table: table.to_owned(),
                key: None,
                code: "ResourceNotFoundException".to_owned(),
                message: String::new(),
                request_id: None,
                throttling: Vec::new(),
            };
            let error = anyhow::Error::from(StoreError::Request(Box::new(request)));
            let shown = shown(&error);
            assert!(shown.contains(&format!("\n  > run {command}")), "{shown}");
        }
    }
}
