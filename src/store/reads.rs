//! What the API reads from the tables: the trait [`Reads`] and its implementation on DynamoDB.
//!
//! The readers use Query, BatchGetItem and GetItem. They never scan, so the cost of an answer depends
//! on the answer and not on the size of the tables. Expressions name every attribute through `#x`,
//! because several names are reserved words. Every page and every unprocessed key is read.
//!
//! | question | requests |
//! |---|---|
//! | events of a city | a Query per city shard on `city-timestamp-index`, merged |
//! | alerts of a city | one Query on the alerts table |
//! | alerts of all cities | a Query per severity and shard on `severity-timestamp-index`, merged |
//! | windows of a series | `series-window-index` (keys), then progress, then the rows, then config |
//! | windows of several series, or the newest of them | a Query per series on that index, then as above for all series |
//! | totals | a Query per `totals#n`, for one city with `begins_with` |
//! | grand total, if there are too many series | a Query on `progress` |
//! | totals in order of names, a page | a Query per `totals#n` from a name on, merged by the API |
//!
//! The readers tolerate damaged items: an attribute that is missing or has another type is shown as
//! empty or zero, so that one damaged row does not hide the others. A damaged number is logged.

mod aggregations;
pub mod audit;
mod batch;
mod db;
mod items;
mod lane;
mod meter;
mod newest_first;
mod totals;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;

use self::db::{Db, KeyNames};
pub use self::items::{AggregationItem, AlertItem, EventItem, TotalItem};
pub use self::meter::{Cost, Meter, metered, metered_by, units_so_far};
use self::newest_first::{KeyedSource, ListPartition, read_page};
pub use self::totals::EveryTotal;
use crate::core::event::Severity;
use crate::core::keys::{CITY_INDEX, SERIES_INDEX, SEVERITY_INDEX, TableNames};
use crate::core::time::{format_millis, parse_timestamp};
use crate::store::attributes::{
    CITY, CITY_SHARD, EVENT_ID, Item, SERIES, SEVERITY_SHARD, TIMESTAMP, string,
};
use crate::store::config::ConfigItem;
use crate::store::error::StoreError;
use crate::telemetry::Metrics;

/// How long a reader uses a shard count before it reads the count again. `init-tables` raises the
/// count before any consumer uses it.
const CONFIG_AGE_MAX: Duration = Duration::from_secs(60);
/// Time between two requests to the tables other than the totals, as long as they answer.
const OTHERS_EVERY: Duration = Duration::from_secs(10);

/// The future of an answer.
pub type ReadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// At most as many items as were requested.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Position>,
}

impl<T> Page<T> {
    /// Returns the page of an empty list.
    pub const fn empty() -> Page<T> {
        Page {
            items: Vec::new(),
            next: None,
        }
    }

    fn map<U>(self, from_item: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(from_item).collect(),
            next: self.next,
        }
    }
}

/// A page of windows, and how far counting has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// The windows, newest first.
    pub page: Page<AggregationItem>,
    /// The smallest watermark that a partition of the current topic has published, in Unix
    /// milliseconds.
    pub watermark_ms: Option<i64>,
}

impl Windows {
    /// Returns the page of a list without windows.
    pub const fn none() -> Windows {
        Windows {
            page: Page::empty(),
            watermark_ms: None,
        }
    }

    /// Returns whether nothing on the page that answers `request` will change: every row is final, and
    /// no window between or above the rows can still get its first event.
    pub fn are_settled(&self, request: &PageRequest) -> bool {
        let position = request.after.as_ref();
        let above_ms = position.and_then(|position| parse_timestamp(&position.sort_key));
        let end_ms = request.range.to_ms.min(above_ms.unwrap_or(i64::MAX));
        !self.page.items.is_empty()
            && self.page.items.iter().all(|item| item.is_final)
            && self.watermark_ms.is_some_and(|ms| ms >= end_ms)
    }
}

/// The position after an item of a merged list. Lists are ordered by descending sort key, then by
/// lane, then as DynamoDB orders equal sort keys within a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Sort key of the last item that was given out.
    pub sort_key: String,
    /// Number of the item's partition among those that are merged.
    pub lane: u32,
    /// The third attribute of the item's key; empty if the key has only two.
    pub key: String,
}

/// Event times `[from_ms, to_ms)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First instant, Unix milliseconds.
    pub from_ms: i64,
    /// First instant after the last, Unix milliseconds.
    pub to_ms: i64,
}

impl Range {
    /// Returns whether the range contains no instant.
    pub const fn is_empty(&self) -> bool {
        self.from_ms >= self.to_ms
    }
}

/// The part of a list that one page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Range of event times, or of window starts.
    pub range: Range,
    /// Most items on the page.
    pub limit: usize,
    /// Where the page begins; `None` at the newest item.
    pub after: Option<Position>,
    /// The current time in Unix milliseconds. Rows whose `ttl` is not after it are left out.
    pub now_ms: i64,
}

