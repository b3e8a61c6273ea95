//! Tests of what a person reads before anything runs: help, versions, typos and errors, compared with recorded texts.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it golden` records the texts again. Read the difference afterwards.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rdkafka::mocking::MockCluster;

use crate::process::Start as _;

/// Every command, and the help that the program prints without one.
const COMMANDS: [&str; 16] = [
    "",
    "init-tables",
    "produce",
    "consume",
    "serve",
    "tail",
    "verify",
    "notify",
    "silence",
    "silence add",
    "silence list",
    "silence end",
    "check",
    "config",
    "print",
    "dev",
];

fn citystream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citystream"));
    command
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> (String, i32) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.run().unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    (text, status.code().expect("it ends by itself"))
}

/// Compares `text` with the file `tests/<path>`, or records it.
pub(crate) fn golden(path: &str, text: &str) {
    let path = format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if text != want {
        let lines = text.lines().zip(want.lines().chain(std::iter::repeat("")));
        let first = lines.into_iter().find(|(got, want)| got != want);
        panic!("{path} differs, first here: {first:?}\n{text}");
    }
}

#[test]
fn golden_help_of_every_command() {
    for command in COMMANDS {
        let args: Vec<&str> = command.split_whitespace().chain(["-h"]).collect();
        let (text, code) = run(&mut citystream(&args));
        assert_eq!(code, 0, "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
        let name = if command.is_empty() { "all" } else { command };
        let name = name.replace(' ', "-");
        golden(&format!("it/golden/help-{name}.txt"), &text);
        let (long, code) = run(&mut citystream(
            &[&args[..args.len() - 1], &["--help"]].concat(),
        ));
        assert_eq!(code, 0, "{long}");
        // The help must be readable in forty columns.
        let (narrow, code) = run(citystream(&args).env("COLUMNS", "40"));
        assert_eq!(code, 0);
        for word in text.split_whitespace().filter(|w| w.starts_with("--")) {
            let option = word.trim_end_matches(|c: char| !c.is_ascii_lowercase());
            let both = narrow.contains(option) && long.contains(option);
            assert!(both, "{command}: {option} is not in\n{narrow}\n{long}");
        }
    }
    let (text, code) = run(&mut citystream(&[]));
    assert_eq!(code, 2, "nothing to do is a mistake");
    assert!(text.contains("The pipeline:"), "{text}");
}

#[test]
fn versions_are_short_and_long() {
    let name = concat!("citystream ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&mut citystream(&["-V"])), (name.to_owned(), 0));
    let (long, code) = run(&mut citystream(&["--version"]));
    assert!(long.starts_with(name) && code == 0, "{long}");
    for line in ["\ncommit ", "\nlibrdkafka 2."] {
        assert!(long.contains(line), "{long}");
    }
}

#[test]
fn golden_errors_say_what_why_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let address = format!("127.0.0.1:{port}");
    let no_ca_file = "consume --kafka-auth tls --kafka-ca-file none.pem";
    let no_ca_file: Vec<&str> = no_ca_file.split(' ').collect();
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 29] = [
        (&["prodce"], &[]),
        (&["produce", "--intervall", "5s"], &[]),
        (&["produce", "--interval", "5x"], &[]),
        (&["tail", "--output", "jsn"], &[]),
        (&["print", "unit"], &[]),
        (&["print", "completions"], &[]),
        (&["print", "env", "--into", "/proc/none"], &[]),
        (&["init-tables", "--print-iam-policy", "produce"], &[]),
        (&["init-tables", "--delete"], &[]),
        (&["produce", "--speed", "60x"], &[]),
        (&["produce", "--late-ratio", "5%"], &[]),
        (&["produce", "--input", "none.ndjson"], &[]),
        (&["produce", "--input", "/"], &[]),
        (&["dev", "--input", "none.ndjson"], &[]),
        (&["dev", "--data-dir", "/proc/none"], &[]),
        (&["produce", "--listen", &address], &[]),
        (&["consume", "--listen", &address], &[]),
        (&["serve", "--port", &port], &[]),
        (&["dev", "--port", &port], &[]),
        (&["serve", "--bind", "0.0.0.0"], &[]),
        (&["serve", "--port", "0"], &[("AWS_REGION", "")]),
        (&["tail", "--kafka-auth", "scram"], &[]),
        (&no_ca_file, &[]),
        (&["consume", "--kafka-property", "fetch.min.byte=1"], &[]),
        (&["consume"], &[("CITYSTREAM_BROKER", "b-1:9092")]),
        (&["consume"], &[("CITYSTREAM_ROW_INTERVAL", "5")]),
        (&["tail", "--brokers", "http://localhost:9092"], &[]),
        (&["consume", "--group="], &[]),
        (
            &["consume"],
            &[("AWS_ENDPOINT_URL_DYNAMODB", "localhost:8000")],
        ),
    ];
    let mut text = String::new();
    for (args, variables) in cases {
        let mut command = citystream(args);
        command
            .env("AWS_REGION", "eu-west-1")
            .env("RUST_LOG", "error");
        for (name, value) in variables {
            if value.is_empty() {
                command.env_remove(name);
            } else {
                command.env(name, value);
            }
        }
        let (said, code) = run(&mut command);
        let said = said.replace(&port, "PORT");
        assert!(
            !said.contains("panicked") && !said.contains("RUST_BACKTRACE"),
            "{said}"
        );
        let args = args.join(" ").replace(&port, "PORT");
        text.push_str(&format!("$ citystream {args}\n{said}[exit {code}]\n\n"));
    }
    golden("it/golden/errors.txt", &text);
}

