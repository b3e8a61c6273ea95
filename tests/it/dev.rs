//! `dev` as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

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
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn k1_the_same_input_in_a_kept_folder_counts_again_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("events.ndjson");
    std::fs::write(&input, data_lines(120).join("\n")).unwrap();
    let (tables, log) = (dir.path().join("tables"), dir.path().join("log"));
    for run in 1..=2u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args(["dev", "--port", "0", "--input"])
            .arg(&input)
            .arg("--data-dir")
            .arg(&tables)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
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
            .args(["dev", "--port", "0", "--data-dir"])
            .arg(&tables)
            .env_clear()
            .output()
            .unwrap();
        assert_eq!(second.status.code(), Some(1));
        let told = String::from_utf8_lossy(&second.stderr);
        assert!(told.contains("in use by another citystream dev"), "{told}");
        assert_eq!(stop(child), Some(0));
        // Its end is none of the broker's, either.
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    }
}
