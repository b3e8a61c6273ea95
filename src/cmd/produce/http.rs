//! What `produce` answers over HTTP beside the routes of every role.
//!
//! `GET /health` and `GET /metrics/producer` keep the shapes of the producer that this one replaces.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::api::observe::observed;
use crate::api::ops::{self, Probe};
use crate::core::time::format_millis;
use crate::kafka::tally::Tally;
use crate::telemetry::Metrics;
use crate::telemetry::unix_ms;

struct Producing(Arc<Tally>);

impl Probe for Producing {
    /// A restart never helps: whatever is wrong with Kafka, librdkafka tries again by itself.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.0.flowing()
    }
}

/// Returns how the role answers for itself.
pub(super) fn probe(tally: Arc<Tally>) -> Arc<dyn Probe> {
    Arc::new(Producing(tally))
}

/// Returns the routes `/health`, `/metrics/producer`, `/livez`, `/readyz` and `/metrics`.
pub(super) fn router(metrics: Metrics, tally: Arc<Tally>) -> Router {
    let (healthy, figures) = (Arc::clone(&tally), Arc::clone(&tally));
    let own = Router::new()
        .route("/health", get(async move || health(&healthy)))
        .route("/metrics/producer", get(async move || producer(&figures)));
    ops::router(metrics.clone(), Arc::new(Producing(tally))).merge(observed(own, metrics))
}

/// `{"status":"UP","timestamp","service"}`; 503, `"DOWN"` and a `reason` while nothing flows.
fn health(tally: &Tally) -> Response {
    let (status, name, reason) = match tally.flowing() {
        Ok(()) => (StatusCode::OK, "UP", None),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "DOWN", Some(reason)),
    };
    let mut body = json!({
        "status": name,
        "timestamp": format_millis(unix_ms()),
        "service": "CityStream Producer",
    });
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// `successRate` is in percent of the events whose fate is known, 0 while none is; latencies run
/// from handing over to acknowledgement.
#[allow(clippy::cast_precision_loss)]
fn producer(tally: &Tally) -> Response {
    let counts = tally.counts();
    let settled = counts.acked + counts.failed;
    let rate = if settled == 0 {
        0.0
    } else {
        100.0 * counts.acked as f64 / settled as f64
    };
    let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let body = json!({
        "totalEvents": counts.sent,
        "successCount": counts.acked,
        "failureCount": counts.failed,
        "successRate": rounded(rate),
        "avgLatencyMs": rounded(counts.latency.mean_us / 1_000.0),
        "minLatencyMs": rounded(counts.latency.min_us as f64 / 1_000.0),
        "maxLatencyMs": rounded(counts.latency.max_us as f64 / 1_000.0),
        "eventsPerSecond": rounded(counts.per_second()),
        "uptimeSeconds": counts.uptime.as_secs(),
    });
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
