//! Which tables refuse writes now, for `/readyz` and the log.

use std::collections::BTreeMap;

use crate::consume::log_limit::LogLimit;
use crate::consume::status::{Status, Wait};
use crate::store::error::StoreError;

/// The tables whose last write failed, each with its error.
#[derive(Default)]
pub(super) struct WriteErrors {
    failing: BTreeMap<usize, String>,
}

impl WriteErrors {
    /// Takes the end of a write to `table`, which has its place in [`crate::core::keys::TABLES`].
    pub(super) fn note(
        &mut self,
        table: usize,
        error: Option<&StoreError>,
        status: &Status,
        limit: &mut LogLimit,
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

    /// Forgets all errors: no write waits for a table any more.
    pub(super) fn clear(&mut self, status: &Status, limit: &mut LogLimit) {
        if !self.failing.is_empty() {
            self.failing.clear();
            self.show(status, limit);
        }
    }

    fn show(&self, status: &Status, limit: &mut LogLimit) {
        let first = self.failing.values().next();
        let waiting = first.map(|error| format!("waiting for DynamoDB to take writes: {error}"));
        if waiting.is_none() && limit.allows("sink again") {
            tracing::info!("DynamoDB takes writes again");
        }
        status.set_waiting(Wait::Sink, waiting);
    }
}
