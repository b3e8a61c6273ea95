//! Limits how often a repeated log line is written.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Default minimum time between two copies of a repeated log line.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Allows a repeated log line at most once in each interval. Without the limit, a line that repeats with every request
/// would fill the log.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl Default for LogLimit {
    /// Returns a limit of one line in ten seconds.
    fn default() -> LogLimit {
        LogLimit::every(LINE_EVERY)
    }
}

impl LogLimit {
    /// Returns a limit of one line in each interval.
    pub const fn every(interval: Duration) -> LogLimit {
        LogLimit {
            interval,
            last: Mutex::new(None),
        }
    }

    /// Returns true if the line may be logged now. If the function returns true, the next interval begins, so the
    /// caller must log the line.
    pub fn allows(&self) -> bool {
        let mut last = self.last.lock().expect("no panic holds the lock");
        let is_due = last.is_none_or(|at| at.elapsed() >= self.interval);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// Returns true if a line has been allowed at least once.
    pub fn was_used(&self) -> bool {
        self.last.lock().expect("no panic holds the lock").is_some()
    }
}

/// Allows the log lines about each problem at most once every ten seconds.
#[derive(Debug, Default)]
pub struct LogLimits {
    limits: BTreeMap<&'static str, LogLimit>,
}

impl LogLimits {
    /// Returns true if a line about `trouble` may be logged now. If the function returns true, the caller must log the
    /// line.
    pub fn allows(&mut self, trouble: &'static str) -> bool {
        self.limits.entry(trouble).or_default().allows()
    }
}
