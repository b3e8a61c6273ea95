//! `citystream produce`: sends events from a source to Kafka, opens an HTTP port, and shows the progress.
//!
//! The exit code is 1 if Kafka refused an event or did not acknowledge it, or if the input could not be read. The exit
//! code is also 1 if the input had an invalid line, unless `--skip-bad` is given. If Kafka does not answer, the role
//! waits until Kafka answers.
//!
//! With `--accept`, the events come from HTTP requests. After a stop is requested, open HTTP requests are still
//! answered while the producer delivers their events. With `--accept`, the exit code is 0 if no event remains
//! undelivered at the end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use indicatif::HumanCount;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::access::{check_address, load_certificate, rules, server_options};
use crate::api::access::{Access, guarded};
use crate::api::server::{self, BindError, ServeOptions};
use crate::api::tls::Certificate;
use crate::blocking::run_blocking;
use crate::exit::{Exit, SettingsError};
use crate::failure::Failure;
use crate::kafka::client::client_config;
use crate::listen::{print_picked, warn_if_open};
use crate::produce::accept::{EventDoor, UPLOADS};
use crate::produce::producer::{EventProducer, ProducerError};
use crate::produce::pump::{self, PumpError};
use crate::produce::report::ProgressReport;
use crate::produce::{dead_letters, dry_run, exit, http, input_error, open_source, plan};
use crate::service;
use crate::settings::{LISTEN, Produce};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Time between two updates of the displayed progress.
const TICK: Duration = Duration::from_millis(100);

/// Runs the role until its work is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which the role ended.
pub async fn run(args: Produce, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if args.from_dlq {
        return dead_letters::run(&args, shutdown).await;
    }
    if args.dry_run {
        return run_blocking(move || dry_run::run(&args, &shutdown)).await;
    }
    let source = open_source(&args)?;
    // With `--accept`, the HTTP server stops as soon as the role stops. Without `--accept`, the server reports health
    // until all events are delivered.
    let http_stop = if args.accept {
        shutdown.clone()
    } else {
        Shutdown::default()
    };
    let guard = Guard::new(&args)?;
    let listener = open_port(&args, guard.scheme).await?;
    let config = client_config(&args.kafka, "produce")?;
    let producer = Arc::new(EventProducer::new(config, &args.kafka.topic, &metrics)?);
    let deliveries = producer.deliveries();
    let address = listener.as_ref().and_then(|it| it.local_addr().ok());
    let address = address.map(tracing::field::display);
    tracing::info!(address, topic = args.kafka.topic, "producing");

    let probe = http::probe(Arc::clone(&deliveries));
    let _service = service::start(probe, metrics.clone(), shutdown.clone());
    let mut router = http::router(metrics.clone(), Arc::clone(&deliveries));
    if args.accept {
        let topic = &args.kafka.topic;
        let door = EventDoor::new(Arc::clone(&producer), topic, &metrics, &shutdown);
        router = router.merge(door.router()).merge(door.description());
    }
    let server = listener.map(|listener| guard.serve(listener, router, &metrics, &http_stop));
    let report = Arc::new(ProgressReport::new(&args, Arc::clone(&deliveries)));
    let ticking = tokio::spawn(update_every_tick(Arc::clone(&report)));

    let plan = plan(&args);
    let (bad_lines, stop) = (Arc::clone(&report), shutdown.clone());
    // The producer is dropped only after the summary is printed, because dropping the producer counts undelivered
    // events as failed.
    let sender = Arc::clone(&producer);
    let work = run_blocking(move || {
        let pumped = pump::run(source, &sender, &plan, &stop, &mut |line, reject| {
            bad_lines.report_bad_line(line, reject);
        });
        sender.finish(&stop);
        pumped
    });
    let pumped = work.await;
    ticking.abort();
    http_stop.trigger();
    if let Some(server) = server {
        server.await.context("the HTTP server panicked")?;
    }
    let counts = deliveries.counts();
    let faults = pumped.as_ref().map(|pumped| pumped.faults);
    report.report_summary(&counts, counts.undelivered(), faults.unwrap_or_default());
    if !pumped.map_err(pump_error)?.is_complete && args.has_end() {
        return Err(stopped_early(&args, counts.sent).into());
    }
    // Failed events do not change the exit code, because the responses to the HTTP requests have already reported the
    // failed events.
    if args.accept && counts.undelivered() == 0 {
        return Ok(Exit::Done);
    }
    Ok(exit(&counts, counts.undelivered(), args.skip_bad))
}

