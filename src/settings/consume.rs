//! Options of `citystream consume`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::values::{parse_bytes, parse_duration_ms, parse_host, parse_text};
use super::{KafkaArgs, LogArgs, TableArgs};

/// `citystream consume`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream consume\n  citystream consume --stop-at-end\n  citystream consume --brokers b-1:9092,b-2:9092 --row-interval 1s"
)]
pub struct Consume {
    /// Consumer group; members share the partitions
    #[arg(
        long,
        value_name = "NAME",
        default_value = "citystream",
        env = "CITYSTREAM_GROUP",
        value_parser = parse_text,
        help_heading = "Group"
    )]
    pub group: String,

    /// Fixed name of this member: a restart within the session timeout moves no partition
    #[arg(
        long,
        value_name = "NAME",
        env = "CITYSTREAM_GROUP_INSTANCE_ID",
        value_parser = parse_text,
        help_heading = "Group"
    )]
    pub group_instance_id: Option<String>,

    /// How the group shares the partitions: classic, or consumer (KIP-848, needs Kafka 4.0)
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t = GroupProtocol::Classic, env = "CITYSTREAM_GROUP_PROTOCOL", help_heading = "Group")]
    pub group_protocol: GroupProtocol,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        env = "CITYSTREAM_LISTEN"
    )]
    pub listen: SocketAddr,

    /// A name by which clients may ask at --listen, beside localhost and addresses; can be repeated
    #[arg(long, value_name = "NAME", env = "CITYSTREAM_ALLOWED_HOST", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// How long raw events are kept
    #[arg(long, value_name = "DURATION", default_value = "30d", env = "CITYSTREAM_RAW_TTL", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000), help_heading = "Counting")]
    pub raw_ttl: i64,

    /// How long alerts are kept; for ever unless it is given, to init-tables as well
    #[arg(long, value_name = "DURATION", env = "CITYSTREAM_ALERT_TTL", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000), help_heading = "Counting")]
    pub alert_ttl: Option<i64>,

    /// Least time between two updates of one row
    #[arg(long, value_name = "DURATION", default_value = "250ms", env = "CITYSTREAM_ROW_INTERVAL", value_parser = |s: &str| parse_duration_ms(s, 0, 3_600_000), help_heading = "Counting")]
    pub row_interval: i64,

    /// Memory for records between Kafka and DynamoDB
    #[arg(long, value_name = "SIZE", default_value = "128MiB", env = "CITYSTREAM_MEMORY_BUDGET", value_parser = |s: &str| parse_bytes(s, 16 << 20, 64 << 30), help_heading = "Counting")]
    pub memory_budget: u64,

    /// What to do when Kafka no longer has the next record
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDataLoss::Stop, env = "CITYSTREAM_ON_DATA_LOSS", help_heading = "Counting")]
    pub on_data_loss: OnDataLoss,

    /// Exit 0 once the group has committed the log's end as it was at the start
    #[arg(long, env = "CITYSTREAM_STOP_AT_END", help_heading = "Counting")]
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

/// How the members of the group agree on who reads what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupProtocol {
    /// The members decide, cooperatively.
    Classic,
    /// The broker decides (KIP-848).
    Consumer,
}

/// What to do when Kafka no longer has the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDataLoss {
    /// Stop with exit code 2 and the lost range.
    Stop,
    /// Count the range and go on behind it.
    Continue,
}
