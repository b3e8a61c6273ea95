//! Windows of a series, and whether each is final.
//!
//! The order of the reads is what makes `final` true: the published watermarks are read before the
//! rows, so a row that they call final already holds everything; the current topic id is read after
//! the rows, because a consumer sets it before it counts the first record of a new topic, so a fence
//! of an id that is not current then belongs to a topic that is gone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use moka::sync::Cache;
use tokio::task::JoinSet;

use super::batch::BATCH_KEYS_MAX;
use super::items::{AggregationItem, fences, number, text};
use super::lanes::{Lane, Source, collect};
use super::{Db, Item, Page, Range, Slice, Windows, meter};
use crate::core::keys::{PROGRESS_PK, SERIES_INDEX};
use crate::core::time::{TIME_MS_END, format_seconds, parse_timestamp};
use crate::store::config::Config;
use crate::store::error::StoreError;

/// Most requests of one answer under way at a time.
const REQUESTS_MAX: usize = 16;
/// Most windows of a series that are read as the newest ones, whatever the rules.
const LATEST_MAX: i64 = 64;
/// How long a final row is known without being read again. It takes no more events; only tables made
/// anew, or a topic that got more partitions, could change it. (Not so one that is final because its
/// topic is gone: see [`stays`].)
const FINAL_AGE_MAX: Duration = Duration::from_secs(300);
/// Most final rows known: a day of 70 series, 10 MB.
const FINALS_MAX: u64 = 20_000;

/// Rows that were final when they were read, by the topic's id of then and key: a topic made again may
/// count in any of them. Whoever asks for the newest windows again and again, as a chart does, pays for
/// those only that are open.
pub(super) type Finals = Cache<(Option<String>, String), AggregationItem>;

/// Returns memory for final rows.
pub(super) fn finals() -> Finals {
    Cache::builder()
        .time_to_live(FINAL_AGE_MAX)
        .max_capacity(FINALS_MAX)
        .build()
}

/// Reads one page of windows.
pub(super) async fn page(db: &Db, series: String, slice: Slice) -> Result<Windows, StoreError> {
    let source = Source {
        table: db.names.aggregations.clone(),
        index: Some(SERIES_INDEX),
        pk_name: "series",
        sk_name: "window_start",
        other_key: Some("partition_key"),
    };
    let (lower, upper) = bounds(slice.range);
    let lane = Lane::new(series, &lower, &upper);
    let keys = collect(db, source, vec![lane], &slice, |_| None).await?;
    if keys.items.is_empty() {
        return Ok(Windows::none());
    }
    let keys_in_order = keys.items.iter().map(|item| text(item, "partition_key"));
    let judged = judged(db, keys_in_order.collect()).await?;
    Ok(Windows {
        page: Page {
            items: judged.rows.into_iter().map(|(row, _)| row).collect(),
            next: keys.next,
        },
        watermark_ms: judged.watermark_ms,
    })
}

/// Reads all windows of several series that start in `range`, in no order.
pub(super) async fn windows(
    db: &Db,
    finals: &Finals,
    series: Vec<String>,
    range: Range,
) -> Result<Vec<AggregationItem>, StoreError> {
    let (lower, upper) = bounds(range);
    let found = each_series(db, series, move |db, series| {
        let query = index_query(&db, series, &lower, &upper);
        async move { db.query_all(query).await }
    });
    let (found, config) = tokio::try_join!(found, db.config())?;
    rows_behind(db, finals, &found, config.topic_id).await
}

/// Reads where the newest window of several series at or before `until_ms` starts.
pub(super) async fn newest(
    db: &Db,
    series: Vec<String>,
    until_ms: i64,
) -> Result<Option<i64>, StoreError> {
    let (lower, upper) = (format_seconds(0), format_seconds(until_ms));
    let found = each_series(db, series, move |db, series| {
        let query = index_query(&db, series, &lower, &upper)
            .scan_index_forward(false)
            .limit(1);
        async move { Ok(db.query_page(query).await?.0) }
    });
    Ok(found
        .await?
        .iter()
        .filter_map(|item| parse_timestamp(&text(item, "window_start")))
        .max())
}

