//! The tables as `verify` reads them: in the order of city and time, by Query and BatchGetItem.
//!
//! A [`Slice`] is filled city by city. Which cities there are say the totals, sixteen sorted lists
//! that are merged; within a city the raw events (a list per shard), the alerts and the windows (a
//! list per type) are merged by time, so that a slice can end anywhere. No list is held whole: a page
//! of each is. Raw events and windows come from indexes, which may lag; whoever finds a difference
//! reads the row by its key before believing it.

mod decode;
mod lanes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::task::JoinSet;

use super::batch::BATCH_KEYS_MAX;
use super::{Db, Item, items};
use crate::core::audit::{FoundPut, FoundRow, Key, Name, Place, Slice, Stored, TOTALS_TIME_MS};
use crate::core::event::Offset;
use crate::core::keys::{PROGRESS_PK, TOTALS_SHARDS, TableNames};
use crate::core::stretch::Sum;
use crate::core::time::format_millis;
use crate::store::config::Config;
use crate::store::error::{Kind, StoreError};
use crate::store::proof;
use crate::telemetry::Metrics;
use lanes::{Cities, CityLanes};

pub use decode::{put_from_item, row_from_item};

/// BatchGetItem requests under way at once, and the windows whose rows are read together.
const REQUESTS_MAX: usize = 8;
const WINDOWS_AT_ONCE: usize = REQUESTS_MAX * BATCH_KEYS_MAX;
/// How often a request is sent before its error ends the comparison, and the first pause between;
/// pauses double: ten seconds in all.
const ATTEMPTS: u32 = 8;
const PAUSE_FIRST: Duration = Duration::from_millis(80);

/// What the reading depends on.
#[derive(Clone, Debug)]
pub struct View {
    /// The current id of the topic.
    pub topic_id: String,
    /// Shards of cities.
    pub shards: u32,
    /// Length of a window.
    pub window_ms: i64,
    /// Which events are stored.
    pub stored: Stored,
    /// Event times and window starts `[from, until)`.
    pub range: (i64, i64),
    /// The clock.
    pub now_ms: i64,
}

