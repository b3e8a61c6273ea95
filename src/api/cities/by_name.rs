//! Reads pages of cities in alphabetical order. The cost of a page is bounded for any number of series.
//!
//! A shard of the totals table returns its series (`city#event_type`) in alphabetical order, so the series of one city
//! are adjacent. The series of all shards are merged in the order of their names. All series of a city have been read
//! when every shard has been read beyond the name of the city. A cursor contains the name of the last series on a page.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::City;
use crate::api::error::ApiError;
use crate::api::state::ApiState;
use crate::core::keys::{series, split_series, totals_shards};
use crate::store::reads::{TotalItem, units_so_far};

/// Number of read units after which the server sends no further DynamoDB requests for a page. Requests in flight still
/// finish. If a totals row has 210 bytes, one round of requests to all shards costs at most 112 read units.
const PAGE_UNITS_MAX: f64 = 400.0;
/// Maximum number of series that are read for one page, to limit the memory that a page uses.
const PAGE_SERIES_MAX: usize = 20_000;
/// Maximum number of series that one DynamoDB Query reads.
const QUERY_SERIES_MAX: usize = 250;

/// A page of cities in alphabetical order.
pub(super) struct CitiesByName {
    pub(super) cities: Vec<City>,
    /// The name of the last series on this page, or `None` if this is the last page.
    pub(super) next: Option<String>,
}

/// Reads at most `limit` cities, starting with the first series whose name is greater than `after`.
pub(super) async fn read_cities(
    state: &ApiState,
    after: &str,
    limit: usize,
) -> Result<CitiesByName, ApiError> {
    let mut merge = Merge::new(after);
    // A typical city has four series, and each of the sixteen shards holds about the same number of series.
    let query_limit = (limit / 4 + 8).min(QUERY_SERIES_MAX);
    let query_limit = i32::try_from(query_limit).unwrap_or(i32::MAX);
    loop {
        let due = merge.due();
        let is_spent = units_so_far() >= PAGE_UNITS_MAX || merge.read.len() >= PAGE_SERIES_MAX;
        if due.is_empty() || is_spent || merge.complete_count() >= limit {
            return Ok(merge.into_page(limit));
        }
        let queries = due.into_iter().map(|n| {
            let (shard, after) = (
                merge.shards[n].name.clone(),
                merge.shards[n].reached.clone(),
            );
            async move {
                let page = state.reads().totals_after(shard, after, query_limit);
                Ok::<_, ApiError>((n, page.await?))
            }
        });
        for (n, (items, more)) in try_join_all(queries).await? {
            merge.add(n, &items, more);
        }
    }
}

/// The series that were read so far for one page.
struct Merge {
    shards: Vec<ShardPosition>,
    /// The number of events of each series, by the series' name.
    read: BTreeMap<String, u64>,
}

/// The position up to which one shard was read.
struct ShardPosition {
    name: String,
    /// The name of the last series that was read from the shard.
    reached: String,
    /// True if the shard may contain unread series.
    more: bool,
}

impl Merge {
    fn new(after: &str) -> Merge {
        let shards = totals_shards().map(|name| ShardPosition {
            name,
            reached: after.to_owned(),
            more: true,
        });
        Merge {
            shards: shards.collect(),
            read: BTreeMap::new(),
        }
    }

    /// Returns the indexes of the shards to read next, sorted by the last name that was read from each shard. In the
    /// first round, the server reads all shards. In each later round, the server reads only half of the unfinished
    /// shards, namely those that are furthest behind in alphabetical order.
    fn due(&self) -> Vec<usize> {
        let open = (0..self.shards.len()).filter(|n| self.shards[*n].more);
        let mut open: Vec<usize> = open.collect();
        open.sort_by_key(|n| &self.shards[*n].reached);
        if !self.read.is_empty() {
            open.truncate(open.len().div_ceil(2));
        }
        open
    }

    fn add(&mut self, shard: usize, items: &[TotalItem], more: bool) {
        let shard = &mut self.shards[shard];
        shard.more = more;
        for item in items {
            shard.reached = series(&item.city, &item.event_type);
            self.read.insert(shard.reached.clone(), item.events());
        }
    }

    /// Returns the name up to which every shard has been read, or `None` if all series have been read.
    fn reached_by_all(&self) -> Option<&str> {
        let open = self.shards.iter().filter(|shard| shard.more);
        open.map(|shard| shard.reached.as_str()).min()
    }

    /// Returns the cities in alphabetical order, each with its number of events and the name of its last series. The
    /// last returned city may be incomplete, because some of its series may be unread.
    fn cities(&self) -> Vec<(&str, u64, &str)> {
        let end = self.reached_by_all();
        let mut cities: Vec<(&str, u64, &str)> = Vec::new();
        let known = self.read.iter();
        for (name, events) in
            known.take_while(|(name, _)| end.is_none_or(|end| name.as_str() <= end))
        {
            let city = city_of(name);
            match cities.last_mut() {
                Some((last, sum, last_series)) if *last == city => {
                    *sum = sum.saturating_add(*events);
                    *last_series = name;
                }
                _ => cities.push((city, *events, name)),
            }
        }
        cities
    }

