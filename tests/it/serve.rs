//! Tests of `serve` as a process: access and shutdown.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Start as _;
use crate::world::{WAIT_MAX, terminate};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Returns the command, with an absent DynamoDB.
fn serve(options: &[&str]) -> Command {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_citystream"));
    command
        .args(["serve", "--port", "0"])
        .args(options)
        .env_clear()
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .env("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{closed}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn started(options: &[&str]) -> (Child, String) {
    let mut child = serve(options).stderr(Stdio::null()).start().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.strip_prefix("API and dashboard: http://");
    let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
    (child, address)
}

fn open(address: &str, path: &str, header: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"
    )
    .unwrap();
    stream
}

fn ask(address: &str, path: &str, header: &str) -> String {
    let mut stream = open(address, path, &format!("Connection: close\r\n{header}"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn serve_refuses_to_listen_beyond_loopback_without_a_token_or_leave() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    for (options, words) in [
        (
            &["--bind", "0.0.0.0"][..],
            &["--bind 0.0.0.0", "--auth-token-file", "--allow-anonymous"][..],
        ),
        (&["--bind", "::"], &["--auth-token-file"]),
        (
            &["--auth-token-file", empty],
            &["--auth-token-file", "empty", "no token"],
        ),
        (
            &["--auth-token-file", "/none"],
            &["--auth-token-file", "/none"],
        ),
        (&["--tls-cert", empty], &["--tls-key"]),
        (
            &["--tls-cert", empty, "--tls-key", empty],
            &["--tls-cert", "no certificate"],
        ),
        (
            &["--read-budget", "some"],
            &["--read-budget", "some", "off"],
        ),
        (&["--rate-limit", "fast"], &["--rate-limit", "fast", "20/s"]),
        (
            &["--cors-origin", "https://a.example/x"],
            &["--cors-origin", "https://city.example"],
        ),
        (
            &["--max-connections", "0"],
            &["--max-connections", "0", "1000000"],
        ),
    ] {
        let output = serve(options).run().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{options:?}: {word} is not in {text}");
        }
    }
}

#[test]
fn serve_answers_without_dynamodb_and_ends_whatever_clients_do() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, TOKEN).unwrap();
    let (mut child, address) = started(&["--auth-token-file", tokens.to_str().unwrap()]);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert!(ask(&address, "/livez", "").starts_with("HTTP/1.1 200"));
    assert!(ask(&address, "/api/v1/stats", "").starts_with("HTTP/1.1 401"));
    let begun = Instant::now();
    let answer = ask(&address, "/api/v1/stats", &bearer);
    assert!(
        answer.starts_with("HTTP/1.1 50") && answer.contains("retry-after"),
        "{answer}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));

    let mut listening = open(&address, "/api/v1/stream", &bearer);
    listening.read_exact(&mut [0; 15]).unwrap();
    let mut idle = open(&address, "/livez", "");
    idle.read_exact(&mut [0; 15]).unwrap();
    let _spare = TcpStream::connect(&address).unwrap();
    let mut half = TcpStream::connect(&address).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let begun = Instant::now();
    terminate(&child);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            break;
        }
        assert!(begun.elapsed() < WAIT_MAX, "the process did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    // The server ended the listener's stream instead of cutting it.
    let mut rest = String::new();
    listening.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
}
