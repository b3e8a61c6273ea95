//! Reads the windows of a series, and decides whether each window is final.
//!
//! The order of the reads guarantees that a window marked as final gets no more events. First, the reader reads the
//! published watermarks. If a watermark has passed the end of a window, a row that is read later contains all events of
//! this window. Then the reader reads the rows, and finally the current topic id. A consumer writes a new topic id
//! before it counts the first record of the new topic. Therefore, a fence with another topic id belongs to a topic that
//! no longer exists.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use moka::sync::Cache;

use super::db::{Db, KeyNames, read_together};
use super::items::{AggregationItem, fences};
use super::newest_first::{KeyedSource, ListPartition, read_page};
use super::{Page, PageRequest, Range, Windows};
use crate::core::clock::UnixMs;
use crate::core::keys::SERIES_INDEX;
use crate::core::time::{TIME_MS_END, format_seconds, parse_timestamp};
use crate::store::attributes::{
    Item, PARTITION_KEY, SERIES, WATERMARK, WINDOW_START, number, string, text,
};
use crate::store::config::ConfigItem;
use crate::store::error::StoreError;

/// Maximum number of newest windows that the reader reads for each series, even if more windows can be open.
const LATEST_MAX: i64 = 64;
/// Maximum time for which the API returns a final row from memory. A final row can still change if the tables are
/// recreated or partitions are added to the topic.
const FINAL_AGE_MAX: Duration = Duration::from_secs(300);
/// Maximum number of final rows in memory, which take about 10 MB. Seventy series have about 20,000 windows in one day.
const FINALS_MAX: u64 = 20_000;

/// A cache of final rows. The cache key consists of the topic id at the time of the read and the key of the row. The
/// cache key contains the topic id because a recreated topic may add events to a formerly final row. With this cache, a
/// client that reads the newest windows again and again costs only the reads of the open windows.
pub(super) type Finals = Cache<(Option<String>, String), AggregationItem>;

/// Returns an empty cache of final rows.
pub(super) fn finals() -> Finals {
    Cache::builder()
        .time_to_live(FINAL_AGE_MAX)
        .max_capacity(FINALS_MAX)
        .build()
}

/// Reads one page of the windows of a series.
pub(super) async fn page(
    db: &Db,
    series: &str,
    request: &PageRequest,
) -> Result<Windows, StoreError> {
    let source = KeyedSource {
        keys: index_keys(db),
        other_keys: &[PARTITION_KEY],
    };
    let (lower, upper) = bounds(request.range);
    let partition = ListPartition::new(series.to_owned(), &lower, &upper);
    let keys = read_page(db, source, vec![partition], request, |_| None).await?;
    if keys.items.is_empty() {
        return Ok(Windows::none());
    }
    let in_order = keys.items.iter().map(|item| text(item, PARTITION_KEY));
    let read = read_rows(db, in_order.map(str::to_owned).collect(), None).await?;
    Ok(Windows {
        page: Page {
            items: read.rows.into_iter().map(|(row, _)| row).collect(),
            next: keys.next,
        },
        watermark_ms: read.watermark_ms,
    })
}

/// Reads all windows that start in `range` and belong to one of several series, in any order. The function reads the
/// watermark before the rows. Therefore, a window that ends at or before the watermark and is missing from the result
/// has no events.
pub(super) async fn windows(
    db: &Db,
    finals: &Finals,
    series: Vec<String>,
    range: Range,
) -> Result<Windows, StoreError> {
    let (published, config) = tokio::try_join!(watermarks(db), db.config())?;
    let watermark_ms = smallest(&published, config.topic_id.as_deref());
    let (lower, upper) = bounds(range);
    let queries = series.into_iter().map(|series| {
        let query = db.query_keys(&index_keys(db), &series, &lower, Some(&upper));
        let db = db.clone();
        async move { db.query_all(query).await }
    });
    let found = read_together(queries.collect()).await?;
    let found: Vec<Item> = found.into_iter().flatten().collect();
    let items = rows_of(db, finals, &found, config.topic_id, Some(published)).await?;
    Ok(Windows {
        page: Page { items, next: None },
        watermark_ms,
    })
}

/// Returns the start of the newest window of the given series that starts at or before `until_ms`.
pub(super) async fn newest(
    db: &Db,
    series: Vec<String>,
    until_ms: UnixMs,
) -> Result<Option<UnixMs>, StoreError> {
    let found = newest_keys(db, series, until_ms, 1).await?;
    Ok(found
        .iter()
        .filter_map(|item| parse_timestamp(text(item, WINDOW_START)))
        .max())
}

