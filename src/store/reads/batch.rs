//! BatchGetItem followed to its end: 100 keys at a time, unprocessed keys again after a pause.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};

use super::{Db, Item, meter};
use crate::store::error::StoreError;

/// Most keys of one BatchGetItem, by DynamoDB's rules.
pub(super) const BATCH_KEYS_MAX: usize = 100;
/// First pause before unprocessed keys are asked for again; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(25);
/// Longest pause; the caller's deadline ends the waiting.
const PAUSE_MAX: Duration = Duration::from_millis(400);

impl Db {
    /// Reads items by key, consistently, in no order; those that do not exist are not in the answer.
    /// No key may be there twice.
    pub(super) async fn get_all(
        &self,
        table: &str,
        keys: Vec<Item>,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut keys = keys.into_iter();
        loop {
            let mut wanted: Vec<Item> = keys.by_ref().take(BATCH_KEYS_MAX).collect();
            if wanted.is_empty() {
                return Ok(items);
            }
            let mut pause = PAUSE_FIRST;
            while !wanted.is_empty() {
                let (found, left) = self.get_some(table, wanted).await?;
                items.extend(found);
                wanted = left;
                if !wanted.is_empty() {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Sends one BatchGetItem; returns the items and the unprocessed keys.
    async fn get_some(
        &self,
        table: &str,
        keys: Vec<Item>,
    ) -> Result<(Vec<Item>, Vec<Item>), StoreError> {
        meter::may_read()?;
        let asked = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(true)
            .build()
            .expect("the keys are set");
        let started = Instant::now();
        let result = self
            .client
            .batch_get_item()
            .request_items(table, asked)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("BatchGetItem", table, error));
        let units = result.as_ref().ok().map(|output| {
            let capacity = output.consumed_capacity().iter();
            capacity.filter_map(|c| c.capacity_units()).sum()
        });
        self.count("BatchGetItem", table, started, result.as_ref().err(), units);
        let output = result?;
        let found = output.responses.into_iter().flat_map(HashMap::into_values);
        let left = output
            .unprocessed_keys
            .into_iter()
            .flat_map(HashMap::into_values);
        Ok((
            found.flatten().collect(),
            left.flat_map(|left| left.keys).collect(),
        ))
    }
}
