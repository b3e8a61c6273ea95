//! What the API asks of the tables: the trait [`Reads`] and its implementation on DynamoDB.
//!
//! Query, BatchGetItem and GetItem only; nothing here scans (G3), so the cost of an answer depends
//! on the answer and not on the age of the tables. Every name goes through `#x`, because several are
//! reserved words, and every page and every `UnprocessedKeys` is followed to its end.
//!
//! | question | requests |
//! |---|---|
//! | events of a city | a Query per city shard on `city-timestamp-index`, merged |
//! | alerts of a city | one Query on the alerts table |
//! | alerts of all cities | a Query per severity and shard on `severity-timestamp-index`, merged |
//! | windows of a series | `series-window-index` (keys), then progress, then the rows, then config |
//! | windows of several series | a Query per series on that index, then the same for all of them |
//! | newest windows of several series | a Query per series on that index, then the same for all of them |
//! | totals | a Query per `totals#n`, for one city with `begins_with` |
//! | totals in order of names, a page | a Query per `totals#n` from a name on, merged by the API |
//! | grand total, where there are too many series | a Query on `progress` |
//!
//! Items are read leniently: an attribute that is missing or foreign is shown empty or as zero, so
//! that one odd row never hides the others.

mod aggregations;
pub mod audit;
mod batch;
mod items;
mod lanes;
mod meter;
mod totals;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

pub use self::items::{AggregationItem, AlertItem, EventItem, TotalItem};
use self::lanes::{Lane, Source};
pub use self::meter::{Cost, Meter, metered, metered_by, units_so_far};
pub use self::totals::EveryTotal;
use crate::core::event::Severity;
use crate::core::keys::{
    CITY_INDEX, CONFIG_PK, CONFIG_SK, SERIES_INDEX, SEVERITY_INDEX, TableNames,
};
use crate::core::time::{format_millis, parse_timestamp};
use crate::store::answers::{Flaw, disbelieve};
use crate::store::config::{Config, read_config};
use crate::store::error::StoreError;
use crate::telemetry::Metrics;

/// How long the shard count is believed. `init-tables` raises it before any consumer uses it.
const CONFIG_AGE_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at the tables beside the totals, as long as they answer.
const OTHERS_EVERY: Duration = Duration::from_secs(10);

/// An item as DynamoDB gives it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// At most as many as were asked for.
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
}

/// A page of windows, and how far counting has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Windows {
    /// The windows, newest first.
    pub page: Page<AggregationItem>,
    /// The least watermark of the partitions that published one; Unix milliseconds.
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

    /// Tells whether nothing in a page of `slice` will change: every row is final, and no window
    /// between or above them can still take its first event.
    pub fn are_settled(&self, slice: &Slice) -> bool {
        let place = slice.after.as_ref();
        let above_ms = place.and_then(|place| parse_timestamp(&place.sort_key));
        let end_ms = slice.range.to_ms.min(above_ms.unwrap_or(i64::MAX));
        !self.page.items.is_empty()
            && self.page.items.iter().all(|item| item.is_final)
            && self.watermark_ms.is_some_and(|ms| ms >= end_ms)
    }
}

/// The place behind an item in a merged list: lists are ordered by sort key falling, then by lane,
/// then as DynamoDB orders equal sort keys within one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Sort key of the last item given out.
    pub sort_key: String,
    /// Its lane: the number of the partition among those that are merged.
    pub lane: u32,
    /// What else its key holds; empty where the sort key says it all.
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
    /// Tells whether no instant is in it.
    pub const fn is_empty(&self) -> bool {
        self.from_ms >= self.to_ms
    }
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// By event time, or by window start.
    pub range: Range,
    /// Most items.
    pub limit: usize,
    /// Where to go on.
    pub after: Option<Position>,
    /// Rows whose `ttl` is not after this are gone.
    pub now_ms: i64,
}

