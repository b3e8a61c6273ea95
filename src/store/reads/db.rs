//! Sends the read requests. For each request, [`Db`] counts the request, checks the response, and repeats a failed
//! request if the caller allows several attempts.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use tokio::task::JoinSet;

use super::meter;
use crate::core::keys::{CONFIG_PK, CONFIG_SK, PROGRESS_PK, TableNames};
use crate::store::answers::{Flaw, count_flaw};
use crate::store::attributes::{Item, SHARD, string};
use crate::store::config::{ConfigItem, read_config};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::requests::count_request;
use crate::telemetry::Metrics;

/// Maximum number of concurrent DynamoDB requests for one API response.
const REQUESTS_MAX: usize = 16;
/// First pause before another attempt of a failed request. The pause doubles with each attempt.
const PAUSE_FIRST: Duration = Duration::from_millis(80);

/// The client, the table names and the settings for all reads. Cloning a [`Db`] is cheap, so each task can have its own
/// clone.
#[derive(Clone)]
pub(crate) struct Db {
    pub(super) client: Client,
    pub(super) names: TableNames,
    metrics: Metrics,
    /// Maximum number of attempts for one request. If the last attempt fails, the read returns its error.
    attempts: u32,
}

/// A table or an index, with the names of its key attributes.
#[derive(Clone, Debug)]
pub(super) struct KeyNames {
    pub(super) table: String,
    pub(super) index: Option<&'static str>,
    pub(super) pk: &'static str,
    pub(super) sk: &'static str,
}

impl Db {
    /// Returns a [`Db`] that reads the tables with the given names.
    pub(super) fn new(client: Client, names: TableNames, metrics: Metrics, attempts: u32) -> Db {
        Db {
            client,
            names,
            metrics,
            attempts,
        }
    }

