//! Options of `citystream tail`.

use clap::{Args, ValueEnum};

use super::values::{parse_count, parse_duration_ms, parse_instant, parse_severity, parse_text};
use super::{KafkaArgs, LogArgs};
use crate::core::event::Severity;

/// Where `tail` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the next record.
    End,
    /// With the oldest record.
    Beginning,
    /// So many milliseconds before now, by record timestamp.
    Ago(i64),
    /// At this instant in Unix milliseconds, by record timestamp.
    At(i64),
}

/// How `tail` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Counts by city, type and severity; of rejected records by reason.
    Table,
    /// One JSON object per event or rejected record.
    Json,
    /// One line per event or rejected record.
    Text,
}

/// `citystream tail`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "On a terminal it is a live screen: ? lists its keys, q leaves it. Elsewhere it prints a line each\n\
                  ten seconds and the counts at the end; TERM=dumb asks for that, too. NO_COLOR leaves out the colours.\n\n\
                  Examples:\n  citystream tail --city NYC\n  citystream tail --from -1h --severity critical --output text\n  citystream tail --from beginning --exit-at-end --output json | jq .city\n  citystream tail --dlq --from -1h --output json | jq -r .reason"
)]
pub struct Tail {
    /// Only this city; can be repeated
    #[arg(long = "city", env = "CITYSTREAM_CITY", value_parser = parse_text)]
    pub cities: Vec<String>,

    /// Only this event type; can be repeated
    #[arg(long = "type", value_name = "TYPE", env = "CITYSTREAM_TYPE", value_parser = parse_text)]
    pub types: Vec<String>,

    /// Only this severity; can be repeated
    #[arg(long = "severity", env = "CITYSTREAM_SEVERITY", value_parser = parse_severity)]
    pub severities: Vec<Severity>,

    /// Where to begin: end, beginning, a time back from now as -1h, or RFC 3339
    #[arg(long, default_value = "end", env = "CITYSTREAM_FROM", allow_hyphen_values = true, value_parser = parse_from)]
    pub from: From,

    /// Stop at this instant (RFC 3339, by record timestamp)
    #[arg(long, env = "CITYSTREAM_UNTIL", value_parser = parse_instant)]
    pub until: Option<i64>,

    /// Stop after so many events or rejected records
    #[arg(short = 'n', long = "events", env = "CITYSTREAM_EVENTS", value_parser = parse_count)]
    pub events: Option<u64>,

    /// Show the rejected records instead: each with its reason, its origin and the original
    #[arg(long, env = "CITYSTREAM_DLQ", conflicts_with_all = ["cities", "types", "severities"])]
    pub dlq: bool,

    /// How to print [default: table; of rejected records text where there is no live screen]
    #[arg(long, value_enum, env = "CITYSTREAM_OUTPUT")]
    pub output: Option<Output>,

    /// Exit once the end of the log, as it was at the start, is reached
    #[arg(long, env = "CITYSTREAM_EXIT_AT_END")]
    pub exit_at_end: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

impl Tail {
    /// Returns how to print without a live screen.
    pub fn output(&self) -> Output {
        self.output.unwrap_or(if self.dlq {
            Output::Text
        } else {
            Output::Table
        })
    }
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "end" => return Ok(From::End),
        "beginning" => return Ok(From::Beginning),
        _ => {}
    }
    if let Some(ago) = text.strip_prefix('-') {
        return parse_duration_ms(ago, 0, 3_650 * 86_400_000).map(From::Ago);
    }
    parse_instant(text).map(From::At).map_err(|_| {
        "expected end, beginning, a time back from now such as -1h, or an instant such as 2013-01-01T06:00:00Z".to_owned()
    })
}
