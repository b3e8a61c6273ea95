//! citystream: city events from Kafka to DynamoDB, counted exactly.
//!
//! In reading order: `settings` (flags and environment → checked settings), `core` (pure logic: what
//! an event means and what is written), `kafka` and `store` (the two outside worlds), `api` (HTTP),
//! `cmd` (one file per role, wiring only); beside them `telemetry` (log lines and metrics),
//! `shutdown` (one request to stop), `aws` (HTTP to AWS) and `sys` (the few foreign calls).

pub mod api;
pub mod aws;
pub mod cmd;
pub mod core;
pub mod kafka;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod sys;
pub mod telemetry;
