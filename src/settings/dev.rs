//! Options of `citystream dev`.

use std::path::PathBuf;

use clap::Args;

use super::LogArgs;
use super::values::{Rate, parse_duration_ms, parse_host, parse_rate};

/// `citystream dev`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream dev\n  citystream dev --rate 100/s\n  citystream dev --input data/city-events-2013-01.ndjson.gz"
)]
pub struct Dev {
    /// Keep the tables in this folder between runs [default: in memory]
    #[arg(long, value_name = "FOLDER", env = "CITYSTREAM_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Time between two synthetic events
    #[arg(long, value_name = "DURATION", default_value = "500ms", env = "CITYSTREAM_INTERVAL", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000))]
    pub interval: i64,

    /// Events a second, as 100/s, or max
    #[arg(long, value_name = "N/s", env = "CITYSTREAM_RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,

    /// Send this NDJSON file (.gz too) instead of synthetic events
    #[arg(long, value_name = "FILE", env = "CITYSTREAM_INPUT")]
    pub input: Option<PathBuf>,

    /// Port of the API, the page and all metrics; 0 picks a free one
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 8082,
        env = "CITYSTREAM_PORT"
    )]
    pub port: u16,

    /// A name by which clients may ask, beside localhost and addresses; can be repeated
    #[arg(long, value_name = "NAME", env = "CITYSTREAM_ALLOWED_HOST", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}
