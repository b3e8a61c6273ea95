//! Tests of `tail --dlq`, which shows rejected records with their reasons and origins.

use std::process::{Command, Output, Stdio};

use citystream::core::clock::UnixMs;
use citystream::core::event::Offset;
use citystream::core::parse::Reason;
use citystream::core::worker::Rejected;
use citystream::kafka::dlq::DeadLetters;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::ProducerContext;
use serde_json::Value;

use crate::process::Start as _;

const EVENT: &[u8] =
    br#"{"city":"NYC","event_type":"traffic","severity":"low","timestamp":"2013-01-01T06:00:00Z"}"#;

fn tail(servers: &str, args: &[&str]) -> Output {
    let fixed = ["tail", "--dlq", "--from", "beginning"];
    Command::new(env!("CARGO_BIN_EXE_citystream"))
        .args([&fixed[..], args].concat())
        .env_clear()
        .env("KAFKA_BOOTSTRAP_SERVERS", servers)
        .stdin(Stdio::null())
        .run()
        .unwrap()
}

fn rejected(reason: Reason, value: Option<&[u8]>, offset: i64) -> Rejected {
    Rejected {
        reason,
        detail: "what is wrong".to_owned(),
        key: Some(b"NYC".to_vec()),
        value: value.map(<[u8]>::to_vec),
        headers: vec![("reason".to_owned(), Some(b"its own".to_vec()))],
        partition: 3,
        offset: Offset(offset),
        timestamp_ms: Some(UnixMs(1_357_020_000_000)),
    }
}

/// Sends five dead letters as DeadLetters sends them, in a fixed order. The last is a valid event that DynamoDB
/// refused; `tail` must show it like the others.
pub(crate) fn send_letters(broker: &MockCluster<'_, impl ProducerContext>) {
    broker.create_topic("city-events-dlq", 1, 1).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers());
    let topics = ("city-events-dlq".to_owned(), "city-events".to_owned());
    let letters = DeadLetters::new(&config, topics.0, topics.1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    for (at, (reason, value)) in [
        (Reason::NotJson, Some(&b"{\n"[..])),
        (Reason::NotUtf8, Some(b"\xff")),
        (Reason::Empty, None),
        (Reason::NotJson, Some(b"{}x")),
        (Reason::RefusedByTable, Some(EVENT)),
    ]
    .into_iter()
    .enumerate()
    {
        let rejected = rejected(reason, value, i64::try_from(at).unwrap());
        runtime.block_on(letters.send(&rejected, "abc", || 0));
    }
}

#[test]
fn tail_shows_rejected_records_with_reason_and_origin() {
    let broker = MockCluster::new(1).unwrap();
    send_letters(&broker);
    let servers = broker.bootstrap_servers();
    let output = tail(&servers, &["--exit-at-end", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<&str> = lines
        .iter()
        .map(|l| l["reason"].as_str().unwrap())
        .collect();
    let want = [
        "not_json",
        "not_utf8",
        "empty",
        "not_json",
        "refused_by_table",
    ];
    assert_eq!(told, want);
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["source_topic"], "city-events");
        assert_eq!(
            (&line["source_partition"], &line["source_offset"]),
            (&3.into(), &at.into())
        );
        assert_eq!(line["source_timestamp"], 1_357_020_000_000_i64);
        assert_eq!(
            (&line["detail"], &line["key"]),
            (&"what is wrong".into(), &"NYC".into())
        );
        assert_eq!(
            (&line["partition"], &line["offset"]),
            (&0.into(), &at.into())
        );
    }
    assert_eq!(
        (&lines[0]["value"], &lines[1]["value_base64"]),
        (&"{\n".into(), &"/w==".into())
    );
    assert_eq!(lines[2]["value"], Value::Null);
    assert_eq!(lines[4]["value"], std::str::from_utf8(EVENT).unwrap());

    // The default output is text, and `-n` limits it.
    let output = tail(&servers, &["-n", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.starts_with("2013-01-01T06:00:00.000Z  not_json "),
        "{text}"
    );
    assert!(text.contains("  city-events/3/0  "), "{text}");

    let output = tail(&servers, &["--exit-at-end", "--output", "table"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("not_json                2\n"), "{text}");
    assert!(text.ends_with("all                     5\n"), "{text}");

    // A rejected record has no city, so `--city` is refused.
    let output = tail(&servers, &["--city", "NYC"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
