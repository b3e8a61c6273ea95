//! Tests of what the program relies on in DynamoDB, through the program's own store.
//!
//! The same tests run on several databases: the embedded one in `tests/it`, DynamoDB Local in `tests/real`, and AWS by
//! hand. A file that includes this module calls [`store_suite!`] with a function that runs `async fn(Client, prefix)`.
//! Each test has its own tables.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use citystream::core::batch::{BATCH_PUTS_MAX, Batch, BatchOutcome};
use citystream::core::clock::UnixMs;
use citystream::core::event::{Event, Offset, Severity};
use citystream::core::keys::{self, CITY_INDEX, TableNames};
use citystream::core::pipeline::Publish;
use citystream::core::plan::RawRows;
use citystream::core::plan::{
    Put, PutTable, RowKey, RowUpdate, StoredEvent, Ticket, UpdateOutcome,
};
use citystream::core::restart::Boundary;
use citystream::core::stretch::Sum;
use citystream::core::watermark::MaxTime;
use citystream::core::window::Rules;
use citystream::store::config::{
    ConfigItem, create_config, grow_shards, new_tables_id, read_config, set_topic,
};
use citystream::store::error::{StoreError, StoreErrorKind};
use citystream::store::reads::{DynamoReads, PageRequest, Range, Reads as _};
use citystream::store::tables::{
    create, delete, describe_table, differences, ensure_ttl, holds_data, specs, ttl_is_on,
    wait_active,
};
use citystream::store::write::Writer;
use citystream::telemetry::Metrics;

/// Defines a `#[test]` for each function of the suite, run by `$run`. With `ignored`, plain `cargo test` skips them.
macro_rules! store_suite {
    ($run:path) => {
        crate::suite::store_suite!(@ any(), $run);
    };
    ($run:path, ignored) => {
        crate::suite::store_suite!(@ all(), $run);
    };
    (@ $ignored:meta, $run:path) => {
        crate::suite::store_suite!(@ $ignored, $run:
            tables_are_made_once_and_are_as_specified
            ttl_is_switched_on_once
            a_batch_of_twenty_five_is_stored_and_one_of_twenty_six_or_with_a_key_twice_is_invalid
            a_put_repeated_changes_nothing
            an_update_adds_once_and_its_repetition_is_fenced
            an_overlapping_stretch_learns_the_fence
            fences_of_two_logs_do_not_meet
            a_row_without_severities_and_counts_of_zero_is_whole
            progress_moves_forward_only
            the_config_item_is_made_once_and_only_grows
            a_missing_table_is_told_from_a_missing_item
            lists_go_on_where_the_last_page_ended
            an_index_is_not_read_consistently
        );
    };
    (@ $ignored:meta, $run:path: $($name:ident)*) => {
        $(
            #[test]
            #[cfg_attr($ignored, ignore = "needs scripts/test-real")]
            fn $name() {
                $run(stringify!($name), crate::suite::$name);
            }
        )*
    };
}
pub(crate) use store_suite;

const TOPIC_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const WAIT_MAX: Duration = Duration::from_secs(60);
/// 2013-01-01T06:00:00Z
const TIME_MS: i64 = 1_357_020_000_000;
const NOW_MS: i64 = 1_760_000_000_000;
const SHARDS: u32 = 4;

struct Store {
    client: Client,
    names: TableNames,
    writer: Writer,
    reads: DynamoReads,
}

fn config() -> ConfigItem {
    ConfigItem {
        rules: Rules::default(),
        shards: SHARDS,
        rules_number: citystream::core::RULES,
        raw: RawRows::All,
        tables_id: new_tables_id(),
        topic: None,
        topic_id: None,
    }
}

impl Store {
    async fn new(client: Client, prefix: &str) -> Store {
        let names = TableNames::new(prefix);
        for spec in specs(&names) {
            create(&client, &spec).await.unwrap();
            wait_active(&client, &spec.name, WAIT_MAX).await.unwrap();
        }
        create_config(&client, &names, &config()).await.unwrap();
        let writer = Writer::new(client.clone(), names.clone(), 86_400_000, Metrics::new());
        writer.set_tables(SHARDS, Rules::default().window_ms);
        Store {
            reads: DynamoReads::new(client.clone(), names.clone(), Metrics::new()),
            client,
            names,
            writer,
        }
    }

