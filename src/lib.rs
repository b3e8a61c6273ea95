//! citystream: city events from Kafka to DynamoDB, counted exactly.
//!
//! In reading order: [`settings`] checks flags and environment; [`core`] holds the pure logic of what an event
//! means and what is written; [`kafka`] and [`store`] talk to the two outside worlds; [`api`] answers HTTP;
//! [`consume`], [`produce`], [`tail`], [`verify`], [`tables`] and [`check`] do what the subcommands promise, and
//! [`cmd`] has a small file per subcommand that puts the parts together. `docs/ARCHITECTURE.md` says more.

pub mod api;
pub mod aws;
pub mod check;
pub mod cmd;
pub mod consume;
#[cfg(feature = "dev")]
pub mod dev;
pub mod exit;
pub mod failure;
pub mod kafka;
mod listen;
mod output;
pub mod produce;
mod service;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod sys;
pub mod tables;
pub mod tail;
pub mod telemetry;
pub mod verify;

pub use citystream_core as core;
