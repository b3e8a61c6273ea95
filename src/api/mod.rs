//! The HTTP server of every role, the routes for health and metrics, and the REST API of `serve`.
//!
//! [`server`] accepts connections and limits the resources of each client ([`shares`], [`paced`]). [`connection`]
//! drives each connection, over [`tls`] if the operator has configured a certificate. [`handler`] answers each request.
//! [`heads`] checks the head of each request, and [`access`] checks the token and the request rate of the client.
//! [`ops`] answers `/livez`, `/readyz` and `/metrics`. [`error`] defines the body of every error. [`observe`] counts
//! requests.
//!
//! [`router`] returns the REST API, and [`ApiState`] is the state of its handlers. Each resource of the REST API has
//! its own source file, and all these files have the same structure. [`params`] checks the parameters strictly.
//! [`state`] computes a response once for all equal requests within a second. A [`cursor`] marks where the next page of
//! a list starts. Handlers read the tables only through [`crate::store::reads::Reads`].

pub mod access;
mod aggregations;
mod alerts;
mod budget;
mod cities;
mod conditional;
mod connection;
pub mod cursor;
pub mod dashboard;
pub mod error;
mod events;
mod export;
mod feed;
mod handler;
mod heads;
mod health;
mod incidents;
pub mod observe;
pub mod openapi;
pub mod ops;
mod paced;
pub mod params;
mod reload;
mod rollup_cache;
mod schemas;
pub mod server;
mod shares;
mod silences;
mod spent;
pub mod state;
mod stats;
mod stream;
mod summary;
mod timeline;
pub mod tls;
mod tokens;
mod totals;
mod usage;
mod window_cache;
mod write_timeout;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use tower_http::compression::CompressionLayer;

pub(crate) use self::incidents::ListedIncident;
pub use self::state::ApiState;

/// Returns the routes of the REST API and the page at `/`.
///
/// The caller merges the returned router with [`ops::router`], which contains the routes for the operator.
pub fn router(state: ApiState) -> Router {
    let (metrics, dashboard) = (state.metrics().clone(), state.dashboard().clone());
    let budget = state.read_budget();
    let router = Router::new()
        .route(health::PATH, get(health::get))
        .route(events::PATH, get(events::get))
        .route(summary::PATH, get(summary::get))
        .route(alerts::PATH, get(alerts::get))
        .route(incidents::PATH, get(incidents::get))
        .route(silences::PATH, get(silences::get))
        .route(cities::PATH, get(cities::get))
        .route(aggregations::PATH, get(aggregations::get))
        .route(stats::PATH, get(stats::get))
        .route(timeline::PATH, get(timeline::get))
        .route(stream::PATH, get(stream::get))
        .route(openapi::PATH, get(openapi::get))
        .with_state(state)
        .merge(dashboard::router(dashboard))
        .layer(from_fn(conditional::conditional))
        .layer(CompressionLayer::new());
    let router = match budget {
        Some(budget) => router.layer(from_fn(move |request: Request, next: Next| {
            budget.clone().charge(request, next)
        })),
        None => router,
    };
    observe::observed(router, metrics)
}

#[cfg(test)]
mod tests;
