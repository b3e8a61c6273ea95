//! Options of `citystream init-tables`.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::values::{Rate, parse_duration_ms, parse_rate, parse_text, parse_whole};
use super::{KafkaArgs, LogArgs, TableArgs};
use crate::core::keys::SHARDS_MAX;
use crate::core::plan::RawRows;

/// The options of `citystream init-tables`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream init-tables\n  citystream init-tables --check\n  citystream init-tables --delete\n  citystream init-tables --rollups\n  citystream init-tables --partitions 12 --replication 3"
)]
pub struct InitTables {
    /// Change nothing; list the differences, and exit with 1 if there are any
    #[arg(long, conflicts_with = "delete", help_heading = "What to do")]
    pub check: bool,

    /// Delete the tables and topics with all their data; asks you to type the prefix first
    #[arg(long, group = "asks", help_heading = "What to do")]
    pub delete: bool,

    /// Create missing rollups, so that queries over long ranges need few reads; shows the cost and asks first.
    /// Can be stopped and run again
    #[arg(
        long,
        group = "asks",
        conflicts_with = "check",
        help_heading = "What to do"
    )]
    pub rollups: bool,

    /// Make the table of incidents as well, which notify needs
    #[arg(long, conflicts_with_all = ["delete", "rollups"])]
    pub incidents: bool,

    /// Let --delete and --rollups continue without asking
    #[arg(long, requires = "asks", help_heading = "What to do")]
    pub yes: bool,

    /// Index shards per city and per severity, 1 to 64; can only grow [default: 4]
    #[arg(long, value_name = "N", value_parser = |s: &str| parse_whole::<u32>(s, 1, i64::from(SHARDS_MAX)), help_heading = "Rules of counting")]
    pub shards: Option<u32>,

    /// Partitions of a new topic
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = |s: &str| parse_whole::<i32>(s, 1, 1_000), help_heading = "Topics")]
    pub partitions: i32,

    /// Replication factor of new topics [default: that of the brokers, at most 3]
    #[arg(long, value_name = "N", value_parser = |s: &str| parse_whole::<i32>(s, 1, 9), help_heading = "Topics")]
    pub replication: Option<i32>,

    /// Length of a window; cannot change after the tables are created [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 1_000, 86_400_000), help_heading = "Rules of counting")]
    pub window: Option<i64>,

    /// Allowed lateness: distance of the watermark from the largest event time. Cannot change later
    /// [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 0, 30 * 86_400_000), help_heading = "Rules of counting")]
    pub lateness: Option<i64>,

    /// Longest time that an event may be ahead of its record; an event further ahead counts as future. Cannot
    /// change later [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 0, 30 * 86_400_000), help_heading = "Rules of counting")]
    pub max_skew: Option<i64>,

    /// Events that get a raw row: all, alerts (high and critical only), or none (no alert rows either)
    #[arg(
        long,
        value_name = "WHICH",
        value_parser = raw_rows_parser(),
        help_heading = "Rules of counting"
    )]
    pub raw: Option<RawRows>,

    /// Let alerts expire; give consume the same --alert-ttl
    #[arg(long, value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000), help_heading = "Tables at AWS")]
    pub alert_ttl: Option<i64>,

    /// Write units per second that new tables of raw events and alerts accept at once, instead of 4000;
    /// AWS charges for this once
    #[arg(long, value_name = "N", value_parser = |s: &str| parse_whole::<u32>(s, 4_000, 10_000_000), help_heading = "Tables at AWS")]
    pub warm_writes: Option<u32>,

    /// Protect the tables from deletion until you switch the protection off
    #[arg(long, help_heading = "Tables at AWS")]
    pub deletion_protection: bool,

    /// Turn on point-in-time recovery: any second of the last 35 days can be restored
    #[arg(long, help_heading = "Tables at AWS")]
    pub pitr: bool,

    /// Encrypt the tables with this KMS key: id, ARN or alias/NAME
    #[arg(long, value_name = "KEY", value_parser = parse_text, help_heading = "Tables at AWS")]
    pub kms_key: Option<String>,

    /// Tag for the tables, as name=value; can be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = parse_tag, help_heading = "Tables at AWS")]
    pub tags: Vec<(String, String)>,

    /// Print the IAM policy that a role needs for these tables, and exit
    #[arg(long, value_enum, value_name = "ROLE", num_args = 0..=1, default_missing_value = "init-tables", help_heading = "What to do")]
    pub print_iam_policy: Option<super::Role>,

    /// Print the write units and the cost of the tables at this rate, such as 1000/s, and exit
    #[arg(long, value_name = "RATE", value_parser = parse_rate_per_second, help_heading = "What to do")]
    pub explain: Option<f64>,

    /// Assumptions of --explain: share of alerts, share of the busiest city, series, row-interval and
    /// raw-ttl [default: alerts=0.5,hottest=0.25,series=24,row-interval=250ms,raw-ttl=30d]
    #[arg(long, requires = "explain", value_name = "NAME=VALUE,…", value_parser = parse_mix, help_heading = "What to do")]
    pub mix: Option<Mix>,

    /// Consumer group of these tables: it must have no members when --delete runs, and --rollups reads its commits
    #[arg(
        long,
        value_name = "NAME",
        default_value = "citystream",
        value_parser = parse_text,
        help_heading = "What to do"
    )]
    pub group: String,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Assumptions about the events, from which `--explain` calculates the load on the tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Share of events with high or critical severity, from 0 to 1.
    pub alerts: f64,
    /// Share of events that belong to the city with the most events, from 0 to 1.
    pub hottest: f64,
    /// Number of series (combinations of city and event type) that have events at the same time.
    pub series: f64,
    /// Shortest time between two updates of a row, in milliseconds.
    pub row_interval_ms: i64,
    /// Time for which raw events are kept in the table, in milliseconds.
    pub raw_ttl_ms: i64,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            alerts: 0.5,
            hottest: 0.25,
            series: 24.0,
            row_interval_ms: 250,
            raw_ttl_ms: 30 * 86_400_000,
        }
    }
}