/// What the API reads from the tables.
pub trait Reads: Send + Sync + 'static {
    /// Returns events of a city, newest first.
    fn events(&self, city: String, request: PageRequest) -> ReadFuture<'_, Page<EventItem>>;

    /// Returns alerts of a city, or of all cities, newest first.
    fn alerts(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        request: PageRequest,
    ) -> ReadFuture<'_, Page<AlertItem>>;

    /// Returns windows of a series (`city#event_type`), newest first.
    fn aggregations(&self, series: String, request: PageRequest) -> ReadFuture<'_, Windows>;

    /// Returns every window of these series that starts in `range`, in any order.
    fn windows(&self, series: Vec<String>, range: Range) -> ReadFuture<'_, Windows>;

    /// Returns the newest window start of these series at or before `until_ms`, in Unix milliseconds.
    fn newest_window(&self, series: Vec<String>, until_ms: i64) -> ReadFuture<'_, Option<i64>>;

    /// Returns the newest windows of each of these series, in any order. It returns as many windows of
    /// a series as can be open at the same time.
    fn latest_windows(&self, series: Vec<String>) -> ReadFuture<'_, Vec<AggregationItem>>;

    /// Returns the totals of every series, or of every series of one city, in any order.
    fn totals(&self, city: Option<String>) -> ReadFuture<'_, Vec<TotalItem>>;

    /// Returns the sums over every series, and at most `kept_max` of the largest series. Adds the
    /// number of series to `found` while it reads them.
    fn every_total(&self, kept_max: usize, found: Arc<AtomicUsize>) -> ReadFuture<'_, EveryTotal> {
        Box::pin(async move {
            let mut every = EveryTotal::new(kept_max);
            every.take(self.totals(None).await?);
            found.store(every.series_count, Ordering::Relaxed);
            Ok(every.sorted())
        })
    }

    /// Returns series of one shard of the totals whose name (`city#event_type`) is greater than `after`, in
    /// order of names, `limit` at most. The flag is true if more of them follow.
    fn totals_after(
        &self,
        shard: String,
        after: String,
        limit: i32,
    ) -> ReadFuture<'_, (Vec<TotalItem>, bool)>;

    /// Returns the sums of all progress items; `None` if the sums of one are unknown.
    fn kept_total(&self) -> ReadFuture<'_, Option<TotalItem>>;

    /// Returns an error unless all tables answer and the config item is there.
    fn ping(&self) -> ReadFuture<'_, ()>;
}

/// [`Reads`] from DynamoDB.
pub struct DynamoReads {
    db: Db,
    shards: Mutex<Option<(Instant, u32)>>,
    finals: aggregations::Finals,
    /// When the tables other than the totals last answered.
    others_answered: Mutex<Option<Instant>>,
}

