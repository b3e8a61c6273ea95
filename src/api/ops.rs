//! The operator's routes of every role: `/livez`, `/readyz` and `/metrics`. The routes `/actuator/health` and
//! `/actuator/info` serve probes that were made for Spring Boot.
//!
//! `/livez` and `/readyz` report different things. A role is alive unless a restart would help. A role is ready if it
//! can do its work now. If a dependency is down, a role is alive but not ready. `/livez` and `/readyz` answer with
//! status 200 and `ok`, or with status 503 and the reason as plain text. `/livez` and `/readyz` answer immediately,
//! because a [`Probe`] only reads memory.

use std::sync::Arc;

use axum::http::HeaderName;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::api::observe::observed;
use crate::telemetry::Metrics;

/// The content type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// Reports whether a role is alive and whether it is ready. Both methods must return without waiting.
pub trait Probe: Send + Sync + 'static {
    /// Returns `Ok` if the role is alive.
    ///
    /// # Errors
    /// Returns a sentence for the operator that explains why a restart would help.
    fn live(&self) -> Result<(), String>;

    /// Returns `Ok` if the role can do its work now.
    ///
    /// # Errors
    /// Returns a sentence for the operator that names what the role waits for.
    fn ready(&self) -> Result<(), String>;
}

/// Returns the routes `GET /actuator/health` and `GET /actuator/info`, for the roles that replace a
/// Spring Boot service.
pub fn actuator(metrics: Metrics, probe: Arc<dyn Probe>) -> Router {
    let router = Router::new()
        .route(
            "/actuator/health",
            get(async move || {
                let (status, word) = match probe.ready() {
                    Ok(()) => (StatusCode::OK, "UP"),
                    Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "DOWN"),
                };
                (status, NO_STORE, Json(json!({ "status": word })))
            }),
        )
        .route("/actuator/info", get(async || (NO_STORE, Json(json!({})))));
    observed(router, metrics)
}

/// Returns an HTTP response with all metrics.
pub fn rendered(metrics: &Metrics) -> Response {
    let kind = [(CONTENT_TYPE, PROMETHEUS_TEXT)];
    (kind, NO_STORE, metrics.render()).into_response()
}

/// Returns the routes `GET /livez`, `GET /readyz` and `GET /metrics`.
pub fn router(metrics: Metrics, probe: Arc<dyn Probe>) -> Router {
    let (live, ready, all) = (Arc::clone(&probe), probe, metrics.clone());
    let router = Router::new()
        .route("/livez", get(async move || answer_probe(live.live())))
        .route("/readyz", get(async move || answer_probe(ready.ready())))
        .route("/metrics", get(async move || rendered(&all)));
    observed(router, metrics)
}

fn answer_probe(state: Result<(), String>) -> Response {
    let (status, text) = match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    (status, NO_STORE, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    struct Fixed(Result<(), String>, Result<(), String>);

    impl Probe for Fixed {
        fn live(&self) -> Result<(), String> {
            self.0.clone()
        }
        fn ready(&self) -> Result<(), String> {
            self.1.clone()
        }
    }

    async fn get(router: &Router, path: &str) -> (u16, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.map_or("", |v| v.to_str().unwrap()).to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alive_and_ready_are_separate_answers() {
        let probe = Fixed(Ok(()), Err("waiting for the tables".into()));
        let router = router(Metrics::new(), Arc::new(probe));
        assert_eq!(get(&router, "/livez").await.0, 200);
        let (status, _, text) = get(&router, "/readyz").await;
        assert_eq!((status, text.as_str()), (503, "waiting for the tables\n"));
        let (status, kind, text) = get(&router, "/metrics").await;
        assert_eq!((status, kind.as_str()), (200, PROMETHEUS_TEXT));
        let counted = "citystream_http_requests_total{route=\"/readyz\",status=\"503\"} 1";
        assert!(text.contains(counted), "{text}");
        let (status, kind, _) = get(&router, "/nothing").await;
        assert_eq!((status, kind.as_str()), (404, "application/json"));
    }

    #[tokio::test]
    async fn spring_boot_probes_find_their_paths() {
        let ready = |state| actuator(Metrics::new(), Arc::new(Fixed(Ok(()), state)));
        let up = get(&ready(Ok(())), "/actuator/health").await;
        assert_eq!((up.0, up.2.as_str()), (200, r#"{"status":"UP"}"#));
        let down = get(&ready(Err("no Kafka".into())), "/actuator/health").await;
        assert_eq!((down.0, down.2.as_str()), (503, r#"{"status":"DOWN"}"#));
        let info = get(&ready(Ok(())), "/actuator/info").await;
        assert_eq!((info.0, info.2.as_str()), (200, "{}"));
    }

    #[tokio::test]
    async fn options_lists_the_methods_of_a_path() {
        let router = router(Metrics::new(), Arc::new(Fixed(Ok(()), Ok(()))));
        let ask = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path);
            let request = request.body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let allow = response.headers().get("allow");
            let allow = allow.map_or("", |value| value.to_str().unwrap()).to_owned();
            (response.status().as_u16(), allow)
        };
        assert_eq!(ask("OPTIONS", "/livez").await, (200, "GET,HEAD".to_owned()));
        assert_eq!(ask("POST", "/livez").await, (405, "GET,HEAD".to_owned()));
        assert_eq!(ask("OPTIONS", "/nothing").await.0, 404);
    }
}
