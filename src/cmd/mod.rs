//! The subcommands. Each has a small file, which builds the parts of the subcommand from its settings and runs them.
//!
//! Each function `run` returns when its work is done. After `shutdown` is triggered, `run` returns when everything in
//! flight is finished.

pub mod check;
pub mod config;
pub mod consume;
#[cfg(feature = "dev")]
pub mod dev;
pub mod init_tables;
pub mod notify;
pub mod print;
pub mod produce;
pub mod serve;
pub mod silence;
pub mod tail;
pub mod verify;

use aws_sdk_dynamodb::Client;

use crate::store::client::{ConnectOptions, connect};
use crate::tables::mark_settings;

/// Prepares a client of DynamoDB. The function sends no request yet.
async fn connect_dynamodb(options: ConnectOptions) -> anyhow::Result<Client> {
    connect(options).await.map_err(mark_settings)
}
