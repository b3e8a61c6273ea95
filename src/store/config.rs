//! Reads and writes the config item, which contains the settings for all programs that use the same set of tables.
//!
//! The config item is stored in the totals table, with the key `shard` = `config` and `series` = `tables`:
//!
//! | attribute | meaning | changes |
//! |---|---|---|
//! | `window_ms` `lateness_ms` `skew_ms` N | the rules of event time | never |
//! | `rules` N | number of the program's rules, [`crate::core::RULES`] | never |
//! | `raw` S | which events have raw items: `all`, `alerts`, `none` | never |
//! | `tables` S | a random id of this set of tables | never |
//! | `shards` N | shards per city and severity in the indexes | grows |
//! | `topic` S | the topic that is counted | set once |
//! | `topic_id` S | the current id of that topic | when the topic is created again |
//!
//! Every write has a condition, so that two simultaneous runs of `init-tables` use the same config item. DynamoDB
//! expressions contain aliases such as `#x` instead of attribute names, because several attribute names are reserved
//! words in DynamoDB.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use base64::Engine as _;

use crate::core::RULES as RULES_NUMBER;
use crate::core::keys::{CONFIG_PK, CONFIG_SK, TableNames};
use crate::core::plan::RawRows;
use crate::core::window::Rules;
use crate::failure::Failure;
use crate::store::answers::{Flaw, count_flaw};
use crate::store::attributes::{
    Item, LATENESS_MS, RAW, RULES, SERIES, SHARD, SHARDS, SKEW_MS, TABLES, TOPIC, TOPIC_ID,
    WINDOW_MS, is_text, number, string,
};
use crate::store::error::{OperationError, StoreError, StoreErrorKind};
use crate::store::requests::refusing_item;

/// The content of the config item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigItem {
    /// The rules of event time: the length of a window, the allowed lateness and the allowed skew.
    pub rules: Rules,
    /// Number of shards per city and per severity in the indexes.
    pub shards: u32,
    /// The value of [`crate::core::RULES`] in the program that created the tables.
    pub rules_number: u32,
    /// The setting that decides which events have a raw item.
    pub raw: RawRows,
    /// The random id that identifies the set of tables.
    pub tables_id: String,
    /// The topic whose events the tables count, or `None` if neither `init-tables` nor `consume` has stored a topic
    /// yet.
    pub topic: Option<String>,
    /// The current id of the topic whose events the tables count.
    pub topic_id: Option<String>,
}

impl ConfigItem {
    /// Returns the reason why a role that reads `topic` cannot use these tables, or `None` if the role can use them.
    pub fn mismatch(&self, names: &TableNames, topic: &str) -> Option<Failure> {
        let totals = &names.totals;
        if self.rules_number != RULES_NUMBER {
            let what = format!(
                "the tables {totals}… were created with version {} of the rules, but this program has version {RULES_NUMBER}",
                self.rules_number
            );
            let remedy = "use the matching version of citystream, or replay the log with a new --table-prefix";
            return Some(Failure::new(what).with_remedy(remedy));
        }
        let owner = self.topic.as_ref().filter(|owner| *owner != topic)?;
        let what = format!("the tables {totals}… belong to topic {owner}, not {topic}");
        let remedy = format!("set --topic {owner}, or use another --table-prefix");
        Some(Failure::new(what).with_remedy(remedy))
    }
}

