//! `verify` on an embedded broker and an embedded database: log and tables that agree, each kind of
//! damage by its name, and no false alarm while consumers run.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_sdk_dynamodb::types::AttributeValue;
use citystream::core::audit::{Incomparable, Kind, Sums};
use citystream::exit::Exit;
use citystream::settings::{RawRows, VerifyOutput, WindowName};
use citystream::shutdown::Shutdown;
use citystream::telemetry::Metrics;
use citystream::verify::Report;
use citystream::verify::compare::{Options, Source, compare};
use citystream::verify::explain::explain;
use dynoxide::Database;
use rdkafka::ClientConfig;

use crate::faults::Faults;
use crate::reference::Said;
use crate::world::{BASE_MS, QUICK, TOPIC, WAIT_MAX, World, data_lines};

type Item = HashMap<String, AttributeValue>;

const ALL: Options = Options {
    from_ms: None,
    until_ms: None,
    raw_ttl_ms: 30 * 86_400_000,
    alert_ttl_ms: None,
    memory_bytes: 64 << 20,
};

pub(crate) fn source(world: &World) -> Source {
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", world.broker.bootstrap_servers());
    Source {
        client: world.client.clone(),
        names: world.names.clone(),
        kafka,
        topic: TOPIC.to_owned(),
        group: "citystream".to_owned(),
    }
}

async fn verify(world: &World, options: &Options) -> Report {
    let (metrics, read) = (Metrics::new(), Arc::new(AtomicU64::new(0)));
    let (source, stop) = (source(world), Shutdown::new());
    let compared = compare(&source, options, &metrics, &read, &stop).await;
    compared.unwrap().expect("nobody stopped it")
}

/// Takes an item from each table, and returns how many are missed: what differs is read once more by its
/// key.
pub(crate) async fn misses(world: &World, source: &Source) -> u64 {
    for table in world.names.all() {
        let items = world.items(table).await;
        let item = items.iter().find(|item| {
            let shard = item.get("shard").and_then(|v| v.as_s().ok());
            shard.is_none_or(|shard| shard.starts_with("totals#"))
        });
        delete(world, table, item.unwrap()).await;
    }
    let (metrics, read) = (Metrics::new(), Arc::new(AtomicU64::new(0)));
    let compared = compare(source, &ALL, &metrics, &read, &Shutdown::new()).await;
    let report = compared.unwrap().expect("nobody stopped it");
    report.outcome.difference_count
}

