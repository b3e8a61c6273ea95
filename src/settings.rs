//! The command line and the environment, parsed into typed settings.
//!
//! This module reads all environment variables that are settings of citystream. Libraries read the environment
//! variables of AWS, and `RUST_LOG`. Before a role starts, this module refuses invalid values. The error for an invalid
//! value names the option, the value and the allowed values. The exit code is then 2.

mod access;
mod consume;
mod csv;
#[cfg(feature = "dev")]
mod dev;
mod effective;
mod environment;
mod help;
mod init_tables;
mod kafka;
mod notify;
mod ops;
mod parse;
mod produce;
mod secrets;
mod serve;
mod silence;
mod tail;
mod values;
mod verify;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use access::AccessArgs;
pub use consume::{Consume, GroupProtocol, OnDataLoss};
pub use csv::{CsvArgs, EventField, FieldList, InputFormat, SeverityList};
#[cfg(feature = "dev")]
pub use dev::Dev;
pub use effective::{Effective, Parsed, hide_login, other_variables, parse_role};
pub use environment::{check_environment, known_variables, nearest};
pub use help::command;
pub use init_tables::{InitTables, Mix};
pub use kafka::{KAFKA_PROPERTIES_FIXED, KAFKA_SECRET_VARIABLES, KafkaArgs, KafkaAuth};
pub use notify::{Notify, NotifyOutput};
pub use ops::{Carried, Check, CompletionShell, Config, Print, Role};
pub use parse::parse;
pub use produce::{Heartbeat, LISTEN, Produce};
pub use secrets::warn_if_others_can_read;
pub use serve::Serve;
pub use silence::{SilenceAction, SilenceAdd, SilenceCommand};
pub use tail::{StartFrom, Tail, TailOutput};
pub(crate) use values::parse_duration_ms;
pub use values::{Rate, show_ms};
pub use verify::{Moment, Verify, VerifyOutput, WindowName};

/// Counts city events from Kafka exactly and stores the counts in DynamoDB.
#[derive(Debug, Parser)]
#[command(
    name = "citystream",
    version,
    long_version = help::long_version(),
    about,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or check the tables and topics
    InitTables(InitTables),
    /// Send city events to Kafka: synthetic events, or the events of a file
    Produce(Produce),
    /// Count events from Kafka into DynamoDB
    Consume(Consume),
    /// Serve the REST API and the dashboard from DynamoDB
    Serve(Serve),
    /// Show live counts by city, type and severity
    Tail(Tail),
    /// Detect incidents by rules, and notify receivers
    Notify(Notify),
    /// Mute notifications about certain incidents for a while
    Silence(SilenceCommand),
    /// Compare the Kafka log with the tables, row by row
    Verify(Verify),
    /// Test settings, host names, logins, rights, topics and tables before you start a role
    Check(Check),
    /// Print the effective settings of a role, and the origin of each
    Config(Config),
    /// Print files from the binary: units, alerts, policies, manual pages, completions
    Print(Print),
    /// Run every role in one process, with an embedded Kafka broker and DynamoDB
    #[cfg(feature = "dev")]
    Dev(Dev),
}

/// Options that every subcommand has.
#[derive(Args, Clone, Debug, Default)]
pub struct LogArgs {
    /// Format of log lines [default: text on a terminal, json elsewhere]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        help_heading = "Logging"
    )]
    pub log_format: Option<LogFormat>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options that choose the tables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "DynamoDB")]
pub struct TableArgs {
    /// Prefix of the names of the tables
    #[arg(
        long,
        global = true,
        default_value = "citystream",
        value_name = "NAME",
        value_parser = parse_table_prefix,
    )]
    pub table_prefix: String,
}

impl Command {
    /// Returns the subcommand's name.
    pub fn name(&self) -> &'static str {
        self.name_and_log().0
    }

    /// Returns the logging options, which every subcommand has.
    pub fn log(&self) -> &LogArgs {
        self.name_and_log().1
    }

    fn name_and_log(&self) -> (&'static str, &LogArgs) {
        match self {
            Command::InitTables(c) => ("init-tables", &c.log),
            Command::Produce(c) => ("produce", &c.log),
            Command::Consume(c) => ("consume", &c.log),
            Command::Serve(c) => ("serve", &c.log),
            Command::Tail(c) => ("tail", &c.log),
            Command::Notify(c) => ("notify", &c.log),
            Command::Silence(c) => ("silence", &c.log),
            Command::Verify(c) => ("verify", &c.log),
            Command::Check(c) => ("check", &c.log),
            Command::Config(c) => ("config", &c.log),
            Command::Print(c) => ("print", &c.log),
            #[cfg(feature = "dev")]
            Command::Dev(c) => ("dev", &c.log),
        }
    }
}