/// Reads the newest windows of several series, in any order. The number of windows of a series is the number that can
/// be open at the same time.
pub(super) async fn latest(
    db: &Db,
    finals: &Finals,
    series: Vec<String>,
) -> Result<Vec<AggregationItem>, StoreError> {
    let ConfigItem {
        rules, topic_id, ..
    } = db.config().await?;
    // A window is open while it may still get events that are neither late events nor future events.
    let spread_ms = rules.lateness_ms.saturating_add(rules.skew_ms);
    let open = spread_ms / rules.window_ms.max(1) + 2;
    let limit = i32::try_from(open.clamp(1, LATEST_MAX)).unwrap_or(i32::MAX);
    let found = newest_keys(db, series, TIME_MS_END - 1, limit).await?;
    rows_of(db, finals, &found, topic_id, None).await
}

/// Reads the keys of the newest windows of each series that start at or before `until_ms`, at most `limit` keys for
/// each series.
async fn newest_keys(
    db: &Db,
    series: Vec<String>,
    until_ms: UnixMs,
    limit: i32,
) -> Result<Vec<Item>, StoreError> {
    let (lower, upper) = (format_seconds(UnixMs(0)), format_seconds(until_ms));
    let queries = series.into_iter().map(|series| {
        let query = db
            .query_keys(&index_keys(db), &series, &lower, Some(&upper))
            .scan_index_forward(false)
            .limit(limit);
        let db = db.clone();
        async move { Ok(db.query_page(query).await?.0) }
    });
    let found = read_together(queries.collect()).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Reads the rows whose keys are in the index items `found`. The function takes rows that are final for the current
/// `topic_id` from the cache `finals`. `published` contains the watermarks if the caller has just read them.
async fn rows_of(
    db: &Db,
    finals: &Finals,
    found: &[Item],
    topic_id: Option<String>,
    published: Option<BTreeMap<String, UnixMs>>,
) -> Result<Vec<AggregationItem>, StoreError> {
    let (mut rows, mut keys) = (Vec::new(), Vec::new());
    for item in found {
        let known = (topic_id.clone(), text(item, PARTITION_KEY).to_owned());
        match finals.get(&known) {
            Some(row) => rows.push(row),
            None => keys.push(known.1),
        }
    }
    if !keys.is_empty() {
        let read = read_rows(db, keys, published).await?;
        for (row, _) in read.rows.iter().filter(|(_, stays)| *stays) {
            let key = (read.topic_id.clone(), row.partition_key.clone());
            finals.insert(key, row.clone());
        }
        rows.extend(read.rows.into_iter().map(|(row, _)| row));
    }
    Ok(rows)
}

/// Returns the range of sort keys of the windows that start at or after `range.from_ms` and before `range.to_ms`. Window
/// starts are whole seconds.
fn bounds(range: Range) -> (String, String) {
    (
        format_seconds(range.from_ms.saturating_add(999)),
        format_seconds(range.to_ms - 1),
    )
}

pub(super) fn index_keys(db: &Db) -> KeyNames {
    KeyNames {
        table: db.names.aggregations.clone(),
        index: Some(SERIES_INDEX),
        pk: SERIES,
        sk: WINDOW_START,
    }
}

/// Window rows, with the state of the topic at the time of the read.
struct ReadRows {
    /// The rows in the order of the requested keys. The flag of a row is true if the row is final and stays final
    /// ([`stays_final`]).
    rows: Vec<(AggregationItem, bool)>,
    /// The id of the current topic.
    topic_id: Option<String>,
    /// The smallest watermark among the partitions of the current topic.
    watermark_ms: Option<UnixMs>,
}

/// Reads the rows of `keys`, and decides whether each row is final.
async fn read_rows(
    db: &Db,
    keys: Vec<String>,
    published: Option<BTreeMap<String, UnixMs>>,
) -> Result<ReadRows, StoreError> {
    // The order of the reads (watermarks, rows, topic id) guarantees that a window marked as final gets no more events.
    // The function may use watermarks from an earlier read, because older watermarks only mark fewer windows as final.
    let watermarks = match published {
        Some(watermarks) => watermarks,
        None => watermarks(db).await?,
    };
    let table = &db.names.aggregations;
    let asked = keys.iter();
    let asked = asked.map(|key| Item::from([(PARTITION_KEY.to_owned(), string(key))]));
    let found = db.get_all(table, asked.collect()).await?;
    let topic_id = db.config().await?.topic_id;
    let mut found: HashMap<String, Item> = found
        .into_iter()
        .map(|row| (text(&row, PARTITION_KEY).to_owned(), row))
        .collect();
    let watermark_ms = smallest(&watermarks, topic_id.as_deref());
    let with_finality = |row: Item| {
        let item = AggregationItem::from_table(table, &row);
        let end = &item.window_end;
        let is_final = is_final(end, fences(&row), topic_id.as_deref(), &watermarks);
        let is_counted = fences(&row).any(|log_key| is_log_of(log_key, topic_id.as_deref()));
        let stays = is_final && stays_final(end, is_counted, watermark_ms);
        (AggregationItem { is_final, ..item }, stays)
    };
    // The function skips a key without a row: the index may still contain the key of a deleted row.
    let rows = keys.iter().filter_map(|key| found.remove(key));
    Ok(ReadRows {
        rows: rows.map(with_finality).collect(),
        topic_id,
        watermark_ms,
    })
}

/// Returns true if a log key (`<topic id>#<partition>`) names a log of the topic `topic_id`.
fn is_log_of(log_key: &str, topic_id: Option<&str>) -> bool {
    topic_id.is_some() && log_key.rsplit_once('#').map(|(id, _)| id) == topic_id
}

/// Returns the smallest watermark among the logs of the topic `topic_id`.
fn smallest(watermarks: &BTreeMap<String, UnixMs>, topic_id: Option<&str>) -> Option<UnixMs> {
    let of_topic = |(log_key, ms): (&String, &UnixMs)| is_log_of(log_key, topic_id).then_some(*ms);
    watermarks.iter().filter_map(of_topic).min()
}

/// Returns true if a final window stays final as long as the current topic exists. There are two such cases: the window
/// counts an event of the current topic, or the watermarks of all partitions of the current topic have passed its end.
/// In any other case, the window is final only because the topic of its fences no longer exists, so it can still get
/// events.
fn stays_final(window_end: &str, is_counted: bool, watermark_ms: Option<UnixMs>) -> bool {
    let ends = watermark_ms.zip(parse_timestamp(window_end));
    is_counted || ends.is_some_and(|(watermark_ms, end_ms)| watermark_ms >= end_ms)
}

/// Returns true if a window is final: every partition with a fence in its row must have a watermark at or after the end
/// of the window. The function ignores fences of a former topic. A row without fences is never final, because no
/// consumer of this program has written it.
fn is_final<'a>(
    window_end: &str,
    fences: impl Iterator<Item = &'a str>,
    topic_id: Option<&str>,
    watermarks: &BTreeMap<String, UnixMs>,
) -> bool {
    let Some(end_ms) = parse_timestamp(window_end) else {
        return false;
    };
    let mut has_fence = false;
    for log_key in fences {
        has_fence = true;
        let is_current = match (log_key.rsplit_once('#'), topic_id) {
            (Some((id, _)), Some(topic_id)) => id == topic_id,
            // The config item does not name a topic yet, so the fence may belong to the current topic.
            _ => true,
        };
        let is_passed = watermarks.get(log_key).is_some_and(|w| *w >= end_ms);
        if is_current && !is_passed {
            return false;
        }
    }
    has_fence
}

