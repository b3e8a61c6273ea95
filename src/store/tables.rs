//! The four tables: what they are, making them, comparing them, deleting them.
//!
//! A table is data here ([`TableSpec`]), so that creating and comparing cannot drift apart. A table
//! that exists is never changed, with one exception: TTL on raw events is switched on where it is
//! off. Only that table has one, since a row of counts that vanished would lose its fences. All are
//! billed on demand.
//!
//! | table | keys | index | TTL |
//! |---|---|---|---|
//! | raw-events | `event_id`, `timestamp` | `city_shard`, `timestamp`, all attributes | `ttl` |
//! | aggregations | `partition_key` | `series`, `window_start`, keys only | — |
//! | alerts | `city`, `timestamp` | `severity_shard`, `timestamp`, all attributes | — |
//! | totals | `shard`, `series` | — | — |

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, IndexStatus,
    KeySchemaElement, KeyType, Projection, ProjectionType, ReturnConsumedCapacity,
    ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};

use crate::core::keys::{CITY_INDEX, CONFIG_PK, SERIES_INDEX, SEVERITY_INDEX, TableNames};
use crate::failure::Failure;
use crate::store::answers::Flaw;
use crate::store::error::{Kind, StoreError};
use crate::store::protect::{self, Protection, sdk_tags, sse};

/// The attribute after whose time, in epoch seconds, a raw event vanishes.
pub const TTL_ATTRIBUTE: &str = "ttl";
/// How long a table may take to become active, or to accept a change. AWS takes seconds, and some
/// minutes until a new table accepts point-in-time recovery.
pub const CHANGE_LIMIT: Duration = Duration::from_secs(300);
/// Least pause between two looks at a table that is being made or deleted; it grows.
const POLL_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between two looks.
const POLL_MAX: Duration = Duration::from_secs(2);
/// Least time between two log lines about the same wait.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A table as the contract wants it. All keys are strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its full name.
    pub name: String,
    /// Partition key and, if it has one, sort key.
    pub keys: Keys,
    /// Its index, if it has one.
    pub index: Option<IndexSpec>,
    /// The attribute of its TTL, if it has one.
    pub ttl: Option<&'static str>,
}

/// Partition key and, if there is one, sort key.
pub type Keys = (&'static str, Option<&'static str>);

/// A global index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    /// Its name.
    pub name: &'static str,
    /// Its keys.
    pub keys: Keys,
    /// Which attributes it holds.
    pub projection: ProjectionType,
}

/// Returns the four tables, in the order of [`crate::core::keys::TABLES`].
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
            "event_id",
            Some("timestamp"),
            index(CITY_INDEX, "city_shard", "timestamp", all.clone()),
            Some(TTL_ATTRIBUTE),
        ),
        table(
            &names.aggregations,
            "partition_key",
            None,
            // Keys only: counting a window up never pays for a write to the index.
            index(
                SERIES_INDEX,
                "series",
                "window_start",
                ProjectionType::KeysOnly,
            ),
            None,
        ),
        table(
            &names.alerts,
            "city",
            Some("timestamp"),
            index(SEVERITY_INDEX, "severity_shard", "timestamp", all),
            None,
        ),
        table(&names.totals, "shard", Some("series"), None, None),
    ]
}

/// Returns a table's description; `None` if there is no such table.
///
/// # Errors
/// If DynamoDB does not answer or refuses.
pub async fn describe(
    client: &Client,
    table: &str,
) -> Result<Option<TableDescription>, StoreError> {
    match client.describe_table().table_name(table).send().await {
        Ok(answer) => match answer.table {
            Some(found) if found.table_name() == Some(table) => Ok(Some(found)),
            // A table that does not exist is an error, and no empty answer.
            _ => Err(StoreError::wrong_answer(
                "DescribeTable",
                table,
                Flaw::OtherTable,
            )),
        },
        Err(error) => {
            let error = StoreError::from_sdk("DescribeTable", table, error);
            match error.kind() {
                Kind::NotFound => Ok(None),
                _ => Err(error),
            }
        }
    }
}

/// Returns what differs between a table and what it should be, a sentence each. Further indexes are
/// no difference: they cost their owner, but break nothing.
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

/// Returns every attribute that is a key of the table or its index, once.
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

/// Makes a table without waiting for it; returns `false` if it exists.
///
/// # Errors
/// If DynamoDB does not answer or refuses.
pub async fn create(client: &Client, spec: &TableSpec) -> Result<bool, StoreError> {
    create_protected(client, spec, &Protection::default()).await
}

