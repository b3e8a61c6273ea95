//! The memory budget between Kafka and DynamoDB: bytes that were read and are not yet durable.
//!
//! The consumer thread takes bytes, whoever finishes records gives them back; over the budget the
//! thread stops reading (C5).

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes between Kafka and DynamoDB.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    max: u64,
}

impl Budget {
    /// Returns an unused budget.
    pub fn new(max: u64) -> Budget {
        Budget {
            used: AtomicU64::new(0),
            max,
        }
    }

    /// Takes bytes; the budget may be exceeded by what one round reads.
    pub fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells whether more is in use than there should be.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.max
    }

    /// Gives bytes back.
    pub fn free(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tells whether reading rests, or is about to rest, until bytes come back.
    pub fn is_tight(&self) -> bool {
        self.used() >= self.max / 4 * 3
    }

    /// Returns the bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
