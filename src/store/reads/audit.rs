//! Reads the tables for `verify`, sorted by city and time, with Query and BatchGetItem.
//!
//! [`Audit::fill`] fills a [`Slice`] with the rows of one city after another. To find the cities, `fill` merges the
//! sixteen sorted lists of totals rows. Within a city, `fill` merges the raw events (one list per shard), the alerts,
//! and the windows (one list per event type) by time. Because the lists are sorted by time, a slice can end at any
//! event time. Only one page of each list is in memory. Raw events and windows come from indexes, which may lag behind
//! their tables. Therefore, the caller must read a row again by its key before it reports a difference.

mod decode;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::Client;

use super::db::Db;
use super::rollups::{self, RollupSource};
use crate::core::audit::{AuditName, FoundPut, FoundRow, Key, RowPlace, Slice, TOTALS_TIME_MS};
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::keys::{SUMS, SUMS_NEXT, TOTALS_SHARDS, TableNames};
use crate::core::plan::RawRows;
use crate::core::rollup::RollupMark;
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

/// Number of window rows that the reader reads in one step.
const WINDOWS_AT_ONCE: usize = 800;
/// Maximum number of attempts of a request. If the last attempt fails, `verify` stops with its error. The pauses
/// between the attempts add up to ten seconds.
const ATTEMPTS: u32 = 8;

/// The settings that determine which rows `verify` reads, and how it reads them.
#[derive(Clone, Debug)]
pub struct AuditView {
    /// The id of the current topic.
    pub topic_id: String,
    /// Number of shards per city.
    pub shards: u32,
    /// Length of a window in milliseconds.
    pub window_ms: i64,
    /// The setting that decides which events have raw items and alerts.
    pub raw_rows: RawRows,
    /// The range `[from, until)` of event times and window starts.
    pub range: (UnixMs, UnixMs),
    /// The current time, which decides whether items have expired.
    pub now_ms: UnixMs,
    /// The rollup rows that `verify` reads.
    pub rollups: RollupView,
}

/// The rollup rows that `verify` reads.
#[derive(Clone, Debug, Default)]
pub struct RollupView {
    /// `verify` reads only the rows of hours and days that end at or before this time. If the value is 0, `verify`
    /// reads no rollup rows.
    pub until_ms: UnixMs,
    /// The names of all event types, or an empty list if `verify` reads no rollup rows.
    pub event_types: Vec<String>,
}

/// The progress item of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressItem {
    /// The id of the topic to which the partition belongs.
    pub topic_id: String,
    /// The number of the partition.
    pub partition: i32,
    /// The offset to read next. All records below this offset are durable.
    pub next: Offset,
    /// The largest event time of the records below `next`, or `None` if none of these records is an event or a
    /// heartbeat.
    pub max_ms: Option<UnixMs>,
    /// The sums over all records below `next`, or `None` if the item has no valid sums.
    pub sums: Option<Sum>,
}

/// Reads the rows that `verify` compares with the log.
#[derive(Clone)]
pub struct Audit {
    db: Db,
}

