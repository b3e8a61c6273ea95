//! Several partitions of a table or index read as one list, newest first.
//!
//! A lane is one partition, read backwards page by page. The list is ordered by sort key falling;
//! equal sort keys come lane by lane, and within a lane as DynamoDB orders them. That order is total
//! without reading all rows of one time, so a [`Position`] is small and exact: behind it, lanes
//! before the position's own have given all rows of that sort key, the own one goes on behind the
//! row, and later ones still have theirs. Every row is given out once, however many share a time.

use std::collections::VecDeque;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::task::JoinSet;

use super::items::{number, text};
use super::{Db, Item, Page, Position, Slice, meter};
use crate::core::event::Severity;
use crate::store::error::StoreError;

/// Most bytes of a page's rows, as JSON: a page of large rows ends before it has as many as were asked for.
/// It holds one row at least.
pub(super) const PAGE_BYTES_MAX: usize = 4 << 20;
/// Fewest rows that a request reads where a filter drops some of them.
const FILTERED_ROWS_MIN: usize = 100;

/// Which table or index, and how its keys are called.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) table: String,
    pub(super) index: Option<&'static str>,
    pub(super) pk_name: &'static str,
    pub(super) sk_name: &'static str,
    /// The attribute of the table's key that the index's keys lack.
    pub(super) other_key: Option<&'static str>,
}

/// One partition, read from its newest row to its oldest.
pub(super) struct Lane {
    pk: String,
    /// Smallest and largest sort key.
    lower: String,
    upper: String,
    /// Rows of this sort key were given out before.
    given: Option<String>,
    /// Only rows whose attribute has this value.
    only: Option<(&'static str, &'static str)>,
    start: Option<Item>,
    ended: bool,
    rows: VecDeque<Item>,
}

impl Lane {
    pub(super) fn new(pk: String, lower: &str, upper: &str) -> Lane {
        Lane {
            pk,
            lower: lower.to_owned(),
            upper: upper.to_owned(),
            given: None,
            only: None,
            start: None,
            ended: false,
            rows: VecDeque::new(),
        }
    }

    /// Keeps only rows of this severity, if one is given.
    pub(super) fn only(self, attribute: &'static str, severity: Option<Severity>) -> Lane {
        Lane {
            only: severity.map(|severity| (attribute, severity.name())),
            ..self
        }
    }

    /// Moves lane number `n` behind `position`.
    fn skip_to(
        &mut self,
        n: u32,
        position: &Position,
        source: &Source,
        below: &impl Fn(&str) -> Option<String>,
    ) {
        let sort_key = &position.sort_key;
        self.upper.clone_from(sort_key);
        if n < position.lane {
            match below(sort_key) {
                Some(upper) => self.upper = upper,
                None => self.given = Some(sort_key.clone()),
            }
        } else if n == position.lane {
            let mut key = Item::from([
                (
                    source.pk_name.to_owned(),
                    AttributeValue::S(self.pk.clone()),
                ),
                (
                    source.sk_name.to_owned(),
                    AttributeValue::S(sort_key.clone()),
                ),
            ]);
            if let Some(other) = source.other_key {
                key.insert(other.to_owned(), AttributeValue::S(position.key.clone()));
            }
            self.start = Some(key);
        }
    }

    /// Reads until a row is at hand or the lane has ended.
    async fn fill(
        mut self,
        db: Db,
        source: Source,
        rows_max: i32,
        now_s: i64,
    ) -> Result<Lane, StoreError> {
        while self.rows.is_empty() && !self.ended {
            if self.lower > self.upper {
                // DynamoDB refuses a range whose ends are swapped.
                self.ended = true;
                break;
            }
            let query = db
                .query(&source.table)
                .set_index_name(source.index.map(ToOwned::to_owned))
                .key_condition_expression("#pk = :pk AND #sk BETWEEN :lower AND :upper")
                .expression_attribute_names("#pk", source.pk_name)
                .expression_attribute_names("#sk", source.sk_name)
                .expression_attribute_values(":pk", AttributeValue::S(self.pk.clone()))
                .expression_attribute_values(":lower", AttributeValue::S(self.lower.clone()))
                .expression_attribute_values(":upper", AttributeValue::S(self.upper.clone()))
                .scan_index_forward(false)
                .limit(rows_max)
                .set_exclusive_start_key(self.start.take());
            let (found, next) = db.query_page(query).await?;
            self.ended = next.is_none();
            self.start = next;
            let (given, only) = (self.given.as_ref(), self.only);
            self.rows.extend(found.into_iter().filter(|row| {
                number(row, "ttl").is_none_or(|ttl| ttl > now_s)
                    && given.is_none_or(|given| text(row, source.sk_name) != *given)
                    && only.is_none_or(|(name, value)| text(row, name) == value)
            }));
        }
        Ok(self)
    }
}

