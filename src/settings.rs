//! The command line and the environment, checked into typed settings.
//!
//! The only reader of the environment (AWS's own variables and `RUST_LOG` aside, which their
//! libraries read). A value that cannot work is refused here, before anything is started, with the
//! option's name, the value and what is allowed; clap turns that into exit code 2.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::core::event::Severity;
use crate::core::keys::SHARDS_MAX;

/// librdkafka properties that the protocol stands on; `--kafka-property` refuses them.
pub const KAFKA_PROPERTIES_FIXED: [&str; 8] = [
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "group.id",
    "partition.assignment.strategy",
    "enable.partition.eof",
    "group.protocol",
];

/// City events from Kafka to DynamoDB, counted exactly.
#[derive(Debug, Parser)]
#[command(
    name = "citystream",
    version,
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Every option can also be given as CITYSTREAM_<OPTION> in the environment.\n\
                  Try it: citystream dev"
)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per role.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make or check the tables and topics
    InitTables(InitTables),
    /// Send city events to Kafka: synthetic ones, or a file's
    Produce(Produce),
    /// Count events from Kafka into DynamoDB
    Consume(Consume),
    /// Answer the REST API from DynamoDB
    Serve(Serve),
    /// Show live counts by city, type and severity
    Tail(Tail),
    /// Run every role in one process, on an embedded broker and DynamoDB
    #[cfg(feature = "dev")]
    Dev(Dev),
}

/// Options every role has.
#[derive(Args, Clone, Debug, Default)]
pub struct LogArgs {
    /// How log lines look [default: text on a terminal, json elsewhere]
    #[arg(
        long,
        value_enum,
        env = "CITYSTREAM_LOG_FORMAT",
        help_heading = "Logging"
    )]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How to reach Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap servers, host:port with commas between (also KAFKA_BOOTSTRAP_SERVERS)
    #[arg(
        long,
        env = "CITYSTREAM_BROKERS",
        default_value_t = brokers_default(),
        value_parser = parse_brokers,
    )]
    pub brokers: String,

    /// Topic of the events; rejected ones go to <topic>-dlq (also KAFKA_TOPIC)
    #[arg(
        long,
        env = "CITYSTREAM_TOPIC",
        default_value_t = topic_default(),
        value_parser = parse_topic,
    )]
    pub topic: String,

    /// How to log in
    #[arg(long, value_enum, default_value_t = KafkaAuth::Plaintext, env = "CITYSTREAM_KAFKA_AUTH")]
    pub kafka_auth: KafkaAuth,

    /// User name for scram
    #[arg(long, env = "CITYSTREAM_KAFKA_USERNAME")]
    pub kafka_username: Option<String>,

    /// File that holds the password for scram
    #[arg(long, env = "CITYSTREAM_KAFKA_PASSWORD_FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// Certificate authorities of the brokers, PEM [default: the host's]
    #[arg(long, env = "CITYSTREAM_KAFKA_CA_FILE")]
    pub kafka_ca_file: Option<PathBuf>,

    /// Own certificate for mutual TLS, PEM
    #[arg(long, env = "CITYSTREAM_KAFKA_CERT_FILE", requires = "kafka_key_file")]
    pub kafka_cert_file: Option<PathBuf>,

    /// Own private key for mutual TLS, PEM
    #[arg(long, env = "CITYSTREAM_KAFKA_KEY_FILE", requires = "kafka_cert_file")]
    pub kafka_key_file: Option<PathBuf>,

    /// Any other librdkafka property, as name=value; can be repeated
    #[arg(
        long = "kafka-property",
        value_name = "NAME=VALUE",
        env = "CITYSTREAM_KAFKA_PROPERTY",
        value_delimiter = ',',
        value_parser = parse_property,
    )]
    pub kafka_properties: Vec<(String, String)>,
}

impl KafkaArgs {
    /// Returns the name of the dead-letter topic.
    pub fn dlq_topic(&self) -> String {
        format!("{}-dlq", self.topic)
    }
}

/// How to log in to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KafkaAuth {
    /// Neither encryption nor login.
    Plaintext,
    /// TLS, with a client certificate if one is given.
    Tls,
    /// SASL/SCRAM-SHA-512 over TLS.
    Scram,
}

/// Which tables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "DynamoDB")]
pub struct TableArgs {
    /// Names of the four tables begin with it
    #[arg(
        long,
        default_value = "citystream",
        env = "CITYSTREAM_TABLE_PREFIX",
        value_parser = parse_table_prefix,
    )]
    pub table_prefix: String,
}

