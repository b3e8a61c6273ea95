//! How the process ends: its exit codes, and the errors that a restart cannot repair.

use std::time::Duration;

use crate::failure::Failure;
use crate::kafka::client::ClientConfigError;
use crate::store::error::StoreError;

/// How long a role may take to stop. After that it gives up on a sink that does not answer, and the
/// process ends. `TimeoutStopSec` in the units must be longer.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, drained after SIGTERM, or the output pipe was closed.
    Done,
    /// 1: failed; a restart may help.
    Failed,
    /// 2: wrong usage or settings; a restart does not help.
    Settings,
}

impl Exit {
    /// Returns the process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Settings => 2,
        }
    }

    /// Returns the exit of an error: [`Exit::Settings`] if the error, or one of its sources, says
    /// that the settings are wrong.
    pub fn of(error: &anyhow::Error) -> Exit {
        let is_wrong_setting = error.chain().any(|error| {
            error.is::<SettingsError>()
                || error.is::<ClientConfigError>()
                || matches!(error.downcast_ref(), Some(StoreError::Settings(_)))
        });
        if is_wrong_setting {
            Exit::Settings
        } else {
            Exit::Failed
        }
    }
}

/// Prints the parser's message as the role itself would, and returns the exit.
///
/// `--help` among the options prints the help and is no error.
pub(crate) fn print_parser_message(error: &clap::Error) -> Exit {
    if let Err(error) = error.print() {
        tracing::debug!(%error, "failed to print what is wrong");
    }
    match error.exit_code() {
        0 => Exit::Done,
        _ => Exit::Settings,
    }
}

/// A failure that only a person can repair. Service units do not restart after it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub Failure);

impl SettingsError {
    /// Returns an error without a reason and without a remedy.
    pub fn new(what: impl Into<String>) -> SettingsError {
        SettingsError(Failure::new(what))
    }

    /// Sets the reason.
    #[must_use]
    pub fn with_why(self, why: impl Into<String>) -> SettingsError {
        SettingsError(self.0.with_why(why))
    }

    /// Sets the remedy.
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
