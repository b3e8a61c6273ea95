//! `GET /api/v1/stream?city=&severity=`: what is new, as server-sent events.
//!
//! One [`poller`] asks DynamoDB for all listeners together; the [`feed`] remembers what was told
//! lately, and each listener reads it at its own pace. [`changes`] decides what is new.
//!
//! A listener that comes back with `Last-Event-ID` goes on there. Where the feed does not reach back
//! (another process, or nobody listened for a while), the alerts stored since are read from the table;
//! windows are not, so `reset` always comes first then and says what may be missing.

mod changes;
mod feed;
mod poller;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::Response;
use bytes::BytesMut;
use futures_util::stream;
use moka::future::Cache;
use tokio::sync::watch;

use self::changes::sort_as_stored;
use self::feed::{Feed, Filter, Next, Place, frame};
use self::poller::json;
use crate::api::alerts::Alert;
use crate::api::error::ApiError;
use crate::api::openapi::Severities;
use crate::api::params::Params;
use crate::api::spent::Spent;
use crate::api::state::{ApiState, READ_UNITS_MAX};
use crate::core::event::Severity;
use crate::core::time::{TIME_MS_END, parse_timestamp};
use crate::shutdown::Shutdown;
use crate::store::reads::{AlertItem, Meter, Page, PageRequest, Range};

pub(super) const PATH: &str = "/api/v1/stream";

/// Time between two heartbeats: proxies and browsers give up on silence after a minute or so.
const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEAT_LINE: Bytes = Bytes::from_static(b": heartbeat\n\n");
/// How far back by event time missed alerts are looked for, and how many.
const RESUME_BACK_MS: i64 = 24 * 3_600_000;
const RESUME_ALERTS_MAX: usize = 1_000;
/// How long the alerts read for one that comes back are given to others, and for how many filters.
const RESUME_AGE_MAX: Duration = Duration::from_secs(1);
const RESUMES_KEPT_MAX: u64 = 16;
/// How much earlier than the place an alert may have been stored, by another host's clock.
const RESUME_SLACK_MS: i64 = 5_000;

/// The newest alerts of a city and severity.
type Resumed = Cache<(Option<String>, Option<Severity>), Arc<Page<AlertItem>>>;

/// The feed and its reader.
pub(crate) struct Stream {
    feed: Feed,
    /// Whether the reader runs.
    awake: Mutex<bool>,
    /// The newest alerts, for those that come back, by city and severity.
    resumed: Resumed,
}

impl Stream {
    pub(crate) fn new() -> Stream {
        Stream {
            feed: Feed::new(),
            awake: Mutex::new(false),
            resumed: Cache::builder()
                .time_to_live(RESUME_AGE_MAX)
                .max_capacity(RESUMES_KEPT_MAX)
                .build(),
        }
    }

    /// Counts a listener, and starts the reader if it rests.
    fn listen(self: &Arc<Stream>, state: &ApiState) -> Heard {
        let mut awake = self.awake.lock().expect("no panic holds the flag");
        self.feed.listeners().fetch_add(1, Ordering::SeqCst);
        if !*awake {
            *awake = true;
            self.feed.restart(state.now_ms());
            tokio::spawn(poller::run(state.clone(), Arc::clone(self)));
        }
        Heard(Arc::clone(self))
    }

    /// Lets the reader rest unless somebody has come in the meantime.
    fn rest(&self) -> bool {
        let mut awake = self.awake.lock().expect("no panic holds the flag");
        *awake = self.feed.is_heard();
        !*awake
    }
}

/// A listener that is counted.
struct Heard(Arc<Stream>);

impl Drop for Heard {
    fn drop(&mut self) {
        self.0.feed.listeners().fetch_sub(1, Ordering::SeqCst);
    }
}

struct Listener {
    heard: Heard,
    filter: Filter,
    after: u64,
    wakes: watch::Receiver<u64>,
    shutdown: Shutdown,
    first: Option<Bytes>,
}

impl Listener {
    /// Returns the next bytes; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let heartbeat = tokio::time::sleep(HEARTBEAT);
        tokio::pin!(heartbeat);
        loop {
            if self.shutdown.is_triggered() {
                return None;
            }
            self.wakes.mark_unchanged();
            match self.heard.0.feed.next(self.after, &self.filter) {
                Next::Events(bytes, reached) => {
                    self.after = reached;
                    return Some(bytes);
                }
                Next::Nothing(reached) => self.after = reached,
                Next::Lost(place) => {
                    self.after = place.number;
                    return Some(reset(
                        "you read too slowly",
                        &["alerts", "windows"],
                        Some(place),
                    ));
                }
            }
            tokio::select! {
                () = self.shutdown.wait() => return None,
                changed = self.wakes.changed() => changed.ok()?,
                () = &mut heartbeat => return Some(HEARTBEAT_LINE),
            }
        }
    }
}

