//! Limits how often a repeated log line is written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Minimum time between two copies of a repeated log line.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Allows a repeated log line at most once every ten seconds.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Option<Instant>,
}

impl LogLimit {
    /// Returns true if the log line may be written now. The function returns true at most once every ten seconds.
    pub(crate) fn allow(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    /// Returns true if a log line has been allowed at least once.
    pub(crate) fn was_used(&self) -> bool {
        self.last.is_some()
    }
}

/// Allows the log lines about each problem at most once every ten seconds.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    limits: BTreeMap<&'static str, LogLimit>,
}

impl LogLimits {
    /// Returns true if a line about `trouble` may be logged now. If the function returns true, the caller must write
    /// the log line.
    pub(crate) fn allows(&mut self, trouble: &'static str) -> bool {
        self.limits.entry(trouble).or_default().allow()
    }
}
