//! The subcommands. Each subcommand has its own file, which creates the components of the subcommand from the settings
//! and runs them.
//!
//! The function `run` of each subcommand returns when its work is done. After `shutdown` is triggered, the function
//! `run` returns when all requests in flight are finished.

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

/// Creates a DynamoDB client, without sending a request.
async fn connect_dynamodb(options: ConnectOptions) -> anyhow::Result<Client> {
    connect(options).await.map_err(mark_settings)
}
