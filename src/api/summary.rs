//! `GET /api/v1/summary/{city}`: the number of events of a city by event type and by severity, and the times of the
//! city's first and last event. All numbers include late events.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::{CityPath, Params};
use crate::api::state::ApiState;
use crate::core::keys::series;
use crate::core::parse::is_city;
use crate::core::rollup::{SeverityCounts, add_counts};
use crate::core::time::format_millis;
use crate::store::error::StoreError;

pub(super) const PATH: &str = "/api/v1/summary/{city}";

/// The number of events of a city.
#[derive(Serialize, ToSchema)]
struct Summary {
    /// The requested city.
    city: String,
    /// The number of all events of the city, including late events.
    total_events: u64,
    /// The number of events of the city for each event type.
    event_type_breakdown: BTreeMap<String, u64>,
    by_severity: BySeverity,
    /// The event time of the city's first event; absent if there is no event. If the raw row of the event has expired,
    /// the field contains the start of the event's window.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    first_event: Option<String>,
    /// The event time of the city's last event; absent if there is no event. If the raw row of the event has expired,
    /// the field contains the start of the event's window.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    last_event: Option<String>,
    /// When the server read the totals.
    #[schema(format = DateTime)]
    generated_at: String,
}

/// The number of events of a city by severity, including late events.
#[derive(Serialize, ToSchema)]
struct BySeverity {
    /// The number of events of low severity.
    low: u64,
    /// The number of events of medium severity.
    medium: u64,
    /// The number of events of high severity.
    high: u64,
    /// The number of events of critical severity.
    critical: u64,
}

/// Returns the number of events of a city by event type and by severity
#[utoipa::path(
    get,
    path = "/api/v1/summary/{city}",
    operation_id = "get_summary",
    tag = "counts",
    summary = "Number of events of a city by event type and by severity",
    params(
        ("city" = String, Path, description = "A city, percent-encoded", min_length = 1, example = "NYC"),
    ),
    responses(
        (status = 200, description = "Number of events of a city by event type and by severity", body = Summary, example = json!({"city": "NYC", "total_events": 12, "event_type_breakdown": {"traffic": 9, "weather": 3}, "by_severity": {"low": 4, "medium": 3, "high": 4, "critical": 1}, "first_event": "2013-01-01T05:00:02.000Z", "last_event": "2013-01-02T05:59:58.000Z", "generated_at": "2013-01-02T06:00:00.000Z"})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    CityPath(city): CityPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, Some(city.clone()), &uri, "")?;
    let make = async {
        let totals = match is_city(&city) {
            true => state.reads().totals(Some(city.clone())).await?,
            false => Vec::new(),
        };
        let mut by_type = BTreeMap::<String, u64>::new();
        let mut severities = SeverityCounts::default();
        for total in &totals {
            *by_type.entry(total.event_type.clone()).or_default() += total.events();
            add_counts(&mut severities, &total.severity_counts);
        }
        let names = totals.iter();
        let names = names
            .map(|total| series(&city, &total.event_type))
            .collect();
        let span = match totals.is_empty() {
            true => None,
            false => state.reads().span(city.clone(), names).await?,
        };
        let [low, medium, high, critical] = severities;
        Ok::<_, StoreError>(Summary {
            city,
            total_events: by_type.values().sum(),
            event_type_breakdown: by_type,
            by_severity: BySeverity {
                low,
                medium,
                high,
                critical,
            },
            first_event: span.map(|span| format_millis(span.from_ms)),
            last_event: span.map(|span| format_millis(span.to_ms)),
            generated_at: format_millis(state.now_ms()),
        })
    };
    state.answer(params.key(), make).await
}
