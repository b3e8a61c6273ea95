//! How a connection has been used so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Requests after which a connection closes, so that long-lived clients spread over new servers.
const REQUESTS_MAX: u64 = 10_000;

/// The requests of one connection, and the reasons to end it.
#[derive(Default)]
pub(super) struct Usage {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Notified when the connection should end after the answers in flight.
    pub(super) worn_out: Notify,
    /// Notified when the client takes nothing of an answer.
    pub(super) stalled: Notify,
}

impl Usage {
    /// Returns how many requests have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.begun() == self.ended.load(Ordering::Relaxed)
    }
}

/// A request in flight, from its head to the end of the answer's body.
#[derive(Default)]
pub(super) struct InFlight(Arc<Usage>);

impl InFlight {
    pub(super) fn begin(usage: &Arc<Usage>) -> InFlight {
        if usage.begun.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX {
            usage.worn_out.notify_one();
        }
        InFlight(Arc::clone(usage))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
