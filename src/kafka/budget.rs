//! The memory budget for the records that the consumer has read but that are not yet durable.
//!
//! The consumer thread takes bytes from the budget for each record, and the pipeline returns these bytes when the
//! record is durable. While the used bytes exceed the budget, the consumer thread does not read (INV-5).
//!
//! The crate `proof/handoff` compiles this file for loom, which tries every order in which the threads can take their
//! steps.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// A memory budget: the maximum number of bytes, and the number of bytes in use.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    /// Returns a new budget of `max` bytes.
    pub fn new(max: u64) -> Budget {
        Budget {
            used: AtomicU64::new(0),
            max,
        }
    }

    /// Adds `bytes` to the number of used bytes. The used bytes may exceed the budget by one batch, because the
    /// consumer thread knows the size of a batch only after it has read the batch.
    pub fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns true if the used bytes exceed the budget.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.max
    }

    /// Subtracts `bytes` from the number of used bytes.
    pub fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns true if the used bytes are at least three quarters of the budget. The consumer then has paused reading,
    /// or soon pauses.
    pub fn is_tight(&self) -> bool {
        self.used() >= self.max / 4 * 3
    }

    /// Returns the number of used bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
