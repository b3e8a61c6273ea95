//! The state that all handlers share: the tables, the clock, and the cache of responses.
//!
//! The cache keeps a response for a second, or longer if the response was expensive. Concurrent requests for the same
//! response wait for one computation, so a thousand dashboards cost no more reads than one dashboard. A request costs
//! at most [`READ_UNITS_MAX`]. If a computation fails, every request that waits for the computation gets the error, but
//! the cache does not store the error. Each response has a deadline ([`STORE_DEADLINE`]) that is shorter than the
//! server's deadline for a request.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::Expiry;
use moka::future::Cache;
use serde::Serialize;
use sha2::Digest as _;
use tokio::sync::Semaphore;

use crate::api::budget::ReadBudget;
use crate::api::dashboard::Dashboard;
use crate::api::error::ApiError;
use crate::api::feed::Feed;
use crate::api::rollup_cache::RollupCache;
use crate::api::spent::Spent;
use crate::api::totals::{GrandTotal, Totals, TotalsCache};
use crate::api::window_cache::{WindowCache, window_cache};
use crate::core::clock::UnixMs;
use crate::shutdown::Shutdown;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::reads::{Cost, Meter, Reads, metered_by};
use crate::telemetry::{Metrics, unix_ms};

/// Maximum time that the server waits for DynamoDB before the client gets status 504.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);
/// Time for which a cheap response stays in the cache.
const ANSWER_AGE: Duration = Duration::from_secs(1);
/// Time for which the most expensive response stays in the cache.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);
/// A response stays in the cache for one second for every 200 read units that it cost.
const ANSWER_UNITS_PER_SECOND: f64 = 200.0;
/// Maximum number of read units that one request may cost. A request may exceed the maximum slightly, because its reads
/// in flight still finish.
pub const READ_UNITS_MAX: u64 = 5_000;
/// Maximum number of responses that are computed at the same time. Further requests wait.
const BUILDS_MAX: usize = 32;
/// Maximum number of bytes of all responses in the cache.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// A clock that returns Unix milliseconds.
type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// The state that all handlers share. All clones use the same state.
#[derive(Clone)]
pub struct ApiState {
    reads: Arc<dyn Reads>,
    metrics: Metrics,
    windows: WindowCache,
    rollups: RollupCache,
    dashboard: Dashboard,
    answers: Cache<String, CachedAnswer>,
    totals: Arc<TotalsCache>,
    builds: Arc<Semaphore>,
    budget: Option<ReadBudget>,
    feed: Arc<Feed>,
    shutdown: Shutdown,
    clock: Clock,
    deadline: Duration,
}

impl ApiState {
    /// Returns a state whose handlers read the tables through `reads` and use the system clock.
    pub fn new(reads: Arc<dyn Reads>, metrics: Metrics) -> ApiState {
        ApiState {
            reads,
            metrics,
            answers: Cache::builder()
                .expire_after(ExpiryByCost)
                .max_capacity(ANSWERS_BYTES_MAX)
                .weigher(|key: &String, answer: &CachedAnswer| {
                    u32::try_from(key.len() + answer.body.bytes.len()).unwrap_or(u32::MAX)
                })
                .build(),
            windows: window_cache(),
            rollups: RollupCache::new(),
            dashboard: Dashboard::default(),
            totals: Arc::default(),
            builds: Arc::new(Semaphore::new(BUILDS_MAX)),
            budget: None,
            feed: Arc::new(Feed::new()),
            shutdown: Shutdown::default(),
            clock: Arc::new(unix_ms),
            deadline: STORE_DEADLINE,
        }
    }