/// `citystream init-tables`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream init-tables\n  citystream init-tables --check\n  citystream init-tables --partitions 12 --replication 3"
)]
pub struct InitTables {
    /// Change nothing; exit 1 if anything differs
    #[arg(long, env = "CITYSTREAM_CHECK", conflicts_with = "delete")]
    pub check: bool,

    /// Delete the tables and topics
    #[arg(long, env = "CITYSTREAM_DELETE", requires = "yes")]
    pub delete: bool,

    /// Confirm --delete
    #[arg(long, env = "CITYSTREAM_YES")]
    pub yes: bool,

    /// Shards per city and severity in the indexes, 1 to 64; can only grow [default: 4]
    #[arg(long, env = "CITYSTREAM_SHARDS", value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_MAX)))]
    pub shards: Option<u32>,

    /// Partitions of a new topic
    #[arg(long, default_value_t = 6, env = "CITYSTREAM_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub partitions: i32,

    /// Replication of new topics [default: the brokers', at most 3]
    #[arg(long, env = "CITYSTREAM_REPLICATION", value_parser = clap::value_parser!(i32).range(1..=9))]
    pub replication: Option<i32>,

    /// Length of a window; frozen once the tables are made [default: 5m]
    #[arg(long, env = "CITYSTREAM_WINDOW", value_parser = |s: &str| parse_duration_ms(s, 1_000, 86_400_000))]
    pub window: Option<i64>,

    /// How far the watermark stays behind; frozen [default: 10m]
    #[arg(long, env = "CITYSTREAM_LATENESS", value_parser = |s: &str| parse_duration_ms(s, 0, 30 * 86_400_000))]
    pub lateness: Option<i64>,

    /// How far ahead of its record an event may lie before it is future; frozen [default: 5m]
    #[arg(long, env = "CITYSTREAM_MAX_SKEW", value_parser = |s: &str| parse_duration_ms(s, 0, 30 * 86_400_000))]
    pub max_skew: Option<i64>,

    /// Which events get a raw row: all, alerts (high and critical only), none (no alerts either)
    #[arg(long, value_enum, env = "CITYSTREAM_RAW")]
    pub raw: Option<RawRows>,

    /// Consumer group that must have no members before --delete
    #[arg(long, default_value = "citystream", env = "CITYSTREAM_GROUP")]
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

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many events a second.
    PerSecond(f64),
    /// As fast as the broker takes them.
    Max,
}

/// `citystream produce`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream produce --interval 5s\n  citystream produce --rate 1000/s --count 100000 --seed 7\n  citystream produce --input events.ndjson.gz"
)]
pub struct Produce {
    /// Time between two synthetic events
    #[arg(long, default_value = "5s", env = "CITYSTREAM_INTERVAL", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000))]
    pub interval: i64,

    /// Events a second, as 1000/s, or max [default for --input: max]
    #[arg(long, env = "CITYSTREAM_RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,

    /// Stop after so many events
    #[arg(long, env = "CITYSTREAM_COUNT")]
    pub count: Option<u64>,

    /// Same seed, same synthetic events (their times aside)
    #[arg(long, env = "CITYSTREAM_SEED")]
    pub seed: Option<u64>,

    /// Send the lines of this NDJSON file (.gz too), or of standard input for -
    #[arg(long, value_name = "FILE", env = "CITYSTREAM_INPUT")]
    pub input: Option<PathBuf>,

    /// Exit 0 even if the input had bad lines
    #[arg(long, env = "CITYSTREAM_SKIP_BAD", requires = "input")]
    pub skip_bad: bool,

    /// Time between heartbeats to every partition [default: 60s for synthetic events, else none]
    #[arg(long, env = "CITYSTREAM_HEARTBEAT", value_parser = |s: &str| parse_duration_ms(s, 100, 86_400_000))]
    pub heartbeat: Option<i64>,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8080", env = "CITYSTREAM_LISTEN")]
    pub listen: SocketAddr,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// `citystream consume`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream consume\n  citystream consume --stop-at-end\n  citystream consume --brokers b-1:9092,b-2:9092 --row-interval 1s"
)]
pub struct Consume {
    /// Consumer group; members share the partitions
    #[arg(long, default_value = "citystream", env = "CITYSTREAM_GROUP")]
    pub group: String,

