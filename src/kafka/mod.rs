//! Kafka: client options, topics, the consumer thread and the producer. Knows nothing of DynamoDB.

pub mod admin;
pub mod client;
pub mod consumer;
pub mod credit;
pub mod dlq;
pub mod input;
pub mod inquiry;
pub mod latency;
pub mod producer;
pub mod pump;
pub mod reader;
pub mod survey;
