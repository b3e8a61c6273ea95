//! `verify --watch`: compares the log with the tables repeatedly, and shows the results as metrics.
//!
//! | metric | |
//! |---|---|
//! | `citystream_verify_difference_rows` | rows that differed in the last comparison |
//! | `citystream_verify_not_comparable_rows` | rows that could not be compared |
//! | `citystream_verify_events{side}` | events that were counted in the `log` and in the `tables` |
//! | `citystream_verify_runs_total{outcome}` | comparisons by outcome: `agree`, `differ`, `failed` |
//! | `citystream_verify_last_run_timestamp_seconds` | when a comparison was last completed, with any result |
//! | `citystream_verify_last_success_timestamp_seconds` | when a comparison last found no difference; before the first such comparison, the start of the role |

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::api::{ops, server};
use crate::exit::{Exit, refusal_of};
use crate::listen::{print_picked, warn_if_open};
use crate::settings::{Verify, show_ms};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, unix_ms};
use crate::verify::compare::{CompareSource, compare};
use crate::verify::{VerifyReport, options, print_report};

/// The metrics that only `verify --watch` exports.
pub(super) struct VerifyMetrics {
    difference_rows: IntGauge,
    not_comparable_rows: IntGauge,
    events: IntGaugeVec,
    runs: IntCounterVec,
    last_run: IntGauge,
    last_success: IntGauge,
}

impl VerifyMetrics {
    /// Registers the metrics. A process must not register the same metrics twice.
    pub(super) fn new(metrics: &Metrics) -> VerifyMetrics {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("constant name");
            metrics.add(Box::new(gauge.clone()));
            gauge
        };
        let events = Opts::new(
            "citystream_verify_events",
            "Events counted in the last comparison",
        );
        let runs = Opts::new("citystream_verify_runs_total", "Comparisons by outcome");
        let m = VerifyMetrics {
            difference_rows: gauge(
                "citystream_verify_difference_rows",
                "Rows that differed from the log in the last comparison",
            ),
            not_comparable_rows: gauge(
                "citystream_verify_not_comparable_rows",
                "Rows that the last comparison could not compare",
            ),
            events: IntGaugeVec::new(events, &["side"]).expect("constant name"),
            runs: IntCounterVec::new(runs, &["outcome"]).expect("constant name"),
            last_run: gauge(
                "citystream_verify_last_run_timestamp_seconds",
                "When a comparison was last completed",
            ),
            last_success: gauge(
                "citystream_verify_last_success_timestamp_seconds",
                "When a comparison last found no difference",
            ),
        };
        metrics.add(Box::new(m.events.clone()));
        metrics.add(Box::new(m.runs.clone()));
        for outcome in ["agree", "differ", "failed"] {
            m.runs.with_label_values(&[outcome]).inc_by(0);
        }
        // Until a comparison finds no difference, the metric shows the time at which the role started.
        m.last_success.set(unix_ms().0 / 1_000);
        m
    }

    fn failed(&self) {
        self.runs.with_label_values(&["failed"]).inc();
    }

    fn done(&self, report: &VerifyReport) {
        let outcome = if report.agrees() { "agree" } else { "differ" };
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let sums = report.events();
        self.difference_rows
            .set(gauge(report.outcome.difference_count));
        self.not_comparable_rows.set(gauge(report.incomparable()));
        self.events.with_label_values(&["log"]).set(sums.log);
        self.events.with_label_values(&["tables"]).set(sums.tables);
        self.runs.with_label_values(&[outcome]).inc();
        self.last_run.set(unix_ms().0 / 1_000);
        if report.agrees() {
            self.last_success.set(unix_ms().0 / 1_000);
        }
    }
}

/// The reason why the last comparison could not be completed, or `None` if the last comparison was completed.
#[derive(Debug, Default)]
struct WatchState(Mutex<Option<String>>);

impl WatchState {
    fn set(&self, failure: Option<String>) {
        *self.0.lock().expect("no panic holds the state") = failure;
    }
}

impl ops::Probe for WatchState {
    /// The health check always reports the role as alive, because a restart cannot repair the log or the tables.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        let state = self.0.lock().expect("no panic holds the state");
        state.clone().map_or(Ok(()), Err)
    }
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|error| refusal_of(error).is_some())
}

/// Compares repeatedly until `shutdown` is triggered.
///
/// # Errors
/// Returns an error if the port cannot be opened or the settings are wrong.
pub(crate) async fn watch(
    args: &Verify,
    source: &CompareSource,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> anyhow::Result<Exit> {
    let listener = server::bind(args.listen, "--listen").await?;
    let address = listener.local_addr().context("failed to read the port")?;
    print_picked("health and metrics", "http", args.listen, address);
    warn_if_open(address);
    let state = Arc::new(WatchState::default());
    state.set(Some("waiting for the first comparison".to_owned()));
    let probe = Arc::clone(&state) as Arc<dyn ops::Probe>;
    let own = VerifyMetrics::new(metrics);
    let router = ops::router(metrics.clone(), probe);
    let served = server::ServeOptions::without_login(&args.allowed_host);
    let http = tokio::spawn(server::serve(listener, router, served, shutdown.clone()));
    let pause = args.watch.unwrap_or_default();
    tracing::info!(%address, pause = show_ms(pause), "comparing log and tables");
    let pause = Duration::from_millis(pause.unsigned_abs());
    let read = Arc::new(AtomicU64::new(0));
    while !shutdown.is_triggered() {
        match compare(source, &options(args), metrics, &read, shutdown).await {
            Ok(None) => break,
            Ok(Some(report)) => {
                own.done(&report);
                state.set(None);
                print_report(&report, args.output, &mut io::stdout())?;
                if !report.agrees() {
                    let rows = report.outcome.difference_count;
                    tracing::error!(rows, "log and tables differ");
                }
            }
            // A broker that refuses this client now may accept the client later, so the role keeps trying.
            Err(error) if Exit::of(&error) == Exit::Settings && !is_refusal(&error) => {
                return Err(error);
            }
            Err(error) => {
                own.failed();
                tracing::warn!(error = format!("{error:#}"), "failed to compare");
                state.set(Some(format!("failed to compare: {error:#}")));
            }
        }
        tokio::select! {
            () = shutdown.wait() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    shutdown.trigger();
    http.await.context("failed to stop the HTTP server")?;
    Ok(Exit::Done)
}
