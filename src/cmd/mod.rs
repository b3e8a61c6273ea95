//! The subcommands, a small file each: it turns settings into parts, and runs them.
//!
//! Each has `run`, which returns when its work is done, or when `shutdown` was triggered and everything in
//! flight is settled.

pub mod check;
pub mod config;
pub mod consume;
#[cfg(feature = "dev")]
pub mod dev;
pub mod init_tables;
pub mod print;
pub mod produce;
pub mod serve;
pub mod tail;
pub mod verify;