/// Reads the newest windows of several series, in no order: as many of each as can be open at a time.
pub(super) async fn latest(
    db: &Db,
    finals: &Finals,
    series: Vec<String>,
) -> Result<Vec<AggregationItem>, StoreError> {
    // Open are those that an event not yet late, or allowed to be ahead, can fall in.
    let Config {
        rules, topic_id, ..
    } = db.config().await?;
    let spread_ms = rules.lateness_ms.saturating_add(rules.skew_ms);
    let open = spread_ms / rules.window_ms.max(1) + 2;
    let limit = i32::try_from(open.clamp(1, LATEST_MAX)).unwrap_or(i32::MAX);
    let (lower, upper) = (format_seconds(0), format_seconds(TIME_MS_END - 1));
    let found = each_series(db, series, move |db, series| {
        let query = index_query(&db, series, &lower, &upper)
            .scan_index_forward(false)
            .limit(limit);
        async move { Ok(db.query_page(query).await?.0) }
    });
    rows_behind(db, finals, &found.await?, topic_id).await
}

/// Reads the rows that items of the index stand for, but for those known to be final while `topic_id`
/// is current.
async fn rows_behind(
    db: &Db,
    finals: &Finals,
    found: &[Item],
    topic_id: Option<String>,
) -> Result<Vec<AggregationItem>, StoreError> {
    let (mut rows, mut keys) = (Vec::new(), Vec::new());
    for key in found.iter().map(|item| text(item, "partition_key")) {
        let known = (topic_id.clone(), key);
        match finals.get(&known) {
            Some(row) => rows.push(row),
            None => keys.push(known.1),
        }
    }
    if !keys.is_empty() {
        let read = judged(db, keys).await?;
        for (row, _) in read.rows.iter().filter(|(_, stays)| *stays) {
            let key = (read.topic_id.clone(), row.partition_key.clone());
            finals.insert(key, row.clone());
        }
        rows.extend(read.rows.into_iter().map(|(row, _)| row));
    }
    Ok(rows)
}

/// Window starts are whole seconds: returns the first at or after `from`, and the last before `to`.
fn bounds(range: Range) -> (String, String) {
    (
        format_seconds(range.from_ms.saturating_add(999)),
        format_seconds(range.to_ms - 1),
    )
}

fn index_query(db: &Db, series: String, lower: &str, upper: &str) -> QueryFluentBuilder {
    db.query(&db.names.aggregations)
        .index_name(SERIES_INDEX)
        .key_condition_expression("#series = :series AND #start BETWEEN :lower AND :upper")
        .expression_attribute_names("#series", "series")
        .expression_attribute_names("#start", "window_start")
        .expression_attribute_values(":series", AttributeValue::S(series))
        .expression_attribute_values(":lower", AttributeValue::S(lower.to_owned()))
        .expression_attribute_values(":upper", AttributeValue::S(upper.to_owned()))
}

/// Asks for each series, [`REQUESTS_MAX`] at a time, and returns all items.
async fn each_series<F>(
    db: &Db,
    series: Vec<String>,
    ask: impl Fn(Db, String) -> F,
) -> Result<Vec<Item>, StoreError>
where
    F: Future<Output = Result<Vec<Item>, StoreError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut items = Vec::new();
    for series in series {
        if tasks.len() >= REQUESTS_MAX
            && let Some(done) = tasks.join_next().await
        {
            items.extend(done.expect("reading windows does not panic")?);
        }
        tasks.spawn(meter::carried(ask(db.clone(), series)));
    }
    while let Some(done) = tasks.join_next().await {
        items.extend(done.expect("reading windows does not panic")?);
    }
    Ok(items)
}

/// Rows and what was known when they were judged.
struct Judged {
    /// In the order asked for; with each, whether it is final and [`stays`] so.
    rows: Vec<(AggregationItem, bool)>,
    /// The current topic's id.
    topic_id: Option<String>,
    /// The least watermark of the current topic.
    watermark_ms: Option<i64>,
}

