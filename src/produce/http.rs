//! The HTTP routes that only the role `produce` has.
//!
//! `GET /health`, `GET /metrics/producer` and `GET /actuator/…` answer in the same format as the former producer, which
//! citystream replaces.

use std::sync::Arc;

use axum::http::header::{ACCEPT, CACHE_CONTROL};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::api::observe::observed;
use crate::api::ops::{self, Probe};
use crate::core::time::format_millis;
use crate::produce::deliveries::Deliveries;
use crate::telemetry::{Metrics, unix_ms};

struct ProducerProbe(Arc<Deliveries>);

impl Probe for ProducerProbe {
    /// The `produce` role always counts as alive. A restart of the role would not help, because librdkafka reconnects
    /// on its own.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.0.check_flow()
    }
}

/// Returns the probe that `/livez` and `/readyz` use.
pub(crate) fn probe(deliveries: Arc<Deliveries>) -> Arc<dyn Probe> {
    Arc::new(ProducerProbe(deliveries))
}

/// Returns the routes `/health`, `/metrics/producer`, `/actuator/…`, `/livez`, `/readyz` and `/metrics`.
pub(crate) fn router(metrics: Metrics, deliveries: Arc<Deliveries>) -> Router {
    let (healthy, figures) = (Arc::clone(&deliveries), Arc::clone(&deliveries));
    let (scraped, named) = (metrics.clone(), metrics.clone());
    let own = Router::new()
        .route(
            "/health",
            get(async move |headers: HeaderMap| health(&healthy, &headers)),
        )
        .route("/metrics/producer", get(async move || producer(&figures)))
        .route(
            "/actuator/prometheus",
            get(async move || ops::rendered(&scraped)),
        )
        .route("/actuator/metrics", get(async move || names(&named)));
    let probe = probe(deliveries);
    ops::router(metrics.clone(), Arc::clone(&probe))
        .merge(ops::actuator(metrics.clone(), probe))
        .merge(observed(own, metrics))
}

/// Answers with the object `{"names":[…]}`, which lists the names of all metrics in sorted order.
fn names(metrics: &Metrics) -> Response {
    let body = json!({ "names": metrics.names() });
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Returns true if a client accepts JSON but not plain text.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted: Vec<&str> = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or("").trim())
        .collect();
    let json = |kind: &str| kind == "application/json" || kind.ends_with("+json");
    accepted.iter().any(|kind| json(kind))
        && !accepted
            .iter()
            .any(|kind| ["*/*", "text/*", "text/plain", "text/html"].contains(kind))
}

/// Answers with the text `Producer is healthy`. If events do not reach Kafka, the response has status 503 and states
/// the reason.
///
/// A client that accepts only JSON gets an object with the fields `status`, `timestamp` and `service`. The field
/// `status` is `UP` if events reach Kafka. If events do not reach Kafka, the field `status` is `DOWN`, and the object
/// also has a field `reason`.
fn health(deliveries: &Deliveries, headers: &HeaderMap) -> Response {
    let (status, name, reason) = match deliveries.check_flow() {
        Ok(()) => (StatusCode::OK, "UP", None),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "DOWN", Some(reason)),
    };
    if !wants_json(headers) {
        let text = match reason {
            None => "Producer is healthy".to_owned(),
            Some(reason) => format!("Producer is not healthy: {reason}"),
        };
        return (status, [(CACHE_CONTROL, "no-store")], text).into_response();
    }
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

/// Answers `GET /metrics/producer` with the counts and latencies of the producer. `successRate` is the percentage of
/// acknowledged events among all acknowledged and failed events, or 0 if there are no such events. A latency is the
/// time from the sending of an event to its acknowledgement.
#[allow(clippy::cast_precision_loss)]
fn producer(deliveries: &Deliveries) -> Response {
    let counts = deliveries.counts();
    let settled = counts.acknowledged + counts.failed;
    let rate = if settled == 0 {
        0.0
    } else {
        100.0 * counts.acknowledged as f64 / settled as f64
    };
    let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let body = json!({
        "totalEvents": counts.sent,
        "successCount": counts.acknowledged,
        "failureCount": counts.failed,
        "successRate": rounded(rate),
        "avgLatencyMs": rounded(counts.latency.mean_us / 1_000.0),
        "minLatencyMs": counts.latency.min_us / 1_000,
        "maxLatencyMs": counts.latency.max_us / 1_000,
        "eventsPerSecond": rounded(counts.per_second()),
        "uptimeSeconds": counts.uptime.as_secs(),
    });
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_accepts_nothing_but_json_gets_json() {
        for (accept, json) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain"), false),
            (Some("application/json"), true),
            (Some("application/json; charset=utf-8"), true),
            (Some("application/vnd.spring-boot.actuator.v3+json"), true),
            (Some("application/json, */*;q=0.8"), false),
            (Some("text/html,application/json"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, accept.parse().expect("a header"));
            }
            assert_eq!(wants_json(&headers), json, "{accept:?}");
        }
    }
}
