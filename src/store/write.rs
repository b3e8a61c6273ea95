//! Carries out the writes that the pipeline requests: batches of puts, row updates and progress items.
//!
//! Each function sends one request and returns the outcome. This module repeats no request, because the core crate
//! decides about retries. The SDK's own retries are off, because all requests of a client share one retry budget, and
//! concurrent requests would exhaust this budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, WriteRequest};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use crate::core::batch::{Batch, BatchOutcome};
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::keys::{self, PROGRESS_PK, TableNames};
use crate::core::pipeline::Publish;
use crate::core::plan::{Put, PutTable, RowUpdate, Shown, UpdateOutcome};
use crate::core::restart::Boundary;
use crate::core::time::format_millis;
use crate::core::watermark::MaxTime;
use crate::core::window::Rules;
use crate::store::answers::{Flaw, count_flaw};
use crate::store::attributes::{
    CITY, EVENT_ID, Item, MAX, NEXT, SERIES, SHARD, TIMESTAMP, checked_number, is_text, string,
};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::items::{ItemOptions, batch_body, progress_body, table_name, update_body};
use crate::store::proof::{self, Unproven};
use crate::store::requests::{Counted, refusing_item};
use crate::telemetry::Metrics;

/// Writes to the tables with one prefix. All clones of a writer share its settings.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    names: Arc<TableNames>,
    options: Arc<Mutex<ItemOptions>>,
    metrics: Metrics,
}

impl Writer {
    /// Returns a writer whose raw events expire after `raw_ttl_ms` milliseconds.
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

    /// Sets the time after which alerts expire. With `None`, alerts never expire.
    pub fn set_alert_ttl(&self, alert_ttl_ms: Option<i64>) {
        let mut options = self.options.lock().expect("no panic holds the lock");
        options.alert_ttl_ms = alert_ttl_ms;
    }

    /// Sets the number of shards and the window length, which come from the config item. The caller must call this
    /// function before the first write.
    pub fn set_tables(&self, shards: u32, window_ms: i64) {
        let mut options = self.options.lock().expect("no panic holds the lock");
        options.shards = shards;
        options.window_ms = window_ms;
    }

    fn options(&self) -> ItemOptions {
        *self.options.lock().expect("no panic holds the lock")
    }

    /// Writes a batch of puts, and returns the outcome and the error, if any. The caller logs the error, and checks
    /// whether it reports a missing table.
    pub async fn put(&self, batch: &Batch, now_ms: UnixMs) -> (BatchOutcome, Option<StoreError>) {
        let table = table_name(&self.names, batch.table);
        let events = batch.puts.iter().map(|p| &*p.event);
        let body = batch_body(&self.names, batch.table, events, &self.options(), now_ms);
        let operation = "BatchWriteItem";
        let counted = Counted::begin(&self.metrics, operation, table);
        let result = self
            .client
            .batch_write_item()
            .customize()
            .mutate_request(with_body(body))
            .send()
            .await;
        match result {
            Ok(output) => {
                let unprocessed = match output.unprocessed_items() {
                    None => Vec::new(),
                    Some(left) => unprocessed_puts(batch, table, left).unwrap_or_else(|flaw| {
                        count_flaw(Some(&self.metrics.answers_refused), operation, flaw);
                        (0..batch.puts.len()).collect()
                    }),
                };
                let outcome = if unprocessed.is_empty() {
                    "ok"
                } else {
                    "unprocessed"
                };
                counted.answered(outcome, output.consumed_capacity());
                (BatchOutcome::Stored { unprocessed }, None)
            }
            Err(error) => {
                let error = counted.failed(error);
                let outcome = match error.kind() {
                    StoreErrorKind::Invalid => BatchOutcome::Invalid,
                    StoreErrorKind::Throttled => BatchOutcome::Failed { throttled: true },
                    _ => BatchOutcome::Failed { throttled: false },
                };
                (outcome, Some(error))
            }
        }
    }

