//! Windows of a series, and whether each is final.
//!
//! `final` is true because of the order of the reads. The published watermarks are read before the
//! rows, so a row that they call final holds all of its events already. The current topic id is read
//! after the rows. A consumer writes the id before it counts the first record of a new topic, so a
//! fence of any other id belongs to a topic that no longer exists.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use moka::sync::Cache;

use super::db::{Db, KeyNames, read_together};
use super::items::{AggregationItem, fences};
use super::newest_first::{KeyedSource, ListPartition, read_page};
use super::{Page, PageRequest, Range, Windows};
use crate::core::keys::SERIES_INDEX;
use crate::core::time::{TIME_MS_END, format_seconds, parse_timestamp};
use crate::store::attributes::{
    Item, PARTITION_KEY, SERIES, WATERMARK, WINDOW_START, number, string, text,
};
use crate::store::config::ConfigItem;
use crate::store::error::StoreError;

/// Most windows of a series that are read as the newest ones, whatever the rules.
const LATEST_MAX: i64 = 64;
/// How long a final row is served from memory. A final row gets no more events, so only tables that
/// were created again, or a topic that got more partitions, can change it.
const FINAL_AGE_MAX: Duration = Duration::from_secs(300);
/// Most final rows in memory: a day of 70 series, 10 MB.
const FINALS_MAX: u64 = 20_000;

/// Rows that were final when they were read, by the topic id at that time and the row's key. A topic
/// that is created again may count in any of these rows. A client that reads the newest windows again and
/// again, as a chart does, so pays only for the open ones.
pub(super) type Finals = Cache<(Option<String>, String), AggregationItem>;

/// Returns an empty memory for final rows.
pub(super) fn finals() -> Finals {
    Cache::builder()
        .time_to_live(FINAL_AGE_MAX)
        .max_capacity(FINALS_MAX)
        .build()
}

