//! Tests of CSV files and of `--dry-run` with the example of docs/EVENTS.md.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::process::Start as _;
use crate::produce::{Broker, good, text};
use crate::snippets::blocks;

const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/data/city-events-2013-01.ndjson.gz"
);

/// The file, the command and the output in docs/EVENTS.md.
fn example() -> (String, String, String) {
    let file = blocks("csv").pop().expect("a file");
    let mut commands = blocks("").into_iter();
    let command = commands.find(|block| block.starts_with("citystream produce --input calls.csv"));
    let output = blocks("text").pop().expect("an output");
    (file + "\n", command.expect("a command"), output + "\n")
}

/// Runs a shell command in a folder. The first word of `command` must be `citystream`.
fn shell(folder: &Path, command: &str, brokers: &str) -> Output {
    let binary = env!("CARGO_BIN_EXE_citystream");
    let command = command.replacen("citystream", binary, 1);
    let mut shell = Command::new("/bin/sh");
    let shell = shell.args(["-c", &command]).current_dir(folder).env_clear();
    let shell = shell.env("KAFKA_BOOTSTRAP_SERVERS", brokers);
    shell.stdin(Stdio::null()).run().unwrap()
}

/// Returns the events of lines of JSON without their ids, with their times in seconds.
fn events(lines: &str) -> Vec<Value> {
    let event = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event["timestamp"] = event["timestamp"]
            .as_str()
            .unwrap()
            .replace(".000Z", "Z")
            .into();
        event["event_type"] = event["event_type"].as_str().unwrap().to_lowercase().into();
        event
    };
    lines.lines().map(event).collect()
}

#[test]
fn a_dry_run_shows_events_and_rejects_without_kafka() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command, want) = example();
    std::fs::write(folder.path().join("calls.csv"), file).unwrap();
    for (more, code) in [("", 1), (" --skip-bad", 0)] {
        let output = shell(folder.path(), &format!("{command}{more}"), "127.0.0.1:9");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let shown = text(&output.stdout);
        assert_eq!(shown.clone() + &text(&output.stderr), want);
        let mut data = String::new();
        let packed = std::fs::File::open(DATA).unwrap();
        GzDecoder::new(packed).read_to_string(&mut data).unwrap();
        let data = events(&data);
        for event in events(&shown) {
            assert!(data.contains(&event), "{event}");
        }
    }
}

#[test]
fn a_dry_run_reads_json_too() {
    let command = format!("citystream produce --dry-run --input {DATA}");
    let folder = Path::new("/");
    let output = shell(folder, &command, "127.0.0.1:9");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout).lines().count(), 10);
    let told = text(&output.stderr);
    assert!(
        told.contains("33,960 events would be sent, 0 rejected"),
        "{told}"
    );

    let some = shell(
        folder,
        &format!("{command} --count 3 --log-format json"),
        "127.0.0.1:9",
    );
    assert_eq!(some.status.code(), Some(0), "{some:?}");
    assert_eq!(text(&some.stdout).lines().count(), 3);
    let told = text(&some.stderr);
    let summary: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&summary["events"], &summary["rejected"]),
        (&3.into(), &0.into())
    );

    let broker = Broker::start();
    let output = broker.produce(format!("{}\n[\n", good()).as_bytes(), &["--dry-run"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), good() + "\n");
    assert!(broker.tail_json(&[]).is_empty());
}

#[test]
fn the_rows_of_a_csv_file_are_sent() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, command, _) = example();
    let packed = std::fs::File::create(folder.path().join("calls.csv.gz")).unwrap();
    let mut gz = GzEncoder::new(packed, Compression::fast());
    gz.write_all(file.as_bytes()).unwrap();
    gz.finish().unwrap();
    std::fs::write(folder.path().join("calls.txt"), &file).unwrap();
    let command = command.replace("--dry-run", "--listen 127.0.0.1:0");
    for (input, sent) in [
        ("calls.csv.gz", 2),
        ("calls.txt --input-format csv", 4),
        ("- --input-format csv < calls.txt", 6),
    ] {
        let (first, rest) = command.split_once("calls.csv").unwrap();
        let (input, redirection) = input.split_once(" <").unwrap_or((input, ""));
        let redirection = redirection.replacen(' ', " < ", 1);
        let command = format!("{first}{input}{rest}{redirection}");
        let output = shell(folder.path(), &command, &broker.0.bootstrap_servers());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = text(&output.stderr);
        assert!(told.contains("line 4: missing_field: no city"), "{told}");
        assert!(told.contains("sent 2, bad 1, failed 0"), "{told}");
        let events = broker.tail_json(&["--city", "NYC"]);
        assert_eq!(events.len(), sent, "{input}");
    }
    let events = broker.tail_json(&[]);
    let flight = &events[0];
    assert_eq!(flight["event_id"], "2013-01-01-MQ4576-LGA-630-dep");
    assert_eq!(flight["event_type"], "traffic");
    assert_eq!(flight["timestamp"], "2013-01-01T13:11:00.000Z");
}

#[test]
fn an_export_of_open_data_is_sent_by_one_command() {
    let broker = Broker::start();
    let mut commands = blocks("").into_iter();
    let command = commands.find(|block| block.starts_with("citystream produce --input data/"));
    let command = command.expect("a command") + " --listen 127.0.0.1:0";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = shell(root, &command, &broker.0.bootstrap_servers());
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let packed = std::fs::File::open(root.join("data/weather-2013-01.csv.gz")).unwrap();
    let mut rows = String::new();
    GzDecoder::new(packed).read_to_string(&mut rows).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let is_fog = cells[13].parse::<f64>().unwrap() <= 0.25;
        let severity = if is_fog { "critical" } else { "low" };
        [cells[0], &cells[14].replace('Z', ".000Z"), severity].map(str::to_owned)
    };
    let mut rows: Vec<_> = rows.lines().skip(1).map(row).collect();
    let sent = broker.tail_json(&[]);
    let field = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    let event = |event: &Value| ["city", "timestamp", "severity"].map(|name| field(event, name));
    let mut sent: Vec<_> = sent.iter().map(event).collect();
    rows.sort();
    sent.sort();
    assert_eq!(sent, rows);
    assert_eq!(sent.len(), 2_226);
}

#[test]
fn wrong_options_for_csv_are_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command, _) = example();
    std::fs::write(folder.path().join("calls.csv"), file).unwrap();
    let wrong = |from: &str, to: &str| command.replacen(from, to, 1);
    for (command, words) in [
        (
            "citystream produce --input calls.csv".to_owned(),
            "no column is known for city, event_type, severity, timestamp",
        ),
        (wrong("=Borough", "=Burough"), "did you mean \"Borough\"?"),
        (
            wrong("calls.csv", "/dev/null --input-format csv"),
            "the file is empty",
        ),
        (
            wrong("calls.csv", "calls.csv --input-format ndjson"),
            "--map is for CSV",
        ),
        (wrong("city=", "citi="), "did you mean city?"),
        (wrong("%m/%d/%Y", "%H"), "--time-format"),
        (wrong("America/New_York", "EST5"), "America/New_York or UTC"),
        ("citystream produce --dry-run".to_owned(), "--input"),
    ] {
        let output = shell(folder.path(), &command, "127.0.0.1:9");
        assert_eq!(output.status.code(), Some(2), "{command} {output:?}");
        let told = text(&output.stderr);
        assert!(told.contains(words), "{command}: {words} is not in {told}");
    }
}
