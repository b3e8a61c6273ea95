//! What the handlers share: the tables, the clock, and answers that are still warm.
//!
//! An answer is kept for a second, or longer if it cost much, and made by one flight per key, so a
//! thousand dashboards cost DynamoDB what one does. One request costs at most [`READ_UNITS_MAX`]. Errors are not kept, but a flight's error goes to all who waited for it.
//! Every answer has a deadline ([`STORE_DEADLINE`]), below the server's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::Expiry;
use moka::future::Cache;
use serde::Serialize;
use sha2::Digest as _;
use tokio::sync::Semaphore;

use crate::api::budget::ReadBudget;
use crate::api::error::ApiError;
use crate::api::page::Page;
use crate::api::spent::Spent;
use crate::api::stream::Stream;
use crate::api::timeline::{self, Hours};
use crate::api::totals::{GrandTotal, Totals, TotalsCache};
use crate::shutdown::Shutdown;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::reads::{Cost, Meter, Reads, metered_by};
use crate::telemetry::Metrics;

/// How long DynamoDB may take for an answer before it becomes 504.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer is given to others, unless it cost much.
const ANSWER_AGE: Duration = Duration::from_secs(1);
/// Longest time that an expensive answer is given to others.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);
/// An answer is given to others for a second for each so many read units that it cost.
const ANSWER_UNITS_PER_SECOND: f64 = 200.0;
/// Most read units that one request may cost, but for requests under way when it is reached.
pub const READ_UNITS_MAX: u64 = 5_000;
/// Most answers in the making at a time; further ones wait.
const BUILDS_MAX: usize = 32;
/// Most bytes of answers that are kept.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// Returns Unix milliseconds.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the handlers share. Clones are the same.
#[derive(Clone)]
pub struct ApiState {
    reads: Arc<dyn Reads>,
    metrics: Metrics,
    hours: Hours,
    page: Page,
    answers: Cache<String, Warm>,
    totals: Arc<TotalsCache>,
    builds: Arc<Semaphore>,
    budget: Option<ReadBudget>,
    stream: Arc<Stream>,
    shutdown: Shutdown,
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
                .expire_after(WarmAge)
                .max_capacity(ANSWERS_BYTES_MAX)
                .weigher(|key: &String, answer: &Warm| {
                    u32::try_from(key.len() + answer.json.len()).unwrap_or(u32::MAX)
                })
                .build(),
            hours: timeline::hours(),
            page: Page::new(),
            totals: Arc::default(),
            builds: Arc::new(Semaphore::new(BUILDS_MAX)),
            budget: None,
            stream: Arc::new(Stream::new()),
            shutdown: Shutdown::new(),
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

    /// Returns the same with a limit of read units a minute for each client.
    #[must_use]
    pub fn with_read_budget(self, units_max: u64) -> ApiState {
        ApiState {
            budget: Some(ReadBudget::new(units_max)),
            ..self
        }
    }

    pub(crate) fn read_budget(&self) -> Option<ReadBudget> {
        self.budget.clone()
    }

