//! Carries out what the pipeline planned: batches of puts, row updates, progress items.
//!
//! One request, one answer: this module decides nothing and repeats nothing. Retries belong to the
//! core, outside the SDK's shared retry budget, which runs dry under concurrency.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpRequest;
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, WriteRequest};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use crate::core::batch::{Batch, BatchOutcome};
use crate::core::event::Offset;
use crate::core::keys::{self, FENCE_NEXT, PROGRESS_PK, TableNames};
use crate::core::pipeline::Publish;
use crate::core::plan::{Put, PutTable, RowUpdate, UpdateOutcome};
use crate::core::restart::Boundary;
use crate::core::time::format_millis;
use crate::core::watermark::MaxTime;
use crate::core::window::Rules;
use crate::store::error::{Kind, StoreError};
use crate::store::items::{ItemOptions, batch_body, progress_body, table_name, update_body};
use crate::telemetry::Metrics;

/// Writes to the tables of one prefix.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    names: Arc<TableNames>,
    options: Arc<Mutex<ItemOptions>>,
    metrics: Metrics,
}

impl Writer {
    /// Returns a writer; raw events expire after `raw_ttl_ms`.
    pub fn new(client: Client, names: TableNames, raw_ttl_ms: i64, metrics: Metrics) -> Writer {
        Writer {
            client,
            names: Arc::new(names),
            options: Arc::new(Mutex::new(ItemOptions {
                shards: 1,
                raw_ttl_ms,
                alert_ttl_ms: None,
                window_ms: Rules::default().window_ms,
            })),
            metrics,
        }
    }

    /// Lets alerts expire, too.
    pub fn set_alert_ttl(&self, alert_ttl_ms: Option<i64>) {
        let mut options = self.options.lock().expect("no panic holds the lock");
        options.alert_ttl_ms = alert_ttl_ms;
    }

    /// Takes over what the config item says. Must be called before the first write.
    pub fn set_tables(&self, shards: u32, window_ms: i64) {
        let mut options = self.options.lock().expect("no panic holds the lock");
        options.shards = shards;
        options.window_ms = window_ms;
    }

    fn options(&self) -> ItemOptions {
        *self.options.lock().expect("no panic holds the lock")
    }

    /// Puts a batch and says what became of it; the error, if any, is for the log and for noticing
    /// a missing table.
    pub async fn put(&self, batch: &Batch, now_ms: i64) -> (BatchOutcome, Option<StoreError>) {
        let table = table_name(&self.names, batch.table);
        let events = batch.puts.iter().map(|p| &*p.event);
        let body = batch_body(&self.names, batch.table, events, &self.options(), now_ms);
        let started = Instant::now();
        let result = self
            .client
            .batch_write_item()
            .customize()
            .mutate_request(with_body(body))
            .send()
            .await;
        let operation = "BatchWriteItem";
        match result {
            Ok(output) => {
                let left = output.unprocessed_items().and_then(|m| m.get(table));
                let unprocessed = left.map_or_else(Vec::new, |left| places(batch, left));
                let outcome = if unprocessed.is_empty() {
                    "ok"
                } else {
                    "unprocessed"
                };
                self.note(
                    operation,
                    table,
                    started,
                    outcome,
                    output.consumed_capacity(),
                );
                (BatchOutcome::Stored { unprocessed }, None)
            }
            Err(error) => {
                let error = StoreError::from_sdk(operation, table, error);
                self.note(operation, table, started, error.kind().name(), &[]);
                let outcome = match error.kind() {
                    Kind::Invalid => BatchOutcome::Invalid,
                    Kind::Throttled => BatchOutcome::Failed { throttled: true },
                    _ => BatchOutcome::Failed { throttled: false },
                };
                (outcome, Some(error))
            }
        }
    }

