//! Reads the totals of every series and sums them page by page, so that memory does not grow with the number of
//! series.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::db::{Db, project};
use super::items::TotalItem;
use super::meter;
use crate::core::keys::{SUMS, SUMS_NEXT, totals_shards};
use crate::store::attributes::{CITY, EVENT_TYPE, NEXT, SERIES, SHARD, string};
use crate::store::error::StoreError;
use crate::store::proof;

/// Maximum number of pages of totals that wait to be summed.
const PAGES_AHEAD: usize = 4;
/// Number of series on a page. With small pages, a read with a cost limit costs only a little more than the limit, even
/// if many requests are in flight.
const PAGE_SERIES: i32 = 250;

/// The sums over all series, and the totals of the largest series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EveryTotal {
    /// The sums over all series, in which `city` and `event_type` are empty strings.
    pub all: TotalItem,
    /// The total number of series.
    pub series_count: usize,
    /// The largest series, sorted by size. Series of equal size are sorted by name.
    pub largest: Vec<TotalItem>,
    /// For each event type, the number of series and the sums over these series. The map contains at most `kept_max`
    /// event types.
    pub by_type: BTreeMap<String, (usize, TotalItem)>,
    /// True if `by_type` does not contain all event types.
    pub types_left_out: bool,
    /// True if the read stopped at its limit of read units. The counts and lists then lack some series.
    pub is_cut: bool,
    kept_max: usize,
}

impl EveryTotal {
    /// Returns sums of zero. `kept_max` is the maximum length of the list of the largest series.
    pub fn new(kept_max: usize) -> EveryTotal {
        EveryTotal {
            kept_max,
            ..EveryTotal::default()
        }
    }

    /// Adds the totals of several series to the sums. The caller must add each series only once.
    pub fn take(&mut self, items: Vec<TotalItem>) {
        for item in &items {
            self.all.add(item);
            self.add_to_type(item);
        }
        self.series_count += items.len();
        self.largest.extend(items);
        if self.largest.len() > self.kept_max.saturating_mul(2) {
            self.cut();
        }
    }

    fn add_to_type(&mut self, item: &TotalItem) {
        if let Some((count, sums)) = self.by_type.get_mut(&item.event_type) {
            *count += 1;
            sums.add(item);
        } else if self.by_type.len() < self.kept_max {
            let mut sums = TotalItem::default();
            sums.add(item);
            self.by_type.insert(item.event_type.clone(), (1, sums));
        } else {
            self.types_left_out = true;
        }
    }

    /// Returns true if the list `largest` contains every series of the tables.
    pub fn lists_all(&self) -> bool {
        !self.is_cut && self.largest.len() == self.series_count
    }

    /// Sorts the list `largest`, shortens it to its maximum length, and returns the sums.
    #[must_use]
    pub fn sorted(mut self) -> EveryTotal {
        self.cut();
        self
    }

    fn cut(&mut self) {
        self.largest.sort_by(|a, b| {
            let key = |t: &TotalItem| Reverse(t.events());
            (key(a), &a.city, &a.event_type).cmp(&(key(b), &b.city, &b.event_type))
        });
        self.largest.truncate(self.kept_max);
    }
}

impl TotalItem {
    /// Adds the counts of `other` to the counts of `self`.
    pub fn add(&mut self, other: &TotalItem) {
        self.event_count = self.event_count.saturating_add(other.event_count);
        self.late_count = self.late_count.saturating_add(other.late_count);
        for (sum, count) in self.severity_counts.iter_mut().zip(other.severity_counts) {
            *sum = sum.saturating_add(count);
        }
    }

    /// Subtracts the counts of `other` from the counts of `self`, which must include them.
    pub fn subtract(&mut self, other: &TotalItem) {
        self.event_count = self.event_count.saturating_sub(other.event_count);
        self.late_count = self.late_count.saturating_sub(other.late_count);
        for (sum, count) in self.severity_counts.iter_mut().zip(other.severity_counts) {
            *sum = sum.saturating_sub(count);
        }
    }
}

/// Reads the totals of every series, or of every series of one city, in any order.
pub(super) async fn all(db: &Db, city: Option<String>) -> Result<Vec<TotalItem>, StoreError> {
    let mut out = Vec::new();
    each_page(db, city, |page| out.extend(page)).await?;
    Ok(out)
}

/// Sums the totals of every series, and keeps the totals of the largest series. The read stops early if it reaches the
/// limit of read units.
pub(super) async fn every(db: &Db, kept_max: usize) -> Result<EveryTotal, StoreError> {
    let mut every = EveryTotal::new(kept_max);
    match each_page(db, None, |page| every.take(page)).await {
        Ok(()) => {}
        Err(StoreError::TooCostly { .. }) => every.is_cut = true,
        Err(error) => return Err(error),
    }
    Ok(every.sorted())
}

