//! `GET /api/v1/cities?limit=1000&cursor=`: cities with their number of events, largest first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::params::{LIMIT_MAX, Params};
use crate::api::state::ApiState;
use crate::core::time::format_millis;
use crate::store::reads::Position;

pub(super) const PATH: &str = "/api/v1/cities";

/// A page of cities.
#[derive(Serialize, ToSchema)]
#[schema(as = Cities)]
struct CitiesPage {
    /// The number of cities on this page.
    count: usize,
    /// The number of all cities.
    city_count: usize,
    /// Events of all cities and all time, late ones included.
    total_events: u64,
    /// When the totals were read.
    #[schema(format = DateTime)]
    generated_at: String,
    /// Cities, largest first. Cities with equally many events are sorted by name.
    cities: Vec<City>,
    /// The sum of the cities that this page does not list.
    others: OtherCities,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A city with its number of events.
#[derive(Clone, Serialize, ToSchema)]
struct City {
    /// The city, as producers spell it.
    city: String,
    /// Events of all time, late ones included.
    total_events: u64,
}

/// The sum of the cities that a page does not list.
#[derive(Serialize, ToSchema)]
struct OtherCities {
    /// The number of these cities.
    city_count: usize,
    /// Their events of all time, late ones included.
    total_events: u64,
}

/// Returns cities with their number of events, largest first
#[utoipa::path(
    get,
    path = "/api/v1/cities",
    operation_id = "list_cities",
    tag = "counts",
    summary = "Cities with their number of events, largest first",
    params(
        ("limit" = Option<u32>, Query, description = "Maximum number of cities per page", minimum = 1, maximum = 1000, example = 1000),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
    ),
    responses(
        (status = 200, description = "Cities with their number of events, largest first", body = CitiesPage, example = json!({"count": 1, "city_count": 1, "total_events": 33960, "generated_at": "2013-01-02T06:00:00.000Z", "cities": [{"city": "NYC", "total_events": 33960}], "others": {"city_count": 0, "total_events": 0}})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, "limit cursor")?;
    let slice = params.slice(LIMIT_MAX, 0, state.now_ms())?;
    let after = match &slice.after {
        Some(position) => Some(city_at(position).ok_or_else(ApiError::bad_cursor)?),
        None => None,
    };
    let make = async {
        let totals = state.totals().await?;
        totals.require_complete()?;
        let mut by_city = BTreeMap::<&str, u64>::new();
        for total in &totals.every.largest {
            *by_city.entry(&total.city).or_default() += total.events();
        }
        let city_count = by_city.len();
        let total_events = by_city.values().sum();
        let mut order: Vec<(Reverse<u64>, &str)> = by_city
            .into_iter()
            .map(|(city, events)| (Reverse(events), city))
            .collect();
        order.sort_unstable();
        let first = after.as_ref().map_or(0, |(events, city)| {
            order.partition_point(|one| *one <= (Reverse(*events), city.as_str()))
        });
        let end = order.len().min(first + slice.limit);
        let cities: Vec<City> = order[first..end]
            .iter()
            .map(|(Reverse(total_events), city)| City {
                city: (*city).to_owned(),
                total_events: *total_events,
            })
            .collect();
        let listed: u64 = cities.iter().map(|city| city.total_events).sum();
        let next = cities.last().filter(|_| end < order.len()).map(position_of);
        Ok::<_, ApiError>(CitiesPage {
            count: cities.len(),
            city_count,
            total_events,
            generated_at: format_millis(totals.read_ms),
            others: OtherCities {
                city_count: city_count - cities.len(),
                total_events: total_events - listed,
            },
            next: params.next(next.as_ref(), slice.range),
            cities,
        })
    };
    state.answer(params.key(), make).await
}

/// Returns the position of a city in the list.
fn position_of(last: &City) -> Position {
    Position {
        sort_key: last.total_events.to_string(),
        lane: 0,
        key: last.city.clone(),
    }
}

/// Returns the number of events and the name of the city at a position.
fn city_at(position: &Position) -> Option<(u64, String)> {
    Some((position.sort_key.parse().ok()?, position.key.clone()))
}
