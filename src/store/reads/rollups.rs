//! Reads rollup rows for the API, and the data that the rollup writer needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

use super::Range;
use super::db::{Db, KeyNames, project, read_together};
use super::items::AggregationItem;
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::keys::{SERIES_INDEX, SUMS, SUMS_NEXT, TOTALS_SHARDS, TableNames, window_key};
use crate::core::rollup::{
    DAY_MS, DayHours, Grain, HOUR_MS, LogState, RollupFacts, RollupMark, RollupSeries,
    SeverityCounts,
};
use crate::core::time::{format_seconds, parse_timestamp};
use crate::store::attributes::{
    Item, LAST_UPDATED, NEXT, PARTITION_KEY, SERIES, SEVERITY_COUNTS, SHARD, WATERMARK,
    WINDOW_START, number, string, text,
};
use crate::store::config::ConfigItem;
use crate::store::error::StoreError;
use crate::store::proof;
use crate::store::rollup_items::{HOURS, decode_hours, decode_mark, decode_row, mark_key};
use crate::telemetry::{LogLimit, Metrics};

/// Time for which the API uses consistent reads for rollup rows after the rollup mark has moved, in milliseconds.
/// Later, eventually consistent reads return all rollup rows, at half the price. According to AWS, such reads usually
/// lag by less than a second.
const SETTLED_MS: i64 = 60_000;
/// Maximum number of series on a page.
const PAGE_SERIES: i32 = 250;
/// Maximum number of attempts of the rollup writer for one request. If the last attempt fails, the rollup pass ends
/// with its error.
const ATTEMPTS: u32 = 8;

/// Limits how often the readers log warnings about damaged rows.
static DAMAGE: LogLimit = LogLimit::every(Duration::from_secs(60));

/// The time up to which the current topic is rolled up, and the state of its rollup rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledUp {
    /// Every hour and every day that ends at or before this time is rolled up. The time is the start of an hour, or 0
    /// if no hour is rolled up yet.
    pub until_ms: UnixMs,
    /// True if eventually consistent reads return all rollup rows, because the rollup mark has not moved recently.
    pub is_settled: bool,
    /// A hash of the id of the tables, the topic id and the idle partitions. As long as the hash stays the same, the
    /// counts of the existing rollup rows do not change.
    pub generation: u32,
    /// The window length of the tables, in milliseconds.
    pub window_ms: i64,
}

/// The counts of one hour, for one series or for an event type in all cities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourItem {
    /// The counted series, which is an event type in one city or in all cities.
    pub series: RollupSeries,
    /// The start of the hour.
    pub start_ms: UnixMs,
    /// Number of events of each severity, indexed by [`Severity::index`](crate::core::event::Severity::index).
    pub counts: SeverityCounts,
}

/// The counts of one UTC day, for one series or for an event type in all cities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayItem {
    /// The counted series, which is an event type in one city or in all cities.
    pub series: RollupSeries,
    /// The start of the day.
    pub start_ms: UnixMs,
    /// The counts of each hour of the day.
    pub hours: DayHours,
}

/// Reads the time up to which the windows of the current topic are rolled up. If the rollup mark lists idle partitions,
/// the function also reads the progress items. When a consumer has counted the first event of an idle partition, the
/// hours that were rolled up without this partition are no longer valid.
pub(super) async fn rolled_up(db: &Db, now_ms: UnixMs) -> Result<RolledUp, StoreError> {
    let (found, config) = tokio::try_join!(mark_item(db), db.config())?;
    let topic_id = config.topic_id.as_deref();
    let mut log = format!("{} {}", config.tables_id, topic_id.unwrap_or_default());
    let mut rolled_up = RolledUp {
        until_ms: UnixMs(0),
        is_settled: false,
        generation: 0,
        window_ms: config.rules.window_ms,
    };
    if let Some(item) = found {
        let mark = decode_mark(&db.names, &item)?;
        let moved_ms = parse_timestamp(text(&item, LAST_UPDATED));
        if mark.is_of(topic_id, &config.tables_id) {
            let logs = match mark.idle.is_empty() {
                true => BTreeMap::new(),
                false => log_states(db, &config).await?,
            };
            let counted = |partition: i32| logs.get(&partition).map_or(Some(0), |log| log.counted);
            rolled_up.until_ms = mark.whole_until_ms(counted);
            rolled_up.is_settled = moved_ms.is_some_and(|ms| now_ms - ms >= SETTLED_MS);
            // When a partition is no longer idle, the rollup writer replaces the rows that were written without it.
            for partition in mark.idle.keys().filter(|p| counted(**p) == Some(0)) {
                log.push_str(&format!(" {partition}"));
            }
        }
    }
    rolled_up.generation = crc32fast::hash(log.as_bytes());
    Ok(rolled_up)
}

