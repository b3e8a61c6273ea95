//! Merges several partitions of a table or an index into one list with the newest items first.
//!
//! Each partition has its own Query, with descending sort keys. The merged list is sorted by descending sort key. Rows
//! with equal sort keys are sorted by the number of their partition, and within a partition, rows are in DynamoDB's
//! order. Therefore, the last row of a page determines the [`Position`] of the next page. The Query of the last row's
//! partition continues after this row. The Queries of partitions with larger numbers continue at the sort key of the
//! last row. The Queries of partitions with smaller numbers continue after this sort key, because earlier pages contain
//! their rows with this sort key. Thus, the pages contain each row exactly once, even if many rows have the same time.

use std::cmp::Ordering;

use aws_sdk_dynamodb::types::AttributeValue;

use super::db::{Db, KeyNames};
use super::lane::{Lane, RowFilter, fill_all};
use super::{Page, PageRequest, Position};
use crate::store::attributes::{EXTRA, Item, string, text};
use crate::store::error::StoreError;

/// Maximum size of the rows on a page as JSON, in bytes. A page with large rows ends at this size, even if the client
/// requested more rows. Every page contains at least one row, unless the list has ended.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Minimum number of rows that one request reads from a partition if the list has a filter.
const FILTERED_ROWS_MIN: usize = 100;

/// The table or the index that contains the rows of a merged list.
pub(super) struct KeyedSource {
    pub(super) keys: KeyNames,
    /// The attributes that belong to the key of the table but not to the key of the index. Only the value of the last
    /// attribute may contain the character `#`.
    pub(super) other_keys: &'static [&'static str],
}

/// One DynamoDB partition of a merged list, with the range of sort keys to read.
pub(super) struct ListPartition {
    pk: String,
    lower: String,
    upper: String,
    only: Vec<(&'static str, String)>,
}

impl ListPartition {
    /// Returns a partition with the range of sort keys from `lower` to `upper`.
    pub(super) fn new(pk: String, lower: &str, upper: &str) -> ListPartition {
        ListPartition {
            pk,
            lower: lower.to_owned(),
            upper: upper.to_owned(),
            only: Vec::new(),
        }
    }

    /// If `value` is set, keeps only the rows in which the attribute `name` has this value.
    pub(super) fn only(mut self, name: &'static str, value: Option<&str>) -> ListPartition {
        self.only
            .extend(value.map(|value| (name, value.to_owned())));
        self
    }

    /// Returns the Query for this partition, which has the number `n` in the merged list. The Query begins after the
    /// position in `request`.
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
            only: self.only,
            now_s: Some(request.now_ms.0.div_euclid(1_000)),
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

/// Returns the complete key of the row at `position`, for the parameter `ExclusiveStartKey` of a Query.
fn key_at(position: &Position, source: &KeyedSource, pk: &str) -> Item {
    let attribute = |name: &str, value: &str| (name.to_owned(), string(value));
    let mut key = Item::from([
        attribute(source.keys.pk, pk),
        attribute(source.keys.sk, &position.sort_key),
    ]);
    let names = source.other_keys;
    let values = position.key.splitn(names.len(), '#');
    key.extend(
        names
            .iter()
            .zip(values)
            .map(|(name, value)| attribute(name, value)),
    );
    key
}

/// Reads one page of the merged list.
///
/// The function `below` takes a sort key, and returns the next smaller sort key, or `None` if it cannot compute one.
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
        key: other_keys_of(last, &source),
    });
    Ok(Page { items, next })
}

/// Returns the values of the attributes in [`KeyedSource::other_keys`] for a row, joined with `#` as in
/// [`Position::key`].
fn other_keys_of(row: &Item, source: &KeyedSource) -> String {
    let values = source.other_keys.iter().map(|name| text(row, name));
    values.collect::<Vec<_>>().join("#")
}

/// Returns the number of rows that one request reads from a partition.
fn rows_per_request(partitions: &[ListPartition], limit: usize) -> i32 {
    // The rows of a list are spread evenly over its partitions. Each Query reads one and a half times its share of the
    // rows, so that it rarely needs a second request.
    let share = limit.div_ceil(partitions.len().max(1));
    let rows = (share + share / 2 + 4).min(limit + 1);
    // This program applies the filter after DynamoDB has read the rows. Small requests would return few rows that pass
    // the filter.
    let is_filtered = partitions
        .iter()
        .any(|partition| !partition.only.is_empty());
    let rows_min = if is_filtered { FILTERED_ROWS_MIN } else { 1 };
    i32::try_from(rows.max(rows_min)).unwrap_or(i32::MAX)
}

/// Returns the index of the Query whose next row has the largest sort key. If several Queries have this sort key,
/// returns the smallest index.
fn newest_lane(lanes: &[Lane], sk: &str) -> Option<usize> {
    let fronts = lanes.iter().enumerate().rev();
    let fronts = fronts.filter_map(|(n, lane)| Some((n, text(lane.front()?, sk))));
    let newest = fronts.max_by(|(_, a), (_, b)| a.cmp(b));
    newest.map(|(n, _)| n)
}

/// Returns the approximate number of bytes of a row as JSON. The estimate counts only strings, because all other values
/// are short.
fn json_bytes(row: &Item) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    let attribute = |(name, value): (&String, &AttributeValue)| {
        let text = value.as_s().map_or("", String::as_str);
        // The attribute `extra` already contains JSON, so no character is escaped again.
        let bytes = if name == EXTRA {
            text.len()
        } else {
            text.chars().map(escaped).sum()
        };
        name.len() + bytes + "\"\":\"\",".len()
    };
    row.iter().map(attribute).sum()
}