    /// Returns the state with `clock` instead of the system clock. `clock` returns Unix milliseconds.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> UnixMs + Send + Sync + 'static) -> ApiState {
        ApiState {
            clock: Arc::new(clock),
            ..self
        }
    }

    /// Returns this state, in which reading the data of a response may take at most `deadline`.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> ApiState {
        ApiState { deadline, ..self }
    }

    /// Returns the state with `dashboard` as the page at `/`.
    #[must_use]
    pub fn with_dashboard(self, dashboard: Dashboard) -> ApiState {
        ApiState { dashboard, ..self }
    }

    pub(crate) fn dashboard(&self) -> &Dashboard {
        &self.dashboard
    }

    /// Returns the state with `units_max` as the maximum number of read units that each client may spend per minute.
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

    /// Returns a state whose event streams end when `shutdown` is triggered.
    #[must_use]
    pub fn with_shutdown(self, shutdown: Shutdown) -> ApiState {
        ApiState { shutdown, ..self }
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Returns the metrics of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn reads(&self) -> &dyn Reads {
        &*self.reads
    }

    pub(crate) fn rollups(&self) -> &RollupCache {
        &self.rollups
    }

    pub(crate) fn windows(&self) -> &WindowCache {
        &self.windows
    }

    pub(crate) fn now_ms(&self) -> UnixMs {
        (self.clock)()
    }

    /// Returns the response for `key`: from the cache, from a computation in flight, or by calling `make`.
    pub(crate) async fn answer<T: Serialize, E: Into<ApiError>>(
        &self,
        key: String,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<Response, ApiError> {
        let make = async { make.await.map(|answer| (answer, Freshness::Revalidate)) };
        self.answer_with_freshness(key, make).await
    }

    /// Works like [`ApiState::answer`], but `make` also decides how long the client may keep the response.
    pub(crate) async fn answer_with_freshness<T: Serialize, E: Into<ApiError>>(
        &self,
        key: String,
        make: impl Future<Output = Result<(T, Freshness), E>>,
    ) -> Result<Response, ApiError> {
        let make = async {
            let (answer, freshness) = make.await.map_err(Into::into)?;
            Ok((AnswerBody::json(&answer)?, freshness))
        };
        self.answer_with_body(key, make).await
    }

    /// Works like [`ApiState::answer_with_freshness`], but `make` also decides the format of the body.
    pub(crate) async fn answer_with_body(
        &self,
        key: String,
        make: impl Future<Output = Result<(AnswerBody, Freshness), ApiError>>,
    ) -> Result<Response, ApiError> {
        let meter = Meter::bounded(READ_UNITS_MAX);
        let mut spent = None;
        let made = self.answers.try_get_with(key, async {
            let _slot = self.acquire_build_slot().await;
            let (made, cost) = metered_by(&meter, make).await;
            spent = Some(cost);
            let (body, freshness) = made?;
            Ok::<_, ApiError>(CachedAnswer {
                etag: etag(&body.bytes),
                body,
                freshness,
                age: match freshness {
                    Freshness::Partial => ANSWER_AGE,
                    _ => answer_age(cost.units),
                },
            })
        });
        let made = tokio::time::timeout(self.deadline, made).await;
        let error = match made {
            Ok(Ok(answer)) => return Ok(answer.into_response(spent)),
            Ok(Err(error)) => (*error).clone(),
            Err(_elapsed) => deadline_passed(),
        };
        let (_, units) = meter.spent();
        Err(error.with_units(units))
    }

    /// Waits until fewer than [`BUILDS_MAX`] responses are being computed.
    pub(crate) async fn acquire_build_slot(&self) -> impl Drop + use<> {
        let slot = Arc::clone(&self.builds).acquire_owned().await;
        slot.expect("the semaphore is never closed")
    }

    /// Returns the sums over all series. If the progress items contain the sums, the cost of the read is bounded,
    /// regardless of the number of series.
    pub(crate) async fn grand_total(&self) -> Result<GrandTotal, ApiError> {
        let grand = self.totals.grand(&self.reads, self.now_ms());
        let grand = self.within_deadline(grand).await?;
        self.record_series_count(&grand);
        Ok(grand)
    }

    fn record_series_count(&self, grand: &GrandTotal) {
        #[allow(clippy::cast_precision_loss)] // a gauge needs no exact integer
        let series = grand.series_min as f64;
        if !grand.from_progress || series > self.metrics.table_series.get() {
            self.metrics.table_series.set(series);
        }
    }

    /// Returns the totals of all series. If there are many series, the returned totals may be older than the request.
    pub(crate) async fn totals(&self) -> Result<Arc<Totals>, ApiError> {
        let totals = self.totals.get(&self.reads, self.now_ms());
        let totals = self.within_deadline(totals).await?;
        #[allow(clippy::cast_precision_loss)] // a gauge needs no exact integer
        let series = totals.every.series_count as f64;
        self.metrics.table_series.set(series);
        Ok(totals)
    }

    /// Returns the totals of all series, or `None` if there are too many series to read at a bounded cost.
    pub(crate) async fn totals_if_few(&self) -> Result<Option<Arc<Totals>>, ApiError> {
        let totals = self.totals.get_if_few(&self.reads, self.now_ms());
        let totals = self.within_deadline(totals).await?;
        let grand = totals.as_deref().map(GrandTotal::of);
        grand.iter().for_each(|all| self.record_series_count(all));
        Ok(totals)
    }

    /// Returns the sums of the counts in all progress items, or `None` if a progress item has no valid counts.
    pub(crate) async fn partition_sums(&self) -> Result<Option<GrandTotal>, ApiError> {
        let sums = self.totals.read_progress_sums(&self.reads, self.now_ms());
        let sums = self.within_deadline(sums).await?;
        sums.iter().for_each(|sums| self.record_series_count(sums));
        Ok(sums)
    }

    /// Returns the totals of all series, or `None` if the read takes longer than half of a response's deadline.
    pub(crate) async fn totals_soon(&self) -> Option<Arc<Totals>> {
        let soon = tokio::time::timeout(self.deadline / 2, self.totals());
        soon.await.ok()?.ok()
    }

    /// Runs a read, which must finish within the deadline of a response. Converts a failure into the error that the
    /// client gets.
    pub(crate) async fn within_deadline<T, E: Borrow<StoreError>>(
        &self,
        reading: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(self.deadline, reading).await {
            Ok(read) => read.map_err(|error| public_error(error.borrow())),
            Err(_elapsed) => Err(deadline_passed()),
        }
    }
}

fn deadline_passed() -> ApiError {
    ApiError::store_timeout("the deadline passed")
}

/// Defines for how long a client may reuse a response without asking the server again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The client must revalidate the response with its `ETag`.
    Revalidate,
    /// The client must revalidate the response. The server's cache keeps the response only briefly, because the next
    /// response may cover more series.
    Partial,
    /// The client may keep the response for an hour, because the contents of the response will never change.
    Settled,
}

