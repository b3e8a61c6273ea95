//! Hours and days that consumers roll up, on an embedded broker and an embedded database.
//!
//! Each test compares the rows with a plain fold over the windows that the tables hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use citystream::core::audit::Mismatch;
use citystream::core::clock::UnixMs;
use citystream::core::plan::RawRows;
use citystream::core::rollup::{DAY_MS, HOUR_MS, RollupSeries};
use citystream::core::time::{format_seconds, parse_timestamp};
use citystream::exit::Exit;
use citystream::store::embedded::embedded;
use citystream::store::reads::{DynamoReads, Range, Reads as _, RolledUp};
use citystream::telemetry::{Metrics, unix_ms};
use dynoxide::Database;

use crate::faults::Faults;
use crate::faulty;
use crate::member::Member;
use crate::reference::Said;
use crate::snapshot::{n, s};
use crate::verify::{ALL, agrees, delete, put, verify};
use crate::world::{BASE_MS, World, data_lines};

type Item = HashMap<String, AttributeValue>;

/// Counts by severity, by the row's `shard` and start.
type Rows = BTreeMap<(String, String), [u64; 4]>;

const ALWAYS: Range = Range {
    from_ms: UnixMs(0),
    to_ms: UnixMs(i64::MAX),
};

const SEVERITIES: [&str; 4] = [
    "severity_low",
    "severity_medium",
    "severity_high",
    "severity_critical",
];

fn severities(item: &Item) -> [u64; 4] {
    SEVERITIES.map(|name| n(item, name))
}

/// Returns the rows of hours and days that end at or before `until_ms`.
async fn rows(world: &World, until_ms: i64) -> Rows {
    let mut out = Rows::new();
    for item in world.items(&world.names.totals).await {
        let shard = s(&item, "shard");
        if !shard.starts_with("hour#") && !shard.starts_with("day#") {
            continue;
        }
        let start = s(&item, "series");
        assert_eq!(s(&item, "window_start"), start);
        let end_ms = parse_timestamp(&s(&item, "window_end")).unwrap().0;
        let length_ms = if shard.starts_with("day#") {
            DAY_MS
        } else {
            HOUR_MS
        };
        assert_eq!(end_ms - parse_timestamp(&start).unwrap().0, length_ms);
        let counts = severities(&item);
        assert_eq!(n(&item, "event_count"), counts.iter().sum::<u64>());
        if end_ms <= until_ms {
            out.insert((shard, start), counts);
        }
    }
    out
}

/// Returns what these rows must be, by a fold over the windows.
async fn want(world: &World, until_ms: i64) -> Rows {
    let mut out = Rows::new();
    for item in world.items(&world.names.aggregations).await {
        let start_ms = parse_timestamp(&s(&item, "window_start")).unwrap().0;
        for (grain, length_ms) in [("hour", HOUR_MS), ("day", DAY_MS)] {
            let from_ms = start_ms / length_ms * length_ms;
            if from_ms + length_ms > until_ms {
                continue;
            }
            for city in [s(&item, "city"), "*".to_owned()] {
                let shard = format!("{grain}#{city}#{}", s(&item, "event_type"));
                let row = out
                    .entry((shard, format_seconds(UnixMs(from_ms))))
                    .or_default();
                for (sum, count) in row.iter_mut().zip(severities(&item)) {
                    *sum += count;
                }
            }
        }
    }
    out
}

/// Waits until everything before `until_ms` is rolled up, and compares the rows.
async fn check(world: &World, member: &Member, until_ms: i64) {
    let is_there = |m: &Member| m.metrics.rollups_until_seconds.get() == until_ms / 1_000;
    member.until("all hours are rolled up", is_there).await;
    assert_eq!(rows(world, until_ms).await, want(world, until_ms).await);
}

/// Sends the first lines of the data to the first three partitions. Returns before which hour all hours are final.
fn send(world: &World, lines: usize) -> i64 {
    let mut max_ms = [0; 3];
    for line in data_lines(lines) {
        let partition = crc32fast::hash(line.as_bytes()) as usize % 3;
        world.line(partition, &line);
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        let time_ms = parse_timestamp(event["timestamp"].as_str().unwrap())
            .unwrap()
            .0;
        max_ms[partition] = max_ms[partition].max(time_ms);
    }
    world.flush();
    let least = max_ms.iter().min().unwrap() - 10 * 60_000;
    least - least % HOUR_MS
}

fn reads(world: &World) -> DynamoReads {
    DynamoReads::new(world.client.clone(), world.names.clone(), Metrics::new())
}