    async fn put(&self, table: PutTable, offsets: impl IntoIterator<Item = i64>) -> BatchOutcome {
        let puts = offsets.into_iter().map(put).collect();
        let batch = Batch { id: 1, table, puts };
        self.writer.put(&batch, UnixMs(NOW_MS)).await.0
    }

    async fn update(&self, update: &RowUpdate) -> UpdateOutcome {
        self.writer.update(update, UnixMs(NOW_MS)).await.unwrap().0
    }

    /// Returns the window's row: count, severities, and counts by severity.
    async fn window(&self) -> (u64, Vec<String>, [u64; 4]) {
        let page = self
            .reads
            .aggregations("NYC#traffic".into(), slice(10, None));
        let row = page.await.unwrap().page.items.remove(0);
        (row.event_count, row.severities, row.severity_counts)
    }

    async fn total(&self) -> (u64, u64, [u64; 4]) {
        let totals = self.reads.totals(Some("NYC".into())).await.unwrap();
        assert_eq!(totals.len(), 1, "{totals:?}");
        let total = &totals[0];
        (total.event_count, total.late_count, total.severity_counts)
    }
}

fn slice(limit: usize, after: Option<citystream::store::reads::Position>) -> PageRequest {
    PageRequest {
        range: Range {
            from_ms: UnixMs(0),
            to_ms: UnixMs(i64::MAX),
        },
        limit,
        after,
        // A time to live in the past would remove the rows.
        now_ms: UnixMs(NOW_MS),
    }
}