    /// Updates a row and returns the outcome. The result also contains the error of a failed request, so that the
    /// caller can log it.
    ///
    /// If the response does not prove the outcome of this update, the outcome is [`UpdateOutcome::Unknown`]. The caller
    /// then sends the same update again, and the fence ensures that the row counts the records only once (INV-2).
    ///
    /// # Errors
    /// Returns an error if the update can never succeed, because DynamoDB rejects the request as invalid, or because
    /// the row's fence is not a number.
    pub async fn update(
        &self,
        update: &RowUpdate,
        now_ms: UnixMs,
    ) -> Result<(UpdateOutcome, Option<StoreError>), StoreError> {
        let (table, body) = update_body(&self.names, update, &self.options(), now_ms);
        let counted = Counted::begin(&self.metrics, "UpdateItem", table);
        let result = self.send_update(table, body).await;
        let error = match result {
            Ok(output) => {
                let shown = proof::shown_by_success(update, output.attributes());
                let outcome = update.judge_success(shown);
                if outcome != UpdateOutcome::Counted {
                    let error = counted.wrong_answer(shown_flaw(shown));
                    return Ok((outcome, Some(error.with_key(show_row(update)))));
                }
                counted.answered("ok", output.consumed_capacity());
                return Ok((outcome, None));
            }
            Err(error) => error,
        };
        if let Some(old) = refusing_item(&error) {
            let shown = proof::shown_by_refusal(update, old).map_err(|_| {
                counted.answered("conflict", None);
                corrupt(table, &show_row(update), &proof::fence_name(update))
            })?;
            let outcome = update.judge_refusal(shown);
            if outcome == UpdateOutcome::Unknown {
                let error = counted.wrong_answer(shown_flaw(shown));
                return Ok((outcome, Some(error.with_key(show_row(update)))));
            }
            counted.answered("conflict", None);
            return Ok((outcome, None));
        }
        let error = counted.failed(error).with_key(show_row(update));
        match error.kind() {
            StoreErrorKind::Invalid | StoreErrorKind::Corrupt => Err(error),
            StoreErrorKind::Throttled => Ok((UpdateOutcome::Refused, Some(error))),
            _ => Ok((UpdateOutcome::Unknown, Some(error))),
        }
    }

    async fn send_update(
        &self,
        table: &str,
        body: Vec<u8>,
    ) -> Result<UpdateItemOutput, SdkError<UpdateItemError, HttpResponse>> {
        let request = self.client.update_item();
        // The body already contains the name of the table, but the SDK also needs the name here to choose the endpoint.
        let request = request.table_name(table).customize();
        request.mutate_request(with_body(body)).send().await
    }

    /// Creates a progress item if it does not exist. An existing progress item stays unchanged.
    ///
    /// # Errors
    /// Returns an error unless the response proves that the item exists.
    pub async fn create_progress(&self, publish: &Publish) -> Result<(), StoreError> {
        self.write_progress(publish, true).await.map(drop)
    }

    /// Moves a progress item forward. A progress item that is already further ahead stays unchanged (INV-4).
    ///
    /// Returns `false` if the item does not exist. The consumer creates the progress item before it counts the first
    /// record. Therefore, a missing progress item means that the tables were replaced, or that the item was deleted.
    ///
    /// # Errors
    /// Returns an error unless the response proves that the item is missing, or that the item is at least as far ahead
    /// as `publish`.
    pub async fn publish_progress(&self, publish: &Publish) -> Result<bool, StoreError> {
        if self.write_progress(publish, false).await? {
            return Ok(true);
        }
        // The caller stops writing if the item is missing, so a second request confirms this result.
        match self.read_progress(&publish.log_key).await? {
            None => Ok(false),
            Some(_) => Err(self.other_item(publish)),
        }
    }

    /// Creates or advances a progress item. Returns `false` if the item does not exist after the request.
    async fn write_progress(&self, publish: &Publish, create: bool) -> Result<bool, StoreError> {
        let table = &*self.names.totals;
        let key = || format!("{PROGRESS_PK}/{}", publish.log_key);
        let body = progress_body(&self.names, publish, create);
        let counted = Counted::begin(&self.metrics, "UpdateItem", table);
        let result = self.send_update(table, body).await;
        let unproven = match &result {
            Ok(output) => {
                proof::check_published(publish, output.attributes()).map_err(Unproven::Flaw)
            }
            Err(error) => match refusing_item(error) {
                Some(Some(old)) => proof::check_refusal(publish, create, old),
                // DynamoDB refuses to create a progress item only if the item exists, so its response must contain this
                // item.
                Some(None) if create => Err(Unproven::Flaw(Flaw::OtherItem)),
                Some(None) | None => Ok(()),
            },
        };
        match unproven {
            Ok(()) => {}
            Err(Unproven::Flaw(flaw)) => {
                return Err(counted.wrong_answer(flaw).with_key(key()));
            }
            Err(Unproven::Corrupt) => return Err(corrupt(table, &key(), NEXT)),
        }
        match result {
            Ok(output) => {
                counted.answered("ok", output.consumed_capacity());
                Ok(true)
            }
            Err(error) => {
                let exists = refusing_item(&error).is_some_and(|old| old.is_some());
                let error = counted.failed(error);
                match error.kind() {
                    StoreErrorKind::Conflict => Ok(exists),
                    _ => Err(error.with_key(key())),
                }
            }
        }
    }

