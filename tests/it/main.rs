//! The commands of the built binary and whole roles, on brokers inside of this process.
#![allow(clippy::unwrap_used, missing_docs)]

mod produce_tail;
