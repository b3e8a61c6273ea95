//! Options of `citystream tail`.

use clap::{Args, ValueEnum};

use super::values::{parse_count, parse_duration_ms, parse_instant, parse_severity, parse_text};
use super::verify::parse_moment;
use super::{KafkaArgs, LogArgs, Moment, TableArgs};
use crate::core::clock::UnixMs;
use crate::core::event::Severity;

/// The position at which `tail` starts to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// `tail` starts with the next record that is written.
    End,
    /// `tail` starts with the oldest record.
    Beginning,
    /// `tail` starts with the records whose timestamps are at most the given number of milliseconds old.
    Ago(i64),
    /// `tail` starts with the records whose timestamps are not before the given instant.
    At(UnixMs),
}

/// The format in which `tail` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TailOutput {
    /// Counts by city, type and severity, or rejected records by reason.
    Table,
    /// One JSON object per event or rejected record.
    Json,
    /// One line per event or rejected record.
    Text,
}

/// The options of `citystream tail`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "On a terminal, tail shows a live screen: ? lists its keys, q quits. Elsewhere, or with TERM=dumb, it\n\
                  prints a line every ten seconds and the counts at the end. NO_COLOR turns colours off.\n\n\
                  Examples:\n  citystream tail --city NYC\n  citystream tail --from -1h --severity critical --output text\n  citystream tail --from beginning --exit-at-end --output json | jq .city\n  citystream tail --dlq --from -1h --output json | jq -r .reason"
)]
pub struct Tail {
    /// Only this city; can be repeated
    #[arg(long = "city", value_name = "CITY", value_parser = parse_text)]
    pub cities: Vec<String>,

    /// Only this event type; can be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_text)]
    pub types: Vec<String>,

    /// Only this severity; can be repeated
    #[arg(long = "severity", value_name = "SEVERITY", value_parser = parse_severity)]
    pub severities: Vec<Severity>,

    /// Where to start: end, beginning, a time before now such as -1h, a date (UTC) or RFC 3339
    #[arg(
        long,
        default_value = "end",
        default_value_ifs = [("incidents", "true", "end"), ("exit_at_end", "true", "beginning")],
        value_name = "START",
        allow_hyphen_values = true,
        value_parser = parse_from
    )]
    pub from: StartFrom,

    /// Stop at this record timestamp: a time before now such as -5m, a date (UTC) or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse_moment)]
    pub until: Option<Moment>,

    /// Stop after this many events or rejected records
    #[arg(short = 'n', long = "events", value_name = "N", value_parser = parse_count)]
    pub events: Option<u64>,

    /// Show the rejected records instead, each with its reason, its origin and its original content
    #[arg(long, conflicts_with_all = ["cities", "types", "severities"])]
    pub dlq: bool,

    /// Show the incidents that notify has found instead, from the table of incidents
    #[arg(long, conflicts_with_all = ["dlq", "types", "severities", "until"])]
    pub incidents: bool,

    /// How to print [default: table; with --dlq and without a live screen, text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub output: Option<TailOutput>,

    /// Read everything that is in the topic now, from the beginning or from --from, then exit
    #[arg(long)]
    pub exit_at_end: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Tail {
    /// Returns the format in which `tail` prints if it does not show the live screen.
    pub fn output(&self) -> TailOutput {
        self.output.unwrap_or(if self.dlq {
            TailOutput::Text
        } else {
            TailOutput::Table
        })
    }
}

pub(super) fn parse_from(text: &str) -> Result<StartFrom, String> {
    match text {
        "end" => return Ok(StartFrom::End),
        "beginning" => return Ok(StartFrom::Beginning),
        _ => {}
    }
    if let Some(ago) = text.strip_prefix('-') {
        return parse_duration_ms(ago, 0, 3_650 * 86_400_000).map(StartFrom::Ago);
    }
    parse_instant(text).map(StartFrom::At).map_err(|_| {
        "expected end, beginning, a time before now such as -1h, a date such as 2013-01-01, or an instant such as 2013-01-01T06:00:00Z".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Command};

    fn parse(options: &str) -> Tail {
        let line = format!("citystream tail {options}");
        match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command) {
            Ok(Command::Tail(args)) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn exit_at_end_begins_at_the_beginning_unless_from_is_given() {
        for (options, from) in [
            ("", StartFrom::End),
            ("--exit-at-end", StartFrom::Beginning),
            ("--exit-at-end --dlq", StartFrom::Beginning),
            ("--exit-at-end --from end", StartFrom::End),
            ("--from -1h --exit-at-end", StartFrom::Ago(3_600_000)),
            // Without `--from`, the incidents begin with the open ones.
            ("--incidents --exit-at-end", StartFrom::End),
            (
                "--incidents --exit-at-end --from beginning",
                StartFrom::Beginning,
            ),
        ] {
            assert_eq!(parse(options).from, from, "{options}");
        }
    }

    #[test]
    fn until_takes_a_time_before_now() {
        for (until, moment) in [
            ("-5m", Moment::Ago(300_000)),
            ("1970-01-02", Moment::At(UnixMs(86_400_000))),
            ("1970-01-01T00:00:01Z", Moment::At(UnixMs(1_000))),
        ] {
            let args = parse(&format!("--from -1h --until {until}"));
            assert_eq!(args.until, Some(moment), "{until}");
        }
    }
}