    fn other_item(&self, publish: &Publish) -> StoreError {
        let operation = "UpdateItem";
        let flaw = Flaw::OtherItem;
        count_flaw(Some(&self.metrics.answers_refused), operation, flaw);
        let error = StoreError::wrong_answer(operation, &self.names.totals, flaw);
        error.with_key(format!("{PROGRESS_PK}/{}", publish.log_key))
    }

    /// Returns the restart point in the progress item of a log (`<topic id>#<partition>`).
    ///
    /// # Errors
    /// Returns an error if the item cannot be read or does not have the shape in `docs/TABLES.md`.
    pub async fn read_progress(&self, log_key: &str) -> Result<Option<Boundary>, StoreError> {
        let table = &self.names.totals;
        let counted = Counted::begin(&self.metrics, "GetItem", table);
        let result = self
            .client
            .get_item()
            .table_name(table)
            .key(SHARD, string(PROGRESS_PK))
            .key(SERIES, string(log_key))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let key = || format!("{PROGRESS_PK}/{log_key}");
        let output = result.map_err(|error| counted.failed(error).with_key(key()))?;
        counted.answered("ok", None);
        let Some(item) = output.item() else {
            return Ok(None);
        };
        let number = |name| {
            let number = checked_number(item, name);
            number.map_err(|_| corrupt(table, &key(), name))
        };
        let next = number(NEXT)?.ok_or_else(|| corrupt(table, &key(), NEXT))?;
        let max_ms = number(MAX)?.map(UnixMs);
        Ok(Some(Boundary {
            next: Offset(next),
            max: MaxTime::new(max_ms),
            sums: proof::sums(item),
        }))
    }
}

/// Returns a function that replaces the body of a request before the SDK signs the request.
fn with_body(body: Vec<u8>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    let body = Bytes::from(body);
    move |request| {
        request
            .headers_mut()
            .insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body.clone());
    }
}

/// Returns the reason why a response does not prove the outcome of an update.
fn shown_flaw(shown: Shown) -> Flaw {
    if shown.same_row {
        Flaw::OtherValues
    } else {
        Flaw::OtherItem
    }
}

/// Returns the batch indexes of the puts that DynamoDB returned as unprocessed.
///
/// # Errors
/// Returns an error if the response contains anything other than puts of this batch. After such a response, it is
/// unknown which puts are stored.
fn unprocessed_puts(
    batch: &Batch,
    table: &str,
    left: &HashMap<String, Vec<WriteRequest>>,
) -> Result<Vec<usize>, Flaw> {
    let mut out = Vec::new();
    for (name, requests) in left {
        for request in requests {
            let item = request.put_request().map(|put| put.item());
            let at = item.filter(|_| name == table).and_then(|item| {
                let mut puts = batch.puts.iter();
                puts.position(|put| is_item(batch.table, put, item))
            });
            out.push(at.ok_or(Flaw::Unprocessed)?);
        }
    }
    Ok(out)
}

/// Returns true if an item in a response has the same key as the item of `put`.
fn is_item(table: PutTable, put: &Put, item: &Item) -> bool {
    let is = |name: &str, wanted: &str| is_text(item, name, wanted);
    let e = &*put.event;
    match table {
        PutTable::Raw => {
            is(EVENT_ID, &e.event_id) && is(TIMESTAMP, &format_millis(e.event.time_ms))
        }
        PutTable::Alerts => {
            is(CITY, &e.event.city) && is(TIMESTAMP, &keys::alert_sk(e.event.time_ms, &e.event_id))
        }
    }
}

fn corrupt(table: &str, key: &str, attribute: &str) -> StoreError {
    StoreError::Corrupt {
        table: table.to_owned(),
        key: key.to_owned(),
        message: format!("{attribute} is missing or not a number"),
    }
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
