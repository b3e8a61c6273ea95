//! Options of `citystream silence`.

use clap::{Args, Subcommand};

use super::values::{parse_duration_ms, parse_text};
use super::{LogArgs, TableArgs};

/// The options of `citystream silence`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream silence add --city NYC --event-type construction --for 8h --why marathon\n  citystream silence list\n  citystream silence end 7QK2"
)]
pub struct SilenceCommand {
    #[command(subcommand)]
    pub action: SilenceAction,

    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// What `silence` does.
#[allow(missing_docs)]
#[derive(Clone, Debug, Subcommand)]
pub enum SilenceAction {
    /// Mute notifications about certain incidents for a while
    Add(SilenceAdd),
    /// List the silences that have not ended
    List,
    /// End a silence now
    End {
        /// Id of the silence, as `list` shows it
        #[arg(value_name = "ID", value_parser = parse_text)]
        id: String,
    },
}

/// The options of `citystream silence add`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
pub struct SilenceAdd {
    /// Only incidents of this rule
    #[arg(long, value_name = "RULE", value_parser = parse_text)]
    pub rule: Option<String>,

    /// Only incidents of this city
    #[arg(long, value_name = "CITY", value_parser = parse_text)]
    pub city: Option<String>,

    /// Only incidents of this event type
    #[arg(long, value_name = "TYPE", value_parser = parse_text)]
    pub event_type: Option<String>,

    /// Length of the silence, such as 8h
    #[arg(long = "for", value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 1_000, 365 * 86_400_000))]
    pub length: i64,

    /// The reason for the silence, shown in lists
    #[arg(long, value_name = "TEXT", value_parser = parse_text)]
    pub why: String,
}