/// Reads the rows of `keys` and judges whether each is final.
async fn judged(db: &Db, keys: Vec<String>) -> Result<Judged, StoreError> {
    let watermarks = watermarks(db).await?;
    let mut rows = rows(db, &keys).await?;
    let topic_id = db.config().await?.topic_id;
    let current = |log_key: &str| {
        let id = log_key.rsplit_once('#').map(|(id, _)| id);
        id.is_some() && id == topic_id.as_deref()
    };
    let published = watermarks.iter().filter(|(log_key, _)| current(log_key));
    let watermark_ms = published.map(|(_, ms)| *ms).min();
    let judge = |row: Item| {
        let item = AggregationItem::from_item(&row);
        let end = &item.window_end;
        let is_final = is_final(end, fences(&row), topic_id.as_deref(), &watermarks);
        let stays = is_final && stays(end, fences(&row).any(current), watermark_ms);
        (AggregationItem { is_final, ..item }, stays)
    };
    // The index may know a row that the table no longer has.
    let found = keys.iter().filter_map(|key| rows.remove(key));
    Ok(Judged {
        rows: found.map(judge).collect(),
        topic_id,
        watermark_ms,
    })
}

/// Tells whether a final window stays so while its topic is current: that has counted in it, or is past
/// its end as a whole. One that is final because the topic of its fences is gone may yet be counted in.
fn stays(window_end: &str, counted: bool, watermark_ms: Option<i64>) -> bool {
    let ends = watermark_ms.zip(parse_timestamp(window_end));
    counted || ends.is_some_and(|(watermark_ms, end_ms)| watermark_ms >= end_ms)
}

/// Tells whether a window takes no more events: the watermark of every partition with a fence in its
/// row has reached its end. Fences of another topic id than the current one count as passed; a row
/// without any is nobody's, so nothing vouches for it.
fn is_final<'a>(
    window_end: &str,
    fences: impl Iterator<Item = &'a str>,
    topic_id: Option<&str>,
    watermarks: &BTreeMap<String, i64>,
) -> bool {
    let Some(end_ms) = parse_timestamp(window_end) else {
        return false;
    };
    let mut fenced = false;
    for log_key in fences {
        fenced = true;
        let current = match (log_key.rsplit_once('#'), topic_id) {
            (Some((id, _)), Some(topic_id)) => id == topic_id,
            // Nobody said yet which topic is current, so any may be.
            _ => true,
        };
        let reached = watermarks.get(log_key).is_some_and(|w| *w >= end_ms);
        if current && !reached {
            return false;
        }
    }
    fenced
}

/// Returns the published watermarks by log key (`<topic id>#<partition>`).
async fn watermarks(db: &Db) -> Result<BTreeMap<String, i64>, StoreError> {
    let query = db
        .query(&db.names.totals)
        .key_condition_expression("#shard = :progress")
        .projection_expression("#shard, #series, #watermark")
        .expression_attribute_names("#shard", "shard")
        .expression_attribute_names("#series", "series")
        .expression_attribute_names("#watermark", "watermark")
        .expression_attribute_values(":progress", AttributeValue::S(PROGRESS_PK.to_owned()))
        .consistent_read(true);
    let items = db.query_all(query).await?;
    Ok(items
        .iter()
        .filter_map(|item| Some((text(item, "series"), number(item, "watermark")?)))
        .collect())
}

/// Reads rows by key, consistently, several batches at a time; those that do not exist are not in
/// the answer.
async fn rows(db: &Db, keys: &[String]) -> Result<HashMap<String, Item>, StoreError> {
    let mut tasks = JoinSet::new();
    let mut rows = HashMap::new();
    for chunk in keys.chunks(BATCH_KEYS_MAX) {
        if tasks.len() >= REQUESTS_MAX
            && let Some(done) = tasks.join_next().await
        {
            rows.extend(done.expect("reading rows does not panic")?);
        }
        tasks.spawn(meter::carried(batch(db.clone(), chunk.to_vec())));
    }
    while let Some(done) = tasks.join_next().await {
        rows.extend(done.expect("reading rows does not panic")?);
    }
    Ok(rows)
}

/// Reads at most [`BATCH_KEYS_MAX`] rows.
async fn batch(db: Db, keys: Vec<String>) -> Result<Vec<(String, Item)>, StoreError> {
    let keys = keys.into_iter();
    let keys = keys.map(|key| Item::from([("partition_key".to_owned(), AttributeValue::S(key))]));
    let rows = db.get_all(&db.names.aggregations, keys.collect()).await?;
    let rows = rows.into_iter();
    Ok(rows.map(|row| (text(&row, "partition_key"), row)).collect())
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
