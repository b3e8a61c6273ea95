//! Everything that talks to DynamoDB: client, tables, config item, writes and reads.
//!
//! No module here knows Kafka.

mod answers;
pub mod attributes;
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
mod requests;
pub mod rights;
mod skew;
pub mod tables;
mod warn_limit;
pub mod write;
