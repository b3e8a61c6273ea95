//! `citystream notify`: finds incidents in the log according to rules, and sends messages about incidents to receivers.

use std::sync::Arc;

use anyhow::Context as _;

use crate::api::{ops, server};
use crate::blocking::run_blocking;
use crate::cmd::connect_dynamodb;
use crate::exit::{Exit, SettingsError};
use crate::listen::{print_picked, warn_if_open};
use crate::notify::config::{NotifyConfig, SecretReading};
use crate::notify::status::NotifyStatus;
use crate::notify::{check_settings, dry_run, run_with, test_message};
use crate::service;
use crate::settings::Notify;
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::telemetry::Metrics;

/// Runs the role until its work is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which the role ended.
pub async fn run(args: Notify, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let secrets = if args.dry_run {
        SecretReading::Skip
    } else {
        SecretReading::Check
    };
    let config = NotifyConfig::load(&args.config, secrets).map_err(SettingsError)?;
    if args.dry_run {
        let work = move || dry_run::run(&args, &config.rules, &shutdown);
        return run_blocking(work).await.map(|()| Exit::Done);
    }
    if let Some(receiver) = &args.test {
        return test_message::run(config, receiver, args.link.as_deref()).await;
    }
    check_settings(&args)?;
    let listener = server::bind(args.listen, "--listen").await?;
    let address = listener.local_addr().context("failed to read the port")?;
    print_picked("health and metrics", "http", args.listen, address);
    warn_if_open(address);
    let status = Arc::new(NotifyStatus::default());
    let probe = Arc::clone(&status) as Arc<dyn ops::Probe>;
    let router = ops::router(metrics.clone(), Arc::clone(&probe));
    let http_stop = Shutdown::default();
    let served = server::ServeOptions::without_login(&args.allowed_host);
    let http = tokio::spawn(server::serve(listener, router, served, http_stop.clone()));
    let client = connect_dynamodb(ConnectOptions {
        attempts: 1,
        clock_skew: Some(metrics.clock_skew_seconds.clone()),
        answers_refused: Some(metrics.answers_refused.clone()),
        ..ConnectOptions::default()
    })
    .await?;
    let _service = service::start(probe, metrics.clone(), shutdown.clone());
    let role = async move { run_with(&args, config, client, metrics, status, shutdown).await };
    let result = tokio::spawn(role).await.context("the role panicked")?;
    http_stop.trigger();
    http.await.context("failed to stop the HTTP server")?;
    result
}
