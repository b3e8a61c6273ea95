//! The route `POST /api/v1/events`, its metrics and its description in OpenAPI.

use std::sync::LazyLock;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::api::error::ApiError;
use crate::api::observe::observed;
use crate::api::openapi::{self, ErrorBody};
use crate::api::params::Params;
use crate::api::server::ByteShare;
use crate::blocking::run_blocking;
use crate::produce::accept::answer::{Accepted, LineResult};
use crate::produce::accept::headers::check_headers;
use crate::produce::accept::receive::receive;
use crate::produce::accept::{BODY_MAX, EventDoor, PATH};
use crate::telemetry::unix_ms;

impl EventDoor {
    /// Returns the router of `POST /api/v1/events`.
    pub(crate) fn router(&self) -> Router {
        let router = Router::new()
            .route(PATH, post(take_events))
            .with_state(self.clone());
        observed(router, self.0.metrics.clone())
    }

    /// Returns the route `GET /openapi.json`, which describes the server of `produce`.
    pub(crate) fn description(&self) -> Router {
        let headers = [
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "no-cache"),
        ];
        let answer = async move || (headers, Bytes::from_static(DOCUMENT.as_bytes()));
        let router = Router::new().route("/openapi.json", get(answer));
        observed(router, self.0.metrics.clone())
    }

    /// Answers one request to `POST /api/v1/events`.
    ///
    /// # Errors
    /// Returns an error if no event of the request was sent.
    async fn answer(&self, request: Request) -> Result<Response, ApiError> {
        let is_verbose = is_verbose(request.uri())?;
        let authority = request.uri().authority().map(ToString::to_string);
        let kind = check_headers(request.headers(), authority.as_deref())?;
        let share = request.extensions().get::<ByteShare>().cloned();
        let share = share.ok_or_else(|| ApiError::internal("the request has no share"))?;
        let received = async {
            let receiving = receive(request.into_body(), kind.is_gzip, &share);
            tokio::time::timeout(BODY_MAX, receiving).await
        };
        let body = tokio::select! {
            () = self.0.shutdown.wait() => return Err(ApiError::stopping()),
            received = received => received.map_err(|_elapsed| ApiError::body_too_slow())??,
        };
        let (door, arrival_ms) = (self.clone(), unix_ms());
        let sent = run_blocking(move || door.send(&body, kind.framing, arrival_ms, &share)).await?;
        let outcomes = sent.wait(self).await;
        let topic = &self.0.topic;
        let answer = Accepted::new(
            sent.lines,
            outcomes.as_deref().unwrap_or_default(),
            topic,
            is_verbose,
        );
        self.count_events(&answer);
        Ok(respond(answer))
    }

    fn count_events(&self, answer: &Accepted) {
        for (outcome, count) in [
            ("accepted", answer.accepted),
            ("rejected", answer.rejected),
            ("unknown", answer.unknown),
            ("not_sent", answer.not_sent),
        ] {
            let events = &self.0.metrics.ingest_events;
            events.with_label_values(&[outcome]).inc_by(count);
        }
    }
}