/// Returns the event that tells what was missed.
fn reset(reason: &str, missed: &[&str], id: Option<Place>) -> Bytes {
    let data = serde_json::json!({"reason": reason, "missed": missed});
    frame("reset", id, &data.to_string())
}

/// What is new, as server-sent events
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    operation_id = "listen",
    summary = "What is new, as server-sent events",
    description = "Events `status`, `stats`, `alert`, `window` and `reset`; it does not end.",
    params(
        ("city" = Option<String>, Query, description = "Only alerts and windows of this city", example = "NYC"),
        ("severity" = Option<Severities>, Query, description = "Only alerts of this severity", example = "critical"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event heard: the stream goes on behind it", pattern = "^[0-9]{1,15}\\.[0-9a-f]{8}\\.[0-9]{1,15}$"),
    ),
    responses(
        (status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream", example = "event: status\ndata: {\"status\":\"UP\"}\n\n"),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, &["city", "severity"])?;
    let filter = Filter {
        city: params.text("city").map(ToOwned::to_owned),
        severity: params.severity()?,
    };
    let resumed = match headers.get("last-event-id").map(HeaderValue::to_str) {
        None | Some(Ok("")) => None,
        Some(Ok(text)) => Some(Place::parse(text).ok_or_else(ApiError::bad_event_id)?),
        Some(Err(_)) => return Err(ApiError::bad_event_id()),
    };
    let stream = state.stream();
    let heard = stream.listen(&state);
    let wakes = stream.feed.wakes();
    let (place, greeting) = stream.feed.greeting();
    let mut first = BytesMut::from(&*greeting);
    let mut after = place.number;
    let mut spent = 0.0;
    match resumed {
        Some(place) if stream.feed.remembers(place) => after = place.number,
        Some(missed) => {
            let (missed, units) = missed_since(&state, &filter, missed, place).await;
            first.extend_from_slice(&missed);
            spent = units;
        }
        None => {}
    }
    let listener = Listener {
        heard,
        filter,
        after,
        wakes,
        shutdown: state.shutdown().clone(),
        first: Some(first.freeze()),
    };
    let body = stream::unfold(listener, async |mut listener| {
        let bytes = listener.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), listener))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.extensions_mut().insert(Spent(spent));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies of nginx's kind would gather the events.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// Returns `reset`, and the alerts stored since a place that the feed does not know, with the read units
/// that they cost. Their last line names the place `now`, where the listener goes on.
async fn missed_since(
    state: &ApiState,
    filter: &Filter,
    missed: Place,
    now: Place,
) -> (Bytes, f64) {
    let back_ms = missed.ms - RESUME_BACK_MS;
    let nothing_to_find = filter.severity.is_some_and(|s| !s.is_alert());
    let meter = Meter::bounded(READ_UNITS_MAX);
    let found = match nothing_to_find {
        true => Ok(Arc::new(Page::empty())),
        false => newest_alerts(state, filter, &meter).await,
    };
    let (mut alerts, all) = match found {
        Ok(page) => {
            let reaches_back = |a: &AlertItem| parse_timestamp(&a.event_time) < Some(back_ms);
            let all = page.next.is_none() || page.items.last().is_some_and(reaches_back);
            (page.items.clone(), all)
        }
        Err(_) => (Vec::new(), false),
    };
    alerts.retain(|a| parse_timestamp(&a.event_time).is_some_and(|ms| ms >= back_ms));
    let since_ms = missed.ms - RESUME_SLACK_MS;
    alerts.retain(|a| parse_timestamp(&a.processing_time).is_some_and(|ms| ms >= since_ms));
    sort_as_stored(&mut alerts);
    let reason = "this server does not remember that id";
    let mut out = BytesMut::new();
    if all {
        out.extend_from_slice(&reset(reason, &["windows"], None));
    } else {
        out.extend_from_slice(&reset(reason, &["alerts", "windows"], None));
    }
    for alert in alerts {
        out.extend_from_slice(&frame("alert", None, &json(&Alert::from(alert))));
    }
    out.extend_from_slice(format!("id: {now}\n\n").as_bytes());
    (out.freeze(), meter.spent().1)
}

/// Returns the newest alerts that suit a filter. Whatever ids clients come back with, one reading
/// a second serves all of the same filter.
async fn newest_alerts(
    state: &ApiState,
    filter: &Filter,
    meter: &Meter,
) -> Result<Arc<Page<AlertItem>>, Arc<ApiError>> {
    let key = (filter.city.clone(), filter.severity);
    let read = async {
        let _turn = state.turn().await;
        let slice = PageRequest {
            range: Range {
                from_ms: 0,
                to_ms: TIME_MS_END,
            },
            limit: RESUME_ALERTS_MAX,
            after: None,
            now_ms: state.now_ms(),
        };
        let reads = state.reads();
        let read = meter.run(reads.alerts(filter.city.clone(), filter.severity, slice));
        state.within(read).await.map(Arc::new)
    };
    state.stream().resumed.try_get_with(key, read).await
}
