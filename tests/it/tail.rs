//! Tests of `tail` as a process, on librdkafka's mock cluster.

use std::io::{BufRead as _, BufReader, Read as _};

use crate::process::Start as _;
use crate::produce::{Broker, event, good, text, wait};

#[test]
fn tail_filters_and_counts() {
    let broker = Broker::start();
    let at = |minute: u32| format!("2013-01-01T06:{minute:02}:00Z");
    let lines = [
        event("NYC", "traffic", "low", &at(0)),
        event("NYC", "weather", "high", &at(30)),
        // The window of this event ended at 06:05, and the watermark is at 06:20.
        event("NYC", "traffic", "critical", &at(1)),
        event("LA", "traffic", "high", &at(2)),
    ];
    broker.produce(lines.join("\n").as_bytes(), &[]);
    let cases: [(&[&str], usize); 7] = [
        (&[], 4),
        (&["--city", " NYC "], 3),
        (&["--city", "NYC", "--city", "LA"], 4),
        (&["--type", "Traffic"], 3),
        (&["--severity", "high", "--severity", "critical"], 3),
        (
            &["--city", "NYC", "--type", "weather", "--severity", "low"],
            0,
        ),
        (&["-n", "2"], 2),
    ];
    for (args, count) in cases {
        assert_eq!(broker.tail_json(args).len(), count, "{args:?}");
    }
    // City names are case-sensitive. `tail` suggests the right spelling once.
    let mut other = broker.citystream(&["tail", "--from", "beginning", "--exit-at-end"]);
    let other = other.args(["--city", "nyc", "--output", "json"]);
    let other = other.run().unwrap();
    assert_eq!(
        (other.status.code(), text(&other.stdout)),
        (Some(0), String::new())
    );
    let told = text(&other.stderr);
    assert_eq!(
        told.matches("city nyc: none so far; did you mean NYC?")
            .count(),
        1,
        "{told}"
    );
    let table = broker.tail(&[]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0].last(), Some(&"late"), "{table}");
    assert_eq!(
        rows[2],
        ["NYC", "traffic", "1", "0", "0", "1", "2", "1"],
        "{table}"
    );
    assert_eq!(rows[4], ["all", "1", "0", "2", "1", "4", "1"], "{table}");
    // An event counts as late even if `tail` does not show the event that moved the watermark.
    let table = broker.tail(&["--type", "traffic", "--city", "NYC"]);
    assert!(
        table.lines().last().unwrap().ends_with(" 2     1"),
        "{table}"
    );
    assert_eq!(broker.tail(&["--output", "text"]).lines().count(), 4);
}

#[test]
fn a_start_by_time_scans_the_log_when_the_broker_has_no_time_index() {
    let broker = Broker::start();
    broker.produce(good().as_bytes(), &[]);
    for (from, count) in [
        ("-1h", 1),
        ("1970-01-01T00:00:00Z", 1),
        ("9998-01-01T00:00:00Z", 0),
        ("-0s", 0),
    ] {
        let args = ["tail", "--from", from, "--exit-at-end", "--output", "json"];
        let output = broker.citystream(&args).run().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output.stdout).lines().count(), count, "{from}");
    }
    // Without `--from`, `--exit-at-end` begins at the beginning.
    let args = ["tail", "--exit-at-end", "--output", "json"];
    for (from, count) in [(&[][..], 1), (&["--from", "end"], 0)] {
        let output = broker.citystream(&[&args, from].concat()).run().unwrap();
        assert_eq!(text(&output.stdout).lines().count(), count, "{from:?}");
    }
    // `tail` ends by itself at an `--until` in the past, after it has shown everything before that instant.
    let args = ["tail", "--from", "beginning", "--output", "json"];
    for (until, count) in [("2013-01-01T00:00:00Z", 0), (&now_and_a_bit(), 1)] {
        let output = broker
            .citystream(&[&args[..], &["--until", until]].concat())
            .run()
            .unwrap();
        assert_eq!(text(&output.stdout).lines().count(), count, "{until}");
    }
}

#[test]
fn a_closed_pipe_ends_tail_quietly() {
    let broker = Broker::start();
    broker.produce(format!("{}\n", good()).repeat(20_000).as_bytes(), &[]);
    let args = ["tail", "--from", "beginning", "--output", "json"];
    let mut child = broker.citystream(&args).start().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    // This `tail` runs without end, so only the closed pipe can have ended it.
    let status = wait(&mut child);
    assert_eq!(status, Some(0));
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert_eq!(told, "");
}

/// Returns the time one second from now, in RFC 3339.
fn now_and_a_bit() -> String {
    citystream::core::time::format_millis(citystream::telemetry::unix_ms() + 1_000)
}
