//! Options of `citystream produce`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::values::{Rate, parse_duration_ms, parse_host, parse_rate, parse_share, parse_speed};
use super::{KafkaArgs, LogArgs};

/// Time between two heartbeats of synthetic events unless `--heartbeat` says otherwise.
const HEARTBEAT_MS: i64 = 60_000;

/// `citystream produce`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream produce --interval 5s\n  citystream produce --rate 1000/s --count 100000 --seed 7\n  citystream produce --input events.ndjson.gz\n  citystream produce --input events.ndjson.gz --speed 60x --restamp\n  citystream produce --rate 100/s --late-ratio 0.05 --bad-ratio 0.01 --skew 0.5\n  citystream produce --from-dlq"
)]
pub struct Produce {
    /// Send the lines of this NDJSON file (.gz too), or of standard input for -
    #[arg(
        long,
        value_name = "FILE",
        env = "CITYSTREAM_INPUT",
        help_heading = "What to send"
    )]
    pub input: Option<PathBuf>,

    /// Send dead letters again that can be mended without guessing, each once; the others stay
    #[arg(long, env = "CITYSTREAM_FROM_DLQ", help_heading = "What to send", conflicts_with_all = ["input", "rate", "speed", "count", "seed", "restamp", "heartbeat", "late_ratio", "bad_ratio", "out_of_order", "skew"])]
    pub from_dlq: bool,

    /// Stop after so many events
    #[arg(
        long,
        value_name = "N",
        env = "CITYSTREAM_COUNT",
        help_heading = "What to send"
    )]
    pub count: Option<u64>,

    /// Same seed, same synthetic events (their times aside)
    #[arg(
        long,
        value_name = "N",
        env = "CITYSTREAM_SEED",
        help_heading = "What to send"
    )]
    pub seed: Option<u64>,

    /// Exit 0 even if the input had bad lines
    #[arg(
        long,
        env = "CITYSTREAM_SKIP_BAD",
        requires = "input",
        help_heading = "What to send"
    )]
    pub skip_bad: bool,

    /// Time between two synthetic events
    #[arg(long, value_name = "DURATION", default_value = "5s", env = "CITYSTREAM_INTERVAL", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000), help_heading = "How fast")]
    pub interval: i64,

    /// Events a second, as 1000/s, or max [default for --input: max]
    #[arg(long, value_name = "N/s", env = "CITYSTREAM_RATE", value_parser = parse_rate, help_heading = "How fast")]
    pub rate: Option<Rate>,

    /// Send the input's events as far apart as their times lie, so many times faster: 60x is an hour a
    /// minute
    #[arg(long, value_name = "Nx", env = "CITYSTREAM_SPEED", requires = "input", conflicts_with = "rate", value_parser = parse_speed, help_heading = "How fast")]
    pub speed: Option<f64>,

    /// Move the input's times to now: to when each is sent with --speed, else all by the same whole
    /// windows, so that the newest is of now
    #[arg(
        long,
        env = "CITYSTREAM_RESTAMP",
        requires = "input",
        help_heading = "For trying things out"
    )]
    pub restamp: bool,

    /// Share of synthetic events that are late, 0 to 1: 20 to 40 minutes old
    #[arg(long, value_name = "SHARE", env = "CITYSTREAM_LATE_RATIO", conflicts_with = "input", value_parser = parse_share, help_heading = "For trying things out")]
    pub late_ratio: Option<f64>,

    /// Synthetic events are up to this old, so that they come out of order
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_OUT_OF_ORDER", conflicts_with = "input", value_parser = |s: &str| parse_duration_ms(s, 0, 86_400_000), help_heading = "For trying things out")]
    pub out_of_order: Option<i64>,

    /// Share of synthetic events that are broken, in every way there is, 0 to 1
    #[arg(long, value_name = "SHARE", env = "CITYSTREAM_BAD_RATIO", conflicts_with = "input", value_parser = parse_share, help_heading = "For trying things out")]
    pub bad_ratio: Option<f64>,

    /// Share of synthetic events that NYC has beside its own, 0 to 1: one partition gets them all
    #[arg(long, value_name = "SHARE", env = "CITYSTREAM_SKEW", conflicts_with = "input", value_parser = parse_share, help_heading = "For trying things out")]
    pub skew: Option<f64>,

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

    /// A name by which clients may ask at --listen, beside localhost and addresses; can be repeated
    #[arg(long, value_name = "NAME", env = "CITYSTREAM_ALLOWED_HOST", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

impl Produce {
    /// Returns the time between two heartbeats; `None` if there are none.
    pub fn heartbeat_ms(&self) -> Option<i64> {
        let synthetic = self.input.is_none() && !self.from_dlq;
        self.heartbeat.or(synthetic.then_some(HEARTBEAT_MS))
    }
}
