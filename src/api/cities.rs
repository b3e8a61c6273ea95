//! `GET /api/v1/cities`: every city with its number of events, largest first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::state::ApiState;

pub(super) const PATH: &str = "/api/v1/cities";

#[derive(Serialize, ToSchema)]
struct Cities {
    count: usize,
    cities: Vec<City>,
}

#[derive(Serialize, ToSchema)]
struct City {
    city: String,
    total_events: u64,
}

/// Every city with its number of events, largest first
#[utoipa::path(
    get,
    path = "/api/v1/cities",
    summary = "Every city with its number of events, largest first",
    responses(
        (status = 200, description = "Every city with its number of events, largest first", body = Cities, example = json!({"count": 1, "cities": [{"city": "NYC", "total_events": 33960}]})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, &[])?;
    let make = async {
        let mut by_city = BTreeMap::<String, u64>::new();
        for total in &state.totals().await?.items {
            let events = total.events();
            *by_city.entry(total.city.clone()).or_default() += events;
        }
        let mut cities: Vec<City> = by_city
            .into_iter()
            .map(|(city, total_events)| City { city, total_events })
            .collect();
        // Stable, so equal ones stay in the order of their names.
        cities.sort_by_key(|city| Reverse(city.total_events));
        Ok::<_, ApiError>(Cities {
            count: cities.len(),
            cities,
        })
    };
    state.answer(params.key(), make).await
}
