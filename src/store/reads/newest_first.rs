//! Merges several partitions of a table or index into one list, newest first.
//!
//! A lane reads one partition backwards. The list is ordered by descending sort key. Rows with equal
//! sort keys are ordered by lane, and within a lane as DynamoDB orders them. This order is total
//! although no step reads all rows of one time, so a [`Position`] is small and exact. It names a row of
//! one lane. Earlier lanes have given out all rows with its sort key. The row's own lane continues
//! after the row, and later lanes still have all rows with that sort key. So each row is given out
//! once, however many rows share a time.

use std::cmp::Ordering;

use aws_sdk_dynamodb::types::AttributeValue;

use super::db::{Db, KeyNames};
use super::lane::{Lane, RowFilter, fill_all};
use super::{Page, PageRequest, Position};
use crate::core::event::Severity;
use crate::store::attributes::{EXTRA, Item, SEVERITY, string, text};
use crate::store::error::StoreError;

/// Most bytes of the rows of a page, as JSON. A page of large rows ends before it has as many rows as
/// were requested, but has at least one.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Fewest rows that a request reads if a filter leaves out some of them.
const FILTERED_ROWS_MIN: usize = 100;

/// A table or an index, and the third key attribute of its rows.
pub(super) struct KeyedSource {
    pub(super) keys: KeyNames,
    /// The attribute that is a key of the table and not of the index.
    pub(super) other_key: Option<&'static str>,
}

/// One partition of the list, and the range of its sort keys.
pub(super) struct ListPartition {
    pk: String,
    lower: String,
    upper: String,
    only: Option<Severity>,
}

impl ListPartition {
    /// Returns the sort keys from `lower` to `upper` of a partition.
    pub(super) fn new(pk: String, lower: &str, upper: &str) -> ListPartition {
        ListPartition {
            pk,
            lower: lower.to_owned(),
            upper: upper.to_owned(),
            only: None,
        }
    }

    /// Leaves out rows of other severities, if one is given.
    pub(super) fn only(self, severity: Option<Severity>) -> ListPartition {
        ListPartition {
            only: severity,
            ..self
        }
    }

    /// Returns lane number `n`, which begins after the position of the request.
    fn open(
        self,
        db: &Db,
        source: &KeyedSource,
        n: u32,
        request: &PageRequest,
        below: &impl Fn(&str) -> Option<String>,
    ) -> Lane {
        let mut filter = RowFilter {
            not: None,
            only: self.only.map(|severity| (SEVERITY, severity.name())),
            now_s: Some(request.now_ms.div_euclid(1_000)),
        };
        let (mut upper, mut start) = (self.upper, None);
        if let Some(position) = &request.after {
            upper.clone_from(&position.sort_key);
            match n.cmp(&position.lane) {
                Ordering::Less => match below(&position.sort_key) {
                    Some(key) => upper = key,
                    None => filter.not = Some((source.keys.sk, position.sort_key.clone())),
                },
                Ordering::Equal => start = Some(key_at(position, source, &self.pk)),
                Ordering::Greater => {}
            }
        }
        Lane::new(db, &source.keys, &self.pk, &self.lower, Some(&upper))
            .with_filter(filter)
            .after(start)
    }
}

/// Returns the whole key of the row at `position`, after which a Query can continue.
fn key_at(position: &Position, source: &KeyedSource, pk: &str) -> Item {
    let attribute = |name: &str, value: &str| (name.to_owned(), string(value));
    let mut key = Item::from([
        attribute(source.keys.pk, pk),
        attribute(source.keys.sk, &position.sort_key),
    ]);
    let other = source.other_key;
    key.extend(other.map(|name| attribute(name, &position.key)));
    key
}

/// Reads one page of the merged list.
///
/// `below` returns the largest sort key below the given one, if there is a largest one.
pub(super) async fn read_page(
    db: &Db,
    source: KeyedSource,
    partitions: Vec<ListPartition>,
    request: &PageRequest,
    below: impl Fn(&str) -> Option<String>,
) -> Result<Page<Item>, StoreError> {
    let rows_max = rows_per_request(&partitions, request.limit);
    let lanes = (0..).zip(partitions).map(|(n, partition)| {
        partition
            .open(db, &source, n, request, &below)
            .with_query(|query| query.scan_index_forward(false).limit(rows_max))
    });
    let mut lanes = fill_all(db, lanes.collect()).await?;
    let mut items: Vec<Item> = Vec::new();
    let (mut bytes, mut last_lane, mut has_more) = (0, 0, false);
    while let Some(n) = newest_lane(&lanes, source.keys.sk) {
        bytes += lanes[n].front().map_or(0, json_bytes);
        if items.len() == request.limit || (bytes > PAGE_BYTES_MAX && !items.is_empty()) {
            has_more = true;
            break;
        }
        items.extend(lanes[n].pop());
        last_lane = n;
        lanes[n].fill(db).await?;
    }
    let next = items.last().filter(|_| has_more).map(|last| Position {
        sort_key: text(last, source.keys.sk).to_owned(),
        lane: u32::try_from(last_lane).unwrap_or(u32::MAX),
        key: source
            .other_key
            .map_or_else(String::new, |name| text(last, name).to_owned()),
    });
    Ok(Page { items, next })
}

/// Returns how many rows one request reads of a partition.
fn rows_per_request(partitions: &[ListPartition], limit: usize) -> i32 {
    // The shards share a list evenly. With half as much again, a lane seldom needs a second page.
    let share = limit.div_ceil(partitions.len().max(1));
    let rows = (share + share / 2 + 4).min(limit + 1);
    // A filter leaves out rows after DynamoDB has read them, so small pages would mean many requests
    // for few rows.
    let is_filtered = partitions.iter().any(|partition| partition.only.is_some());
    let rows_min = if is_filtered { FILTERED_ROWS_MIN } else { 1 };
    i32::try_from(rows.max(rows_min)).unwrap_or(i32::MAX)
}

/// Returns the lane whose next row has the largest sort key, the first of several.
fn newest_lane(lanes: &[Lane], sk: &str) -> Option<usize> {
    let fronts = lanes.iter().enumerate().rev();
    let fronts = fronts.filter_map(|(n, lane)| Some((n, text(lane.front()?, sk))));
    let newest = fronts.max_by(|(_, a), (_, b)| a.cmp(b));
    newest.map(|(n, _)| n)
}

/// Returns roughly how many bytes a row has as JSON. Only strings are counted, as all else is short.
fn json_bytes(row: &Item) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    let attribute = |(name, value): (&String, &AttributeValue)| {
        let text = value.as_s().map_or("", String::as_str);
        // The value of `extra` is JSON already.
        let bytes = if name == EXTRA {
            text.len()
        } else {
            text.chars().map(escaped).sum()
        };
        name.len() + bytes + "\"\":\"\",".len()
    };
    row.iter().map(attribute).sum()
}
