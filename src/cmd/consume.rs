//! `citystream consume`: opens the port for health and metrics, connects, and runs the pipeline.

use std::sync::Arc;

use anyhow::Context as _;

use crate::api::{ops, server};
use crate::cmd::connect_dynamodb;
use crate::consume::{ConsumeStatus, Host, RollupPace, check_settings, progress, run_with};
use crate::core::stall::PATIENCE_MS;
use crate::exit::Exit;
use crate::listen::{print_picked, warn_if_open};
use crate::service;
use crate::settings::{Consume, LogFormat};
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::telemetry::{Metrics, can_draw};

/// Runs the role until its work is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which the role ended.
pub async fn run(args: Consume, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let listener = server::bind(args.listen, "--listen").await?;
    let address = listener.local_addr().context("failed to read the port")?;
    print_picked("health and metrics", "http", args.listen, address);
    warn_if_open(address);
    let status = Arc::new(ConsumeStatus::default());
    let router = ops::router(metrics.clone(), Arc::clone(&status) as Arc<dyn ops::Probe>);
    let http_stop = Shutdown::default();
    let served = server::ServeOptions::without_login(&args.allowed_host);
    let http = tokio::spawn(server::serve(listener, router, served, http_stop.clone()));
    // Only librdkafka can check some of the Kafka settings. The role lets librdkafka check the settings before the role
    // reports that it is ready.
    check_settings(&args)?;
    let client = connect_dynamodb(ConnectOptions {
        attempts: 1,
        clock_skew: Some(metrics.clock_skew_seconds.clone()),
        answers_refused: Some(metrics.answers_refused.clone()),
        ..ConnectOptions::default()
    })
    .await?;
    let probe = Arc::clone(&status) as Arc<dyn ops::Probe>;
    let _service = service::start(probe, metrics.clone(), shutdown.clone());
    let shown_status = Arc::clone(&status);
    let host = Host {
        metrics,
        status,
        settled: None,
        producer_time_is_fine: false,
        stall_ms: PATIENCE_MS,
        rollups: Some(RollupPace::PACED),
    };
    let shows_progress = args.stop_at_end
        && args.log.log_format != Some(LogFormat::Json)
        && can_draw(&std::io::stderr());
    let shown = shows_progress.then(|| progress::show(shown_status));
    // The pipeline runs in its own Tokio task. If the pipeline ran in the main task, each answer to a request would
    // wake the main thread. Waking the main thread costs more than handling the answer.
    let result = tokio::spawn(run_with(args, client, host, shutdown))
        .await
        .context("the consumer panicked")?;
    drop(shown);
    http_stop.trigger();
    http.await.context("failed to stop the HTTP server")?;
    result
}
