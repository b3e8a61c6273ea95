//! Contains all code that uses Kafka: client settings and logins, topics and rights, the consumer thread, and readers
//! that join no consumer group.
//!
//! | module | holds |
//! |---|---|
//! | [`client`], [`iam`] | the options of every client and how it logs in |
//! | [`client_errors`], [`refusal`], [`membership`] | the errors that librdkafka reports, and how to fix them |
//! | `context` | the callbacks of clients outside a group |
//! | [`consumer`], [`budget`], `inquiry` | the consumer thread, its memory, and requests over its connections |
//! | [`second_read`], `scan` | the check of gaps between records |
//! | [`reader`], [`survey`] | reading a topic without a group |
//! | [`admin`], [`topic_spec`], [`rights`] | creating topics and checking rights |
//! | [`dlq`] | sending dead letters |
//!
//! The producer of events is in [`crate::produce`]. This module does not use DynamoDB.

pub mod admin;
pub mod budget;
pub mod client;
pub mod client_errors;
pub mod consumer;
pub(crate) mod context;
pub mod dlq;
mod epochs;
pub mod iam;
pub mod membership;
pub mod reader;
mod record;
pub mod refusal;
pub(crate) mod replaced;
pub mod rights;
pub(crate) mod scan;
pub mod second_read;
pub mod survey;
pub mod topic_spec;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

/// The remedy if no broker answers.
pub(crate) const REACH_REMEDY: &str =
    "check --brokers, and that Kafka is running at these addresses";
/// The remedy for a missing topic.
pub(crate) const MISSING_REMEDY: &str = "citystream init-tables creates it";

/// Returns the partitions of `topic` in `metadata`, or `None` if the topic does not exist.
///
/// The caller should request `metadata` for all topics. If the brokers allow automatic creation, a request for one
/// topic by name creates this topic with wrong settings. Source: `allow.auto.create.topics` in
/// <https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md>.
pub(crate) fn partitions_of(metadata: &Metadata, topic: &str) -> Option<Vec<i32>> {
    let found = metadata.topics().iter().find(|t| t.name() == topic)?;
    let partitions: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
    (!partitions.is_empty()).then_some(partitions)
}

/// Returns true if an error says that the topic does not exist.
pub(crate) fn is_topic_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}
