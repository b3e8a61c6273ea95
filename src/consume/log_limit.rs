//! A limit on log lines about the same trouble.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Least time between two lines about the same trouble.
const INTERVAL: Duration = Duration::from_secs(10);

/// Remembers when each trouble was logged last.
#[derive(Default)]
pub(super) struct LogLimit {
    logged: BTreeMap<&'static str, Instant>,
}

impl LogLimit {
    /// Returns whether a line about `trouble` may be logged now, and counts it as logged.
    pub(super) fn allows(&mut self, trouble: &'static str) -> bool {
        let last = self.logged.get(trouble);
        let allowed = last.is_none_or(|at| at.elapsed() >= INTERVAL);
        if allowed {
            self.logged.insert(trouble, Instant::now());
        }
        allowed
    }
}