/// A range cuts by starts, and the mark cuts what is not whole.
async fn ranges_and_the_mark_cut_hours(
    reads: &DynamoReads,
    series: Vec<RollupSeries>,
    rolled_up: RolledUp,
) {
    let from_ms = BASE_MS + HOUR_MS;
    let some = Range {
        from_ms: UnixMs(from_ms),
        to_ms: UnixMs(from_ms + 2 * HOUR_MS),
    };
    let some = reads.hours(series, some, rolled_up).await.unwrap();
    assert!(
        some.iter()
            .all(|hour| (0..2 * HOUR_MS).contains(&(hour.start_ms.0 - from_ms)))
    );
    assert!(!some.is_empty());
    let early = RolledUp {
        until_ms: UnixMs(BASE_MS),
        ..rolled_up
    };
    let nyc = vec![RollupSeries::of("NYC#traffic").unwrap()];
    assert!(
        reads
            .hours(nyc.clone(), ALWAYS, early)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        !reads
            .hours(nyc, ALWAYS, rolled_up)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_and_days_are_the_sums_of_their_windows_and_readers_find_them() {
    // The fourth partition has no records.
    let world = World::new(4).await;
    let until_ms = send(&world, 6_000);
    let member = world.member_rolling(None).await;
    check(&world, &member, until_ms).await;
    assert!(until_ms > BASE_MS + 5 * DAY_MS, "{until_ms}");
    let report = agrees(&world, &ALL).await;
    let all = rows(&world, i64::MAX).await;
    let count = |start: &str| {
        let keys = all.keys().filter(|(shard, _)| shard.starts_with(start));
        Some(u64::try_from(keys.count()).unwrap())
    };
    let compared = &report.outcome.compared;
    assert_eq!(compared.get("hour").copied(), count("hour#"));
    assert_eq!(compared.get("day").copied(), count("day#"));

    let (reads, now_ms) = (reads(&world), unix_ms());
    let rolled_up = reads.rolled_up(now_ms).await.unwrap();
    assert_eq!(
        (rolled_up.until_ms, rolled_up.is_settled),
        (UnixMs(until_ms), false)
    );
    let later = reads.rolled_up(now_ms + 61_000).await.unwrap();
    assert!(later.is_settled);
    let kinds = ["traffic", "weather", "incident"];
    let series: Vec<RollupSeries> = kinds.map(RollupSeries::all_cities).to_vec();
    let hours = reads
        .hours(series.clone(), ALWAYS, rolled_up)
        .await
        .unwrap();
    let days = reads.days(series.clone(), ALWAYS, later).await.unwrap();
    let by_hour: u64 = hours.iter().flat_map(|hour| hour.counts).sum();
    let wanted = want(&world, until_ms).await;
    let in_all = |grain: &str| -> u64 {
        let rows = wanted
            .iter()
            .filter(|((shard, _), _)| shard.starts_with(grain));
        rows.flat_map(|(_, counts)| counts).sum()
    };
    assert_eq!(by_hour, in_all("hour#*#"));
    let mut of_days = 0;
    for day in &days {
        for (hour, counts) in (0..).zip(day.hours) {
            of_days += counts.iter().sum::<u64>();
            let start_ms = day.start_ms + hour * HOUR_MS;
            let same = |h: &&citystream::store::reads::HourItem| {
                h.series == day.series && h.start_ms == start_ms
            };
            let stored = hours.iter().find(same).map_or([0; 4], |hour| hour.counts);
            assert_eq!(counts, stored);
        }
    }
    assert_eq!(of_days, in_all("day#*#"));
    ranges_and_the_mark_cut_hours(&reads, series, rolled_up).await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
}

/// Sends a late event to each partition. A consumer publishes the progress of a partition after a commit. If that write
/// was lost with its consumer, an idle partition publishes again only after minutes.
fn wake(world: &World, until_ms: i64) {
    for partition in 0..3 {
        world.event(partition, "NYC", "traffic", 0, until_ms - HOUR_MS);
    }
    world.flush();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_die_under_faults_leave_rows_that_the_next_one_completes() {
    let world = World::new(3).await;
    let until_ms = send(&world, 1_500);
    for seed in 0..4 {
        let faults = Faults::new(seed, 10);
        let http = faulty::wrap(&faults, embedded(world.database()));
        let member = world.member_rolling(Some(http)).await;
        wake(&world, until_ms);
        let written = |m: &Member| m.metrics.rollup_rows.get() >= 20 * (seed + 1);
        let until = |m: &Member| m.metrics.rollups_until_seconds.get() * 1_000 >= until_ms;
        // It may die before it has written, because the last write of a partition's progress may fail.
        let end = Instant::now() + Duration::from_secs(15);
        while !written(&member) && !until(&member) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        member.kill();
    }
    let member = world.member_rolling(None).await;
    wake(&world, until_ms);
    check(&world, &member, until_ms).await;
    agrees(&world, &ALL).await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_an_idle_partition_is_added_to_its_hour() {
    let world = World::new(2).await;
    // A rejected record is no event, so its partition stays idle.
    world.send(1, Said::Bad, BASE_MS, Some(b"{}"), &[]);
    for minute in 0..300 {
        world.event(0, "NYC", "traffic", 0, BASE_MS + minute * 60_000);
    }
    world.flush();
    let member = world.member_rolling(None).await;
    let until_ms = BASE_MS + 4 * HOUR_MS;
    check(&world, &member, until_ms).await;
    agrees(&world, &ALL).await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);

    // A consumer that rolls up nothing counts the first event, so the mark stays.
    let rolled_up = reads(&world).rolled_up(unix_ms()).await.unwrap();
    assert_eq!(rolled_up.until_ms, UnixMs(until_ms));
    let other = world.member(&[], None).await;
    world.event(1, "LA", "traffic", 3, BASE_MS + HOUR_MS);
    world.flush();
    world.committed("citystream").await;
    assert_eq!(other.stop().await.unwrap(), Exit::Done);
    let woken = reads(&world).rolled_up(unix_ms()).await.unwrap();
    assert!(woken.until_ms <= UnixMs(BASE_MS), "{woken:?}");
    assert_ne!(woken.generation, rolled_up.generation);
    let member = world.member_rolling(None).await;
    // Its own watermark is at the first hour.
    check(&world, &member, BASE_MS).await;
    assert_eq!(
        reads(&world).rolled_up(unix_ms()).await.unwrap().until_ms,
        UnixMs(BASE_MS)
    );
    agrees(&world, &ALL).await;
    world.event(1, "LA", "traffic", 3, BASE_MS + 5 * HOUR_MS);
    world.flush();
    check(&world, &member, until_ms).await;
    let hour = (
        "hour#*#traffic".to_owned(),
        format_seconds(UnixMs(BASE_MS + HOUR_MS)),
    );
    assert_eq!(rows(&world, until_ms).await[&hour], [60, 0, 0, 1]);
    agrees(&world, &ALL).await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_again_is_rolled_up_again() {
    let db = Database::memory().unwrap();
    for (round, city) in [(1, "NYC"), (2, "LA")] {
        let world = World::with(db.clone(), 1, 1, RawRows::All).await;
        for minute in 0..200 {
            world.event(0, city, "traffic", 0, BASE_MS + minute * 60_000);
            world.event(0, "Both", "traffic", 1, BASE_MS + minute * 60_000);
        }
        world.flush();
        let stopping = world.member(&["--stop-at-end"], None).await;
        assert_eq!(stopping.end().await.unwrap(), Exit::Done);
        // The mark of the former topic counts as absent.
        let rolled_up = reads(&world).rolled_up(unix_ms()).await.unwrap();
        assert_eq!(rolled_up.until_ms, UnixMs(0));
        let member = world.member_rolling(None).await;
        check(&world, &member, BASE_MS + 3 * HOUR_MS).await;
        let hour = |city: &str| {
            (
                format!("hour#{city}#traffic"),
                format_seconds(UnixMs(BASE_MS)),
            )
        };
        let found = rows(&world, i64::MAX).await;
        assert_eq!(found[&hour("Both")], [0, 60 * round, 0, 0]);
        assert_eq!(found[&hour("*")], [60 * round, 60 * round, 0, 0]);
        agrees(&world, &ALL).await;
        assert_eq!(member.stop().await.unwrap(), Exit::Done);
    }
}

/// A row, what takes its place, and what `verify` reports then.
type Damage = (Item, Option<Item>, &'static str, Mismatch);

/// Returns damages to an hour and a day of a series, and of all cities.
fn damages([hour, day]: [&Item; 2], [all, all_day]: [&Item; 2]) -> Vec<Damage> {
    let changed = |item: &Item, name: &str, value: AttributeValue| {
        let mut item = item.clone();
        item.insert(name.to_owned(), value).unwrap();
        item
    };
    let number = |number: u64| AttributeValue::N(number.to_string());
    let more = number(n(hour, "severity_low") + 1);
    let bytes = |bytes: &[u8]| AttributeValue::B(aws_sdk_dynamodb::primitives::Blob::new(bytes));
    vec![
        (hour.clone(), None, "hour", Mismatch::Missing),
        (day.clone(), None, "day", Mismatch::Missing),
        (all.clone(), None, "hour", Mismatch::Missing),
        (all_day.clone(), None, "day", Mismatch::Missing),
        (
            hour.clone(),
            Some(changed(hour, "severity_low", more.clone())),
            "hour",
            Mismatch::Wrong,
        ),
        (
            all.clone(),
            Some(changed(all, "event_count", number(1_000_000))),
            "hour",
            Mismatch::Wrong,
        ),
        (
            hour.clone(),
            Some(changed(hour, "window_end", AttributeValue::S("x".into()))),
            "hour",
            Mismatch::Wrong,
        ),
        (
            day.clone(),
            Some(changed(day, "hours", bytes(b"abc"))),
            "day",
            Mismatch::Wrong,
        ),
        (
            all_day.clone(),
            Some(changed(all_day, "hours", bytes(&[0, 0, 0]))),
            "day",
            Mismatch::Wrong,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_each_damaged_hour_and_day() {
    let world = World::new(3).await;
    let until_ms = send(&world, 2_000);
    let member = world.member_rolling(None).await;
    check(&world, &member, until_ms).await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    agrees(&world, &ALL).await;
    let table = &world.names.totals;
    let items = world.items(table).await;
    let row = |shard: &str| {
        let found = items.iter().find(|item| s(item, "shard") == shard);
        found.unwrap_or_else(|| panic!("no {shard}")).clone()
    };
    let hour = row("hour#NYC#traffic");
    let damages = damages(
        [&hour, &row("day#NYC#traffic")],
        [&row("hour#*#traffic"), &row("day#*#weather")],
    );
    for (key, now, row, kind) in &damages {
        match now {
            Some(now) => put(&world, table, now).await,
            None => delete(&world, table, key).await,
        }
        let outcome = verify(&world, &ALL).await.outcome;
        let found: Vec<_> = outcome
            .differences
            .iter()
            .map(|d| (d.key.kind(), d.kind))
            .collect();
        assert_eq!(
            found,
            [(*row, *kind)],
            "{now:?}: {:#?}",
            outcome.differences
        );
        let named = outcome.differences[0].key.in_table();
        assert_eq!(named, format!("{} {}", s(key, "shard"), s(key, "series")));
        put(&world, table, key).await;
    }
    // An hour in which NYC has no traffic.
    let mut extra = hour.clone();
    let night = AttributeValue::S("2013-01-01T00:00:00Z".to_owned());
    for name in ["series", "window_start"] {
        extra.insert(name.to_owned(), night.clone());
    }
    extra.insert(
        "window_end".to_owned(),
        AttributeValue::S("2013-01-01T01:00:00Z".to_owned()),
    );
    put(&world, table, &extra).await;
    let outcome = verify(&world, &ALL).await.outcome;
    let found: Vec<_> = outcome
        .differences
        .iter()
        .map(|d| (d.key.kind(), d.kind))
        .collect();
    let listed = format!("{:#?}", outcome.differences);
    assert_eq!(found, [("hour", Mismatch::Extra)], "{listed}");
}

/// Refuses reads of windows by key while `denies` is set, as an older IAM policy does.
#[derive(Clone, Debug)]
struct OldPolicy {
    inner: SharedHttpConnector,
    denies: Arc<AtomicBool>,
}

impl HttpConnector for OldPolicy {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        if target.ends_with("BatchGetItem") && self.denies.load(Ordering::SeqCst) {
            let body =
                r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no"}"#;
            let status = 400.try_into().unwrap();
            return HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))));
        }
        self.inner.call(request)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_without_the_rights_counts_and_rolls_up_once_it_has_them() {
    let world = World::new(1).await;
    for minute in 0..100 {
        world.event(0, "NYC", "traffic", 0, BASE_MS + minute * 60_000);
    }
    world.flush();
    let (inner, denies) = (embedded(world.database()), Arc::new(AtomicBool::new(true)));
    let policy = Arc::clone(&denies);
    let http = http_client_fn(move |settings, components| {
        SharedHttpConnector::new(OldPolicy {
            inner: inner.http_connector(settings, components),
            denies: Arc::clone(&policy),
        })
    });
    let member = world.member_rolling(Some(http)).await;
    let has_failed = |m: &Member| m.metrics.rollup_failures.get() > 0;
    member.until("it was refused", has_failed).await;
    world.committed("citystream").await;
    world.check().await;
    assert_eq!(rows(&world, i64::MAX).await, Rows::new());
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
    let member = world.member_rolling(None).await;
    check(&world, &member, BASE_MS + HOUR_MS).await;
    assert_eq!(member.stop().await.unwrap(), Exit::Done);
}