    /// Returns true if some series of `city` may still be unread.
    fn is_incomplete(&self, city: &str) -> bool {
        self.reached_by_all()
            .is_some_and(|end| city_of(end) == city)
    }

    fn complete_count(&self) -> usize {
        let cities = self.cities();
        let incomplete = cities
            .last()
            .is_some_and(|(city, ..)| self.is_incomplete(city));
        cities.len() - usize::from(incomplete)
    }

    /// Returns a page of the cities whose series have all been read. If a city has too many series for one page, the
    /// page contains only that city, and counts only the series that were read. After an incomplete city, the next page
    /// continues with the unread series of the same city.
    fn into_page(self, limit: usize) -> CitiesByName {
        let mut cities = self.cities();
        let is_incomplete = cities
            .last()
            .is_some_and(|(city, ..)| self.is_incomplete(city));
        if is_incomplete && cities.len() > 1 {
            cities.pop();
        }
        cities.truncate(limit);
        let last = cities.last().map(|(_, _, last_series)| *last_series);
        let has_more = self.reached_by_all().is_some()
            || self.read.keys().next_back().map(String::as_str) > last;
        CitiesByName {
            next: last.filter(|_| has_more).map(ToOwned::to_owned),
            cities: cities
                .iter()
                .map(|(city, total_events, _)| City {
                    city: (*city).to_owned(),
                    total_events: *total_events,
                })
                .collect(),
        }
    }
}

fn city_of(series: &str) -> &str {
    split_series(series).map_or(series, |(city, _)| city)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distributes `series` over the shards, and returns all pages of cities. A page has at most `limit` cities. A
    /// request reads `query_limit` series, and reading a page takes at most `rounds` rounds of requests.
    fn pages(
        series: &[(&str, u64)],
        limit: usize,
        query_limit: usize,
        rounds: usize,
    ) -> Vec<Vec<City>> {
        let item = |name: &str, events| {
            let (city, event_type) = split_series(name).unwrap();
            TotalItem {
                city: city.into(),
                event_type: event_type.into(),
                event_count: events,
                ..TotalItem::default()
            }
        };
        let (mut pages, mut after) = (Vec::new(), Some(String::new()));
        while let Some(start) = after {
            let mut merge = Merge::new(&start);
            for _ in 0..rounds {
                for n in merge.due() {
                    let own = series
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| (at * 7) % 16 == n);
                    let mut own: Vec<_> = own.map(|(_, one)| *one).collect();
                    own.sort_unstable();
                    own.retain(|(name, _)| *name > merge.shards[n].reached.as_str());
                    let more = own.len() > query_limit;
                    own.truncate(query_limit);
                    let own: Vec<_> = own.into_iter().map(|(name, n)| item(name, n)).collect();
                    merge.add(n, &own, more);
                }
            }
            let page = merge.into_page(limit);
            assert!(page.cities.len() <= limit && !page.cities.is_empty());
            assert!(page.next.as_ref().is_none_or(|next| *next > start));
            after = page.next;
            pages.push(page.cities);
        }
        pages
    }

    fn series_of(cities: usize, types: usize) -> Vec<String> {
        let names = (0..cities).flat_map(|c| (0..types).map(move |t| format!("City {c:03}!#t{t}")));
        let other = ["City 001#a", "City 001#b", "City 001!x#a"].map(ToOwned::to_owned);
        names.chain(other).collect()
    }

    #[test]
    fn pages_list_each_city_once_with_all_its_events() {
        let names = series_of(60, 4);
        let series: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 3)).collect();
        for (limit, query_limit, rounds) in [(1, 1, 40), (7, 2, 9), (1_000, 250, 1), (20, 8, 2)] {
            let listed: Vec<City> = pages(&series, limit, query_limit, rounds).concat();
            let sums: BTreeMap<&str, u64> = listed
                .iter()
                .map(|c| (c.city.as_str(), c.total_events))
                .collect();
            assert_eq!(listed.len(), 62, "{limit} {query_limit} {rounds}");
            assert_eq!(
                (sums.len(), sums["City 001"], sums["City 001!"]),
                (62, 6, 12)
            );
            assert_eq!(sums.values().sum::<u64>(), 243 * 3);
        }
    }

    #[test]
    fn a_city_with_more_series_than_a_page_reads_continues_on_the_next_page() {
        let names = series_of(2, 100);
        let series: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let pages = pages(&series, 10, 2, 1);
        let listed: Vec<City> = pages.concat();
        let parts = listed.iter().filter(|c| c.city == "City 000!");
        let parts: Vec<u64> = parts.map(|c| c.total_events).collect();
        assert!(parts.len() > 1, "{parts:?}");
        assert_eq!(parts.iter().sum::<u64>(), 100);
        assert_eq!(listed.iter().map(|c| c.total_events).sum::<u64>(), 203);
    }
}
