//! Carries out the reads and writes that a [`Roll`] requests.
//!
//! The writer writes rollup rows with unconditional puts. A rollup row sums windows that no longer change, so every
//! writer computes the same row. The writer moves the rollup mark with a conditional update. Before each write, the
//! writer checks that it has read the ids of the tables and of the topic within the last [`TRUST_MS`].
//! [`crate::core::table_identity`] explains the reason for this check.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeValue, PutRequest, ReturnConsumedCapacity, ReturnValue, WriteRequest,
};

use crate::core::clock::BootMs;
use crate::core::keys::TableNames;
use crate::core::pace::backoff_ms;
use crate::core::rollup::{Ask, MARK_PK, MARK_SK, Roll, RollupMark, RollupRow, SETTLE_MS, rest_ms};
use crate::core::table_identity::{READ_INTERVAL_MS, TRUST_MS};
use crate::store::answers::Flaw;
use crate::store::attributes::{Item, SERIES, SHARD, text};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::reads::rollups::RollupSource;
use crate::store::reads::{Range, metered};
use crate::store::requests::{Counted, refusing_item};
use crate::store::rollup_items::{VERSION, mark_attributes, mark_key, row_item};
use crate::sys;
use crate::telemetry::{Metrics, unix_ms};

/// Maximum number of consecutive failed writes before a rollup pass fails. The pauses between the failed writes add up
/// to about ten seconds.
const WRITE_ATTEMPTS: u32 = 10;

/// The reason why a rollup pass ended before it reached its target.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// A request to DynamoDB failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The topic id or the tables id in the config item differs from the id in the rollup mark.
    #[error("the tables or their topic were recreated")]
    Replaced,
    /// Another process moved the rollup mark.
    #[error("another process writes the same rollups")]
    Overtaken,
}

/// The speed of a rollup pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// The rollup pass sleeps after each read, so that the pass spends [`READ_UNITS_PER_SECOND`] on average.
    ///
    /// [`READ_UNITS_PER_SECOND`]: crate::core::rollup::READ_UNITS_PER_SECOND
    Paced,
    /// The rollup pass does not sleep between reads.
    Full,
}

/// Writes rollups into the tables of one prefix.
#[derive(Clone)]
pub struct RollupWriter {
    source: RollupSource,
    client: Client,
    names: TableNames,
    metrics: Metrics,
    settle: Duration,
}

impl RollupWriter {
    /// Returns a writer for the tables with the given names. The function sends no request.
    pub fn new(client: Client, names: TableNames, metrics: Metrics) -> RollupWriter {
        RollupWriter {
            source: RollupSource::new(client.clone(), names.clone(), metrics.clone()),
            client,
            names,
            metrics,
            settle: Duration::from_millis(SETTLE_MS),
        }
    }

    /// Sets the time after which the writer assumes that the index contains all windows. Returns the changed writer.
    #[must_use]
    pub fn with_settle(self, settle: Duration) -> RollupWriter {
        RollupWriter { settle, ..self }
    }

    /// Returns the reader that this writer uses.
    pub const fn source(&self) -> &RollupSource {
        &self.source
    }

