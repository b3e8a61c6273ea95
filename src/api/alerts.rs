//! `GET /api/v1/alerts?city=&severity=&hours=24&limit=50&from=&to=&cursor=`
//!
//! `hours` counts back from now, by event time. It is 24 unless it or a `from` or `to` is given; with
//! both `hours` and `from` the later start counts.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::params::{HOURS_MAX, Params, is_possible_city};
use crate::api::state::ApiState;
use crate::store::error::StoreError;
use crate::store::reads::{AlertItem, Page};

pub(super) const PATH: &str = "/api/v1/alerts";

const HOURS_DEFAULT: u32 = 24;
const HOUR_MS: i64 = 3_600_000;

#[derive(Serialize)]
struct Alerts {
    count: usize,
    /// How far back from now the list reaches; null where only `to` bounds it.
    time_range_hours: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'static str>,
    alerts: Vec<Alert>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An item, as the API shows it.
#[derive(Serialize)]
pub(super) struct Alert {
    event_id: String,
    timestamp: String,
    city: String,
    event_type: String,
    severity: String,
    description: String,
    processing_time: String,
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

pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let allowed = ["city", "severity", "hours", "limit", "from", "to", "cursor"];
    let params = Params::parse(PATH, None, &uri, &allowed)?;
    let now_ms = state.now_ms();
    let (from, to) = (params.instant("from")?, params.instant("to")?);
    let hours = match params.number("hours", HOURS_MAX)? {
        None if from.is_none() && to.is_none() => Some(HOURS_DEFAULT),
        hours => hours,
    };
    let since = hours.map_or(0, |hours| now_ms - i64::from(hours) * HOUR_MS);
    let slice = params.slice(50, since, now_ms)?;
    let time_range_hours = match (hours, from) {
        (Some(hours), _) => Some(i64::from(hours)),
        // Rounded up, so that the range named holds all that is listed.
        (None, Some(from)) => Some((now_ms - from + HOUR_MS - 1).div_euclid(HOUR_MS).max(0)),
        (None, None) => None,
    };
    let city = params.text("city").map(ToOwned::to_owned);
    let severity = params.severity()?;
    let impossible = city.as_deref().is_some_and(|city| !is_possible_city(city))
        || severity.is_some_and(|severity| !severity.is_alert());
    let make = async {
        let page = if slice.range.is_empty() || impossible {
            Page::empty()
        } else {
            let reads = state.reads();
            reads.alerts(city.clone(), severity, slice.clone()).await?
        };
        Ok::<_, StoreError>(Alerts {
            count: page.items.len(),
            time_range_hours,
            city,
            severity: severity.map(crate::core::event::Severity::name),
            next: params.next(page.next.as_ref(), slice.range),
            alerts: page.items.into_iter().map(Alert::from).collect(),
        })
    };
    state.answer(params.key(), make).await
}
