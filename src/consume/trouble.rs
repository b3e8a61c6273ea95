//! The reasons why a consumer cannot start yet, and their descriptions.

use crate::exit::SettingsError;
use crate::kafka::REACH_REMEDY;
use crate::remedy::of_store;
use crate::store::error::StoreError;

/// The reason why the consumer cannot start reading a partition yet.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The consumer waits for a condition that may be met later. The field describes this condition.
    Wait(String),
    /// The consumer stops, because it cannot continue until an operator fixes the problem.
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