/// What the API asks of the tables.
pub trait Reads: Send + Sync + 'static {
    /// Returns events of a city, newest first.
    fn events(&self, city: String, slice: Slice) -> Answer<'_, Page<EventItem>>;

    /// Returns alerts of a city or of all, newest first.
    fn alerts(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        slice: Slice,
    ) -> Answer<'_, Page<AlertItem>>;

    /// Returns windows of a series (`city#event_type`), newest first.
    fn aggregations(&self, series: String, slice: Slice) -> Answer<'_, Windows>;

    /// Returns every window of these series (`city#event_type`) that starts in `range`, in no order.
    fn windows(&self, series: Vec<String>, range: Range) -> Answer<'_, Vec<AggregationItem>>;

    /// Returns the newest window start of these series at or before `until_ms`, in Unix milliseconds.
    fn newest_window(&self, series: Vec<String>, until_ms: i64) -> Answer<'_, Option<i64>>;

    /// Returns of each of these series (`city#event_type`) the newest windows, as many as can be open at
    /// a time, in no order.
    fn latest_windows(&self, series: Vec<String>) -> Answer<'_, Vec<AggregationItem>>;

    /// Returns the totals of every series, or of one city's, in no order.
    fn totals(&self, city: Option<String>) -> Answer<'_, Vec<TotalItem>>;

    /// Returns the sums over every series, and the largest series themselves, `kept_max` at most. Adds the
    /// series to `found` as they are read.
    fn every_total(&self, kept_max: usize, found: Arc<AtomicUsize>) -> Answer<'_, EveryTotal> {
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
    ) -> Answer<'_, (Vec<TotalItem>, bool)>;

    /// Returns the sums that progress items hold, over all of them; `None` if those of one are unknown.
    fn kept_total(&self) -> Answer<'_, Option<TotalItem>>;

    /// Returns whether the tables answer and are set up.
    fn ping(&self) -> Answer<'_, ()>;
}

/// [`Reads`] from DynamoDB.
pub struct DynamoReads {
    db: Db,
    shards: Mutex<Option<(Instant, u32)>>,
    finals: aggregations::Finals,
    /// When the tables beside the totals answered last.
    others_answered: Mutex<Option<Instant>>,
}

/// What a request needs; cheap to clone into tasks.
#[derive(Clone)]
pub(crate) struct Db {
    client: Client,
    names: TableNames,
    metrics: Metrics,
}

impl DynamoReads {
    /// Returns a reader of the tables `names`. Sends nothing yet.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> DynamoReads {
        DynamoReads {
            db: Db {
                client,
                names,
                metrics,
            },
            shards: Mutex::new(None),
            finals: aggregations::finals(),
            others_answered: Mutex::new(None),
        }
    }

    /// Returns the shard count, at most a minute old while DynamoDB answers.
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

    async fn fetch_config(&self) -> Result<Config, StoreError> {
        let config = self.db.config().await?;
        *self.shards.lock().expect("no panic holds the shard count") =
            Some((Instant::now(), config.shards));
        Ok(config)
    }

    /// Asks the other tables now and then for what none of them holds, half a read unit each; at every ping
    /// while one does not answer.
    async fn ping_others(&self) -> Result<(), StoreError> {
        let held = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < OTHERS_EVERY);
        if held(*self.others_answered.lock().expect("no panic holds it")) {
            return Ok(());
        }
        *self.others_answered.lock().expect("no panic holds it") = None;
        let names = &self.db.names;
        for (table, index, key) in [
            (&names.aggregations, Some(SERIES_INDEX), "series"),
            (&names.alerts, None, "city"),
            (&names.raw, Some(CITY_INDEX), "city_shard"),
        ] {
            let query = self
                .db
                .query(table)
                .set_index_name(index.map(str::to_owned))
                .key_condition_expression("#pk = :none")
                .expression_attribute_names("#pk", key)
                // Neither a city nor a series begins with it.
                .expression_attribute_values(":none", AttributeValue::S("#".to_owned()))
                .limit(1);
            self.db.query_page(query).await?;
        }
        *self.others_answered.lock().expect("no panic holds it") = Some(Instant::now());
        Ok(())
    }

    async fn events_page(&self, city: &str, slice: Slice) -> Result<Page<EventItem>, StoreError> {
        let source = Source {
            table: self.db.names.raw.clone(),
            index: Some(CITY_INDEX),
            pk_name: "city_shard",
            sk_name: "timestamp",
            other_key: Some("event_id"),
        };
        let (lower, upper) = (
            format_millis(slice.range.from_ms),
            // Event times are whole milliseconds, so the last one below `to` is one less.
            format_millis(slice.range.to_ms - 1),
        );
        let lanes = (0..self.shards().await?)
            .map(|n| Lane::new(format!("{city}#{n}"), &lower, &upper))
            .collect();
        // Any number of events may share a time: shards that gave all of theirs go on below it.
        let below = |sk: &str| parse_timestamp(sk).map(|ms| format_millis(ms - 1));
        let page = lanes::collect(&self.db, source, lanes, &slice, below).await?;
        Ok(page.map(EventItem::from_item))
    }

    async fn alerts_page(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        slice: Slice,
    ) -> Result<Page<AlertItem>, StoreError> {
        // Sort keys are `<time>#<id>`: all of a time lie between it and the next millisecond.
        let (lower, upper) = (
            format_millis(slice.range.from_ms),
            format_millis(slice.range.to_ms),
        );
        let table = self.db.names.alerts.clone();
        let page = match city {
            Some(city) => {
                let source = Source {
                    table,
                    index: None,
                    pk_name: "city",
                    sk_name: "timestamp",
                    other_key: None,
                };
                let lane = Lane::new(city, &lower, &upper).only("severity", severity);
                lanes::collect(&self.db, source, vec![lane], &slice, |_| None).await?
            }
            None => {
                let source = Source {
                    table,
                    index: Some(SEVERITY_INDEX),
                    pk_name: "severity_shard",
                    sk_name: "timestamp",
                    other_key: Some("city"),
                };
                let raising: Vec<Severity> = Severity::ALL
                    .into_iter()
                    .filter(|s| s.is_alert() && severity.is_none_or(|wanted| wanted == *s))
                    .collect();
                // Shards outermost, so that a lane keeps its number when their count grows.
                let lanes = (0..self.shards().await?)
                    .flat_map(|n| raising.iter().map(move |s| format!("{s}#{n}")))
                    .map(|pk| Lane::new(pk, &lower, &upper))
                    .collect();
                lanes::collect(&self.db, source, lanes, &slice, |_| None).await?
            }
        };
        Ok(page.map(AlertItem::from_item))
    }
}

