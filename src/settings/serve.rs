//! Options of `citystream serve`.

use std::net::IpAddr;

use clap::Args;

use super::{LogArgs, TableArgs};

/// `citystream serve`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream serve --port 8082\n  curl localhost:8082/api/v1/stats"
)]
pub struct Serve {
    /// Port to answer on; 0 picks a free one
    #[arg(long, default_value_t = 8082, env = "CITYSTREAM_PORT")]
    pub port: u16,

    /// Address to answer on
    #[arg(long, default_value = "127.0.0.1", env = "CITYSTREAM_BIND")]
    pub bind: IpAddr,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub tables: TableArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}
