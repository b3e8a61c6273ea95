//! `GET /api/v1/summary/{city}`: a city's events by event type, late ones included.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::{CityPath, Params, is_possible_city};
use crate::api::state::ApiState;
use crate::core::time::format_millis;
use crate::store::error::StoreError;

pub(super) const PATH: &str = "/api/v1/summary/{city}";

/// The number of events of a city.
#[derive(Serialize, ToSchema)]
struct Summary {
    /// The requested city.
    city: String,
    /// Events of all time, late ones included.
    total_events: u64,
    /// The same events by event type.
    event_type_breakdown: BTreeMap<String, u64>,
    /// When the totals were read.
    #[schema(format = DateTime)]
    generated_at: String,
}

/// Returns the number of events of a city by event type
#[utoipa::path(
    get,
    path = "/api/v1/summary/{city}",
    operation_id = "get_summary",
    tag = "counts",
    summary = "Number of events of a city by event type",
    params(
        ("city" = String, Path, description = "A city, percent-encoded", min_length = 1, example = "NYC"),
    ),
    responses(
        (status = 200, description = "Number of events of a city by event type", body = Summary, example = json!({"city": "NYC", "total_events": 12, "event_type_breakdown": {"traffic": 9, "weather": 3}, "generated_at": "2013-01-02T06:00:00.000Z"})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    CityPath(city): CityPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, Some(city.clone()), &uri, "")?;
    let make = async {
        let mut by_type = BTreeMap::<String, u64>::new();
        if is_possible_city(&city) {
            for total in state.reads().totals(Some(city.clone())).await? {
                let events = total.events();
                *by_type.entry(total.event_type).or_default() += events;
            }
        }
        Ok::<_, StoreError>(Summary {
            city,
            total_events: by_type.values().sum(),
            event_type_breakdown: by_type,
            generated_at: format_millis(state.now_ms()),
        })
    };
    state.answer(params.key(), make).await
}
