//! `GET /api/v1/summary/{city}`: a city's events by type, late ones included.

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

/// The events of a city.
#[derive(Serialize, ToSchema)]
struct Summary {
    /// The city asked for.
    city: String,
    /// Its events of all time, late ones included.
    total_events: u64,
    /// The same by event type.
    event_type_breakdown: BTreeMap<String, u64>,
    /// When the totals were read.
    #[schema(format = DateTime)]
    generated_at: String,
}

/// Events of a city by type
#[utoipa::path(
    get,
    path = "/api/v1/summary/{city}",
    operation_id = "get_summary",
    summary = "Events of a city by type",
    params(
        ("city" = String, Path, description = "A city, percent-encoded", min_length = 1, example = "NYC"),
    ),
    responses(
        (status = 200, description = "Events of a city by type", body = Summary, example = json!({"city": "NYC", "total_events": 12, "event_type_breakdown": {"traffic": 9, "weather": 3}, "generated_at": "2013-01-02T06:00:00.000Z"})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    CityPath(city): CityPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, Some(city.clone()), &uri, &[])?;
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
