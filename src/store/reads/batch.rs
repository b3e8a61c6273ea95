//! BatchGetItem followed to its end: 100 keys at a time, unprocessed keys again after a pause.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};

use super::{Db, Item, meter};
use crate::store::answers::Flaw;
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
            .set_keys(Some(keys.clone()))
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
                match find_flaw(table, &keys, found, left) {
                    Some(flaw) => Err(self.disbelieve("BatchGetItem", table, flaw)),
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

/// Returns why an answer cannot be that to a request for `keys`: each may be found or left over once,
/// and nothing else.
fn find_flaw<'a>(
    table: &str,
    keys: &'a [Item],
    found: impl Iterator<Item = (&'a String, &'a Item)>,
    left: impl Iterator<Item = (&'a String, &'a Item)>,
) -> Option<Flaw> {
    let mut names: Vec<&String> = keys.first().into_iter().flat_map(Item::keys).collect();
    names.sort_unstable();
    let print = |item: &'a Item| -> Vec<Option<&'a str>> {
        let text = |name: &&String| item.get(*name).and_then(|v| v.as_s().ok());
        let texts = names.iter().map(|name| text(name).map(String::as_str));
        texts.collect()
    };
    let mut open: HashSet<_> = keys.iter().map(print).collect();
    let mut is_ours = |(of, item): (&'a String, &'a Item)| of == table && open.remove(&print(item));
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
        find_flaw("t", keys, found.iter().copied(), left.iter().copied())
    }

    #[test]
    fn only_keys_that_were_asked_for_are_found_or_left_over_each_once() {
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
