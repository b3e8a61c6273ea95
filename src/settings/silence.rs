//! Options of `citystream silence`.

use clap::{ArgGroup, Args, Subcommand};

use super::values::{parse_city, parse_duration_ms, parse_event_type, parse_text};
use super::{LogArgs, TableArgs};

/// The options of `citystream silence`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream silence add --city NYC --event-type construction --for 8h --why marathon\n  citystream silence list\n  citystream silence end 7QK2M9"
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
#[command(
    // The usage line that clap generates would list all filters, and would be too long for a terminal.
    override_usage = "citystream silence add [OPTIONS] --for <DURATION> --why <TEXT> <FILTERS|--all>",
    group(ArgGroup::new("filters").args(["rule", "city", "event_type", "all"]).required(true).multiple(true))
)]
pub struct SilenceAdd {
    /// Only incidents of this rule
    #[arg(long, value_name = "RULE", value_parser = parse_text)]
    pub rule: Option<String>,

    /// Only incidents of this city
    #[arg(long, value_name = "CITY", value_parser = parse_city)]
    pub city: Option<String>,

    /// Only incidents of this event type
    #[arg(long, value_name = "TYPE", value_parser = parse_event_type)]
    pub event_type: Option<String>,

    /// Every incident
    #[arg(long, conflicts_with_all = ["rule", "city", "event_type"])]
    pub all: bool,

    /// Length of the silence, such as 8h
    #[arg(long = "for", value_name = "DURATION", value_parser = |s: &str| parse_duration_ms(s, 1_000, 365 * 86_400_000))]
    pub length: i64,

    /// The reason for the silence, shown in lists
    #[arg(long, value_name = "TEXT", value_parser = parse_text)]
    pub why: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Command};

    fn parse_add(filters: &[&str]) -> Result<SilenceAdd, String> {
        let fixed = [
            "citystream",
            "silence",
            "add",
            "--for",
            "8h",
            "--why",
            "test",
        ];
        let cli = Cli::try_parse_from([&fixed[..], filters].concat()).map_err(|e| {
            assert_eq!(e.exit_code(), 2, "{filters:?}");
            e.to_string()
        })?;
        match cli.command {
            Command::Silence(SilenceCommand {
                action: SilenceAction::Add(add),
                ..
            }) => Ok(add),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_silence_of_everything_must_be_requested() {
        let error = parse_add(&[]).unwrap_err();
        assert!(error.contains("--event-type <TYPE>|--all"), "{error}");
        assert!(parse_add(&["--all"]).unwrap().all);
        for filter in ["--rule", "--city", "--event-type"] {
            assert!(!parse_add(&[filter, "a"]).unwrap().all);
            let error = parse_add(&["--all", filter, "a"]).unwrap_err();
            assert!(error.contains("cannot be used with"), "{error}");
        }
        parse_add(&["--rule", "a", "--city", "b", "--event-type", "c"]).unwrap();
    }

    #[test]
    fn a_silence_that_covers_no_event_is_refused() {
        let add = parse_add(&["--city", " São Paulo ", "--event-type", "Traffic"]).unwrap();
        assert_eq!(add.city.as_deref(), Some("São Paulo"));
        assert_eq!(add.event_type.as_deref(), Some("traffic"));
        let long = "a".repeat(65);
        for (filter, value) in [
            ("--city", "a#b"),
            ("--city", " "),
            ("--city", "a\u{1b}b"),
            ("--city", long.as_str()),
            ("--event-type", "bad type"),
            ("--event-type", "1st"),
            ("--event-type", long.as_str()),
        ] {
            let error = parse_add(&[filter, value]).unwrap_err();
            assert!(error.contains("no event has such a"), "{value}: {error}");
        }
    }
}
