//! Functions that the readers and the writer share. One function counts requests. The other function returns the stored
//! item that made a conditional write fail.

use std::time::Instant;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;

use crate::store::attributes::Item;
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

/// Returns the stored item if an update failed because its condition did not hold. The inner value is `None` if the
/// item does not exist.
pub(super) fn refusing_item(
    error: &SdkError<UpdateItemError, HttpResponse>,
) -> Option<Option<&Item>> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => Some(failed.item()),
        _ => None,
    }
}
