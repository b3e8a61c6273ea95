//! `citystream serve`: the REST API, with `/livez`, `/readyz` and `/metrics`.
//!
//! It opens its port first and needs nothing else to start: while DynamoDB or the tables are missing
//! it answers 503, `/readyz` says what it waits for, and it goes on by itself when they are there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use axum::http::HeaderValue;

use crate::api::access::{Access, ClientRate, Tokens, guarded};
use crate::api::ops::{self, Probe};
use crate::api::server::{Hosts, ServeOptions};
use crate::api::state::public_reason;
use crate::api::tls::Certificate;
use crate::api::{ApiState, server};
use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::settings::{AccessArgs, Serve, warn_if_others_can_read};
use crate::shutdown::Shutdown;
use crate::store::client::{ConnectOptions, connect};
use crate::store::config::read_config;
use crate::store::error::{Kind, StoreError};
use crate::store::former;
use crate::store::reads::{DynamoReads, Reads};
use crate::store::rights::User;
use crate::telemetry::{self, Metrics};
use crate::{failure, service};

/// Time between two looks at the tables: half a read unit each.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for one look.
const LOOK_MAX: Duration = Duration::from_secs(4);

/// Runs the role until `shutdown` is triggered.
///
/// # Errors
/// If the port cannot be opened (exit 1) or no region is set (exit 2).
pub async fn run(args: Serve, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    crate::sys::raise_open_files();
    let certificate = certificate(&args.access)?;
    let access = access(&args)?;
    let listener = server::bind(SocketAddr::new(args.bind, args.port), "--port").await?;
    let address = listener
        .local_addr()
        .context("failed to read the own address")?;
    let client = connect(ConnectOptions {
        clock_skew: Some(metrics.clock_skew_seconds.clone()),
        answers_refused: Some(metrics.answers_refused.clone()),
        ..ConnectOptions::default()
    })
    .await
    .map_err(|error| match error.kind() {
        Kind::Settings => SettingsError(error.to_string()).into(),
        _ => anyhow::Error::new(error),
    })
    .context("failed to set up the connection to DynamoDB")?;
    let names = TableNames::new(&args.tables.table_prefix);
    let reads: Arc<dyn Reads> = Arc::new(DynamoReads::new(
        client.clone(),
        names.clone(),
        metrics.clone(),
    ));

    let readiness = Arc::new(Readiness::of(client, names));
    let watch = tokio::spawn(Arc::clone(&readiness).watch(Arc::clone(&reads), shutdown.clone()));
    let (probe, told) = (Arc::clone(&readiness) as Arc<dyn Probe>, metrics.clone());
    let state = ApiState::new(reads, metrics.clone())
        .with_shutdown(shutdown.clone())
        .with_read_budget(args.access.read_budget);
    let actuator = ops::actuator(metrics.clone(), Arc::clone(&probe));
    let router = crate::api::router(state)
        .merge(ops::router(metrics.clone(), readiness))
        .merge(actuator);
    let router = guarded(router, access, &metrics, &shutdown);
    if let Some(certificate) = &certificate {
        tokio::spawn(Arc::clone(certificate).watch(shutdown.clone()));
    }
    let _service = service::start(probe, told, shutdown.clone());
    let scheme = certificate.as_ref().map_or("http", |_| "https");
    announce(scheme, address, args.port == 0);
    let options = ServeOptions {
        connections_max: usize::try_from(args.access.max_connections).unwrap_or(usize::MAX),
        tls: certificate.map(Certificate::acceptor),
        access_log: args.access.access_log,
        client_connections_max: args
            .access
            .max_client_connections
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        hosts: hosts(&args),
        ..ServeOptions::default()
    };
    server::serve(listener, router, options, shutdown).await;
    watch.abort();
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Tells where the API is: in the log, and on standard output if the port was picked.
fn announce(scheme: &str, address: SocketAddr, picked: bool) {
    tracing::info!(%address, scheme, "serving the API");
    if picked {
        telemetry::show(&format!("API and dashboard: {scheme}://{address}\n"));
    }
}

/// Returns by which names clients may ask: where it is neither by a token nor left to everybody.
fn hosts(args: &Serve) -> Option<Hosts> {
    let rules = &args.access;
    let is_checked = rules.auth_token_file.is_none() && !rules.allow_anonymous;
    is_checked.then(|| Hosts::new(&rules.allowed_host))
}

fn certificate(args: &AccessArgs) -> Result<Option<Arc<Certificate>>, SettingsError> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    warn_if_others_can_read("--tls-key", key);
    let loaded = Certificate::load(cert, key);
    let loaded =
        loaded.map_err(|error| SettingsError(format!("--tls-cert, --tls-key: {error}")))?;
    Ok(Some(Arc::new(loaded)))
}

