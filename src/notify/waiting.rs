//! Describes what the role waits for.

use crate::remedy;
use crate::store::error::{StoreError, StoreErrorKind};

/// Returns a text about an error of the table of incidents, with the remedy.
pub(super) fn incidents_error(error: &StoreError) -> String {
    let remedy = match error.kind() {
        StoreErrorKind::NotFound => Some("run citystream init-tables --incidents"),
        _ => remedy::of_store(error),
    };
    match remedy {
        Some(remedy) => format!("DynamoDB: {error}; {remedy}"),
        None => format!("DynamoDB: {error}"),
    }
}