/// Verifies, and wants no difference.
async fn agrees(world: &World, options: &Options) -> Report {
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

async fn put(world: &World, table: &str, item: &Item) {
    let put = world.client.put_item().table_name(table);
    put.set_item(Some(item.clone())).send().await.unwrap();
}

async fn delete(world: &World, table: &str, item: &Item) {
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

/// A world with the first lines of the data, counted.
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

    let tight = Options {
        memory_bytes: 128 << 10,
        ..ALL
    };
    let little = agrees(&world, &tight).await;
    assert_eq!(little.outcome, report.outcome);
    assert!(little.passes > 4, "{} passes", little.passes);
    // The last row that comes in makes the slice too large, and is cut off.
    assert!(
        little.bytes_peak < (128 << 10) + 2_048,
        "{}",
        little.bytes_peak
    );
    assert!(report.bytes_peak > 4 * little.bytes_peak);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_damage_is_found_and_named() {
    let world = counted(1_200, RawRows::All).await;
    let names = world.names.clone();
    let of = |series: &str| {
        let series = series.to_owned();
        move |item: &&Item| item.get("series").is_some_and(|v| *v == s(&series))
    };
    let raw = world.items(&names.raw).await[7].clone();
    let alert = world.items(&names.alerts).await[3].clone();
    let windows = world.items(&names.aggregations).await;
    let window = windows.iter().find(of("NYC#traffic")).unwrap().clone();
    let totals = world.items(&names.totals).await;
    let total = totals.iter().find(of("NYC#traffic")).unwrap().clone();
    let fence = window.keys().find(|k| k.starts_with("next#")).unwrap();
    let topic_id = fence.split('#').nth(1).unwrap().to_owned();

    let with = |item: &Item, changes: &[(&str, AttributeValue)]| {
        let mut item = item.clone();
        for (name, value) in changes {
            item.insert((*name).to_owned(), value.clone());
        }
        item
    };
    let count = |item: &Item, name: &str| -> i64 { item[name].as_n().unwrap().parse().unwrap() };
    let once_more = n(count(&window, "event_count") + 1);
    let fence_next = count(&window, fence);
    let start = window["window_start"].as_s().unwrap().clone();
    let invented = "NYC#traffic#2013-01-01T00:00:00Z";
    let extra_window = with(
        &window,
        &[
            ("partition_key", s(invented)),
            ("window_start", s("2013-01-01T00:00:00Z")),
            ("window_end", s("2013-01-01T00:05:00Z")),
        ],
    );
    // Table, what stands there, what is put instead (none: deleted), kind, name of the row, words.
    type Damage<'a> = (
        &'a str,
        &'a String,
        Option<Item>,
        Option<Item>,
        Kind,
        &'a str,
        &'a str,
    );
    let damages: Vec<Damage<'_>> = vec![
        (
            "a raw event deleted",
            &names.raw,
            Some(raw.clone()),
            None,
            Kind::Missing,
            "raw event",
            "the log has it at",
        ),
        (
            "a raw event changed",
            &names.raw,
            Some(raw.clone()),
            Some(with(&raw, &[("severity", s("none"))])),
            Kind::Wrong,
            "raw event",
            "something else",
        ),
        (
            "a raw event made late",
            &names.raw,
            Some(raw.clone()),
            Some(with(&raw, &[("late", AttributeValue::Bool(true))])),
            Kind::Wrong,
            "raw event",
            "something else",
        ),
        (
            "a raw event invented",
            &names.raw,
            None,
            Some(with(&raw, &[("event_id", s("invented"))])),
            Kind::Extra,
            "raw event",
            "no such event",
        ),
        (
            "an alert deleted",
            &names.alerts,
            Some(alert.clone()),
            None,
            Kind::Missing,
            "alert",
            "the log has it at",
        ),
        (
            "an alert invented",
            &names.alerts,
            None,
            Some(with(
                &alert,
                &[("timestamp", s("2013-01-01T07:00:00.000Z#invented"))],
            )),
            Kind::Extra,
            "alert",
            "no such event",
        ),
        (
            "a count raised",
            &names.aggregations,
            Some(window.clone()),
            Some(with(&window, &[("event_count", once_more)])),
            Kind::Wrong,
            "window",
            "event_count is",
        ),
        (
            "a severity lowered",
            &names.aggregations,
            Some(window.clone()),
            Some(with(&window, &[("severity_low", n(-1))])),
            Kind::Wrong,
            "window",
            "severity_low is -1",
        ),
        (
            "a window deleted",
            &names.aggregations,
            Some(window.clone()),
            None,
            Kind::Missing,
            "window",
            "the log has",
        ),
        (
            "a window invented",
            &names.aggregations,
            None,
            Some(extra_window),
            Kind::Extra,
            "window",
            "by the log 0",
        ),
        (
            "a fence pushed on",
            &names.aggregations,
            Some(window.clone()),
            Some(with(&window, &[(fence.as_str(), n(fence_next + 1))])),
            Kind::Fence,
            "window",
            "no record of it",
        ),
        (
            "a fence of another partition",
            &names.aggregations,
            Some(window.clone()),
            Some(with(
                &window,
                &[
                    (&format!("next#{topic_id}#77"), n(5)),
                    (&format!("first#{topic_id}#77"), n(4)),
                ],
            )),
            Kind::Fence,
            "window",
            "partition 77",
        ),
        (
            "half a fence",
            &names.aggregations,
            Some(window.clone()),
            Some(with(&window, &[(&format!("next#{topic_id}#77"), n(5))])),
            Kind::Wrong,
            "window",
            "broken",
        ),
        (
            "totals changed",
            &names.totals,
            Some(total.clone()),
            Some(with(&total, &[("late_count", n(1_000))])),
            Kind::Wrong,
            "totals",
            "late_count is 1000",
        ),
        (
            "totals deleted",
            &names.totals,
            Some(total.clone()),
            None,
            Kind::Missing,
            "totals",
            "the log has",
        ),
        (
            "totals invented",
            &names.totals,
            None,
            Some(with(
                &total,
                &[
                    ("shard", s("totals#3")),
                    ("series", s("Nowhere#traffic")),
                    ("city", s("Nowhere")),
                ],
            )),
            Kind::Extra,
            "totals",
            "by the log 0",
        ),
    ];
    for (what, table, before, after, kind, row, words) in damages {
        match (&before, &after) {
            (_, Some(after)) => put(&world, table, after).await,
            (Some(before), None) => delete(&world, table, before).await,
            (None, None) => unreachable!("nothing is no damage"),
        }
        let report = verify(&world, &ALL).await;
        let found = &report.outcome.differences;
        assert_eq!(found.len(), 1, "{what}: {found:#?}");
        let got = (found[0].kind, found[0].key.kind());
        assert_eq!(got, (kind, row), "{what}: {}", found[0].detail);
        assert!(
            found[0].detail.contains(words),
            "{what}: {}",
            found[0].detail
        );
        assert!(!report.agrees());
        match (&before, &after) {
            (Some(before), _) => put(&world, table, before).await,
            (None, Some(after)) => delete(&world, table, after).await,
            (None, None) => {}
        }
    }
    agrees(&world, &ALL).await;

    // What lies outside the range is not compared.
    delete(&world, &names.aggregations, &window).await;
    let start_ms: jiff::Timestamp = start.parse().unwrap();
    let after = Options {
        from_ms: Some(start_ms.as_millisecond() + 1),
        ..ALL
    };
    let report = agrees(&world, &after).await;
    assert!(
        report.outcome.compared["window"] > 0,
        "{:?}",
        report.outcome.compared
    );
    let until = Options {
        until_ms: Some(start_ms.as_millisecond() + 1),
        ..ALL
    };
    let report = verify(&world, &until).await;
    let Sums { log, tables } = report.events();
    assert_eq!(
        log - tables,
        count(&window, "event_count"),
        "{}",
        report.summary()
    );
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
            &Options {
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
        assert_eq!(kinds, vec![(Kind::Missing, "totals"); totals.len()]);
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
    let short = Options {
        raw_ttl_ms: 0,
        ..ALL
    };
    let report = agrees(&world, &short).await;
    assert_eq!(
        report.outcome.incomparable,
        BTreeMap::from([(Incomparable::Expired, 1)])
    );

    // One that is still there, and past its time, is as good as gone.
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
            // Totals and window of both logs, and of the first alone.
            let left_out = report.outcome.incomparable[&Incomparable::Remade];
            assert!(left_out >= 4, "{:?}", report.outcome);
            assert_eq!(report.events().tables, 25);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_system_shows_no_false_difference() {
    let world = World::new(3).await;
    let faults = Faults::new(11, 20);
    let args = [&QUICK[..], &["--row-interval", "30ms"]].concat();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_explained_record_by_record() {
    let world = World::new(1).await;
    world.event(0, "NYC", "traffic", 2, BASE_MS);
    world.event(0, "NYC", "weather", 2, BASE_MS + 1_000);
    let bad = r#"{"city":"NYC","event_type":"traffic","severity":"awful","timestamp":"2013-01-01T06:01:00Z"}"#;
    world.send(0, Said::Bad, BASE_MS, Some(bad.as_bytes()), &[]);
    let other = r#"{"city":"LA","event_type":"traffic","severity":"awful","timestamp":"2013-01-01T06:01:00Z"}"#;
    world.send(0, Said::Bad, BASE_MS, Some(other.as_bytes()), &[]);
    world.event(0, "NYC", "traffic", 0, BASE_MS + 900_000);
    world.event(0, "NYC", "traffic", 3, BASE_MS + 2_000);
    world.flush();
    let member = world.member(&["--stop-at-end"], None).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    let window = || WindowName {
        city: "NYC".to_owned(),
        event_type: "traffic".to_owned(),
        start_ms: BASE_MS,
    };
    let told = async |window: WindowName, output| {
        let out: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (metrics, stop) = (Metrics::new(), Shutdown::new());
        let pipe = Arc::clone(&out);
        let exit = explain(&source(&world), window, output, pipe, &metrics, &stop).await;
        let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        (exit, text)
    };
    let (exit, text) = told(window(), VerifyOutput::Text).await;
    assert_eq!(exit.unwrap(), Exit::Done);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("partition 0  offset 0         counted"),
        "{text}"
    );
    assert!(lines[1].contains("rejected  (bad_severity"), "{text}");
    assert!(
        lines[2].contains("offset 5") && lines[2].contains("late"),
        "{text}"
    );
    assert!(
        lines[2].contains("2013-01-01T06:05:00.000Z by the record at offset 4"),
        "{text}"
    );
    assert_eq!(lines[3], "window NYC#traffic#2013-01-01T06:00:00Z");
    assert!(
        text.contains("fence of partition 0: first 0, next 1"),
        "{text}"
    );
    assert!(text.ends_with("log and tables agree\n"), "{text}");

    let (_, json) = told(window(), VerifyOutput::Json).await;
    let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last["log"]["event_count"], 1, "{last}");
    assert_eq!(
        (&last["late"], &last["rejected"]),
        (&1.into(), &1.into()),
        "{last}"
    );

    let windows = world.items(&world.names.aggregations).await;
    let row = windows
        .iter()
        .find(|i| i["partition_key"] == s("NYC#traffic#2013-01-01T06:00:00Z"));
    delete(&world, &world.names.aggregations, row.unwrap()).await;
    let (exit, text) = told(window(), VerifyOutput::Text).await;
    assert_eq!(exit.unwrap(), Exit::Failed, "{text}");
    assert!(text.contains("there is no such row"), "{text}");

    for (city, event_type, start_ms, hint) in [
        ("NYC", "trafic", BASE_MS, "did you mean NYC#traffic?"),
        ("NYC", "weather", 0, "NYC#weather has events, in other"),
        ("Atlantis", "tides", BASE_MS, "neither log nor tables"),
    ] {
        let unheard_of = WindowName {
            city: city.to_owned(),
            event_type: event_type.to_owned(),
            start_ms,
        };
        let (exit, text) = told(unheard_of.clone(), VerifyOutput::Text).await;
        assert_eq!(exit.unwrap(), Exit::Failed, "{text}");
        assert!(
            text.contains("neither log nor tables") && text.contains(hint),
            "{text}"
        );
        let (exit, json) = told(unheard_of, VerifyOutput::Json).await;
        assert_eq!(exit.unwrap(), Exit::Failed, "{json}");
        assert!(json.contains(r#""verdict":"no_such_row""#), "{json}");
    }

    let crooked = WindowName {
        start_ms: BASE_MS + 1_000,
        ..window()
    };
    let (exit, _) = told(crooked, VerifyOutput::Text).await;
    let error = exit.expect_err("no window starts there");
    assert_eq!(Exit::of(&error), Exit::Settings);
    assert!(
        error.to_string().contains("2013-01-01T06:00:00Z"),
        "{error}"
    );
}