    /// Returns a Query of `table`. DynamoDB's response reports the consumed read units.
    pub(super) fn query(&self, table: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(table)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    /// Returns a Query of one partition for the sort keys from `lower` to `upper`, including both. If `upper` is
    /// `None`, the Query has no upper bound.
    pub(super) fn query_keys(
        &self,
        keys: &KeyNames,
        pk: &str,
        lower: &str,
        upper: Option<&str>,
    ) -> QueryFluentBuilder {
        let query = self
            .query(&keys.table)
            .set_index_name(keys.index.map(ToOwned::to_owned))
            .expression_attribute_names("#pk", keys.pk)
            .expression_attribute_names("#sk", keys.sk)
            .expression_attribute_values(":pk", string(pk))
            .expression_attribute_values(":lower", string(lower));
        match upper {
            Some(upper) => query
                .key_condition_expression("#pk = :pk AND #sk BETWEEN :lower AND :upper")
                .expression_attribute_values(":upper", string(upper)),
            None => query.key_condition_expression("#pk = :pk AND #sk >= :lower"),
        }
    }

    /// Reads the named attributes of all progress items, with consistent reads.
    pub(super) async fn progress_items(
        &self,
        attributes: impl IntoIterator<Item = &'static str>,
    ) -> Result<Vec<Item>, StoreError> {
        let query = self
            .query(&self.names.totals)
            .key_condition_expression("#shard = :shard")
            .expression_attribute_values(":shard", string(PROGRESS_PK))
            .consistent_read(true);
        let attributes = [SHARD].into_iter().chain(attributes);
        self.query_all(project(query, attributes)).await
    }

    /// Sends a Query. Returns the items of one page, and the key after which the next page begins.
    pub(super) async fn query_page(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Item>, Option<Item>), StoreError> {
        let mut retries = self.retries();
        loop {
            match self.send_query(query.clone()).await {
                Ok(page) => return Ok(page),
                Err(error) => retries.pause_after(error).await?,
            }
        }
    }

    async fn send_query(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Item>, Option<Item>), StoreError> {
        meter::check_bound()?;
        let table = query.get_table_name().clone().unwrap_or_default();
        let partition = QueriedPartition::of(&query);
        let started = Instant::now();
        let result = query.send().await;
        let result = result.map_err(|error| StoreError::from_sdk("Query", &table, error));
        let result = result.and_then(|output| {
            let last = output.last_evaluated_key().filter(|key| !key.is_empty());
            let mut items = output.items().iter().chain(last);
            if items.all(|item| partition.holds(item)) {
                return Ok(output);
            }
            Err(self.wrong_answer("Query", &table, Flaw::OtherItem))
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

    /// Reads all pages of a Query.
    pub(super) async fn query_all(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<Vec<Item>, StoreError> {
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

    /// Reads the current config item.
    pub(super) async fn config(&self) -> Result<ConfigItem, StoreError> {
        let table = &self.names.totals;
        let mut retries = self.retries();
        loop {
            let started = Instant::now();
            let result = read_config(&self.client, &self.names).await;
            self.count("GetItem", table, started, result.as_ref().err(), None);
            match result {
                Ok(Some(config)) => return Ok(config),
                Ok(None) => {
                    return Err(StoreError::Corrupt {
                        table: table.clone(),
                        key: format!("{CONFIG_PK}/{CONFIG_SK}"),
                        message: "it is missing".to_owned(),
                    });
                }
                Err(error) => retries.pause_after(error).await?,
            }
        }
    }

    /// Reads one item with a consistent read. Returns `None` if the item does not exist.
    pub(super) async fn get_one(&self, table: &str, key: Item) -> Result<Option<Item>, StoreError> {
        let mut retries = self.retries();
        loop {
            meter::check_bound()?;
            let started = Instant::now();
            let request = self.client.get_item().table_name(table);
            let request = request.set_key(Some(key.clone())).consistent_read(true);
            let units = ReturnConsumedCapacity::Total;
            let result = request.return_consumed_capacity(units).send().await;
            let result = result.map_err(|error| StoreError::from_sdk("GetItem", table, error));
            let capacity = result.as_ref().ok().and_then(|o| o.consumed_capacity());
            let units = capacity.and_then(|capacity| capacity.capacity_units());
            self.count("GetItem", table, started, result.as_ref().err(), units);
            match result {
                Ok(output) => return Ok(output.item),
                Err(error) => retries.pause_after(error).await?,
            }
        }
    }

    pub(super) fn retries(&self) -> Retries {
        Retries {
            left: self.attempts.saturating_sub(1),
            pause: PAUSE_FIRST,
        }
    }

    /// Counts an invalid response in the metrics, and returns the error for the flaw.
    pub(super) fn wrong_answer(
        &self,
        operation: &'static str,
        table: &str,
        flaw: Flaw,
    ) -> StoreError {
        count_flaw(Some(&self.metrics.answers_refused), operation, flaw);
        StoreError::wrong_answer(operation, table, flaw)
    }

    /// Returns the outcome of a failed request in the metrics. Only `notify` needs the incident table, so its absence
    /// must not trigger an alert. If an IAM policy does not name the table, IAM denies the request even if the table
    /// does not exist.
    fn outcome(&self, table: &str, kind: StoreErrorKind) -> &'static str {
        let is_absent = matches!(kind, StoreErrorKind::NotFound | StoreErrorKind::Denied);
        if is_absent && table == self.names.incidents {
            return "absent";
        }
        kind.name()
    }

    pub(super) fn count(
        &self,
        operation: &str,
        table: &str,
        started: Instant,
        error: Option<&StoreError>,
        units: Option<f64>,
    ) {
        meter::add_request(units);
        let outcome = error.map_or("ok", |error| self.outcome(table, error.kind()));
        count_request(&self.metrics, operation, table, outcome, started, units);
    }
}

/// Makes a Query return only the named attributes. The alias of each attribute is `#` followed by its name.
pub(super) fn project(
    mut query: QueryFluentBuilder,
    attributes: impl IntoIterator<Item = &'static str>,
) -> QueryFluentBuilder {
    let mut projection = Vec::new();
    for name in attributes {
        let alias = format!("#{name}");
        query = query.expression_attribute_names(&alias, name);
        projection.push(alias);
    }
    query.projection_expression(projection.join(","))
}

/// Runs each read as a task, at most [`REQUESTS_MAX`] at the same time. Returns the results in any order.
pub(super) async fn read_together<T, F>(readings: Vec<F>) -> Result<Vec<T>, StoreError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut out = Vec::new();
    for reading in readings {
        if tasks.len() >= REQUESTS_MAX
            && let Some(done) = tasks.join_next().await
        {
            out.push(done.expect("a reading does not panic")?);
        }
        tasks.spawn(meter::carry(reading));
    }
    while let Some(done) = tasks.join_next().await {
        out.push(done.expect("a reading does not panic")?);
    }
    Ok(out)
}

/// The number of remaining attempts for a failed request, and the pause before the next attempt.
pub(super) struct Retries {
    left: u32,
    pause: Duration,
}

impl Retries {
    /// Sleeps before the next attempt of a failed request.
    ///
    /// # Errors
    /// Returns the error `error` itself if no attempt is left or another attempt cannot succeed.
    pub(super) async fn pause_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        let is_passing = matches!(
            error.kind(),
            StoreErrorKind::Transient | StoreErrorKind::Throttled | StoreErrorKind::Unknown
        );
        if !is_passing || self.left == 0 {
            return Err(error);
        }
        tracing::debug!(%error, "sending a request to DynamoDB again");
        tokio::time::sleep(self.pause).await;
        self.left -= 1;
        self.pause *= 2;
        Ok(())
    }
}

/// The DynamoDB partition that a Query reads. The response must not contain an item of another partition.
struct QueriedPartition {
    key: String,
    value: AttributeValue,
}

impl QueriedPartition {
    /// Gets the partition key from the key condition of a Query, which begins with `#name = :value`.
    ///
    /// # Panics
    /// Panics if the key condition does not begin with `#name = :value`.
    fn of(query: &QueryFluentBuilder) -> QueriedPartition {
        let condition = query.get_key_condition_expression();
        let mut words = condition.iter().flat_map(|text| text.split(' '));
        let name = words.next().unwrap_or_default();
        let value = words.nth(1).unwrap_or_default();
        let names = query.get_expression_attribute_names().iter();
        let values = query.get_expression_attribute_values().iter();
        let key = names.flat_map(|names| names.get(name)).next();
        let value = values.flat_map(|values| values.get(value)).next();
        QueriedPartition {
            key: key.expect("a Query names its partition key first").clone(),
            value: value.expect("the value follows the name").clone(),
        }
    }

    fn holds(&self, item: &Item) -> bool {
        item.get(&self.key) == Some(&self.value)
    }
}
