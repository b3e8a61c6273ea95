//! Defines the tables, and creates, compares and deletes them.
//!
//! A [`TableSpec`] describes a table as data, which `init-tables` uses both to create the table and to check it.
//! The only function in this file that changes an existing table is [`ensure_ttl`], which switches TTL on. Rows of
//! counts never expire, because DynamoDB would delete their fences with them. All tables use on-demand billing.
//!
//! | table | keys | index | TTL |
//! |---|---|---|---|
//! | raw-events | `event_id`, `timestamp` | `city_shard`, `timestamp`, all attributes | `ttl` |
//! | aggregations | `partition_key` | `series`, `window_start`, keys only | — |
//! | alerts | `city`, `timestamp` | `severity_shard`, `timestamp`, all attributes | — |
//! | totals | `shard`, `series` | — | — |
//! | incidents | `rule`, `incident` | `state`, `opened_at`, all attributes | — |

mod waits;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ReturnConsumedCapacity, ScalarAttributeType, TableDescription,
    TimeToLiveSpecification, TimeToLiveStatus,
};

use crate::core::keys::{
    CITY_INDEX, CONFIG_PK, INCIDENTS, SERIES_INDEX, SEVERITY_INDEX, STATE_INDEX, TableNames,
};
use crate::store::answers::Flaw;
use crate::store::attributes::{
    CITY, CITY_SHARD, EVENT_ID, INCIDENT, Item, OPENED_AT, PARTITION_KEY, RULE, SERIES,
    SEVERITY_SHARD, SHARD, STATE, TIMESTAMP, TTL, WINDOW_START, is_text,
};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::protect::{self, Protection, sdk_tags, sse};

pub use waits::{
    CHANGE_LIMIT, TableReadiness, delete, readiness, repeat_while_busy, wait_active, wait_gone,
};

/// The definition of a table, as in `docs/TABLES.md`. All keys are strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// The full name of the table, with the prefix.
    pub name: String,
    /// The names of the partition key and of the sort key. A table may have no sort key.
    pub keys: Keys,
    /// The index of the table, if the table has one.
    pub index: Option<IndexSpec>,
    /// The attribute that contains the expiry time, if every item of the table expires.
    pub ttl: Option<&'static str>,
}

/// The names of a partition key and of a sort key. The sort key is optional.
pub type Keys = (&'static str, Option<&'static str>);

/// The definition of a global secondary index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// The name of the index.
    pub name: &'static str,
    /// The names of the index's partition key and sort key.
    pub keys: Keys,
    /// The attributes that the index contains.
    pub projection: ProjectionType,
}

/// Returns the definitions of the four tables, in the order of [`crate::core::keys::TABLES`].
pub fn specs(names: &TableNames) -> [TableSpec; 4] {
    let index = |name, pk, sk, projection| {
        Some(IndexSpec {
            name,
            keys: (pk, Some(sk)),
            projection,
        })
    };
    let all = ProjectionType::All;
    let table = |name: &str, pk, sk, index, ttl| TableSpec {
        name: name.to_owned(),
        keys: (pk, sk),
        index,
        ttl,
    };
    [
        table(
            &names.raw,
            EVENT_ID,
            Some(TIMESTAMP),
            index(CITY_INDEX, CITY_SHARD, TIMESTAMP, all.clone()),
            Some(TTL),
        ),
        table(
            &names.aggregations,
            PARTITION_KEY,
            None,
            // The index contains only keys, so an update of the counts never costs a write to the index.
            index(SERIES_INDEX, SERIES, WINDOW_START, ProjectionType::KeysOnly),
            None,
        ),
        table(
            &names.alerts,
            CITY,
            Some(TIMESTAMP),
            index(SEVERITY_INDEX, SEVERITY_SHARD, TIMESTAMP, all),
            None,
        ),
        table(&names.totals, SHARD, Some(SERIES), None, None),
    ]
}

/// Returns the definition of the incident table. Only `notify` and the readers of incidents need this table.
pub fn incidents_spec(names: &TableNames) -> TableSpec {
    TableSpec {
        name: names.incidents.clone(),
        keys: (RULE, Some(INCIDENT)),
        // The index lists the incidents of all rules by time. Checkpoints and silences have no attribute `state`, so
        // the index does not contain them.
        index: Some(IndexSpec {
            name: STATE_INDEX,
            keys: (STATE, Some(OPENED_AT)),
            projection: ProjectionType::All,
        }),
        ttl: None,
    }
}

