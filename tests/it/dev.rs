//! Tests of `dev` as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Start as _;
use crate::world::{WAIT_MAX, data_lines, terminate};

fn get(address: &str, path: &str) -> Value {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or(Value::Null)
}

fn stop(mut child: Child) -> Option<i32> {
    terminate(&child);
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

/// A `dev` on free ports, with the greeting that it printed.
struct Dev {
    child: Child,
    greeting: String,
    page: String,
}

impl Dev {
    fn start(options: &[&str]) -> Dev {
        let mut child = Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args([
                "dev",
                "--port",
                "0",
                "--kafka-port",
                "0",
                "--dynamodb-port",
                "0",
            ])
            .args(options)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .start()
            .unwrap();
        let (mut greeting, mut out) = (String::new(), child.stdout.take().unwrap());
        let mut piece = [0; 4_096];
        while !greeting.contains("list-tables\n") {
            let read = out.read(&mut piece).unwrap();
            assert!(read > 0, "{greeting}");
            greeting.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        let page = greeting
            .lines()
            .find_map(|line| line.trim().strip_prefix("http://"));
        let page = page
            .expect("it prints its address")
            .trim_end_matches('/')
            .to_owned();
        Dev {
            child,
            greeting,
            page,
        }
    }

    /// Runs a command with the variables from the greeting.
    fn citystream(&self, args: &[&str]) -> std::process::Output {
        let exports = self
            .greeting
            .lines()
            .filter_map(|line| line.trim().strip_prefix("export "));
        let variables: Vec<(&str, &str)> = exports
            .flat_map(|line| line.split(' '))
            .map(|pair| pair.split_once('=').expect("name=value"))
            .collect();
        assert_eq!(variables.len(), 6, "{}", self.greeting);
        Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args(args)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .run()
            .unwrap()
    }

    fn stats(&self) -> Value {
        get(&self.page, "/api/v1/stats")
    }

    /// Waits until `is` returns true.
    fn wait_for(&self, what: &str, is: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < 4 * WAIT_MAX, "{what}: {}", self.stats());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a request as the page does, and returns the JSON of the response.
fn panel(address: &str, token: &str, method: &str, path: &str) -> Value {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nx-citystream-token: {token}\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).expect(&answer)
}

/// Sends the event of the first command that the greeting offers, as `curl` would, and returns the answer.
fn first_command(dev: &Dev, headers: &str) -> Value {
    let line = dev.greeting.lines().find(|line| line.contains("curl"));
    let parts: Vec<&str> = line.expect("a command").split('\'').collect();
    let ["curl -d ", body, url] = parts
        .iter()
        .map(|part| part.trim_start())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{line:?}")
    };
    assert_eq!(url, format!("http://{}/api/v1/events", dev.page));
    let mut stream = std::net::TcpStream::connect(&dev.page).unwrap();
    write!(
        stream,
        "POST /api/v1/events HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n{body}",
        dev.page,
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).expect(&answer)
}

#[test]
fn the_first_command_of_the_greeting_sends_an_event_that_the_api_shows() {
    let dev = Dev::start(&["--rate", "1/s", "--history", "off"]);
    let own = || get(&dev.page, "/api/v1/alerts?city=NYC&severity=critical").to_string();
    let is_there = || own().contains("Water main break");
    let total = || dev.stats()["total_events_processed"].as_u64();
    dev.wait_for("a first event", || total() > Some(0));
    assert!(!is_there());
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = first_command(&dev, form);
    let want = serde_json::json!({"accepted": 1, "rejected": 0, "results": []});
    assert_eq!(answer, want);
    dev.wait_for("the event", is_there);
    // The event belongs to an incident, about which the receiver of `dev` is told.
    let is_told = || {
        let incidents = get(&dev.page, "/api/v1/incidents?city=NYC&rule=critical").to_string();
        incidents.contains("Water main break") && incidents.contains("\"outcome\":\"taken\"")
    };
    dev.wait_for("a message about an incident", is_told);
    // The page of `dev` itself may send events, and a page of another site may not.
    let json = "Content-Type: application/json\r\n";
    let own_page = format!("{json}Origin: http://{}\r\n", dev.page);
    assert_eq!(first_command(&dev, &own_page), want);
    for foreign in [json, form].map(|kind| format!("{kind}Origin: http://evil.example\r\n")) {
        assert_eq!(first_command(&dev, &foreign)["code"], "forbidden");
    }
}

#[test]
fn a_history_shows_at_once_and_other_commands_work_next_to_dev() {
    let dev = Dev::start(&["--rate", "1/s", "--history", "1h"]);
    let counted = || dev.stats()["total_events_processed"].as_u64() >= Some(3_600);
    dev.wait_for("the history", counted);
    assert_eq!(dev.stats()["late_events"], 0);
    let timeline = get(&dev.page, "/api/v1/timeline?hours=2");
    assert!(timeline.to_string().contains("severity_low"), "{timeline}");

    let output = dev.citystream(&["verify", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report["log"].as_i64() >= Some(3_600), "{report}");
    let output = dev.citystream(&["tail", "--from", "beginning", "-n", "3", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        3
    );
}

#[test]
fn every_accident_at_once_is_logged_with_what_dev_waits_for() {
    let dev = Dev::start(&["--rate", "60/s", "--history", "off"]);
    let counted = || dev.stats()["total_events_processed"].as_u64() > Some(300);
    dev.wait_for("events", counted);
    let mut stream = std::net::TcpStream::connect(&dev.page).unwrap();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let token = page
        .split_once("citystream-token\" content=\"")
        .expect(&page)
        .1;
    let token = token.split_once('"').unwrap().0.to_owned();

    for what in ["broker", "throttle", "cut", "zombie", "kill", "garbage"] {
        panel(&dev.page, &token, "POST", &format!("/dev/break/{what}"));
    }
    let state = || panel(&dev.page, &token, "GET", "/dev/state");
    let waiting = state()["waiting"].to_string();
    assert!(
        waiting.contains("Kafka (its broker is stopped)"),
        "{waiting}"
    );
    dev.wait_for("the end of all accidents", || {
        state()["running"] == Value::Array(vec![])
    });
    let log = state()["log"].to_string();
    let number = |before: &str, after: &str| -> u64 {
        let (_, rest) = log
            .split_once(before)
            .unwrap_or_else(|| panic!("{before}: {log}"));
        let digits = rest
            .split_once(after)
            .unwrap_or_else(|| panic!("{after}: {log}"))
            .0;
        digits.parse().unwrap_or_else(|_| panic!("{digits}: {log}"))
    };
    assert!(number("accepts writes again; ", " were refused") > 0);
    assert!(number("answers arrive again; ", " were lost") > 0);
    assert!(number("the zombie is gone: of ", " records") > 0);
    // Every row that was written during the accidents agrees with the log.
    let ended_ms = citystream::telemetry::unix_ms().0;
    let agrees = || {
        let found = &state()["difference"];
        found["at_ms"].as_i64() > Some(ended_ms) && found["difference"] == 0
    };
    dev.wait_for("log and tables to agree", agrees);
    dev.wait_for("nothing to wait for", || state()["waiting"].is_null());
}

#[test]
fn the_same_input_in_a_kept_folder_is_counted_again_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("events.ndjson");
    std::fs::write(&input, data_lines(120).join("\n")).unwrap();
    let (tables, log) = (dir.path().join("tables"), dir.path().join("log"));
    for run in 1..=2u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args([
                "dev",
                "--port",
                "0",
                "--kafka-port",
                "0",
                "--dynamodb-port",
                "0",
            ])
            .arg("--input")
            .arg(&input)
            .arg("--data-dir")
            .arg(&tables)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .start()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            let at = line.trim().strip_prefix("http://")?;
            Some(at.trim_end_matches('/').to_owned())
        });
        let address = address.expect("it prints its address");
        let begun = Instant::now();
        let stats = loop {
            let stats = get(&address, "/api/v1/stats");
            if stats["total_events_processed"].as_u64() >= Some(120 * run) {
                break stats;
            }
            assert!(begun.elapsed() < WAIT_MAX, "{stats}");
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_eq!(stats["total_events_processed"], 120 * run, "{stats}");
        let second = Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args([
                "dev",
                "--port",
                "0",
                "--kafka-port",
                "0",
                "--dynamodb-port",
                "0",
            ])
            .arg("--data-dir")
            .arg(&tables)
            .env_clear()
            .run()
            .unwrap();
        assert_eq!(second.status.code(), Some(1));
        let told = String::from_utf8_lossy(&second.stderr);
        assert!(told.contains("in use by another citystream dev"), "{told}");
        assert_eq!(stop(child), Some(0));
        // The end of the embedded broker must not be logged as a failure.
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    }
}