/// Reads one page of windows.
pub(super) async fn page(
    db: &Db,
    series: &str,
    request: &PageRequest,
) -> Result<Windows, StoreError> {
    let source = KeyedSource {
        keys: index_keys(db),
        other_key: Some(PARTITION_KEY),
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

/// Reads all windows of several series that start in `range`, in any order. The watermark is that of before the read:
/// a window that ends at or before it and is not among the rows has no events.
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

/// Returns the start of the newest window of several series that starts at or before `until_ms`.
pub(super) async fn newest(
    db: &Db,
    series: Vec<String>,
    until_ms: i64,
) -> Result<Option<i64>, StoreError> {
    let found = newest_keys(db, series, until_ms, 1).await?;
    Ok(found
        .iter()
        .filter_map(|item| parse_timestamp(text(item, WINDOW_START)))
        .max())
}

/// Reads the newest windows of several series, in any order: as many of each as can be open at the
/// same time.
pub(super) async fn latest(
    db: &Db,
    finals: &Finals,
    series: Vec<String>,
) -> Result<Vec<AggregationItem>, StoreError> {
    let ConfigItem {
        rules, topic_id, ..
    } = db.config().await?;
    // A window is open while an event that is neither late nor future can be in it.
    let spread_ms = rules.lateness_ms.saturating_add(rules.skew_ms);
    let open = spread_ms / rules.window_ms.max(1) + 2;
    let limit = i32::try_from(open.clamp(1, LATEST_MAX)).unwrap_or(i32::MAX);
    let found = newest_keys(db, series, TIME_MS_END - 1, limit).await?;
    rows_of(db, finals, &found, topic_id, None).await
}

/// Reads at most `limit` keys of the newest windows of each series that start at or before `until_ms`.
async fn newest_keys(
    db: &Db,
    series: Vec<String>,
    until_ms: i64,
    limit: i32,
) -> Result<Vec<Item>, StoreError> {
    let (lower, upper) = (format_seconds(0), format_seconds(until_ms));
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

/// Reads the rows of these items of the index. Takes rows from `finals` that are final while
/// `topic_id` is current. `published` are watermarks that have just been read, if any have.
async fn rows_of(
    db: &Db,
    finals: &Finals,
    found: &[Item],
    topic_id: Option<String>,
    published: Option<BTreeMap<String, i64>>,
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

/// Returns the first window start at or after `from` and the last before `to`. Window starts are
/// whole seconds.
fn bounds(range: Range) -> (String, String) {
    (
        format_seconds(range.from_ms.saturating_add(999)),
        format_seconds(range.to_ms - 1),
    )
}

fn index_keys(db: &Db) -> KeyNames {
    KeyNames {
        table: db.names.aggregations.clone(),
        index: Some(SERIES_INDEX),
        pk: SERIES,
        sk: WINDOW_START,
    }
}

/// Rows, and the state of the topic when they were read.
struct ReadRows {
    /// In the order of the keys; with each, whether it is final and [`stays_final`].
    rows: Vec<(AggregationItem, bool)>,
    /// The current topic's id.
    topic_id: Option<String>,
    /// The smallest watermark of the current topic.
    watermark_ms: Option<i64>,
}

/// Reads the rows of `keys`, and whether each is final.
async fn read_rows(
    db: &Db,
    keys: Vec<String>,
    published: Option<BTreeMap<String, i64>>,
) -> Result<ReadRows, StoreError> {
    // This order of the three reads is what makes `final` true. Watermarks that were read earlier only make fewer
    // windows final.
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
    // The index may still hold a row that the table no longer has.
    let rows = keys.iter().filter_map(|key| found.remove(key));
    Ok(ReadRows {
        rows: rows.map(with_finality).collect(),
        topic_id,
        watermark_ms,
    })
}

/// Returns whether a log key (`<topic id>#<partition>`) names a log of this topic id.
fn is_log_of(log_key: &str, topic_id: Option<&str>) -> bool {
    topic_id.is_some() && log_key.rsplit_once('#').map(|(id, _)| id) == topic_id
}

/// Returns the smallest watermark of the logs of this topic id.
fn smallest(watermarks: &BTreeMap<String, i64>, topic_id: Option<&str>) -> Option<i64> {
    let of_topic = |(log_key, ms): (&String, &i64)| is_log_of(log_key, topic_id).then_some(*ms);
    watermarks.iter().filter_map(of_topic).min()
}

/// Returns whether a final window stays final while its topic is current. It does if that topic has
/// counted in it, or if all partitions of that topic have passed its end. A window that is final
/// because the topic of its fences is gone can still be counted in.
fn stays_final(window_end: &str, is_counted: bool, watermark_ms: Option<i64>) -> bool {
    let ends = watermark_ms.zip(parse_timestamp(window_end));
    is_counted || ends.is_some_and(|(watermark_ms, end_ms)| watermark_ms >= end_ms)
}

/// Returns whether a window gets no more events: the watermark of every partition with a fence in its
/// row has reached its end. Fences of a topic id that is not current count as passed. A row without
/// fences is never final, because no consumer of this program has written it.
fn is_final<'a>(
    window_end: &str,
    fences: impl Iterator<Item = &'a str>,
    topic_id: Option<&str>,
    watermarks: &BTreeMap<String, i64>,
) -> bool {
    let Some(end_ms) = parse_timestamp(window_end) else {
        return false;
    };
    let mut has_fence = false;
    for log_key in fences {
        has_fence = true;
        let is_current = match (log_key.rsplit_once('#'), topic_id) {
            (Some((id, _)), Some(topic_id)) => id == topic_id,
            // The config item names no topic yet, so any topic may be current.
            _ => true,
        };
        let is_passed = watermarks.get(log_key).is_some_and(|w| *w >= end_ms);
        if is_current && !is_passed {
            return false;
        }
    }
    has_fence
}

/// Returns the published watermarks by log key (`<topic id>#<partition>`).
async fn watermarks(db: &Db) -> Result<BTreeMap<String, i64>, StoreError> {
    let items = db.progress_items([SERIES, WATERMARK]).await?;
    Ok(items
        .iter()
        .filter_map(|item| Some((text(item, SERIES).to_owned(), number(item, WATERMARK)?)))
        .collect())
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
                .map(|(key, ms)| ((*key).to_owned(), *ms))
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
