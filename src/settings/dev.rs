//! Options of `citystream dev`.

use std::path::PathBuf;

use clap::Args;

use super::LogArgs;
use super::values::{Rate, parse_duration_ms, parse_host, parse_port, parse_rate, parse_speed};
use crate::failure::Failure;

/// Default value of `--history` in milliseconds: the time span before now for which `dev` first sends synthetic events.
const HISTORY_MS: i64 = 3 * 3_600_000;

/// Parses the value of `--history`. Returns the time span in milliseconds, or 0 for `off`.
fn parse_history(text: &str) -> Result<i64, String> {
    if text == "off" {
        return Ok(0);
    }
    // Raw events expire after 30 days, so a history of more than 30 days would be useless.
    parse_duration_ms(text, 60_000, 30 * 86_400_000).map_err(|error| format!("{error}; or off"))
}

/// The options of `citystream dev`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream dev\n  citystream dev --rate 100/s\n  citystream dev --replay 600x\n  citystream dev --input data/city-events-2013-01.ndjson.gz"
)]
pub struct Dev {
    /// Keep the tables in this folder after the run [default: in memory]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// Time between two synthetic events
    #[arg(long, value_name = "DURATION", default_value = "500ms", conflicts_with = "rate", value_parser = |s: &str| parse_duration_ms(s, 1, 86_400_000))]
    pub interval: i64,

    /// Events per second, such as 100/s, or max
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub rate: Option<Rate>,

    /// Send this NDJSON file (.gz too) instead of synthetic events
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Play events as if they happened now, N times faster: 60x plays one hour per minute. Plays the
    /// file of --input, or else the built-in events of January 2013
    #[arg(long, value_name = "Nx", conflicts_with = "rate", value_parser = parse_speed)]
    pub replay: Option<f64>,

    /// First send synthetic events for this time span before now, at the live rate and at most 30000 events; off
    /// sends none. Cannot be used with --input or --replay; not sent if --data-dir has tables [default: 3h]
    #[arg(long, value_name = "DURATION", value_parser = parse_history)]
    pub history: Option<i64>,

    /// Port of the embedded Kafka; 0 picks a free one [default: 9092, or a free one if it is taken]
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub kafka_port: Option<u16>,

    /// Port of the embedded DynamoDB; 0 picks a free one [default: 8000, or a free one if it is taken]
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub dynamodb_port: Option<u16>,

    /// Port of the API, the page and all metrics; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 8082, value_parser = parse_port)]
    pub port: u16,

    /// Host name that requests may use in addition to localhost and IP addresses; can be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    #[command(flatten)]
    pub log: LogArgs,
}

impl Dev {
    /// Returns true if `dev` sends synthetic events.
    pub fn is_synthetic(&self) -> bool {
        self.input.is_none() && self.replay.is_none()
    }

    /// Returns the time span, in milliseconds, of the past synthetic events that `dev` sends first, or 0 if `dev` sends
    /// none.
    ///
    /// # Errors
    /// Returns an error if the user combines a history (`--history`) with `--input` or `--replay`.
    pub fn history_ms(&self) -> Result<i64, Failure> {
        let other = match (&self.input, self.replay) {
            (Some(_), _) => "--input",
            (None, Some(_)) => "--replay",
            (None, None) => return Ok(self.history.unwrap_or(HISTORY_MS)),
        };
        match self.history {
            None | Some(0) => Ok(0),
            Some(_) => Err(
                Failure::new(format!("--history cannot be used with {other}"))
                    .with_why("the history consists of synthetic events")
                    .with_remedy(format!(
                        "leave out --history or {other}, or give --history off"
                    )),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Command};

    #[test]
    fn only_synthetic_events_have_a_history() {
        let of = |line: &str| match Cli::try_parse_from(line.split(' ')).expect(line).command {
            Command::Dev(args) => args.history_ms(),
            other => panic!("{other:?}"),
        };
        for (line, history_ms) in [
            ("citystream dev", HISTORY_MS),
            ("citystream dev --history 1h", 3_600_000),
            ("citystream dev --history off", 0),
            ("citystream dev --input x", 0),
            ("citystream dev --input x --history off", 0),
            ("citystream dev --replay 60x", 0),
        ] {
            assert_eq!(of(line), Ok(history_ms), "{line}");
        }
        for (line, option) in [
            ("citystream dev --replay 60x --history 1h", "--replay"),
            ("citystream dev --input x --history 1h", "--input"),
            (
                "citystream dev --input x --replay 60x --history 1h",
                "--input",
            ),
        ] {
            let failure = of(line).expect_err(line);
            assert!(failure.what.ends_with(option), "{failure}");
        }
    }
}