/// Reads one page of the merged list.
///
/// `below` returns the largest sort key below the given one, where there is such a thing.
pub(super) async fn collect(
    db: &Db,
    source: Source,
    mut lanes: Vec<Lane>,
    slice: &Slice,
    below: impl Fn(&str) -> Option<String>,
) -> Result<Page<Item>, StoreError> {
    if let Some(position) = &slice.after {
        for (n, lane) in (0..).zip(&mut lanes) {
            lane.skip_to(n, position, &source, &below);
        }
    }
    // The shards share a list evenly; half as much again, and lanes seldom need a second page.
    let share = slice.limit.div_ceil(lanes.len().max(1));
    let rows_max = (share + share / 2 + 4).min(slice.limit + 1);
    // A filter drops rows after they are read: small pages would be many requests for few rows.
    let filtered = lanes.iter().any(|lane| lane.only.is_some());
    let rows_max = rows_max.max(if filtered { FILTERED_ROWS_MIN } else { 1 });
    let rows_max = i32::try_from(rows_max).unwrap_or(i32::MAX);
    let now_s = slice.now_ms.div_euclid(1_000);

    let mut lanes: VecDeque<Lane> = fill_all(db, &source, lanes, rows_max, now_s).await?.into();
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut last_lane = 0;
    let mut more = false;
    loop {
        let mut newest: Option<(usize, String)> = None;
        for (n, lane) in lanes.iter().enumerate() {
            let Some(row) = lane.rows.front() else {
                continue;
            };
            let sort_key = text(row, source.sk_name);
            if newest.as_ref().is_none_or(|(_, most)| sort_key > *most) {
                newest = Some((n, sort_key));
            }
        }
        let Some((n, _)) = newest else { break };
        bytes += lanes[n].rows.front().map_or(0, json_bytes);
        if items.len() == slice.limit || (bytes > PAGE_BYTES_MAX && !items.is_empty()) {
            more = true;
            break;
        }
        items.extend(lanes[n].rows.pop_front());
        last_lane = n;
        if lanes[n].rows.is_empty() && !lanes[n].ended {
            let lane = std::mem::replace(&mut lanes[n], Lane::new(String::new(), "", ""));
            lanes[n] = lane
                .fill(db.clone(), source.clone(), rows_max, now_s)
                .await?;
        }
    }
    let next = match items.last() {
        Some(last) if more => Some(Position {
            sort_key: text(last, source.sk_name),
            lane: u32::try_from(last_lane).unwrap_or(u32::MAX),
            key: source.other_key.map_or_else(String::new, |k| text(last, k)),
        }),
        _ => None,
    };
    Ok(Page { items, next })
}

/// Returns how long a row is as JSON, about: what it holds besides text is short.
fn json_bytes(row: &Item) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    let attribute = |(name, value): (&String, &AttributeValue)| {
        let text = value.as_s().map_or("", String::as_str);
        // It is JSON already.
        let is_json = name == "extra";
        let bytes = if is_json {
            text.len()
        } else {
            text.chars().map(escaped).sum()
        };
        name.len() + bytes + "\"\":\"\",".len()
    };
    row.iter().map(attribute).sum()
}

/// Fills all lanes at the same time; keeps their order.
async fn fill_all(
    db: &Db,
    source: &Source,
    lanes: Vec<Lane>,
    rows_max: i32,
    now_s: i64,
) -> Result<Vec<Lane>, StoreError> {
    let mut tasks = JoinSet::new();
    for (n, lane) in lanes.into_iter().enumerate() {
        let (db, source) = (db.clone(), source.clone());
        let filling = async move { (n, lane.fill(db, source, rows_max, now_s).await) };
        tasks.spawn(meter::carried(filling));
    }
    let mut filled = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (n, lane) = done.expect("reading a lane does not panic");
        filled.push((n, lane?));
    }
    filled.sort_by_key(|(n, _)| *n);
    Ok(filled.into_iter().map(|(_, lane)| lane).collect())
}
