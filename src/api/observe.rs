//! Counts and times every request by its matched route, never by its raw path, so that the label set
//! stays closed whatever clients ask for. Also where a router's bare 404 and 405 get their shape, and
//! where `OPTIONS` gets an answer.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

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
            let asks_methods = request.method() == Method::OPTIONS;
            let response = next.run(request).await;
            let response = if asks_methods {
                methods(response)
            } else {
                shaped(response)
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

/// Answers `OPTIONS` of a path that exists with 200. The router's own answer is 405; outside of this layer it
/// adds to either which methods the path takes.
fn methods(refusal: Response) -> Response {
    if refusal.status() == StatusCode::METHOD_NOT_ALLOWED {
        Response::new(Body::empty())
    } else {
        shaped(refusal)
    }
}
