//! Counts each HTTP request and measures its duration.
//!
//! The metrics contain the matched route of a request and never its raw path, so that clients cannot create new label
//! values. The layer that counts requests also answers `OPTIONS` requests, and adds an error body to empty responses
//! with status 404 or 405.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

use crate::api::error::with_error_body;
use crate::telemetry::Metrics;

/// The metric label of requests that match no route.
pub const UNMATCHED: &str = "unmatched";

/// Updates `citystream_http_requests_total{route,status}` and `citystream_http_request_seconds{route}` for each
/// request of `router`.
///
/// The layer counts only requests to routes that `router` already has. Even if the router is merged with another
/// router, each request is counted only once.
pub fn observed(router: Router, metrics: Metrics) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let metrics = metrics.clone();
        async move {
            let matched = request.extensions().get::<MatchedPath>().cloned();
            let started = Instant::now();
            let is_options = request.method() == Method::OPTIONS;
            let response = next.run(request).await;
            let response = if is_options {
                answer_options(response)
            } else {
                with_error_body(response)
            };
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

/// Answers an `OPTIONS` request on an existing path with status 200 instead of the router's status 405. The router
/// itself adds the header `Allow` to the response afterwards.
fn answer_options(refusal: Response) -> Response {
    if refusal.status() == StatusCode::METHOD_NOT_ALLOWED {
        Response::new(Body::empty())
    } else {
        with_error_body(refusal)
    }
}
