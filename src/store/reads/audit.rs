//! The tables as `verify` reads them: in the order of city and time, by Query and BatchGetItem.
//!
//! [`Audit::fill`] fills a [`Slice`] city by city. The totals say which cities there are; they are
//! sixteen sorted lists, which are merged. Within a city the raw events (a list per shard), the alerts
//! and the windows (a list per type) are merged by time, so a slice can end at any time. Only a page
//! of each list is in memory. Raw events and windows come from indexes, which may lag behind their
//! tables. A caller that finds a difference reads the row by its key before it reports the difference.

mod decode;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::Client;

use super::db::Db;
use crate::core::audit::{FoundPut, FoundRow, Key, Name, Place, Slice, Stored, TOTALS_TIME_MS};
use crate::core::event::Offset;
use crate::core::keys::{SUMS, SUMS_NEXT, TOTALS_SHARDS, TableNames};
use crate::core::stretch::Sum;
use crate::core::time::format_millis;
use crate::store::attributes::{
    CITY, EVENT_ID, Item, MAX, NEXT, PARTITION_KEY, SERIES, SHARD, TIMESTAMP, number, string, text,
};
use crate::store::config::ConfigItem;
use crate::store::error::StoreError;
use crate::store::proof;
use crate::telemetry::Metrics;
use lists::{CityLists, CityTotals};

pub use decode::{put_from_item, row_from_item};

/// Windows whose rows are read together.
const WINDOWS_AT_ONCE: usize = 800;
/// How often a request is sent before its error ends the comparison. The pauses add up to ten seconds.
const ATTEMPTS: u32 = 8;

/// What the reading of rows depends on.
#[derive(Clone, Debug)]
pub struct AuditView {
    /// The current topic id.
    pub topic_id: String,
    /// Number of shards per city.
    pub shards: u32,
    /// Length of a window.
    pub window_ms: i64,
    /// Which events have raw items and alerts.
    pub stored: Stored,
    /// Event times and window starts `[from, until)` in Unix milliseconds.
    pub range: (i64, i64),
    /// The current time in Unix milliseconds.
    pub now_ms: i64,
}

/// A partition's progress item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressItem {
    /// The id of the topic that the partition belongs to.
    pub topic_id: String,
    /// The partition's number.
    pub partition: i32,
    /// Offset to read next; everything below it is durable.
    pub next: Offset,
    /// Largest event time below `next`; `None` if there is none.
    pub max_ms: Option<i64>,
    /// What is counted below `next`; `None` if the item does not know.
    pub sums: Option<Sum>,
}

/// Reads of the tables for a comparison.
#[derive(Clone)]
pub struct Audit {
    db: Db,
}

