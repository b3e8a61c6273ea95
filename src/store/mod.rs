//! DynamoDB: client, tables, config item, writes and reads. Knows nothing of Kafka.

mod answers;
pub mod client;
pub mod config;
mod credentials;
#[cfg(feature = "dev")]
pub mod embedded;
pub mod error;
pub mod former;
pub mod items;
mod proof;
pub mod protect;
pub mod reads;
pub mod rights;
mod skew;
pub mod tables;
pub mod write;
