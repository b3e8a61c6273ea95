//! Options of `citystream produce`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use clap::Args;

use super::values::{
    Rate, parse_address, parse_count, parse_duration_ms, parse_rate, parse_share, parse_speed,
};
use super::{AccessArgs, CsvArgs, InputFormat, KafkaArgs, LogArgs};

/// Time between two heartbeats for synthetic events in milliseconds, if `--heartbeat` is not set.
const HEARTBEAT_MS: i64 = 60_000;
/// The default of `--listen`.
pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// The value of the option `--heartbeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The role sends no heartbeats.
    Off,
    /// The role sends a heartbeat to every partition each time the given number of milliseconds has passed.
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

/// The options of `citystream produce`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream produce --interval 5s\n  citystream produce --rate 1000/s --count 100000 --seed 7\n  citystream produce --input events.ndjson.gz\n  citystream produce --input events.ndjson.gz --speed 60x --restamp\n  citystream produce --input a.csv --map city=Area,timestamp=At --set severity=low,event_type=calls\n  citystream produce --rate 100/s --late-ratio 0.05 --bad-ratio 0.01 --skew 0.5\n  citystream produce --accept\n  citystream produce --from-dlq"
)]
pub struct Produce {
    /// Send the lines of this NDJSON file or the rows of this CSV file (.gz too), or of standard input
    /// with -
    #[arg(long, value_name = "FILE", help_heading = "What to send")]
    pub input: Option<PathBuf>,

    /// Format of the input [default: csv for a file name with .csv or .csv.gz, otherwise ndjson]
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        requires = "input",
        help_heading = "What to send"
    )]
    pub input_format: Option<InputFormat>,

    /// Send nothing: check the whole input, show the first ten events and why lines are rejected
    #[arg(long, requires = "input", help_heading = "What to send")]
    pub dry_run: bool,

    /// Resend dead letters that can be repaired unambiguously, once each; leave the rest
    #[arg(long, help_heading = "What to send", conflicts_with_all = ["input", "rate", "speed", "count", "seed", "uniform", "restamp", "heartbeat", "late_ratio", "bad_ratio", "out_of_order", "skew"])]
    pub from_dlq: bool,

    /// Take events over HTTP: POST /api/v1/events on --listen. No other events are sent
    #[arg(long, help_heading = "What to send", conflicts_with_all = ["input", "from_dlq", "rate", "speed", "count", "seed", "uniform", "restamp", "late_ratio", "bad_ratio", "out_of_order", "skew"])]
    pub accept: bool,

    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = "What to send")]
    pub count: Option<u64>,

    /// Seed of the synthetic events; the same seed gives the same events, apart from their times
    #[arg(long, value_name = "N", value_parser = parse_count, help_heading = "What to send")]
    pub seed: Option<u64>,

    /// Make every city, type and severity equally frequent, instead of as frequent as in real data
    #[arg(long, conflicts_with = "input", help_heading = "What to send")]
    pub uniform: bool,

    /// Exit with 0 even if the input has invalid lines
    #[arg(long, requires = "input", help_heading = "What to send")]
    pub skip_bad: bool,

    /// Time between two synthetic events
    #[arg(long, value_name = "DURATION", default_value = "5s", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000), help_heading = "How fast")]
    pub interval: i64,

    /// Events per second, such as 1000/s, or max [default for --input: max]
    #[arg(long, value_name = "N/s", value_parser = parse_rate, help_heading = "How fast")]
    pub rate: Option<Rate>,

    /// Replay at the input's own pace, N times faster: 60x plays one hour per minute
    #[arg(long, value_name = "Nx", requires = "input", conflicts_with = "rate", value_parser = parse_speed, help_heading = "How fast")]
    pub speed: Option<f64>,

    /// Shift event times to the present. With --speed, each event gets its send time; otherwise all
    /// shift by the same number of windows so that the newest is current
    #[arg(long, requires = "input", help_heading = "For trying things out")]
    pub restamp: bool,

    /// Share of synthetic events that are late (0 to 1); they are 20 to 40 minutes old
    #[arg(long, value_name = "SHARE", conflicts_with = "input", value_parser = parse_share, help_heading = "For trying things out")]
    pub late_ratio: Option<f64>,

    /// Give synthetic events times up to this far in the past, so that they arrive out of order
    #[arg(long, value_name = "DURATION", conflicts_with = "input", value_parser = |s: &str| parse_duration_ms(s, 0, 86_400_000), help_heading = "For trying things out")]
    pub out_of_order: Option<i64>,

    /// Share of synthetic events that are invalid (0 to 1), for every reject reason
    #[arg(long, value_name = "SHARE", conflicts_with = "input", value_parser = parse_share, help_heading = "For trying things out")]
    pub bad_ratio: Option<f64>,

    /// Extra share of events for NYC (0 to 1), to overload one partition
    #[arg(long, value_name = "SHARE", conflicts_with = "input", value_parser = parse_share, help_heading = "For trying things out")]
    pub skew: Option<f64>,

    /// Time between heartbeats: records without a value, sent to every partition. Use off if a consumer
    /// does not accept them [default: 60s for synthetic events, otherwise off]
    #[arg(long, value_name = "DURATION", value_parser = parse_heartbeat)]
    pub heartbeat: Option<Heartbeat>,

    /// Address for health, metrics and --accept; port 0 picks a free one. With --input or --count, the
    /// run goes on without a port if the default one is in use
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN, value_parser = parse_address)]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub csv: CsvArgs,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Produce {
    /// Returns true if the run ends by itself: at the end of `--input`, or after `--count` events.
    pub fn has_end(&self) -> bool {
        self.input.is_some() || self.count.is_some()
    }

    /// Returns the format of the input, which is given by `--input-format` or by the name of the file.
    pub fn input_format(&self) -> InputFormat {
        let name = self.input.as_deref().unwrap_or(Path::new(""));
        let name = name.to_string_lossy().to_ascii_lowercase();
        let by_name = if name.ends_with(".csv") || name.ends_with(".csv.gz") {
            InputFormat::Csv
        } else {
            InputFormat::Ndjson
        };
        self.input_format.unwrap_or(by_name)
    }

    /// Returns the time between two heartbeats in milliseconds, or `None` if no heartbeats are sent.
    pub fn heartbeat_ms(&self) -> Option<i64> {
        let synthetic = self.input.is_none() && !self.from_dlq && !self.accept;
        match self.heartbeat {
            Some(Heartbeat::Off) => None,
            Some(Heartbeat::EveryMs(ms)) => Some(ms),
            None => synthetic.then_some(HEARTBEAT_MS),
        }
    }
}
