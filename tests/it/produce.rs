//! Tests of `produce` as a process, on librdkafka's mock cluster. They read with `tail` what it sent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::Value;

use crate::process::{Start as _, broker_down};
use crate::world::terminate;

const TOPIC: &str = "city-events";
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Broker(pub(crate) MockCluster<'static, DefaultProducerContext>);

impl Broker {
    /// Starts a broker with a topic of six partitions.
    pub(crate) fn start() -> Broker {
        let broker = Broker(MockCluster::new(1).unwrap());
        broker.0.create_topic(TOPIC, 6, 1).unwrap();
        broker
    }

    pub(crate) fn citystream(&self, args: &[&str]) -> Command {
        citystream(&self.0.bootstrap_servers(), args)
    }

    /// Sends `input` with `produce --input -` and more `args`.
    pub(crate) fn produce(&self, input: &[u8], args: &[&str]) -> Output {
        let fixed = ["produce", "--input", "-", "--listen", "127.0.0.1:0"];
        let mut command = self.citystream(&[&fixed[..], args].concat());
        let mut child = command.stdin(Stdio::piped()).start().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Reads the whole log with `tail` and more `args`.
    pub(crate) fn tail(&self, args: &[&str]) -> String {
        let fixed = ["tail", "--from", "beginning", "--exit-at-end"];
        let output = self.citystream(&[&fixed[..], args].concat()).run().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output.stderr), "", "nothing but errors is told there");
        text(&output.stdout)
    }

    pub(crate) fn tail_json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.tail(&[&["--output", "json"], args].concat());
        out.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

fn citystream(brokers: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citystream"));
    command
        .args(args)
        .env_clear()
        .env("KAFKA_BOOTSTRAP_SERVERS", brokers)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn event(city: &str, kind: &str, severity: &str, time: &str) -> String {
    format!(
        r#"{{"city":"{city}","event_type":"{kind}","severity":"{severity}","timestamp":"{time}"}}"#
    )
}

pub(crate) fn good() -> String {
    event("NYC", "traffic", "low", "2013-01-01T06:00:00Z")
}

/// Kafka's murmur2, written a second time from its description.
fn java_partition(key: &str, partitions: u32) -> u32 {
    let data = key.as_bytes();
    let m = 0x5bd1_e995_u32;
    let mut h = 0x9747_b28c_u32 ^ u32::try_from(data.len()).unwrap();
    let whole = data.len() / 4;
    for i in 0..whole {
        let mut k = 0u32;
        for j in 0..4 {
            k += u32::from(data[4 * i + j]) << (8 * j);
        }
        k = k.wrapping_mul(m);
        k = (k ^ (k >> 24)).wrapping_mul(m);
        h = h.wrapping_mul(m) ^ k;
    }
    let rest = &data[4 * whole..];
    if rest.len() > 2 {
        h ^= u32::from(rest[2]) << 16;
    }
    if rest.len() > 1 {
        h ^= u32::from(rest[1]) << 8;
    }
    if !rest.is_empty() {
        h = (h ^ u32::from(rest[0])).wrapping_mul(m);
    }
    h = (h ^ (h >> 13)).wrapping_mul(m);
    ((h ^ (h >> 15)) & 0x7fff_ffff) % partitions
}

#[test]
fn tail_shows_what_produce_sends_and_keys_go_where_java_clients_put_them() {
    let broker = Broker::start();
    let cities = [
        "NYC",
        "LA",
        "Chicago",
        "SF",
        "Boston",
        "Seattle",
        "São Paulo",
        "a",
        "ab",
        "Москва",
    ];
    let lines: Vec<String> = cities
        .iter()
        .map(|city| {
            event(
                &format!(" {city}\\t"),
                "Traffic",
                "HIGH",
                "2013-01-01T06:00:00.5+01:00",
            )
        })
        .collect();
    let input = format!("\u{feff}{}\r\n\r\n", lines.join("\r\n"));
    let output = broker.produce(input.as_bytes(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stderr).contains("sent 10, bad 0, failed 0, undelivered 0"),
        "{output:?}"
    );

    let events = broker.tail_json(&[]);
    assert_eq!(events.len(), cities.len());
    let mut next_offset = BTreeMap::new();
    for event in &events {
        let city = event["city"].as_str().unwrap();
        assert!(cities.contains(&city), "{event}");
        assert_eq!(event["event_type"], "traffic");
        assert_eq!(event["severity"], "high");
        assert_eq!(event["timestamp"], "2013-01-01T05:00:00.500Z");
        assert_eq!(event["partition"], java_partition(city, 6), "{city}");
        let partition = event["partition"].as_u64().unwrap();
        let next = next_offset.entry(partition).or_insert(0);
        assert_eq!(event["offset"], *next);
        assert_eq!(event["event_id"], format!("{TOPIC}-{partition}-{next}"));
        *next += 1;
    }
}

#[test]
fn a_bad_line_is_reported_and_skipped_and_the_exit_code_is_1() {
    let broker = Broker::start();
    let input = format!("{}\n\n{{}}\n{}\nnull\n", good(), good());
    for (args, code) in [(&[][..], 1), (&["--skip-bad"][..], 0)] {
        let output = broker.produce(input.as_bytes(), args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = text(&output.stderr);
        for words in ["line 3: missing_field", "line 5: not_json", "sent 2, bad 2"] {
            assert!(told.contains(words), "{words} is not in {told}");
        }
    }
    assert_eq!(broker.tail_json(&[]).len(), 4);
}

#[test]
fn wrong_settings_are_exit_2_and_a_port_in_use_is_exit_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (args, code, words) in [
        (
            &["produce", "--input", "/nonexistent.ndjson"][..],
            2,
            "/nonexistent.ndjson (--input)",
        ),
        (&["produce", "--listen", &address], 1, "--listen"),
        (
            &[
                "produce",
                "--kafka-property",
                "linger.ms=x",
                "--listen",
                "127.0.0.1:0",
            ],
            2,
            "linger.ms",
        ),
        (&["tail", "--kafka-auth", "scram"], 2, "--kafka-username"),
        (
            &["tail", "--kafka-auth", "scram", "--kafka-username", "u"],
            2,
            "--kafka-password-file",
        ),
    ] {
        let output = citystream("127.0.0.1:9", args).run().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?} {output:?}");
        assert!(text(&output.stderr).contains(words), "{args:?} {output:?}");
    }
}

#[test]
fn a_run_with_an_end_needs_no_free_port() {
    // This process or another one holds the default port: it is taken in either case.
    let _taken = std::net::TcpListener::bind("127.0.0.1:8080");
    let broker = Broker::start();
    let args = ["produce", "--rate", "max", "--count", "5"];
    let output = broker.citystream(&args).run().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(broker.tail_json(&[]).len(), 5);

    let args = ["produce", "--input", "-", "--heartbeat", "never"];
    let output = broker.citystream(&args).run().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(
        told.contains("--heartbeat") && told.contains("or off"),
        "{told}"
    );
}

#[test]
fn the_same_seed_sends_the_same_events() {
    let broker = Broker::start();
    let fixed = [
        "produce",
        "--rate",
        "max",
        "--count",
        "50",
        "--listen",
        "127.0.0.1:0",
    ];
    let sent = |topic: &str, seed: &str| -> Vec<Vec<String>> {
        broker.0.create_topic(topic, 3, 1).unwrap();
        let args = [&fixed[..], &["--topic", topic, "--seed", seed]].concat();
        let output = broker.citystream(&args).run().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let mut partitions = vec![Vec::new(); 3];
        for e in broker.tail_json(&["--topic", topic]) {
            let told = ["city", "event_type", "severity", "description"].map(|f| e[f].to_string());
            partitions[usize::try_from(e["partition"].as_u64().unwrap()).unwrap()]
                .push(told.join(" "));
        }
        assert_eq!(partitions.iter().map(Vec::len).sum::<usize>(), 50);
        partitions
    };
    let first = sent("first", "7");
    assert_eq!(first, sent("second", "7"));
    assert_ne!(first, sent("third", "8"));
}

#[test]
fn heartbeats_of_an_input_carry_its_largest_time_to_every_partition() {
    let broker = Broker::start();
    let lines = [
        event("NYC", "traffic", "low", "2013-01-01T07:00:00Z"),
        event("NYC", "traffic", "low", "2013-01-01T06:00:00Z"),
    ];
    broker.produce(lines.join("\n").as_bytes(), &["--heartbeat", "1h"]);
    // Windows before 06:45 have ended in every partition, so LA's event of 06:10 is late.
    broker.produce(
        event("LA", "traffic", "low", "2013-01-01T06:10:00Z").as_bytes(),
        &[],
    );
    broker.produce(
        event("SF", "traffic", "low", "2013-01-01T06:50:00Z").as_bytes(),
        &[],
    );
    let table = broker.tail(&[]);
    let late: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|l| Some((l.split_whitespace().next()?, l.split_whitespace().last()?)))
        .collect();
    assert_eq!(
        (late["NYC"], late["LA"], late["SF"]),
        ("1", "1", "0"),
        "{table}"
    );
    assert!(!table.contains("rejected"), "{table}");
}

