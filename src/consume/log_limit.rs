//! Limits how often the consumer logs the same problem.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Minimum time between two log lines about the same problem.
const INTERVAL: Duration = Duration::from_secs(10);

/// Stores the time at which each problem was last logged.
#[derive(Default)]
pub(super) struct LogLimits {
    logged: BTreeMap<&'static str, Instant>,
}

impl LogLimits {
    /// Returns true if a line about `trouble` may be logged now. If the function returns true, the caller must write
    /// the log line.
    pub(super) fn allows(&mut self, trouble: &'static str) -> bool {
        let last = self.logged.get(trouble);
        let allowed = last.is_none_or(|at| at.elapsed() >= INTERVAL);
        if allowed {
            self.logged.insert(trouble, Instant::now());
        }
        allowed
    }
}