    /// Runs a rollup pass to its end. After each move of the rollup mark, the function calls `moved` with the new
    /// rollup mark. The caller may drop the future at any time, because the next pass continues at the rollup mark.
    ///
    /// # Errors
    /// Returns the reason why the rollup pass ended early.
    pub async fn run(
        &self,
        roll: &mut Roll,
        speed: Speed,
        mut moved: impl FnMut(&RollupMark),
    ) -> Result<(), RollError> {
        let window_ms = self.source.config().await?.rules.window_ms;
        let mut identity = Identity::default();
        let mut failed = 0;
        loop {
            match roll.next_ask(fastrand::u32(..)) {
                Ask::Done(_) => return Ok(()),
                Ask::Settle => {
                    tokio::time::sleep(self.settle).await;
                    roll.settled();
                }
                Ask::Move(mark) => {
                    identity.check(&self.source, &mark).await?;
                    match self.move_mark(&mark).await {
                        Ok(()) => {
                            failed = 0;
                            moved(&mark);
                            roll.moved(mark);
                        }
                        // If the update has succeeded but its response was lost, the next attempt finds that the rollup
                        // mark has already moved.
                        Err(RollError::Store(error))
                            if may_pass(&error) && failed < WRITE_ATTEMPTS =>
                        {
                            failed += 1;
                            pause(backoff_ms(failed, fastrand::u32(..))).await;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ask::Put { rows, wait_ms } => {
                    pause(wait_ms).await;
                    identity.check(&self.source, roll.mark()).await?;
                    let left = self.put(&rows, &mut failed).await?;
                    let stored = rows.len() - left.len();
                    self.metrics.rollup_rows.inc_by(stored as u64);
                    roll.put(&left);
                }
                read => {
                    let (answer, cost) = metered(self.read(roll, read, window_ms)).await;
                    answer?;
                    if speed == Speed::Paced {
                        let rest = Duration::from_millis(rest_ms(cost.units));
                        tokio::time::sleep(rest).await;
                    }
                }
            }
        }
    }

    /// Sends the read request that `ask` describes, and passes the response to `roll`.
    async fn read(&self, roll: &mut Roll, ask: Ask, window_ms: i64) -> Result<(), StoreError> {
        match ask {
            Ask::FirstWindow(from_ms) => {
                roll.first_window(self.source.first_window(from_ms).await?);
            }
            Ask::Series { shard, after } => {
                let (page, has_more) = self.source.series(shard, &after).await?;
                roll.series(page, has_more);
            }
            Ask::Windows {
                series,
                from_ms,
                until_ms,
            } => {
                let range = Range {
                    from_ms,
                    to_ms: until_ms,
                };
                let windows = self.source.windows(&series, range, window_ms).await?;
                roll.windows(&windows);
            }
            Ask::Hours { series, day_ms } => {
                let hours = self.source.hours(&series, day_ms).await?;
                roll.hours(series, &hours);
            }
            Ask::Move(_) | Ask::Settle | Ask::Put { .. } | Ask::Done(_) => {}
        }
        Ok(())
    }

    /// Stores rollup rows, and returns the indexes of the rows that may not be stored. After a temporary error, the
    /// function returns the indexes of all rows.
    async fn put(&self, rows: &[RollupRow], failed: &mut u32) -> Result<Vec<usize>, StoreError> {
        match self.send_put(rows).await {
            Ok(left) if left.len() < rows.len() => {
                *failed = 0;
                Ok(left)
            }
            Err(error) if !may_pass(&error) || *failed >= WRITE_ATTEMPTS => Err(error),
            Ok(_) | Err(_) => {
                *failed += 1;
                Ok((0..rows.len()).collect())
            }
        }
    }

    async fn send_put(&self, rows: &[RollupRow]) -> Result<Vec<usize>, StoreError> {
        let (operation, table) = ("BatchWriteItem", &*self.names.totals);
        let write = |row: &RollupRow| {
            let put = PutRequest::builder().set_item(Some(row_item(row))).build();
            let put = put.expect("the item is set");
            WriteRequest::builder().put_request(put).build()
        };
        let counted = Counted::begin(&self.metrics, operation, table);
        let output = self
            .client
            .batch_write_item()
            .request_items(table, rows.iter().map(write).collect())
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| counted.failed(error))?;
        let left = unprocessed(rows, table, output.unprocessed_items());
        let left = left.map_err(|flaw| counted.wrong_answer(flaw))?;
        counted.answered("ok", output.consumed_capacity());
        Ok(left)
    }

    /// Writes the new rollup mark if the mark in the table still has the previous version.
    async fn move_mark(&self, mark: &RollupMark) -> Result<(), RollError> {
        let (operation, table) = ("UpdateItem", &*self.names.totals);
        let attributes = mark_attributes(mark, unix_ms());
        let mut request = self
            .client
            .update_item()
            .table_name(table)
            .set_key(Some(mark_key()))
            .return_values(ReturnValue::AllNew)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let mut set = Vec::new();
        for (name, value) in &attributes {
            request = request
                .expression_attribute_names(format!("#{name}"), *name)
                .expression_attribute_values(format!(":{name}"), value.clone());
            set.push(format!("#{name} = :{name}"));
        }
        request = request.update_expression(format!("SET {}", set.join(", ")));
        let before = mark.version - 1;
        request = if before == 0 {
            request.condition_expression(format!("attribute_not_exists(#{VERSION})"))
        } else {
            request
                .condition_expression(format!("#{VERSION} = :before"))
                .expression_attribute_values(":before", AttributeValue::N(before.to_string()))
        };
        let counted = Counted::begin(&self.metrics, operation, table);
        let with_key = |error: StoreError| error.with_key(format!("{MARK_PK}/{MARK_SK}"));
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) if refusing_item(&error).is_some() => {
                counted.answered("conflict", None);
                return Err(RollError::Overtaken);
            }
            Err(error) => return Err(with_key(counted.failed(error)).into()),
        };
        let new = output.attributes();
        let is_written = |(name, value): &(&str, AttributeValue)| {
            new.is_some_and(|new| new.get(*name) == Some(value))
        };
        if !attributes.iter().all(is_written) {
            return Err(with_key(counted.wrong_answer(Flaw::OtherValues)).into());
        }
        counted.answered("ok", output.consumed_capacity());
        Ok(())
    }
}