#[test]
fn sigterm_ends_a_steady_producer_and_a_tail_cleanly() {
    let broker = Broker::start();
    let args = ["tail", "--output", "table"];
    let mut tail = broker.citystream(&args).start().unwrap();
    let args = [
        "produce",
        "--rate",
        "200/s",
        "--listen",
        "127.0.0.1:0",
        "--seed",
        "1",
    ];
    let mut produce = broker.citystream(&args).start().unwrap();
    let begun = Instant::now();
    while broker.tail_json(&[]).len() < 50 {
        assert!(begun.elapsed() < WAIT_MAX, "events arrive");
    }
    for child in [&mut produce, &mut tail] {
        terminate(child);
        assert_eq!(wait(child), Some(0));
    }
    let mut told = String::new();
    produce
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(told.contains("failed 0, undelivered 0"), "{told}");
    let mut table = String::new();
    tail.stdout
        .take()
        .unwrap()
        .read_to_string(&mut table)
        .unwrap();
    assert!(table.starts_with("city "), "{table}");
    assert!(!table.contains('\u{1b}'), "no escape codes: {table}");
}

#[test]
fn events_that_kafka_never_took_are_reported_and_the_exit_code_is_1() {
    let broker = Broker::start();
    let args = ["produce", "--rate", "200/s", "--listen", "127.0.0.1:0"];
    let mut produce = broker.citystream(&args).start().unwrap();
    let begun = Instant::now();
    while broker.tail_json(&[]).is_empty() {
        assert!(begun.elapsed() < WAIT_MAX, "events arrive");
    }
    broker_down(&broker.0, 1);
    // This is far more than can be in flight when the broker goes.
    std::thread::sleep(Duration::from_millis(500));
    terminate(&produce);
    assert_eq!(wait(&mut produce), Some(1));
    assert!(begun.elapsed() < WAIT_MAX);
    let mut told = String::new();
    produce
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(told.contains("events are undelivered"), "{told}");
}

