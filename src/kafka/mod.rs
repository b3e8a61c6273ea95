//! Clients of Kafka: options and login, topics and rights, the consumer thread, and readers outside a group.
//!
//! | module | holds |
//! |---|---|
//! | [`client`], [`iam`] | the options of every client and how it logs in |
//! | [`client_errors`], [`refusal`], [`membership`] | the reports of librdkafka, and those that only a person can fix |
//! | `context` | the callbacks of clients outside a group |
//! | [`consumer`], [`budget`], [`inquiry`] | the consumer thread, its memory, and requests over its connections |
//! | [`second_read`], `scan` | the check of gaps between records |
//! | [`reader`], [`survey`] | reading a topic without a group |
//! | [`admin`], [`topic_spec`], [`rights`] | creating topics and asking for rights |
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
pub mod iam;
pub mod inquiry;
pub(crate) mod log_limit;
pub mod membership;
pub mod reader;
mod record;
pub mod refusal;
pub mod rights;
pub(crate) mod scan;
pub mod second_read;
pub mod survey;
pub mod topic_spec;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

/// The remedy for brokers that do not answer.
pub(crate) const REACH_REMEDY: &str = "check --brokers, and that Kafka runs there";
/// The remedy for a missing topic.
pub(crate) const MISSING_REMEDY: &str = "citystream init-tables makes it";

/// Returns the partitions of `topic` in `metadata`; `None` if there is no such topic.
///
/// Callers request the metadata of all topics. A request for one topic by name would create it where the
/// brokers allow that, with the wrong settings (`allow.auto.create.topics` in
/// <https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md>).
pub(crate) fn partitions_of(metadata: &Metadata, topic: &str) -> Option<Vec<i32>> {
    let found = metadata.topics().iter().find(|t| t.name() == topic)?;
    let partitions: Vec<i32> = found.partitions().iter().map(|p| p.id()).collect();
    (!partitions.is_empty()).then_some(partitions)
}

/// Returns whether an error says that the topic does not exist.
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
