//! Reads the data for the API: the trait [`Reads`] and its implementation on DynamoDB.
//!
//! The readers use Query, BatchGetItem and GetItem, and never Scan. Therefore, the cost of a response depends on its
//! size, and not on the size of the tables. Expressions contain aliases such as `#x` instead of attribute names,
//! because several attribute names are reserved words in DynamoDB. The readers fetch every page of a Query, and request
//! the unprocessed keys of a BatchGetItem again.
//!
//! | question | requests |
//! |---|---|
//! | events of a city | a Query per city shard on `city-timestamp-index`, merged |
//! | alerts of a city | one Query on the alerts table |
//! | alerts of all cities | a Query per severity and shard on `severity-timestamp-index`, merged |
//! | incidents | a Query per state on `state-opened-index`, merged |
//! | windows of a series | `series-window-index` (keys), then progress, then the rows, then config |
//! | first and last event of a city | two Queries per city shard and two per series, on the indexes above |
//! | windows of several series, or the newest of each | a Query per series on `series-window-index`, then as above |
//! | totals | a Query per `totals#n`, for one city with `begins_with` |
//! | hours and days of some series, from rollups | a Query per series on the totals table |
//! | grand total, if there are too many series | a Query on `progress` |
//! | a page of totals in order of names | a Query per `totals#n` from a name on, merged by the API |
//!
//! If an attribute is missing or has the wrong type, the readers return an empty value or zero, so that a damaged row
//! does not hide other rows. The readers log a warning for each damaged number, at a limited rate.

mod aggregations;
pub mod audit;
mod batch;
mod db;
mod follow;
mod items;
mod lane;
mod lists;
mod meter;
mod newest_first;
pub mod rollups;
mod span;
mod totals;

use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;

use self::db::Db;
pub use self::follow::IncidentFollower;
pub use self::items::{AggregationItem, AlertItem, EventItem, TotalItem};
pub use self::meter::{Cost, Meter, metered, metered_by, units_so_far};
pub use self::rollups::{DayItem, HourItem, RolledUp};
pub use self::totals::EveryTotal;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::incident::silence::Silence;
use crate::core::keys::{CITY_INDEX, SERIES_INDEX, TableNames};
use crate::core::rollup::RollupSeries;
use crate::core::time::parse_timestamp;
use crate::store::attributes::{CITY, CITY_SHARD, SERIES, string};
use crate::store::config::ConfigItem;
use crate::store::error::StoreError;
use crate::store::incidents::StoredIncident;
use crate::telemetry::Metrics;

/// Maximum age of a reader's cached shard count. `init-tables` raises the shard count in the config item before any
/// consumer uses the new count.
const CONFIG_AGE_MAX: Duration = Duration::from_secs(60);
/// Interval at which `ping` reads the tables other than the totals table, as long as all of them answer.
const OTHERS_EVERY: Duration = Duration::from_secs(10);

/// The future that a method of [`Reads`] returns.
pub type ReadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items on the page, at most [`PageRequest::limit`] items.
    pub items: Vec<T>,
    /// The position at which the next page begins, or `None` at the end of the list.
    pub next: Option<Position>,
}

impl<T> Page<T> {
    /// Converts each item of the page with `convert`.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(convert).collect(),
            next: self.next,
        }
    }

    /// Returns an empty page with no next page.
    pub const fn empty() -> Page<T> {
        Page {
            items: Vec::new(),
            next: None,
        }
    }
}

/// A filter for a list of incidents. A field that is `None` matches every incident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// True to list only open incidents, false to list only resolved incidents.
    pub is_open: Option<bool>,
    /// The city whose incidents are listed, for rules that group events by city.
    pub city: Option<String>,
    /// The name of the rule whose incidents are listed.
    pub rule: Option<String>,
}

/// A page of windows, with the watermark of the topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// The windows of the page, newest first.
    pub page: Page<AggregationItem>,
    /// The smallest published watermark among the partitions of the current topic.
    pub watermark_ms: Option<UnixMs>,
}