#[test]
fn produce_answers_over_http_and_waits_for_the_topic() {
    let broker = Broker(MockCluster::new(1).unwrap());
    let args = [
        "produce",
        "--interval",
        "10ms",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ];
    let mut child = broker.citystream(&args).start().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = |wanted: &str| -> Value {
        loop {
            let line = lines.next().expect("more log lines").unwrap();
            let value: Value = serde_json::from_str(&line).expect(&line);
            if value["message"] == wanted {
                return value;
            }
        }
    };
    let address = next("producing")["address"].as_str().unwrap().to_owned();
    next("waiting for Kafka and the topic");
    let (status, body) = get(&address, "/health");
    assert_eq!(status, 503);
    assert!(body.starts_with("Producer is not healthy: "), "{body}");
    let down = (503, r#"{"status":"DOWN"}"#.to_owned());
    assert_eq!(get(&address, "/actuator/health"), down);
    assert_eq!(get(&address, "/readyz").0, 503);
    assert_eq!(get(&address, "/livez").0, 200);

    broker.0.create_topic(TOPIC, 2, 1).unwrap();
    let begun = Instant::now();
    let figures: Value = loop {
        assert!(begun.elapsed() < WAIT_MAX, "events flow");
        let figures: Value = serde_json::from_str(&get(&address, "/metrics/producer").1).unwrap();
        if figures["successCount"].as_u64() > Some(3) {
            break figures;
        }
    };
    figures_are_complete(&figures);
    paths_of_a_healthy_producer_answer(&address);
    terminate(&child);
    assert_eq!(wait(&mut child), Some(0));
}

/// Checks the figures of `/metrics/producer`.
fn figures_are_complete(figures: &Value) {
    assert_eq!(figures["successRate"], 100.0);
    assert_eq!(figures["failureCount"], 0);
    for field in [
        "totalEvents",
        "avgLatencyMs",
        "minLatencyMs",
        "maxLatencyMs",
        "eventsPerSecond",
        "uptimeSeconds",
    ] {
        assert!(figures[field].is_number(), "{field} in {figures}");
    }
    for field in ["minLatencyMs", "maxLatencyMs"] {
        assert!(figures[field].is_u64(), "{field} in {figures}");
    }
}

/// Checks the paths that operators and monitoring read.
fn paths_of_a_healthy_producer_answer(address: &str) {
    let healthy = (200, "Producer is healthy".to_owned());
    assert_eq!(get(address, "/health"), healthy);
    let (status, body) = ask(address, "GET", "/health", "Accept: application/json\r\n");
    assert!(body.contains("\"status\":\"UP\""), "{status} {body}");
    let up = (200, r#"{"status":"UP"}"#.to_owned());
    assert_eq!(get(address, "/actuator/health"), up);
    assert_eq!(get(address, "/actuator/info"), (200, "{}".to_owned()));
    let names: Value = serde_json::from_str(&get(address, "/actuator/metrics").1).unwrap();
    let names = names["names"].as_array().unwrap();
    assert!(
        names.contains(&"citystream_events_produced_total".into()),
        "{names:?}"
    );
    assert_eq!(ask(address, "OPTIONS", "/health", "").0, 200);
    let (_, scraped) = get(address, "/actuator/prometheus");
    let acked = scraped
        .lines()
        .find_map(|line| line.strip_prefix("citystream_produce_ack_seconds_count "));
    assert!(acked.unwrap().parse::<u64>().unwrap() > 3, "{scraped}");
    assert_eq!(get(address, "/readyz").0, 200);
    let (_, metrics) = get(address, "/metrics");
    assert!(
        metrics.contains("\ncitystream_events_produced_total "),
        "{metrics}"
    );
}

/// Returns the status and the body of the response.
fn get(address: &str, path: &str) -> (u16, String) {
    ask(address, "GET", path, "")
}

/// As `get`, with more header lines.
fn ask(address: &str, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Waits for the exit code. Kills the process if it does not end in time.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > WAIT_MAX {
            child.kill().unwrap();
            panic!("the process did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