/// A DynamoDB that refuses every request in the same way.
fn refusing(code: &'static str, message: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            // In these tests a request is one JSON object after its head.
            while !request.ends_with(b"}") {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => request.extend_from_slice(&part[..n]),
                }
            }
            let body = format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"{message}"}}"#
            );
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close\r\n";
            let _gone = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    format!("http://{address}")
}

#[test]
fn golden_errors_of_dynamodb() {
    let mut text = String::new();
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("city-events", 1, 1).unwrap();
    for (code, message) in [
        ("ResourceNotFoundException", "Requested resource not found"),
        (
            "AccessDeniedException",
            "User: x is not authorized to perform: dynamodb:GetItem",
        ),
        (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
    ] {
        let servers = broker.bootstrap_servers();
        let kafka = ["--brokers", servers.as_str()];
        for (role, more) in [
            ("verify", &kafka[..]),
            ("init-tables", &kafka),
            ("silence list", &[]),
        ] {
            if role == "init-tables" && code == "ResourceNotFoundException" {
                continue; // It would make them.
            }
            let args: Vec<&str> = role.split(' ').chain(more.iter().copied()).collect();
            let mut command = citystream(&args);
            command
                .env("AWS_REGION", "eu-west-1")
                .env("AWS_ACCESS_KEY_ID", "wrong")
                .env("AWS_SECRET_ACCESS_KEY", "wrong")
                .env("AWS_ENDPOINT_URL_DYNAMODB", refusing(code, message))
                .env("RUST_LOG", "error");
            let (said, exit) = run(&mut command);
            let port = said.split("127.0.0.1:").nth(1).map(|rest| {
                rest.chars()
                    .take_while(char::is_ascii_digit)
                    .collect::<String>()
            });
            let said = port.map_or(said.clone(), |port| said.replace(&port, "PORT"));
            text.push_str(&format!("$ citystream {role}\n{said}[exit {exit}]\n\n"));
        }
    }
    golden("it/golden/errors-dynamodb.txt", &text);
}

#[test]
fn a_waiting_role_logs_what_it_waits_for_and_the_remedy() {
    let broker = MockCluster::new(1).unwrap();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for (servers, todo) in [
        (broker.bootstrap_servers(), "citystream init-tables"),
        (nobody, "--brokers"),
    ] {
        for role in [&["produce", "--listen", "127.0.0.1:0"][..], &["tail"]] {
            let mut child = citystream(&[role, &["--brokers", &servers]].concat())
                .start()
                .unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let told = lines
                .map(Result::unwrap)
                .find(|line| line.contains("waiting for"));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(
                told.as_ref().is_some_and(|line| line.contains(todo)),
                "{role:?}: {told:?}"
            );
        }
    }
}

#[test]
fn a_dry_run_that_waits_for_the_topic_logs_it_once() {
    let broker = MockCluster::new(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("notify.toml");
    std::fs::write(&rules, "[[rule]]\nname = \"any\"\nquiet = \"15m\"\n").unwrap();
    let rules = rules.to_str().unwrap();
    let dry = ["notify", "--config", rules, "--dry-run", "--exit-at-end"];
    let servers = broker.bootstrap_servers();
    let mut child = citystream(&[&dry[..], &["--brokers", &servers]].concat())
        .start()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("waiting for Kafka and the topic"), "{first}");
    // The role asks again several times a second. It ends once the topic exists.
    std::thread::sleep(Duration::from_secs(1));
    broker.create_topic("city-events", 1, 1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let more: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn the_binary_contains_manual_completions_and_api() {
    let (page, code) = run(&mut citystream(&["print", "man"]));
    assert_eq!(code, 0);
    for words in [
        ".TH citystream 1",
        ".TH citystream-consume 1",
        "row\\-interval",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for (shell, words) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef citystream"),
        ("fish", "complete -c citystream"),
    ] {
        let (text, code) = run(&mut citystream(&["print", "completions", "--shell", shell]));
        assert!(
            code == 0 && text.contains(words) && text.contains("row-interval"),
            "{shell}"
        );
    }
    let (text, code) = run(&mut citystream(&["print", "openapi"]));
    let api: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == 0 && api["paths"]["/api/v1/stats"].is_object());
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    assert_eq!(
        run(&mut citystream(&["print", "completions", "--into", into])).1,
        0
    );
    assert_eq!(std::fs::read_dir(into).unwrap().count(), 3);
}

#[test]
fn errors_are_json_objects_in_json_output() {
    let args = ["produce", "--input", "none.ndjson", "--log-format", "json"];
    let (text, code) = run(&mut citystream(&args));
    let told: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert_eq!(
        (code, &told["message"], &told["what"]),
        (
            2,
            &"failed".into(),
            &"failed to open none.ndjson (--input)".into()
        )
    );
    assert!(
        told["why"].as_str().unwrap().contains("No such file"),
        "{told}"
    );
}

/// A pipe whose reader has closed it.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs a command against a broker and a DynamoDB that refuses.
fn with_services(args: &[&str], broker: &str) -> Command {
    let mut command = citystream(args);
    command
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "wrong")
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .env(
            "AWS_ENDPOINT_URL_DYNAMODB",
            refusing("AccessDeniedException", "no"),
        )
        .env("CITYSTREAM_BROKERS", broker);
    command
}

#[test]
fn a_closed_reader_changes_no_exit_code() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("city-events", 1, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let produce = "produce --count 3 --interval 20ms --listen 127.0.0.1:0";
    for (line, code) in [
        ("init-tables", 1),
        ("init-tables --check", 1),
        ("init-tables --delete", 2),
        (produce, 0),
        ("produce --input none.ndjson", 2),
        ("consume --row-interval 5", 2),
        ("check --for consume --row-interval 5", 2),
        ("config --for consume --row-interval 5", 2),
        ("config", 0),
        ("print env", 0),
        (&format!("print units --into {into}"), 0),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        for (out, err) in [(true, false), (false, true), (true, true)] {
            let mut command = with_services(&args, &broker.bootstrap_servers());
            if out {
                command.stdout(closed());
            }
            if err {
                command.stderr(closed());
            }
            let output = command.start().unwrap().wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("panicked"), "{line}: {said}");
            assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        }
    }
    assert!(std::fs::read_dir(into).unwrap().count() > 3, "all of them");
}

