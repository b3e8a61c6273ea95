//! The exit codes of the process, and the errors that a restart cannot repair.

use std::error::Error;
use std::time::Duration;

use crate::failure::Failure;
use crate::kafka::admin::AdminError;
use crate::kafka::client::ClientConfigError;
use crate::kafka::reader::ReaderError;
use crate::kafka::refusal::Refusal;
use crate::store::error::StoreError;

/// Maximum time for a role to drain. After this time, the process ends, even if DynamoDB or Kafka has not answered yet.
/// The setting `TimeoutStopSec` of the systemd units must be longer than `DRAIN_MAX`.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The result of the process, which determines the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Exit code 0: the work is done, the role has drained after SIGTERM, or the output pipe was closed.
    Done,
    /// Exit code 1: the command has failed, and a restart may help.
    Failed,
    /// Exit code 2: the usage or the settings are wrong, and a restart does not help.
    Settings,
}

impl Exit {
    /// Returns the exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Settings => 2,
        }
    }

    /// Returns [`Exit::Settings`] if the error or one of its sources says that the settings are wrong, and
    /// `Exit::Failed` otherwise.
    pub fn of(error: &anyhow::Error) -> Exit {
        let is_wrong_setting = error.chain().any(|error| {
            error.is::<SettingsError>()
                || error.is::<ClientConfigError>()
                || refusal_of(error).is_some()
                || matches!(error.downcast_ref(), Some(StoreError::Settings(_)))
        });
        if is_wrong_setting {
            Exit::Settings
        } else {
            Exit::Failed
        }
    }
}

/// Returns the brokers' refusal if the error reports that the brokers refuse every client with these settings.
pub(crate) fn refusal_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Refusal> {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(AdminError::Refused(refusal)), _) | (_, Some(ReaderError::Refused(refusal))) => {
            Some(refusal)
        }
        _ => None,
    }
}

/// Prints the message of the command-line parser, and returns the exit code.
///
/// If the options contain `--help`, the parser's message is the help text, which is not an error.
pub(crate) fn print_parser_message(error: &clap::Error) -> Exit {
    if let Err(error) = error.print() {
        tracing::debug!(%error, "failed to print what is wrong");
    }
    match error.exit_code() {
        0 => Exit::Done,
        _ => Exit::Settings,
    }
}

/// A failure whose cause an operator must repair. The systemd units do not restart a role that ends with a
/// `SettingsError`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub Failure);

impl SettingsError {
    /// Returns an error that has no reason and no remedy yet.
    pub fn new(what: impl Into<String>) -> SettingsError {
        SettingsError(Failure::new(what))
    }

    /// Sets the reason for the failure.
    #[must_use]
    pub fn with_why(self, why: impl Into<String>) -> SettingsError {
        SettingsError(self.0.with_why(why))
    }

    /// Sets the remedy for the failure.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> SettingsError {
        SettingsError(self.0.with_remedy(remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn settings_errors_exit_with_2_in_any_context() {
        let missing = ClientConfigError::Missing {
            auth: "scram",
            option: "--kafka-username",
        };
        for error in [
            anyhow::Error::from(SettingsError::new("x")),
            StoreError::Settings(Failure::new("x")).into(),
            missing.into(),
        ] {
            let error = error.context("a").context("b");
            assert_eq!(Exit::of(&error).code(), 2);
        }
        let error = std::fs::read("/nonexistent")
            .context("a")
            .expect_err("no such file");
        assert_eq!(Exit::of(&error).code(), 1);
        assert_eq!(Exit::Done.code(), 0);
    }
}
