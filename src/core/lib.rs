//! The pure logic of citystream. This crate parses events and decides what the consumer writes to the tables.
//!
//! This crate never reads a clock, draws a random number or waits. The crate has no dependency on the AWS SDK or
//! librdkafka. The functions of the crate take values and return values, so a test can call them with events in any
//! order. Modules outside this crate (`kafka`, `store`, `cmd`) do the I/O. The caller passes the current time
//! (`now_ms`) and random numbers as arguments.
//!
//! Modules in reading order:
//!
//! - [`event`], [`parse`]: the type of an event, and the parser for records
//! - [`clock`], [`time`], [`window`], [`watermark`]: instants, timestamps, windows and lateness
//! - [`keys`]: the names and keys of all items
//! - [`stretch`], [`plan`]: the sums of records, and the writes to the tables
//! - [`worker`], [`pipeline`]: the state of one partition, and of all partitions of a consumer
//! - [`restart`], [`publication`], [`gap`]: the offset at which a partition starts, the progress items, and gaps between
//!   offsets
//! - [`table_identity`], [`replaced`], [`stall`]: the checks of tables, log and progress while a consumer runs
//! - [`batch`], [`pace`], [`ledger`]: batches of puts, concurrency and waits, and what became of each record
//! - [`rollup`]: counts by hour and by day
//! - [`audit`]: compares the tables with the log
//! - [`incident`]: the incidents that rules find, and the messages about them
//! - [`synth`], [`synth_faults`], [`replay`], [`repair`]: synthetic events, old events and repaired records
//! - [`submission`], [`murmur2`], [`progress`]: the events in a request, the partition of a key, and the remaining time
//!   of a task

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
pub mod publication;
pub mod repair;
pub mod replaced;
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

/// The version of the rules that decide whether a record is valid, which rows count the record, and whether it is late.
///
/// The config item in the totals table contains the version of the rules. A consumer stops if the config item contains
/// another version than the consumer's own `RULES`. If consumers with different rules updated the same rows, some
/// records would be counted twice or never. Every change to the results of [`parse`], [`window`], [`watermark`] or
/// [`keys`] must increase the version.
pub const RULES: u32 = 1;
