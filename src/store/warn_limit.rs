//! Limits how often a warning is logged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets one warning through per pause. A warning that repeats with every request would fill the log.
#[derive(Debug)]
pub(super) struct WarnLimit {
    pause: Duration,
    last: Mutex<Option<Instant>>,
}

impl WarnLimit {
    /// Returns a limit of one warning per `pause`.
    pub(super) const fn new(pause: Duration) -> WarnLimit {
        WarnLimit {
            pause,
            last: Mutex::new(None),
        }
    }

    /// Returns whether a warning may be logged now, and counts it if so.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.last.lock().expect("no panic holds the lock");
        let is_due = last.is_none_or(|at| at.elapsed() >= self.pause);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
