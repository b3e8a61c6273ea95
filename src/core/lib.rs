//! Pure logic: everything that decides what an event means and what is written.
//!
//! Nothing here reads a clock, draws a random number, waits, or knows the AWS SDK or librdkafka.
//! Functions take values and return values, so a test can drive them through every order of events;
//! the shell (`kafka`, `store`, `cmd`) carries the values to and from the outside. Time comes in as
//! `now_ms`, chance as numbers drawn by the caller.
//!
//! Reading order: [`event`] and [`parse`] (what a record says), [`time`], [`window`] and
//! [`watermark`] (where it belongs), [`keys`] (under which names), [`stretch`] and [`plan`]
//! (what is written), [`worker`] (one partition), [`restart`] (where to begin again),
//! [`gap`] (offsets that were passed over),
//! [`batch`] and [`pace`] (how much at once), [`pipeline`] (all partitions of a consumer). Beside
//! them [`synth`] and [`synth_faults`] (made-up events, and trouble among them), [`replay`] (old events sent
//! again), [`repair`] (rejected ones mended), [`murmur2`] (the partition of a key) and [`progress`]
//! (rate and time left of work with an end).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod audit;
pub mod batch;
pub mod event;
pub mod gap;
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
pub mod stall;
pub mod stretch;
pub mod synth;
pub mod synth_faults;
pub mod table_identity;
pub mod time;
pub mod watermark;
pub mod window;
pub mod worker;

/// The number of the rules that decide a record's validity, row and lateness.
///
/// It stands in the config item of the totals table; a consumer whose number differs stops, because
/// mixing two sets of rules over one set of fences would count records never or twice. Any change to
/// [`parse`], [`window`], [`watermark`] or [`keys`] that alters an outcome raises it.
pub const RULES: u32 = 1;