impl Reads for DynamoReads {
    fn events(&self, city: String, slice: Slice) -> Answer<'_, Page<EventItem>> {
        Box::pin(async move { self.events_page(&city, slice).await })
    }

    fn alerts(
        &self,
        city: Option<String>,
        severity: Option<Severity>,
        slice: Slice,
    ) -> Answer<'_, Page<AlertItem>> {
        Box::pin(self.alerts_page(city, severity, slice))
    }

    fn aggregations(&self, series: String, slice: Slice) -> Answer<'_, Windows> {
        Box::pin(async move { aggregations::page(&self.db, series, slice).await })
    }

    fn windows(&self, series: Vec<String>, range: Range) -> Answer<'_, Vec<AggregationItem>> {
        Box::pin(aggregations::windows(&self.db, &self.finals, series, range))
    }

    fn newest_window(&self, series: Vec<String>, until_ms: i64) -> Answer<'_, Option<i64>> {
        Box::pin(aggregations::newest(&self.db, series, until_ms))
    }

    fn latest_windows(&self, series: Vec<String>) -> Answer<'_, Vec<AggregationItem>> {
        Box::pin(aggregations::latest(&self.db, &self.finals, series))
    }

    fn totals(&self, city: Option<String>) -> Answer<'_, Vec<TotalItem>> {
        Box::pin(totals::all(&self.db, city))
    }

    fn every_total(&self, kept_max: usize, found: Arc<AtomicUsize>) -> Answer<'_, EveryTotal> {
        Box::pin(async move { totals::every(&self.db, kept_max, &found).await })
    }

    fn totals_after(
        &self,
        shard: String,
        after: String,
        limit: i32,
    ) -> Answer<'_, (Vec<TotalItem>, bool)> {
        Box::pin(totals::after(&self.db, shard, after, limit))
    }

    fn kept_total(&self) -> Answer<'_, Option<TotalItem>> {
        Box::pin(totals::kept(&self.db))
    }

    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.fetch_config().await?;
            self.ping_others().await
        })
    }
}

