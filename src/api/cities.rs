//! `GET /api/v1/cities?limit=1000&cursor=`: cities with their number of events, largest first.
//!
//! The largest cities are known only after all series have been read. If that costs too much, the cities come in
//! order of names, and a page reads only its own series.

mod by_name;

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
use crate::api::totals::Totals;
use crate::core::time::format_millis;
use crate::store::reads::{PageRequest, Position};

pub(super) const PATH: &str = "/api/v1/cities";

/// A page of cities.
#[derive(Serialize, ToSchema)]
#[schema(as = Cities)]
struct CitiesPage {
    /// The number of cities on this page.
    count: usize,
    /// `events`: largest first; cities with equally many events are sorted by name. `name`: there are too many
    /// series to read for a page, so cities are sorted by name.
    order: Order,
    /// The number of all cities; null in order of names, because it is unknown.
    #[schema(required = true)]
    city_count: Option<usize>,
    /// Events of all cities and all time, late ones included. In order of names, these are the sums that consumers
    /// publish for each partition of the topic, at most about five minutes old, or null if they are unknown.
    #[schema(required = true)]
    total_events: Option<u64>,
    /// When the totals were read.
    #[schema(format = DateTime)]
    generated_at: String,
    /// The cities in this order.
    cities: Vec<City>,
    /// The sum of the cities that this page does not list.
    others: OtherCities,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The order of cities.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = CitiesOrder)]
#[serde(rename_all = "lowercase")]
enum Order {
    Events,
    Name,
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
    /// The number of these cities; null if it is unknown.
    #[schema(required = true)]
    city_count: Option<usize>,
    /// Their events of all time, late ones included; null if they are unknown.
    #[schema(required = true)]
    total_events: Option<u64>,
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
        (status = 200, description = "Cities with their number of events, largest first", body = CitiesPage, example = json!({"count": 1, "order": "events", "city_count": 1, "total_events": 33960, "generated_at": "2013-01-02T06:00:00.000Z", "cities": [{"city": "NYC", "total_events": 33960}], "others": {"city_count": 0, "total_events": 0}})),
    ),
)]
pub(super) async fn get(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, "limit cursor")?;
    let slice = params.slice(LIMIT_MAX, 0, state.now_ms())?;
    let make = async {
        match slice.after.as_ref().map(Place::parse) {
            Some(None) => Err(ApiError::bad_cursor()),
            Some(Some(Place::Name(after))) => list_by_name(&state, &params, &slice, &after).await,
            Some(Some(Place::Events(events, city))) => match state.totals_if_few().await? {
                Some(totals) => Ok(list_by_events(
                    &params,
                    &slice,
                    &totals,
                    Some((events, city)),
                )),
                // The series have become too many since the previous page.
                None => Err(ApiError::bad_cursor()),
            },
            None => match state.totals_if_few().await? {
                Some(totals) => Ok(list_by_events(&params, &slice, &totals, None)),
                None => list_by_name(&state, &params, &slice, "").await,
            },
        }
    };
    state.answer(params.key(), make).await
}

/// Returns a page of the largest cities after `after`.
fn list_by_events(
    params: &Params,
    slice: &PageRequest,
    totals: &Totals,
    after: Option<(u64, String)>,
) -> CitiesPage {
    let mut by_city = BTreeMap::<&str, u64>::new();
    for total in &totals.every.largest {
        *by_city.entry(&total.city).or_default() += total.events();
    }
    let city_count = by_city.len();
    let total_events: u64 = by_city.values().sum();
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
    let next = cities.last().filter(|_| end < order.len());
    let next = next.map(|last| Place::Events(last.total_events, last.city.clone()).position());
    CitiesPage {
        count: cities.len(),
        order: Order::Events,
        city_count: Some(city_count),
        total_events: Some(total_events),
        generated_at: format_millis(totals.read_ms),
        others: OtherCities {
            city_count: Some(city_count - cities.len()),
            total_events: Some(total_events - sum_of(&cities)),
        },
        next: params.next(next.as_ref(), slice.range),
        cities,
    }
}

/// Returns a page of cities in order of names, whose series come after `after`.
async fn list_by_name(
    state: &ApiState,
    params: &Params,
    slice: &PageRequest,
    after: &str,
) -> Result<CitiesPage, ApiError> {
    let page = by_name::read_cities(state, after, slice.limit).await?;
    let all = state
        .partition_sums()
        .await?
        .map(|grand| grand.all.events());
    let listed = sum_of(&page.cities);
    let next = page.next.map(|series| Place::Name(series).position());
    Ok(CitiesPage {
        count: page.cities.len(),
        order: Order::Name,
        city_count: None,
        // The sums of partitions may be older than the series.
        total_events: all.map(|all| all.max(listed)),
        generated_at: format_millis(state.now_ms()),
        others: OtherCities {
            city_count: None,
            total_events: all.map(|all| all.saturating_sub(listed)),
        },
        next: params.next(next.as_ref(), slice.range),
        cities: page.cities,
    })
}

fn sum_of(cities: &[City]) -> u64 {
    cities.iter().map(|city| city.total_events).sum()
}

/// Where a page ends.
enum Place {
    /// After the city with these events and this name.
    Events(u64, String),
    /// After the series with this name.
    Name(String),
}

impl Place {
    fn position(self) -> Position {
        let (sort_key, lane, key) = match self {
            Place::Events(events, city) => (events.to_string(), 0, city),
            Place::Name(series) => (series, 1, String::new()),
        };
        Position {
            sort_key,
            lane,
            key,
        }
    }

    fn parse(position: &Position) -> Option<Place> {
        match position.lane {
            0 => Some(Place::Events(
                position.sort_key.parse().ok()?,
                position.key.clone(),
            )),
            1 => Some(Place::Name(position.sort_key.clone())),
            _ => None,
        }
    }
}