/// Reads the state of each partition's log from the progress items of the current topic.
async fn log_states(db: &Db, config: &ConfigItem) -> Result<BTreeMap<i32, LogState>, StoreError> {
    let attributes = [SERIES, NEXT, WATERMARK, SUMS_NEXT].into_iter().chain(SUMS);
    let items = db.progress_items(attributes).await?;
    let log = |item: &Item| {
        let (topic_id, partition) = text(item, SERIES).rsplit_once('#')?;
        let state = LogState {
            watermark_ms: number(item, WATERMARK).map(UnixMs),
            next: Offset(number(item, NEXT)?),
            counted: proof::sums(item).map(|sums| sums.events()),
            end: None,
        };
        let is_current = config.topic_id.as_deref() == Some(topic_id);
        is_current.then_some((partition.parse().ok()?, state))
    };
    Ok(items.iter().filter_map(log).collect())
}

/// Returns the start of the first rolled-up hour in which one of the given series has an event.
pub(super) async fn first_hour(
    db: &Db,
    series: Vec<RollupSeries>,
    rolled_up: RolledUp,
) -> Result<Option<UnixMs>, StoreError> {
    let queries = series.into_iter().map(|series| {
        let shard = series.shard(Grain::Hour);
        let (lower, upper) = (
            format_seconds(UnixMs(0)),
            format_seconds(rolled_up.until_ms),
        );
        let query = db.query_keys(&row_keys(db), &shard, &lower, Some(&upper));
        let query = project(query, [SHARD, SERIES]).limit(1);
        let db = db.clone();
        async move { Ok(db.query_page(query).await?.0) }
    });
    let found = read_together(queries.collect()).await?;
    let starts = found.iter().flatten();
    let starts = starts.filter_map(|item| parse_timestamp(text(item, SERIES)));
    Ok(starts
        .min()
        .filter(|start_ms| *start_ms < rolled_up.until_ms))
}

/// Reads the counts of the given series for the rolled-up hours that start in `range`, in any order.
pub(super) async fn hours(
    db: &Db,
    series: Vec<RollupSeries>,
    range: Range,
    rolled_up: RolledUp,
) -> Result<Vec<HourItem>, StoreError> {
    let rows = rows(db, Grain::Hour, series, range, rolled_up).await?;
    let hour = |item: Item| {
        let (_, series, start_ms, counts) = decode_row(&item)?;
        Some(HourItem {
            series,
            start_ms,
            counts,
        })
    };
    Ok(rows.into_iter().filter_map(hour).collect())
}

/// Reads the counts of the given series for the rolled-up UTC days that start in `range`, in any order.
pub(super) async fn days(
    db: &Db,
    series: Vec<RollupSeries>,
    range: Range,
    rolled_up: RolledUp,
) -> Result<Vec<DayItem>, StoreError> {
    let rows = rows(db, Grain::Day, series, range, rolled_up).await?;
    let day = |item: Item| {
        let (_, series, start_ms, _) = decode_row(&item)?;
        let hours = decode_hours(&item);
        if hours.is_none() && DAMAGE.allows() {
            let (shard, day) = (text(&item, SHARD), text(&item, SERIES));
            tracing::warn!(
                shard,
                day,
                "showing a day whose hours cannot be read as zero"
            );
        }
        Some(DayItem {
            series,
            start_ms,
            hours: hours.unwrap_or_default(),
        })
    };
    Ok(rows.into_iter().filter_map(day).collect())
}

