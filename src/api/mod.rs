//! HTTP: the accept loop, health and metrics of every role, and the REST API of `serve`.
//!
//! [`server`] accepts connections and bounds what one client can take ([`shares`], [`paced`]), each in
//! [`connection`], over [`tls`] if asked to; [`heads`] judges the head of a request; [`access`] decides who may ask; [`ops`] answers `/livez`,
//! `/readyz` and `/metrics`; [`error`] is the one shape of every error; [`observe`] counts requests.
//!
//! The API is [`router`] over an [`ApiState`]. Each resource has its file, all alike: parameters are
//! checked strictly ([`params`]), the answer is read and rendered once for everybody who asks within
//! a second ([`state`]), lists go on by an opaque [`cursor`]. Handlers know the tables only through
//! [`crate::store::reads::Reads`].

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
mod heads;
mod health;
pub mod observe;
pub mod openapi;
pub mod ops;
mod paced;
pub mod params;
mod reload;
pub mod server;
mod shares;
mod spent;
mod write_timeout;
pub mod state;
mod stats;
mod stream;
mod summary;
mod timeline;
pub mod tls;
mod totals;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use tower_http::compression::CompressionLayer;

pub use self::state::ApiState;

/// Returns the routes of the REST API and the page at `/`.
///
/// Merge it with [`ops::router`] for the operator's routes.
pub fn router(state: ApiState) -> Router {
    let (metrics, dashboard) = (state.metrics().clone(), state.dashboard().clone());
    let budget = state.read_budget();
    let router = Router::new()
        .route(health::PATH, get(health::get))
        .route(events::PATH, get(events::get))
        .route(summary::PATH, get(summary::get))
        .route(alerts::PATH, get(alerts::get))
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
