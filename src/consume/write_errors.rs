//! Tracks the tables whose last write has failed, for `/readyz` and the log.

use std::collections::BTreeMap;

use crate::consume::status::{ConsumeStatus, ConsumeWait};
use crate::store::error::StoreError;
use crate::telemetry::LogLimits;

/// The tables whose last write has failed, each with the error of this write.
#[derive(Default)]
pub(super) struct WriteErrors {
    failing: BTreeMap<usize, String>,
}

impl WriteErrors {
    /// Records the result of a write to a table. The argument `table` is the table's index in
    /// [`crate::core::keys::TABLES`].
    pub(super) fn note(
        &mut self,
        table: usize,
        error: Option<&StoreError>,
        status: &ConsumeStatus,
        limit: &mut LogLimits,
    ) {
        let Some(error) = error else {
            if self.failing.remove(&table).is_some() {
                self.show(status, limit);
            }
            return;
        };
        if error.kind().is_retryable() {
            self.failing.insert(table, error.to_string());
            self.show(status, limit);
        }
        if limit.allows("sink") {
            tracing::warn!(%error, "DynamoDB refused a write, trying again");
        }
    }

    /// Removes all recorded errors. The shell calls this function when no request is in flight.
    pub(super) fn clear(&mut self, status: &ConsumeStatus, limit: &mut LogLimits) {
        if !self.failing.is_empty() {
            self.failing.clear();
            self.show(status, limit);
        }
    }

    fn show(&self, status: &ConsumeStatus, limit: &mut LogLimits) {
        let first = self.failing.values().next();
        let waiting = first.map(|error| format!("waiting for DynamoDB to accept writes: {error}"));
        if waiting.is_none() && limit.allows("sink again") {
            tracing::info!("DynamoDB accepts writes again");
        }
        status.set_waiting(ConsumeWait::Sink, waiting);
    }
}
