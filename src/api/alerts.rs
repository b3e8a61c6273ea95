//! `GET /api/v1/alerts?city=&severity=&hours=24&limit=50&from=&to=&cursor=`: alerts, newest first.
//!
//! `hours=n` limits the list to alerts whose event time is at most `n` hours ago. `hours` defaults to 24 if `hours`,
//! `from` and `to` are all absent. If both `hours` and `from` are given, the list begins at the later of the two times.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::budget::ReadCharge;
use crate::api::error::ApiError;
use crate::api::export::{ExportRow, ListAnswer, ListFormat};
use crate::api::params::{HOUR_MS, HOURS_MAX, Params};
use crate::api::schemas::{Level, Severities};
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::parse::is_city;
use crate::store::reads::{AlertItem, Page, PageRequest};

pub(super) const PATH: &str = "/api/v1/alerts";

const HOURS_DEFAULT: u32 = 24;

/// A page of the list of alerts.
#[derive(Serialize, ToSchema)]
struct Alerts {
    /// The number of alerts on this page.
    count: usize,
    /// The number of hours that the list covers. If `hours` is absent, the time from `from` to `to` is rounded up to
    /// whole hours. The number of hours is null if `hours` is absent and only one of `from` and `to` is given.
    time_range_hours: Option<i64>,
    /// The parameter `city`, exactly as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    /// The parameter `severity`, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Level, required = false)]
    severity: Option<&'static str>,
    /// Alerts, newest first by event time.
    alerts: Vec<Alert>,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An event of high or critical severity.
#[derive(Serialize, ToSchema)]
pub(super) struct Alert {
    /// The event's own id, or `<topic>-<partition>-<offset>`.
    event_id: String,
    /// The time at which the event happened, according to the producer of the event.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The city, as the producer spells it.
    city: String,
    /// The event type, such as `traffic`.
    event_type: String,
    /// `high` or `critical`.
    #[schema(value_type = Level)]
    severity: String,
    /// A description of the event for people; may be empty.
    description: String,
    /// When a consumer stored the alert.
    #[schema(format = DateTime)]
    processing_time: String,
    /// True if the event arrived too late for its window; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
}

impl ExportRow for Alert {
    const COLUMNS: &'static [&'static str] = &[
        "event_id",
        "timestamp",
        "city",
        "event_type",
        "severity",
        "description",
        "processing_time",
        "late",
    ];
}

impl From<AlertItem> for Alert {
    fn from(item: AlertItem) -> Alert {
        Alert {
            event_id: item.event_id,
            timestamp: item.event_time,
            city: item.city,
            event_type: item.event_type,
            severity: item.severity,
            description: item.description,
            processing_time: item.processing_time,
            late: item.late,
        }
    }
}

/// Returns events of high and critical severity, newest first
#[utoipa::path(
    get,
    path = "/api/v1/alerts",
    operation_id = "list_alerts",
    tag = "events",
    summary = "Events of high and critical severity, newest first",
    params(
        ("city" = Option<String>, Query, description = "Only alerts of this city", example = "NYC"),
        ("severity" = Option<Severities>, Query, description = "Only alerts of this severity. `low` and `medium` events raise no alerts", example = "critical"),
        ("hours" = Option<u32>, Query, description = "Length of the range in hours, back from now in event time. Defaults to 24 if `from` and `to` are absent", minimum = 1, maximum = 720, example = 24),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page; of `csv` and `ndjson`, maximum number of all items, up to 100,000", minimum = 1, maximum = 100000, example = 50),
        ("from" = Option<String>, Query, description = "Start of the range (inclusive), RFC 3339", format = DateTime, example = "2013-01-01T06:00:00Z"),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page. Except for `limit` and `format`, the other parameters must be the same", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
        ("format" = Option<ListFormat>, Query, description = "Form of the answer. `csv` and `ndjson` hold all pages, up to 100,000 items; `limit` may then be as large. An `Accept` header works, too", example = "json"),
    ),
    responses(
        (status = 200, description = "Events of high and critical severity, newest first", body = Alerts, example = json!({"count": 1, "time_range_hours": 24, "city": "NYC", "alerts": [{"event_id": "city-events-3-811", "timestamp": "2013-01-02T05:59:58.000Z", "city": "NYC", "event_type": "incident", "severity": "critical", "description": "water main break", "processing_time": "2013-01-02T06:00:00.412Z"}]})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    charge: Option<Extension<ReadCharge>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let allowed = "city severity hours limit from to cursor format";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let format = ListFormat::of(&params, &headers)?;
    let now_ms = state.now_ms();
    let (from, to) = (params.instant("from")?, params.instant("to")?);
    let hours = match params.number("hours", HOURS_MAX)? {
        None if from.is_none() && to.is_none() => Some(HOURS_DEFAULT),
        hours => hours,
    };
    let since = hours.map_or(UnixMs(0), |hours| now_ms - i64::from(hours) * HOUR_MS);
    let slice = params.slice(format.page_limit(50), since, now_ms)?;
    let time_range_hours = match (hours, from, to) {
        (Some(hours), _, _) => Some(i64::from(hours)),
        // The number of hours is rounded up, so that it covers the whole range from `from` to `to`.
        (None, Some(from), Some(to)) => Some((to - from + HOUR_MS - 1).div_euclid(HOUR_MS).max(0)),
        _ => None,
    };
    let city = params.text("city").map(ToOwned::to_owned);
    let echo = params.given("city").map(ToOwned::to_owned);
    let severity = params.severity()?;
    let of_page = params.clone();
    let read = move |state, slice| read_page(state, of_page.clone(), city.clone(), severity, slice);
    let body = |alerts: Vec<Alert>, next| Alerts {
        count: alerts.len(),
        time_range_hours,
        city: echo,
        severity: severity.map(Severity::name),
        alerts,
        next,
    };
    ListAnswer::new("alerts", format, slice, read)
        .respond(state, charge, &params, body)
        .await
}

async fn read_page(
    state: ApiState,
    params: Params,
    city: Option<String>,
    severity: Option<Severity>,
    slice: PageRequest,
) -> Result<Page<Alert>, ApiError> {
    let is_impossible = city.as_deref().is_some_and(|city| !is_city(city))
        || severity.is_some_and(|severity| !severity.is_alert());
    if slice.range.is_empty() || is_impossible {
        return Ok(Page::empty());
    }
    let page = state.reads().alerts(city, severity, slice).await;
    let page = page.map_err(|error| params.read_error(error))?;
    Ok(page.map(Alert::from))
}
