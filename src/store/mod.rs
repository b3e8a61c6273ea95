//! DynamoDB: client, tables, config item, writes and reads. Knows nothing of Kafka.

pub mod client;
pub mod config;
pub mod items;
pub mod reads;
pub mod tables;
pub mod write;