impl Audit {
    /// Returns a reader of the tables `names`. Sends nothing yet.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> Audit {
        Audit {
            db: Db::new(client, names, metrics, ATTEMPTS),
        }
    }

    /// Returns the config item.
    ///
    /// # Errors
    /// What DynamoDB answers; [`StoreError::Corrupt`] if there is none.
    pub async fn config(&self) -> Result<ConfigItem, StoreError> {
        self.db.config().await
    }

    /// Returns when the table of raw events was created, in Unix milliseconds; 0 if the role may not
    /// describe the table.
    pub async fn made_ms(&self) -> i64 {
        let asked = self.db.client.describe_table();
        let answer = asked.table_name(&self.db.names.raw).send().await;
        let created = answer.ok().and_then(|a| a.table?.creation_date_time);
        created.and_then(|time| time.to_millis().ok()).unwrap_or(0)
    }

    /// Returns all progress items, those of former topic ids included.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn progress(&self) -> Result<Vec<ProgressItem>, StoreError> {
        let attributes = [SERIES, NEXT, MAX, SUMS_NEXT].into_iter().chain(SUMS);
        let items = self.db.progress_items(attributes).await?;
        Ok(items.iter().filter_map(progress_from_item).collect())
    }

    /// Fills `slice` with the rows from `lo` to `limit`, until it is full or there are no more rows.
    /// Then it ends the slice where the next one begins. `extra` are keys of rows of counts that the
    /// lists do not show.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn fill(
        &self,
        slice: &mut Slice,
        lo: Option<&Place>,
        limit: Option<&Place>,
        extra: &BTreeSet<Key>,
        view: &AuditView,
    ) -> Result<(), StoreError> {
        if let Some(limit) = limit {
            slice.end_at(limit.clone());
        }
        let is_within = |key: &&Key| {
            lo.is_none_or(|lo| *lo <= key.place) && limit.is_none_or(|limit| key.place < *limit)
        };
        let extra: Vec<Key> = extra.iter().filter(is_within).cloned().collect();
        for (key, row) in self.rows(extra, view).await? {
            slice.add_row(key, row);
        }
        let mut cities = CityTotals::new(&self.db, lo.map(Place::city));
        while let Some((city, totals)) = cities.next(&self.db).await? {
            let begin = Place::new(&city, TOTALS_TIME_MS);
            if slice.hi().is_some_and(|hi| begin >= *hi) {
                return Ok(());
            }
            if slice.is_full() {
                slice.end_at(begin);
                return Ok(());
            }
            let resumed = lo.filter(|lo| lo.city() == city && lo.time_ms > TOTALS_TIME_MS);
            let mut kinds = Vec::new();
            for (kind, item) in totals {
                let key = Key::totals(&city, &kind);
                if resumed.is_none() {
                    let row = row_from_item(&item, &key, view);
                    slice.add_row(key, row);
                }
                kinds.push(kind);
            }
            let from_ms = resumed.map_or(view.range.0, |lo| lo.time_ms.max(view.range.0));
            if self.fill_city(slice, &city, &kinds, from_ms, view).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fills `slice` with the rows of a city. Returns whether the slice ended in the city.
    async fn fill_city(
        &self,
        slice: &mut Slice,
        city: &str,
        kinds: &[String],
        from_ms: i64,
        view: &AuditView,
    ) -> Result<bool, StoreError> {
        let mut lists = CityLists::open(&self.db, city, kinds, from_ms, view).await?;
        let mut windows = Vec::new();
        let mut last_ms = None;
        while let Some(time_ms) = lists.next_ms() {
            let place = Place::new(city, time_ms);
            let is_later = last_ms.is_some_and(|last| time_ms > last);
            let is_outside = slice.hi().is_some_and(|hi| place >= *hi);
            if is_outside || (is_later && slice.is_full()) {
                self.add_windows(slice, &mut windows, view).await?;
                slice.end_at(place);
                return Ok(true);
            }
            last_ms = Some(time_ms);
            let (key, item) = lists.take(&self.db).await?;
            match key.name {
                Name::Window(_) | Name::Totals(_) => windows.push(key),
                Name::Raw(_) | Name::Alert(_) => {
                    let put = put_from_item(&item, &key, view.now_ms);
                    slice.add_put(key, put);
                }
            }
            if windows.len() == WINDOWS_AT_ONCE {
                self.add_windows(slice, &mut windows, view).await?;
            }
        }
        self.add_windows(slice, &mut windows, view).await?;
        Ok(false)
    }

    async fn add_windows(
        &self,
        slice: &mut Slice,
        keys: &mut Vec<Key>,
        view: &AuditView,
    ) -> Result<(), StoreError> {
        // The index may still hold a row that the table no longer has; the answer leaves it out.
        for (key, row) in self.rows(std::mem::take(keys), view).await? {
            slice.add_row(key, row);
        }
        Ok(())
    }

    /// Returns the rows of counts at `keys` that exist.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn rows(
        &self,
        keys: Vec<Key>,
        view: &AuditView,
    ) -> Result<BTreeMap<Key, FoundRow>, StoreError> {
        let found = self.by_key(keys).await?;
        let row = |(key, item): (Key, Item)| {
            let row = row_from_item(&item, &key, view);
            (key, row)
        };
        Ok(found.into_iter().map(row).collect())
    }

    /// Returns the raw events and alerts at `keys` that exist.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn puts(
        &self,
        keys: Vec<Key>,
        now_ms: i64,
    ) -> Result<BTreeMap<Key, FoundPut>, StoreError> {
        let found = self.by_key(keys).await?;
        let put = |(key, item): (Key, Item)| {
            let put = put_from_item(&item, &key, now_ms);
            (key, put)
        };
        Ok(found.into_iter().map(put).collect())
    }

    async fn by_key(&self, keys: Vec<Key>) -> Result<Vec<(Key, Item)>, StoreError> {
        // The key of a raw item does not hold its city, so two of our keys may name one item.
        let mut asked: BTreeMap<TableKey, Vec<Key>> = BTreeMap::new();
        for key in keys {
            asked.entry(self.table_key(&key)).or_default().push(key);
        }
        let mut requests: BTreeMap<&str, Vec<Item>> = BTreeMap::new();
        for (table, pk, sk) in asked.keys() {
            let key = self.item_key(table, pk, sk);
            requests.entry(table).or_default().push(key);
        }
        let mut out = Vec::new();
        for (table, keys) in requests {
            let (pk, sk) = self.key_names(table);
            for item in self.db.get_all(table, keys).await? {
                let sort_key = sk.map_or("", |sk| text(&item, sk));
                let at = (
                    table.to_owned(),
                    text(&item, pk).to_owned(),
                    sort_key.to_owned(),
                );
                for key in asked.get(&at).into_iter().flatten() {
                    out.push((key.clone(), item.clone()));
                }
            }
        }
        Ok(out)
    }

    /// Returns table, partition key and sort key of a row. This does not use the code that writes rows,
    /// so that an error in that code is found.
    fn table_key(&self, key: &Key) -> TableKey {
        let names = &self.db.names;
        let (city, time_ms) = (key.place.city(), key.place.time_ms);
        match &key.name {
            Name::Totals(kind) => {
                let series = format!("{city}#{kind}");
                let shard = crc32fast::hash(series.as_bytes()) % TOTALS_SHARDS;
                (names.totals.clone(), format!("totals#{shard}"), series)
            }
            Name::Window(_) => (names.aggregations.clone(), key.in_table(), String::new()),
            Name::Raw(id) => (names.raw.clone(), id.to_string(), format_millis(time_ms)),
            Name::Alert(id) => (
                names.alerts.clone(),
                city.to_owned(),
                format!("{}#{id}", format_millis(time_ms)),
            ),
        }
    }

    fn key_names(&self, table: &str) -> (&'static str, Option<&'static str>) {
        let names = &self.db.names;
        if table == names.aggregations {
            (PARTITION_KEY, None)
        } else if table == names.totals {
            (SHARD, Some(SERIES))
        } else if table == names.alerts {
            (CITY, Some(TIMESTAMP))
        } else {
            (EVENT_ID, Some(TIMESTAMP))
        }
    }

    fn item_key(&self, table: &str, pk: &str, sk: &str) -> Item {
        let (pk_name, sk_name) = self.key_names(table);
        let mut key = Item::from([(pk_name.to_owned(), string(pk))]);
        if let Some(sk_name) = sk_name {
            key.insert(sk_name.to_owned(), string(sk));
        }
        key
    }
}

/// Table, partition key and sort key; the sort key is empty if the table has none.
type TableKey = (String, String, String);

fn progress_from_item(item: &Item) -> Option<ProgressItem> {
    let (topic_id, partition) = decode::split_log_key(text(item, SERIES))?;
    Some(ProgressItem {
        topic_id,
        partition,
        next: Offset(number(item, NEXT)?),
        max_ms: number(item, MAX),
        sums: proof::sums(item),
    })
}
