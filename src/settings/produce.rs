//! Options of `citystream produce`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use clap::Args;

use super::values::{
    Rate, parse_count, parse_duration_ms, parse_host, parse_rate, parse_share, parse_speed,
};
use super::{KafkaArgs, LogArgs};

/// Time between two heartbeats of synthetic events unless `--heartbeat` says otherwise.
const HEARTBEAT_MS: i64 = 60_000;
/// Where health and metrics are unless `--listen` says otherwise.
pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// What `--heartbeat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// None are sent.
    Off,
    /// One round every so many milliseconds.
    EveryMs(i64),
}

fn parse_heartbeat(text: &str) -> Result<Heartbeat, String> {
    if text == "off" {
        return Ok(Heartbeat::Off);
    }
    let ms = parse_duration_ms(text, 100, 86_400_000);
    ms.map(Heartbeat::EveryMs)
        .map_err(|error| format!("{error}; or off"))
}

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
    #[arg(long, env = "CITYSTREAM_FROM_DLQ", help_heading = "What to send", conflicts_with_all = ["input", "rate", "speed", "count", "seed", "uniform", "restamp", "heartbeat", "late_ratio", "bad_ratio", "out_of_order", "skew"])]
    pub from_dlq: bool,

    /// Stop after so many events
    #[arg(
        long,
        value_name = "N",
        env = "CITYSTREAM_COUNT",
        value_parser = parse_count,
        help_heading = "What to send"
    )]
    pub count: Option<u64>,

    /// Same seed, same synthetic events (their times aside)
    #[arg(
        long,
        value_name = "N",
        env = "CITYSTREAM_SEED",
        value_parser = parse_count,
        help_heading = "What to send"
    )]
    pub seed: Option<u64>,

    /// Every city, type and severity as likely as the others; otherwise they are as frequent as in the
    /// real data
    #[arg(
        long,
        env = "CITYSTREAM_UNIFORM",
        conflicts_with = "input",
        help_heading = "What to send"
    )]
    pub uniform: bool,

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

    /// Time between heartbeats, records without a value, to every partition; off sends none, for
    /// consumers that cannot take them [default: 60s for synthetic events, else off]
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_HEARTBEAT", value_parser = parse_heartbeat)]
    pub heartbeat: Option<Heartbeat>,

    /// Address for health and metrics; port 0 picks a free one. A run with an end does without where the
    /// default is taken
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value_t = LISTEN,
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
    /// Tells whether the run ends by itself: with its input, or with `--count`.
    pub fn has_end(&self) -> bool {
        self.input.is_some() || self.count.is_some()
    }

    /// Returns the time between two heartbeats; `None` if there are none.
    pub fn heartbeat_ms(&self) -> Option<i64> {
        let synthetic = self.input.is_none() && !self.from_dlq;
        match self.heartbeat {
            Some(Heartbeat::Off) => None,
            Some(Heartbeat::EveryMs(ms)) => Some(ms),
            None => synthetic.then_some(HEARTBEAT_MS),
        }
    }
}