/// Returns who may ask; nobody but this host may, unless somebody said who else.
fn access(args: &Serve) -> Result<Access, SettingsError> {
    let rules = &args.access;
    if !args.bind.is_loopback() && rules.auth_token_file.is_none() && !rules.allow_anonymous {
        return Err(SettingsError(format!(
            "--bind {}: other hosts could ask there without a login; give --auth-token-file, or \
             --allow-anonymous if that is meant",
            args.bind
        )));
    }
    let tokens = match &rules.auth_token_file {
        Some(path) => {
            warn_if_others_can_read("--auth-token-file", path);
            let tokens = Tokens::load(path);
            Some(tokens.map_err(|e| SettingsError(format!("--auth-token-file: {e}")))?)
        }
        None => None,
    };
    if tokens.is_some() && !args.bind.is_loopback() && rules.tls_cert.is_none() {
        tracing::warn!(
            "tokens travel unencrypted; give --tls-cert and --tls-key, or put a proxy with TLS in front"
        );
    }
    let origins = rules.cors_origin.iter().map(|origin| {
        HeaderValue::from_str(origin)
            .map_err(|_| SettingsError(format!("--cors-origin {origin}: not an origin")))
    });
    Ok(Access {
        tokens,
        rate: rules.rate_limit.map(ClientRate::new),
        origins: origins.collect::<Result<_, _>>()?,
    })
}

/// Whether the tables can be read, as of the last look.
pub struct Readiness {
    state: Mutex<Result<(), String>>,
    tables: Option<(Client, TableNames)>,
}

impl Readiness {
    /// Returns a readiness that waits for its first look.
    pub fn new() -> Readiness {
        Readiness {
            state: Mutex::new(Err("waiting for DynamoDB".to_owned())),
            tables: None,
        }
    }

    /// Returns the same, able to tell tables of the former system from none.
    fn of(client: Client, names: TableNames) -> Readiness {
        Readiness {
            tables: Some((client, names)),
            ..Readiness::new()
        }
    }

    /// Tells whether a table of windows is there without totals.
    async fn is_former(&self, state: &Result<(), StoreError>) -> bool {
        let (Err(error), Some((client, names))) = (state, &self.tables) else {
            return false;
        };
        error.kind() == Kind::NotFound
            && matches!(read_config(client, names).await, Err(error) if error.kind() == Kind::NotFound)
            && former::has_windows(client, names, User::Serve).await
    }

    /// Looks at the tables until `shutdown`; logs each change once.
    pub async fn watch(self: Arc<Readiness>, reads: Arc<dyn Reads>, shutdown: Shutdown) {
        loop {
            let state = match tokio::time::timeout(LOOK_MAX, reads.ping()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_elapsed) => Err(StoreError::Waited {
                    what: "DynamoDB".to_owned(),
                    seconds: LOOK_MAX.as_secs(),
                }),
            };
            let former = self.is_former(&state).await;
            self.set(state, former);
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn set(&self, state: Result<(), StoreError>, former: bool) {
        let public = match &state {
            Ok(()) => Ok(()),
            Err(_) if former => {
                Err("waiting: there is a table of windows and none of totals".to_owned())
            }
            Err(error) => Err(format!("waiting: {}", public_reason(error))),
        };
        let mut held = self.state.lock().expect("no panic holds the state");
        if *held != public {
            match &state {
                Ok(()) => tracing::info!("the tables can be read"),
                Err(error) => {
                    let todo = if former {
                        Some(former::REMEDY)
                    } else {
                        failure::of_store(error)
                    };
                    tracing::warn!(%error, todo, "waiting for the tables");
                }
            }
            *held = public;
        }
    }
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness::new()
    }
}

impl Probe for Readiness {
    /// Always: a restart brings no table back.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.state.lock().expect("no panic holds the state").clone()
    }
}