/// Returns a new random id for a set of tables. The id has 22 characters, and contains neither `;` nor `=`.
pub fn new_tables_id() -> String {
    let bytes = fastrand::u128(..).to_be_bytes();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the config item with a consistent read. Returns `None` if the item does not exist.
///
/// # Errors
/// Returns [`StoreErrorKind::NotFound`] if the table is missing, and [`StoreError::Corrupt`] if the item is damaged.
/// Otherwise returns the error from DynamoDB.
pub async fn read_config(
    client: &Client,
    names: &TableNames,
) -> Result<Option<ConfigItem>, StoreError> {
    let answer = client
        .get_item()
        .table_name(&names.totals)
        .set_key(Some(key()))
        .consistent_read(true)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .map_err(|error| from_sdk("GetItem", names, error))?;
    answer.item.map(|item| decode(names, &item)).transpose()
}

/// Creates the config item, unless it already exists. Returns true if the call created the item. The response to a
/// PutItem does not prove which values are stored, so the caller must then read the item.
///
/// # Errors
/// Returns the error from DynamoDB.
pub async fn create_config(
    client: &Client,
    names: &TableNames,
    config: &ConfigItem,
) -> Result<bool, StoreError> {
    let done = client
        .put_item()
        .table_name(&names.totals)
        .set_item(Some(encode(config)))
        .condition_expression("attribute_not_exists(#shard)")
        .expression_attribute_names("#shard", SHARD)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await;
    match done {
        Ok(_) => Ok(true),
        Err(error) => match from_sdk("PutItem", names, error) {
            error if error.kind() == StoreErrorKind::Conflict => Ok(false),
            error => Err(error),
        },
    }
}

/// Raises the number of shards to `shards`. Returns `false` if the config item does not exist or already has at least
/// `shards` shards.
///
/// # Errors
/// Returns the error from DynamoDB.
pub async fn grow_shards(
    client: &Client,
    names: &TableNames,
    shards: u32,
) -> Result<bool, StoreError> {
    let done = client
        .update_item()
        .table_name(&names.totals)
        .set_key(Some(key()))
        .update_expression("SET #shards = :shards")
        .condition_expression("#shards < :shards")
        .expression_attribute_names("#shards", SHARDS)
        .expression_attribute_values(":shards", AttributeValue::N(shards.to_string()))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    let shards_of = |item: &Item| number(item, SHARDS);
    let wanted = i64::from(shards);
    match done {
        Ok(output) if output.attributes().and_then(shards_of) == Some(wanted) => Ok(true),
        Ok(_) => Err(wrong_answer(names)),
        Err(error) => match refusing_item(&error) {
            Some(Some(old)) if shards_of(old).is_none_or(|old| old < wanted) => {
                Err(wrong_answer(names))
            }
            Some(_) => Ok(false),
            None => Err(from_sdk("UpdateItem", names, error)),
        },
    }
}

/// Stores the topic whose events the tables count, and the current id of this topic. The item must still contain
/// `known_id`, or no topic id if `known_id` is `None`.
///
/// The caller must read `known_id` from the item before it reads `topic_id` from Kafka. A delayed request then cannot
/// replace the id of a newer topic: the newer id was written after `known_id` was read.
///
/// # Errors
/// Returns [`StoreError::Settings`] if the tables count events of another topic, or if there is no config item. Returns
/// an error of the kind [`StoreErrorKind::Conflict`] if the item contains another topic id than `known_id` and
/// `topic_id`. Otherwise returns the error from DynamoDB.
pub async fn set_topic(
    client: &Client,
    names: &TableNames,
    topic: &str,
    topic_id: &str,
    known_id: Option<&str>,
) -> Result<(), StoreError> {
    let done = client
        .update_item()
        .table_name(&names.totals)
        .set_key(Some(key()))
        .update_expression("SET #topic = :topic, #topic_id = :topic_id")
        .condition_expression(
            "attribute_exists(#shard) AND (attribute_not_exists(#topic) OR #topic = :topic) \
             AND (attribute_not_exists(#topic_id) OR #topic_id IN (:known_id, :topic_id))",
        )
        .expression_attribute_names("#shard", SHARD)
        .expression_attribute_names("#topic", TOPIC)
        .expression_attribute_names("#topic_id", TOPIC_ID)
        .expression_attribute_values(":topic", string(topic))
        .expression_attribute_values(":topic_id", string(topic_id))
        .expression_attribute_values(":known_id", string(known_id.unwrap_or(topic_id)))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    let is_written = |item: &Item| is_text(item, TOPIC, topic) && is_text(item, TOPIC_ID, topic_id);
    let error = match done {
        Ok(output) if output.attributes().is_some_and(is_written) => return Ok(()),
        Ok(_) => return Err(wrong_answer(names)),
        Err(error) => error,
    };
    let Some(old) = refusing_item(&error) else {
        return Err(from_sdk("UpdateItem", names, error));
    };
    let Some(old) = old else {
        let what = format!("table {} has no config item", names.totals);
        let failure = Failure::new(what).with_remedy("run citystream init-tables");
        return Err(StoreError::Settings(failure));
    };
    let stored = |name| old.get(name).and_then(|value| value.as_s().ok());
    if let Some(owner) = stored(TOPIC).filter(|owner| *owner != topic) {
        let totals = &names.totals;
        let what = format!("the tables of {totals} count topic {owner}, not {topic}");
        let remedy = "use a separate --table-prefix for each topic";
        return Err(StoreError::Settings(Failure::new(what).with_remedy(remedy)));
    }
    Err(match stored(TOPIC_ID).map(String::as_str) {
        Some(id) if id != topic_id && Some(id) != known_id => from_sdk("UpdateItem", names, error),
        // The stored item satisfies the condition of the update. DynamoDB cannot have refused this update, so the
        // response is wrong.
        _ => wrong_answer(names),
    })
}

/// Returns the error for a response without the values that the update should have stored.
fn wrong_answer(names: &TableNames) -> StoreError {
    let (operation, flaw) = ("UpdateItem", Flaw::OtherValues);
    count_flaw(None, operation, flaw);
    StoreError::wrong_answer(operation, &names.totals, flaw).with_key(show_key())
}

fn from_sdk<E: OperationError>(
    operation: &'static str,
    names: &TableNames,
    error: SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>,
) -> StoreError {
    StoreError::from_sdk(operation, &names.totals, error).with_key(show_key())
}

fn show_key() -> String {
    format!("{CONFIG_PK}/{CONFIG_SK}")
}

fn key() -> Item {
    Item::from([
        (SHARD.to_owned(), string(CONFIG_PK)),
        (SERIES.to_owned(), string(CONFIG_SK)),
    ])
}

fn encode(config: &ConfigItem) -> Item {
    let mut item = key();
    let numbers = [
        (WINDOW_MS, config.rules.window_ms),
        (LATENESS_MS, config.rules.lateness_ms),
        (SKEW_MS, config.rules.skew_ms),
        (SHARDS, i64::from(config.shards)),
        (RULES, i64::from(config.rules_number)),
    ];
    for (name, number) in numbers {
        item.insert(name.to_owned(), AttributeValue::N(number.to_string()));
    }
    let texts = [
        (RAW, Some(config.raw.name())),
        (TABLES, Some(config.tables_id.as_str())),
        (TOPIC, config.topic.as_deref()),
        (TOPIC_ID, config.topic_id.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            item.insert(name.to_owned(), string(text));
        }
    }
    item
}

/// Decodes the config item from its attributes.
///
/// # Errors
/// Returns [`StoreError::Corrupt`] if an attribute is missing or its value is out of range.
pub fn decode(names: &TableNames, item: &Item) -> Result<ConfigItem, StoreError> {
    let corrupt = |message: String| StoreError::Corrupt {
        table: names.totals.clone(),
        key: show_key(),
        message,
    };
    let text = |name: &str| {
        item.get(name)
            .map(|value| {
                let text = value.as_s().ok().filter(|text| !text.is_empty());
                text.cloned()
                    .ok_or_else(|| corrupt(format!("{name} is not a string")))
            })
            .transpose()
    };
    let number = |name: &str, least: i64, most: i64| {
        let number = number(item, name).filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| corrupt(format!("{name} is not a number from {least} to {most}")))
    };
    let small = |name: &str, least: i64| {
        let number = number(name, least, i64::from(u32::MAX))?;
        u32::try_from(number).map_err(|_| corrupt(format!("{name} is too large")))
    };
    let required = |name: &str| text(name)?.ok_or_else(|| corrupt(format!("{name} is missing")));
    let raw = required(RAW)?;
    let raw = RawRows::from_name(&raw).ok_or_else(|| corrupt(format!("raw is {raw:?}")))?;
    Ok(ConfigItem {
        rules: Rules {
            window_ms: number(WINDOW_MS, 1, i64::MAX)?,
            lateness_ms: number(LATENESS_MS, 0, i64::MAX)?,
            skew_ms: number(SKEW_MS, 0, i64::MAX)?,
        },
        shards: small(SHARDS, 1)?,
        rules_number: small(RULES, 0)?,
        raw,
        tables_id: required(TABLES)?,
        topic: text(TOPIC)?,
        topic_id: text(TOPIC_ID)?,
    })
}