impl Windows {
    /// Returns an empty page, for a list without windows.
    pub const fn none() -> Windows {
        Windows {
            page: Page::empty(),
            watermark_ms: None,
        }
    }

    /// Returns true if the page for `request` never changes again. Such a page has only final windows, and no further
    /// window can appear in its range.
    pub fn are_settled(&self, request: &PageRequest) -> bool {
        let position = request.after.as_ref();
        let above_ms = position.and_then(|position| parse_timestamp(&position.sort_key));
        let to_ms = request.range.to_ms;
        let end_ms = above_ms.map_or(to_ms, |above_ms| above_ms.min(to_ms));
        !self.page.items.is_empty()
            && self.page.items.iter().all(|item| item.is_final)
            && self.watermark_ms.is_some_and(|ms| ms >= end_ms)
    }
}

/// The position after an item of a list that combines several DynamoDB partitions. The list is sorted by descending
/// sort key, and then by the number of the partition. Within one partition, items with equal sort keys are in
/// DynamoDB's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The sort key of the last item on the previous page.
    pub sort_key: String,
    /// The number of the DynamoDB partition from which the item was read.
    pub lane: u32,
    /// The values of the attributes that are keys of the table but not of the index, separated by `#`. The string is
    /// empty if the list comes from a table instead of an index.
    pub key: String,
}

/// A range of event times, `[from_ms, to_ms)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first instant of the range.
    pub from_ms: UnixMs,
    /// The first instant after the range.
    pub to_ms: UnixMs,
}

impl Range {
    /// Returns true if the range is empty.
    pub fn is_empty(&self) -> bool {
        self.from_ms >= self.to_ms
    }
}

/// A request for one page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The range of event times. In a list of windows, the range applies to the window starts.
    pub range: Range,
    /// Maximum number of items on the page.
    pub limit: usize,
    /// The position at which the page begins, or `None` to begin with the newest item.
    pub after: Option<Position>,
    /// The current time. The page excludes rows that have expired.
    pub now_ms: UnixMs,
}