impl DynamoReads {
    /// Returns a reader of the tables `names`. Sends nothing yet.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> DynamoReads {
        DynamoReads {
            // A failed request is the client's to repeat: the client waits for the answer.
            db: Db::new(client, names, metrics, 1),
            shards: Mutex::new(None),
            finals: aggregations::finals(),
            others_answered: Mutex::new(None),
        }
    }

    /// Returns the shard count, at most [`CONFIG_AGE_MAX`] old while DynamoDB answers.
    async fn shards(&self) -> Result<u32, StoreError> {
        let known = *self.shards.lock().expect("no panic holds the shard count");
        match known {
            Some((read, shards)) if read.elapsed() < CONFIG_AGE_MAX => Ok(shards),
            _ => match (self.fetch_config().await, known) {
                (Ok(config), _) => Ok(config.shards),
                (Err(_), Some((_, shards))) => Ok(shards),
                (Err(error), None) => Err(error),
            },
        }
    }

    async fn fetch_config(&self) -> Result<ConfigItem, StoreError> {
        let config = self.db.config().await?;
        *self.shards.lock().expect("no panic holds the shard count") =
            Some((Instant::now(), config.shards));
        Ok(config)
    }

    /// Asks the tables other than the totals for a key that none of them holds, at half a read unit
    /// each. It asks once per [`OTHERS_EVERY`], or at every ping while a table does not answer.
    async fn ping_others(&self) -> Result<(), StoreError> {
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < OTHERS_EVERY);
        let lock = || self.others_answered.lock().expect("no panic holds it");
        if is_recent(*lock()) {
            return Ok(());
        }
        *lock() = None;
        let names = &self.db.names;
        for (table, index, key) in [
            (&names.aggregations, Some(SERIES_INDEX), SERIES),
            (&names.alerts, None, CITY),
            (&names.raw, Some(CITY_INDEX), CITY_SHARD),
        ] {
            let query = self
                .db
                .query(table)
                .set_index_name(index.map(str::to_owned))
                .key_condition_expression("#pk = :none")
                .expression_attribute_names("#pk", key)
                // No city and no series begins with `#`.
                .expression_attribute_values(":none", string("#"))
                .limit(1);
            self.db.query_page(query).await?;
        }
        *lock() = Some(Instant::now());
        Ok(())
    }

    async fn events_page(
        &self,
        city: &str,
        request: PageRequest,
    ) -> Result<Page<EventItem>, StoreError> {
        let table = self.db.names.raw.clone();
        let source = KeyedSource {
            keys: KeyNames {
                table: table.clone(),
                index: Some(CITY_INDEX),
                pk: CITY_SHARD,
                sk: TIMESTAMP,
            },
            other_key: Some(EVENT_ID),
        };
        let lower = format_millis(request.range.from_ms);
        // Event times are whole milliseconds, so the last one below `to` is one less.
        let upper = format_millis(request.range.to_ms - 1);
        let shards = (0..self.shards().await?)
            .map(|n| ListPartition::new(format!("{city}#{n}"), &lower, &upper))
            .collect();
        // Any number of events may share a time. A shard that gave out all of its events at a time
        // continues one millisecond below it.
        let below = |sk: &str| parse_timestamp(sk).map(|ms| format_millis(ms - 1));
        let page = read_page(&self.db, source, shards, &request, below).await?;
        Ok(page.map(|item| EventItem::from_table(&table, &item)))
    }

    async fn alerts_page(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        request: PageRequest,
    ) -> Result<Page<AlertItem>, StoreError> {
        // Sort keys are `<time>#<id>`: all of one time lie between it and the next millisecond.
        let (lower, upper) = (
            format_millis(request.range.from_ms),
            format_millis(request.range.to_ms),
        );
        let source = |index, pk, other_key| KeyedSource {
            keys: KeyNames {
                table: self.db.names.alerts.clone(),
                index,
                pk,
                sk: TIMESTAMP,
            },
            other_key,
        };
        let (source, partitions) = match city {
            Some(city) => {
                let partition = ListPartition::new(city, &lower, &upper).only(severity);
                (source(None, CITY, None), vec![partition])
            }
            None => {
                let raising: Vec<Severity> = Severity::ALL
                    .into_iter()
                    .filter(|s| s.is_alert() && severity.is_none_or(|wanted| wanted == *s))
                    .collect();
                // The shard is the outer loop, so a lane keeps its number when the shards grow.
                let partitions = (0..self.shards().await?)
                    .flat_map(|n| raising.iter().map(move |s| format!("{s}#{n}")))
                    .map(|pk| ListPartition::new(pk, &lower, &upper))
                    .collect();
                let index = Some(SEVERITY_INDEX);
                (source(index, SEVERITY_SHARD, Some(CITY)), partitions)
            }
        };
        let page = read_page(&self.db, source, partitions, &request, |_| None).await?;
        Ok(page.map(|item: Item| AlertItem::from_item(&item)))
    }
}

impl Reads for DynamoReads {
    fn events(&self, city: String, request: PageRequest) -> ReadFuture<'_, Page<EventItem>> {
        Box::pin(async move { self.events_page(&city, request).await })
    }

    fn alerts(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        request: PageRequest,
    ) -> ReadFuture<'_, Page<AlertItem>> {
        Box::pin(self.alerts_page(city, severity, request))
    }

    fn aggregations(&self, series: String, request: PageRequest) -> ReadFuture<'_, Windows> {
        Box::pin(async move { aggregations::page(&self.db, &series, &request).await })
    }

    fn windows(&self, series: Vec<String>, range: Range) -> ReadFuture<'_, Windows> {
        Box::pin(aggregations::windows(&self.db, &self.finals, series, range))
    }

    fn newest_window(&self, series: Vec<String>, until_ms: i64) -> ReadFuture<'_, Option<i64>> {
        Box::pin(aggregations::newest(&self.db, series, until_ms))
    }

    fn latest_windows(&self, series: Vec<String>) -> ReadFuture<'_, Vec<AggregationItem>> {
        Box::pin(aggregations::latest(&self.db, &self.finals, series))
    }

    fn totals(&self, city: Option<String>) -> ReadFuture<'_, Vec<TotalItem>> {
        Box::pin(totals::all(&self.db, city))
    }

    fn every_total(&self, kept_max: usize, found: Arc<AtomicUsize>) -> ReadFuture<'_, EveryTotal> {
        Box::pin(async move { totals::every(&self.db, kept_max, &found).await })
    }

    fn totals_after(
        &self,
        shard: String,
        after: String,
        limit: i32,
    ) -> ReadFuture<'_, (Vec<TotalItem>, bool)> {
        Box::pin(totals::after(&self.db, shard, after, limit))
    }

    fn kept_total(&self) -> ReadFuture<'_, Option<TotalItem>> {
        Box::pin(totals::kept(&self.db))
    }

    fn ping(&self) -> ReadFuture<'_, ()> {
        Box::pin(async move {
            self.fetch_config().await?;
            self.ping_others().await
        })
    }
}