/// Returns the definition of the table with the index `table` in [`crate::core::keys::TABLES`]. For [`INCIDENTS`],
/// returns the definition of the incident table.
pub fn spec_of(names: &TableNames, table: usize) -> TableSpec {
    match table {
        INCIDENTS => incidents_spec(names),
        _ => specs(names)[table].clone(),
    }
}

/// Returns the description of a table, or `None` if the table does not exist.
///
/// # Errors
/// Returns an error if DynamoDB does not answer or refuses the request.
pub async fn describe_table(
    client: &Client,
    table: &str,
) -> Result<Option<TableDescription>, StoreError> {
    match client.describe_table().table_name(table).send().await {
        Ok(answer) => match answer.table {
            Some(found) if found.table_name() == Some(table) => Ok(Some(found)),
            // DynamoDB reports a missing table as an error and never as an empty response.
            _ => Err(StoreError::wrong_answer(
                "DescribeTable",
                table,
                Flaw::OtherTable,
            )),
        },
        Err(error) => {
            let error = StoreError::from_sdk("DescribeTable", table, error);
            match error.kind() {
                StoreErrorKind::NotFound => Ok(None),
                _ => Err(error),
            }
        }
    }
}

/// Returns the differences between a table and its definition, with one sentence for each. The function ignores
/// additional indexes, because they affect only the cost.
pub fn differences(spec: &TableSpec, actual: &TableDescription) -> Vec<String> {
    let mut out = Vec::new();
    compare_keys("the table", spec.keys, actual.key_schema(), &mut out);
    if let Some(index) = &spec.index {
        let found = actual
            .global_secondary_indexes()
            .iter()
            .find(|i| i.index_name() == Some(index.name));
        match found {
            None => out.push(format!("index {} is missing", index.name)),
            Some(found) => {
                let what = format!("index {}", index.name);
                compare_keys(&what, index.keys, found.key_schema(), &mut out);
                let projection = found.projection().and_then(|p| p.projection_type());
                if projection != Some(&index.projection) {
                    out.push(format!(
                        "{what} holds {} instead of {}",
                        projection.map_or("nothing", ProjectionType::as_str),
                        index.projection.as_str()
                    ));
                }
            }
        }
    }
    for name in key_attributes(spec) {
        let found = actual
            .attribute_definitions()
            .iter()
            .find(|a| a.attribute_name() == name);
        if let Some(found) = found
            && *found.attribute_type() != ScalarAttributeType::S
        {
            out.push(format!(
                "{name} has type {} instead of S",
                found.attribute_type().as_str()
            ));
        }
    }
    out
}

fn compare_keys(what: &str, wanted: Keys, actual: &[KeySchemaElement], out: &mut Vec<String>) {
    let find = |kind: KeyType| {
        actual
            .iter()
            .find(|k| *k.key_type() == kind)
            .map(KeySchemaElement::attribute_name)
    };
    let found = (find(KeyType::Hash), find(KeyType::Range));
    if found != (Some(wanted.0), wanted.1) {
        out.push(format!(
            "{what} has the keys {} instead of {}",
            show_keys(found.0.unwrap_or("none"), found.1),
            show_keys(wanted.0, wanted.1)
        ));
    }
}

fn show_keys(pk: &str, sk: Option<&str>) -> String {
    match sk {
        Some(sk) => format!("({pk}, {sk})"),
        None => format!("({pk})"),
    }
}

