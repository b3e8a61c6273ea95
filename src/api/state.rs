//! What the handlers share: the tables, the clock, and answers that are still warm.
//!
//! An answer is kept for a second and made by one flight per key, so a thousand dashboards cost
//! DynamoDB what one does. Errors are not kept, but a flight's error goes to all who waited for it.
//! Every answer has a deadline ([`STORE_DEADLINE`]), below the server's own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use moka::future::Cache;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::page::Page;
use crate::api::timeline::{self, Hours};
use crate::store::error::{Kind, StoreError};
use crate::store::reads::Reads;
use crate::telemetry::Metrics;

/// How long DynamoDB may take for an answer before it becomes 504.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer is given to others.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(1);
/// Most bytes of answers that are kept.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// Returns Unix milliseconds.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the handlers share. Clones are the same.
#[derive(Clone)]
pub struct ApiState {
    reads: Arc<dyn Reads>,
    metrics: Metrics,
    answers: Cache<String, Bytes>,
    hours: Hours,
    page: Page,
    clock: Clock,
    deadline: Duration,
}

impl ApiState {
    /// Returns a state that reads `reads` and the system's clock.
    pub fn new(reads: Arc<dyn Reads>, metrics: Metrics) -> ApiState {
        ApiState {
            reads,
            metrics,
            answers: Cache::builder()
                .time_to_live(ANSWER_AGE_MAX)
                .max_capacity(ANSWERS_BYTES_MAX)
                .weigher(|key: &String, answer: &Bytes| {
                    u32::try_from(key.len() + answer.len()).unwrap_or(u32::MAX)
                })
                .build(),
            hours: timeline::hours(),
            page: Page::new(),
            clock: Arc::new(|| jiff::Timestamp::now().as_millisecond()),
            deadline: STORE_DEADLINE,
        }
    }

    /// Returns the same with another clock, in Unix milliseconds.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> ApiState {
        ApiState {
            clock: Arc::new(clock),
            ..self
        }
    }

    /// Returns the same with another deadline for answers.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> ApiState {
        ApiState { deadline, ..self }
    }

    /// Returns the same with another page at `/`.
    #[must_use]
    pub fn with_page(self, page: Page) -> ApiState {
        ApiState { page, ..self }
    }

    pub(crate) fn page(&self) -> &Page {
        &self.page
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn reads(&self) -> &dyn Reads {
        &*self.reads
    }

    pub(crate) fn hours(&self) -> &Hours {
        &self.hours
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// Returns the answer under `key`: a warm one, the one under way, or a fresh one from `make`.
    pub(crate) async fn answer<T: Serialize>(
        &self,
        key: String,
        make: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Response, ApiError> {
        let made = self.answers.try_get_with(key, async {
            let answer = make.await.map_err(|error| store_failed(&error))?;
            serde_json::to_vec(&answer)
                .map(Bytes::from)
                .map_err(|error| ApiError::internal(error.to_string()))
        });
        match tokio::time::timeout(self.deadline, made).await {
            Ok(Ok(json)) => Ok(json_response(json)),
            Ok(Err(error)) => Err((*error).clone()),
            Err(_elapsed) => Err(ApiError::store_timeout("the deadline passed")),
        }
    }
}

fn json_response(json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Returns what a client is told about a failed read.
fn store_failed(error: &StoreError) -> ApiError {
    match error.kind() {
        Kind::Unknown if error.code() == Some("Timeout") => {
            ApiError::store_timeout(error.to_string())
        }
        // A request DynamoDB can never accept is a bug of ours.
        Kind::Invalid | Kind::Conflict => ApiError::internal(error.to_string()),
        _ => ApiError::store_unavailable(public_reason(error), error.to_string()),
    }
}

/// Returns why the tables cannot be read, in words for everybody.
pub fn public_reason(error: &StoreError) -> &'static str {
    match error.kind() {
        Kind::NotFound => "the tables do not exist; citystream init-tables makes them",
        Kind::Corrupt => "the tables are not set up; run citystream init-tables",
        Kind::Throttled => "DynamoDB limits the rate of reads",
        Kind::Denied | Kind::Settings => "this host's login or rights for DynamoDB do not suffice",
        Kind::Transient | Kind::Unknown => "DynamoDB does not answer",
        Kind::Invalid | Kind::Conflict => "DynamoDB refuses the request",
    }
}
