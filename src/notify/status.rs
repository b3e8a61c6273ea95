//! The status of `notify`: whether the process is alive, and whether it is ready.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::api::ops::Probe;
use crate::core::clock::SteadyMs;
use crate::telemetry::steady_ms;

/// Maximum time between two iterations of the role's main loop, in milliseconds. If an iteration takes longer, the
/// health check reports that the role is not alive, because a restart may help.
const BEAT_MS_MAX: i64 = 120_000;

/// The conditions that the role can wait for. The status stores each condition separately, because the role can wait
/// for both conditions, and the two waits can end at different times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyWait {
    /// The role waits for the tables, or for its partitions to start.
    Start,
    /// The role waits until the topic exists.
    Topic,
}

/// The status that the role updates and the HTTP server reads.
#[derive(Debug)]
pub struct NotifyStatus {
    /// The reasons why the role waits, indexed by [`NotifyWait`].
    waiting_for: Mutex<[Option<String>; 2]>,
    beat_ms: AtomicI64,
}

impl NotifyStatus {
    /// Sets the reason why the role waits for the condition `wait`. If `what` is `None`, the role no longer waits for the
    /// condition.
    pub fn set_waiting(&self, wait: NotifyWait, what: Option<String>) {
        self.waiting_for.lock().expect("no panic holds the lock")[wait as usize] = what;
    }

    /// Records that the main loop of the role is running.
    pub fn beat(&self) {
        self.beat_ms.store(steady_ms().0, Ordering::Relaxed);
    }
}

impl Default for NotifyStatus {
    /// Returns the status of a role that has just started.
    fn default() -> NotifyStatus {
        NotifyStatus {
            waiting_for: Mutex::new([Some("starting".to_owned()), None]),
            beat_ms: AtomicI64::new(steady_ms().0),
        }
    }
}

impl Probe for NotifyStatus {
    fn live(&self) -> Result<(), String> {
        let silent_ms = steady_ms() - SteadyMs(self.beat_ms.load(Ordering::Relaxed));
        if silent_ms > BEAT_MS_MAX {
            return Err(format!(
                "the role has done nothing for {} s",
                silent_ms / 1_000
            ));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.live()?;
        let waiting_for = self.waiting_for.lock().expect("no panic holds the lock");
        let all: Vec<&str> = waiting_for.iter().flatten().map(String::as_str).collect();
        if all.is_empty() {
            return Ok(());
        }
        Err(all.join("; "))
    }
}
