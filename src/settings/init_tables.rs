//! Options of `citystream init-tables`.

use clap::{Args, ValueEnum};

use super::values::{Rate, parse_duration_ms, parse_rate, parse_text, parse_whole};
use super::{KafkaArgs, LogArgs, TableArgs};
use crate::core::keys::SHARDS_MAX;

/// `citystream init-tables`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream init-tables\n  citystream init-tables --check\n  citystream init-tables --delete\n  citystream init-tables --partitions 12 --replication 3"
)]
pub struct InitTables {
    /// Change nothing, show a table of differences; exit 1 if there are any
    #[arg(
        long,
        env = "CITYSTREAM_CHECK",
        conflicts_with = "delete",
        help_heading = "What to do"
    )]
    pub check: bool,

    /// Delete the tables and topics with all they hold; asks for the prefix before
    #[arg(long, env = "CITYSTREAM_DELETE", help_heading = "What to do")]
    pub delete: bool,

    /// Let --delete go on without asking
    #[arg(
        long,
        env = "CITYSTREAM_YES",
        requires = "delete",
        help_heading = "What to do"
    )]
    pub yes: bool,

    /// Shards per city and severity in the indexes, 1 to 64; can only grow [default: 4]
    #[arg(long, value_name = "N", env = "CITYSTREAM_SHARDS", value_parser = |s: &str| parse_whole::<u32>(s, 1, i64::from(SHARDS_MAX)), help_heading = "Rules of counting")]
    pub shards: Option<u32>,

    /// Partitions of a new topic
    #[arg(long, value_name = "N", default_value_t = 6, env = "CITYSTREAM_PARTITIONS", value_parser = |s: &str| parse_whole::<i32>(s, 1, 1_000), help_heading = "Topics")]
    pub partitions: i32,

    /// Replication of new topics [default: the brokers', at most 3]
    #[arg(long, value_name = "N", env = "CITYSTREAM_REPLICATION", value_parser = |s: &str| parse_whole::<i32>(s, 1, 9), help_heading = "Topics")]
    pub replication: Option<i32>,

    /// Length of a window; frozen once the tables are made [default: 5m]
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_WINDOW", value_parser = |s: &str| parse_duration_ms(s, 1_000, 86_400_000), help_heading = "Rules of counting")]
    pub window: Option<i64>,

    /// How far the watermark stays behind; frozen [default: 10m]
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_LATENESS", value_parser = |s: &str| parse_duration_ms(s, 0, 30 * 86_400_000), help_heading = "Rules of counting")]
    pub lateness: Option<i64>,

    /// How far ahead of its record an event may lie before it is future; frozen [default: 5m]
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_MAX_SKEW", value_parser = |s: &str| parse_duration_ms(s, 0, 30 * 86_400_000), help_heading = "Rules of counting")]
    pub max_skew: Option<i64>,

    /// Which events get a raw row: all, alerts (high and critical only), none (no alerts either)
    #[arg(
        long,
        value_name = "WHICH",
        value_enum,
        env = "CITYSTREAM_RAW",
        help_heading = "Rules of counting"
    )]
    pub raw: Option<RawRows>,

    /// Let alerts expire, after the time that consume's --alert-ttl says
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_ALERT_TTL", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000), help_heading = "Tables at AWS")]
    pub alert_ttl: Option<i64>,

    /// Write units a second that raw events and alerts take from the first moment on; a new table takes
    /// 4000, and AWS charges more once
    #[arg(long, value_name = "N", env = "CITYSTREAM_WARM_WRITES", value_parser = |s: &str| parse_whole::<u32>(s, 4_000, 10_000_000), help_heading = "Tables at AWS")]
    pub warm_writes: Option<u32>,

    /// Tables cannot be deleted until this is switched off by hand
    #[arg(
        long,
        env = "CITYSTREAM_DELETION_PROTECTION",
        help_heading = "Tables at AWS"
    )]
    pub deletion_protection: bool,

    /// Point-in-time recovery: any second of the last 35 days can be restored
    #[arg(long, env = "CITYSTREAM_PITR", help_heading = "Tables at AWS")]
    pub pitr: bool,

    /// Encrypt the tables with this KMS key: id, ARN or alias/NAME
    #[arg(
        long,
        value_name = "KEY",
        env = "CITYSTREAM_KMS_KEY",
        value_parser = parse_text,
        help_heading = "Tables at AWS"
    )]
    pub kms_key: Option<String>,

    /// Tag of the tables, as name=value; can be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", env = "CITYSTREAM_TAG", value_delimiter = ',', value_parser = parse_tag, help_heading = "Tables at AWS")]
    pub tags: Vec<(String, String)>,

    /// Print the IAM policy a role needs for these tables, and do nothing else
    #[arg(long, value_enum, value_name = "ROLE", num_args = 0..=1, default_missing_value = "init-tables", env = "CITYSTREAM_PRINT_IAM_POLICY", help_heading = "What to do")]
    pub print_iam_policy: Option<super::Role>,

    /// Print what the tables take and cost at so many events a second (1000/s), and do nothing else
    #[arg(long, value_name = "RATE", env = "CITYSTREAM_EXPLAIN", value_parser = parse_rate_per_second, help_heading = "What to do")]
    pub explain: Option<f64>,

    /// What the events of --explain are like: shares of alerts and of the busiest city, series,
    /// row-interval, raw-ttl [default: alerts=0.5,hottest=0.25,series=24,row-interval=250ms,raw-ttl=30d]
    #[arg(long, requires = "explain", value_name = "NAME=VALUE,…", env = "CITYSTREAM_MIX", value_parser = parse_mix, help_heading = "What to do")]
    pub mix: Option<Mix>,

    /// Consumer group that must have no members before --delete
    #[arg(
        long,
        value_name = "NAME",
        default_value = "citystream",
        env = "CITYSTREAM_GROUP",
        value_parser = parse_text,
        help_heading = "What to do"
    )]
    pub group: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tables: TableArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// What events are like, as far as the tables' load depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Share of high and critical severity, 0 to 1.
    pub alerts: f64,
    /// Share of the city with most events, 0 to 1.
    pub hottest: f64,
    /// Pairs of city and type that have events at a time.
    pub series: f64,
    /// Least time between two updates of a row.
    pub row_interval_ms: i64,
    /// How long raw events are kept.
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
                return Err(format!("{name:?} is none of {known}"));
            }
        }
    }
    Ok(mix)
}

/// Which events get a raw row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RawRows {
    /// Every event.
    #[default]
    All,
    /// Events of high and critical severity.
    Alerts,
    /// No event, and no alerts either.
    None,
}

impl RawRows {
    /// Returns the name in the config item.
    pub const fn name(self) -> &'static str {
        match self {
            RawRows::All => "all",
            RawRows::Alerts => "alerts",
            RawRows::None => "none",
        }
    }
}

/// AWS allows 128 characters before the equals sign and 256 behind it, and no name of its own.
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