/// The read operations that the API needs.
pub trait Reads: Send + Sync + 'static {
    /// Returns the events of a city, newest first.
    fn events(&self, city: String, request: PageRequest) -> ReadFuture<'_, Page<EventItem>>;

    /// Returns the alerts of a city or of all cities, newest first.
    fn alerts(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        request: PageRequest,
    ) -> ReadFuture<'_, Page<AlertItem>>;

    /// Returns incidents, sorted by opening time, newest first. The kind of the error is
    /// [`StoreErrorKind::NotFound`](crate::store::error::StoreErrorKind::NotFound) if the incident table does not
    /// exist.
    fn incidents(
        &self,
        wanted: IncidentFilter,
        request: PageRequest,
    ) -> ReadFuture<'_, Page<StoredIncident>>;

    /// Returns all silences, including those that have ended. If the incident table does not exist, the error is the
    /// same as for [`Reads::incidents`].
    fn silences(&self) -> ReadFuture<'_, Vec<Silence>>;

    /// Returns the windows of a series (`city#event_type`), newest first.
    fn aggregations(&self, series: String, request: PageRequest) -> ReadFuture<'_, Windows>;

    /// Returns every window that starts in `range` and belongs to one of the given series, in any order.
    fn windows(&self, series: Vec<String>, range: Range) -> ReadFuture<'_, Windows>;

    /// Returns the start of the newest window that belongs to one of the given series and starts at or before
    /// `until_ms`.
    fn newest_window(
        &self,
        series: Vec<String>,
        until_ms: UnixMs,
    ) -> ReadFuture<'_, Option<UnixMs>>;

    /// Returns the newest windows of each of the given series, in any order. The number of windows of a series is the
    /// number that can be open at the same time.
    fn latest_windows(&self, series: Vec<String>) -> ReadFuture<'_, Vec<AggregationItem>>;

    /// Returns the time up to which the windows of the current topic are rolled up. The caller reads hours before
    /// `until_ms` from rollups, and later hours from windows. The call costs two read units.
    ///
    /// The caller must call this function again for each response, and pass the result to [`Reads::hours`] and
    /// [`Reads::days`]. The rollup rows of an hour before `until_ms` change only if the topic is recreated, or if a
    /// consumer counts the first event of an idle partition.
    fn rolled_up(&self, now_ms: UnixMs) -> ReadFuture<'_, RolledUp>;

    /// Returns the start of the first rolled-up hour in which one of the given series has an event. The call costs half
    /// a read unit for each series.
    fn first_hour(
        &self,
        series: Vec<RollupSeries>,
        rolled_up: RolledUp,
    ) -> ReadFuture<'_, Option<UnixMs>>;

    /// Returns the counts of the given series for each hour that starts in `range` and ends at or before
    /// `rolled_up.until_ms`, in any order. The result excludes hours without events.
    ///
    /// For one series and 1,000 hours that have events, the call costs about 23 read units. The cost doubles if
    /// `rolled_up.is_settled` is false.
    fn hours(
        &self,
        series: Vec<RollupSeries>,
        range: Range,
        rolled_up: RolledUp,
    ) -> ReadFuture<'_, Vec<HourItem>>;

    /// Returns the counts of the given series for each UTC day that starts in `range` and ends at or before
    /// `rolled_up.until_ms`, in any order. The result excludes days without events.
    ///
    /// For one series and one year, the call costs about 13 to 22 read units. The cost doubles if
    /// `rolled_up.is_settled` is false.
    fn days(
        &self,
        series: Vec<RollupSeries>,
        range: Range,
        rolled_up: RolledUp,
    ) -> ReadFuture<'_, Vec<DayItem>>;

    /// Returns the event times of a city's first event (`from_ms`) and last event (`to_ms`). `series` lists all series
    /// of the city. If the raw row of an event has expired, the result contains the start of the event's window
    /// instead. The call costs one read unit for each series and one for each shard of the city.
    fn span(&self, city: String, series: Vec<String>) -> ReadFuture<'_, Option<Range>>;

    /// Returns the totals of every series, or of every series of one city, in any order.
    fn totals(&self, city: Option<String>) -> ReadFuture<'_, Vec<TotalItem>>;

    /// Returns the sums over all series, and the totals of the largest series, at most `kept_max` of them. If the call
    /// reaches its limit of read units, the result includes only the series that it has read until then.
    fn every_total(&self, kept_max: usize) -> ReadFuture<'_, EveryTotal> {
        Box::pin(async move {
            let mut every = EveryTotal::new(kept_max);
            every.take(self.totals(None).await?);
            Ok(every.sorted())
        })
    }

    /// Returns the totals of the series after the name `after` (`city#event_type`) in one shard of the totals table.
    /// The result contains at most `limit` series, in alphabetical order. The flag is true if more series follow.
    fn totals_after(
        &self,
        shard: String,
        after: String,
        limit: i32,
    ) -> ReadFuture<'_, (Vec<TotalItem>, bool)>;

    /// Returns the sums over all progress items, or `None` if a progress item has no valid sums.
    fn kept_total(&self) -> ReadFuture<'_, Option<TotalItem>>;

    /// Returns an error unless all tables answer and the config item exists.
    fn ping(&self) -> ReadFuture<'_, ()>;
}

/// The implementation of [`Reads`] that reads from DynamoDB.
pub struct DynamoReads {
    db: Db,
    shards: Mutex<Option<(Instant, u32)>>,
    finals: aggregations::Finals,
    /// The time at which the tables other than the totals table last answered.
    others_answered: Mutex<Option<Instant>>,
}

