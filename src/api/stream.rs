//! `GET /api/v1/stream?city=&severity=`: new alerts, changed windows and changed incidents as server-sent events.
//!
//! One [`poller`] reads DynamoDB for all listeners together and publishes events into the `Feed`. Each listener
//! reads the feed at its own pace. [`changes`] decides which alerts and windows are new, and [`incidents`] publishes
//! incidents.
//!
//! A listener that reconnects with `Last-Event-ID` continues after the event with that id. The feed may lack the events
//! after `Last-Event-ID` if another process served the listener before, or if no listener was connected for a while. If
//! the feed lacks events, the stream starts with the event `reset`, which names the kinds of events that may be
//! missing. After the event `reset`, the stream repeats the alerts that were stored after the listener's last event,
//! but no windows or incidents. In the event `reset`, the name `windows` also stands for incidents.

mod changes;
mod incidents;
mod poller;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::Response;
use bytes::BytesMut;
use futures_util::stream;
use tokio::sync::watch;

use self::changes::sort_as_stored;
use self::poller::newest;
use crate::api::alerts::Alert;
use crate::api::error::ApiError;
use crate::api::export::StreamedBody;
use crate::api::feed::{
    BATCH_BYTES_MAX, FeedPosition, FeedRead, ListenerGuard, StreamFilter, frame, json,
};
use crate::api::params::Params;
use crate::api::schemas::Severities;
use crate::api::spent::Spent;
use crate::api::state::{ApiState, READ_UNITS_MAX};
use crate::core::time::parse_timestamp;
use crate::shutdown::Shutdown;
use crate::store::reads::{AlertItem, Meter, Page};

pub(super) const PATH: &str = "/api/v1/stream";

/// Time between two heartbeats. Proxies and browsers close a connection after about a minute without data.
const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEAT_LINE: Bytes = Bytes::from_static(b": heartbeat\n\n");
/// A resuming listener gets only alerts whose event time is at most `RESUME_BACK_MS` milliseconds before its resume
/// position. `RESUME_ALERTS_MAX` is the maximum number of alerts that are read for a resuming listener.
const RESUME_BACK_MS: i64 = 24 * 3_600_000;
const RESUME_ALERTS_MAX: usize = 1_000;
/// When a listener resumes, the stream also repeats alerts that were stored up to `RESUME_SLACK_MS` milliseconds before
/// the resume position.
const RESUME_SLACK_MS: i64 = 5_000;

struct Listener {
    guard: ListenerGuard,
    filter: StreamFilter,
    after: u64,
    wakes: watch::Receiver<u64>,
    shutdown: Shutdown,
    first: Option<Bytes>,
}

