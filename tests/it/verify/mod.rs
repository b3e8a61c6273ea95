//! Tests of `verify` on an embedded broker and an embedded database.
//!
//! Log and tables agree after a run, also while consumers run. [`damage`] changes the tables and expects each change to
//! be found. [`explained`] tests `verify --explain`.

mod damage;
mod explained;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use aws_sdk_dynamodb::types::AttributeValue;
use citystream::core::audit::{Incomparable, Mismatch, Sums};
use citystream::core::plan::RawRows;
use citystream::exit::Exit;
use citystream::remedy::describe_error;
use citystream::shutdown::Shutdown;
use citystream::telemetry::Metrics;
use citystream::verify::VerifyReport;
use citystream::verify::compare::{CompareOptions, CompareSource, compare};
use dynoxide::Database;
use rdkafka::ClientConfig;

use crate::faults::Faults;
use crate::reference::Said;
use crate::world::{BASE_MS, TOPIC, WAIT_MAX, World, data_lines};

type Item = HashMap<String, AttributeValue>;

pub(crate) const ALL: CompareOptions = CompareOptions {
    from_ms: None,
    until_ms: None,
    raw_ttl_ms: 30 * 86_400_000,
    alert_ttl_ms: None,
    memory_bytes: 64 << 20,
};

pub(crate) fn source(world: &World) -> CompareSource {
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", world.broker.bootstrap_servers());
    CompareSource {
        client: world.client.clone(),
        names: world.names.clone(),
        kafka,
        topic: TOPIC.to_owned(),
        group: "citystream".to_owned(),
    }
}

pub(crate) async fn verify(world: &World, options: &CompareOptions) -> VerifyReport {
    let (metrics, read) = (Metrics::new(), Arc::new(AtomicU64::new(0)));
    let (source, stop) = (source(world), Shutdown::default());
    let compared = compare(&source, options, &metrics, &read, &stop).await;
    compared.unwrap().expect("a report")
}

/// Deletes an item of each table and returns how many differences `verify` finds through `source`. For each difference,
/// `verify` reads the row again by its key.
pub(crate) async fn misses(world: &World, source: &CompareSource) -> u64 {
    for table in world.names.all() {
        let items = world.items(table).await;
        let item = items.iter().find(|item| {
            let shard = item.get("shard").and_then(|v| v.as_s().ok());
            shard.is_none_or(|shard| shard.starts_with("totals#"))
        });
        delete(world, table, item.unwrap()).await;
    }
    let (metrics, read) = (Metrics::new(), Arc::new(AtomicU64::new(0)));
    let compared = compare(source, &ALL, &metrics, &read, &Shutdown::default()).await;
    let report = compared.unwrap().expect("a report");
    report.outcome.difference_count
}

/// Verifies and expects no difference.
pub(crate) async fn agrees(world: &World, options: &CompareOptions) -> VerifyReport {
    let report = verify(world, options).await;
    assert!(report.agrees(), "{:#?}", report.outcome);
    report
}

fn n(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) async fn put(world: &World, table: &str, item: &Item) {
    let put = world.client.put_item().table_name(table);
    put.set_item(Some(item.clone())).send().await.unwrap();
}

pub(crate) async fn delete(world: &World, table: &str, item: &Item) {
    let names = &world.names;
    let key: &[&str] = match table {
        t if t == names.raw => &["event_id", "timestamp"],
        t if t == names.alerts => &["city", "timestamp"],
        t if t == names.aggregations => &["partition_key"],
        _ => &["shard", "series"],
    };
    let key = key.iter().map(|k| ((*k).to_owned(), item[*k].clone()));
    let delete = world.client.delete_item().table_name(table);
    delete.set_key(Some(key.collect())).send().await.unwrap();
}

