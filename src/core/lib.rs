//! The pure logic of citystream. This crate decides what an event means and what the consumer writes.
//!
//! This crate never reads a clock, draws a random number or waits. The crate uses neither the AWS SDK nor librdkafka.
//! The functions of the crate take values and return values, so a test can drive them through every order of events.
//! The modules around the crate (`kafka`, `store`, `cmd`) do the I/O. The caller passes the time as `now_ms`, and
//! passes random numbers as arguments.
//!
//! Reading order: [`event`] and [`parse`] (what a record says), [`time`], [`window`] and
//! [`watermark`] (where it belongs), [`keys`] (under which names), [`stretch`] and [`plan`]
//! (what is written), [`worker`] (one partition), [`restart`] (where to begin again), [`rollup`] (hours and days),
//! [`gap`] (offsets that were passed over),
//! [`batch`] and [`pace`] (how much at once), [`pipeline`] (all partitions of a consumer). Beside
//! them [`synth`] and [`synth_faults`] (made-up events, and trouble among them), [`replay`] (old events sent
//! again), [`repair`] (rejected ones mended), [`submission`] (events that a client sends in one body), [`murmur2`] (the partition of a key) and [`progress`]
//! (rate and time left of work with an end).

pub mod audit;
pub mod batch;
pub mod clock;
pub mod event;
pub mod gap;
pub mod incident;
pub mod keys;
pub mod ledger;
pub mod murmur2;
pub mod pace;
pub mod parse;
pub mod patch;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod repair;
pub mod replay;
pub mod restart;
pub mod rollup;
pub mod stall;
pub mod stretch;
pub mod submission;
pub mod synth;
pub mod synth_faults;
pub mod table_identity;
pub mod time;
pub mod watermark;
pub mod window;
pub mod worker;

/// The version of the rules that decide the validity, the row and the lateness of a record.
///
/// The config item in the totals table contains the version of the rules. A consumer stops if the item has another
/// version than the consumer. If consumers with different rules updated the same rows, some records would be counted
/// twice or never. A change to [`parse`], [`window`], [`watermark`] or [`keys`] that alters a result must raise the
/// version.
pub const RULES: u32 = 1;
