//! Options of `citystream produce`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::values::{Rate, parse_duration_ms, parse_rate};
use super::{KafkaArgs, LogArgs};

/// `citystream produce`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream produce --interval 5s\n  citystream produce --rate 1000/s --count 100000 --seed 7\n  citystream produce --input events.ndjson.gz"
)]
pub struct Produce {
    /// Time between two synthetic events
    #[arg(long, value_name = "DURATION", default_value = "5s", env = "CITYSTREAM_INTERVAL", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000))]
    pub interval: i64,

    /// Events a second, as 1000/s, or max [default for --input: max]
    #[arg(long, value_name = "N/s", env = "CITYSTREAM_RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,

    /// Stop after so many events
    #[arg(long, value_name = "N", env = "CITYSTREAM_COUNT")]
    pub count: Option<u64>,

    /// Same seed, same synthetic events (their times aside)
    #[arg(long, value_name = "N", env = "CITYSTREAM_SEED")]
    pub seed: Option<u64>,

    /// Send the lines of this NDJSON file (.gz too), or of standard input for -
    #[arg(long, value_name = "FILE", env = "CITYSTREAM_INPUT")]
    pub input: Option<PathBuf>,

    /// Exit 0 even if the input had bad lines
    #[arg(long, env = "CITYSTREAM_SKIP_BAD", requires = "input")]
    pub skip_bad: bool,

    /// Time between heartbeats to every partition [default: 60s for synthetic events, else none]
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_HEARTBEAT", value_parser = |s: &str| parse_duration_ms(s, 100, 86_400_000))]
    pub heartbeat: Option<i64>,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        env = "CITYSTREAM_LISTEN"
    )]
    pub listen: SocketAddr,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}
