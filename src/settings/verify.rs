//! Options of `citystream verify`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{
    parse_address, parse_bytes, parse_duration_ms, parse_host, parse_instant, parse_text,
};
use super::{KafkaArgs, LogArgs, TableArgs};
use crate::core::clock::UnixMs;

/// The beginning or the end of a range of event times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A number of milliseconds before now.
    Ago(i64),
    /// A fixed instant.
    At(UnixMs),
}

impl Moment {
    /// Converts the moment to an instant. `now_ms` is the current time, from which `Moment::Ago` counts back.
    pub const fn at(self, now_ms: UnixMs) -> UnixMs {
        match self {
            Moment::Ago(ms) => now_ms.saturating_sub(ms),
            Moment::At(ms) => ms,
        }
    }
}

/// The name of a window: `city#type#start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowName {
    /// The city of the window.
    pub city: String,
    /// The event type of the window.
    pub event_type: String,
    /// The start of the window.
    pub start_ms: UnixMs,
}

/// The format in which `verify` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyOutput {
    /// Lines of text.
    Text,
    /// One JSON object per comparison, or per record with `--explain`.
    Json,
}

/// The options of `citystream verify`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 log and tables agree, 1 they differ or could not be compared, or there is no such window.\n\nExamples:\n  citystream verify\n  citystream verify --from -1h\n  citystream verify --watch 5m\n  citystream verify --explain 'NYC#traffic#2013-01-01T06:00:00Z'"
)]
pub struct Verify {
    /// Compare events and windows from this event time on, given as RFC 3339 or as a time before now such as -1h
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = parse_moment)]
    pub from: Option<Moment>,

    /// Compare events and windows before this event time, given as RFC 3339 or as a time before now such as -5m
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true, value_parser = parse_moment)]
    pub until: Option<Moment>,

    /// Compare again and again with this pause, and serve metrics on --listen [pause: 60s]
    #[arg(long, value_name = "PAUSE", num_args = 0..=1, default_missing_value = "60s", value_parser = |s: &str| parse_duration_ms(s, 100, 86_400_000))]
    pub watch: Option<i64>,

    /// Show the records that were counted in one window: city#type#start
    #[arg(long, value_name = "WINDOW", conflicts_with_all = ["watch", "from", "until"], value_parser = parse_window)]
    pub explain: Option<WindowName>,

    /// Compare the incidents of notify instead; the file holds its rules
    #[arg(long, value_name = "FILE", conflicts_with_all = ["watch", "from", "until", "explain"])]
    pub incidents: Option<PathBuf>,

    /// Address for health and metrics of --watch; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083", value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Host name that requests to --listen may use in addition to localhost and IP addresses; can be
    /// repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// Group of the consumers; verify reads its commits and does not join it
    #[arg(long, value_name = "NAME", default_value = "citystream", value_parser = parse_text)]
    pub group: String,

    /// The consumers' --raw-ttl; raw events older than this are not reported missing
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000))]
    pub raw_ttl: i64,

    /// The consumers' --alert-ttl, if they have one; older alerts are not reported missing
    #[arg(long, value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000))]
    pub alert_ttl: Option<i64>,

    /// Memory for the rows being compared; with less memory, the log is read more often
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = |s: &str| parse_bytes(s, 16 << 20, 64 << 30))]
    pub memory_budget: u64,

    /// How to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = VerifyOutput::Text)]
    pub output: VerifyOutput,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Parses an instant, a date, or a time before now such as `-1h`.
pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    let moment = match text.strip_prefix('-') {
        Some(ago) => parse_duration_ms(ago, 0, 3_650 * 86_400_000).map(Moment::Ago),
        None => parse_instant(text).map(Moment::At),
    };
    moment.map_err(|_| {
        "expected an instant such as 2013-01-01T06:00:00Z, or a time before now such as -1h"
            .to_owned()
    })
}

fn parse_window(text: &str) -> Result<WindowName, String> {
    let mut parts = text.splitn(3, '#');
    let mut name = || parts.next().filter(|part| !part.trim().is_empty());
    let (Some(city), Some(event_type), Some(start)) = (name(), name(), name()) else {
        return Err(
            "expected city#type#start, such as NYC#traffic#2013-01-01T06:00:00Z".to_owned(),
        );
    };
    Ok(WindowName {
        city: city.to_owned(),
        event_type: event_type.to_ascii_lowercase(),
        start_ms: parse_instant(start)?,
    })
}
