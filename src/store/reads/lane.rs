//! One Query that is read page by page.

use std::collections::VecDeque;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;

use super::db::{Db, KeyNames, read_together};
use crate::store::attributes::{Item, TTL, number, text};
use crate::store::error::StoreError;

/// The sort keys of one partition in a range, and the rows of it that were read and not yet taken.
#[derive(Clone)]
pub(super) struct Lane {
    query: QueryFluentBuilder,
    filter: RowFilter,
    /// The key after which the next page begins.
    start: Option<Item>,
    has_ended: bool,
    rows: VecDeque<Item>,
}

/// Rows that a lane leaves out. The default leaves out none.
#[derive(Clone, Debug, Default)]
pub(super) struct RowFilter {
    /// Leaves out rows whose attribute has this value.
    pub(super) not: Option<(&'static str, String)>,
    /// Leaves out rows whose attribute has another value.
    pub(super) only: Option<(&'static str, &'static str)>,
    /// Leaves out rows whose `ttl` is not after this time in Unix seconds.
    pub(super) now_s: Option<i64>,
}

impl RowFilter {
    fn keeps(&self, row: &Item) -> bool {
        let is_not = |(name, value): &(&str, String)| text(row, name) != value;
        let is_only = |(name, value): (&str, &str)| text(row, name) == value;
        let has_expired = |now_s| number(row, TTL).is_some_and(|ttl| ttl <= now_s);
        !self.now_s.is_some_and(has_expired)
            && self.not.as_ref().is_none_or(is_not)
            && self.only.is_none_or(is_only)
    }
}

impl Lane {
    /// Returns a lane of the sort keys from `lower` to `upper` of one partition. Sends nothing yet.
    pub(super) fn new(
        db: &Db,
        keys: &KeyNames,
        pk: &str,
        lower: &str,
        upper: Option<&str>,
    ) -> Lane {
        Lane {
            query: db.query_keys(keys, pk, lower, upper),
            filter: RowFilter::default(),
            start: None,
            // DynamoDB refuses a range that ends before it begins.
            has_ended: upper.is_some_and(|upper| lower > upper),
            rows: VecDeque::new(),
        }
    }

    /// Changes the Query.
    pub(super) fn with_query(
        mut self,
        change: impl FnOnce(QueryFluentBuilder) -> QueryFluentBuilder,
    ) -> Lane {
        self.query = change(self.query);
        self
    }

    /// Leaves out rows.
    pub(super) fn with_filter(mut self, filter: RowFilter) -> Lane {
        self.filter = filter;
        self
    }

    /// Begins after the row with this key.
    pub(super) fn after(mut self, key: Option<Item>) -> Lane {
        self.start = key;
        self
    }

    /// Returns the next row that was read.
    pub(super) fn front(&self) -> Option<&Item> {
        self.rows.front()
    }

    /// Takes the next row that was read.
    pub(super) fn pop(&mut self) -> Option<Item> {
        self.rows.pop_front()
    }

    /// Reads pages until the lane has a row or has ended.
    pub(super) async fn fill(&mut self, db: &Db) -> Result<(), StoreError> {
        while self.rows.is_empty() && !self.has_ended {
            let query = self.query.clone();
            let query = query.set_exclusive_start_key(self.start.take());
            let (found, next) = db.query_page(query).await?;
            self.has_ended = next.is_none();
            self.start = next;
            let kept = found.into_iter().filter(|row| self.filter.keeps(row));
            self.rows.extend(kept);
        }
        Ok(())
    }
}

/// Fills all lanes at the same time, and returns them in their order.
pub(super) async fn fill_all(db: &Db, lanes: Vec<Lane>) -> Result<Vec<Lane>, StoreError> {
    let readings = lanes.into_iter().enumerate().map(|(n, mut lane)| {
        let db = db.clone();
        async move {
            lane.fill(&db).await?;
            Ok((n, lane))
        }
    });
    let mut filled = read_together(readings.collect()).await?;
    filled.sort_by_key(|(n, _)| *n);
    Ok(filled.into_iter().map(|(_, lane)| lane).collect())
}
