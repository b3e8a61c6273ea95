//! Counts the requests of a connection, and signals when the connection should end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Number of requests after which the server closes a connection, so that long-lived clients also reach new servers.
const REQUESTS_MAX: u64 = 10_000;

/// The request counts of one connection, and the signals that end the connection.
#[derive(Default)]
pub(super) struct Usage {
    begun: AtomicU64,
    ended: AtomicU64,
    /// The signal to close the connection after all responses in flight are sent.
    pub(super) worn_out: Notify,
    /// The signal that the client has stopped reading a response.
    pub(super) stalled: Notify,
}

impl Usage {
    /// Returns the number of requests that have begun on the connection.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.begun() == self.ended.load(Ordering::Relaxed)
    }
}

/// A request in flight, from the head of the request to the end of the response's body.
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
