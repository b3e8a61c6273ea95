//! `GET /api/v1/cities?limit=1000&cursor=`: cities with their number of events, sorted from most to fewest events.
//!
//! The server must read all series to find the cities with the most events. If reading all series costs too much, the
//! server lists the cities in alphabetical order. For a page in alphabetical order, the server reads only the series of
//! the cities on the page.

mod by_name;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::budget::ReadCharge;
use crate::api::error::ApiError;
use crate::api::export::{ExportRow, ListAnswer, ListFormat};
use crate::api::params::{LIMIT_MAX, Params};
use crate::api::state::ApiState;
use crate::api::totals::Totals;
use crate::core::clock::UnixMs;
use crate::core::time::format_millis;
use crate::store::reads::{Page, PageRequest, Position};

pub(super) const PATH: &str = "/api/v1/cities";

/// A page of the list of cities.
#[derive(Serialize, ToSchema)]
#[schema(as = Cities)]
struct CitiesPage {
    /// The number of cities on this page.
    count: usize,
    /// The order of the cities. The value `events` sorts the cities from most to fewest events, and by name if two
    /// cities have equally many events. The value `name` sorts the cities alphabetically. The server uses `name` if
    /// there are too many series to read all of them for one page.
    order: Order,
    /// The number of all cities. `city_count` is null if the cities are in alphabetical order, because the server has
    /// not read all cities.
    #[schema(required = true)]
    city_count: Option<usize>,
    /// The number of events of all cities and all time, including late events. If `order` is `name`, the number is the
    /// sum of the counts that consumers publish for each partition of the topic. The published counts are at most about
    /// five minutes old. The number of events is null if a partition has published no valid count.
    #[schema(required = true)]
    total_events: Option<u64>,
    /// When the server read the totals.
    #[schema(format = DateTime)]
    generated_at: String,
    /// The cities of this page, in the order given by the field `order`.
    cities: Vec<City>,
    /// The totals of the cities that this page does not list.
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

/// A city and its number of events.
#[derive(Clone, Serialize, ToSchema)]
struct City {
    /// The city, as producers spell it.
    city: String,
    /// The total number of events, including late events.
    total_events: u64,
}

impl ExportRow for City {
    const COLUMNS: &'static [&'static str] = &["city", "total_events"];
}

/// The totals of the cities that a page does not list.
#[derive(Serialize, ToSchema)]
struct OtherCities {
    /// The number of cities that the page does not list; null if the number is unknown.
    #[schema(required = true)]
    city_count: Option<usize>,
    /// The total number of events in the cities that the page does not list, including late events; null if the
    /// number is unknown.
    #[schema(required = true)]
    total_events: Option<u64>,
}

