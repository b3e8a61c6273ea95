//! The library of citystream, which reads city events from Kafka and counts them exactly in DynamoDB.
//!
//! The modules, in a good order for reading the code:
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | the command line and the environment, parsed into typed settings |
//! | [`core`] | the logic without I/O: parsing events, and deciding what to write |
//! | [`kafka`], [`store`] | the code that talks to Kafka and to DynamoDB |
//! | [`api`] | the HTTP API |
//! | [`consume`], [`produce`], `serve`, [`notify`], [`tail`], [`verify`], [`tables`], [`check`], `bundle`, `dev` | the work of the subcommands |
//! | [`cmd`] | one small file per subcommand, which builds and connects its parts |
//! | [`failure`], [`remedy`], [`exit`] | failures, their remedies, and the exit codes |
//!
//! `docs/ARCHITECTURE.md` describes how the modules work together.

mod access;
pub mod api;
pub mod aws;
mod blocking;
mod bundle;
pub mod check;
pub mod cmd;
pub mod consume;
#[cfg(feature = "dev")]
pub mod dev;
pub mod exit;
pub mod failure;
pub mod kafka;
mod listen;
pub mod notify;
mod output;
pub mod produce;
pub mod remedy;
mod serve;
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