async fn rows(
    db: &Db,
    grain: Grain,
    series: Vec<RollupSeries>,
    range: Range,
    rolled_up: RolledUp,
) -> Result<Vec<Item>, StoreError> {
    // The rollup row of an hour or day that ends after the rollup mark may be missing, or may count another topic.
    let last_ms = rolled_up.until_ms - grain.length_ms();
    let to_ms = range.to_ms.min(last_ms.saturating_add(1));
    if range.from_ms >= to_ms {
        return Ok(Vec::new());
    }
    let (lower, upper) = (
        format_seconds(range.from_ms.saturating_add(999)),
        format_seconds(to_ms - 1),
    );
    let queries = series.into_iter().map(|series| {
        let query = db.query_keys(&row_keys(db), &series.shard(grain), &lower, Some(&upper));
        let names = SEVERITY_COUNTS.into_iter();
        let attributes = [SHARD, SERIES].into_iter().chain(names);
        let attributes = attributes.chain((grain == Grain::Day).then_some(HOURS));
        let query = project(query, attributes).consistent_read(!rolled_up.is_settled);
        let db = db.clone();
        async move { db.query_all(query).await }
    });
    let found = read_together(queries.collect()).await?;
    Ok(found.into_iter().flatten().collect())
}

fn row_keys(db: &Db) -> KeyNames {
    KeyNames {
        table: db.names.totals.clone(),
        index: None,
        pk: SHARD,
        sk: SERIES,
    }
}

/// Reads the rollup mark, even if it belongs to another topic or to other tables.
pub(super) async fn mark(db: &Db) -> Result<Option<RollupMark>, StoreError> {
    let mark = mark_item(db).await?;
    mark.map(|item| decode_mark(&db.names, &item)).transpose()
}

async fn mark_item(db: &Db) -> Result<Option<Item>, StoreError> {
    db.get_one(&db.names.totals, mark_key()).await
}

/// The items in the tables that determine which hours are due for rollup.
#[derive(Clone, Debug)]
pub struct RollupTables {
    /// The config item of the tables.
    pub config: ConfigItem,
    /// The rollup mark, or `None` if the table contains no mark.
    pub mark: Option<RollupMark>,
    /// The state of each partition that has a progress item of the current topic id.
    pub logs: BTreeMap<i32, LogState>,
}

impl RollupTables {
    /// Returns the facts that decide which hours are due for rollup. Returns `None` if the topic id in the config item
    /// is not `topic_id`.
    pub fn facts(&self, topic_id: &str, partition_count: i32) -> Option<RollupFacts> {
        (self.config.topic_id.as_deref() == Some(topic_id)).then(|| RollupFacts {
            topic_id: topic_id.to_owned(),
            tables_id: self.config.tables_id.clone(),
            partition_count,
            logs: self.logs.clone(),
        })
    }
}

/// Reads the data for the rollup writer. All reads are strongly consistent, except the read of the first window from an
/// index.
#[derive(Clone)]
pub struct RollupSource {
    db: Db,
}

