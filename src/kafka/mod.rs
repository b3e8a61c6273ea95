//! Kafka: client options, topics, rights, the consumer thread and the producer. Knows nothing of DynamoDB.

pub mod admin;
pub mod budget;
pub mod client;
pub mod client_errors;
pub mod consumer;
pub mod dlq;
pub mod iam;
pub mod inquiry;
pub mod membership;
pub mod reader;
mod record;
pub mod refusal;
pub mod rights;
pub mod second_read;
pub mod survey;

/// How often a wait for Kafka is told.
pub(crate) const NOTICE_EVERY: std::time::Duration = std::time::Duration::from_secs(10);
/// What to do about brokers that do not answer.
pub(crate) const REACH_REMEDY: &str = "check --brokers, and that Kafka runs there";
/// What to do about a topic that is not there.
pub(crate) const MISSING_REMEDY: &str = "citystream init-tables makes it";
