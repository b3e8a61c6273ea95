//! Reads sorted lists of the rows that `verify` compares. The totals are sorted by city. The raw events, alerts and
//! windows of a city are sorted by time.

use super::super::db::{Db, KeyNames};
use super::super::lane::{Lane, fill_all};
use super::AuditView;
use crate::core::audit::Key;
use crate::core::clock::UnixMs;
use crate::core::keys::{CITY_INDEX, SERIES_INDEX, TOTALS_SHARDS};
use crate::core::plan::RawRows;
use crate::core::rollup::Grain;
use crate::core::time::{format_millis, format_seconds, parse_timestamp};
use crate::store::attributes::{
    CITY, CITY_SHARD, EVENT_ID, Item, SERIES, SHARD, TIMESTAMP, WINDOW_START, text,
};
use crate::store::error::StoreError;

/// Maximum number of items on a page. A city has about nine lists, whose pages take about 5 MB in total.
const PAGE_ITEMS_MAX: i32 = 500;
/// Maximum number of totals rows on a page. The limit is low because a totals row may contain a thousand fences.
const TOTALS_PAGE_MAX: i32 = 50;

/// The cities and their totals, sorted by series.
pub(super) struct CityTotals {
    lanes: Vec<Lane>,
}

impl CityTotals {
    /// Starts the list at the city `city`, or at the first city if `city` is `None`.
    pub(super) fn new(db: &Db, city: Option<&str>) -> CityTotals {
        // A city name is trimmed, so its first character is at or after `!` in ASCII.
        let lower = city.map_or_else(|| "!".to_owned(), |city| format!("{city}#"));
        let keys = KeyNames {
            table: db.names.totals.clone(),
            index: None,
            pk: SHARD,
            sk: SERIES,
        };
        let lane = |shard: u32| {
            Lane::new(db, &keys, &format!("totals#{shard}"), &lower, None)
                .with_query(|query| query.consistent_read(true).limit(TOTALS_PAGE_MAX))
        };
        CityTotals {
            lanes: (0..TOTALS_SHARDS).map(lane).collect(),
        }
    }

    /// Returns the next city, and the city's totals for each event type.
    pub(super) async fn next(
        &mut self,
        db: &Db,
    ) -> Result<Option<(String, Vec<(String, Item)>)>, StoreError> {
        for lane in &mut self.lanes {
            lane.fill(db).await?;
        }
        let fronts = self.lanes.iter().filter_map(Lane::front);
        let Some(least) = fronts.map(|item| text(item, SERIES)).min() else {
            return Ok(None);
        };
        let city = least.split('#').next().unwrap_or_default().to_owned();
        let mut totals = Vec::new();
        for lane in &mut self.lanes {
            loop {
                lane.fill(db).await?;
                let series = lane.front().map(|item| text(item, SERIES));
                let Some((of, kind)) = series.map(|s| s.split_once('#').unwrap_or((s, ""))) else {
                    break;
                };
                if of != city {
                    break;
                }
                let kind = kind.to_owned();
                totals.extend(lane.pop().map(|item| (kind, item)));
            }
        }
        Ok(Some((city, totals)))
    }
}

/// The kind of items that a list contains.
#[derive(Clone)]
enum ListOf {
    Raw,
    Alerts,
    /// A list of the windows of one event type.
    Windows(String),
    /// A list of the hour rows or the day rows of one event type.
    Rollups(Grain, String),
}

/// The raw events, alerts and windows of a city, merged by time.
pub(super) struct CityLists {
    city: String,
    lists: Vec<(ListOf, Lane)>,
}