/// Returns the failure of a run that was stopped before it had sent all its events.
fn stopped_early(args: &Produce, sent: u64) -> Failure {
    if args.input.is_none() {
        return Failure::new("stopped before --count events were sent");
    }
    let failure = Failure::new("stopped before the end of the input");
    if sent == 0 {
        return failure.with_remedy("run it again");
    }
    let sent = HumanCount(sent);
    failure.with_remedy(format!(
        "send only the rest: a run with the whole input sends the first {sent} events again"
    ))
}

fn pump_error(error: PumpError) -> anyhow::Error {
    match error {
        PumpError::Input(error) => input_error(error),
        PumpError::Producer(ProducerError::Refused(refusal)) => {
            SettingsError((&refusal).into()).into()
        }
        other => other.into(),
    }
}

async fn update_every_tick(report: Arc<ProgressReport>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        report.update();
    }
}

/// The access rules and limits of the HTTP port.
struct Guard {
    access: Access,
    options: ServeOptions,
    certificate: Option<Arc<Certificate>>,
    scheme: &'static str,
}

impl Guard {
    /// Returns the access rules and limits of the port given by `--listen`.
    ///
    /// # Errors
    /// Returns an error if a certificate or token file cannot be used, or if other hosts could send events without a
    /// token.
    fn new(args: &Produce) -> Result<Guard, SettingsError> {
        if args.accept {
            crate::sys::raise_open_files();
            let given = format!("--listen {}", args.listen);
            check_address(&args.access, args.listen.ip(), given)?;
        }
        let certificate = load_certificate(&args.access)?;
        Ok(Guard {
            access: rules(&args.access, args.listen.ip())?,
            options: ServeOptions {
                uploads: args.accept.then_some(UPLOADS),
                ..server_options(&args.access, certificate.clone())
            },
            scheme: certificate.as_ref().map_or("http", |_| "https"),
            certificate,
        })
    }

    /// Serves HTTP requests on the port in a separate task.
    fn serve(
        self,
        listener: TcpListener,
        router: Router,
        metrics: &Metrics,
        stop: &Shutdown,
    ) -> JoinHandle<()> {
        let router = guarded(router, self.access, metrics, stop);
        if let Some(certificate) = self.certificate {
            tokio::spawn(certificate.watch(stop.clone()));
        }
        tokio::spawn(server::serve(listener, router, self.options, stop.clone()))
    }
}

/// Opens the port for health, metrics and events.
///
/// If the default port is already in use, a run with a finite source continues without a port. A run that ends by
/// itself does not need to be monitored.
async fn open_port(args: &Produce, scheme: &str) -> anyhow::Result<Option<TcpListener>> {
    let bound = server::bind(args.listen, "--listen").await;
    let listener = match bound {
        Err(error) if args.has_end() && args.listen == LISTEN && is_in_use(&error) => {
            tracing::debug!(%error, "continuing without health and metrics");
            return Ok(None);
        }
        bound => bound?,
    };
    let address = listener.local_addr().context("failed to read the port")?;
    let service = if args.accept {
        "events, health and metrics"
    } else {
        "health and metrics"
    };
    print_picked(service, scheme, args.listen, address);
    if args.access.auth_token_file.is_none() {
        warn_if_open(address);
    }
    Ok(Some(listener))
}

fn is_in_use(error: &BindError) -> bool {
    error.source.kind() == ErrorKind::AddrInUse
}
