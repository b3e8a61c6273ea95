//! Sends events to Kafka: synthetic events, the events of a file or of HTTP requests, or repaired dead letters.
//!
//! | module | holds |
//! |---|---|
//! | [`input`] | reading lines of JSON or rows of CSV from a file, a pipe or a .gz file |
//! | `dry_run` | checking an input without sending it |
//! | [`pump`] | sending events at a pace, up to a count, with heartbeats |
//! | [`producer`], [`deliveries`], [`latency`] | the Kafka producer, its counts and its latencies |
//! | `accept`, [`receipts`] | events over HTTP, and the outcome of each |
//! | [`credit`] | the limit on unread records for `dev`, whose broker drops old records |
//! | [`resend`], `dead_letters` | `--from-dlq` |
//! | `report`, `http` | progress on the terminal, health over HTTP |

pub(crate) mod accept;
pub mod credit;
pub(crate) mod dead_letters;
pub mod deliveries;
mod delivery_context;
pub(crate) mod dry_run;
pub(crate) mod http;
pub mod input;
pub mod latency;
pub mod producer;
pub mod pump;
pub mod receipts;
pub(crate) mod report;
pub mod resend;

use std::path::Path;
use std::sync::Arc;

use crate::core::replay::Replay;
use crate::core::synth_faults::{Faults, Stream};
use crate::exit::{Exit, SettingsError};
use crate::produce::deliveries::DeliveryCounts;
use crate::produce::input::{CsvRules, Input, InputError, InputFormatRules};
use crate::produce::pump::{EventSource, SendPlan};
use crate::settings::{InputFormat, Produce, Rate};
use crate::telemetry::unix_ms;

pub(crate) fn exit(counts: &DeliveryCounts, undelivered: u64, skip_bad: bool) -> Exit {
    let bad = counts.bad > 0 && !skip_bad;
    if undelivered > 0 || counts.failed > 0 || bad {
        Exit::Failed
    } else {
        Exit::Done
    }
}

pub(crate) fn open_source(args: &Produce) -> anyhow::Result<EventSource> {
    match &args.input {
        _ if args.accept => Ok(EventSource::Requests),
        Some(path) => {
            let format = input_rules(args)?;
            let input = open(path, &format)?;
            Ok(EventSource::Input(input, replay(args, path, &format)?))
        }
        None => {
            let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
            tracing::info!(seed, "generating synthetic events");
            let faults = Faults {
                late_ratio: args.late_ratio.unwrap_or_default(),
                bad_ratio: args.bad_ratio.unwrap_or_default(),
                out_of_order_ms: args.out_of_order.unwrap_or_default(),
                skew: args.skew.unwrap_or_default(),
            };
            let stream = Stream::new(seed, faults);
            let stream = if args.uniform {
                stream.uniform()
            } else {
                stream
            };
            Ok(EventSource::Synthetic(stream))
        }
    }
}

/// Returns the format of the input, with the rules for reading it.
///
/// # Errors
/// Returns an error if the options for CSV are incomplete, or if such options are given although the input is not CSV.
pub(crate) fn input_rules(args: &Produce) -> Result<InputFormatRules, SettingsError> {
    match (args.input_format(), args.csv.first_given()) {
        (InputFormat::Csv, _) => {
            let rules = CsvRules::new(&args.csv).map_err(SettingsError)?;
            Ok(InputFormatRules::Csv(Arc::new(rules)))
        }
        (InputFormat::Ndjson, None) => Ok(InputFormatRules::Ndjson),
        (InputFormat::Ndjson, Some(option)) => {
            Err(SettingsError::new(format!("{option} is for CSV"))
                .with_why("the input is read as NDJSON")
                .with_remedy("give --input-format csv, or leave the option out"))
        }
    }
}

pub(crate) fn replay(
    args: &Produce,
    path: &Path,
    format: &InputFormatRules,
) -> anyhow::Result<Replay> {
    let replay = Replay::at_speed(args.speed);
    if !args.restamp {
        return Ok(replay);
    }
    let newest_ms = if args.speed.is_some() {
        None
    } else if path.as_os_str() == "-" {
        // Finding the newest event requires reading the whole input, but standard input can be read only once.
        return Err(
            SettingsError::new("--restamp of standard input needs --speed")
                .with_why("the newest event is known only at the end of the input")
                .with_remedy("give --speed, or a file")
                .into(),
        );
    } else {
        Input::newest_ms(path, format)?
    };
    Ok(replay.restamped(unix_ms(), newest_ms))
}

/// Opens the file or pipe that the option `--input` names.
///
/// # Errors
/// Returns a [`SettingsError`] that names the option and the file if the file cannot be opened, or if a CSV file lacks
/// a column.
pub fn open(path: &Path, format: &InputFormatRules) -> anyhow::Result<Input> {
    Input::open(path, format).map_err(input_error)
}

/// Converts an `InputError` to the error that determines the exit code and the remedy.
pub(crate) fn input_error(error: InputError) -> anyhow::Error {
    match error {
        InputError::Open { path, source } => {
            let what = format!("failed to open {} (--input)", path.display());
            let failure = crate::remedy::describe_error(&anyhow::Error::from(source).context(what));
            SettingsError(failure).into()
        }
        InputError::Columns(failure) => SettingsError(failure).into(),
        other => other.into(),
    }
}

/// Converts the time between two events, in milliseconds, to a rate in events per second.
#[allow(clippy::cast_precision_loss)]
pub fn rate_of_interval(interval_ms: i64) -> Rate {
    Rate::PerSecond(1_000.0 / interval_ms as f64)
}

pub(crate) fn plan(args: &Produce) -> SendPlan {
    let synthetic = args.input.is_none();
    SendPlan {
        rate: args.rate.unwrap_or(if synthetic {
            rate_of_interval(args.interval)
        } else {
            Rate::Max
        }),
        count: args.count,
        // A service waits until the brokers accept its login. A run that ends by itself gives up if the brokers refuse
        // its login.
        patient: !args.has_end(),
        heartbeat_ms: args.heartbeat_ms(),
        credit: None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Command};

    fn plan_of(line: &str) -> SendPlan {
        match Cli::try_parse_from(line.split(' ')).expect(line).command {
            Command::Produce(args) => plan(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn heartbeats_are_on_for_synthetic_events_only() {
        for (line, rate, heartbeat_ms) in [
            ("citystream produce", Rate::PerSecond(0.2), Some(60_000)),
            ("citystream produce --rate max", Rate::Max, Some(60_000)),
            (
                "citystream produce --heartbeat 1s",
                Rate::PerSecond(0.2),
                Some(1_000),
            ),
            (
                "citystream produce --heartbeat off",
                Rate::PerSecond(0.2),
                None,
            ),
            ("citystream produce --input x", Rate::Max, None),
            ("citystream produce --accept", Rate::PerSecond(0.2), None),
            (
                "citystream produce --accept --heartbeat 1m",
                Rate::PerSecond(0.2),
                Some(60_000),
            ),
            (
                "citystream produce --input x --heartbeat 5m",
                Rate::Max,
                Some(300_000),
            ),
            (
                "citystream produce --input x --rate 10/s",
                Rate::PerSecond(10.0),
                None,
            ),
        ] {
            let plan = plan_of(line);
            assert_eq!(
                (plan.rate, plan.heartbeat_ms),
                (rate, heartbeat_ms),
                "{line}"
            );
        }
    }
}
