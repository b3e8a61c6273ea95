//! Contains all code that uses DynamoDB: the client, the tables, the config item, writes and reads.
//!
//! The modules in this folder do not use Kafka.

mod answers;
pub mod attributes;
pub mod client;
pub mod config;
mod credentials;
#[cfg(feature = "dev")]
pub mod embedded;
pub mod error;
pub mod former;
mod incident_items;
pub mod incidents;
pub mod items;
mod proof;
pub mod protect;
pub mod reads;
mod requests;
pub mod rights;
mod rollup_items;
pub mod rollups;
mod skew;
pub mod tables;
pub mod write;