impl CityLists {
    /// Starts to read all lists of a city at the time `from_ms`. An empty city name stands for the hour rows and day
    /// rows that count all cities.
    pub(super) async fn open(
        db: &Db,
        city: &str,
        kinds: &[String],
        from_ms: UnixMs,
        view: &AuditView,
    ) -> Result<CityLists, StoreError> {
        let until_ms = view.range.1;
        let mut of = Vec::new();
        let mut lanes = Vec::new();
        let mut open = |list_of, keys: &KeyNames, pk: String, lower: &str, upper: &str| {
            // DynamoDB does not support consistent reads of an index.
            let is_consistent = keys.index.is_none();
            let lane = Lane::new(db, keys, &pk, lower, Some(upper));
            of.push(list_of);
            lanes.push(
                lane.with_query(|query| query.consistent_read(is_consistent).limit(PAGE_ITEMS_MAX)),
            );
        };
        let keys = |table: &str, index, pk, sk| KeyNames {
            table: table.to_owned(),
            index,
            pk,
            sk,
        };
        let from = format_millis(from_ms);
        let first = format_seconds(from_ms.saturating_add(999));
        for (grain, last_ms) in rollup_ends(view) {
            let rows = keys(&db.names.totals, None, SHARD, SERIES);
            for kind in kinds {
                let key = Key::rollup(city, kind, grain, UnixMs(0)).in_table();
                let shard = key.rsplit_once(' ').map_or("", |(shard, _)| shard);
                let list_of = ListOf::Rollups(grain, kind.clone());
                let last = format_seconds(last_ms);
                open(list_of, &rows, shard.to_owned(), &first, &last);
            }
        }
        if view.raw_rows != RawRows::None && !city.is_empty() {
            let raw = keys(&db.names.raw, Some(CITY_INDEX), CITY_SHARD, TIMESTAMP);
            let last = format_millis(until_ms - 1);
            for shard in 0..view.shards {
                open(ListOf::Raw, &raw, format!("{city}#{shard}"), &from, &last);
            }
            // The sort key of an alert has the form `<time>#<id>`, so it is between its time and the next millisecond
            // in the sort order.
            let alerts = keys(&db.names.alerts, None, CITY, TIMESTAMP);
            let end = format_millis(until_ms);
            open(ListOf::Alerts, &alerts, city.to_owned(), &from, &end);
        }
        let windows = keys(
            &db.names.aggregations,
            Some(SERIES_INDEX),
            SERIES,
            WINDOW_START,
        );
        let last = format_seconds(until_ms - 1);
        for kind in kinds.iter().filter(|_| !city.is_empty()) {
            let list_of = ListOf::Windows(kind.clone());
            open(list_of, &windows, format!("{city}#{kind}"), &first, &last);
        }
        let lanes = fill_all(db, lanes).await?;
        let mut out = CityLists {
            city: city.to_owned(),
            lists: of.into_iter().zip(lanes).collect(),
        };
        out.skip_unreadable(db).await?;
        Ok(out)
    }

    /// Returns the time of the next item in the merged lists.
    pub(super) fn next_ms(&self) -> Option<UnixMs> {
        self.lists.iter().filter_map(front_ms).min()
    }

    /// Removes the item with the earliest time from the lists, and returns the item with its key.
    ///
    /// # Panics
    /// Panics if the lists contain no further item.
    pub(super) async fn take(&mut self, db: &Db) -> Result<(Key, Item), StoreError> {
        let lists = self.lists.iter().enumerate();
        let least = lists
            .filter_map(|(n, list)| Some((front_ms(list)?, n)))
            .min();
        let (time_ms, n) = least.expect("next_ms has shown an item");
        let (list_of, lane) = &mut self.lists[n];
        let item = lane.pop().expect("its front was read");
        let city = &self.city;
        let key = match list_of {
            ListOf::Raw => Key::raw(city, time_ms, text(&item, EVENT_ID)),
            ListOf::Alerts => {
                let sk = text(&item, TIMESTAMP);
                let id = sk.split_once('#').map_or("", |(_, id)| id);
                Key::alert(city, time_ms, id)
            }
            ListOf::Windows(kind) => Key::window(city, kind, time_ms),
            ListOf::Rollups(grain, kind) => Key::rollup(city, kind, *grain, time_ms),
        };
        lane.fill(db).await?;
        self.skip_unreadable(db).await?;
        Ok((key, item))
    }

    /// Skips items whose sort key is not a time. This program never writes such an item.
    async fn skip_unreadable(&mut self, db: &Db) -> Result<(), StoreError> {
        for (list_of, lane) in &mut self.lists {
            while let Some(item) = lane.front() {
                if time_ms(list_of, item).is_some() {
                    break;
                }
                tracing::warn!(city = self.city, "left out an item whose key is not a time");
                lane.pop();
                lane.fill(db).await?;
            }
        }
        Ok(())
    }
}

/// Returns the start of the last hour and of the last day whose rows `verify` compares. If `verify` compares no hour
/// rows or no day rows, the result lacks the corresponding entry.
fn rollup_ends(view: &AuditView) -> impl Iterator<Item = (Grain, UnixMs)> {
    let end_ms = view.rollups.until_ms.min(view.range.1);
    let last_ms = move |grain: Grain| end_ms - grain.length_ms();
    let ends = Grain::ALL
        .into_iter()
        .map(move |grain| (grain, last_ms(grain)));
    let from_ms = view.range.0;
    ends.filter(move |(_, last_ms)| *last_ms >= from_ms)
}

fn front_ms((list_of, lane): &(ListOf, Lane)) -> Option<UnixMs> {
    time_ms(list_of, lane.front()?)
}

fn time_ms(list_of: &ListOf, item: &Item) -> Option<UnixMs> {
    match list_of {
        ListOf::Raw => parse_timestamp(text(item, TIMESTAMP)),
        ListOf::Alerts => parse_timestamp(text(item, TIMESTAMP).split('#').next()?),
        ListOf::Windows(_) => parse_timestamp(text(item, WINDOW_START)),
        ListOf::Rollups(..) => parse_timestamp(text(item, SERIES)),
    }
}