async fn pause(ms: i64) {
    tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await;
}

fn may_pass(error: &StoreError) -> bool {
    matches!(
        error.kind(),
        StoreErrorKind::Transient | StoreErrorKind::Throttled | StoreErrorKind::Unknown
    )
}

/// Returns the indexes of the rollup rows that DynamoDB returned as unprocessed.
///
/// # Errors
/// Returns an error if the response contains anything other than puts of the given rows. After such a response, it is
/// unknown which rows were stored.
fn unprocessed(
    rows: &[RollupRow],
    table: &str,
    left: Option<&HashMap<String, Vec<WriteRequest>>>,
) -> Result<Vec<usize>, Flaw> {
    let mut out = Vec::new();
    for (name, requests) in left.into_iter().flatten() {
        for request in requests {
            let item = request.put_request().map(|put| put.item());
            let place = |item: &Item| {
                let mut keys = rows.iter().map(RollupRow::key);
                keys.position(|(shard, start)| {
                    text(item, SHARD) == shard && text(item, SERIES) == start
                })
            };
            let at = item.filter(|_| name == table).and_then(place);
            out.push(at.ok_or(Flaw::Unprocessed)?);
        }
    }
    Ok(out)
}

/// The time at which the rollup writer last read the ids of the tables and of the topic.
#[derive(Debug, Default)]
struct Identity {
    asked_ms: Option<BootMs>,
}

impl Identity {
    /// Checks that the ids of the tables and of the topic are still the ids in `mark`. If the last read was at most
    /// [`READ_INTERVAL_MS`] ago, the function does not read the ids again.
    async fn check(&mut self, source: &RollupSource, mark: &RollupMark) -> Result<(), RollError> {
        let is_younger = |asked_ms: Option<BootMs>, age_ms: i64| {
            asked_ms.is_some_and(|asked_ms| sys::boot_ms() - asked_ms <= age_ms)
        };
        if is_younger(self.asked_ms, READ_INTERVAL_MS) {
            return Ok(());
        }
        loop {
            let asked_ms = sys::boot_ms();
            let config = source.config().await?;
            if !mark.is_of(config.topic_id.as_deref(), &config.tables_id) {
                return Err(RollError::Replaced);
            }
            self.asked_ms = Some(asked_ms);
            // The response may have taken longer than [`TRUST_MS`], for example because the host was suspended.
            if is_younger(self.asked_ms, TRUST_MS) {
                return Ok(());
            }
        }
    }
}