impl DynamoReads {
    /// Returns a reader of the tables with the given names. The function sends no request.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> DynamoReads {
        DynamoReads {
            // The reader does not repeat a failed request, because the client of the API waits for the response, and
            // can repeat its own request.
            db: Db::new(client, names, metrics, 1),
            shards: Mutex::new(None),
            finals: aggregations::finals(),
            others_answered: Mutex::new(None),
        }
    }

    /// Returns the shard count from the config item. The value is at most [`CONFIG_AGE_MAX`] old, as long as DynamoDB
    /// answers.
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

    /// Reads a nonexistent key from each table other than the totals table, unless all of them have answered within
    /// [`OTHERS_EVERY`]. Each read costs half a read unit.
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
                // The names of cities and series never begin with `#`, so the Query finds nothing.
                .expression_attribute_values(":none", string("#"))
                .limit(1);
            self.db.query_page(query).await?;
        }
        *lock() = Some(Instant::now());
        Ok(())
    }
}

impl Reads for DynamoReads {
    fn events(&self, city: String, request: PageRequest) -> ReadFuture<'_, Page<EventItem>> {
        Box::pin(async move {
            let shards = self.shards().await?;
            lists::events(&self.db, shards, &city, request).await
        })
    }

    fn alerts(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        request: PageRequest,
    ) -> ReadFuture<'_, Page<AlertItem>> {
        Box::pin(async move {
            match city {
                Some(city) => lists::alerts_of(&self.db, city, severity, request).await,
                None => {
                    let shards = self.shards().await?;
                    lists::alerts(&self.db, shards, severity, request).await
                }
            }
        })
    }

    fn incidents(
        &self,
        wanted: IncidentFilter,
        request: PageRequest,
    ) -> ReadFuture<'_, Page<StoredIncident>> {
        Box::pin(lists::incidents(&self.db, wanted, request))
    }

    fn silences(&self) -> ReadFuture<'_, Vec<Silence>> {
        Box::pin(lists::silences(&self.db))
    }

    fn aggregations(&self, series: String, request: PageRequest) -> ReadFuture<'_, Windows> {
        Box::pin(async move { aggregations::page(&self.db, &series, &request).await })
    }

    fn windows(&self, series: Vec<String>, range: Range) -> ReadFuture<'_, Windows> {
        Box::pin(aggregations::windows(&self.db, &self.finals, series, range))
    }

    fn newest_window(
        &self,
        series: Vec<String>,
        until_ms: UnixMs,
    ) -> ReadFuture<'_, Option<UnixMs>> {
        Box::pin(aggregations::newest(&self.db, series, until_ms))
    }

    fn latest_windows(&self, series: Vec<String>) -> ReadFuture<'_, Vec<AggregationItem>> {
        Box::pin(aggregations::latest(&self.db, &self.finals, series))
    }

    fn rolled_up(&self, now_ms: UnixMs) -> ReadFuture<'_, RolledUp> {
        Box::pin(rollups::rolled_up(&self.db, now_ms))
    }

    fn first_hour(
        &self,
        series: Vec<RollupSeries>,
        rolled_up: RolledUp,
    ) -> ReadFuture<'_, Option<UnixMs>> {
        Box::pin(rollups::first_hour(&self.db, series, rolled_up))
    }

    fn hours(
        &self,
        series: Vec<RollupSeries>,
        range: Range,
        rolled_up: RolledUp,
    ) -> ReadFuture<'_, Vec<HourItem>> {
        Box::pin(rollups::hours(&self.db, series, range, rolled_up))
    }

    fn days(
        &self,
        series: Vec<RollupSeries>,
        range: Range,
        rolled_up: RolledUp,
    ) -> ReadFuture<'_, Vec<DayItem>> {
        Box::pin(rollups::days(&self.db, series, range, rolled_up))
    }

    fn span(&self, city: String, series: Vec<String>) -> ReadFuture<'_, Option<Range>> {
        Box::pin(async move {
            let shards = self.shards().await?;
            span::of_city(&self.db, &city, shards, series).await
        })
    }

    fn totals(&self, city: Option<String>) -> ReadFuture<'_, Vec<TotalItem>> {
        Box::pin(totals::all(&self.db, city))
    }

    fn every_total(&self, kept_max: usize) -> ReadFuture<'_, EveryTotal> {
        Box::pin(totals::every(&self.db, kept_max))
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