impl RollupSource {
    /// Returns a reader of the tables with the given names. The function sends no request.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> RollupSource {
        RollupSource::over(Db::new(client, names, metrics, ATTEMPTS))
    }

    pub(super) const fn over(db: Db) -> RollupSource {
        RollupSource { db }
    }

    /// Reads the config item.
    ///
    /// # Errors
    /// Returns [`StoreError::Corrupt`] if the config item does not exist. Otherwise returns the error from DynamoDB.
    pub async fn config(&self) -> Result<ConfigItem, StoreError> {
        self.db.config().await
    }

    /// Reads the config item, the rollup mark and the progress items. The caller must call this function before it
    /// reads the series and the windows. With the reverse order, the windows could lack events before the watermarks in
    /// the progress items.
    ///
    /// # Errors
    /// Returns [`StoreError::Corrupt`] if the mark is damaged. Otherwise returns the error from DynamoDB.
    pub async fn look(&self) -> Result<RollupTables, StoreError> {
        let config = self.db.config().await?;
        let mark = mark(&self.db).await?;
        let logs = log_states(&self.db, &config).await?;
        Ok(RollupTables { config, mark, logs })
    }

    /// Returns the next page of the series in one shard of the totals table, in alphabetical order. The page begins
    /// after the series with the name `after`. The flag is true if more series follow. The series of all final windows
    /// are in the table, because a consumer writes the totals row of an event before it publishes a watermark after the
    /// event.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn series(&self, shard: u32, after: &str) -> Result<(Vec<String>, bool), StoreError> {
        let query = project(self.db.query(&self.db.names.totals), [SHARD, SERIES])
            .expression_attribute_values(":shard", string(format!("totals#{shard}")))
            .consistent_read(true)
            .limit(PAGE_SERIES);
        let query = match after {
            "" => query.key_condition_expression("#shard = :shard"),
            after => query
                .key_condition_expression("#shard = :shard AND #series > :after")
                .expression_attribute_values(":after", AttributeValue::S(after.to_owned())),
        };
        let (items, next) = self.db.query_page(query).await?;
        let names = items.iter().map(|item| text(item, SERIES).to_owned());
        Ok((names.collect(), next.is_some()))
    }

    /// Reads all windows of one series that start in `range` by their keys. Returns the start and the counts of each
    /// existing window.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn windows(
        &self,
        series: &str,
        range: Range,
        window_ms: i64,
    ) -> Result<Vec<(UnixMs, SeverityCounts)>, StoreError> {
        let mut keys = Vec::new();
        let mut start_ms = range.from_ms;
        while start_ms < range.to_ms {
            let key = window_key(series, start_ms);
            keys.push(Item::from([(PARTITION_KEY.to_owned(), string(key))]));
            start_ms += window_ms;
        }
        let table = &self.db.names.aggregations;
        let found = self.db.get_all(table, keys).await?;
        let window = |item: &Item| {
            let (_, start) = text(item, PARTITION_KEY).rsplit_once('#')?;
            let counts = AggregationItem::from_table(table, item).severity_counts;
            Some((parse_timestamp(start)?, counts))
        };
        Ok(found.iter().filter_map(window).collect())
    }

    /// Returns the start of the first window of any series that starts at or after `from_ms`. The function reads an
    /// index, which may lag behind its table.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn first_window(&self, from_ms: UnixMs) -> Result<Option<UnixMs>, StoreError> {
        let keys = KeyNames {
            table: self.db.names.aggregations.clone(),
            index: Some(SERIES_INDEX),
            pk: SERIES,
            sk: WINDOW_START,
        };
        let (mut first, lower) = (None, format_seconds(from_ms));
        let (mut shard, mut after) = (0, String::new());
        while shard < TOTALS_SHARDS {
            let page = self.next_series(&mut shard, &mut after).await?;
            let queries = page.into_iter().map(|series| {
                let query = self.db.query_keys(&keys, &series, &lower, None).limit(1);
                let db = self.db.clone();
                async move { Ok(db.query_page(query).await?.0) }
            });
            let found = read_together(queries.collect()).await?;
            let found = found.iter().flatten();
            let starts = found.filter_map(|item| parse_timestamp(text(item, WINDOW_START)));
            first = first.into_iter().chain(starts).min();
        }
        Ok(first)
    }

    /// Returns the number of series and the number of event types.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn count(&self) -> Result<(u64, u64), StoreError> {
        let (mut series, mut event_types) = (0, BTreeSet::new());
        let (mut shard, mut after) = (0, String::new());
        while shard < TOTALS_SHARDS {
            let page = self.next_series(&mut shard, &mut after).await?;
            series += page.len() as u64;
            let rollups = page.iter().filter_map(|series| RollupSeries::of(series));
            event_types.extend(rollups.map(|rollups| rollups.event_type));
        }
        Ok((series, event_types.len() as u64))
    }

    /// Reads one page of series at the position (`shard`, `after`), and moves the position to the next page.
    pub(super) async fn next_series(
        &self,
        shard: &mut u32,
        after: &mut String,
    ) -> Result<Vec<String>, StoreError> {
        let (page, has_more) = self.series(*shard, after).await?;
        match page.last() {
            Some(last) if has_more => after.clone_from(last),
            _ => {
                *shard += 1;
                after.clear();
            }
        }
        Ok(page)
    }

    /// Reads the hour rows of a series for one UTC day. Returns the start and the counts of each hour.
    ///
    /// # Errors
    /// Returns the error from DynamoDB.
    pub async fn hours(
        &self,
        series: &RollupSeries,
        day_ms: UnixMs,
    ) -> Result<Vec<(UnixMs, SeverityCounts)>, StoreError> {
        let (lower, upper) = (
            format_seconds(day_ms),
            format_seconds(day_ms + DAY_MS - HOUR_MS),
        );
        let shard = series.shard(Grain::Hour);
        let query = self
            .db
            .query_keys(&row_keys(&self.db), &shard, &lower, Some(&upper));
        let found = self.db.query_all(query.consistent_read(true)).await?;
        let hour = |item: &Item| {
            let (_, _, start_ms, counts) = decode_row(item)?;
            Some((start_ms, counts))
        };
        Ok(found.iter().filter_map(hour).collect())
    }
}
