//! Contains code for both readers and writers: it counts requests and their errors, and finds the stored item in the
//! refusal of a conditional write.

use std::time::Instant;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ConsumedCapacity;

use crate::store::answers::{Flaw, count_flaw};
use crate::store::attributes::Item;
use crate::store::error::{OperationError, StoreError};
use crate::telemetry::Metrics;

/// Counts a request that has ended. `outcome` is `ok` or the name of an error kind.
pub(super) fn count_request(
    metrics: &Metrics,
    operation: &str,
    table: &str,
    outcome: &str,
    started: Instant,
    units: Option<f64>,
) {
    metrics
        .dynamodb_requests
        .with_label_values(&[operation, table, outcome])
        .inc();
    metrics
        .dynamodb_seconds
        .with_label_values(&[operation])
        .observe(started.elapsed().as_secs_f64());
    if let Some(units) = units {
        metrics
            .dynamodb_units
            .with_label_values(&[table, operation])
            .inc_by(units.max(0.0));
    }
}

/// A request to one table. The metrics count the request when it ends.
pub(super) struct Counted<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    table: &'a str,
    started: Instant,
}

impl<'a> Counted<'a> {
    /// Begins to measure the duration of a request. `operation` is DynamoDB's name for the operation on `table`.
    pub(super) fn begin(metrics: &'a Metrics, operation: &'static str, table: &'a str) -> Self {
        let started = Instant::now();
        Counted {
            metrics,
            operation,
            table,
            started,
        }
    }

    /// Counts a request with a valid response. `outcome` is `ok` or `conflict`.
    pub(super) fn answered<'c>(
        &self,
        outcome: &str,
        capacity: impl IntoIterator<Item = &'c ConsumedCapacity>,
    ) {
        let units = capacity.into_iter().filter_map(|c| c.capacity_units());
        self.count(outcome, units.reduce(|sum, units| sum + units));
    }

    /// Counts a failed request, and returns its error.
    pub(super) fn failed<E: OperationError>(&self, error: SdkError<E, HttpResponse>) -> StoreError {
        self.ended_with(StoreError::from_sdk(self.operation, self.table, error))
    }

    /// Counts a request with an invalid response, and returns the error for the flaw.
    pub(super) fn wrong_answer(&self, flaw: Flaw) -> StoreError {
        count_flaw(Some(&self.metrics.answers_refused), self.operation, flaw);
        self.ended_with(StoreError::wrong_answer(self.operation, self.table, flaw))
    }

    /// Counts a request that ended with `error`, and returns this error.
    pub(super) fn ended_with(&self, error: StoreError) -> StoreError {
        self.count(error.kind().name(), None);
        error
    }

    fn count(&self, outcome: &str, units: Option<f64>) {
        let Counted {
            metrics,
            operation,
            table,
            started,
        } = self;
        count_request(metrics, operation, table, outcome, *started, units);
    }
}

/// Returns the stored item if an update has failed because its condition did not hold. The inner value is `None` if the
/// item does not exist.
pub(super) fn refusing_item(
    error: &SdkError<UpdateItemError, HttpResponse>,
) -> Option<Option<&Item>> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => Some(failed.item()),
        _ => None,
    }
}