    /// Updates a row and says what became of it.
    ///
    /// # Errors
    /// Only what repeating cannot mend: a row that DynamoDB calls invalid, or whose fence is no
    /// number. Everything else is an outcome, with the error beside it for the log.
    pub async fn update(
        &self,
        update: &RowUpdate,
        now_ms: i64,
    ) -> Result<(UpdateOutcome, Option<StoreError>), StoreError> {
        let (table, body) = update_body(&self.names, update, &self.options(), now_ms);
        let started = Instant::now();
        let result = self
            .client
            .update_item()
            // The endpoint is chosen by it; the body carries it again.
            .table_name(table)
            .customize()
            .mutate_request(with_body(body))
            .send()
            .await;
        let operation = "UpdateItem";
        let error = match result {
            Ok(output) => {
                let units = output.consumed_capacity().map(std::slice::from_ref);
                self.note(operation, table, started, "ok", units.unwrap_or_default());
                return Ok((UpdateOutcome::Counted, None));
            }
            Err(error) => error,
        };
        let failed = error
            .as_service_error()
            .and_then(|e| match e {
                aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(e) => Some(e.item().cloned()),
                _ => None,
            });
        if let Some(item) = failed {
            self.note(operation, table, started, "conflict", &[]);
            let name = format!("{FENCE_NEXT}{}", update.log_key);
            let fence = item.as_ref().and_then(|i| i.get(&name)).and_then(number);
            return match fence {
                Some(fence) => Ok((UpdateOutcome::Fenced(Offset(fence)), None)),
                None => Err(StoreError::Corrupt {
                    table: table.to_owned(),
                    key: show_row(update),
                    message: format!("the fence {name} is missing or no number"),
                }),
            };
        }
        let error = StoreError::from_sdk(operation, table, error).with_key(show_row(update));
        self.note(operation, table, started, error.kind().name(), &[]);
        match error.kind() {
            Kind::Invalid | Kind::Corrupt => Err(error),
            Kind::Throttled => Ok((UpdateOutcome::Refused, Some(error))),
            _ => Ok((UpdateOutcome::Unknown, Some(error))),
        }
    }

    /// Creates a progress item where there is none. An existing one is left as it is.
    ///
    /// # Errors
    /// When it is not known to exist.
    pub async fn create_progress(&self, publish: &Publish) -> Result<(), StoreError> {
        self.put_progress(publish, true).await.map(drop)
    }

    /// Moves a progress item forward. One that stands further is left as it is. Returns false if there
    /// is none: it was made before the first count, so these are other tables, or somebody deleted it.
    ///
    /// # Errors
    /// When it is not known to have moved.
    pub async fn publish_progress(&self, publish: &Publish) -> Result<bool, StoreError> {
        let moved = self.put_progress(publish, false).await?;
        Ok(moved || self.read_progress(&publish.log_key).await?.is_some())
    }

    /// Returns whether the condition held.
    async fn put_progress(&self, publish: &Publish, create: bool) -> Result<bool, StoreError> {
        let (operation, table) = ("PutItem", &self.names.totals);
        let body = progress_body(&self.names, publish, create);
        let started = Instant::now();
        let result = self
            .client
            .put_item()
            .table_name(table)
            .customize()
            .mutate_request(with_body(body))
            .send()
            .await;
        match result {
            Ok(output) => {
                let units = output.consumed_capacity().map(std::slice::from_ref);
                self.note(operation, table, started, "ok", units.unwrap_or_default());
                Ok(true)
            }
            Err(error) => {
                let error = StoreError::from_sdk(operation, table, error);
                self.note(operation, table, started, error.kind().name(), &[]);
                if error.kind() == Kind::Conflict {
                    return Ok(false);
                }
                Err(error.with_key(format!("{PROGRESS_PK}/{}", publish.log_key)))
            }
        }
    }

