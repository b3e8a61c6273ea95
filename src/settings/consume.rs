//! Options of `citystream consume`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::values::{parse_address, parse_bytes, parse_duration_ms, parse_host, parse_text};
use super::{KafkaArgs, LogArgs, TableArgs};

/// The options of `citystream consume`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream consume\n  citystream consume --stop-at-end\n  citystream consume --brokers b-1:9092,b-2:9092 --row-interval 1s"
)]
pub struct Consume {
    /// Consumer group; its members share the partitions
    #[arg(
        long,
        value_name = "NAME",
        default_value = "citystream",
        value_parser = parse_text,
        help_heading = "Group"
    )]
    pub group: String,

    /// Fixed name of this member, so that a restart within the session timeout causes no rebalance
    #[arg(long, value_name = "NAME", value_parser = parse_text, help_heading = "Group")]
    pub group_instance_id: Option<String>,

    /// Protocol by which the group assigns partitions: classic, or consumer (KIP-848, needs Kafka 4.0)
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t = GroupProtocol::Classic, help_heading = "Group")]
    pub group_protocol: GroupProtocol,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Host name that requests to --listen may use in addition to localhost and IP addresses; can be
    /// repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// How long raw events are kept
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000), help_heading = "Counting")]
    pub raw_ttl: i64,

    /// How long alerts are kept [default: forever]. Give it to init-tables as well
    #[arg(long, value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 60_000, 3_650 * 86_400_000), help_heading = "Counting")]
    pub alert_ttl: Option<i64>,

    /// Shortest time between two updates of one row
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = |s: &str| parse_duration_ms(s, 0, 3_600_000), help_heading = "Counting")]
    pub row_interval: i64,

    /// Memory for records between Kafka and DynamoDB
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = |s: &str| parse_bytes(s, 16 << 20, 64 << 30), help_heading = "Counting")]
    pub memory_budget: u64,

    /// What to do when Kafka no longer has the next record
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDataLoss::Stop, help_heading = "Counting")]
    pub on_data_loss: OnDataLoss,

    /// Process everything that is in the topic now, then exit with 0
    #[arg(long, help_heading = "Counting")]
    pub stop_at_end: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// The protocol by which the group assigns partitions to its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupProtocol {
    /// The members assign the partitions (cooperative-sticky).
    Classic,
    /// The broker assigns the partitions (KIP-848).
    Consumer,
}

/// The action of the consumer when Kafka no longer has the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDataLoss {
    /// Stop with exit code 2 and report the lost range.
    Stop,
    /// Count the range as lost and continue after it.
    Continue,
}