#[test]
fn a_service_keeps_running_when_the_reader_of_its_address_closes() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("city-events", 1, 1).unwrap();
    for line in [
        "serve --port 0",
        "consume --listen 127.0.0.1:0",
        "produce --listen 127.0.0.1:0",
        "verify --watch --listen 127.0.0.1:0",
        "dev --port 0",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let mut child = with_services(&args, &broker.bootstrap_servers())
            .stdout(closed())
            .env("RUST_LOG", "debug")
            .start()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let tried = lines.find(|line| {
            let line = line.as_ref().unwrap();
            line.contains("failed to write to standard output") || line.contains("panicked")
        });
        let rest = std::thread::spawn(move || lines.map(Result::unwrap).collect::<Vec<_>>());
        crate::world::terminate(&child);
        let status = child.wait().unwrap();
        let said = rest.join().unwrap();
        assert_eq!(status.code(), Some(0), "{line}: {tried:?} {said:?}");
    }
}

#[test]
fn an_unsupported_login_exits_2_and_names_supported_ones() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let text = "[profile work]\nregion = eu-west-1\nsso_session = s\nsso_account_id = 123456789012\n\
                sso_role_name = r\n[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://a\n\
                [profile keys]\nregion = eu-west-1\naws_access_key_id = a\naws_secret_access_key = b\n";
    std::fs::write(&config, text).unwrap();
    for (profile, mode, words) in [
        (
            "work",
            "preferred",
            "credential_process = aws configure export-credentials --profile work",
        ),
        (
            "keys",
            "required",
            "set AWS_ACCOUNT_ID, or AWS_ACCOUNT_ID_ENDPOINT_MODE=preferred",
        ),
    ] {
        for role in [
            &["init-tables"][..],
            &["consume", "--listen", "127.0.0.1:0"],
            &["serve", "--port", "0"],
            &["verify"],
            // The MSK login makes credentials necessary even for a command that does not use DynamoDB.
            &["tail", "--kafka-auth", "msk-iam"],
        ] {
            if role[0] == "tail" && profile == "keys" {
                continue;
            }
            let mut command = citystream(role);
            command
                .env("AWS_CONFIG_FILE", &config)
                .env("AWS_PROFILE", profile)
                .env("AWS_ACCOUNT_ID_ENDPOINT_MODE", mode)
                .env("HOME", folder.path());
            let (text, code) = run(&mut command);
            assert_eq!(code, 2, "{role:?} {profile}: {text}");
            assert!(text.contains(words), "{role:?}: {text}");
        }
    }
}