impl Listener {
    /// Returns the next bytes of the stream, or `None` when the server stops.
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
            // The receiver must be marked as unchanged before the read, because an event that is published after the
            // read must still wake the listener.
            self.wakes.mark_unchanged();
            match self.guard.feed().read(self.after, &self.filter) {
                FeedRead::Events(bytes, reached) => {
                    self.after = reached;
                    return Some(bytes);
                }
                FeedRead::Nothing(reached) => self.after = reached,
                FeedRead::Lost(position) => {
                    self.after = position.number;
                    let reason = "this client reads too slowly";
                    return Some(reset(reason, &["alerts", "windows"], Some(position)));
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

/// Returns the event `reset`, which names the kinds of events that the listener may have missed.
fn reset(reason: &str, missed: &[&str], id: Option<FeedPosition>) -> Bytes {
    let data = serde_json::json!({"reason": reason, "missed": missed});
    frame("reset", id, &data.to_string())
}

/// Streams new alerts, changed windows and changed incidents as server-sent events
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    operation_id = "listen",
    tag = "events",
    summary = "New alerts, changed windows and changed incidents, as server-sent events",
    description = "Sends the events `status`, `stats`, `alert`, `window`, `incident` and `reset`. The answer does not end.",
    params(
        ("city" = Option<String>, Query, description = "Only alerts, windows and incidents of this city; incidents without a city are always sent", example = "NYC"),
        ("severity" = Option<Severities>, Query, description = "Only alerts of this severity", example = "critical"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event received; the stream continues after it", pattern = "^[0-9]{1,15}\\.[0-9a-f]{8}\\.[0-9]{1,15}$"),
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
    let params = Params::parse(PATH, None, &uri, "city severity")?;
    let filter = StreamFilter {
        city: params.text("city").map(ToOwned::to_owned),
        severity: params.severity()?,
    };
    let resumed = match headers.get("last-event-id").map(HeaderValue::to_str) {
        None | Some(Ok("")) => None,
        Some(Ok(text)) => Some(FeedPosition::parse(text).ok_or_else(ApiError::bad_event_id)?),
        Some(Err(_)) => return Err(ApiError::bad_event_id()),
    };
    let feed = state.feed();
    let (guard, must_start_poller) = feed.add_listener(state.now_ms());
    if must_start_poller {
        tokio::spawn(poller::run(state.clone()));
    }
    let wakes = feed.subscribe();
    let (position, greeting) = feed.greeting();
    let mut first = BytesMut::from(&*greeting);
    let mut after = position.number;
    let mut spent = 0.0;
    match resumed {
        Some(resumed) if feed.remembers(resumed) => after = resumed.number,
        Some(resumed) => {
            let (missed, units) = missed_since(&state, &filter, resumed, position).await;
            first.extend_from_slice(&missed);
            spent = units;
        }
        None => {}
    }
    let listener = Listener {
        guard,
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
    response.extensions_mut().insert(StreamedBody {
        held_bytes: BATCH_BYTES_MAX,
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Without the header `x-accel-buffering`, a proxy such as nginx would buffer the events.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// Returns the event `reset`, followed by the alerts that were stored after the position `resumed`. The caller has
/// checked that the feed lacks events after `resumed`. Also returns the number of read units that the read of the
/// alerts cost.
///
/// The returned text ends with the id `now`, so that a client that reconnects later resumes after the returned alerts.
async fn missed_since(
    state: &ApiState,
    filter: &StreamFilter,
    resumed: FeedPosition,
    now: FeedPosition,
) -> (Bytes, f64) {
    let back_ms = resumed.ms - RESUME_BACK_MS;
    let meter = Meter::bounded(READ_UNITS_MAX);
    let found = if filter.severity.is_some_and(|s| !s.is_alert()) {
        Ok(Arc::new(Page::empty()))
    } else {
        newest_alerts(state, filter, &meter).await
    };
    let (mut alerts, is_complete) = match found {
        Ok(page) => {
            let is_older = |a: &AlertItem| parse_timestamp(&a.event_time) < Some(back_ms);
            let is_complete = page.next.is_none() || page.items.last().is_some_and(is_older);
            (page.items.clone(), is_complete)
        }
        Err(_) => (Vec::new(), false),
    };
    alerts.retain(|a| parse_timestamp(&a.event_time).is_some_and(|ms| ms >= back_ms));
    let since_ms = resumed.ms - RESUME_SLACK_MS;
    alerts.retain(|a| parse_timestamp(&a.processing_time).is_some_and(|ms| ms >= since_ms));
    sort_as_stored(&mut alerts);
    let missed: &[&str] = if is_complete {
        &["windows"]
    } else {
        &["alerts", "windows"]
    };
    let reason = "this server does not remember that id";
    let mut out = BytesMut::from(&*reset(reason, missed, None));
    for alert in alerts {
        out.extend_from_slice(&frame("alert", None, &json(&Alert::from(alert))));
    }
    out.extend_from_slice(format!("id: {now}\n\n").as_bytes());
    (out.freeze(), meter.spent().1)
}

/// Returns the newest alerts that match a filter. All listeners with the same filter share one read per second, so that
/// the cost does not grow with the number of reconnecting clients.
async fn newest_alerts(
    state: &ApiState,
    filter: &StreamFilter,
    meter: &Meter,
) -> Result<Arc<Page<AlertItem>>, Arc<ApiError>> {
    let key = (filter.city.clone(), filter.severity);
    let read = async {
        let _slot = state.acquire_build_slot().await;
        let slice = newest(RESUME_ALERTS_MAX, state.now_ms());
        let reads = state.reads();
        let read = meter.run(reads.alerts(filter.city.clone(), filter.severity, slice));
        state.within_deadline(read).await.map(Arc::new)
    };
    state.feed().recent_alerts.try_get_with(key, read).await
}