    /// Returns the restart point that the tables hold for a log (`<topic id>#<partition>`).
    ///
    /// # Errors
    /// When the item cannot be read, or is not of the contract's shape.
    pub async fn read_progress(&self, log_key: &str) -> Result<Option<Boundary>, StoreError> {
        let (operation, table) = ("GetItem", &self.names.totals);
        let started = Instant::now();
        let result = self
            .client
            .get_item()
            .table_name(table)
            .key("shard", AttributeValue::S(PROGRESS_PK.to_owned()))
            .key("series", AttributeValue::S(log_key.to_owned()))
            .consistent_read(true)
            .send()
            .await;
        let key = || format!("{PROGRESS_PK}/{log_key}");
        let output = result.map_err(|error| {
            let error = StoreError::from_sdk(operation, table, error).with_key(key());
            self.note(operation, table, started, error.kind().name(), &[]);
            error
        })?;
        self.note(operation, table, started, "ok", &[]);
        let Some(item) = output.item() else {
            return Ok(None);
        };
        let corrupt = |name: &str| StoreError::Corrupt {
            table: table.clone(),
            key: key(),
            message: format!("{name} is missing or no number"),
        };
        let next = item
            .get("next")
            .and_then(number)
            .ok_or_else(|| corrupt("next"))?;
        let max_ms = match item.get("max") {
            None => None,
            Some(max) => Some(number(max).ok_or_else(|| corrupt("max"))?),
        };
        Ok(Some(Boundary {
            next: Offset(next),
            max: MaxTime::new(max_ms),
        }))
    }

    fn note(
        &self,
        operation: &str,
        table: &str,
        started: Instant,
        outcome: &str,
        units: &[ConsumedCapacity],
    ) {
        let m = &self.metrics;
        m.dynamodb_requests
            .with_label_values(&[operation, table, outcome])
            .inc();
        m.dynamodb_seconds
            .with_label_values(&[operation])
            .observe(started.elapsed().as_secs_f64());
        let units: f64 = units
            .iter()
            .filter_map(ConsumedCapacity::capacity_units)
            .sum();
        if units > 0.0 {
            m.dynamodb_units
                .with_label_values(&[table, operation])
                .inc_by(units);
        }
    }
}

/// Replaces the body of a request before it is signed.
fn with_body(body: Vec<u8>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    let body = Bytes::from(body);
    move |request| {
        request
            .headers_mut()
            .insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body.clone());
    }
}

/// Returns the places in the batch of the puts that came back.
fn places(batch: &Batch, left: &[WriteRequest]) -> Vec<usize> {
    let mut out = Vec::new();
    for request in left {
        let Some(item) = request.put_request().map(|p| p.item()) else {
            continue;
        };
        let at = batch
            .puts
            .iter()
            .position(|put| is_item(batch.table, put, item));
        out.extend(at);
    }
    if out.len() < left.len() {
        // Not recognised: then all count as not stored, which is always safe.
        return (0..batch.puts.len()).collect();
    }
    out
}

fn is_item(
    table: PutTable,
    put: &Put,
    item: &std::collections::HashMap<String, AttributeValue>,
) -> bool {
    let is = |name: &str, want: &str| {
        item.get(name)
            .and_then(|v| v.as_s().ok())
            .map(String::as_str)
            == Some(want)
    };
    let e = &*put.event;
    match table {
        PutTable::Raw => {
            is("event_id", &e.event_id) && is("timestamp", &format_millis(e.event.time_ms))
        }
        PutTable::Alerts => {
            is("city", &e.event.city)
                && is("timestamp", &keys::alert_sk(e.event.time_ms, &e.event_id))
        }
    }
}

fn number(value: &AttributeValue) -> Option<i64> {
    value.as_n().ok()?.parse().ok()
}

fn show_row(update: &RowUpdate) -> String {
    match update.row.window_start_ms {
        Some(start) => keys::window_key(&update.row.series, start),
        None => format!(
            "{}/{}",
            keys::totals_shard(&update.row.series),
            update.row.series
        ),
    }
}