/// The body of a response, and the headers that describe its format.
#[derive(Clone)]
pub(crate) struct AnswerBody {
    pub(crate) bytes: Bytes,
    pub(crate) headers: HeaderMap,
}

impl AnswerBody {
    fn json(answer: &impl Serialize) -> Result<AnswerBody, ApiError> {
        let json = serde_json::to_vec(answer);
        let mut json = json.map_err(|error| ApiError::internal(error.to_string()))?;
        json.push(b'\n');
        let form = HeaderValue::from_static("application/json");
        Ok(AnswerBody {
            bytes: json.into(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, form)]),
        })
    }
}

/// A computed response that several requests share.
#[derive(Clone)]
struct CachedAnswer {
    body: AnswerBody,
    etag: HeaderValue,
    freshness: Freshness,
    /// Time for which the cache keeps the response.
    age: Duration,
}

/// A cache rule that keeps expensive responses longer than cheap responses.
struct ExpiryByCost;

impl Expiry<String, CachedAnswer> for ExpiryByCost {
    fn expire_after_create(
        &self,
        _: &String,
        answer: &CachedAnswer,
        _: Instant,
    ) -> Option<Duration> {
        Some(answer.age)
    }
}

fn answer_age(units: f64) -> Duration {
    let seconds = (units / ANSWER_UNITS_PER_SECOND).clamp(0.0, ANSWER_AGE_MAX.as_secs_f64());
    Duration::from_secs_f64(seconds).max(ANSWER_AGE)
}

impl CachedAnswer {
    /// Returns the HTTP response. `spent` is the number of read units that this request cost, or `None` if the response
    /// came from the cache.
    fn into_response(self, spent: Option<Cost>) -> Response {
        let mut response = Response::new(Body::from(self.body.bytes));
        let headers = response.headers_mut();
        *headers = self.body.headers;
        headers.insert(ETAG, self.etag);
        // The header `Accept` selects the format of a list, so caches must store the formats separately.
        headers.insert(VARY, HeaderValue::from_name(ACCEPT));
        let caching = match self.freshness {
            Freshness::Revalidate | Freshness::Partial => "no-cache",
            Freshness::Settled => "max-age=3600",
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
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

/// Returns a weak `ETag` for a response. The tag is weak, because compression changes the bytes of a response but not
/// its meaning.
fn etag(body: &[u8]) -> HeaderValue {
    let digest = sha2::Sha256::digest(body);
    let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..12]));
    HeaderValue::from_str(&tag).expect("base64 is legal in a header")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        public_error(&error)
    }
}

/// Returns the error that a client gets when a read of the tables fails.
fn public_error(error: &StoreError) -> ApiError {
    if let StoreError::TooCostly { units } = error {
        return ApiError::read_ceiling(*units);
    }
    match error.kind() {
        StoreErrorKind::Unknown if error.code() == Some("Timeout") => {
            ApiError::store_timeout(error.to_string())
        }
        // DynamoDB would reject the same request again, so the failure comes from a bug in this program.
        StoreErrorKind::Invalid | StoreErrorKind::Conflict => ApiError::internal(error.to_string()),
        _ => ApiError::store_unavailable(public_reason(error), error.to_string()),
    }
}

/// Returns the reason why the tables cannot be read, without details that clients must not see.
pub fn public_reason(error: &StoreError) -> &'static str {
    match error.kind() {
        StoreErrorKind::NotFound => {
            "a table does not exist; citystream init-tables creates it or says how to restore it"
        }
        StoreErrorKind::Corrupt => "the tables are not set up; run citystream init-tables",
        StoreErrorKind::Throttled => "DynamoDB limits the rate of reads",
        StoreErrorKind::Denied | StoreErrorKind::Settings => {
            "this host's credentials or permissions for DynamoDB are not sufficient"
        }
        StoreErrorKind::Transient | StoreErrorKind::Unknown => "DynamoDB does not answer",
        StoreErrorKind::Invalid | StoreErrorKind::Conflict => "DynamoDB rejects the request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expensive_answer_stays_in_the_cache_longer() {
        for (units, seconds) in [(0.0, 1), (100.0, 1), (1_000.0, 5), (1e9, 30)] {
            assert_eq!(answer_age(units).as_secs(), seconds, "{units}");
        }
    }
}
