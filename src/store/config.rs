//! The config item: what everybody who uses one set of tables must agree on.
//!
//! It stands in the totals table at `shard` = `config`, `series` = `tables`:
//!
//! | attribute | meaning | changes |
//! |---|---|---|
//! | `window_ms` `lateness_ms` `skew_ms` N | the rules of event time | never |
//! | `rules` N | the number of the program's rules, [`crate::core::RULES`] | never |
//! | `raw` S | which events get a raw row: `all`, `alerts`, `none` | never |
//! | `tables` S | a random id of this set of tables | never |
//! | `shards` N | shards per city and severity in the indexes | grows |
//! | `topic` S | the topic counted here | set once |
//! | `topic_id` S | its current id | when the topic is made again |
//!
//! Every write is conditional, so two `init-tables` at once cannot disagree. Names go through `#x`,
//! since several of them are reserved words.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use base64::Engine as _;

use crate::core::keys::{CONFIG_PK, CONFIG_SK, TableNames};
use crate::core::window::Rules;
use crate::failure::Failure;
use crate::settings::RawRows;
use crate::store::answers::{Flaw, disbelieve};
use crate::store::error::{Kind, StoreError};
use crate::store::proof::is_text;

/// The config item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The rules of event time.
    pub rules: Rules,
    /// Shards per city and severity in the indexes.
    pub shards: u32,
    /// The number of the rules of the program that made the tables.
    pub rules_number: u32,
    /// Which events get a raw row.
    pub raw: RawRows,
    /// A random id of this set of tables.
    pub tables_id: String,
    /// The topic that is counted here.
    pub topic: Option<String>,
    /// Its current id.
    pub topic_id: Option<String>,
}

/// Returns a fresh id for a set of tables: 22 characters, none of them `;` or `=`.
pub fn new_tables_id() -> String {
    let bytes = fastrand::u128(..).to_be_bytes();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the config item, consistently; `None` if there is none.
///
/// # Errors
/// [`Kind::NotFound`] if the table is missing, [`StoreError::Corrupt`] if the item is not one, or
/// what DynamoDB answers.
pub async fn read_config(
    client: &Client,
    names: &TableNames,
) -> Result<Option<Config>, StoreError> {
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

/// Writes the config item if there is none; returns whether it did, by an answer that proves
/// nothing: read the item.
///
/// # Errors
/// What DynamoDB answers.
pub async fn create_config(
    client: &Client,
    names: &TableNames,
    config: &Config,
) -> Result<bool, StoreError> {
    let done = client
        .put_item()
        .table_name(&names.totals)
        .set_item(Some(encode(config)))
        .condition_expression("attribute_not_exists(#shard)")
        .expression_attribute_names("#shard", "shard")
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await;
    match done {
        Ok(_) => Ok(true),
        Err(error) => {
            let error = from_sdk("PutItem", names, error);
            match error.kind() {
                Kind::Conflict => Ok(false),
                _ => Err(error),
            }
        }
    }
}

/// Raises the number of shards; returns `false` if it is as high already.
///
/// # Errors
/// What DynamoDB answers.
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
        .expression_attribute_names("#shards", "shards")
        .expression_attribute_values(":shards", AttributeValue::N(shards.to_string()))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    let number = |item: &HashMap<String, AttributeValue>| {
        let number = item.get("shards").and_then(|value| value.as_n().ok());
        number.and_then(|number| number.parse::<u32>().ok())
    };
    match done {
        Ok(output) if output.attributes().and_then(number) == Some(shards) => Ok(true),
        Ok(_) => Err(wrong_answer(names)),
        Err(error) => match refused(&error) {
            Some(Some(old)) if number(old).is_none_or(|old| old < shards) => {
                Err(wrong_answer(names))
            }
            Some(_) => Ok(false),
            None => Err(from_sdk("UpdateItem", names, error)),
        },
    }
}

/// Notes the topic that is counted here, and its current id.
///
/// # Errors
/// [`StoreError::Settings`] if these tables count another topic or have no config item, or what
/// DynamoDB answers.
pub async fn set_topic(
    client: &Client,
    names: &TableNames,
    topic: &str,
    topic_id: &str,
) -> Result<(), StoreError> {
    let done = client
        .update_item()
        .table_name(&names.totals)
        .set_key(Some(key()))
        .update_expression("SET #topic = :topic, #topic_id = :topic_id")
        .condition_expression(
            "attribute_exists(#shard) AND (attribute_not_exists(#topic) OR #topic = :topic)",
        )
        .expression_attribute_names("#shard", "shard")
        .expression_attribute_names("#topic", "topic")
        .expression_attribute_names("#topic_id", "topic_id")
        .expression_attribute_values(":topic", AttributeValue::S(topic.to_owned()))
        .expression_attribute_values(":topic_id", AttributeValue::S(topic_id.to_owned()))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    let error = match done {
        Ok(output) => {
            let is_ours = |item: &HashMap<String, AttributeValue>| {
                is_text(item, "topic", topic) && is_text(item, "topic_id", topic_id)
            };
            return if output.attributes().is_some_and(is_ours) {
                Ok(())
            } else {
                Err(wrong_answer(names))
            };
        }
        Err(error) => error,
    };
    let Some(old) = refused(&error) else {
        return Err(from_sdk("UpdateItem", names, error));
    };
    let owner = old.map(|item| item.get("topic").and_then(|value| value.as_s().ok()));
    Err(match owner {
        Some(Some(owner)) if owner != topic => StoreError::Settings(
            Failure::new(format!(
                "the tables of {} count topic {owner}, not {topic}",
                names.totals
            ))
            .with_remedy("use a --table-prefix of its own for each topic"),
        ),
        // An item without a topic, or with this one, cannot refuse it.
        Some(_) => wrong_answer(names),
        None => StoreError::Settings(
            Failure::new(format!("table {} has no config item", names.totals))
                .with_remedy("run citystream init-tables"),
        ),
    })
}

/// Returns the item that refused an update, if a condition did; `None` in it where there is no item.
fn refused<R>(
    error: &SdkError<UpdateItemError, R>,
) -> Option<Option<&HashMap<String, AttributeValue>>> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => Some(failed.item()),
        _ => None,
    }
}