/// Returns the attributes that are keys of the table or of its index, without duplicates.
pub fn key_attributes(spec: &TableSpec) -> Vec<&'static str> {
    let mut names = vec![spec.keys.0];
    names.extend(spec.keys.1);
    if let Some(index) = &spec.index {
        names.push(index.keys.0);
        names.extend(index.keys.1);
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Creates a table, but does not wait until the table is active. Returns `false` if the table already exists.
///
/// # Errors
/// Returns an error if DynamoDB does not answer or refuses the request.
pub async fn create(client: &Client, spec: &TableSpec) -> Result<bool, StoreError> {
    create_protected(client, spec, &Protection::default()).await
}

/// Works like [`create`], and also applies the protection measures that a new table can have immediately.
///
/// # Errors
/// Returns an error if DynamoDB does not answer or refuses the request.
pub async fn create_protected(
    client: &Client,
    spec: &TableSpec,
    protection: &Protection,
) -> Result<bool, StoreError> {
    let mut request = client
        .create_table()
        .table_name(&spec.name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema(spec.keys)))
        .set_sse_specification(protection.kms_key.as_deref().map(sse));
    if protection.deletion {
        request = request.deletion_protection_enabled(true);
    }
    if !protection.tags.is_empty() {
        request = request.set_tags(Some(sdk_tags(&protection.tags)));
    }
    let warm_writes = protection
        .warm_writes
        .filter(|_| protect::gets_puts(&spec.name));
    let warm = warm_writes.map(protect::warm);
    request = request.set_warm_throughput(warm.clone());
    for name in key_attributes(spec) {
        request = request.attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .expect("both fields are set"),
        );
    }
    if let Some(index) = &spec.index {
        let projection = Projection::builder()
            .projection_type(index.projection.clone())
            .build();
        request = request.global_secondary_indexes(
            GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(Some(key_schema(index.keys)))
                .projection(projection)
                .set_warm_throughput(warm.clone())
                .build()
                .expect("name and keys are set"),
        );
    }
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) => {
            let error = StoreError::from_sdk("CreateTable", &spec.name, error);
            // If the response to the request was lost, the SDK repeats the request, and DynamoDB answers that the table
            // exists.
            match error.code() {
                Some("ResourceInUseException") => Ok(false),
                _ => Err(error),
            }
        }
    }
}

fn key_schema(keys: Keys) -> Vec<KeySchemaElement> {
    let key = |name: &str, kind| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(kind)
            .build()
            .expect("both fields are set")
    };
    let mut out = vec![key(keys.0, KeyType::Hash)];
    out.extend(keys.1.map(|sk| key(sk, KeyType::Range)));
    out
}

/// Switches TTL on if it is off. Returns true if TTL was off. The function first reads the TTL setting, because
/// DynamoDB refuses a second change of the setting within an hour.
///
/// # Errors
/// Returns [`StoreError::Different`] if TTL uses another attribute.
pub async fn ensure_ttl(client: &Client, table: &str, attribute: &str) -> Result<bool, StoreError> {
    if ttl_is_on(client, table, attribute).await? {
        return Ok(false);
    }
    let specification = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(attribute)
        .build()
        .expect("both fields are set");
    repeat_while_busy(table, CHANGE_LIMIT, async || {
        let request = client.update_time_to_live().table_name(table);
        let request = request.time_to_live_specification(specification.clone());
        let sent = request.send().await;
        sent.map_err(|error| StoreError::from_sdk("UpdateTimeToLive", table, error))
    })
    .await?;
    Ok(true)
}

/// Returns true if TTL is on and uses the attribute with the name `attribute`.
///
/// # Errors
/// Returns [`StoreError::Different`] if TTL uses another attribute.
pub async fn ttl_is_on(client: &Client, table: &str, attribute: &str) -> Result<bool, StoreError> {
    let answer = client
        .describe_time_to_live()
        .table_name(table)
        .send()
        .await
        .map_err(|error| StoreError::from_sdk("DescribeTimeToLive", table, error))?;
    let Some(ttl) = answer.time_to_live_description else {
        return Ok(false);
    };
    match ttl.time_to_live_status() {
        Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling) => {}
        _ => return Ok(false),
    }
    match ttl.attribute_name() {
        Some(name) if name != attribute => Err(StoreError::Different {
            table: table.to_owned(),
            differences: vec![format!("its TTL is {name} instead of {attribute}")],
        }),
        _ => Ok(true),
    }
}

/// Returns true if a table contains any item other than the config item.
///
/// This function contains the program's only Scan, which reads at most two items. The function does not use the item
/// count of the table, because DynamoDB updates this count only every few hours. `init-tables` calls the function for
/// the existing tables if a table or the config item is missing. Without this check, consumers could add new counts to
/// old counts.
///
/// # Errors
/// Returns an error if DynamoDB does not answer or refuses the request.
pub async fn holds_data(client: &Client, table: &str) -> Result<bool, StoreError> {
    let answer = client
        .scan()
        .table_name(table)
        .limit(2)
        .consistent_read(true)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .map_err(|error| StoreError::from_sdk("Scan", table, error))?;
    let is_config = |item: &Item| is_text(item, SHARD, CONFIG_PK);
    Ok(answer.items().iter().any(|item| !is_config(item)))
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests;
