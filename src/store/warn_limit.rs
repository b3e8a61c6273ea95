//! Limits how often a warning is logged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Allows at most one warning in each interval of length `pause`. Without the limit, a warning that repeats with every
/// request would fill the log.
#[derive(Debug)]
pub(super) struct WarnLimit {
    pause: Duration,
    last: Mutex<Option<Instant>>,
}

impl WarnLimit {
    /// Returns a rate limit that allows one warning in each interval of length `pause`.
    pub(super) const fn new(pause: Duration) -> WarnLimit {
        WarnLimit {
            pause,
            last: Mutex::new(None),
        }
    }

    /// Returns true if a warning may be logged now. If the function returns true, the next interval begins, so the
    /// caller must log the warning.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.last.lock().expect("no panic holds the lock");
        let is_due = last.is_none_or(|at| at.elapsed() >= self.pause);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
