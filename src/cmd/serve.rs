//! `citystream serve`: runs the REST API with its dashboard, `/livez`, `/readyz` and `/metrics`.
//!
//! The role opens its port first, and starts even if DynamoDB does not answer. While DynamoDB or the tables are
//! missing, the role answers with status 503, and `/readyz` gives the reason.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::http::HeaderValue;

use crate::access::{check_address, load_certificate, rules, server_options};
use crate::api::access::{Access, guarded};
use crate::api::ops::{self, Probe};
use crate::api::{self, ApiState, server};
use crate::cmd::connect_dynamodb;
use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::serve::tables_probe::TablesProbe;
use crate::service;
use crate::settings::Serve;
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::store::reads::{DynamoReads, Reads};
use crate::telemetry::{self, Metrics};

/// Runs the role until `shutdown` is triggered.
///
/// # Errors
/// Returns an error if the port cannot be opened (exit code 1) or if a setting cannot be used (exit code 2).
pub async fn run(args: Serve, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    crate::sys::raise_open_files();
    let certificate = load_certificate(&args.access)?;
    check_address(&args.access, args.bind, format!("--bind {}", args.bind))?;
    let access = Access {
        origins: origins(&args.cors_origin)?,
        ..rules(&args.access, args.bind)?
    };
    let listener = server::bind(SocketAddr::new(args.bind, args.port), "--port").await?;
    let address = listener.local_addr().context("failed to read the port")?;
    let client = connect_dynamodb(ConnectOptions {
        clock_skew: Some(metrics.clock_skew_seconds.clone()),
        answers_refused: Some(metrics.answers_refused.clone()),
        ..ConnectOptions::default()
    })
    .await?;
    let names = TableNames::new(&args.tables.table_prefix);
    let reads: Arc<dyn Reads> = Arc::new(DynamoReads::new(
        client.clone(),
        names.clone(),
        metrics.clone(),
    ));

    let tables = Arc::new(TablesProbe::new(client, names));
    let watch = tokio::spawn(Arc::clone(&tables).watch(Arc::clone(&reads), shutdown.clone()));
    let probe = tables as Arc<dyn Probe>;
    let state = ApiState::new(reads, metrics.clone())
        .with_shutdown(shutdown.clone())
        .with_read_budget(args.read_budget);
    let router = api::router(state)
        .merge(ops::router(metrics.clone(), Arc::clone(&probe)))
        .merge(ops::actuator(metrics.clone(), Arc::clone(&probe)));
    let router = guarded(router, access, &metrics, &shutdown);
    if let Some(certificate) = &certificate {
        tokio::spawn(Arc::clone(certificate).watch(shutdown.clone()));
    }
    let _service = service::start(probe, metrics, shutdown.clone());
    let scheme = certificate.as_ref().map_or("http", |_| "https");
    tracing::info!(%address, scheme, "serving the API");
    if args.port == 0 {
        telemetry::print_stdout(&format!("API and dashboard: {scheme}://{address}\n"));
    }
    let options = server_options(&args.access, certificate);
    server::serve(listener, router, options, shutdown).await;
    watch.abort();
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Returns the values of `--cors-origin` as browsers send them in the header `Origin`.
fn origins(given: &[String]) -> Result<Vec<HeaderValue>, SettingsError> {
    let parse = |origin: &String| {
        HeaderValue::from_str(origin)
            .map_err(|_| SettingsError::new(format!("--cors-origin {origin} is not an origin")))
    };
    given.iter().map(parse).collect()
}
