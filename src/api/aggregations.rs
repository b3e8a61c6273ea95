//! `GET /api/v1/aggregations?city=&event_type=&limit=10&from=&to=&cursor=`: windows, newest first.
//!
//! Lists the windows that start in `[from, to)`. `eventType` is an alias of `event_type`, for older clients.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::{Params, is_possible_city, is_possible_type};
use crate::api::schemas::Level;
use crate::api::state::{ApiState, Freshness};
use crate::core::keys::series;
use crate::core::time::format_millis;
use crate::store::reads::{AggregationItem, Windows};

pub(super) const PATH: &str = "/api/v1/aggregations";

/// A page of windows.
#[derive(Serialize, ToSchema)]
struct Aggregations {
    /// The requested city.
    city: String,
    /// The requested event type, in lower case.
    event_type: String,
    /// The number of windows on this page.
    count: usize,
    /// The smallest watermark of all partitions that have published one; absent if none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    watermark: Option<String>,
    /// Windows, newest first.
    aggregations: Vec<Aggregation>,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The counts of a city and event type in one window.
#[derive(Serialize, ToSchema)]
pub(super) struct Aggregation {
    /// The key of the window: `<city>#<event_type>#<window_start>`.
    partition_key: String,
    /// First instant of the window.
    #[schema(format = DateTime)]
    window_start: String,
    /// First instant after the window.
    #[schema(format = DateTime)]
    window_end: String,
    /// The city, as producers spell it.
    city: String,
    /// The event type, such as `traffic`.
    event_type: String,
    /// Events counted in the window. Late events are in no window.
    event_count: u64,
    /// The severities that occur in the window, from low to critical.
    #[schema(value_type = Vec<Level>)]
    severities: Vec<String>,
    /// Events of low severity.
    severity_low: u64,
    /// Events of medium severity.
    severity_medium: u64,
    /// Events of high severity.
    severity_high: u64,
    /// Events of critical severity.
    severity_critical: u64,
    /// When a consumer last updated the window.
    #[schema(format = DateTime)]
    last_updated: String,
    /// True if the watermark has passed the window, so it gets no more events.
    #[serde(rename = "final")]
    is_final: bool,
}

impl From<AggregationItem> for Aggregation {
    fn from(item: AggregationItem) -> Aggregation {
        let [low, medium, high, critical] = item.severity_counts;
        Aggregation {
            partition_key: item.partition_key,
            window_start: item.window_start,
            window_end: item.window_end,
            city: item.city,
            event_type: item.event_type,
            event_count: item.event_count,
            severities: item.severities,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
            last_updated: item.last_updated,
            is_final: item.is_final,
        }
    }
}

/// Returns the counts of a city and event type by window, newest first
#[utoipa::path(
    get,
    path = "/api/v1/aggregations",
    operation_id = "list_aggregations",
    tag = "counts",
    summary = "Counts of a city and event type by window, newest first",
    params(
        ("city" = String, Query, description = "A city", min_length = 1, example = "NYC"),
        ("event_type" = Option<String>, Query, description = "An event type. Either this or `eventType` is required", min_length = 1, example = "traffic"),
        ("eventType" = Option<String>, Query, description = "Alias of `event_type`", min_length = 1),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page", minimum = 1, maximum = 1000, example = 10),
        ("from" = Option<String>, Query, description = "Start of the range (inclusive), RFC 3339", format = DateTime, example = "2013-01-01T06:00:00Z"),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page. Except for `limit`, the other parameters must be the same", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
    ),
    responses(
        (status = 200, description = "Counts of a city and event type by window, newest first", body = Aggregations, example = json!({"city": "NYC", "event_type": "traffic", "count": 1, "aggregations": [{"partition_key": "NYC#traffic#2013-01-02T05:55:00Z", "window_start": "2013-01-02T05:55:00Z", "window_end": "2013-01-02T06:00:00Z", "city": "NYC", "event_type": "traffic", "event_count": 5, "severities": ["low", "high"], "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0, "last_updated": "2013-01-02T06:00:00.000Z", "final": false}]})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let allowed = "city event_type eventType limit from to cursor";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let Some(city) = params.text("city").map(ToOwned::to_owned) else {
        return Err(ApiError::bad_parameter("city is required"));
    };
    let event_type = match (params.text("event_type"), params.text("eventType")) {
        (Some(event_type), None) | (None, Some(event_type)) => event_type.to_ascii_lowercase(),
        (None, None) => return Err(ApiError::bad_parameter("event_type is required")),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_parameter(
                "event_type and eventType are the same parameter; give only one",
            ));
        }
    };
    let slice = params.slice(10, 0, state.now_ms())?;
    let impossible = !is_possible_city(&city) || !is_possible_type(&event_type);
    let make = async {
        let windows = if slice.range.is_empty() || impossible {
            Windows::none()
        } else {
            let series = series(&city, &event_type);
            let read = state.reads().aggregations(series, slice.clone());
            read.await.map_err(|error| params.read_error(error))?
        };
        let freshness = if windows.are_settled(&slice) {
            Freshness::Settled
        } else {
            Freshness::Revalidate
        };
        let page = windows.page;
        let answer = Aggregations {
            city,
            event_type,
            count: page.items.len(),
            watermark: windows.watermark_ms.map(format_millis),
            next: params.next(page.next.as_ref(), slice.range),
            aggregations: page.items.into_iter().map(Aggregation::from).collect(),
        };
        Ok::<_, ApiError>((answer, freshness))
    };
    state.answer_with_freshness(params.key(), make).await
}