/// Returns a world in which a consumer has counted the first lines of the data.
async fn counted(lines: usize, raw: RawRows) -> World {
    let world = World::with(Database::memory().unwrap(), 3, 1, raw).await;
    for line in data_lines(lines) {
        let partition = crc32fast::hash(line.as_bytes()) as usize % 3;
        world.line(partition, &line);
    }
    world.send(1, Said::Bad, BASE_MS, Some(b"{}"), &[]);
    world.flush();
    let member = world.member(&["--stop-at-end"], None).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_and_tables_agree_with_little_and_with_much_memory() {
    let world = counted(2_000, RawRows::All).await;
    world.check().await;
    let report = agrees(&world, &ALL).await;
    let want = world.want();
    let all = Sums {
        log: 2_000,
        tables: 2_000,
    };
    assert_eq!(report.events(), all);
    assert_eq!(report.summary(), "log 2,000 = tables 2,000, difference 0");
    let windows = want
        .rows
        .keys()
        .filter(|(_, start)| start.is_some())
        .count();
    let compared = BTreeMap::from([
        ("raw event", 2_000),
        ("alert", u64::try_from(want.alerts.len()).unwrap()),
        ("window", u64::try_from(windows).unwrap()),
        ("totals", u64::try_from(want.rows.len() - windows).unwrap()),
        ("progress item", 3),
    ]);
    assert_eq!(report.outcome.compared, compared);
    assert_eq!((report.seen.rejected, report.seen.unclaimed), (1, 0));
    assert!(report.seen.late > 0, "{:?}", report.seen);
    assert_eq!(report.passes, 1);

    let tight = CompareOptions {
        memory_bytes: 128 << 10,
        ..ALL
    };
    let little = agrees(&world, &tight).await;
    assert_eq!(little.outcome, report.outcome);
    assert!(little.passes > 4, "{} passes", little.passes);
    // The row that makes a slice too large is read before it is cut off.
    assert!(
        little.bytes_peak < (128 << 10) + 2_048,
        "{}",
        little.bytes_peak
    );
    assert!(report.bytes_peak > 4 * little.bytes_peak);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_are_compared_even_when_their_totals_row_is_missing() {
    let world = counted(600, RawRows::All).await;
    let full = agrees(&world, &ALL).await;
    let items = world.items(&world.names.totals).await;
    let totals: Vec<&Item> = items
        .iter()
        .filter(|i| i["shard"].as_s().unwrap().starts_with("totals#"))
        .collect();
    for item in &totals {
        delete(&world, &world.names.totals, item).await;
    }
    for memory_bytes in [64 << 20, 128 << 10] {
        let report = verify(
            &world,
            &CompareOptions {
                memory_bytes,
                ..ALL
            },
        )
        .await;
        let outcome = report.outcome;
        let kinds: Vec<_> = outcome
            .differences
            .iter()
            .map(|d| (d.kind, d.key.kind()))
            .collect();
        assert_eq!(kinds, vec![(Mismatch::Missing, "totals"); totals.len()]);
        assert_eq!(outcome.compared, full.outcome.compared);
        assert_eq!(outcome.windows, full.outcome.windows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_rows_that_the_tables_do_not_keep_are_not_missing() {
    for (raw, rows, alerts) in [(RawRows::Alerts, true, true), (RawRows::None, false, false)] {
        let world = counted(400, raw).await;
        let report = agrees(&world, &ALL).await;
        let compared = report.outcome.compared;
        assert_eq!(compared.contains_key("raw event"), rows, "{compared:?}");
        assert_eq!(compared.contains_key("alert"), alerts, "{compared:?}");
        assert_eq!(report.outcome.totals.tables, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_and_refused_raw_rows_are_not_missing() {
    let world = World::new(1).await;
    for at in 0..30 {
        world.event(0, "NYC", "traffic", 2, BASE_MS + at);
    }
    let line = r#"{"city":"NYC","event_type":"traffic","severity":"high","timestamp":"2013-01-01T06:00:01Z","event_id":"poison"}"#;
    world.line(0, line);
    world.flush();
    let faults = Faults::new(5, 0);
    faults.refuse("poison");
    let member = world.member(&["--stop-at-end"], Some(&faults)).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    let report = agrees(&world, &ALL).await;
    assert_eq!(report.events().tables, 31);

    let raw = world.items(&world.names.raw).await[0].clone();
    delete(&world, &world.names.raw, &raw).await;
    assert_eq!(verify(&world, &ALL).await.outcome.difference_count, 1);
    let short = CompareOptions {
        raw_ttl_ms: 0,
        ..ALL
    };
    let report = agrees(&world, &short).await;
    assert_eq!(
        report.outcome.incomparable,
        BTreeMap::from([(Incomparable::Expired, 1)])
    );

    // A row past its `ttl` counts as deleted even while DynamoDB still holds it.
    let mut expired = raw.clone();
    expired.insert("ttl".to_owned(), n(1_000));
    put(&world, &world.names.raw, &expired).await;
    agrees(&world, &ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_rows_of_the_current_topic_are_compared() {
    let db = Database::memory().unwrap();
    for (city, count) in [("NYC", 40), ("LA", 25)] {
        let world = World::with(db.clone(), 2, 1, RawRows::All).await;
        for at in 0..count {
            let time_ms = BASE_MS + at * 1_000;
            world.event(
                usize::try_from(at % 2).unwrap(),
                "Both",
                "traffic",
                1,
                time_ms,
            );
            world.event(
                usize::try_from(at % 2).unwrap(),
                city,
                "traffic",
                1,
                time_ms,
            );
        }
        world.flush();
        let member = world.member(&["--stop-at-end"], None).await;
        assert_eq!(member.end().await.unwrap(), Exit::Done);
        let report = agrees(&world, &ALL).await;
        assert_eq!(report.seen.unclaimed, 0);
        if city == "LA" {
            // The totals row and the window row of `Both`, and those of `NYC`.
            let left_out = report.outcome.incomparable[&Incomparable::Remade];
            assert!(left_out >= 4, "{:?}", report.outcome);
            assert_eq!(report.events().tables, 25);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_the_brokers_is_reported_with_the_option_to_check() {
    let world = World::new(1).await;
    let mut source = source(&world);
    // The embedded broker does not use TLS.
    source.kafka.set("security.protocol", "ssl");
    let (metrics, read) = (Metrics::new(), Arc::new(AtomicU64::new(0)));
    let compared = compare(&source, &ALL, &metrics, &read, &Shutdown::default()).await;
    let error = compared.unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Settings, "{error:#}");
    let failure = describe_error(&error);
    let (why, remedy) = (failure.why.unwrap(), failure.remedy.unwrap());
    assert!(why.contains("does not speak TLS"), "{why}");
    assert!(remedy.contains("--kafka-auth"), "{remedy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_system_shows_no_false_difference() {
    let world = World::new(3).await;
    let faults = Faults::new(11, 20);
    let args = ["--row-interval", "30ms"];
    let one = world.member(&args, Some(&faults)).await;
    let two = world.member(&args, Some(&faults)).await;
    let lines = data_lines(4_000);
    let (mut sent, mut compared, mut behind) = (0, 0, 0);
    let begun = Instant::now();
    while sent < lines.len() || compared < 10 || behind == 0 {
        assert!(
            begun.elapsed() < WAIT_MAX * 2,
            "{sent} sent, {compared} compared, {behind} behind"
        );
        let next = (sent + 250).min(lines.len());
        for line in &lines[sent..next] {
            let partition = crc32fast::hash(line.as_bytes()) as usize % 3;
            world.line(partition, line);
        }
        sent = next;
        world.flush();
        let report = agrees(&world, &ALL).await;
        compared += 1;
        behind += usize::from(report.seen.unclaimed > 0);
    }
    world.committed("citystream").await;
    let report = agrees(&world, &ALL).await;
    assert_eq!(report.summary(), "log 4,000 = tables 4,000, difference 0");
    for member in [one, two] {
        assert_eq!(member.stop().await.unwrap(), Exit::Done);
    }
}
