//! Defines the `Lane`, which reads the result of one Query page by page.

use std::collections::VecDeque;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;

use super::db::{Db, KeyNames, read_together};
use crate::store::attributes::{Item, TTL, number, text};
use crate::store::error::StoreError;

/// A Query for a range of sort keys in one partition, with a buffer for the rows that its caller has not taken yet.
#[derive(Clone)]
pub(super) struct Lane {
    query: QueryFluentBuilder,
    filter: RowFilter,
    /// The key after which the next page of the Query begins.
    start: Option<Item>,
    has_ended: bool,
    rows: VecDeque<Item>,
}

/// A filter for the rows of a Query, which this program applies after DynamoDB has read the rows. The default filter
/// keeps every row.
#[derive(Clone, Debug, Default)]
pub(super) struct RowFilter {
    /// The filter drops rows in which the named attribute has the given value.
    pub(super) not: Option<(&'static str, String)>,
    /// The filter keeps only rows in which every named attribute has the given value.
    pub(super) only: Vec<(&'static str, String)>,
    /// The filter drops rows that have expired by the given time, in Unix seconds.
    pub(super) now_s: Option<i64>,
}

impl RowFilter {
    fn keeps(&self, row: &Item) -> bool {
        let is_not = |(name, value): &(&str, String)| text(row, name) != value;
        let is_only = |(name, value): &(&str, String)| text(row, name) == value;
        let has_expired = |now_s| number(row, TTL).is_some_and(|ttl| ttl <= now_s);
        !self.now_s.is_some_and(has_expired)
            && self.not.as_ref().is_none_or(is_not)
            && self.only.iter().all(is_only)
    }
}

impl Lane {
    /// Returns the Query for the sort keys from `lower` to `upper` in one partition. The function sends no request.
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
            // DynamoDB refuses a range whose lower bound is greater than its upper bound.
            has_ended: upper.is_some_and(|upper| lower > upper),
            rows: VecDeque::new(),
        }
    }

    /// Changes the Query with the function `change`.
    pub(super) fn with_query(
        mut self,
        change: impl FnOnce(QueryFluentBuilder) -> QueryFluentBuilder,
    ) -> Lane {
        self.query = change(self.query);
        self
    }

    /// Drops each row that `filter` rejects.
    pub(super) fn with_filter(mut self, filter: RowFilter) -> Lane {
        self.filter = filter;
        self
    }

    /// Starts the Query after the row with the given key.
    pub(super) fn after(mut self, key: Option<Item>) -> Lane {
        self.start = key;
        self
    }

    /// Returns the first row in the buffer without removing it.
    pub(super) fn front(&self) -> Option<&Item> {
        self.rows.front()
    }

    /// Removes the first row from the buffer and returns it.
    pub(super) fn pop(&mut self) -> Option<Item> {
        self.rows.pop_front()
    }

    /// Reads pages of the Query until the buffer contains a row or the Query has ended.
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

/// Fills the buffers of all Queries concurrently, and returns the Queries in their original order.
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
