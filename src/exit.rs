//! How the process ends: its exit codes, and the errors that no restart mends.

use std::time::Duration;

/// How long a role may take to stop: then a dead sink is given up, and the process ends. Units must
/// wait longer (H4).
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, drained after SIGTERM, or the output pipe was closed.
    Done,
    /// 1: failed; a restart may help.
    Failed,
    /// 2: usage or settings; a restart does not help.
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

    /// Returns the exit of an error: [`Exit::Settings`] if a [`SettingsError`] is in its chain.
    pub fn of(error: &anyhow::Error) -> Exit {
        if error.chain().any(|e| e.is::<SettingsError>()) {
            Exit::Settings
        } else {
            Exit::Failed
        }
    }
}

/// Prints the parser's error as the role would; `--help` among the options is none.
pub(crate) fn refuse(error: &clap::Error) -> Exit {
    if let Err(error) = error.print() {
        tracing::debug!(%error, "failed to print what is wrong");
    }
    match error.exit_code() {
        0 => Exit::Done,
        _ => Exit::Settings,
    }
}

/// An error that only a person can mend: units do not restart after it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn settings_errors_exit_with_2_through_any_context() {
        let error = anyhow::Error::from(SettingsError("x".into()))
            .context("a")
            .context("b");
        assert_eq!(Exit::of(&error).code(), 2);
        let error = std::fs::read("/nonexistent")
            .context("a")
            .expect_err("no such file");
        assert_eq!(Exit::of(&error).code(), 1);
        assert_eq!(Exit::Done.code(), 0);
    }
}