/// Returns the error of an answer that does not hold what an update of the item leaves behind.
fn wrong_answer(names: &TableNames) -> StoreError {
    let (operation, flaw) = ("UpdateItem", Flaw::OtherValues);
    disbelieve(None, operation, flaw);
    StoreError::wrong_answer(operation, &names.totals, flaw).with_key(show_key())
}

fn from_sdk<E>(
    operation: &'static str,
    names: &TableNames,
    error: SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>,
) -> StoreError
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata
        + Into<aws_sdk_dynamodb::Error>
        + std::error::Error
        + Send
        + Sync
        + 'static,
{
    StoreError::from_sdk(operation, &names.totals, error).with_key(show_key())
}

fn show_key() -> String {
    format!("{CONFIG_PK}/{CONFIG_SK}")
}

fn key() -> HashMap<String, AttributeValue> {
    HashMap::from([
        ("shard".to_owned(), AttributeValue::S(CONFIG_PK.to_owned())),
        ("series".to_owned(), AttributeValue::S(CONFIG_SK.to_owned())),
    ])
}

fn encode(config: &Config) -> HashMap<String, AttributeValue> {
    let mut item = key();
    let numbers = [
        ("window_ms", config.rules.window_ms),
        ("lateness_ms", config.rules.lateness_ms),
        ("skew_ms", config.rules.skew_ms),
        ("shards", i64::from(config.shards)),
        ("rules", i64::from(config.rules_number)),
    ];
    for (name, number) in numbers {
        item.insert(name.to_owned(), AttributeValue::N(number.to_string()));
    }
    let texts = [
        ("raw", Some(config.raw.name())),
        ("tables", Some(config.tables_id.as_str())),
        ("topic", config.topic.as_deref()),
        ("topic_id", config.topic_id.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            item.insert(name.to_owned(), AttributeValue::S(text.to_owned()));
        }
    }
    item
}

/// Returns the config item that `item` is.
///
/// # Errors
/// [`StoreError::Corrupt`] if it is none.
pub fn decode(
    names: &TableNames,
    item: &HashMap<String, AttributeValue>,
) -> Result<Config, StoreError> {
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
                    .ok_or_else(|| corrupt(format!("{name} is no text")))
            })
            .transpose()
    };
    let number = |name: &str, least: i64, most: i64| {
        let number = item
            .get(name)
            .and_then(|value| value.as_n().ok())
            .and_then(|number| number.parse::<i64>().ok())
            .filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| corrupt(format!("{name} is no number from {least} to {most}")))
    };
    let small = |name: &str, least: i64| {
        let number = number(name, least, i64::from(u32::MAX))?;
        u32::try_from(number).map_err(|_| corrupt(format!("{name} is too large")))
    };
    let needed = |name: &str| text(name)?.ok_or_else(|| corrupt(format!("{name} is missing")));
    let raw = needed("raw")?;
    let raw = [RawRows::All, RawRows::Alerts, RawRows::None]
        .into_iter()
        .find(|rows| rows.name() == raw)
        .ok_or_else(|| corrupt(format!("raw is {raw:?}")))?;
    Ok(Config {
        rules: Rules {
            window_ms: number("window_ms", 1, i64::MAX)?,
            lateness_ms: number("lateness_ms", 0, i64::MAX)?,
            skew_ms: number("skew_ms", 0, i64::MAX)?,
        },
        shards: small("shards", 1)?,
        rules_number: small("rules", 0)?,
        raw,
        tables_id: needed("tables")?,
        topic: text("topic")?,
        topic_id: text("topic_id")?,
    })
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests {
    use super::*;
    use crate::store::embedded;
    use crate::store::tables;

    fn sample() -> Config {
        Config {
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
        assert_eq!(error.kind(), Kind::NotFound);
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
        // No item: nothing is made.
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
    async fn one_topic_a_prefix_whose_id_may_change() {
        let (client, names) = start().await;
        make_table(&client, &names).await;
        let error = set_topic(&client, &names, "a", "1")
            .await
            .expect_err("no item");
        assert_eq!(error.kind(), Kind::Settings);
        create_config(&client, &names, &sample()).await.unwrap();
        set_topic(&client, &names, "a", "1").await.unwrap();
        set_topic(&client, &names, "a", "2").await.unwrap();
        let error = set_topic(&client, &names, "b", "3").await.expect_err("a's");
        assert!(
            error.to_string().contains("count topic a, not b"),
            "{error}"
        );
        let config = read_config(&client, &names).await.unwrap().unwrap();
        assert_eq!(config.topic.as_deref(), Some("a"));
        assert_eq!(config.topic_id.as_deref(), Some("2"));
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
            ("raw", Some(AttributeValue::S("some".to_owned()))),
            ("tables", None),
            ("rules", None),
        ] {
            let mut item = good.clone();
            match value {
                Some(value) => item.insert(name.to_owned(), value),
                None => item.remove(name),
            };
            let error = decode(&names, &item).expect_err(name);
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
