//! Limits how often a repeated log line is written.

use std::time::{Duration, Instant};

/// Time between two log lines about the same wait.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Allows a repeated log line at most every ten seconds.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Option<Instant>,
}

impl LogLimit {
    /// Returns whether the line may be written now, and if so starts the next ten seconds.
    pub(crate) fn allow(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    /// Returns whether a line was allowed before.
    pub(crate) fn was_used(&self) -> bool {
        self.last.is_some()
    }
}