/// As [`create`], with what can be said of a table's protection when it is made.
///
/// # Errors
/// If DynamoDB does not answer or refuses.
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
                .expect("both parts are set"),
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
            // Also what a repetition of our own lost request finds.
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
            .expect("both parts are set")
    };
    let mut out = vec![key(keys.0, KeyType::Hash)];
    out.extend(keys.1.map(|sk| key(sk, KeyType::Range)));
    out
}

/// Waits until the table and its indexes can be used.
///
/// # Errors
/// [`StoreError::Waited`] after `limit`, or what DynamoDB answers.
pub async fn wait_active(
    client: &Client,
    table: &str,
    limit: Duration,
) -> Result<TableDescription, StoreError> {
    let mut wait = Wait::new(limit);
    loop {
        let state = match describe(client, table).await? {
            None => "it does not exist".to_owned(),
            Some(found) => match readiness(&found) {
                Readiness::Ready => return Ok(found),
                Readiness::Wait(state) => state,
                Readiness::Never(failure) => return Err(StoreError::Settings(failure)),
            },
        };
        let what = || format!("table {table} to become active ({state})");
        wait.pause(what).await?;
    }
}

/// Whether a table takes changes and serves requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The table and its indexes are active.
    Ready,
    /// DynamoDB is still at work; says at what.
    Wait(String),
    /// A person must act first; says what is wrong and what to do.
    Never(Failure),
}

/// Returns whether a table is ready, from its status and the status of its indexes.
///
/// Source: `TableStatus` and `IndexStatus` in the API reference of DynamoDB.
pub fn readiness(found: &TableDescription) -> Readiness {
    let name = found.table_name().unwrap_or_default();
    let status = found.table_status().map_or("unknown", TableStatus::as_str);
    let remedy = match found.table_status() {
        Some(TableStatus::Active) => None,
        Some(TableStatus::InaccessibleEncryptionCredentials) => {
            Some("enable its KMS key again, and let DynamoDB use it")
        }
        Some(TableStatus::Archiving | TableStatus::Archived) => {
            Some("restore its backup under another --table-prefix")
        }
        Some(TableStatus::ReplicationNotAuthorized) => {
            Some("give back the right to replicate it to the other Regions")
        }
        _ => return Readiness::Wait(format!("its status is {status}")),
    };
    if let Some(remedy) = remedy {
        return Readiness::Never(
            Failure::new(format!("table {name} cannot be used"))
                .with_why(format!("its status is {status}"))
                .with_remedy(remedy),
        );
    }
    for index in found.global_secondary_indexes() {
        let name = index.index_name().unwrap_or_default();
        match index.index_status() {
            None | Some(IndexStatus::Active) => {}
            Some(status) => {
                let filling = match index.backfilling() {
                    Some(true) => ", DynamoDB is filling it",
                    _ => "",
                };
                let status = status.as_str();
                return Readiness::Wait(format!("the status of index {name} is {status}{filling}"));
            }
        }
    }
    Readiness::Ready
}

/// Sends a change to a table again until DynamoDB accepts it. DynamoDB refuses changes while the table
/// is being made or updated, and refuses point-in-time recovery for minutes after that.
///
/// # Errors
/// The last refusal after `limit`, or any other error at once.
pub async fn repeat_while_busy<T>(
    table: &str,
    limit: Duration,
    change: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut wait = Wait::new(limit);
    wait.told = None;
    loop {
        let error = match change().await {
            Err(error) if error.is_busy() => error,
            done => return done,
        };
        let what = || format!("table {table} to accept a change ({error})");
        wait.pause(what).await?;
    }
}

/// Switches TTL on where it is off; returns whether it was. Describes it first, since changing it
/// twice within an hour is refused (D15).
///
/// # Errors
/// [`StoreError::Different`] if it is on for another attribute.
pub async fn ensure_ttl(client: &Client, table: &str, attribute: &str) -> Result<bool, StoreError> {
    if ttl_is_on(client, table, attribute).await? {
        return Ok(false);
    }
    let specification = TimeToLiveSpecification::builder()
        .enabled(true)
        .attribute_name(attribute)
        .build()
        .expect("both parts are set");
    repeat_while_busy(table, CHANGE_LIMIT, async || {
        let request = client.update_time_to_live().table_name(table);
        let request = request.time_to_live_specification(specification.clone());
        let sent = request.send().await;
        sent.map_err(|error| StoreError::from_sdk("UpdateTimeToLive", table, error))
    })
    .await?;
    Ok(true)
}

/// Tells whether rows vanish after the time in `attribute`.
///
/// # Errors
/// [`StoreError::Different`] if they do after the time in another.
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

