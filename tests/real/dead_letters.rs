//! Tests of bad records between good ones, and of the rules of event time record by record.

use std::collections::{BTreeMap, BTreeSet};

use citystream::telemetry::unix_ms;
use serde_json::json;

use crate::log::{self, Record};
use crate::role::{Role, wait_for};
use crate::tables;
use crate::world::World;

const PARTITIONS: i32 = 6;

fn iso(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

fn event(partition: i32, time: &str, severity: &str) -> Record {
    let value = json!({
        "city": "NYC", "event_type": "traffic", "severity": severity, "timestamp": time,
    });
    valued(partition, value.to_string().as_bytes())
}

fn valued(partition: i32, value: &[u8]) -> Record {
    Record {
        partition,
        key: Some(b"NYC".to_vec()),
        value: Some(value.to_vec()),
        ..Record::default()
    }
}

fn heartbeat(partition: i32, ms: &str) -> Record {
    Record {
        partition,
        headers: vec![("citystream-heartbeat".into(), Some(ms.into()))],
        ..Record::default()
    }
}

/// Every way in which a record can be bad, with the reject reason.
fn bad_values() -> Vec<(&'static str, Option<Vec<u8>>)> {
    let with = |field: &str, value: &str| {
        let mut fields = BTreeMap::from([
            ("city", "\"NYC\""),
            ("event_type", "\"traffic\""),
            ("severity", "\"low\""),
            ("timestamp", "\"2013-01-01T06:00:00Z\""),
        ]);
        fields.insert(field, value);
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        let fields: Vec<String> = fields.map(|(n, v)| format!("\"{n}\":{v}")).collect();
        Some(format!("{{{}}}", fields.join(",")).into_bytes())
    };
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let good = String::from_utf8(with("note", "1").unwrap()).unwrap();
    let long = |n: usize| format!("\"{}\"", "x".repeat(n));
    let deep = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    vec![
        ("empty", None),
        ("empty", Some(Vec::new())),
        ("too_large", with("note", &long(65_536))),
        ("not_utf8", Some(b"{\"city\":\"\xff\"}".to_vec())),
        ("not_json", text("NYC,traffic,low")),
        ("not_json", text(" \t\n")),
        ("not_json", text("[1]")),
        ("not_json", text("{\"city\":\"NYC\",}")),
        ("not_json", text(&format!("\u{feff}{good}"))),
        ("not_json", text(&format!("{good}{good}"))),
        ("not_json", with("note", "NaN")),
        ("not_json", with("note", "1e999")),
        ("not_json", with("note", "\"\\ud800\"")),
        ("not_json", with("note", "{\"a\":1,\"\\u0061\":2}")),
        ("not_json", with("note", &deep)),
        ("missing_field", with("city", "")),
        ("missing_field", with("timestamp", "")),
        ("bad_city", with("city", "\"  \"")),
        ("bad_city", with("city", "\"a#b\"")),
        ("bad_city", with("city", &long(65))),
        ("bad_city", with("city", "7")),
        ("bad_event_type", with("event_type", "\"traffic jam\"")),
        ("bad_event_type", with("event_type", "null")),
        ("bad_severity", with("severity", "\"urgent\"")),
        (
            "bad_timestamp",
            with("timestamp", "\"2013-01-01T06:00:00\""),
        ),
        (
            "bad_timestamp",
            with("timestamp", "\"2013-01-01T24:00:00Z\""),
        ),
        (
            "bad_timestamp",
            with("timestamp", "\"1969-12-31T23:59:59Z\""),
        ),
        ("bad_description", with("description", &long(4_097))),
        ("bad_description", with("description", "null")),
        ("bad_event_id", with("event_id", "\"\"")),
        ("bad_event_id", with("event_id", &long(129))),
        ("bad_event_id", with("event_id", "\"a\\u0085b\"")),
    ]
}

/// Returns bad records, each with a header `expect` that names the reason. Some have no key, or a key that is not
/// text.
fn bad_records() -> Vec<Record> {
    let mut records = Vec::new();
    for (n, (reason, value)) in bad_values().into_iter().enumerate() {
        let keys = [
            Some(b"NYC".to_vec()),
            None,
            Some(b"\xff\x00".to_vec()),
            Some(Vec::new()),
        ];
        records.push(Record {
            partition: i32::try_from(n).unwrap() % PARTITIONS,
            key: keys[n % keys.len()].clone(),
            value,
            headers: vec![("expect".into(), Some(reason.into()))],
            ..Record::default()
        });
    }
    for ms in ["x", "", "-1", "1234567890123456"] {
        let mut record = heartbeat(1, ms);
        record
            .headers
            .push(("expect".into(), Some("bad_heartbeat".into())));
        records.push(record);
    }
    let mut twice = heartbeat(1, "5");
    twice.headers.extend(heartbeat(1, "6").headers);
    twice
        .headers
        .push(("expect".into(), Some("bad_heartbeat".into())));
    twice.headers.push(("trace".into(), None));
    records.push(twice);
    records
}

#[test]
#[ignore = "needs scripts/test-real"]
fn bad_records_between_good_ones_go_unchanged_to_the_dead_letter_topic() {
    let world = World::new("dead-letters");
    world.init();
    let mut records = vec![event(0, "2013-01-01T06:00:00Z", "high")];
    for (n, bad) in bad_records().into_iter().enumerate() {
        let partition = bad.partition;
        records.push(bad);
        let time = format!("2013-01-01T06:{:02}:00.{n:03}+01:00", n % 60);
        let mut good = event(
            partition,
            &time,
            ["low", "Medium", "HIGH", "critical"][n % 4],
        );
        // A record with a value is an event, whatever its headers.
        good.headers
            .push(("citystream-heartbeat".into(), Some("x".into())));
        records.push(good);
    }
    let more = r#"{"city":" São Paulo\t","event_type":"Roadworks-2","severity":"low","timestamp":"2013-01-01 06:00:59.5z","description":"é","event_id":"own","lane":[1.50,null],"to":{"a":"b"}}"#;
    records.push(valued(3, more.as_bytes()));
    world.send(&records);
    world.consume_to_the_end();

    let expected = world.tables_are_exact();
    let bad = bad_records();
    assert_eq!(expected.rejected.len(), bad.len());
    assert_eq!(expected.valid, u64::try_from(bad.len()).unwrap() + 2);

    let topic_id = tables::config(world.services, world.name)["topic_id"].clone();
    assert_eq!(topic_id.len(), 22);
    let letters = log::read(world.services, &format!("{}-dlq", world.name));
    assert_eq!(letters.len(), expected.rejected.len());
    for sent in &expected.rejected {
        let (partition, offset) = (sent.partition.to_string(), sent.offset.to_string());
        let mut found = letters.iter().filter(|letter| {
            letter.header("source_partition") == Some(&partition)
                && letter.header("source_offset") == Some(&offset)
        });
        let letter = found
            .next()
            .unwrap_or_else(|| panic!("no letter for {sent:?}"));
        assert_eq!(
            (&letter.key, &letter.value),
            (&sent.key, &sent.value),
            "{sent:?}"
        );
        let (own, ours) = letter.headers.split_at(sent.headers.len());
        assert_eq!(own, sent.headers);
        let names: Vec<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
        let told = [
            "reason",
            "detail",
            "source_topic",
            "source_topic_id",
            "source_partition",
            "source_offset",
            "source_timestamp",
        ];
        assert_eq!(names, told);
        assert_eq!(letter.header("reason"), sent.header("expect"), "{sent:?}");
        assert_eq!(letter.header("source_topic"), Some(world.name));
        assert_eq!(letter.header("source_topic_id"), Some(&*topic_id));
        let at = sent.timestamp_ms.unwrap().to_string();
        assert_eq!(letter.header("source_timestamp"), Some(&*at));
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn two_events_of_one_second_city_and_type_are_two_rows_and_two_alerts() {
    let world = World::new("twins");
    world.init();
    let twin = event(2, "2013-01-01T06:00:00Z", "critical");
    world.send(&[twin.clone(), twin]);
    world.consume_to_the_end();
    world.tables_are_exact();
    assert_eq!(world.count("raw-events"), 2);
    assert_eq!(world.count("alerts"), 2);
    assert_eq!(world.count("aggregations"), 1);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn fast_clocks_heartbeats_and_lateness_are_decided_by_the_log_alone() {
    let world = World::new("rules");
    world.init();
    let now_ms = unix_ms().0;
    let mut records = Vec::new();
    // One clock is a day ahead, and ten events are good.
    records.push(event(0, &iso(now_ms + 86_400_000), "low"));
    records.extend((0..10).map(|n| event(0, &iso(now_ms - n), "low")));
    // Events 1 ms before and after the moment in which a window becomes late, in one partition each.
    let start_ms = 1_357_020_000_000;
    for (n, past_ms) in [-1, 0, 1].into_iter().enumerate() {
        let partition = 1 + i32::try_from(n).unwrap();
        let edge_ms = start_ms + 300_000 + 600_000 + past_ms;
        records.push(event(partition, &iso(edge_ms), "high"));
        records.extend(
            [-1, 0, 299_999, 300_000].map(|ms| event(partition, &iso(start_ms + ms), "critical")),
        );
    }
    // A heartbeat moves the watermark as an event does, unless it is too far ahead of its record.
    records.push(heartbeat(4, &(start_ms + 86_400_000).to_string()));
    records.push(event(4, &iso(start_ms), "low"));
    records.push(heartbeat(5, &(now_ms + 86_400_000).to_string()));
    records.push(event(5, &iso(start_ms), "low"));
    world.send(&records);
    world.consume_to_the_end();
    let expected = world.tables_are_exact();
    // At −1 ms only the earlier window is late. Then both windows are, except for the events after them.
    assert_eq!((expected.future, expected.late), (1, 1 + 3 + 3 + 1));
}

#[test]
#[ignore = "needs scripts/test-real"]
fn heartbeats_make_windows_final_when_traffic_stops() {
    let world = World::new("final");
    world.init();
    let mut consume = world.consume(&[]);
    let start_ms = 1_357_020_000_000;
    world.send(&[event(0, &iso(start_ms), "low")]);
    let mut serve = world.start("serve", &[]);
    let path = "/api/v1/aggregations?city=NYC&event_type=traffic";
    let is_final = |serve: &mut Role, wanted: bool| {
        wait_for("the window to be as final as it should", || {
            let (_, body) = serve.get(path)?;
            let body: serde_json::Value = serde_json::from_str(&body).ok()?;
            let window = body["aggregations"].get(0)?;
            (window["event_count"] == 1 && window["final"] == wanted).then_some(())
        });
    };
    is_final(&mut serve, false);
    world.send(&[heartbeat(0, &(start_ms + 3_600_000).to_string())]);
    is_final(&mut serve, true);
    assert_eq!(consume.terminate().0, Some(0));
    assert_eq!(serve.terminate().0, Some(0));
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn dead_letters_are_repaired_and_resent_once_even_by_two_runs_at_once() {
    let world = World::new("sent-again");
    world.init();
    let broken = [
        "--bad-ratio",
        "1",
        "--count",
        "900",
        "--rate",
        "max",
        "--seed",
        "1",
    ];
    world.start("produce", &broken).ends_with(0);
    world.start("consume", &["--stop-at-end"]).ends_with(0);
    let resend = || world.start("produce", &["--from-dlq"]);
    // One of the two runs may be fenced by the other. That is harmless.
    let mut two = [resend(), resend()];
    for role in &mut two {
        role.end();
    }
    let mut last = resend();
    last.ends_with(0);
    let mut none = resend();
    none.ends_with(0);
    assert!(
        none.err().contains("looked at 0 new dead letters"),
        "{}",
        none.err()
    );
    let tail = || {
        let args = ["--from", "beginning", "--exit-at-end", "--output", "json"];
        let mut tail = world.start("tail", &args);
        tail.ends_with(0);
        tail.out().lines().count()
    };
    // Every ninth of these has an empty id as its only fault.
    assert_eq!(
        tail(),
        100,
        "{}\n{}\n{}",
        two[0].err(),
        two[1].err(),
        last.err()
    );
    world.start("consume", &["--stop-at-end"]).ends_with(0);
    assert_eq!(world.events_counted(), 100);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_recreated_dead_letter_topic_receives_the_records_that_waited_for_it() {
    let world = World::new("letters-again");
    world.init();
    let dlq = format!("{}-dlq", world.name);
    let bad = |from: usize, to: usize| {
        let record = |n: usize| valued(0, format!("no json {n}").as_bytes());
        let records: Vec<Record> = (from..to).map(record).collect();
        world.send(&records);
    };
    let mut consume = world.consume(&[]);
    let in_flight = |consume: &mut Role| consume.metrics()["citystream_events_in_flight"];
    bad(0, 50);
    wait_for("dead letters to be sent", || {
        (log::read(world.services, &dlq).len() == 50).then_some(())
    });
    log::delete_topic(world.services, &dlq);
    bad(50, 70);
    wait_for("records to wait for their dead letters", || {
        (in_flight(&mut consume) == 20.0).then_some(())
    });
    log::make_topic(world.services, &dlq, (1, 1), &[]);
    bad(70, 80);
    wait_for("nothing to wait", || {
        (in_flight(&mut consume) == 0.0).then_some(())
    });
    let values: BTreeSet<_> = log::read(world.services, &dlq)
        .into_iter()
        .map(|letter| String::from_utf8(letter.value.unwrap()).unwrap())
        .collect();
    let wanted = (50..80).map(|n| format!("no json {n}"));
    assert_eq!(values, wanted.collect());
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
}
