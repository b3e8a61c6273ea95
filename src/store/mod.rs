//! DynamoDB: client, tables, config item, writes and reads. Knows nothing of Kafka.

pub mod client;
pub mod config;
#[cfg(feature = "dev")]
pub mod embedded;
pub mod error;
pub mod reads;
pub mod tables;
pub mod write;
