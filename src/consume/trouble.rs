//! The reasons why a consumer cannot start yet, and the texts that describe them.

use crate::exit::SettingsError;
use crate::kafka::REACH_REMEDY;
use crate::remedy::of_store;
use crate::store::error::StoreError;

/// The reason why some facts that a partition needs to start are not known.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The missing facts may become available later. The text describes the condition that the consumer waits for.
    Wait(String),
    /// Only an operator can fix the problem, so the consumer stops.
    Settings(SettingsError),
}

/// Returns a text that explains why the consumer waits for DynamoDB.
pub(super) fn dynamodb(error: &StoreError) -> String {
    match of_store(error) {
        Some(todo) => format!("DynamoDB: {error}; {todo}"),
        None => format!("DynamoDB: {error}"),
    }
}

/// Returns a text that explains why the consumer waits for Kafka.
pub(super) fn kafka(error: &dyn std::fmt::Display) -> String {
    format!("Kafka: {error}; {REACH_REMEDY}")
}
