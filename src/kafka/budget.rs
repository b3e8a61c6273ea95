//! The memory budget for records that the consumer has read and that are not yet durable.
//!
//! The consumer thread takes bytes from the budget for each record. The pipeline returns the bytes of a record to the
//! budget when the record is durable. While more bytes are used than the budget allows, the consumer thread does not
//! read (INV-5).
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

    /// Adds `bytes` to the number of used bytes. The number of used bytes may exceed the budget by one batch, because
    /// the size of a batch is unknown before the batch has been read.
    pub fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns true if more bytes are used than the budget allows.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.max
    }

    /// Subtracts `bytes` from the number of used bytes.
    pub fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns true if at least three quarters of the budget are used. A consumer that uses three quarters of its
    /// budget has paused reading or will soon pause reading.
    pub fn is_tight(&self) -> bool {
        self.used() >= self.max / 4 * 3
    }

    /// Returns the number of used bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