/// Tells whether a table holds anything that was counted or stored: any item but the config item.
///
/// The only Scan of the program, of two items at most: DynamoDB's own item count is hours old, and
/// this is asked only where a table or the config item is missing, to keep from mixing old counts
/// with new ones.
///
/// # Errors
/// If DynamoDB does not answer or refuses.
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
    let is_config = |item: &HashMap<String, AttributeValue>| {
        item.get("shard").and_then(|value| value.as_s().ok()) == Some(&CONFIG_PK.to_owned())
    };
    Ok(answer.items().iter().any(|item| !is_config(item)))
}

/// Deletes a table and waits until it is gone; returns `false` if there was none.
///
/// DynamoDB refuses to delete a table that is being made or updated, so the request is repeated.
///
/// # Errors
/// [`StoreError::Waited`] after `limit`, or what DynamoDB answers.
pub async fn delete(client: &Client, table: &str, limit: Duration) -> Result<bool, StoreError> {
    let request = async || {
        let sent = client.delete_table().table_name(table).send().await;
        sent.map_err(|error| StoreError::from_sdk("DeleteTable", table, error))
    };
    match repeat_while_busy(table, limit, request).await {
        Ok(_) => {}
        Err(error) if error.kind() == Kind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    wait_gone(client, table, limit).await?;
    Ok(true)
}

/// Waits until a table that is being deleted is gone.
///
/// # Errors
/// [`StoreError::Waited`] after `limit`, or what DynamoDB answers.
pub async fn wait_gone(client: &Client, table: &str, limit: Duration) -> Result<(), StoreError> {
    let mut wait = Wait::new(limit);
    while describe(client, table).await?.is_some() {
        let what = || format!("table {table} to be deleted");
        wait.pause(what).await?;
    }
    Ok(())
}

/// A wait with growing pauses and an end, that logs what it waits for.
struct Wait {
    begin: Instant,
    limit: Duration,
    pause: Duration,
    /// When it was last logged; `None` logs at the next pause.
    told: Option<Instant>,
}

impl Wait {
    fn new(limit: Duration) -> Wait {
        let begin = Instant::now();
        Wait {
            begin,
            limit,
            pause: POLL_FIRST,
            told: Some(begin),
        }
    }

    /// Sleeps until the next look.
    async fn pause(&mut self, what: impl Fn() -> String) -> Result<(), StoreError> {
        if self.begin.elapsed() + self.pause > self.limit {
            return Err(StoreError::Waited {
                what: what(),
                seconds: self.limit.as_secs(),
            });
        }
        if self.told.is_none_or(|told| told.elapsed() >= LINE_EVERY) {
            let seconds = self.begin.elapsed().as_secs();
            tracing::info!(what = what(), seconds, "still waiting");
            self.told = Some(Instant::now());
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(POLL_MAX);
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests {
    use super::*;
    use crate::store::embedded;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn client() -> Client {
        let db = dynoxide::Database::memory().unwrap();
        embedded::client(db).await.unwrap()
    }

    #[tokio::test]
    async fn tables_made_twice_are_made_once_and_as_specified() {
        let client = client().await;
        for spec in specs(&TableNames::new("twice")) {
            assert!(describe(&client, &spec.name).await.unwrap().is_none());
            assert!(create(&client, &spec).await.unwrap());
            assert!(!create(&client, &spec).await.unwrap());
            let found = wait_active(&client, &spec.name, LIMIT).await.unwrap();
            assert_eq!(differences(&spec, &found), Vec::<String>::new());
            assert!(!holds_data(&client, &spec.name).await.unwrap());
            if let Some(ttl) = spec.ttl {
                // D15: the second call changes nothing.
                assert!(ensure_ttl(&client, &spec.name, ttl).await.unwrap());
                assert!(!ensure_ttl(&client, &spec.name, ttl).await.unwrap());
                let other = ttl_is_on(&client, &spec.name, "other").await;
                assert!(matches!(other, Err(StoreError::Different { .. })));
            }
            assert!(delete(&client, &spec.name, LIMIT).await.unwrap());
            assert!(!delete(&client, &spec.name, LIMIT).await.unwrap());
        }
    }

    fn with_status(status: TableStatus, index: IndexStatus, filling: bool) -> TableDescription {
        let index = aws_sdk_dynamodb::types::GlobalSecondaryIndexDescription::builder()
            .index_name("i")
            .index_status(index)
            .backfilling(filling);
        TableDescription::builder()
            .table_name("t")
            .table_status(status)
            .global_secondary_indexes(index.build())
            .build()
    }

    #[test]
    fn every_status_of_a_table_is_ready_waited_for_or_a_persons_to_mend() {
        use IndexStatus as Index;
        use TableStatus as Table;
        let waits = |status, index, filling, word: &str| match readiness(&with_status(
            status, index, filling,
        )) {
            Readiness::Wait(state) => assert!(state.contains(word), "{state}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            readiness(&with_status(Table::Active, Index::Active, false)),
            Readiness::Ready
        );
        for status in [Table::Creating, Table::Updating, Table::Deleting] {
            let word = status.as_str().to_owned();
            waits(status, Index::Active, false, &word);
        }
        for (index, filling, word) in [
            (Index::Creating, false, "i is CREATING"),
            (
                Index::Creating,
                true,
                "i is CREATING, DynamoDB is filling it",
            ),
            (Index::Updating, false, "UPDATING"),
            (Index::Deleting, false, "DELETING"),
        ] {
            waits(Table::Active, index, filling, word);
        }
        for (status, word) in [
            (Table::InaccessibleEncryptionCredentials, "KMS key"),
            (Table::Archiving, "restore its backup"),
            (Table::Archived, "restore its backup"),
            (Table::ReplicationNotAuthorized, "replicate"),
        ] {
            match readiness(&with_status(status.clone(), Index::Active, false)) {
                Readiness::Never(failure) => {
                    let message = failure.to_string();
                    assert!(message.contains(word) && message.contains(status.as_str()));
                }
                other => panic!("{status}: {other:?}"),
            }
        }
        // None of the SDK's names is left out of this test.
        assert_eq!(Table::values().len(), 8);
        assert_eq!(Index::values().len(), 4);
    }

    fn refusal(code: &str, kind: Kind) -> StoreError {
        StoreError::Request(Box::new(crate::store::error::RequestError {
            kind,
            operation: "UpdateTable",
            table: "t".to_owned(),
            key: None,
            code: code.to_owned(),
            message: String::new(),
            request_id: None,
            throttling: Vec::new(),
        }))
    }

    #[tokio::test]
    async fn a_change_is_repeated_while_the_table_is_busy_and_no_longer_than_the_limit() {
        use std::sync::atomic::{AtomicU32, Ordering};
        for code in [
            "ContinuousBackupsUnavailableException",
            "LimitExceededException",
            "ResourceInUseException",
        ] {
            let sent = AtomicU32::new(0);
            let change = async || match sent.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Err(refusal(code, Kind::Transient)),
                n => Ok(n),
            };
            assert_eq!(repeat_while_busy("t", LIMIT, change).await.unwrap(), 2);
        }
        let sent = AtomicU32::new(0);
        let denied = async || {
            sent.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(refusal("AccessDeniedException", Kind::Denied))
        };
        let error = repeat_while_busy("t", LIMIT, denied)
            .await
            .expect_err("denied");
        assert_eq!(
            (error.kind(), sent.load(Ordering::SeqCst)),
            (Kind::Denied, 1)
        );
        let busy = async || Err::<(), _>(refusal("ResourceInUseException", Kind::Transient));
        let limit = Duration::from_millis(100);
        let error = repeat_while_busy("t", limit, busy).await.expect_err("busy");
        assert!(matches!(error, StoreError::Waited { .. }), "{error}");
        assert!(
            error.to_string().contains("ResourceInUseException"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_table_with_other_keys_or_indexes_says_what_differs() {
        let client = client().await;
        let specs = specs(&TableNames::new("other"));
        let name = specs[0].name.clone();
        // Under the name of raw events, the tables of the others.
        for (made, words) in [
            (
                &specs[1],
                [
                    "the table has the keys (partition_key) instead of (event_id, timestamp)",
                    "index city-timestamp-index is missing",
                ],
            ),
            (
                &specs[3],
                [
                    "the table has the keys (shard, series) instead of (event_id, timestamp)",
                    "index city-timestamp-index is missing",
                ],
            ),
        ] {
            let made = TableSpec {
                name: name.clone(),
                ..made.clone()
            };
            create(&client, &made).await.unwrap();
            let found = wait_active(&client, &name, LIMIT).await.unwrap();
            assert_eq!(differences(&specs[0], &found), words);
            delete(&client, &name, LIMIT).await.unwrap();
        }
        let mut keys_only = specs[0].clone();
        if let Some(index) = &mut keys_only.index {
            index.projection = ProjectionType::KeysOnly;
            index.keys = ("city_shard", None);
        }
        create(&client, &keys_only).await.unwrap();
        let found = wait_active(&client, &name, LIMIT).await.unwrap();
        assert_eq!(
            differences(&specs[0], &found),
            [
                "index city-timestamp-index has the keys (city_shard) instead of (city_shard, timestamp)",
                "index city-timestamp-index holds KEYS_ONLY instead of ALL"
            ]
        );
    }
}
