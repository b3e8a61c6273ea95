//! Tests of `produce` next to Java's producer, and while the broker is absent.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::log;
use crate::role::{Role, wait_for};
use crate::services::kafka_version;
use crate::world::World;

/// How long the broker is absent. `OUTAGE=60` is the long form.
const OUTAGE: Duration = Duration::from_secs(10);
/// The memory that a producer with a full queue may use: 64 MiB of values, what librdkafka needs for them, and the
/// program.
const RSS_KIB_MAX: u64 = 300 * 1024;

fn outage() -> Duration {
    let given = std::env::var("OUTAGE").ok();
    given.map_or(OUTAGE, |text| Duration::from_secs(text.parse().unwrap()))
}

/// Returns the partition of each key in a topic's log.
fn partitions(world: &World, topic: &str) -> BTreeMap<Vec<u8>, i32> {
    let records = log::read(world.services, topic).into_iter();
    records
        .filter_map(|r| Some((r.key?, r.partition)))
        .collect()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn every_key_goes_to_the_partition_that_javas_producer_chooses() {
    let world = World::new("keys");
    world.init();
    let cities: Vec<String> = ["NYC", "São Paulo", "北京", "Zürich", "a", "St. John's", "Ω"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..200).map(|n| format!("city {n}")))
        .collect();
    let event = |city: &String| {
        serde_json::json!({
            "city": city, "event_type": "traffic", "severity": "low",
            "timestamp": "2013-01-01T06:00:00Z",
        })
        .to_string()
    };
    world.produce(&cities.iter().map(event).collect::<Vec<_>>());
    let ours = partitions(&world, world.name);
    assert_eq!(ours.len(), cities.len());

    // Java's own producer sends into another topic with as many partitions.
    let other = "keys-java";
    let args = ["--topic", other, "--table-prefix", other];
    world.start("init-tables", &args).ends_with(0);
    let class = if kafka_version().starts_with('3') {
        "kafka.tools.ConsoleProducer"
    } else {
        "org.apache.kafka.tools.ConsoleProducer"
    };
    let mut java = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/real-services"
    ))
    .args(["tool", "--kafka", &kafka_version(), class])
    .args(["--bootstrap-server", world.services.brokers()])
    .args(["--topic", other])
    .args([
        "--property",
        "parse.key=true",
        "--property",
        "key.separator=|",
    ])
    .env("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8")
    .stdin(Stdio::piped())
    .stdout(Stdio::null())
    .spawn()
    .unwrap();
    let mut stdin = java.stdin.take().unwrap();
    for city in &cities {
        writeln!(stdin, "{city}|x").unwrap();
    }
    drop(stdin);
    assert!(java.wait().unwrap().success());
    assert_eq!(partitions(&world, other), ours);
}

/// Returns the largest memory that a process ever used, in KiB.
fn rss_max_kib(role: &Role) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", role.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_absent_broker_under_load_costs_no_event_and_bounded_memory() {
    let world = World::disturbing("away");
    world.init();
    let sent = 20_000 * (outage().as_secs() + 10);
    let count = sent.to_string();
    let args = ["--rate", "20000/s", "--count", &count, "--heartbeat", "1h"];
    let mut produce = world.start("produce", &args);
    wait_for("events to be acknowledged", || {
        let metrics = produce.metrics();
        (metrics["citystream_events_produced_total"] > 20_000.0).then_some(())
    });
    world.services.broker("kill-broker", "1");
    let away = Instant::now();
    produce.is_ready(503, "");
    while away.elapsed() < outage() {
        assert!(!produce.has_ended(), "{}", produce.err());
        std::thread::sleep(Duration::from_millis(500));
    }
    let rss = rss_max_kib(&produce);
    world.services.broker("start-broker", "1");
    produce.ends_with(0);
    let told = produce.err();
    assert!(told.contains("undelivered 0"), "{told}");
    let log = log::read(world.services, world.name);
    assert_eq!(log.len() as u64, sent, "nothing lost, nothing twice");
    eprintln!(
        "{sent} events, away for {:.0?}, at most {} MiB",
        outage(),
        rss / 1024
    );
    assert!(rss < RSS_KIB_MAX, "{rss} KiB");

    // SIGTERM must work while the broker is absent, too.
    let mut produce = world.start("produce", &["--rate", "1000/s"]);
    wait_for("events to be acknowledged", || {
        let metrics = produce.metrics();
        (metrics["citystream_events_produced_total"] > 500.0).then_some(())
    });
    world.services.broker("kill-broker", "1");
    produce.is_ready(503, "");
    let (code, took) = produce.terminate();
    world.services.broker("start-broker", "1");
    assert_eq!(code, Some(1), "{}", produce.err());
    assert!(took < Duration::from_secs(12), "took {took:?}");
    let err = produce.err();
    let undelivered = err.lines().find_map(|l| l.split_once("undelivered "));
    let count: String = undelivered
        .unwrap()
        .1
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    assert!(count.parse::<u64>().unwrap() > 0, "{err}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_producer_waits_for_its_deleted_topic_and_loses_no_event() {
    let world = World::new("topic-away");
    world.init();
    let mut produce = world.start("produce", &["--rate", "2000/s", "--heartbeat", "1h"]);
    let acknowledged = |produce: &mut Role, at_least: f64| {
        wait_for("events to be acknowledged", || {
            let count = produce.metrics()["citystream_events_produced_total"];
            (count > at_least).then_some(count)
        })
    };
    acknowledged(&mut produce, 1_000.0);
    log::delete_topic(world.services, world.name);
    produce.is_ready(503, "waiting for the topic (no topic topic-away)");
    std::thread::sleep(Duration::from_secs(3));
    assert!(produce.err().contains("waiting for the topic"));
    let before = produce.metrics()["citystream_events_produced_total"];
    log::make_topic(world.services, world.name, (6, 1), &[]);
    acknowledged(&mut produce, before + 10_000.0);
    produce.is_ready(200, "");
    // Requests that are under way when the topic is deleted may fail with an unknown outcome. The producer then reports
    // their events as undelivered.
    let failed = produce.metrics()["citystream_events_failed_total"];
    assert!(failed < 1_000.0, "{failed}");
    let (code, _) = produce.terminate();
    let told = produce.err();
    assert_eq!(code, Some(i32::from(failed > 0.0)), "{told}");
    // If librdkafka has closed the connection to a broker meanwhile, it gives the events up at once.
    let reports = ["undelivered", "failed"].map(|what| told.contains(&format!("{what} {failed}")));
    assert!(reports.contains(&true), "{told}");
    // Events from the moment before the deletion may be in either log. All later ones are in the new log.
    let log = log::read(world.services, world.name);
    assert!(log.len() >= 10_000, "{}", log.len());
}