/// Reads one page of totals rows from one shard, sorted alphabetically by series. The flag is true if more series
/// follow.
pub(super) async fn after(
    db: &Db,
    shard: String,
    after: String,
    limit: i32,
) -> Result<(Vec<TotalItem>, bool), StoreError> {
    let mut query = query(db, shard, None).limit(limit.clamp(1, PAGE_SERIES));
    if !after.is_empty() {
        query = query
            .key_condition_expression("#shard = :shard AND #series > :after")
            .expression_attribute_values(":after", AttributeValue::S(after));
    }
    let (items, next) = db.query_page(query).await?;
    let items = items
        .into_iter()
        .map(|item| TotalItem::from_item(&item))
        .collect();
    Ok((items, next.is_some()))
}

/// Returns the sums over all progress items. Returns `None` if no progress item exists, or if a progress item has no
/// valid sums. The reads are consistent, so later calls never return older sums.
pub(super) async fn kept(db: &Db) -> Result<Option<TotalItem>, StoreError> {
    let attributes = [NEXT, SUMS_NEXT].into_iter().chain(SUMS);
    let items = db.progress_items(attributes).await?;
    let mut all = TotalItem::default();
    for item in &items {
        let Some(sums) = proof::sums(item) else {
            return Ok(None);
        };
        all.add(&TotalItem {
            event_count: sums.event_count,
            late_count: sums.late_count,
            severity_counts: sums.severities,
            ..TotalItem::default()
        });
    }
    Ok((!items.is_empty()).then_some(all))
}

/// Reads all shards at the same time, and calls `take` with each page of totals.
async fn each_page(
    db: &Db,
    city: Option<String>,
    mut take: impl FnMut(Vec<TotalItem>),
) -> Result<(), StoreError> {
    let mut tasks = JoinSet::new();
    let (pages, mut found) = mpsc::channel(PAGES_AHEAD);
    for shard in totals_shards() {
        let query = query(db, shard, city.as_deref());
        let (db, pages) = (db.clone(), pages.clone());
        tasks.spawn(meter::carry(async move {
            let mut start = None;
            loop {
                let page = query.clone().set_exclusive_start_key(start);
                let (items, next) = db.query_page(page).await?;
                let table = &db.names.totals;
                let totals = items.iter().map(|item| TotalItem::from_table(table, item));
                // `send` fails if the receiver has stopped reading.
                if pages.send(totals.collect()).await.is_err() || next.is_none() {
                    return Ok::<_, StoreError>(());
                }
                start = next;
            }
        }));
    }
    drop(pages);
    while let Some(items) = found.recv().await {
        take(items);
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("reading totals does not panic")?;
    }
    Ok(())
}

/// Returns a Query of one shard. The response excludes the fences, because a row has up to two fence attributes for
/// each partition of the topic.
fn query(db: &Db, shard: String, city: Option<&str>) -> QueryFluentBuilder {
    let attributes = [SHARD, SERIES, CITY, EVENT_TYPE].into_iter().chain(SUMS);
    let query = project(db.query(&db.names.totals), attributes)
        .expression_attribute_values(":shard", string(shard))
        .limit(PAGE_SERIES);
    match city {
        None => query.key_condition_expression("#shard = :shard"),
        Some(city) => query
            .key_condition_expression("#shard = :shard AND begins_with(#series, :city)")
            .expression_attribute_values(":city", string(format!("{city}#"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_cover_every_series_and_the_largest_are_kept() {
        let total = |n: u64| TotalItem {
            city: format!("c{n:04}"),
            event_type: "traffic".into(),
            event_count: n,
            late_count: 1,
            severity_counts: [n, 0, 1, 0],
        };
        let mut every = EveryTotal::new(3);
        for n in 0..100 {
            every.take(vec![total(n), total(1_000 + n)]);
        }
        let (count, sums) = &every.by_type["traffic"];
        assert_eq!((*count, sums), (200, &every.all));
        for event_type in ["a", "b", "traffic", "c"] {
            assert!(!every.types_left_out);
            let event_type = event_type.into();
            every.take(vec![TotalItem {
                event_type,
                ..TotalItem::default()
            }]);
        }
        assert!(every.types_left_out && !every.by_type.contains_key("c"));
        let every = every.sorted();
        let names: Vec<&str> = every.largest.iter().map(|t| t.city.as_str()).collect();
        assert_eq!(names, ["c1099", "c1098", "c1097"]);
        assert_eq!(every.series_count, 204);
        let (events, late) = (every.all.event_count, every.all.late_count);
        assert_eq!((events, late), (2 * 4_950 + 100_000, 200));
        assert_eq!(every.all.severity_counts, [109_900, 0, 200, 0]);
    }
}