fn parse_rate_per_second(text: &str) -> Result<f64, String> {
    match parse_rate(text)? {
        Rate::PerSecond(rate) => Ok(rate),
        Rate::Max => Err("expected a rate such as 1000/s".to_owned()),
    }
}

fn parse_mix(text: &str) -> Result<Mix, String> {
    let mut mix = Mix::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let number = |from: f64, to: f64| {
            let found = value.parse::<f64>().ok();
            let found = found.filter(|n| (from..=to).contains(n));
            found.ok_or_else(|| format!("{name}: expected a number from {from} to {to}"))
        };
        match name {
            "alerts" => mix.alerts = number(0.0, 1.0)?,
            "hottest" => mix.hottest = number(0.0, 1.0)?,
            "series" => mix.series = number(1.0, 1e9)?,
            "row-interval" => mix.row_interval_ms = parse_duration_ms(value, 0, 86_400_000)?,
            "raw-ttl" => mix.raw_ttl_ms = parse_duration_ms(value, 1_000, 3_650 * 86_400_000)?,
            _ => {
                let known = "alerts, hottest, series, row-interval, raw-ttl";
                return Err(format!("{name:?} is unknown; expected {known}"));
            }
        }
    }
    Ok(mix)
}

/// Returns a parser of the names of [`RawRows`].
fn raw_rows_parser() -> impl TypedValueParser<Value = RawRows> {
    let values = RawRows::VALUES.map(|rows| {
        PossibleValue::new(rows.name()).help(match rows {
            RawRows::All => "Every event gets a raw row",
            RawRows::Alerts => "Only events of high and critical severity get a raw row",
            RawRows::None => "No event gets a raw row, and no alert rows are written either",
        })
    });
    PossibleValuesParser::new(values)
        .map(|name| RawRows::from_name(&name).expect("one of the possible values"))
}

/// Parses a tag, such as `name=value`. AWS allows 128 characters for the name of a tag and 256 characters for its
/// value. AWS reserves names that begin with `aws:`.
fn parse_tag(text: &str) -> Result<(String, String), String> {
    let fits = |name: &str, value: &str| {
        !name.is_empty()
            && name.chars().count() <= 128
            && value.chars().count() <= 256
            && !name.to_ascii_lowercase().starts_with("aws:")
    };
    match text.split_once('=') {
        Some((name, value)) if fits(name, value) => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected name=value, at most 128 and 256 characters, not aws:…".to_owned()),
    }
}
