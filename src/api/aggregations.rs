//! `GET /api/v1/aggregations?city=&event_type=&step=&limit=10&from=&to=&cursor=`: windows, hours or days, newest first.
//!
//! The list contains the windows, hours or days that start in `[from, to)` and have events. `eventType` is an alias of
//! `event_type` for older clients.

mod steps;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use self::steps::{StepSum, read_steps};
use crate::api::budget::ReadCharge;
use crate::api::error::ApiError;
use crate::api::export::{ExportRow, ListAnswer, ListFormat};
use crate::api::params::Params;
use crate::api::schemas::{Level, StepUnit};
use crate::api::state::{ApiState, Freshness};
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::keys::series;
use crate::core::parse::{is_city, is_event_type};
use crate::core::rollup::Grain;
use crate::core::time::{format_millis, format_seconds};
use crate::store::reads::{AggregationItem, Page, PageRequest};

pub(super) const PATH: &str = "/api/v1/aggregations";

/// A page of the list of windows, hours or days.
#[derive(Serialize, ToSchema)]
struct Aggregations {
    /// The requested city.
    city: String,
    /// The requested event type, in lower case.
    event_type: String,
    /// The number of items on this page.
    count: usize,
    /// The smallest watermark that a partition has published; absent if no partition has published a watermark.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    watermark: Option<String>,
    /// Windows, hours or days, newest first.
    aggregations: Vec<Aggregation>,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The counts of a city and event type in one window, hour or day.
#[derive(Serialize, ToSchema)]
pub(super) struct Aggregation {
    /// The key of the window row: `<city>#<event_type>#<window_start>`. Absent for hours and days.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    partition_key: String,
    /// The start of the window, hour or day.
    #[schema(format = DateTime)]
    window_start: String,
    /// The end of the window, hour or day (exclusive).
    #[schema(format = DateTime)]
    window_end: String,
    /// The city, as producers spell it.
    city: String,
    /// The event type, such as `traffic`.
    event_type: String,
    /// The number of events that are counted in windows. Late events are not counted in any window.
    event_count: u64,
    /// The severities of the counted events, ordered from low to critical.
    #[schema(value_type = Vec<Level>)]
    severities: Vec<String>,
    /// The number of events of low severity.
    severity_low: u64,
    /// The number of events of medium severity.
    severity_medium: u64,
    /// The number of events of high severity.
    severity_high: u64,
    /// The number of events of critical severity.
    severity_critical: u64,
    /// The time at which a consumer last updated the window. `last_updated` is absent for rolled-up hours and days.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(format = DateTime, required = false)]
    last_updated: String,
    /// True if the window, hour or day gets no more events, because the watermark has passed its end.
    #[serde(rename = "final")]
    is_final: bool,
}

impl ExportRow for Aggregation {
    const COLUMNS: &'static [&'static str] = &[
        "partition_key",
        "window_start",
        "window_end",
        "city",
        "event_type",
        "event_count",
        "severities",
        "severity_low",
        "severity_medium",
        "severity_high",
        "severity_critical",
        "last_updated",
        "final",
    ];
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

impl Aggregation {
    fn of_step(city: &str, event_type: &str, step: StepSum) -> Aggregation {
        let [low, medium, high, critical] = step.counts;
        let occurring = Severity::ALL
            .into_iter()
            .filter(|severity| step.counts[severity.index()] > 0);
        Aggregation {
            partition_key: String::new(),
            window_start: format_seconds(step.start_ms),
            window_end: format_seconds(step.end_ms),
            city: city.to_owned(),
            event_type: event_type.to_owned(),
            event_count: step.counts.iter().sum(),
            severities: occurring.map(|one| one.name().to_owned()).collect(),
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
            last_updated: step.last_updated,
            is_final: step.is_final,
        }
    }
}

/// Returns the counts of a city and event type by window, hour or day, newest first
#[utoipa::path(
    get,
    path = "/api/v1/aggregations",
    operation_id = "list_aggregations",
    tag = "counts",
    summary = "Counts of a city and event type by window, hour or day, newest first",
    params(
        ("city" = String, Query, description = "A city", min_length = 1, example = "NYC"),
        ("event_type" = Option<String>, Query, description = "An event type. Either this or `eventType` is required", min_length = 1, example = "traffic"),
        ("eventType" = Option<String>, Query, description = "Alias of `event_type`", min_length = 1),
        ("step" = Option<StepUnit>, Query, description = "What an item sums. Days are those of UTC", example = "hour"),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page; of `csv` and `ndjson`, maximum number of all items, up to 100,000", minimum = 1, maximum = 100000, example = 10),
        ("from" = Option<String>, Query, description = "Start of the range (inclusive), RFC 3339", format = DateTime, example = "2013-01-01T06:00:00Z"),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page. Except for `limit` and `format`, the other parameters must be the same", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
        ("format" = Option<ListFormat>, Query, description = "Form of the answer. `csv` and `ndjson` hold all pages, up to 100,000 items; `limit` may then be as large. An `Accept` header works, too", example = "json"),
    ),
    responses(
        (status = 200, description = "Counts of a city and event type by window, hour or day, newest first", body = Aggregations, example = json!({"city": "NYC", "event_type": "traffic", "count": 1, "aggregations": [{"partition_key": "NYC#traffic#2013-01-02T05:55:00Z", "window_start": "2013-01-02T05:55:00Z", "window_end": "2013-01-02T06:00:00Z", "city": "NYC", "event_type": "traffic", "event_count": 5, "severities": ["low", "high"], "severity_low": 1, "severity_medium": 0, "severity_high": 4, "severity_critical": 0, "last_updated": "2013-01-02T06:00:00.000Z", "final": false}]})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    charge: Option<Extension<ReadCharge>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let allowed = "city event_type eventType step limit from to cursor format";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let format = ListFormat::of(&params, &headers)?;
    let (city, event_type) = wanted_series(&params)?;
    let list = List {
        city,
        event_type,
        grain: match StepUnit::parse(&params)? {
            None | Some(StepUnit::Window) => None,
            Some(StepUnit::Hour) => Some(Grain::Hour),
            Some(StepUnit::Day) => Some(Grain::Day),
        },
        params,
    };
    let slice = list
        .params
        .slice(format.page_limit(10), UnixMs(0), state.now_ms())?;
    if format != ListFormat::Json {
        let read = move |state: ApiState, slice| {
            let list = list.clone();
            async move { Ok(list.read(&state, &slice).await?.page) }
        };
        return ListAnswer::new("aggregations", format, slice, read)
            .export(state, charge)
            .await;
    }
    let key = list.params.key();
    let make = async {
        let read = list.read(&state, &slice).await?;
        let page = read.page;
        let answer = Aggregations {
            count: page.items.len(),
            watermark: read.watermark_ms.map(format_millis),
            next: list.params.next(page.next.as_ref(), slice.range),
            aggregations: page.items,
            city: list.city,
            event_type: list.event_type,
        };
        Ok::<_, ApiError>((answer, read.freshness))
    };
    state.answer_with_freshness(key, make).await
}

/// A page of windows, hours or days, with its watermark and the time for which a client may reuse it.
struct ReadPage {
    page: Page<Aggregation>,
    watermark_ms: Option<UnixMs>,
    freshness: Freshness,
}

/// The parameters of a request for a list of windows, hours or days.
#[derive(Clone)]
struct List {
    city: String,
    event_type: String,
    /// The length of the listed steps (hours or days), or `None` to list windows.
    grain: Option<Grain>,
    params: Params,
}

impl List {
    async fn read(&self, state: &ApiState, slice: &PageRequest) -> Result<ReadPage, ApiError> {
        let (city, event_type, params) = (&self.city, &self.event_type, &self.params);
        let is_possible = is_city(city) && is_event_type(event_type);
        let series = series(city, event_type);
        if slice.range.is_empty() || !is_possible {
            return Ok(ReadPage {
                page: Page::empty(),
                watermark_ms: None,
                freshness: Freshness::Revalidate,
            });
        }
        if let Some(grain) = self.grain {
            let read = read_steps(state, params, &series, grain, slice).await?;
            return Ok(ReadPage {
                page: read
                    .page
                    .map(|step| Aggregation::of_step(city, event_type, step)),
                watermark_ms: read.watermark_ms,
                freshness: Freshness::Revalidate,
            });
        }
        let read = state.reads().aggregations(series, slice.clone()).await;
        let windows = read.map_err(|error| params.read_error(error))?;
        Ok(ReadPage {
            freshness: if windows.are_settled(slice) {
                Freshness::Settled
            } else {
                Freshness::Revalidate
            },
            page: windows.page.map(Aggregation::from),
            watermark_ms: windows.watermark_ms,
        })
    }
}

/// Returns the requested city and event type.
///
/// # Errors
/// Returns `bad_parameter` if the city or the event type is absent, or if the request has both `event_type` and
/// `eventType`.
fn wanted_series(params: &Params) -> Result<(String, String), ApiError> {
    let Some(city) = params.text("city") else {
        return Err(ApiError::bad_parameter("city is required"));
    };
    match (params.text("event_type"), params.text("eventType")) {
        (Some(event_type), None) | (None, Some(event_type)) => {
            Ok((city.to_owned(), event_type.to_ascii_lowercase()))
        }
        (None, None) => Err(ApiError::bad_parameter("event_type is required")),
        (Some(_), Some(_)) => Err(ApiError::bad_parameter(
            "event_type and eventType are the same parameter; give only one",
        )),
    }
}
