//! Tests of `produce --accept` as a process, on librdkafka's mock cluster. They read with `tail` what it sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::process::{Start as _, broker_down};
use crate::produce::{Broker, event, text, wait};
use crate::world::{WAIT_MAX, terminate};

const PATH: &str = "/api/v1/events";
const JSON: &str = "Content-Type: application/json\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const GZIP: &str = "Content-Encoding: gzip\r\n";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A running role.
pub(crate) struct Door {
    child: Child,
    pub(crate) address: String,
}

/// An answer: its status, its head and its body.
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Door {
    /// Starts the role and waits until it is ready.
    pub(crate) fn start(broker: &Broker, args: &[&str]) -> Door {
        let door = Door::start_unready(broker, args);
        door.wait_until_ready();
        door
    }

    fn start_unready(broker: &Broker, args: &[&str]) -> Door {
        let fixed = ["produce", "--accept", "--listen", "127.0.0.1:0"];
        let mut command = broker.citystream(&[&fixed[..], args].concat());
        let mut child = command.stderr(Stdio::null()).start().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let address = line.strip_prefix("events, health and metrics: http://");
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Door { child, address }
    }

    fn wait_until_ready(&self) {
        let begun = Instant::now();
        while self.ask("GET", "/readyz", "", b"").status != 200 {
            assert!(begun.elapsed() < WAIT_MAX, "the role becomes ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.begin(method, path, headers, body.len());
        // The server may answer and close before it has read everything.
        let _sent = stream.write_all(body);
        read_answer(&mut stream)
    }

    /// Sends the head of a request with a body of `length` bytes.
    fn begin(&self, method: &str, path: &str, headers: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = if headers.contains("Host:") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        )
        .unwrap();
        stream
    }

    fn post(&self, query: &str, headers: &str, body: &[u8]) -> Answer {
        self.ask("POST", &format!("{PATH}{query}"), headers, body)
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = self.begin("GET", "/metrics", "", 0);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Stops the role, and returns its exit code.
    fn stop(mut self) -> Option<i32> {
        terminate(&self.child);
        wait(&mut self.child)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut answer = Vec::new();
    let _reset_after_the_answer = stream.read_to_end(&mut answer);
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn of(city: &str) -> String {
    event(city, "traffic", "low", "2013-01-01T06:00:00Z")
}

#[test]
fn accepted_events_are_in_the_log_where_the_answer_says_and_rejected_ones_are_not() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let own_id = of("LA").replace('}', r#","event_id":"mine"}"#);
    let bad = of("SF").replace("low", "bad");
    let body = format!("{}\r\n\n{bad}\n{own_id}\nnull", of(" NYC "));
    let answer = door.post("?verbose", NDJSON, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["accepted"], 2);
    assert_eq!(answer.body["rejected"], 2);
    let results = answer.body["results"].as_array().unwrap();
    let lines: Vec<_> = results
        .iter()
        .map(|r| r["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [1, 3, 4, 5]);
    assert_eq!(results[1]["reason"], "bad_severity");
    assert!(results[1]["detail"].is_string());
    assert_eq!(results[3]["reason"], "not_json");
    assert_eq!(results[2]["event_id"], "mine");

    let log = broker.tail_json(&[]);
    assert_eq!(log.len(), 2, "{log:?}");
    for (result, city) in [(&results[0], "NYC"), (&results[2], "LA")] {
        assert_eq!(result["status"], "accepted");
        let in_log = log.iter().find(|e| e["city"] == city).unwrap();
        for field in ["partition", "offset", "event_id"] {
            assert_eq!(result[field], in_log[field], "{field}");
        }
    }
    assert_eq!(
        door.metric("citystream_ingest_events_total{outcome=\"accepted\"}"),
        2.0
    );
    assert_eq!(
        door.metric("citystream_ingest_events_total{outcome=\"rejected\"}"),
        2.0
    );
    assert_eq!(
        door.metric("citystream_ingest_requests_total{status=\"200\"}"),
        1.0
    );
    assert_eq!(door.metric("citystream_ingest_request_seconds_count"), 1.0);
    assert_eq!(door.stop(), Some(0));
}

#[test]
fn a_body_is_an_object_an_array_or_lines_and_may_be_packed() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let lines = format!("{}\n{}\n", of("B1"), of("B2"));
    let array = format!("[\n  {},\n  {}\n]", of("C1"), of("C2"));
    let pretty = of("A1").replace(',', ",\n  ");
    for (headers, body, count) in [
        (JSON.to_owned(), pretty.into_bytes(), 1),
        (FORM.to_owned(), of("A2").into_bytes(), 1),
        (String::new(), of("A3").into_bytes(), 1),
        (JSON.to_owned(), lines.clone().into_bytes(), 2),
        (NDJSON.to_owned(), lines.clone().into_bytes(), 2),
        (FORM.to_owned(), lines.into_bytes(), 2),
        (JSON.to_owned(), array.clone().into_bytes(), 2),
        (format!("{JSON}{GZIP}"), gzip(array.as_bytes()), 2),
    ] {
        let answer = door.post("", &headers, &body);
        let want = json!({"accepted": count, "rejected": 0, "results": []});
        assert_eq!((answer.status, answer.body), (200, want), "{headers}");
    }
    let many = format!("{}\n", of("NYC")).repeat(10_000);
    let answer = door.post(
        "?verbose",
        &format!("{NDJSON}{GZIP}"),
        &gzip(many.as_bytes()),
    );
    assert_eq!(answer.body["accepted"], 10_000, "{}", answer.body);
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 10_000);
    assert_eq!(broker.tail_json(&[]).len(), 10_013);
}

#[test]
fn the_time_of_arrival_replaces_now_and_a_missing_time() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let now = r#"{"city":"NYC","event_type":"incident","severity":"critical","description":"…","timestamp":"now"}"#;
    let none = now.replace(r#","timestamp":"now""#, "");
    for body in [now, &none] {
        assert_eq!(door.post("", FORM, body.as_bytes()).status, 200);
    }
    let log = broker.tail_json(&[]);
    assert_eq!(log.len(), 2);
    for event in log {
        let time = event["timestamp"].as_str().unwrap();
        assert!(time > "2024-" && time.len() == 24, "{event}");
        assert_eq!(event["description"], "…");
    }
}

#[test]
fn requests_that_cannot_be_taken_have_their_status_and_send_nothing() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let good = of("NYC");
    let good = good.as_bytes();
    let large = vec![b'x'; (16 << 20) + 1];
    let many = format!("{}\n", of("NYC")).repeat(10_001);
    let foreign = format!("{JSON}Origin: http://evil.example\r\n");
    let rebound = format!("{JSON}Host: rebound.example\r\n");
    let packed = format!("{JSON}{GZIP}");
    for (query, headers, body, status, code) in [
        ("", JSON, &b""[..], 400, "bad_body"),
        ("", JSON, b"[]", 400, "bad_body"),
        ("", JSON, b"[{},", 400, "bad_body"),
        ("", &packed, good, 400, "bad_body"),
        ("?pretty", JSON, good, 400, "bad_parameter"),
        ("", &foreign, good, 403, "forbidden"),
        ("", &rebound, good, 403, "forbidden"),
        ("", JSON, &large, 413, "body_too_large"),
        ("", &packed, &gzip(&large), 413, "body_too_large"),
        ("", NDJSON, many.as_bytes(), 413, "too_many_events"),
        (
            "",
            "Content-Type: text/plain\r\n",
            good,
            415,
            "unsupported_media_type",
        ),
        (
            "",
            "Content-Encoding: br\r\n",
            good,
            415,
            "unsupported_media_type",
        ),
        ("", JSON, b"{}", 422, "no_valid_event"),
    ] {
        let answer = door.post(query, headers, body);
        assert_eq!(answer.status, status, "{query} {headers} {}", answer.body);
        assert_eq!(answer.body["code"], code);
        assert!(answer.body["error"].is_string() && answer.body["request_id"].is_string());
    }
    let answer = door.post("", JSON, b"{}");
    assert_eq!(answer.body["rejected"], 1);
    assert_eq!(answer.body["results"][0]["reason"], "missing_field");
    let answer = door.ask("GET", PATH, "", b"");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: post"), "{}", answer.head);
    assert_eq!(door.ask("POST", "/api/v1/event", JSON, good).status, 404);
    let document = door.ask("GET", "/openapi.json", "", b"").body;
    assert!(document["paths"][PATH]["post"].is_object(), "{document}");
    assert_eq!(broker.tail_json(&[]).len(), 0);
}

#[test]
fn an_event_that_kafka_has_not_acknowledged_is_unknown_and_later_ones_are_not_sent() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    assert_eq!(door.post("", JSON, of("before").as_bytes()).status, 200);
    broker_down(&broker.0, 1);
    let body = format!("{}\n{{}}\n", of("away"));
    let answer = door.post("", NDJSON, body.as_bytes());
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert_eq!(answer.body["code"], "kafka_unavailable");
    assert_eq!(
        (&answer.body["accepted"], &answer.body["unknown"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(
        answer.body["results"][0],
        json!({"line": 1, "status": "unknown"})
    );
    assert_eq!(answer.body["results"][1]["status"], "rejected");
    // Once the role knows that Kafka is away, it sends nothing more.
    let begun = Instant::now();
    let answer = loop {
        assert!(begun.elapsed() < WAIT_MAX, "the role notices");
        if door.ask("GET", "/readyz", "", b"").status == 503 {
            break door.post("", JSON, of("never").as_bytes());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body["code"], "kafka_unavailable");
    assert!(answer.body["results"].is_null(), "{}", answer.body);

    broker.0.broker_up(1).unwrap();
    door.wait_until_ready();
    assert_eq!(door.post("", JSON, of("after").as_bytes()).status, 200);
    let cities: Vec<_> = broker
        .tail_json(&[])
        .iter()
        .map(|e| e["city"].clone())
        .collect();
    assert_eq!(cities.len(), 3, "{cities:?}");
    for city in ["before", "away", "after"] {
        assert!(cities.contains(&city.into()), "{city} is not in {cities:?}");
    }
    assert_eq!(door.stop(), Some(0));
}

#[test]
fn a_stop_finishes_what_is_under_way_and_refuses_the_rest() {
    let broker = Broker::start();
    let mut door = Door::start(&broker, &[]);
    let half = of("half");
    let mut waiting = door.begin("POST", PATH, JSON, half.len());
    waiting.write_all(&half.as_bytes()[..20]).unwrap();
    let address = door.address.clone();
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let address = address.clone();
            std::thread::spawn(move || send_until_refused(&address, sender))
        })
        .collect();
    let begun = Instant::now();
    while broker.tail_json(&[]).len() < 20 {
        assert!(begun.elapsed() < WAIT_MAX, "events arrive");
    }
    terminate(&door.child);
    let refused = read_answer(&mut waiting);
    assert_eq!(
        (refused.status, &refused.body["code"]),
        (503, &json!("stopping"))
    );
    assert_eq!(wait(&mut door.child), Some(0));
    let log = broker.tail_json(&[]);
    let cities: Vec<&str> = log.iter().map(|e| e["city"].as_str().unwrap()).collect();
    assert!(!cities.contains(&"half"));
    for accepted in senders
        .into_iter()
        .flat_map(|sender| sender.join().unwrap())
    {
        assert!(
            cities.contains(&&*accepted),
            "{accepted} was answered as accepted"
        );
    }
}

/// Sends events one by one until the role answers no more. Returns the cities of those that it accepted.
fn send_until_refused(address: &str, sender: u32) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0.. {
        let city = format!("{sender} {number}");
        let body = of(&city);
        let Ok(mut stream) = TcpStream::connect(address) else {
            break;
        };
        let length = body.len();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        let mut answer = String::new();
        if stream.write_all(head.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err()
        {
            break;
        }
        if !answer.starts_with("HTTP/1.1 200") {
            break;
        }
        accepted.push(city);
    }
    assert!(!accepted.is_empty());
    accepted
}

#[test]
fn tokens_rates_and_addresses_are_checked_as_in_serve() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, TOKEN).unwrap();
    let tokens = tokens.to_str().unwrap();
    let door = Door::start_unready(&broker, &["--auth-token-file", tokens]);
    let body = of("NYC");
    let answer = door.post("", JSON, body.as_bytes());
    assert_eq!(answer.status, 401);
    assert!(
        answer.head.contains("www-authenticate: bearer"),
        "{}",
        answer.head
    );
    let bearer = format!("{JSON}Authorization: Bearer {TOKEN}\r\n");
    let begun = Instant::now();
    while door.post("", &bearer, body.as_bytes()).status != 200 {
        assert!(begun.elapsed() < WAIT_MAX, "the token is accepted");
    }
    assert_eq!(door.ask("GET", "/livez", "", b"").status, 200);
    assert_eq!(door.ask("GET", "/metrics", "", b"").status, 401);

    let door = Door::start_unready(&broker, &["--rate-limit", "1/s"]);
    let statuses: Vec<u16> = (0..3).map(|_| door.post("", JSON, b"{}").status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");

    for (args, words) in [
        (
            &["--listen", "0.0.0.0:0"][..],
            &[
                "--listen 0.0.0.0:0",
                "--auth-token-file",
                "--allow-anonymous",
            ][..],
        ),
        (&["--input", "x"], &["--accept", "--input"]),
        (&["--from-dlq"], &["--accept", "--from-dlq"]),
        (&["--rate", "max"], &["--accept", "--rate"]),
        (
            &["--auth-token-file", "/none"],
            &["--auth-token-file", "/none"],
        ),
    ] {
        let args = [&["produce", "--accept"][..], args].concat();
        let output = broker.citystream(&args).run().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
        for word in words {
            assert!(text(&output.stderr).contains(word), "{args:?} {output:?}");
        }
    }
}

#[test]
fn a_body_that_does_not_arrive_is_given_up() {
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let mut slow = door.begin("POST", PATH, JSON, 1_000);
    slow.write_all(b"{").unwrap();
    let answer = read_answer(&mut slow);
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (408, &json!("body_too_slow"))
    );
}

#[test]
fn the_bytes_of_one_clients_bodies_are_limited() {
    // Two of these bodies fit into the share of one client, a quarter of 128 MiB.
    const LENGTH: usize = 12 << 20;
    let broker = Broker::start();
    let door = Door::start(&broker, &[]);
    let event = of("NYC").into_bytes();
    let mut body = vec![b'\n'; LENGTH - event.len()];
    body.extend(event);
    let mut held: Vec<TcpStream> = (0..2)
        .map(|_| door.begin("POST", PATH, NDJSON, LENGTH))
        .collect();
    for stream in &mut held {
        stream.write_all(&body[..LENGTH - 1]).unwrap();
    }
    let begun = Instant::now();
    loop {
        let answer = door.post("", NDJSON, &body);
        if answer.status == 503 {
            assert_eq!(answer.body["code"], "busy");
            break;
        }
        assert!(begun.elapsed() < WAIT_MAX, "the bytes are counted");
    }
    let before = broker.tail_json(&[]).len();
    for stream in &mut held {
        stream.write_all(&body[LENGTH - 1..]).unwrap();
        assert_eq!(read_answer(stream).body["accepted"], 1);
    }
    assert_eq!(door.post("", NDJSON, &body).status, 200);
    assert_eq!(broker.tail_json(&[]).len(), before + 3);
}