fn parse_table_prefix(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // DynamoDB allows table names of up to 255 characters, and the longest suffix after the prefix is "-aggregations".
    if text.is_empty() || text.len() > 240 || !text.chars().all(legal) {
        return Err("a prefix has 1 to 240 of the characters a-z A-Z 0-9 . _ -".to_owned());
    }
    Ok(text.to_owned())
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
    fn typical_command_lines_parse() {
        for line in [
            "citystream init-tables",
            "citystream produce --interval 5s",
            "citystream consume",
            "citystream serve --port 8082",
            "citystream tail --city NYC",
            "citystream tail --from -1h --exit-at-end -n 5 --output json",
            "citystream produce --rate max --count 10",
            "citystream verify --from -1h --until 2013-01-02T00:00:00Z --output json",
            "citystream verify --watch",
            "citystream verify --watch=5m --listen 127.0.0.1:0",
            "citystream verify --explain NYC#traffic#2013-01-01T06:00:00Z",
            "citystream check --for consume --brokers b-1:9092 --group night",
            "citystream config",
            "citystream config --for serve --port 0",
            "citystream consume --kafka-property fetch.min.bytes=1 --kafka-property debug=cgrp",
            "citystream consume --brokers b-1.example:9092,127.0.0.1:1,[::1]:65535",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn silence_takes_the_prefix_before_and_after_its_action() {
        for line in [
            "citystream silence --table-prefix city2 --log-format json list",
            "citystream silence list --table-prefix city2 --log-format json",
            "citystream silence end 7QK2M9 --table-prefix city2 --log-format json",
            "citystream silence add --all --for 8h --why marathon --table-prefix city2 --log-format json",
        ] {
            let cli = parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            let Command::Silence(args) = cli.command else {
                panic!("{line}");
            };
            assert_eq!(args.tables.table_prefix, "city2", "{line}");
            assert_eq!(args.log.log_format, Some(LogFormat::Json), "{line}");
        }
    }

    #[test]
    fn a_wrong_value_names_the_option_the_value_and_the_allowed_values() {
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
            (
                "citystream consume --brokers http://localhost:9092",
                ["--brokers", "http://", "give localhost:9092"],
            ),
            (
                "citystream tail --brokers a:1,SASL_SSL://b-1:9092/",
                ["--brokers", "give b-1:9092 alone", "--kafka-auth"],
            ),
            (
                "citystream verify --brokers a:1,::1:9092",
                ["--brokers", "::1:9092", "host:port"],
            ),
            (
                "citystream produce --brokers host:0",
                ["--brokers", "host:0", "host:port"],
            ),
            (
                "citystream verify --explain NYC##2013-01-01T06:00:00Z",
                ["--explain", "NYC##", "city#type#start"],
            ),
            ("citystream produce --rate fast", ["--rate", "fast", "max"]),
            (
                "citystream verify --explain NYC#traffic",
                [
                    "--explain",
                    "NYC#traffic",
                    "NYC#traffic#2013-01-01T06:00:00Z",
                ],
            ),
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
    fn a_wrong_address_is_refused_with_an_example() {
        let with_port = "an IP address and a port, such as 127.0.0.1:8081";
        for (line, words) in [
            ("citystream consume --listen localhost:8081", with_port),
            ("citystream produce --listen :8080", with_port),
            ("citystream notify --listen 8085", with_port),
            ("citystream verify --listen 127.0.0.1", with_port),
            (
                "citystream serve --bind localhost",
                "an IP address, such as 127.0.0.1",
            ),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn no_option_accepts_an_empty_value() {
        for command in command().get_subcommands() {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|_| arg.get_action().takes_values()) else {
                    continue;
                };
                let line = format!("citystream {} --{long}=", command.get_name());
                let error = parse(&line).expect_err(&line);
                assert_eq!(error.exit_code(), 2, "{line}");
                assert!(error.to_string().contains(long), "{line}: {error}");
            }
        }
    }

    #[test]
    fn properties_that_exact_counting_depends_on_are_refused() {
        for name in KAFKA_PROPERTIES_FIXED {
            let line = format!("citystream consume --kafka-property {name}=x");
            let text = parse(&line).expect_err(name).to_string();
            let (what, others) = text.split_once("also fixed").expect(&text);
            assert!(what.contains(name), "{text}");
            let mut listed = others.split([' ', ',', ':', '\n']);
            assert!(!listed.any(|other| other == name), "{text}");
        }
    }
}