/// Takes events, and answers when all replicas have them
#[utoipa::path(
    post,
    path = "/api/v1/events",
    operation_id = "send_events",
    tag = "events",
    summary = "Sends events to Kafka, and answers when all replicas have them",
    params(
        ("verbose" = Option<bool>, Query, description = "Whether `results` also holds the accepted events", example = true),
    ),
    request_body(
        description = "At most 10,000 events in 16 MiB: one object, an array, or one object per line. `Content-Encoding: gzip` is accepted; the limit then holds for both forms. `timestamp` may be absent or `now`, which stand for the time of arrival",
        content(
            (EventIn = "application/json"),
            (String = "application/x-ndjson"),
        ),
    ),
    responses(
        (status = 200, description = "Kafka has every valid event, and there is at least one", body = Accepted, example = json!({"accepted": 2, "rejected": 1, "results": [{"line": 2, "status": "rejected", "reason": "bad_severity", "detail": "\"bad\" is not low, medium, high or critical"}]})),
    ),
)]
async fn take_events(State(door): State<EventDoor>, request: Request) -> Response {
    let begun = Instant::now();
    let response = match door.answer(request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    let metrics = &door.0.metrics;
    let status = response.status();
    metrics
        .ingest_requests
        .with_label_values(&[status.as_str()])
        .inc();
    metrics
        .ingest_seconds
        .observe(begun.elapsed().as_secs_f64());
    response
}

/// Converts an `Accepted` to an HTTP response with the matching status code.
fn respond(answer: Accepted) -> Response {
    let fields = |answer: &Accepted| serde_json::json!(answer);
    if !answer.is_complete() {
        let public = "Kafka has not acknowledged every event; `results` says what became of each line, \
                      so send only the lines again that are not `accepted` or `rejected`";
        let (unknown, not_sent) = (answer.unknown, answer.not_sent);
        let detail = format!("{unknown} unknown, {not_sent} not sent");
        return ApiError::kafka_unavailable(public, detail).into_response_with(fields(&answer));
    }
    if answer.accepted == 0 {
        return ApiError::no_valid_event().into_response_with(fields(&answer));
    }
    let headers = [(CACHE_CONTROL, "no-store")];
    (StatusCode::OK, headers, Json(answer)).into_response()
}

/// Returns true if the client requests a result for every event, including accepted events.
fn is_verbose(uri: &Uri) -> Result<bool, ApiError> {
    let params = Params::parse(PATH, None, uri, "verbose")?;
    match params.given("verbose") {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(ApiError::bad_parameter(
            "verbose must be true or false, or stand alone",
        )),
    }
}

/// An event as a client sends it. All other fields are kept.
#[derive(Serialize, ToSchema)]
#[schema(as = Event, example = json!({
    "city": "NYC",
    "event_type": "incident",
    "severity": "critical",
    "description": "Water main break",
    "timestamp": "now",
}))]
struct EventIn {
    /// The city, 1 to 64 characters.
    #[schema(min_length = 1)]
    city: String,
    /// The event type: a letter, then up to 63 letters, digits, `_` or `-`.
    #[schema(pattern = "^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
    event_type: String,
    /// The severity: `low`, `medium`, `high` or `critical`.
    severity: String,
    /// The time at which the event happened, as RFC 3339. If the field is `now` or absent, the time of arrival counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// What happened, at most 4,096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The event's own id, 1 to 128 characters. Each event counts, even if its id is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

/// All errors of `POST /api/v1/events`, each with its HTTP status, its meaning and its error codes.
const ERRORS: &str = "\
400 The body cannot be divided into events, or a parameter or header is invalid: `bad_body`, `bad_parameter`, `bad_header`
401 A valid bearer token is required: `unauthorized`
403 The name in `Host` is not allowed, or a page of another site sent the request: `forbidden`
404 There is nothing at this path: `not_found`
405 The path has other methods: `method_not_allowed`
408 The body arrived too slowly: `body_too_slow`. Nothing was sent
413 The body has too many bytes or events: `body_too_large`, `too_many_events`
414 Path and query are too long: `uri_too_long`
415 The server cannot read this type or encoding: `unsupported_media_type`
422 No event is valid: `no_valid_event`, with `accepted`, `rejected` and `results`
429 This client sends too many requests: `too_many_requests`. See `Retry-After`
431 The header lines are too long: `headers_too_large`
500 A bug: `internal`
503 Kafka does not acknowledge events (`kafka_unavailable`), the server stops (`stopping`), or clients hold too many bytes (`busy`). Without `results`, nothing was sent; with it, each line has its status. See `Retry-After`";

/// The OpenAPI description of the routes that have no utoipa handler.
const OPERATOR_ROUTES: &str = "\
/livez | get_livez | text/plain | `ok` while the process is alive
/readyz | get_readyz | text/plain | `ok` while events reach Kafka
/metrics | get_metrics | text/plain; version=0.0.4; charset=utf-8 | All metrics, for Prometheus
/openapi.json | get_openapi | application/json | This document";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "CityStream events",
        description = "Takes city events over HTTP, and sends the valid ones to Kafka.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The server of this document")),
    tags(
        (name = "events", description = "Events on their way in"),
        (name = "operation", description = "Health, readiness and metrics"),
    ),
    paths(take_events),
    components(schemas(ErrorBody, EventIn, LineResult)),
)]
struct AcceptDocument;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut document = AcceptDocument::openapi();
    openapi::complete(&mut document, ERRORS, OPERATOR_ROUTES);
    document
        .to_pretty_json()
        .expect("the document consists of texts and numbers")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_a_switch() {
        for (query, want) in [
            ("", Some(false)),
            ("?verbose", Some(true)),
            ("?verbose=", Some(true)),
            ("?verbose=true", Some(true)),
            ("?verbose=0", Some(false)),
            ("?verbose=yes", None),
            ("?verbose&verbose", None),
            ("?pretty", None),
        ] {
            let uri: Uri = format!("{PATH}{query}").parse().unwrap();
            assert_eq!(is_verbose(&uri).ok(), want, "{query}");
        }
    }

    #[test]
    fn the_description_has_the_route_with_its_body_and_errors() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        let post = &document["paths"][PATH]["post"];
        let bodies = post["requestBody"]["content"].as_object().unwrap();
        assert!(bodies.contains_key("application/json"), "{post}");
        assert!(bodies.contains_key("application/x-ndjson"), "{post}");
        for status in ["200", "401", "413", "415", "422", "429", "503"] {
            assert!(post["responses"][status].is_object(), "{status}");
        }
        assert!(document["paths"]["/readyz"]["get"].is_object());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas {
            assert!(schema["description"].is_string(), "{name}");
        }
    }
}