    /// Fixed name of this member: a restart within the session timeout moves no partition
    #[arg(long, env = "CITYSTREAM_GROUP_INSTANCE_ID")]
    pub group_instance_id: Option<String>,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8081", env = "CITYSTREAM_LISTEN")]
    pub listen: SocketAddr,

    /// How long raw events are kept
    #[arg(long, default_value = "30d", env = "CITYSTREAM_RAW_TTL", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000))]
    pub raw_ttl: i64,

    /// Least time between two updates of one row
    #[arg(long, default_value = "250ms", env = "CITYSTREAM_ROW_INTERVAL", value_parser = |s: &str| parse_duration_ms(s, 0, 3_600_000))]
    pub row_interval: i64,

    /// Memory for records between Kafka and DynamoDB
    #[arg(long, default_value = "128MiB", env = "CITYSTREAM_MEMORY_BUDGET", value_parser = |s: &str| parse_bytes(s, 16 << 20, 64 << 30))]
    pub memory_budget: u64,

    /// What to do when Kafka no longer has the next record
    #[arg(long, value_enum, default_value_t = OnDataLoss::Stop, env = "CITYSTREAM_ON_DATA_LOSS")]
    pub on_data_loss: OnDataLoss,

    /// Exit 0 once the group has committed the log's end as it was at the start
    #[arg(long, env = "CITYSTREAM_STOP_AT_END")]
    pub stop_at_end: bool,

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

/// What to do when Kafka no longer has the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDataLoss {
    /// Stop with exit code 2 and the lost range.
    Stop,
    /// Count the range and go on behind it.
    Continue,
}

/// `citystream serve`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream serve --port 8082\n  curl localhost:8082/api/v1/stats"
)]
pub struct Serve {
    /// Port to answer on; 0 picks a free one
    #[arg(long, default_value_t = 8082, env = "CITYSTREAM_PORT")]
    pub port: u16,

    /// Address to answer on
    #[arg(long, default_value = "127.0.0.1", env = "CITYSTREAM_BIND")]
    pub bind: IpAddr,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub tables: TableArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

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
    /// Counts by city, type and severity.
    Table,
    /// One JSON object per event.
    Json,
    /// One line per event.
    Text,
}

/// `citystream tail`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream tail --city NYC\n  citystream tail --from -1h --severity critical --output text\n  citystream tail --from beginning --exit-at-end --output json | jq .city"
)]
pub struct Tail {
    /// Only this city; can be repeated
    #[arg(long = "city", env = "CITYSTREAM_CITY")]
    pub cities: Vec<String>,

    /// Only this event type; can be repeated
    #[arg(long = "type", value_name = "TYPE", env = "CITYSTREAM_TYPE")]
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

    /// Stop after so many events
    #[arg(short = 'n', long = "events", env = "CITYSTREAM_EVENTS")]
    pub events: Option<u64>,

    /// How to print [default: table]
    #[arg(long, value_enum, default_value_t = Output::Table, env = "CITYSTREAM_OUTPUT")]
    pub output: Output,

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

/// `citystream dev`
#[cfg(feature = "dev")]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream dev\n  citystream dev --rate 100/s\n  citystream dev --input data/city-events-2013-01.ndjson.gz"
)]
pub struct Dev {
    /// Keep the tables in this folder between runs [default: in memory]
    #[arg(long, env = "CITYSTREAM_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Time between two synthetic events
    #[arg(long, default_value = "500ms", env = "CITYSTREAM_INTERVAL", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000))]
    pub interval: i64,

    /// Events a second, as 100/s, or max
    #[arg(long, env = "CITYSTREAM_RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,

    /// Send this NDJSON file (.gz too) instead of synthetic events
    #[arg(long, value_name = "FILE", env = "CITYSTREAM_INPUT")]
    pub input: Option<PathBuf>,

    /// Port of the API, the page and all metrics; 0 picks a free one
    #[arg(long, default_value_t = 8082, env = "CITYSTREAM_PORT")]
    pub port: u16,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

impl Command {
    /// Returns the logging options of whichever command it is.
    pub fn log(&self) -> &LogArgs {
        match self {
            Command::InitTables(c) => &c.log,
            Command::Produce(c) => &c.log,
            Command::Consume(c) => &c.log,
            Command::Serve(c) => &c.log,
            Command::Tail(c) => &c.log,
            #[cfg(feature = "dev")]
            Command::Dev(c) => &c.log,
        }
    }
}

fn brokers_default() -> String {
    std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| "localhost:9092".to_owned())
}