/// Returns cities with their number of events, sorted from most to fewest events
#[utoipa::path(
    get,
    path = "/api/v1/cities",
    operation_id = "list_cities",
    tag = "counts",
    summary = "Cities with their number of events, largest first",
    params(
        ("limit" = Option<u32>, Query, description = "Maximum number of cities per page; of `csv` and `ndjson`, maximum number of all cities, up to 100,000", minimum = 1, maximum = 100000, example = 1000),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
        ("format" = Option<ListFormat>, Query, description = "Form of the answer. `csv` and `ndjson` hold all pages, up to 100,000 items; `limit` may then be as large. An `Accept` header works, too", example = "json"),
    ),
    responses(
        (status = 200, description = "Cities with their number of events, largest first", body = CitiesPage, example = json!({"count": 1, "order": "events", "city_count": 1, "total_events": 33960, "generated_at": "2013-01-02T06:00:00.000Z", "cities": [{"city": "NYC", "total_events": 33960}], "others": {"city_count": 0, "total_events": 0}})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    charge: Option<Extension<ReadCharge>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let params = Params::parse(PATH, None, &uri, "limit cursor format")?;
    let format = ListFormat::of(&params, &headers)?;
    let slice = params.slice(format.page_limit(LIMIT_MAX), UnixMs(0), state.now_ms())?;
    if format != ListFormat::Json {
        let read = async |state, slice| Ok(read_page(state, slice).await?.page);
        return ListAnswer::new("cities", format, slice, read)
            .export(state, charge)
            .await;
    }
    let range = slice.range;
    let make = async {
        let read = read_page(state.clone(), slice).await?;
        let cities = read.page.items;
        let listed = sum_of(&cities);
        // The sum from the progress items may be outdated, so the response shows at least the sum of the listed cities.
        let total_events = read.total_events.map(|all| all.max(listed));
        Ok::<_, ApiError>(CitiesPage {
            count: cities.len(),
            order: read.order,
            city_count: read.city_count,
            total_events,
            generated_at: format_millis(read.read_ms),
            others: OtherCities {
                city_count: read.city_count.map(|all| all - cities.len()),
                total_events: total_events.map(|all| all - listed),
            },
            next: params.next(read.page.next.as_ref(), range),
            cities,
        })
    };
    state.answer(params.key(), make).await
}

/// A page of cities, together with the totals of all cities.
struct CitiesRead {
    page: Page<City>,
    order: Order,
    city_count: Option<usize>,
    total_events: Option<u64>,
    /// The time at which the totals were read.
    read_ms: UnixMs,
}

async fn read_page(state: ApiState, slice: PageRequest) -> Result<CitiesRead, ApiError> {
    match slice.after.as_ref().map(PageEnd::parse) {
        Some(None) => Err(ApiError::bad_cursor()),
        Some(Some(PageEnd::Name(after))) => list_by_name(&state, &slice, &after).await,
        Some(Some(PageEnd::Events(events, city))) => match state.totals_if_few().await? {
            Some(totals) => Ok(list_by_events(&slice, &totals, Some((events, city)))),
            // Since the previous page was read, the number of series has grown so much that the server no longer reads
            // all series.
            None => Err(ApiError::bad_cursor()),
        },
        None => match state.totals_if_few().await? {
            Some(totals) => Ok(list_by_events(&slice, &totals, None)),
            None => list_by_name(&state, &slice, "").await,
        },
    }
}

/// Returns a page of cities that starts after the position `after`. The cities are sorted from most to fewest events.
fn list_by_events(
    slice: &PageRequest,
    totals: &Totals,
    after: Option<(u64, String)>,
) -> CitiesRead {
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
    let next = cities.last().filter(|_| end < order.len());
    let next = next.map(|last| PageEnd::Events(last.total_events, last.city.clone()).position());
    CitiesRead {
        page: Page {
            items: cities,
            next,
        },
        order: Order::Events,
        city_count: Some(city_count),
        total_events: Some(total_events),
        read_ms: totals.read_ms,
    }
}

/// Returns a page of cities in alphabetical order, starting with the first series whose name is greater than `after`.
async fn list_by_name(
    state: &ApiState,
    slice: &PageRequest,
    after: &str,
) -> Result<CitiesRead, ApiError> {
    let read = by_name::read_cities(state, after, slice.limit).await?;
    let sums = state.partition_sums().await?;
    Ok(CitiesRead {
        page: Page {
            items: read.cities,
            next: read.next.map(|series| PageEnd::Name(series).position()),
        },
        order: Order::Name,
        city_count: None,
        total_events: sums.map(|grand| grand.all.events()),
        read_ms: state.now_ms(),
    })
}

fn sum_of(cities: &[City]) -> u64 {
    cities.iter().map(|city| city.total_events).sum()
}

/// The position where a page ends.
enum PageEnd {
    /// The last city on the page has the given number of events and the given name.
    Events(u64, String),
    /// The last series on the page has the given name.
    Name(String),
}

impl PageEnd {
    fn position(self) -> Position {
        let (sort_key, lane, key) = match self {
            PageEnd::Events(events, city) => (events.to_string(), 0, city),
            PageEnd::Name(series) => (series, 1, String::new()),
        };
        Position {
            sort_key,
            lane,
            key,
        }
    }

    fn parse(position: &Position) -> Option<PageEnd> {
        match position.lane {
            0 => Some(PageEnd::Events(
                position.sort_key.parse().ok()?,
                position.key.clone(),
            )),
            1 => Some(PageEnd::Name(position.sort_key.clone())),
            _ => None,
        }
    }
}
