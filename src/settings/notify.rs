//! Options of `citystream notify`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::tail::{From, parse_from};
use super::values::{parse_host, parse_text};
use super::{KafkaArgs, LogArgs, TableArgs};

/// The format in which `notify --dry-run` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NotifyOutput {
    /// One line per message.
    Text,
    /// The body of each message as one JSON object.
    Json,
}

/// The options of `citystream notify`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream notify --config notify.toml --dry-run --from -7d --exit-at-end\n  citystream notify --config notify.toml --test ops\n  citystream notify --config notify.toml"
)]
pub struct Notify {
    /// File with the rules and the receivers, in TOML
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/citystream/notify.toml"
    )]
    pub config: PathBuf,

    /// Print the messages that would be sent, without sending them; needs no table
    #[arg(long)]
    pub dry_run: bool,

    /// Send one test message to this receiver, and exit
    #[arg(long, value_name = "RECEIVER", conflicts_with = "dry_run", value_parser = parse_text)]
    pub test: Option<String>,

    /// Where to start: end, beginning, a time before now such as -7d, a date (UTC) or RFC 3339; without
    /// --dry-run, end or beginning, and only if the table has no checkpoint
    #[arg(long, default_value = "end", allow_hyphen_values = true, value_parser = parse_from)]
    pub from: From,

    /// With --dry-run: read everything that is in the topic now, then exit
    #[arg(long, requires = "dry_run")]
    pub exit_at_end: bool,

    /// With --dry-run: how to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = NotifyOutput::Text)]
    pub output: NotifyOutput,

    /// Base URL of the page for the links in messages, without a path
    #[arg(long, value_name = "URL", value_parser = parse_text)]
    pub link: Option<String>,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085")]
    pub listen: SocketAddr,

    /// Host name that requests to --listen may use in addition to localhost and IP addresses; can be
    /// repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// Consumer group of the instances that share the work
    #[arg(long, value_name = "NAME", default_value = "citystream-notify", value_parser = parse_text)]
    pub notify_group: String,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}
