//! `citystream produce`: synthetic events, or a file's, into Kafka.
//!
//! Wiring only: the source, the producer and the pump between them, with their HTTP side and their
//! progress. Exit 1 if an event was refused or is undelivered at the end, if the input could not be
//! read, or if it had a bad line (unless `--skip-bad`). Kafka that is not there is waited for.

mod http;
mod letters;
mod report;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::api::server::{self, BindError};
use crate::cmd::{Exit, SettingsError, print_picked, service, warn_if_open};
use crate::core::replay::Replay;
use crate::core::trial::{Stream, Trial};
use crate::kafka::client::{ClientError, client_config};
use crate::kafka::input::{Input, InputError};
use crate::kafka::producer::{EventProducer, ProducerError};
use crate::kafka::pump::{self, Plan, PumpError, Source};
use crate::kafka::tally::Counts;
use crate::settings::{LISTEN, Produce, Rate};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, unix_ms};
use report::Report;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns what made the role fail.
pub async fn run(args: Produce, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if args.from_dlq {
        return letters::run(&args, shutdown).await;
    }
    let source = source(&args)?;
    let listener = listener(&args).await?;
    let config = client_config(&args.kafka, "produce").map_err(settings_error)?;
    let producer = EventProducer::new(config, &args.kafka.topic, &metrics)?;
    let tally = producer.tally();
    let address = listener.as_ref().and_then(|it| it.local_addr().ok());
    tracing::info!(
        address = address.map(tracing::field::display),
        topic = args.kafka.topic,
        "producing"
    );

    let http_stop = Shutdown::new();
    let probe = http::probe(Arc::clone(&tally));
    let _service = service::start(probe, metrics.clone(), shutdown.clone());
    let router = http::router(metrics, Arc::clone(&tally));
    let served = server::Options::without_login(&args.allowed_host);
    let server = listener.map(|listener| {
        let serving = server::serve_with(listener, router, served, http_stop.clone());
        tokio::spawn(serving)
    });

    let report = Arc::new(Report::new(&args, Arc::clone(&tally)));
    let ticking = {
        let report = Arc::clone(&report);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                report.tick();
            }
        })
    };

    let plan = plan(&args);
    let (told, stop) = (Arc::clone(&report), shutdown.clone());
    let work = tokio::task::spawn_blocking(move || {
        let pumped = pump::run(source, &producer, &plan, &stop, &mut |line, reject| {
            told.bad_line(line, reject);
        });
        let undelivered = producer.finish(&stop);
        (pumped, undelivered, producer.tally().counts())
    });
    let (pumped, undelivered, counts) = work.await.context("the producer panicked")?;
    ticking.abort();
    report.summary(
        &counts,
        undelivered,
        pumped.as_ref().copied().unwrap_or_default(),
    );
    http_stop.trigger();
    if let Some(server) = server {
        server.await.context("the HTTP server panicked")?;
    }
    pumped.map_err(|error| match error {
        PumpError::Producer(ProducerError::Refused(refusal)) => {
            SettingsError(refusal.to_string()).into()
        }
        other => anyhow::Error::from(other),
    })?;
    Ok(exit(&counts, undelivered, args.skip_bad))
}

/// Opens the port of health and metrics. A run with an end goes on without one where the default port
/// is taken: it is watched by a person.
async fn listener(args: &Produce) -> anyhow::Result<Option<TcpListener>> {
    let bound = server::bind(args.listen, "--listen").await;
    let listener = match bound {
        Err(error) if args.has_end() && args.listen == LISTEN && is_in_use(&error) => {
            tracing::debug!(%error, "no health and metrics");
            return Ok(None);
        }
        bound => bound?,
    };
    let address = listener.local_addr().context("failed to read the port")?;
    print_picked("health and metrics", args.listen, address);
    warn_if_open(address);
    Ok(Some(listener))
}

fn is_in_use(error: &BindError) -> bool {
    error.source.kind() == ErrorKind::AddrInUse
}

/// Nothing but other settings helps against these.
fn settings_error(error: ClientError) -> SettingsError {
    SettingsError(format!("{:#}", anyhow::Error::from(error)))
}

fn exit(counts: &Counts, undelivered: u64, skip_bad: bool) -> Exit {
    let bad = counts.bad > 0 && !skip_bad;
    if undelivered > 0 || counts.failed > 0 || bad {
        Exit::Failed
    } else {
        Exit::Done
    }
}

fn source(args: &Produce) -> anyhow::Result<Source> {
    match &args.input {
        Some(path) => Ok(Source::Input(open(path)?, replay(args, path)?)),
        None => {
            let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
            tracing::info!(seed, "making up events");
            let trial = Trial {
                late_ratio: args.late_ratio.unwrap_or_default(),
                bad_ratio: args.bad_ratio.unwrap_or_default(),
                out_of_order_ms: args.out_of_order.unwrap_or_default(),
                skew: args.skew.unwrap_or_default(),
            };
            let stream = Stream::new(seed, trial);
            let stream = if args.uniform {
                stream.uniform()
            } else {
                stream
            };
            Ok(Source::Synthetic(stream))
        }
    }
}

fn replay(args: &Produce, path: &Path) -> anyhow::Result<Replay> {
    let replay = Replay::at_speed(args.speed);
    if !args.restamp {
        return Ok(replay);
    }
    let newest_ms = if args.speed.is_some() {
        None
    } else if path.as_os_str() == "-" {
        // What was read to find the newest event would be gone.
        let text = "--restamp of standard input needs --speed: its newest event is known at its end \
                    only; give --speed, or a file";
        return Err(SettingsError(text.to_owned()).into());
    } else {
        Input::newest_ms(path)?
    };
    Ok(replay.restamped(unix_ms(), newest_ms))
}

/// Opens the input of `--input`; a file that cannot be opened is a wrong setting.
///
/// # Errors
/// [`SettingsError`] naming option and file.
pub fn open(path: &Path) -> anyhow::Result<Input> {
    Input::open(path).map_err(|error| match error {
        InputError::Open { path, source } => SettingsError(format!(
            "failed to open {} (--input): {source}",
            path.display()
        ))
        .into(),
        other => other.into(),
    })
}

/// Milliseconds between two events → events a second.
#[allow(clippy::cast_precision_loss)]
pub fn rate_of_interval(interval_ms: i64) -> Rate {
    Rate::PerSecond(1_000.0 / interval_ms as f64)
}

fn plan(args: &Produce) -> Plan {
    let synthetic = args.input.is_none();
    Plan {
        rate: args.rate.unwrap_or(if synthetic {
            rate_of_interval(args.interval)
        } else {
            Rate::Max
        }),
        count: args.count,
        // What has an end is watched by somebody; a service goes on once it is let in.
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

    fn plan_of(line: &str) -> Plan {
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