    /// Returns the same with the flag that ends streams.
    #[must_use]
    pub fn with_shutdown(self, shutdown: Shutdown) -> ApiState {
        ApiState { shutdown, ..self }
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
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
    pub(crate) async fn answer<T: Serialize, E: Into<ApiError>>(
        &self,
        key: String,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<Response, ApiError> {
        let make = async { make.await.map(|answer| (answer, Age::Revalidate)) };
        self.answer_for(key, make).await
    }

    /// Returns the same where `make` also tells how long a client may keep the answer.
    pub(crate) async fn answer_for<T: Serialize, E: Into<ApiError>>(
        &self,
        key: String,
        make: impl Future<Output = Result<(T, Age), E>>,
    ) -> Result<Response, ApiError> {
        let meter = Meter::bounded(READ_UNITS_MAX);
        let mut spent = None;
        let made = self.answers.try_get_with(key, async {
            let _turn = self.turn().await;
            let (made, cost) = metered_by(&meter, make).await;
            spent = Some(cost);
            let (answer, age) = made.map_err(Into::into)?;
            let json = serde_json::to_vec(&answer)
                .map_err(|error| ApiError::internal(error.to_string()))?;
            Ok::<_, ApiError>(Warm {
                etag: etag(&json),
                json: json.into(),
                age,
                units: cost.units,
            })
        });
        let made = tokio::time::timeout(self.deadline, made).await;
        let error = match made {
            Ok(Ok(warm)) => return Ok(warm.response(spent)),
            Ok(Err(error)) => (*error).clone(),
            Err(_elapsed) => ApiError::store_timeout("the deadline passed"),
        };
        let (_, units) = meter.spent();
        Err(error.with_units(units))
    }

    /// Waits until one of [`BUILDS_MAX`] answers may be made.
    pub(crate) async fn turn(&self) -> impl Drop + use<> {
        let turn = Arc::clone(&self.builds).acquire_owned().await;
        turn.expect("the semaphore is never closed")
    }

    /// Returns the sums over all series, at a bounded cost where progress items know them.
    pub(crate) async fn grand_total(&self) -> Result<GrandTotal, ApiError> {
        let read = self.totals.grand(&self.reads, self.now_ms());
        match tokio::time::timeout(self.deadline, read).await {
            Ok(Ok(grand)) => {
                #[allow(clippy::cast_precision_loss)] // a number to look at
                let series = grand.series_min as f64;
                if !grand.is_kept || series > self.metrics.table_series.get() {
                    self.metrics.table_series.set(series);
                }
                Ok(grand)
            }
            Ok(Err(error)) => Err(store_failed(&error)),
            Err(_elapsed) => Err(ApiError::store_timeout("the deadline passed")),
        }
    }

    /// Returns all totals, as new as their number allows.
    pub(crate) async fn totals(&self) -> Result<Arc<Totals>, ApiError> {
        let read = self.totals.get(&self.reads, self.now_ms());
        match tokio::time::timeout(self.deadline, read).await {
            Ok(Ok(totals)) => {
                #[allow(clippy::cast_precision_loss)] // a number to look at
                let series = totals.every.series_count as f64;
                self.metrics.table_series.set(series);
                Ok(totals)
            }
            Ok(Err(error)) => Err(store_failed(&error)),
            Err(_elapsed) => Err(ApiError::store_timeout("the deadline passed")),
        }
    }

    /// Returns all totals if they are there soon enough to become part of an answer.
    pub(crate) async fn totals_soon(&self) -> Option<Arc<Totals>> {
        let soon = tokio::time::timeout(self.deadline / 2, self.totals());
        soon.await.ok()?.ok()
    }

    /// Returns what was read, or the error that a client is told; waits as long as an answer may take.
    pub(crate) async fn within<T>(
        &self,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(self.deadline, reading).await {
            Ok(read) => read.map_err(ApiError::from),
            Err(_elapsed) => Err(ApiError::store_timeout("the deadline passed")),
        }
    }
}

/// How long a client may take an answer for true without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Not at all; it may ask whether the `ETag` still holds.
    Revalidate,
    /// An hour: nothing in it will change.
    Settled,
}

/// An answer that others get too.
#[derive(Clone)]
struct Warm {
    json: Bytes,
    etag: HeaderValue,
    age: Age,
    /// What it cost.
    units: f64,
}

/// How long answers are given to others: the longer, the more they cost.
struct WarmAge;

impl Expiry<String, Warm> for WarmAge {
    fn expire_after_create(&self, _: &String, warm: &Warm, _: Instant) -> Option<Duration> {
        Some(answer_age(warm.units))
    }
}

fn answer_age(units: f64) -> Duration {
    let seconds = (units / ANSWER_UNITS_PER_SECOND).clamp(0.0, ANSWER_AGE_MAX.as_secs_f64());
    Duration::from_secs_f64(seconds).max(ANSWER_AGE)
}

impl Warm {
    /// `spent` is what this request paid for; none if it found the answer made.
    fn response(self, spent: Option<Cost>) -> Response {
        let mut response = Response::new(Body::from(self.json));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ETAG, self.etag);
        let age = match self.age {
            Age::Revalidate => "no-cache",
            Age::Settled => "max-age=3600",
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(age));
        let timing = match spent {
            Some(cost) => format!(
                "dynamodb;dur={:.1};desc=\"{} requests, {} read units\"",
                cost.time.as_secs_f64() * 1_000.0,
                cost.requests,
                cost.units,
            ),
            None => "shared;desc=\"0 requests, 0 read units\"".to_owned(),
        };
        if let Ok(timing) = HeaderValue::from_str(&timing) {
            headers.insert(HeaderName::from_static("server-timing"), timing);
        }
        let units = spent.map_or(0.0, |cost| cost.units);
        response.extensions_mut().insert(Spent(units));
        response
    }
}

/// Weak, because compression changes the bytes and not what they say.
fn etag(json: &[u8]) -> HeaderValue {
    let digest = sha2::Sha256::digest(json);
    let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..12]));
    HeaderValue::from_str(&tag).expect("base64 is legal in a header")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        store_failed(&error)
    }
}

/// Returns what a client is told about a failed read.
fn store_failed(error: &StoreError) -> ApiError {
    if let StoreError::TooCostly { units } = error {
        return ApiError::read_ceiling(*units);
    }
    match error.kind() {
        StoreErrorKind::Unknown if error.code() == Some("Timeout") => {
            ApiError::store_timeout(error.to_string())
        }
        // A request DynamoDB can never accept is a bug of ours.
        StoreErrorKind::Invalid | StoreErrorKind::Conflict => ApiError::internal(error.to_string()),
        _ => ApiError::store_unavailable(public_reason(error), error.to_string()),
    }
}

/// Returns why the tables cannot be read, in words for everybody.
pub fn public_reason(error: &StoreError) -> &'static str {
    match error.kind() {
        StoreErrorKind::NotFound => {
            "a table does not exist; citystream init-tables makes it, or says how to get it back"
        }
        StoreErrorKind::Corrupt => "the tables are not set up; run citystream init-tables",
        StoreErrorKind::Throttled => "DynamoDB limits the rate of reads",
        StoreErrorKind::Denied | StoreErrorKind::Settings => {
            "this host's login or rights for DynamoDB do not suffice"
        }
        StoreErrorKind::Transient | StoreErrorKind::Unknown => "DynamoDB does not answer",
        StoreErrorKind::Invalid | StoreErrorKind::Conflict => "DynamoDB refuses the request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shared_the_longer_the_more_it_cost() {
        for (units, seconds) in [(0.0, 1), (100.0, 1), (1_000.0, 5), (1e9, 30)] {
            assert_eq!(answer_age(units).as_secs(), seconds, "{units}");
        }
    }
}