impl Audit {
    /// Returns a reader of the tables with the given names. The function sends no request.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> Audit {
        Audit {
            db: Db::new(client, names, metrics, ATTEMPTS),
        }
    }

    /// Returns the config item of the tables.
    ///
    /// # Errors
    /// Returns [`StoreError::Corrupt`] if the config item does not exist. Otherwise returns the error from DynamoDB.
    pub async fn config(&self) -> Result<ConfigItem, StoreError> {
        self.db.config().await
    }

    /// Returns the creation time of the table of raw events, or 0 if this program has no right to describe the table.
    pub async fn made_ms(&self) -> UnixMs {
        let asked = self.db.client.describe_table();
        let answer = asked.table_name(&self.db.names.raw).send().await;
        let created = answer.ok().and_then(|a| a.table?.creation_date_time);
        UnixMs(created.and_then(|time| time.to_millis().ok()).unwrap_or(0))
    }

    /// Returns all progress items, including those of former topic ids.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn progress(&self) -> Result<Vec<ProgressItem>, StoreError> {
        let attributes = [SERIES, NEXT, MAX, SUMS_NEXT].into_iter().chain(SUMS);
        let items = self.db.progress_items(attributes).await?;
        Ok(items.iter().filter_map(progress_from_item).collect())
    }

    /// Returns the rollup mark, or `None` if the table has no mark for these tables and this topic id.
    ///
    /// # Errors
    /// Returns [`StoreError::Corrupt`] if the mark is damaged. Otherwise returns the error from DynamoDB.
    pub async fn mark(
        &self,
        tables_id: &str,
        topic_id: &str,
    ) -> Result<Option<RollupMark>, StoreError> {
        let mark = rollups::mark(&self.db).await?;
        Ok(mark.filter(|mark| mark.is_of(Some(topic_id), tables_id)))
    }

    /// Returns the names (`city#event_type`) of all series for which `keep` returns true.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn series(
        &self,
        mut keep: impl FnMut(&str) -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let mut out = Vec::new();
        let source = RollupSource::over(self.db.clone());
        let (mut shard, mut after) = (0, String::new());
        while shard < TOTALS_SHARDS {
            let page = source.next_series(&mut shard, &mut after).await?;
            out.extend(page.into_iter().filter(|series| keep(series)));
        }
        Ok(out)
    }

    /// Fills `slice` with the rows from `lo` to `limit`, until the slice is full or there are no more rows. The
    /// function also reads the rows with the keys in `extra`, and adds them to the slice.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn fill(
        &self,
        slice: &mut Slice,
        lo: Option<&RowPlace>,
        limit: Option<&RowPlace>,
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
        // The rollup rows that count all cities have an empty city name. This name may come between the names of two
        // cities in the sort order.
        let end_of_all = RowPlace::new("", UnixMs(i64::MAX));
        let mut all_are_due =
            view.rollups.until_ms > UnixMs(0) && lo.is_none_or(|lo| *lo <= end_of_all);
        let mut cities = CityTotals::new(&self.db, lo.map(RowPlace::city));
        loop {
            let next = cities.next(&self.db).await?;
            let is_after = |city: &str| RowPlace::new(city, TOTALS_TIME_MS) > end_of_all;
            if all_are_due && next.as_ref().is_none_or(|(city, _)| is_after(city)) {
                all_are_due = false;
                if self.fill_all_cities(slice, lo, view).await? {
                    return Ok(());
                }
            }
            let Some((city, totals)) = next else {
                return Ok(());
            };
            let begin = RowPlace::new(&city, TOTALS_TIME_MS);
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
    }

    /// Fills `slice` with the hour rows and day rows that count all cities. Returns true if the slice is full before it
    /// contains all of these rows.
    async fn fill_all_cities(
        &self,
        slice: &mut Slice,
        lo: Option<&RowPlace>,
        view: &AuditView,
    ) -> Result<bool, StoreError> {
        let resumed = lo.filter(|lo| lo.city().is_empty());
        let from_ms = resumed.map_or(view.range.0, |lo| lo.time_ms.max(view.range.0));
        let begin = RowPlace::new("", from_ms);
        if slice.is_full() {
            slice.end_at(begin.clone());
        }
        if slice.hi().is_some_and(|hi| begin >= *hi) {
            return Ok(true);
        }
        self.fill_city(slice, "", &view.rollups.event_types, from_ms, view)
            .await
    }

    /// Fills `slice` with the rows of a city. Returns true if the slice is full before it contains all rows of the
    /// city.
    async fn fill_city(
        &self,
        slice: &mut Slice,
        city: &str,
        kinds: &[String],
        from_ms: UnixMs,
        view: &AuditView,
    ) -> Result<bool, StoreError> {
        let mut lists = CityLists::open(&self.db, city, kinds, from_ms, view).await?;
        let mut windows = Vec::new();
        let mut last_ms = None;
        while let Some(time_ms) = lists.next_ms() {
            let place = RowPlace::new(city, time_ms);
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
                AuditName::Window(_) | AuditName::Totals(_) => windows.push(key),
                AuditName::Hour(_) | AuditName::Day(_) => {
                    let row = row_from_item(&item, &key, view);
                    slice.add_row(key, row);
                }
                AuditName::Raw(_) | AuditName::Alert(_) => {
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
        // The keys come from an index, which may still contain a deleted row. BatchGetItem does not return such a row.
        for (key, row) in self.rows(std::mem::take(keys), view).await? {
            slice.add_row(key, row);
        }
        Ok(())
    }

    /// Reads the count rows with the given keys, and returns the rows that exist.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
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

    /// Reads the raw events and alerts with the given keys, and returns the items that exist.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn puts(
        &self,
        keys: Vec<Key>,
        now_ms: UnixMs,
    ) -> Result<BTreeMap<Key, FoundPut>, StoreError> {
        let found = self.by_key(keys).await?;
        let put = |(key, item): (Key, Item)| {
            let put = put_from_item(&item, &key, now_ms);
            (key, put)
        };
        Ok(found.into_iter().map(put).collect())
    }

    async fn by_key(&self, keys: Vec<Key>) -> Result<Vec<(Key, Item)>, StoreError> {
        // The table's key of a raw event does not contain the city, so two of the requested keys may belong to the same
        // item.
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

    /// Returns the table, the partition key and the sort key of a row. This function shares no code with the consumer,
    /// so that `verify` can find errors in the consumer.
    fn table_key(&self, key: &Key) -> TableKey {
        let names = &self.db.names;
        let (city, time_ms) = (key.place.city(), key.place.time_ms);
        match &key.name {
            AuditName::Totals(kind) => {
                let series = format!("{city}#{kind}");
                let shard = crc32fast::hash(series.as_bytes()) % TOTALS_SHARDS;
                (names.totals.clone(), format!("totals#{shard}"), series)
            }
            AuditName::Window(_) => (names.aggregations.clone(), key.in_table(), String::new()),
            AuditName::Hour(_) | AuditName::Day(_) => {
                let key = key.in_table();
                let (shard, start) = key.rsplit_once(' ').unwrap_or_default();
                (names.totals.clone(), shard.to_owned(), start.to_owned())
            }
            AuditName::Raw(id) => (names.raw.clone(), id.to_string(), format_millis(time_ms)),
            AuditName::Alert(id) => (
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

/// A table, a partition key and a sort key. The sort key is empty if the table has no sort key.
type TableKey = (String, String, String);

fn progress_from_item(item: &Item) -> Option<ProgressItem> {
    let (topic_id, partition) = decode::split_log_key(text(item, SERIES))?;
    Some(ProgressItem {
        topic_id,
        partition,
        next: Offset(number(item, NEXT)?),
        max_ms: number(item, MAX).map(UnixMs),
        sums: proof::sums(item),
    })
}
