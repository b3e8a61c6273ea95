//! `GET /api/v1/events/{city}?limit=20&from=&to=&cursor=`: the events of a city, newest first.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::budget::ReadCharge;
use crate::api::error::ApiError;
use crate::api::export::{ExportRow, ListAnswer, ListFormat};
use crate::api::params::{CityPath, Params};
use crate::api::schemas::Level;
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::core::parse::is_city;
use crate::store::reads::{EventItem, Page, PageRequest};

pub(super) const PATH: &str = "/api/v1/events/{city}";

/// A page of the list of events.
#[derive(Serialize, ToSchema)]
struct Events {
    /// The requested city.
    city: String,
    /// The number of events on this page.
    count: usize,
    /// Events, newest first by event time.
    events: Vec<ListedEvent>,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An event as the consumer stored it.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
struct ListedEvent {
    /// The event's own id, or `<topic>-<partition>-<offset>`.
    event_id: String,
    /// The time at which the event happened, according to the producer of the event.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The city, as the producer spells it.
    city: String,
    /// The event type, such as `traffic`.
    event_type: String,
    /// The severity.
    #[schema(value_type = Level)]
    severity: String,
    /// A description of the event for people; may be empty.
    description: String,
    /// When a consumer stored the event.
    #[schema(format = DateTime)]
    processing_time: String,
    /// The time after which DynamoDB may delete the event, in Unix seconds.
    ttl: i64,
    /// True if the event arrived too late for its window; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
    /// True if the event time is more than five minutes (or `--max-skew`) after Kafka's timestamp of the record;
    /// absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    future: bool,
    /// The Kafka record that contains the event, as `<topic>/<partition>/<offset>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// All additional fields of the Kafka record in one JSON object, with unchanged values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    extra: Option<Box<RawValue>>,
}

impl ExportRow for ListedEvent {
    const COLUMNS: &'static [&'static str] = &[
        "event_id",
        "timestamp",
        "city",
        "event_type",
        "severity",
        "description",
        "processing_time",
        "ttl",
        "late",
        "future",
        "source",
        "extra",
    ];
}

impl From<EventItem> for ListedEvent {
    fn from(item: EventItem) -> ListedEvent {
        ListedEvent {
            event_id: item.event_id,
            timestamp: item.timestamp,
            city: item.city,
            event_type: item.event_type,
            severity: item.severity,
            description: item.description,
            processing_time: item.processing_time,
            ttl: item.ttl,
            late: item.late,
            future: item.future,
            source: item.source,
            extra: item.extra.and_then(|text| RawValue::from_string(text).ok()),
        }
    }
}

/// Returns the events of a city, newest first
#[utoipa::path(
    get,
    path = "/api/v1/events/{city}",
    operation_id = "list_events",
    tag = "events",
    summary = "Events of a city, newest first",
    params(
        ("city" = String, Path, description = "A city, percent-encoded", min_length = 1, example = "NYC"),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page; of `csv` and `ndjson`, maximum number of all items, up to 100,000", minimum = 1, maximum = 100000, example = 20),
        ("from" = Option<String>, Query, description = "Start of the range (inclusive), RFC 3339", format = DateTime, example = "2013-01-01T06:00:00Z"),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page. Except for `limit` and `format`, the other parameters must be the same", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
        ("format" = Option<ListFormat>, Query, description = "Form of the answer. `csv` and `ndjson` hold all pages, up to 100,000 items; `limit` may then be as large. An `Accept` header works, too", example = "json"),
    ),
    responses(
        (status = 200, description = "Events of a city, newest first", body = Events, example = json!({"city": "NYC", "count": 1, "events": [{"event_id": "city-events-3-811", "timestamp": "2013-01-02T05:59:58.000Z", "city": "NYC", "event_type": "traffic", "severity": "high", "description": "high traffic congestion detected", "processing_time": "2013-01-02T06:00:00.412Z", "ttl": 1359698400, "source": "city-events/3/811"}]})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    CityPath(city): CityPath,
    charge: Option<Extension<ReadCharge>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let allowed = "limit from to cursor format";
    let params = Params::parse(PATH, Some(city.clone()), &uri, allowed)?;
    let format = ListFormat::of(&params, &headers)?;
    let slice = params.slice(format.page_limit(20), UnixMs(0), state.now_ms())?;
    let (of_page, of_city) = (params.clone(), city.clone());
    let read = move |state, slice| read_page(state, of_page.clone(), of_city.clone(), slice);
    let body = |events: Vec<ListedEvent>, next| Events {
        city,
        count: events.len(),
        events,
        next,
    };
    ListAnswer::new("events", format, slice, read)
        .respond(state, charge, &params, body)
        .await
}

async fn read_page(
    state: ApiState,
    params: Params,
    city: String,
    slice: PageRequest,
) -> Result<Page<ListedEvent>, ApiError> {
    if slice.range.is_empty() || !is_city(&city) {
        return Ok(Page::empty());
    }
    let page = state.reads().events(city, slice).await;
    let page = page.map_err(|error| params.read_error(error))?;
    Ok(page.map(ListedEvent::from))
}
