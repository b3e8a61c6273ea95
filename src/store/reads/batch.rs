//! Reads items by key with BatchGetItem, 100 keys at a time. Requests unprocessed keys again after a pause.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};

use super::db::{Db, read_together};
use super::meter;
use crate::store::answers::Flaw;
use crate::store::attributes::Item;
use crate::store::error::StoreError;

/// Maximum number of keys that DynamoDB allows in one BatchGetItem.
const BATCH_KEYS_MAX: usize = 100;
/// First pause before the next request for unprocessed keys. Each further pause is twice as long, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(25);
/// Maximum pause before the next request for unprocessed keys. Only the caller's deadline limits the number of
/// requests.
const PAUSE_MAX: Duration = Duration::from_millis(400);

impl Db {
    /// Returns the items with the given keys, in any order. The result excludes items that do not exist. The reads are
    /// consistent. The caller must pass each key only once.
    pub(super) async fn get_all(
        &self,
        table: &str,
        keys: Vec<Item>,
    ) -> Result<Vec<Item>, StoreError> {
        let chunks = keys.chunks(BATCH_KEYS_MAX).map(<[Item]>::to_vec);
        let batches = chunks.map(|chunk| {
            let (db, table) = (self.clone(), table.to_owned());
            async move { db.get_batch(&table, chunk).await }
        });
        let found = read_together(batches.collect()).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads the items of at most [`BATCH_KEYS_MAX`] keys.
    async fn get_batch(&self, table: &str, keys: Vec<Item>) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut wanted = keys;
        let mut retries = self.retries();
        let mut pause = PAUSE_FIRST;
        while !wanted.is_empty() {
            let (found, left) = match self.get_some(table, &wanted).await {
                Ok(answer) => answer,
                Err(error) => {
                    retries.pause_after(error).await?;
                    continue;
                }
            };
            items.extend(found);
            wanted = left;
            if !wanted.is_empty() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        Ok(items)
    }

    /// Sends one BatchGetItem request. Returns the items from the response and the unprocessed keys.
    async fn get_some(
        &self,
        table: &str,
        keys: &[Item],
    ) -> Result<(Vec<Item>, Vec<Item>), StoreError> {
        meter::check_bound()?;
        let asked = KeysAndAttributes::builder()
            .set_keys(Some(keys.to_vec()))
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
            .map_err(|error| StoreError::from_sdk("BatchGetItem", table, error))
            .and_then(|output| {
                let found = output.responses().into_iter().flatten();
                let found = found.flat_map(|(table, items)| items.iter().map(move |i| (table, i)));
                let left = output.unprocessed_keys().into_iter().flatten();
                let left = left.flat_map(|(table, l)| l.keys().iter().map(move |key| (table, key)));
                match find_batch_flaw(table, keys, found, left) {
                    Some(flaw) => Err(self.wrong_answer("BatchGetItem", table, flaw)),
                    None => Ok(output),
                }
            });
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

/// Returns the reason why a response to a BatchGetItem is invalid, or `None` if the response is valid. The response may
/// contain only requested keys, each of them at most once, either with its item or as an unprocessed key.
fn find_batch_flaw<'a>(
    table: &str,
    keys: &'a [Item],
    found: impl Iterator<Item = (&'a String, &'a Item)>,
    left: impl Iterator<Item = (&'a String, &'a Item)>,
) -> Option<Flaw> {
    let mut names: Vec<&String> = keys.first().into_iter().flat_map(Item::keys).collect();
    names.sort_unstable();
    let key_of = |item: &'a Item| -> Vec<Option<&'a str>> {
        let text = |name: &&String| item.get(*name).and_then(|v| v.as_s().ok());
        let texts = names.iter().map(|name| text(name).map(String::as_str));
        texts.collect()
    };
    let mut expected: HashSet<_> = keys.iter().map(key_of).collect();
    let mut is_ours =
        |(of, item): (&'a String, &'a Item)| of == table && expected.remove(&key_of(item));
    for item in found {
        if !is_ours(item) {
            return Some(Flaw::OtherItem);
        }
    }
    for key in left {
        if !is_ours(key) {
            return Some(Flaw::Unprocessed);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::AttributeValue;

    fn item(city: &str, time: &str, more: &str) -> Item {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        let mut item = Item::from([
            ("city".to_owned(), text(city)),
            ("timestamp".to_owned(), text(time)),
        ]);
        if !more.is_empty() {
            item.insert(more.to_owned(), text("x"));
        }
        item
    }

    fn flaw<'a>(
        keys: &'a [Item],
        found: &[(&'a String, &'a Item)],
        left: &[(&'a String, &'a Item)],
    ) -> Option<Flaw> {
        find_batch_flaw("t", keys, found.iter().copied(), left.iter().copied())
    }

    #[test]
    fn an_answer_holds_each_requested_key_once_and_no_other() {
        let keys = [item("a", "1", ""), item("a", "2", ""), item("b", "1", "")];
        let (ours, other) = ("t".to_owned(), "u".to_owned());
        let found = [item("a", "1", "x"), item("b", "1", "y")];
        let foreign = item("c", "1", "");
        let [first, last] = &found;
        assert_eq!(flaw(&keys, &[], &[]), None);
        let both = [(&ours, first), (&ours, last)];
        assert_eq!(flaw(&keys, &both, &[(&ours, &keys[1])]), None);
        for (found, left, want) in [
            (
                vec![(&ours, first), (&ours, first)],
                vec![],
                Flaw::OtherItem,
            ),
            (vec![(&other, first)], vec![], Flaw::OtherItem),
            (vec![(&ours, &foreign)], vec![], Flaw::OtherItem),
            (
                vec![(&ours, first)],
                vec![(&ours, &keys[0])],
                Flaw::Unprocessed,
            ),
            (vec![], vec![(&ours, &foreign)], Flaw::Unprocessed),
            (vec![], vec![(&other, &keys[0])], Flaw::Unprocessed),
        ] {
            assert_eq!(flaw(&keys, &found, &left), Some(want));
        }
    }
}
