//! Counts and times every request by its matched route, never by its raw path, so that the label set
//! stays closed whatever clients ask for. Also where a router's bare 404 and 405 get their shape.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};

use crate::api::error::shaped;
use crate::telemetry::Metrics;

/// The label of requests that no route matched.
pub const UNMATCHED: &str = "unmatched";

/// Returns the router with `citystream_http_requests_total{route,status}` and
/// `citystream_http_request_seconds{route}` counted for each request it takes.
///
/// Routes added afterwards are not counted, so that merged routers count each request once.
pub fn observed(router: Router, metrics: Metrics) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let metrics = metrics.clone();
        async move {
            let matched = request.extensions().get::<MatchedPath>().cloned();
            let started = Instant::now();
            let response = shaped(next.run(request).await);
            let route = matched.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
            let status = response.status();
            metrics
                .http_requests
                .with_label_values(&[route, status.as_str()])
                .inc();
            metrics
                .http_seconds
                .with_label_values(&[route])
                .observe(started.elapsed().as_secs_f64());
            response
        }
    }))
}
