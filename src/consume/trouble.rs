//! The reasons why a consumer cannot start yet, and the texts that describe them.

use crate::exit::SettingsError;
use crate::kafka::REACH_REMEDY;
use crate::remedy::of_store;
use crate::store::error::StoreError;

/// The reason why the consumer lacks facts that it needs to start reading a partition.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The missing facts may become available later, so the consumer waits for them. The text describes the condition
    /// that the consumer waits for.
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
