//! `citystream produce`: a source, the producer and the pump between them, with their HTTP side and their
//! progress.
//!
//! Exit 1 if an event was refused or is undelivered at the end, if the input could not be read, or if it had a
//! bad line (unless `--skip-bad`). Kafka that is not there is waited for.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::api::server::{self, BindError};
use crate::exit::{Exit, SettingsError};
use crate::kafka::client::client_config;
use crate::kafka::producer::{EventProducer, ProducerError};
use crate::listen::{print_picked, warn_if_open};
use crate::produce::pump::{self, PumpError};
use crate::produce::report::Report;
use crate::produce::{exit, http, letters, plan, settings_error, source};
use crate::service;
use crate::settings::{LISTEN, Produce};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

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
    let served = server::ServeOptions::without_login(&args.allowed_host);
    let server = listener.map(|listener| {
        let serving = server::serve(listener, router, served, http_stop.clone());
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
