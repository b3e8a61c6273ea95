//! What a consumer tells about itself: alive, ready, and what it waits for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::api::ops::Probe;
use crate::telemetry::unix_ms;

/// Without a poll for this long the thread hangs, and a restart would help, in milliseconds.
const BEAT_MS_MAX: i64 = 60_000;

/// Shared between the shell and whoever asks.
#[derive(Debug)]
pub struct Status {
    waiting_for: Mutex<Option<String>>,
    beat_ms: AtomicI64,
}

impl Status {
    /// Returns the status of a role that has just begun.
    pub fn new() -> Status {
        Status {
            waiting_for: Mutex::new(Some("starting".to_owned())),
            beat_ms: AtomicI64::new(unix_ms()),
        }
    }

    /// Says what the role waits for; `None` once it works.
    pub fn set_waiting(&self, what: Option<String>) {
        *self.waiting_for.lock().expect("no panic holds the lock") = what;
    }

    /// Notes when the consumer thread polled last.
    pub fn set_beat(&self, beat_ms: i64) {
        self.beat_ms.store(beat_ms, Ordering::Relaxed);
    }
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}

impl Probe for Status {
    fn live(&self) -> Result<(), String> {
        let silent_ms = unix_ms() - self.beat_ms.load(Ordering::Relaxed);
        if silent_ms > BEAT_MS_MAX {
            return Err(format!(
                "the consumer has not polled for {} s",
                silent_ms / 1_000
            ));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        match &*self.waiting_for.lock().expect("no panic holds the lock") {
            Some(what) => Err(what.clone()),
            None => Ok(()),
        }
    }
}
