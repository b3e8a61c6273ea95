//! Tests of the table definitions on the embedded database.

use std::time::Duration;

use aws_sdk_dynamodb::types::{IndexStatus, TableStatus};

use super::*;
use crate::store::embedded;

const LIMIT: Duration = Duration::from_secs(10);

async fn client() -> Client {
    let db = dynoxide::Database::memory().unwrap();
    embedded::client(db).await.unwrap()
}

#[tokio::test]
async fn a_table_is_created_once_and_as_defined() {
    let client = client().await;
    for spec in specs(&TableNames::new("twice")) {
        assert!(describe_table(&client, &spec.name).await.unwrap().is_none());
        assert!(create(&client, &spec).await.unwrap());
        assert!(!create(&client, &spec).await.unwrap());
        let found = wait_active(&client, &spec.name, LIMIT).await.unwrap();
        assert_eq!(differences(&spec, &found), Vec::<String>::new());
        assert!(!holds_data(&client, &spec.name).await.unwrap());
        if let Some(ttl) = spec.ttl {
            // The second call for the same table changes nothing.
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
fn every_status_of_a_table_is_ready_or_passing_or_needs_a_person() {
    use IndexStatus as Index;
    use TableStatus as Table;
    let waits = |status, index, filling, word: &str| match readiness(&with_status(
        status, index, filling,
    )) {
        TableReadiness::Wait(state) => assert!(state.contains(word), "{state}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        readiness(&with_status(Table::Active, Index::Active, false)),
        TableReadiness::Ready
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
            TableReadiness::Never(failure) => {
                let message = failure.to_string();
                assert!(message.contains(word) && message.contains(status.as_str()));
            }
            other => panic!("{status}: {other:?}"),
        }
    }
    // The test includes every status of the SDK. If a new version of the SDK has more statuses, these assertions fail,
    // and the test needs more cases.
    assert_eq!(Table::values().len(), 8);
    assert_eq!(Index::values().len(), 4);
}

fn refusal(code: &str, kind: StoreErrorKind) -> StoreError {
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
async fn a_change_is_repeated_while_the_table_is_busy_until_the_limit() {
    use std::sync::atomic::{AtomicU32, Ordering};
    for code in [
        "ContinuousBackupsUnavailableException",
        "LimitExceededException",
        "ResourceInUseException",
    ] {
        let sent = AtomicU32::new(0);
        let change = async || match sent.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(refusal(code, StoreErrorKind::Transient)),
            n => Ok(n),
        };
        assert_eq!(repeat_while_busy("t", LIMIT, change).await.unwrap(), 2);
    }
    let sent = AtomicU32::new(0);
    let denied = async || {
        sent.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>(refusal("AccessDeniedException", StoreErrorKind::Denied))
    };
    let error = repeat_while_busy("t", LIMIT, denied)
        .await
        .expect_err("denied");
    assert_eq!(
        (error.kind(), sent.load(Ordering::SeqCst)),
        (StoreErrorKind::Denied, 1)
    );
    let busy = async || Err::<(), _>(refusal("ResourceInUseException", StoreErrorKind::Transient));
    let limit = Duration::from_millis(100);
    let error = repeat_while_busy("t", limit, busy).await.expect_err("busy");
    assert!(matches!(error, StoreError::Waited { .. }), "{error}");
    assert!(
        error.to_string().contains("ResourceInUseException"),
        "{error}"
    );
}

#[tokio::test]
async fn a_table_with_other_keys_or_indexes_has_differences() {
    let client = client().await;
    let specs = specs(&TableNames::new("other"));
    let name = specs[0].name.clone();
    // Each case creates a table with the name of the raw events table, but with the keys and indexes of another table.
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