/// Returns the published watermark of each log, by log key (`<topic id>#<partition>`).
async fn watermarks(db: &Db) -> Result<BTreeMap<String, UnixMs>, StoreError> {
    let items = db.progress_items([SERIES, WATERMARK]).await?;
    let watermark = |item| {
        let watermark_ms = UnixMs(number(item, WATERMARK)?);
        Some((text(item, SERIES).to_owned(), watermark_ms))
    };
    Ok(items.iter().filter_map(watermark).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_final_when_every_fenced_partition_has_passed_it() {
        const END: i64 = 1_357_020_300_000; // 2013-01-01T06:05:00Z
        let check = |fences: &[&str], watermarks: &[(&str, i64)], want: bool| {
            let watermarks = watermarks
                .iter()
                .map(|(key, ms)| ((*key).to_owned(), UnixMs(*ms)))
                .collect();
            let got = is_final(
                "2013-01-01T06:05:00Z",
                fences.iter().copied(),
                Some("now"),
                &watermarks,
            );
            assert_eq!(got, want, "{fences:?} {watermarks:?}");
        };
        check(&["now#0"], &[("now#0", END)], true);
        check(&["now#0"], &[("now#0", END - 1)], false);
        check(&["now#0"], &[], false);
        check(
            &["now#0", "now#1"],
            &[("now#0", END), ("now#1", END - 1)],
            false,
        );
        check(
            &["now#0", "now#1"],
            &[("now#0", END), ("now#1", END + 1)],
            true,
        );
        check(&["now#0"], &[("now#0", END), ("now#7", 0)], true);
        check(&["old#0"], &[], true);
        check(&["old#0", "now#0"], &[("old#0", 0), ("now#0", END)], true);
        check(&["old#0", "now#0"], &[("old#0", END)], false);
        check(&[], &[("now#0", END)], false);
        let unknown = is_final(
            "2013-01-01T06:05:00Z",
            ["old#0"].into_iter(),
            None,
            &BTreeMap::new(),
        );
        assert!(!unknown);
        assert!(!is_final(
            "soon",
            ["old#0"].into_iter(),
            Some("now"),
            &BTreeMap::new()
        ));
    }
}
