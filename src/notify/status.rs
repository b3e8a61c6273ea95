//! The status of `notify`: whether the process is alive, and whether it is ready.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::api::ops::Probe;
use crate::core::clock::SteadyMs;
use crate::telemetry::steady_ms;

/// Maximum time between two iterations of the role's main loop, in milliseconds. If an iteration takes longer, the
/// health check reports that the role is not alive, because a restart may help.
const BEAT_MS_MAX: i64 = 120_000;

/// The status that the role updates and the HTTP server reads.
#[derive(Debug)]
pub struct Status {
    waiting_for: Mutex<Option<String>>,
    beat_ms: AtomicI64,
}

impl Status {
    /// Returns the status of a role that has just started.
    pub fn new() -> Status {
        Status {
            waiting_for: Mutex::new(Some("starting".to_owned())),
            beat_ms: AtomicI64::new(steady_ms().0),
        }
    }

    /// Sets the reason why the role is waiting. `None` means that the role is working.
    pub fn set_waiting(&self, what: Option<String>) {
        *self.waiting_for.lock().expect("no panic holds the lock") = what;
    }

    /// Notes that the role's loop is running.
    pub fn beat(&self) {
        self.beat_ms.store(steady_ms().0, Ordering::Relaxed);
    }
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}

impl Probe for Status {
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
        waiting_for.clone().map_or(Ok(()), Err)
    }
}
