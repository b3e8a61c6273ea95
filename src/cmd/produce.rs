//! `citystream produce`: sends events from a source to Kafka, with an HTTP port and a progress report.
//!
//! The exit code is 1 if Kafka refused an event or did not acknowledge it, if the input could not be
//! read, or if it had an invalid line (unless `--skip-bad` is given). While Kafka does not answer, the
//! role waits.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::api::server::{self, BindError};
use crate::blocking::run_blocking;
use crate::exit::{Exit, SettingsError};
use crate::kafka::client::client_config;
use crate::listen::{print_picked, warn_if_open};
use crate::produce::producer::{EventProducer, ProducerError};
use crate::produce::pump::{self, PumpError};
use crate::produce::report::ProgressReport;
use crate::produce::{dead_letters, exit, http, plan, source};
use crate::service;
use crate::settings::{LISTEN, Produce};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Time between two updates of the progress.
const TICK: Duration = Duration::from_millis(100);

/// Runs the role until it is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error that ended the role.
pub async fn run(args: Produce, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if args.from_dlq {
        return dead_letters::run(&args, shutdown).await;
    }
    let source = source(&args)?;
    let listener = open_port(&args).await?;
    let config = client_config(&args.kafka, "produce")?;
    let producer = EventProducer::new(config, &args.kafka.topic, &metrics)?;
    let deliveries = producer.deliveries();
    let address = listener.as_ref().and_then(|it| it.local_addr().ok());
    tracing::info!(
        address = address.map(tracing::field::display),
        topic = args.kafka.topic,
        "producing"
    );

    let http_stop = Shutdown::new();
    let probe = http::probe(Arc::clone(&deliveries));
    let _service = service::start(probe, metrics.clone(), shutdown.clone());
    let router = http::router(metrics, Arc::clone(&deliveries));
    let served = server::ServeOptions::without_login(&args.allowed_host);
    let server = listener.map(|listener| {
        let serving = server::serve(listener, router, served, http_stop.clone());
        tokio::spawn(serving)
    });

    let report = Arc::new(ProgressReport::new(&args, Arc::clone(&deliveries)));
    let ticking = {
        let report = Arc::clone(&report);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                report.update();
            }
        })
    };

    let plan = plan(&args);
    let (bad_lines, stop) = (Arc::clone(&report), shutdown.clone());
    let work = run_blocking(move || {
        let pumped = pump::run(source, &producer, &plan, &stop, &mut |line, reject| {
            bad_lines.report_bad_line(line, reject);
        });
        let undelivered = producer.finish(&stop);
        (pumped, undelivered, producer.deliveries().counts())
    });
    let (pumped, undelivered, counts) = work.await;
    ticking.abort();
    report.report_summary(
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
            SettingsError((&refusal).into()).into()
        }
        other => anyhow::Error::from(other),
    })?;
    Ok(exit(&counts, undelivered, args.skip_bad))
}

/// Opens the port for health and metrics.
///
/// A run that ends by itself continues without the port if the default one is taken: a person watches
/// such a run, and no monitoring needs the port.
async fn open_port(args: &Produce) -> anyhow::Result<Option<TcpListener>> {
    let bound = server::bind(args.listen, "--listen").await;
    let listener = match bound {
        Err(error) if args.has_end() && args.listen == LISTEN && is_in_use(&error) => {
            tracing::debug!(%error, "continuing without health and metrics");
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