#[cfg(feature = "dev")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded;
    use crate::store::tables;

    fn sample() -> ConfigItem {
        ConfigItem {
            rules: Rules::default(),
            shards: 4,
            rules_number: crate::core::RULES,
            raw: RawRows::Alerts,
            tables_id: new_tables_id(),
            topic: None,
            topic_id: None,
        }
    }

    async fn start() -> (Client, TableNames) {
        let db = dynoxide::Database::memory().unwrap();
        let client = embedded::client(db).await.unwrap();
        (client, TableNames::new("config"))
    }

    async fn make_table(client: &Client, names: &TableNames) {
        tables::create(client, &tables::specs(names)[3])
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_item_is_written_once_and_read_back() {
        let (client, names) = start().await;
        let error = read_config(&client, &names).await.expect_err("no table");
        assert_eq!(error.kind(), StoreErrorKind::NotFound);
        make_table(&client, &names).await;
        assert_eq!(read_config(&client, &names).await.unwrap(), None);
        let (first, second) = (sample(), sample());
        assert_ne!(first.tables_id, second.tables_id);
        assert!(create_config(&client, &names, &first).await.unwrap());
        assert!(!create_config(&client, &names, &second).await.unwrap());
        assert_eq!(read_config(&client, &names).await.unwrap(), Some(first));
    }

    #[tokio::test]
    async fn shards_only_grow() {
        let (client, names) = start().await;
        make_table(&client, &names).await;
        // The config item does not exist yet, so the update changes nothing.
        assert!(!grow_shards(&client, &names, 8).await.unwrap());
        assert_eq!(read_config(&client, &names).await.unwrap(), None);
        create_config(&client, &names, &sample()).await.unwrap();
        for (shards, grown) in [(4, false), (8, true), (8, false), (6, false), (10, true)] {
            assert_eq!(grow_shards(&client, &names, shards).await.unwrap(), grown);
        }
        let config = read_config(&client, &names).await.unwrap().unwrap();
        assert_eq!(config.shards, 10);
    }

    #[tokio::test]
    async fn tables_count_one_topic_whose_id_may_change() {
        let (client, names) = start().await;
        make_table(&client, &names).await;
        let error = set_topic(&client, &names, "a", "1", None)
            .await
            .expect_err("no item");
        assert_eq!(error.kind(), StoreErrorKind::Settings);
        create_config(&client, &names, &sample()).await.unwrap();
        for (id, known) in [("1", None), ("2", Some("1")), ("2", None)] {
            let set = set_topic(&client, &names, "a", id, known).await;
            set.unwrap();
        }
        let error = set_topic(&client, &names, "b", "3", Some("2"))
            .await
            .expect_err("a's");
        assert!(
            error.to_string().contains("count topic a, not b"),
            "{error}"
        );
        let config = read_config(&client, &names).await.unwrap().unwrap();
        assert_eq!(config.topic.as_deref(), Some("a"));
        assert_eq!(config.topic_id.as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn a_delayed_write_of_a_former_topic_id_changes_nothing() {
        let (client, names) = start().await;
        make_table(&client, &names).await;
        create_config(&client, &names, &sample()).await.unwrap();
        set_topic(&client, &names, "a", "3", None).await.unwrap();
        for known in [None, Some("1"), Some("2")] {
            let error = set_topic(&client, &names, "a", "2", known).await;
            let error = error.expect_err("3 is newer");
            assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
        }
        let config = read_config(&client, &names).await.unwrap().unwrap();
        assert_eq!(config.topic_id.as_deref(), Some("3"));
    }

    #[test]
    fn tables_of_other_rules_or_another_topic_are_not_used() {
        let names = TableNames::new("p");
        let of = |rules_number, topic: Option<&str>| {
            let topic = topic.map(str::to_owned);
            let config = ConfigItem {
                rules_number,
                topic,
                ..sample()
            };
            let mismatch = config.mismatch(&names, "a");
            mismatch.map(|failure| failure.to_string())
        };
        assert_eq!(of(RULES_NUMBER, None), None);
        assert_eq!(of(RULES_NUMBER, Some("a")), None);
        let text = of(RULES_NUMBER, Some("b")).expect("another topic");
        assert!(
            text.contains("p-totals… belong to topic b, not a; set --topic b"),
            "{text}"
        );
        for topic in [None, Some("a"), Some("b")] {
            let text = of(RULES_NUMBER + 1, topic).expect("other rules");
            assert!(text.contains("this program has version"), "{text}");
        }
    }

    #[test]
    fn a_damaged_item_is_corrupt() {
        let names = TableNames::new("p");
        let good = encode(&sample());
        assert!(decode(&names, &good).is_ok());
        for (name, value) in [
            ("window_ms", Some(AttributeValue::N("0".to_owned()))),
            ("lateness_ms", Some(AttributeValue::S("600000".to_owned()))),
            ("shards", Some(AttributeValue::N("4294967296".to_owned()))),
            (RAW, Some(AttributeValue::S("some".to_owned()))),
            ("tables", None),
            ("rules", None),
        ] {
            let mut item = good.clone();
            match value {
                Some(value) => item.insert(name.to_owned(), value),
                None => item.remove(name),
            };
            let error = decode(&names, &item).expect_err(name);
            assert_eq!(error.kind(), StoreErrorKind::Corrupt);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
