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

use aws_sdk_dynamodb::Client;

use crate::store::client::{ConnectOptions, connect};
use crate::tables::mark_settings;

/// Sets up the connection to DynamoDB. Sends nothing yet.
async fn connect_dynamodb(options: ConnectOptions) -> anyhow::Result<Client> {
    connect(options).await.map_err(mark_settings)
}
