//! Options of `citystream dev`.

use std::path::PathBuf;

use clap::Args;

use super::LogArgs;
use super::values::{Rate, parse_duration_ms, parse_host, parse_port, parse_rate, parse_speed};

/// Returns milliseconds; 0 for `off`.
fn parse_history(text: &str) -> Result<i64, String> {
    if text == "off" {
        return Ok(0);
    }
    // Raw events live for 30 days.
    parse_duration_ms(text, 60_000, 30 * 86_400_000).map_err(|error| format!("{error}; or off"))
}

/// `citystream dev`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream dev\n  citystream dev --rate 100/s\n  citystream dev --replay 600x\n  citystream dev --input data/city-events-2013-01.ndjson.gz"
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

    /// Play a file as if it happened now, so many times faster: that of --input, or the events of
    /// January 2013 that the program carries; 60x is an hour a minute
    #[arg(long, value_name = "Nx", env = "CITYSTREAM_REPLAY", conflicts_with = "rate", value_parser = parse_speed)]
    pub replay: Option<f64>,

    /// Begin with synthetic events of this long ago up to now, at the live rate. It goes less far back
    /// if that would be more than 30000 events; off begins empty. Not with --input or --replay, nor in
    /// a folder that has tables already
    #[arg(long, value_name = "DURATION", default_value = "3h", env = "CITYSTREAM_HISTORY", value_parser = parse_history)]
    pub history: i64,

    /// Port of the embedded Kafka; 0 picks a free one [default: 9092, or a free one if that is taken]
    #[arg(long, value_name = "PORT", env = "CITYSTREAM_KAFKA_PORT", value_parser = parse_port)]
    pub kafka_port: Option<u16>,

    /// Port of the embedded DynamoDB; 0 picks a free one [default: 8000, or a free one if that is taken]
    #[arg(long, value_name = "PORT", env = "CITYSTREAM_DYNAMODB_PORT", value_parser = parse_port)]
    pub dynamodb_port: Option<u16>,

    /// Port of the API, the page and all metrics; 0 picks a free one
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 8082,
        env = "CITYSTREAM_PORT",
        value_parser = parse_port
    )]
    pub port: u16,

    /// A name by which clients may ask, beside localhost and addresses; can be repeated
    #[arg(long, value_name = "NAME", env = "CITYSTREAM_ALLOWED_HOST", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}
