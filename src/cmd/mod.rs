//! The subcommands, one small file each. A file turns settings into parts and runs them.
//!
//! Each `run` function returns when the work is done, or after `shutdown` was triggered and everything
//! in flight is settled.

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
