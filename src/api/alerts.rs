//! `GET /api/v1/alerts?city=&severity=&hours=24&limit=50&from=&to=&cursor=`: alerts, newest first.
//!
//! `hours` counts back from now in event time. It defaults to 24 if `hours`, `from` and `to` are all absent. If
//! both `hours` and `from` are given, the later start wins.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::{HOUR_MS, HOURS_MAX, Params, is_possible_city};
use crate::api::schemas::{Level, Severities};
use crate::api::state::ApiState;
use crate::store::reads::{AlertItem, Page};

pub(super) const PATH: &str = "/api/v1/alerts";

const HOURS_DEFAULT: u32 = 24;

/// A page of alerts.
#[derive(Serialize, ToSchema)]
struct Alerts {
    /// The number of alerts on this page.
    count: usize,
    /// The hours that the list covers: `hours`, or the length from `from` to `to` rounded up. Null if only one
    /// of `from` and `to` is given.
    time_range_hours: Option<i64>,
    /// The parameter `city`, unchanged.
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
    /// When the event happened, according to its producer.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The city, as the producer spells it.
    city: String,
    /// The event type, such as `traffic`.
    event_type: String,
    /// `high` or `critical`.
    #[schema(value_type = Level)]
    severity: String,
    /// What happened, for people. May be empty.
    description: String,
    /// When a consumer stored the alert.
    #[schema(format = DateTime)]
    processing_time: String,
    /// True if the event arrived too late for its window; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
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
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page", minimum = 1, maximum = 1000, example = 50),
        ("from" = Option<String>, Query, description = "Start of the range (inclusive), RFC 3339", format = DateTime, example = "2013-01-01T06:00:00Z"),
        ("to" = Option<String>, Query, description = "End of the range (exclusive), RFC 3339", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page. Except for `limit`, the other parameters must be the same", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
    ),
    responses(
        (status = 200, description = "Events of high and critical severity, newest first", body = Alerts, example = json!({"count": 1, "time_range_hours": 24, "city": "NYC", "alerts": [{"event_id": "city-events-3-811", "timestamp": "2013-01-02T05:59:58.000Z", "city": "NYC", "event_type": "incident", "severity": "critical", "description": "water main break", "processing_time": "2013-01-02T06:00:00.412Z"}]})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let allowed = "city severity hours limit from to cursor";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let now_ms = state.now_ms();
    let (from, to) = (params.instant("from")?, params.instant("to")?);
    let hours = match params.number("hours", HOURS_MAX)? {
        None if from.is_none() && to.is_none() => Some(HOURS_DEFAULT),
        hours => hours,
    };
    let since = hours.map_or(0, |hours| now_ms - i64::from(hours) * HOUR_MS);
    let slice = params.slice(50, since, now_ms)?;
    let time_range_hours = match (hours, from, to) {
        (Some(hours), _, _) => Some(i64::from(hours)),
        // Rounded up, so that the range covers every listed alert.
        (None, Some(from), Some(to)) => Some((to - from + HOUR_MS - 1).div_euclid(HOUR_MS).max(0)),
        _ => None,
    };
    let city = params.text("city").map(ToOwned::to_owned);
    let echo = params.given("city").map(ToOwned::to_owned);
    let severity = params.severity()?;
    let impossible = city.as_deref().is_some_and(|city| !is_possible_city(city))
        || severity.is_some_and(|severity| !severity.is_alert());
    let make = async {
        let page = if slice.range.is_empty() || impossible {
            Page::empty()
        } else {
            let reads = state.reads();
            let read = reads.alerts(city.clone(), severity, slice.clone());
            read.await.map_err(|error| params.read_error(error))?
        };
        Ok::<_, ApiError>(Alerts {
            count: page.items.len(),
            time_range_hours,
            city: echo,
            severity: severity.map(crate::core::event::Severity::name),
            next: params.next(page.next.as_ref(), slice.range),
            alerts: page.items.into_iter().map(Alert::from).collect(),
        })
    };
    state.answer(params.key(), make).await
}
