//! Tests of `produce` options for trying things out: synthetic faults, replays and resent dead letters, as processes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use serde_json::Value;

use crate::process::Start as _;

const TOPIC: &str = "city-events";
const WINDOW_MS: i64 = 300_000;

struct Broker(MockCluster<'static, DefaultProducerContext>);

impl Broker {
    fn start() -> Broker {
        let broker = Broker(MockCluster::new(1).unwrap());
        broker.0.create_topic(TOPIC, 6, 1).unwrap();
        broker.0.create_topic("city-events-dlq", 1, 1).unwrap();
        broker
    }

    fn run(&self, args: &[&str], input: &str) -> (String, Option<i32>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args(args)
            .env_clear()
            .env("CITYSTREAM_BROKERS", self.0.bootstrap_servers())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .start()
            .unwrap();
        // A role that refuses its settings reads no input.
        let _gone = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output {
            status,
            stdout,
            stderr,
        } = child.wait_with_output().unwrap();
        let text = String::from_utf8([stdout, stderr].concat()).unwrap();
        (text, status.code())
    }

    fn produce(&self, args: &[&str], input: &str) -> String {
        let fixed = ["produce", "--listen", "127.0.0.1:0"];
        let (text, code) = self.run(&[&fixed[..], args].concat(), input);
        assert_eq!(code, Some(0), "{text}");
        text
    }

    fn tail(&self, args: &[&str]) -> String {
        let fixed = ["tail", "--from", "beginning", "--exit-at-end"];
        let (text, code) = self.run(&[&fixed[..], args].concat(), "");
        assert_eq!(code, Some(0), "{text}");
        text
    }

    fn events(&self) -> Vec<Value> {
        let text = self.tail(&["--output", "json"]);
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Sends dead letters as `consume` does, each with a reason, a value and a source offset.
    fn letters(&self, letters: &[(&str, Option<&str>, i64)]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.0.bootstrap_servers())
            .create()
            .unwrap();
        for (reason, value, offset) in letters {
            let mut headers = OwnedHeaders::new();
            let offset = offset.to_string();
            let topic = if *reason == "elsewhere" {
                "other"
            } else {
                TOPIC
            };
            for (key, value) in [
                ("reason", *reason),
                ("source_topic", topic),
                ("source_topic_id", "T"),
                ("source_partition", "3"),
                ("source_offset", &offset),
            ] {
                headers = headers.insert(Header {
                    key,
                    value: Some(value),
                });
            }
            let mut record = BaseRecord::<str, str>::to("city-events-dlq").headers(headers);
            record.payload = *value;
            producer.send(record).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }
}

fn event(time: &str) -> String {
    format!(
        r#"{{"n":1.0, "city":"NYC","event_type":"traffic","severity":"low","timestamp":{time}}}"#
    )
}

fn quoted(time: &str) -> String {
    event(&format!("\"{time}\""))
}

fn ms(event: &Value) -> i64 {
    let time: jiff::Timestamp = event["timestamp"].as_str().unwrap().parse().unwrap();
    time.as_millisecond()
}

fn now_ms() -> i64 {
    citystream::telemetry::unix_ms().0
}

#[test]
fn synthetic_faults_are_sent_and_reported_as_requested() {
    let broker = Broker::start();
    let told = broker.produce(
        &[
            "--rate",
            "max",
            "--count",
            "4000",
            "--seed",
            "3",
            "--late-ratio",
            "0.1",
            "--bad-ratio",
            "0.05",
            "--skew",
            "0.5",
            "--out-of-order",
            "2m",
        ],
        "",
    );
    assert!(told.contains("sent 4,000"), "{told}");
    let made = told
        .lines()
        .find(|line| line.contains("made late"))
        .unwrap();
    let numbers: Vec<usize> = made
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect();
    let [late, bad] = numbers[..] else {
        panic!("{made}");
    };
    assert!(
        (300..460).contains(&late) && (150..250).contains(&bad),
        "{made}"
    );
    let events = broker.events();
    assert_eq!(events.len(), 4_000 - bad);
    let nyc = events.iter().filter(|event| event["city"] == "NYC").count();
    assert!(nyc * 100 > events.len() * 60, "{nyc} of {}", events.len());
    let table = broker.tail(&["--output", "table"]);
    let all = table.lines().find(|line| line.starts_with("all")).unwrap();
    let told: usize = all.split_whitespace().last().unwrap().parse().unwrap();
    // The first events of a partition are never late, because an event is late only after a newer one.
    assert!(
        (late - 30..=late).contains(&told),
        "{late} were made late\n{table}"
    );
    // Some events are older than the one before them, but no event other than a late one is older than requested.
    let times: Vec<i64> = events
        .iter()
        .filter(|e| e["city"] == "NYC")
        .map(ms)
        .collect();
    assert!(times.windows(2).any(|pair| pair[1] < pair[0]));
}

#[test]
fn a_replay_keeps_relative_times_at_its_speed() {
    let broker = Broker::start();
    let times =
        ["06:00:00Z", "06:01:00Z", "06:00:30Z", "06:02:00Z"].map(|t| format!("2013-01-01T{t}"));
    let input = times.each_ref().map(|t| quoted(t)).join("\n");
    let begun = Instant::now();
    broker.produce(&["--input", "-", "--speed", "60x"], &input);
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let sent = broker.events();
    let want = times.map(|t| t.replace('Z', ".000Z"));
    assert_eq!(
        sent.iter()
            .map(|e| e["timestamp"].as_str().unwrap())
            .collect::<Vec<_>>(),
        want
    );
}

#[test]
fn restamp_shifts_event_times_to_the_present() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.ndjson");
    let old = ["06:00:00Z", "06:59:59Z", "06:04:59.999Z"].map(|t| format!("2013-01-01T{t}"));
    std::fs::write(&path, old.each_ref().map(|t| quoted(t)).join("\n")).unwrap();
    let path = path.to_str().unwrap();
    let before = now_ms();
    broker.produce(&["--input", path, "--restamp"], "");
    let sent = broker.events();
    let moved: Vec<i64> = sent.iter().map(ms).collect();
    let newest = *moved.iter().max().unwrap();
    assert!(
        (before - WINDOW_MS..=now_ms()).contains(&newest),
        "{moved:?}"
    );
    let old = old.map(|t| t.parse::<jiff::Timestamp>().unwrap().as_millisecond());
    for (old, moved) in old.iter().zip(&moved) {
        assert_eq!(newest - moved, 1_357_023_599_000 - old);
        assert_eq!(moved.rem_euclid(WINDOW_MS), old.rem_euclid(WINDOW_MS));
    }

    // With a speed, event times are the times of sending, also from a pipe.
    let input = [
        quoted("2013-01-01T06:00:00Z"),
        quoted("2013-01-01T06:01:00Z"),
    ]
    .join("\n");
    let before = now_ms();
    broker.produce(&["--input", "-", "--restamp", "--speed", "60"], &input);
    let moved: Vec<i64> = broker.events()[3..].iter().map(ms).collect();
    assert_eq!(moved[1] - moved[0], 1_000);
    assert!((before..=now_ms()).contains(&moved[0]));
    let args = ["produce", "--input", "-", "--restamp"];
    let (text, code) = broker.run(&args, &input);
    assert!(
        code == Some(2) && text.contains("\n  > give --speed, or a file"),
        "{text}"
    );
}

#[test]
fn dead_letters_are_repaired_and_resent() {
    let broker = Broker::start();
    let epoch = event("1357020000");
    let zoneless = quoted("2013-01-01 06:00:00");
    let fine = quoted("2013-01-01T06:00:00Z");
    let no_id = fine.replacen('{', "{\"event_id\":\"\",", 1);
    broker.letters(&[
        ("bad_timestamp", Some(&epoch), 1),
        ("bad_timestamp", Some(&zoneless), 2),
        ("bad_event_id", Some(&no_id), 3),
        // One dead letter of a killed consumer, and the same from its successor.
        ("bad_event_id", Some(&no_id), 3),
        ("not_json", Some("{"), 4),
        ("empty", None, 5),
        ("refused_by_table", Some(&fine), 6),
        ("elsewhere", Some(&fine), 7),
    ]);
    let (told, code) = broker.run(&["produce", "--from-dlq"], "");
    assert_eq!(code, Some(0), "{told}");
    for words in [
        "looked at 7 new dead letters: sent 3 again, 4 stay",
        "not_json 1",
        "empty 1",
        "refused_by_table 1",
        "of another topic 1",
    ] {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
    let ids = || -> BTreeMap<String, i64> {
        let events = broker.events();
        events
            .iter()
            .map(|e| (e["event_id"].as_str().unwrap().to_owned(), ms(e)))
            .collect()
    };
    let sent = ids();
    assert_eq!(sent.len(), 3);
    assert!(sent.values().all(|ms| *ms == 1_357_020_000_000), "{sent:?}");
    assert!(sent.contains_key("city-events-3-3"), "{sent:?}");
    // A test on a real broker shows that each is sent once, because the mock broker loses commits of transactions.
}
