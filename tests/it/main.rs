//! Tests of the built binary and of whole roles, on brokers and databases inside this process.
//!
//! The tables in `docs/RELIABILITY.md` say which test shows which behaviour.
#![allow(clippy::unwrap_used, missing_docs)]

mod accept;
mod broker;
#[path = "../../fuzz/checks.rs"]
mod checks;
mod cli;
mod consume;
mod csv;
mod dev;
#[path = "../support/faults.rs"]
mod faults;
mod faulty;
mod fuzzed;
mod letters;
mod member;
mod membership;
mod migration;
mod notify;
mod ops;
mod process;
mod produce;
mod protection;
// The simulation uses more of this module.
#[allow(dead_code)]
#[path = "../../src/core/tests/sim/reference.rs"]
mod reference;
mod rights;
mod rollups;
mod serve;
mod snapshot;
mod snippets;
mod stall;
mod stopped;
mod store;
#[path = "../store/mod.rs"]
mod suite;
mod tail;
mod terminal;
mod throttles;
mod trial;
mod verify;
mod world;
