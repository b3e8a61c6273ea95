//! The roles: one file each, wiring only.
//!
//! Each has `run(args, metrics, shutdown)`, which returns when its work is done or `shutdown` was
//! triggered and everything in flight is settled.

pub mod check;
pub mod config;
pub mod consume;
#[cfg(feature = "dev")]
pub mod dev;
pub mod failure;
pub mod init_tables;
pub mod print;
pub mod produce;
pub mod serve;
mod service;
pub mod tail;
pub mod verify;
mod wrapped;

use std::net::SocketAddr;
use std::time::Duration;

use crate::telemetry;

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

/// Prints where a role listens if it picked the port itself: then nobody else can know. `what` says
/// what is there.
fn print_picked(what: &str, asked: SocketAddr, address: SocketAddr) {
    if asked.port() == 0 {
        telemetry::show(&format!("{what}: http://{address}\n"));
    }
}

/// Says that other hosts can ask at this address of a role that knows no tokens.
fn warn_if_open(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "other hosts can ask here without a login; listen on 127.0.0.1 unless that is meant"
        );
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