fn topic_default() -> String {
    std::env::var("KAFKA_TOPIC").unwrap_or_else(|_| "city-events".to_owned())
}

fn parse_brokers(text: &str) -> Result<String, String> {
    for server in text.split(',') {
        let port = server
            .trim()
            .rsplit_once(':')
            .map(|(host, port)| (host, u16::from_str(port)));
        if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
            return Err(format!("{server:?} is not host:port"));
        }
    }
    Ok(text.to_owned())
}

fn parse_topic(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // Room for "-dlq" within Kafka's 249 characters.
    if text.is_empty() || text.len() > 245 || matches!(text, "." | "..") || !text.chars().all(legal)
    {
        return Err("a topic has 1 to 245 of the characters a-z A-Z 0-9 . _ -".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_table_prefix(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // The longest suffix is "-aggregations"; DynamoDB allows 255 characters.
    if text.is_empty() || text.len() > 240 || !text.chars().all(legal) {
        return Err("a prefix has 1 to 240 of the characters a-z A-Z 0-9 . _ -".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("expected name=value".to_owned());
    };
    if KAFKA_PROPERTIES_FIXED.contains(&name) {
        return Err(format!(
            "{name} is fixed, exact counting stands on it; also fixed: {}",
            KAFKA_PROPERTIES_FIXED.join(", ")
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_duration_ms(text: &str, min_ms: i64, max_ms: i64) -> Result<i64, String> {
    let allowed = || {
        format!(
            "expected a duration such as 5s, 250ms or 10m, from {} to {}",
            show_ms(min_ms),
            show_ms(max_ms)
        )
    };
    let duration = humantime::parse_duration(text).map_err(|_| allowed())?;
    let ms = i64::try_from(duration.as_millis()).map_err(|_| allowed())?;
    if !(min_ms..=max_ms).contains(&ms) {
        return Err(allowed());
    }
    Ok(ms)
}

/// Returns milliseconds as people write durations.
pub fn show_ms(ms: i64) -> String {
    humantime::format_duration(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).to_string()
}

fn parse_bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        _ => None,
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(n, shift)| n.checked_mul(1 << shift))
        .filter(|n| (min..=max).contains(n));
    bytes.ok_or_else(|| {
        format!(
            "expected a size such as 128MiB, from {}MiB to {}GiB",
            min >> 20,
            max >> 30
        )
    })
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if n.is_finite() && (0.001..=10_000_000.0).contains(&n) => Ok(Rate::PerSecond(n)),
        _ => Err("expected events a second such as 1000/s, from 0.001/s, or max".to_owned()),
    }
}

fn parse_severity(text: &str) -> Result<Severity, String> {
    Severity::from_name(&text.to_ascii_lowercase())
        .ok_or_else(|| "expected low, medium, high or critical".to_owned())
}

fn parse_instant(text: &str) -> Result<i64, String> {
    crate::core::time::parse_timestamp(text)
        .ok_or_else(|| "expected an instant such as 2013-01-01T06:00:00Z".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_design_parse() {
        for line in [
            "citystream init-tables",
            "citystream produce --interval 5s",
            "citystream consume",
            "citystream serve --port 8082",
            "citystream tail --city NYC",
            "citystream tail --from -1h --exit-at-end -n 5 --output json",
            "citystream produce --rate max --count 10",
            "citystream consume --kafka-property fetch.min.bytes=1 --kafka-property debug=cgrp",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn wrong_values_name_the_option_the_value_and_what_is_allowed() {
        for (line, words) in [
            (
                "citystream produce --interval 5x",
                ["--interval", "5x", "250ms"],
            ),
            (
                "citystream consume --memory-budget 1MiB",
                ["--memory-budget", "1MiB", "16MiB"],
            ),
            (
                "citystream consume --kafka-property group.id=x",
                ["--kafka-property", "group.id=x", "fixed"],
            ),
            (
                "citystream init-tables --shards 65",
                ["--shards", "65", "64"],
            ),
            (
                "citystream tail --from yesterday",
                ["--from", "yesterday", "-1h"],
            ),
            (
                "citystream consume --brokers nohost",
                ["--brokers", "nohost", "host:port"],
            ),
            ("citystream produce --rate fast", ["--rate", "fast", "max"]),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "{line}: {word} is not in {text}");
            }
        }
    }

    #[test]
    fn h14_properties_the_protocol_stands_on_are_refused() {
        for name in KAFKA_PROPERTIES_FIXED {
            assert!(parse_property(&format!("{name}=x")).is_err());
        }
    }
}