/// One event per second, each with its own offset.
fn put(offset: i64) -> Put {
    let event = Event {
        city: "NYC".into(),
        event_type: "traffic".into(),
        severity: Severity::High,
        time_ms: UnixMs(TIME_MS + offset * 1_000),
        description: "a jam, \"bad\", São Paulo".into(),
        event_id: None,
        extra: Some(r#"{"speed":1.50}"#.into()),
    };
    Put {
        ticket: Ticket {
            partition: 0,
            assignment: 1,
            seq: offset.unsigned_abs(),
        },
        event: Arc::new(StoredEvent::new(
            event,
            "city-events".into(),
            0,
            Offset(offset),
            false,
            false,
        )),
    }
}

/// Counts the records `[first, next)` of a partition, all of high severity, in a window or in the totals.
fn update(window: bool, partition: i32, first: i64, next: i64) -> RowUpdate {
    let count = (next - first).unsigned_abs();
    RowUpdate {
        partition,
        assignment: 1,
        row_id: 1,
        row: RowKey {
            series: "NYC#traffic".into(),
            window_start_ms: window.then_some(UnixMs(TIME_MS)),
        },
        log_key: keys::log_key(TOPIC_ID, partition).into(),
        first: Offset(first),
        next: Offset(next),
        sum: Sum {
            event_count: count,
            late_count: 0,
            severities: [0, 0, count, 0],
        },
    }
}

pub(crate) async fn tables_are_made_once_and_are_as_specified(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    for spec in specs(&store.names) {
        let found = describe_table(&store.client, &spec.name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(differences(&spec, &found), Vec::<String>::new());
        assert!(!create(&store.client, &spec).await.unwrap(), "it exists");
    }
    // The config item does not count as data.
    for name in store.names.all() {
        assert!(!holds_data(&store.client, name).await.unwrap(), "{name}");
    }
    store.put(PutTable::Raw, 0..1).await;
    store.update(&update(false, 0, 0, 1)).await;
    for name in [&store.names.raw, &store.names.totals] {
        assert!(holds_data(&store.client, name).await.unwrap(), "{name}");
    }
    for name in store.names.all() {
        assert!(delete(&store.client, name, WAIT_MAX).await.unwrap());
        assert!(!delete(&store.client, name, WAIT_MAX).await.unwrap());
        assert!(describe_table(&store.client, name).await.unwrap().is_none());
    }
}

pub(crate) async fn ttl_is_switched_on_once(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    let raw = &store.names.raw;
    assert!(!ttl_is_on(&store.client, raw, "ttl").await.unwrap());
    assert!(ensure_ttl(&store.client, raw, "ttl").await.unwrap());
    assert!(ttl_is_on(&store.client, raw, "ttl").await.unwrap());
    assert!(!ensure_ttl(&store.client, raw, "ttl").await.unwrap());
    // The TTL on another attribute is the operator's decision.
    let error = ensure_ttl(&store.client, raw, "gone_at").await;
    assert!(
        matches!(error, Err(StoreError::Different { .. })),
        "{error:?}"
    );
}

pub(crate) async fn a_batch_of_twenty_five_is_stored_and_one_of_twenty_six_or_with_a_key_twice_is_invalid(
    client: Client,
    prefix: String,
) {
    let store = Store::new(client, &prefix).await;
    let most = i64::try_from(BATCH_PUTS_MAX).unwrap();
    for table in [PutTable::Raw, PutTable::Alerts] {
        let stored = store.put(table, 0..most).await;
        assert_eq!(
            stored,
            BatchOutcome::Stored {
                unprocessed: vec![]
            }
        );
        assert_eq!(store.put(table, 0..=most).await, BatchOutcome::Invalid);
        assert_eq!(store.put(table, [7, 8, 7]).await, BatchOutcome::Invalid);
    }
    // An invalid batch stores nothing.
    let events = store
        .reads
        .events("NYC".into(), slice(100, None))
        .await
        .unwrap();
    assert_eq!(events.items.len(), BATCH_PUTS_MAX);
}

pub(crate) async fn a_put_repeated_changes_nothing(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    for _ in 0..3 {
        store.put(PutTable::Raw, 0..5).await;
        store.put(PutTable::Alerts, 0..5).await;
    }
    let events = store
        .reads
        .events("NYC".into(), slice(100, None))
        .await
        .unwrap();
    assert_eq!(events.items.len(), 5);
    let newest = &events.items[0];
    assert_eq!(newest.event_id, "city-events-0-4");
    assert_eq!(newest.timestamp, "2013-01-01T06:00:04.000Z");
    assert_eq!(newest.description, "a jam, \"bad\", São Paulo");
    assert_eq!(newest.extra.as_deref(), Some(r#"{"speed":1.50}"#));
    let alerts = store
        .reads
        .alerts(None, Some(Severity::High), slice(100, None));
    assert_eq!(alerts.await.unwrap().items.len(), 5);
}

pub(crate) async fn an_update_adds_once_and_its_repetition_is_fenced(
    client: Client,
    prefix: String,
) {
    let store = Store::new(client, &prefix).await;
    for window in [true, false] {
        let update = update(window, 0, 10, 15);
        assert_eq!(store.update(&update).await, UpdateOutcome::Counted);
        let again = store.update(&update).await;
        assert_eq!(again, UpdateOutcome::Fenced(Offset(15)));
    }
    assert_eq!(store.window().await, (5, vec!["high".into()], [0, 0, 5, 0]));
    assert_eq!(store.total().await, (5, 0, [0, 0, 5, 0]));
}

pub(crate) async fn an_overlapping_stretch_learns_the_fence(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    for (first, next, outcome) in [
        (0, 10, UpdateOutcome::Counted),
        (5, 20, UpdateOutcome::Fenced(Offset(10))),
        (9, 10, UpdateOutcome::Fenced(Offset(10))),
        (10, 20, UpdateOutcome::Counted),
        (30, 40, UpdateOutcome::Counted),
        (20, 30, UpdateOutcome::Fenced(Offset(40))),
    ] {
        let found = store.update(&update(true, 0, first, next)).await;
        assert_eq!(found, outcome, "[{first}, {next})");
    }
    assert_eq!(store.window().await.0, 30);
}

pub(crate) async fn fences_of_two_logs_do_not_meet(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    let mut other_log = update(true, 0, 0, 4);
    other_log.log_key = keys::log_key("-_BBBBBBBBBBBBBBBBBBBB", 0).into();
    for update in [update(true, 0, 100, 110), update(true, 11, 0, 3), other_log] {
        assert_eq!(store.update(&update).await, UpdateOutcome::Counted);
    }
    assert_eq!(store.window().await.0, 17);
}

pub(crate) async fn a_row_without_severities_and_counts_of_zero_is_whole(
    client: Client,
    prefix: String,
) {
    let store = Store::new(client, &prefix).await;
    // A late event is only in the totals, where nothing else was counted.
    let mut late = update(false, 0, 0, 1);
    late.sum = Sum {
        event_count: 0,
        late_count: 1,
        severities: [1, 0, 0, 0],
    };
    assert_eq!(store.update(&late).await, UpdateOutcome::Counted);
    assert_eq!(store.total().await, (0, 1, [1, 0, 0, 0]));
    let item = store
        .client
        .get_item()
        .table_name(&store.names.totals)
        .key("shard", AttributeValue::S("totals#14".into()))
        .key("series", AttributeValue::S("NYC#traffic".into()));
    let item = item.send().await.unwrap().item.unwrap();
    for name in [
        "event_count",
        "severity_medium",
        "severity_high",
        "severity_critical",
    ] {
        let zero = AttributeValue::N("0".into());
        assert_eq!(item.get(name), Some(&zero), "ADD of 0 makes the attribute");
    }
}

/// Returns different sums for each offset.
fn sums(next: i64) -> Option<Sum> {
    let events = next.unsigned_abs();
    Sum::checked([events, 1, 0, events, 1, 0])
}

pub(crate) async fn progress_moves_forward_only(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    let log_key = keys::log_key(TOPIC_ID, 3);
    let publish = |next: i64, max_ms: Option<i64>| Publish {
        partition: 3,
        assignment: 1,
        log_key: log_key.as_str().into(),
        tables_id: "D".into(),
        boundary: Boundary {
            next: Offset(next),
            max: MaxTime::new(max_ms.map(UnixMs)),
            sums: max_ms.and_then(|_| sums(next)),
        },
        watermark_ms: max_ms.map(|ms| UnixMs(ms - 600_000)),
    };
    let writer = &store.writer;
    // A progress item that no start has created must not be moved: in recreated tables it would hide all that they
    // lack.
    assert!(!writer.publish_progress(&publish(7, None)).await.unwrap());
    assert_eq!(writer.read_progress(&log_key).await.unwrap(), None);
    for (create, next, max_ms, stands) in [
        (true, 0, None, (0, None)),
        (true, 9, Some(TIME_MS), (0, None)),
        (false, 10, Some(TIME_MS), (10, Some(TIME_MS))),
        (false, 5, Some(TIME_MS - 1), (10, Some(TIME_MS))),
        (false, 11, Some(TIME_MS + 5), (11, Some(TIME_MS + 5))),
    ] {
        if create {
            writer
                .create_progress(&publish(next, max_ms))
                .await
                .unwrap();
        } else {
            assert!(
                writer
                    .publish_progress(&publish(next, max_ms))
                    .await
                    .unwrap()
            );
        }
        let found = writer.read_progress(&log_key).await.unwrap().unwrap();
        assert_eq!(found.next, Offset(stands.0), "{next}");
        assert_eq!(found.max, MaxTime::new(stands.1.map(UnixMs)), "{next}");
        assert_eq!(found.sums, stands.1.and_then(|_| sums(stands.0)), "{next}");
    }
    // Unknown sums replace known ones.
    assert!(writer.publish_progress(&publish(12, None)).await.unwrap());
    let found = writer.read_progress(&log_key).await.unwrap().unwrap();
    assert_eq!((found.next, found.sums), (Offset(12), None));
}

pub(crate) async fn the_config_item_is_made_once_and_only_grows(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    let (client, names) = (&store.client, &store.names);
    let first = read_config(client, names).await.unwrap().unwrap();
    assert!(!create_config(client, names, &config()).await.unwrap());
    assert!(grow_shards(client, names, 8).await.unwrap());
    assert!(!grow_shards(client, names, 8).await.unwrap());
    assert!(!grow_shards(client, names, 2).await.unwrap());
    let newer = "-_BBBBBBBBBBBBBBBBBBBB";
    for (id, known) in [(TOPIC_ID, None), (newer, Some(TOPIC_ID))] {
        let set = set_topic(client, names, "city-events", id, known).await;
        set.unwrap();
    }
    // DynamoDB refuses a delayed request that read no topic id.
    let delayed = set_topic(client, names, "city-events", TOPIC_ID, None).await;
    let delayed = delayed.expect_err("another id is newer");
    assert_eq!(delayed.kind(), StoreErrorKind::Conflict, "{delayed}");
    let error = set_topic(client, names, "others", TOPIC_ID, None).await;
    assert!(
        matches!(error, Err(StoreError::Settings { .. })),
        "{error:?}"
    );
    let now = read_config(client, names).await.unwrap().unwrap();
    assert_eq!(now.tables_id, first.tables_id);
    assert_eq!((now.shards, now.topic.as_deref()), (8, Some("city-events")));
    assert_eq!(now.topic_id.as_deref(), Some(newer));
}

pub(crate) async fn a_missing_table_is_told_from_a_missing_item(client: Client, prefix: String) {
    let names = TableNames::new(&prefix);
    let writer = Writer::new(client.clone(), names.clone(), 86_400_000, Metrics::new());
    let error = read_config(&client, &names).await.expect_err("no table");
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    let error = writer.read_progress("x#0").await.expect_err("no table");
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    let batch = Batch {
        id: 1,
        table: PutTable::Raw,
        puts: vec![put(0)],
    };
    let (outcome, error) = writer.put(&batch, UnixMs(NOW_MS)).await;
    assert_eq!(outcome, BatchOutcome::Failed { throttled: false });
    assert_eq!(error.unwrap().kind(), StoreErrorKind::NotFound);
    let (outcome, error) = writer
        .update(&update(true, 0, 0, 1), UnixMs(NOW_MS))
        .await
        .unwrap();
    assert!(matches!(
        outcome,
        UpdateOutcome::Unknown | UpdateOutcome::Refused
    ));
    assert_eq!(error.unwrap().kind(), StoreErrorKind::NotFound);
    let store = Store::new(client, &prefix).await;
    assert_eq!(store.writer.read_progress("x#0").await.unwrap(), None);
}

pub(crate) async fn lists_go_on_where_the_last_page_ended(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    for at in 0..8 {
        store.put(PutTable::Raw, at * 25..(at + 1) * 25).await;
        store.put(PutTable::Alerts, at * 25..(at + 1) * 25).await;
    }
    let (mut after, mut offsets) = (None, Vec::new());
    loop {
        let page = store
            .reads
            .events("NYC".into(), slice(30, after))
            .await
            .unwrap();
        offsets.extend(page.items.iter().map(|e| e.event_id.clone()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..200)
        .rev()
        .map(|n| format!("city-events-0-{n}"))
        .collect();
    assert_eq!(offsets, expected);
    let (mut after, mut count) = (None, 0);
    loop {
        let page = store
            .reads
            .alerts(None, None, slice(77, after))
            .await
            .unwrap();
        count += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(count, 200);
}

pub(crate) async fn an_index_is_not_read_consistently(client: Client, prefix: String) {
    let store = Store::new(client, &prefix).await;
    // These names are reserved in DynamoDB. The program uses a `#` placeholder for each.
    let query = |consistent: bool, condition: &str| {
        let query = store
            .client
            .query()
            .table_name(&store.names.raw)
            .index_name(CITY_INDEX)
            .key_condition_expression(condition)
            .expression_attribute_values(":city", AttributeValue::S("NYC#0".into()))
            .expression_attribute_values(":from", AttributeValue::S("2013".into()))
            .consistent_read(consistent);
        if condition.contains("#t") {
            query.expression_attribute_names("#t", "timestamp")
        } else {
            query
        }
    };
    let fine = "city_shard = :city AND #t > :from";
    query(false, fine).send().await.unwrap();
    for (consistent, condition) in [
        (true, fine),
        (false, "city_shard = :city AND timestamp > :from"),
    ] {
        let error = query(consistent, condition)
            .send()
            .await
            .expect_err(condition);
        let error = StoreError::from_sdk("Query", &store.names.raw, error);
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
    }
}