/// A partition's progress item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The topic's id.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// Everything below is durable.
    pub next: Offset,
    /// Largest event time below it.
    pub max_ms: Option<i64>,
    /// What is counted below it, if the item knows.
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
            db: Db {
                client,
                names,
                metrics,
            },
        }
    }

    /// Returns the config item.
    ///
    /// # Errors
    /// What DynamoDB answers; [`StoreError::Corrupt`] if there is none.
    pub async fn config(&self) -> Result<Config, StoreError> {
        let mut patience = Patience::new();
        loop {
            match self.db.config().await {
                Ok(config) => return Ok(config),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// Returns when the table of raw events was made, in Unix milliseconds; 0 where this role may not
    /// know.
    pub async fn made_ms(&self) -> i64 {
        let asked = self.db.client.describe_table();
        let answer = asked.table_name(&self.db.names.raw).send().await;
        let made = answer.ok().and_then(|a| a.table?.creation_date_time);
        made.and_then(|time| time.to_millis().ok()).unwrap_or(0)
    }

    /// Returns all progress items, those of former topic ids included.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        let query = self
            .db
            .query(&self.db.names.totals)
            .key_condition_expression("#shard = :progress")
            .expression_attribute_names("#shard", "shard")
            .expression_attribute_values(":progress", AttributeValue::S(PROGRESS_PK.to_owned()))
            .consistent_read(true);
        let mut patience = Patience::new();
        let items = loop {
            match self.db.query_all(query.clone()).await {
                Ok(items) => break items,
                Err(error) => patience.after(error).await?,
            }
        };
        Ok(items.iter().filter_map(progress_from_item).collect())
    }

    /// Fills `slice` from `lo` on, before `limit`, with what the tables hold, until it is full or
    /// there is no more; ends it where the next slice begins. `extra` are rows of counts that the
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
        view: &View,
    ) -> Result<(), StoreError> {
        if let Some(limit) = limit {
            slice.end_at(limit.clone());
        }
        let within = |key: &&Key| {
            lo.is_none_or(|lo| *lo <= key.place) && limit.is_none_or(|limit| key.place < *limit)
        };
        let extra: Vec<Key> = extra.iter().filter(within).cloned().collect();
        for (key, row) in self.rows(extra, view).await? {
            slice.add_row(key, row);
        }
        let mut cities = Cities::new(&self.db, lo.map(Place::city));
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

    /// Fills in a city; returns whether the slice ended in it.
    async fn fill_city(
        &self,
        slice: &mut Slice,
        city: &str,
        kinds: &[String],
        from_ms: i64,
        view: &View,
    ) -> Result<bool, StoreError> {
        let mut lanes = CityLanes::open(&self.db, city, kinds, from_ms, view).await?;
        let mut windows = Vec::new();
        let mut last_ms = None;
        while let Some(time_ms) = lanes.next_ms() {
            let place = Place::new(city, time_ms);
            let moved = last_ms.is_some_and(|last| time_ms > last);
            let over = slice.hi().is_some_and(|hi| place >= *hi);
            if over || (moved && slice.is_full()) {
                self.add_windows(slice, &mut windows, view).await?;
                slice.end_at(place);
                return Ok(true);
            }
            last_ms = Some(time_ms);
            let (key, item) = lanes.take(&self.db).await?;
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
        view: &View,
    ) -> Result<(), StoreError> {
        // The index may know a row that the table no longer has: it is not in the answer.
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
        view: &View,
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
        // A raw event's city is not part of its key: two of ours may be one there.
        let mut asked: BTreeMap<TableKey, Vec<Key>> = BTreeMap::new();
        for key in keys {
            asked.entry(self.table_key(&key)).or_default().push(key);
        }
        let mut requests: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for (table, pk, sk) in asked.keys() {
            let key = self.item_key(table, pk, sk);
            requests.entry(table.clone()).or_default().push(key);
        }
        let mut out = Vec::new();
        let mut tasks = JoinSet::new();
        for (table, keys) in requests {
            for chunk in keys.chunks(BATCH_KEYS_MAX) {
                if tasks.len() == REQUESTS_MAX
                    && let Some(done) = tasks.join_next().await
                {
                    self.match_up(&asked, done, &mut out)?;
                }
                let (db, table, chunk) = (self.db.clone(), table.clone(), chunk.to_vec());
                tasks.spawn(async move {
                    let mut patience = Patience::new();
                    loop {
                        match db.get_all(&table, chunk.clone()).await {
                            Ok(items) => return Ok((table, items)),
                            Err(error) => patience.after(error).await?,
                        }
                    }
                });
            }
        }
        while let Some(done) = tasks.join_next().await {
            self.match_up(&asked, done, &mut out)?;
        }
        Ok(out)
    }

    fn match_up(
        &self,
        asked: &BTreeMap<TableKey, Vec<Key>>,
        done: Result<Result<(String, Vec<Item>), StoreError>, tokio::task::JoinError>,
        out: &mut Vec<(Key, Item)>,
    ) -> Result<(), StoreError> {
        let (table, items) = done.expect("reading does not panic")?;
        let (pk, sk) = self.key_names(&table);
        for item in items {
            let at = (
                table.clone(),
                items::text(&item, pk),
                sk.map_or_else(String::new, |sk| items::text(&item, sk)),
            );
            for key in asked.get(&at).into_iter().flatten() {
                out.push((key.clone(), item.clone()));
            }
        }
        Ok(())
    }

    /// Returns table, partition key and sort key of a row. Written out here once more, apart from
    /// the code that writes rows.
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
            ("partition_key", None)
        } else if table == names.totals {
            ("shard", Some("series"))
        } else if table == names.alerts {
            ("city", Some("timestamp"))
        } else {
            ("event_id", Some("timestamp"))
        }
    }

    fn item_key(&self, table: &str, pk: &str, sk: &str) -> Item {
        let (pk_name, sk_name) = self.key_names(table);
        let mut key = Item::from([(pk_name.to_owned(), AttributeValue::S(pk.to_owned()))]);
        if let Some(sk_name) = sk_name {
            key.insert(sk_name.to_owned(), AttributeValue::S(sk.to_owned()));
        }
        key
    }
}

/// Table, partition key, and sort key where there is one.
type TableKey = (String, String, String);

/// How long a request is repeated.
struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            left: ATTEMPTS - 1,
            pause: PAUSE_FIRST,
        }
    }

    /// Waits before the request is sent again; gives the error back where that cannot help, or did
    /// not for long enough.
    async fn after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let passing = matches!(
            error.kind(),
            Kind::Transient | Kind::Throttled | Kind::Unknown
        );
        if !passing || self.left == 0 {
            return Err(error);
        }
        tracing::debug!(%error, "asking DynamoDB again");
        tokio::time::sleep(self.pause).await;
        self.left -= 1;
        self.pause *= 2;
        Ok(())
    }
}

fn progress_from_item(item: &Item) -> Option<Progress> {
    let (topic_id, partition) = decode::split_log_key(&items::text(item, "series"))?;
    Some(Progress {
        topic_id,
        partition,
        next: Offset(items::number(item, "next")?),
        max_ms: items::number(item, "max"),
        sums: proof::sums(item),
    })
}
