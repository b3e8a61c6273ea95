//! The memory budget: bytes of records that have been read and are not yet durable.
//!
//! The consumer thread takes bytes for each record, and the pipeline frees them when the record is durable.
//! Over the budget, the thread stops reading (INV-5).

use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes with a maximum.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    /// Returns an unused budget of `max` bytes.
    pub fn new(max: u64) -> Budget {
        Budget {
            used: AtomicU64::new(0),
            max,
        }
    }

    /// Takes bytes. One batch may exceed the budget, because its size is known only after it was read.
    pub fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns whether more than the budget is used.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.max
    }

    /// Gives bytes back.
    pub fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns whether three quarters of the budget are used. Reading is paused then, or will be soon.
    pub fn is_tight(&self) -> bool {
        self.used() >= self.max / 4 * 3
    }

    /// Returns the number of used bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