impl Db {
    /// Begins a Query whose cost is counted.
    fn query(&self, table: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(table)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    /// Sends one Query; returns its items and where its next page begins.
    async fn query_page(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Item>, Option<Item>), StoreError> {
        meter::may_read()?;
        let table = query.get_table_name().clone().unwrap_or_default();
        let partition = Partition::of(&query);
        let started = Instant::now();
        let result = query.send().await;
        let result = result.map_err(|error| StoreError::from_sdk("Query", &table, error));
        let result = result.and_then(|output| {
            let last = output.last_evaluated_key().filter(|key| !key.is_empty());
            let mut items = output.items().iter().chain(last);
            if items.all(|item| partition.is_of(item)) {
                return Ok(output);
            }
            Err(self.disbelieve("Query", &table, Flaw::OtherItem))
        });
        let units = result
            .as_ref()
            .ok()
            .and_then(|o| o.consumed_capacity()?.capacity_units());
        self.count("Query", &table, started, result.as_ref().err(), units);
        let output = result?;
        let next = output.last_evaluated_key.filter(|key| !key.is_empty());
        Ok((output.items.unwrap_or_default(), next))
    }

    /// Sends a Query and all its further pages.
    async fn query_all(&self, query: QueryFluentBuilder) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let page = query.clone().set_exclusive_start_key(start);
            let (found, next) = self.query_page(page).await?;
            items.extend(found);
            if next.is_none() {
                return Ok(items);
            }
            start = next;
        }
    }

    /// Notes an answer that is not believed; returns it as an error.
    fn disbelieve(&self, operation: &'static str, table: &str, flaw: Flaw) -> StoreError {
        disbelieve(Some(&self.metrics.answers_refused), operation, flaw);
        StoreError::wrong_answer(operation, table, flaw)
    }

    /// Reads the config item, as it is now.
    async fn config(&self) -> Result<Config, StoreError> {
        let table = &self.names.totals;
        let started = Instant::now();
        let result = read_config(&self.client, &self.names).await;
        self.count("GetItem", table, started, result.as_ref().err(), None);
        result?.ok_or_else(|| StoreError::Corrupt {
            table: table.clone(),
            key: format!("{CONFIG_PK}/{CONFIG_SK}"),
            message: "it is missing".to_owned(),
        })
    }

    fn count(
        &self,
        operation: &str,
        table: &str,
        started: Instant,
        error: Option<&StoreError>,
        units: Option<f64>,
    ) {
        meter::count(units);
        let outcome = error.map_or("ok", |error| error.kind().name());
        let m = &self.metrics;
        m.dynamodb_requests
            .with_label_values(&[operation, table, outcome])
            .inc();
        m.dynamodb_seconds
            .with_label_values(&[operation])
            .observe(started.elapsed().as_secs_f64());
        if let Some(units) = units {
            m.dynamodb_units
                .with_label_values(&[table, operation])
                .inc_by(units.max(0.0));
        }
    }
}

/// The partition that a Query asks for: whatever it returns must lie there.
struct Partition {
    key: String,
    value: AttributeValue,
}

impl Partition {
    /// Reads it from the key condition, which begins with `#name = :value`.
    ///
    /// # Panics
    /// If it begins otherwise.
    fn of(query: &QueryFluentBuilder) -> Partition {
        let condition = query.get_key_condition_expression();
        let mut words = condition.iter().flat_map(|text| text.split(' '));
        let name = words.next().unwrap_or_default();
        let value = words.nth(1).unwrap_or_default();
        let names = query.get_expression_attribute_names().iter();
        let values = query.get_expression_attribute_values().iter();
        let key = names.flat_map(|names| names.get(name)).next();
        let value = values.flat_map(|values| values.get(value)).next();
        Partition {
            key: key.expect("a Query names its partition key first").clone(),
            value: value.expect("and then its value").clone(),
        }
    }

    /// Tells whether an item lies there.
    fn is_of(&self, item: &Item) -> bool {
        item.get(&self.key) == Some(&self.value)
    }
}

impl Page<Item> {
    fn map<T>(self, from_item: impl FnMut(Item) -> T) -> Page<T> {
        Page {
            items: self.items.into_iter().map(from_item).collect(),
            next: self.next,
        }
    }
}
