//! Tests of what an operator meets: wrong settings, `check`, `config`, `print` and systemd's protocol.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use citystream::telemetry::Metrics;
use rdkafka::mocking::MockCluster;

use crate::process::Start as _;
use crate::world::{BASE_MS, World, terminate};

const WAIT_MAX: Duration = Duration::from_secs(60);

fn citystream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citystream"));
    command
        .args(args)
        .env_clear()
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_ENDPOINT_URL_DYNAMODB", nobody())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// An address on which nothing listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(all).unwrap()
}

#[test]
fn a_misspelt_variable_or_property_exits_2_and_suggests_the_nearest_name() {
    for (args, suggests) in [
        (&["consume"][..], true),
        (&["config"], true),
        (&["check", "--for", "consume"], true),
        // These do not have the option that the name resembles.
        (&["serve", "--port", "0"], false),
        (&["check", "--for", "produce"], false),
    ] {
        let output = citystream(args)
            .env("CITYSTREAM_ROW_INTERVALL", "1s")
            .run()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = text(&output);
        assert!(said.contains("CITYSTREAM_ROW_INTERVALL"), "{said}");
        assert_eq!(
            said.contains("CITYSTREAM_ROW_INTERVAL?"),
            suggests,
            "{said}"
        );
    }
    for role in ["consume", "produce"] {
        let args = [
            role,
            "--listen",
            "127.0.0.1:0",
            "--kafka-property",
            "fetch.min.byte=1",
        ];
        let output = citystream(&args).run().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(
            text(&output).contains("mean fetch.min.bytes?"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn a_wrong_value_names_the_variable_it_comes_from() {
    for (name, value, roles) in [
        ("CITYSTREAM_ROW_INTERVAL", "5", &["consume"][..]),
        ("CITYSTREAM_STOP_AT_END", "maybe", &["consume"]),
        ("CITYSTREAM_GROUP", "", &["consume", "verify"]),
        ("CITYSTREAM_WATCH", "soon", &["verify"]),
        (
            "CITYSTREAM_BROKERS",
            "http://b:1",
            &["consume", "produce", "tail", "verify", "init-tables"],
        ),
        ("KAFKA_BOOTSTRAP_SERVERS", "nohost", &["consume", "tail"]),
        ("KAFKA_TOPIC", "a/b", &["produce"]),
    ] {
        for role in roles {
            for args in [&[*role][..], &["config", "--for", role]] {
                let output = citystream(args).env(name, value).run().unwrap();
                let said = text(&output);
                assert_eq!(output.status.code(), Some(2), "{args:?} {name}: {said}");
                assert!(said.contains(&format!("variable {name}")), "{said}");
            }
        }
    }
}

#[test]
fn config_shows_values_and_origins_and_no_secret() {
    let args = [
        "config",
        "--for",
        "consume",
        "--row-interval",
        "1s",
        "--kafka-property",
        "sasl.password=s3cret",
    ];
    let output = citystream(&args)
        .env("CITYSTREAM_GROUP", "night")
        .env("KAFKA_TOPIC", "town")
        .run()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output);
    let line = |name: &str| -> Vec<&str> {
        let line = said
            .lines()
            .find(|l| l.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {said}"))
            .split_whitespace()
            .skip(1)
            .collect()
    };
    assert_eq!(line("--row-interval"), ["1s", "command", "line"]);
    assert_eq!(line("--group"), ["night", "CITYSTREAM_GROUP"]);
    assert_eq!(line("--topic"), ["town", "KAFKA_TOPIC"]);
    assert_eq!(line("--raw-ttl"), ["30d", "default"]);
    assert_eq!(line("AWS_SECRET_ACCESS_KEY"), ["(hidden)", "environment"]);
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn check_reports_missing_credentials_once() {
    let output = citystream(&["check", "--for", "serve", "--port", "0"])
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .run()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let wrong: Vec<&str> = said.lines().filter(|l| l.starts_with("wrong")).collect();
    assert!(
        wrong.len() == 1
            && wrong[0].contains("AWS credentials")
            && wrong[0].ends_with("none found"),
        "{said}"
    );
    assert!(said.contains("AWS_PROFILE"), "{said}");
    assert!(!said.contains("Attempted"), "{said}");
    for words in ["answers", "not described", "policy", "right "] {
        assert!(!said.contains(words), "{words}: {said}");
    }
}

#[test]
fn check_reports_each_missing_service_with_the_remedy() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("city-events", 6, 1).unwrap();
    let servers = broker.bootstrap_servers();
    let args = [
        "check",
        "--for",
        "consume",
        "--brokers",
        &servers,
        "--listen",
        "127.0.0.1:0",
    ];
    let output = citystream(&args).run().unwrap();
    let said = text(&output);
    // A table that does not answer is absent, not wrong: a role would wait for it.
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "ok     Kafka ",
        "ok     settings ",
        "away   topic city-events-dlq ",
        "away   DynamoDB ",
        "> run citystream init-tables",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    // The mock broker knows no settings, rights or members, and has no controller. `check` reports that, and suggests
    // no right that would not help.
    for (what, found) in [
        ("topic city-events", "6 partitions, id "),
        (
            "topic city-events",
            "; these brokers do not report the settings of topic city-events",
        ),
        (
            "rights on topic city-events",
            "these brokers do not report rights",
        ),
        (
            "group citystream",
            "these brokers do not report the members of group citystream",
        ),
        (
            "rights on group citystream",
            "these brokers do not report rights",
        ),
    ] {
        let begin = format!("note   {what} ");
        let mut lines = said.lines();
        let told = lines.any(|line| line.starts_with(&begin) && line.contains(found));
        assert!(told, "{begin}{found} is not in\n{said}");
    }
    assert!(!said.contains("Timed out"), "{said}");
    assert!(!said.contains("kafka-acls.sh"), "{said}");
    let role = ["check", "--for", "init-tables", "--brokers", &servers];
    let output = citystream(&role).run().unwrap();
    let said = text(&output);
    let mut lines = said.lines();
    let line = lines.find(|line| line.starts_with("away   topic city-events-dlq "));
    let told = line.is_some_and(|line| line.contains("these brokers have no controller"));
    assert!(told, "{said}");
    assert!(!said.contains("kafka-acls.sh"), "{said}");
    let output = citystream(&["check", "--for", "consume", "--row-interval", "1x"])
        .run()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--row-interval"));
}

#[test]
fn check_says_which_kafka_takes_transactions_with_msk_iam() {
    // The wrong property ends the check before it waits for brokers.
    let line = "check --for produce --from-dlq --kafka-auth msk-iam --listen 127.0.0.1:0 \
                --kafka-property fetch.min.byte=1";
    let args: Vec<&str> = line.split_whitespace().collect();
    let output = citystream(&args).run().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let note = said
        .lines()
        .find(|line| line.starts_with("note   transactions "));
    assert!(
        note.is_some_and(|line| line.contains("from Kafka 3.8 on")),
        "{said}"
    );
    assert!(
        said.contains("> use a cluster with Kafka 3.8 or later"),
        "{said}"
    );
}

#[test]
fn policies_and_template_are_json() {
    for args in [
        &["init-tables", "--print-iam-policy", "serve"][..],
        &["init-tables", "--print-iam-policy", "--table-prefix", "x"],
        &["print", "cloudformation"],
    ] {
        let output = citystream(args).run().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output));
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        assert!(parsed.is_ok(), "{args:?}: {}", text(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    let into = [
        "print",
        "dashboards",
        "--into",
        folder.path().to_str().unwrap(),
    ];
    let output = citystream(&into).run().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for name in ["citystream.json", "city-events.json"] {
        let board = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let board: serde_json::Value = serde_json::from_str(&board).unwrap();
        assert!(board["panels"].is_array(), "{name}");
    }
}

/// A service manager that only listens.
struct Manager {
    _folder: tempfile::TempDir,
    socket: UnixDatagram,
    path: std::path::PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Manager {
            _folder: folder,
            socket,
            path,
            heard: Vec::new(),
        }
    }

    fn start(&self, args: &[&str]) -> Running {
        let child = citystream(args)
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "400000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .start()
            .unwrap();
        Running(child)
    }

    /// Waits for a message with this beginning and returns it.
    fn hear(&mut self, begins: &str) -> String {
        let begin = Instant::now();
        while begin.elapsed() < WAIT_MAX {
            let mut buffer = [0; 4096];
            let Ok(length) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.push(message.clone());
            if message.lines().any(|line| line.starts_with(begins)) {
                return message;
            }
        }
        panic!("{begins} was not heard, but {:?}", self.heard);
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_waiting_role_notifies_systemd_of_readiness_status_and_watchdog() {
    let brokers = nobody().replace("http://", "");
    for (args, waits) in [
        (vec!["serve", "--port", "0"], "STATUS=waiting"),
        (
            vec!["consume", "--listen", "127.0.0.1:0", "--brokers", &brokers],
            "STATUS=waiting for Kafka",
        ),
        (
            vec!["produce", "--listen", "127.0.0.1:0", "--brokers", &brokers],
            "STATUS=",
        ),
    ] {
        let mut manager = Manager::new();
        let mut role = manager.start(&args);
        // READY comes first, although nothing that the role needs is there.
        manager.hear("READY=1");
        assert_eq!(manager.heard.len(), 1, "{:?}", manager.heard);
        manager.hear(waits);
        let (mut last, mut gaps) = (None::<Instant>, Vec::new());
        for _ in 0..4 {
            manager.hear("WATCHDOG=1");
            gaps.extend(last.map(|at: Instant| at.elapsed()));
            last = Some(Instant::now());
        }
        // The role feeds the watchdog at half the timeout. A busy machine may stretch one gap, but not all of them.
        assert!(
            gaps.iter().any(|gap| *gap < Duration::from_millis(400)),
            "{gaps:?}"
        );
        terminate(&role.0);
        let stopping = manager.hear("STOPPING=1");
        assert!(
            stopping.contains("EXTEND_TIMEOUT_USEC=15000000"),
            "{stopping}"
        );
        let code = role.0.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 1)), "{args:?}: {code:?}");
    }
}

#[test]
fn a_role_with_wrong_settings_never_notifies_readiness() {
    for args in [
        &[
            "consume",
            "--listen",
            "127.0.0.1:0",
            "--kafka-property",
            "nonsense=1",
        ][..],
        &["serve", "--port", "0", "--no-such-option"],
    ] {
        let mut manager = Manager::new();
        let mut role = manager.start(args);
        assert_eq!(role.0.wait().unwrap().code(), Some(2), "{args:?}");
        let mut buffer = [0; 64];
        assert!(manager.socket.recv(&mut buffer).is_err(), "{args:?}");
        manager.heard.clear();
    }
}

/// Returns the partitions for which a metric has series.
fn series_of(metrics: &Metrics, name: &str) -> BTreeSet<String> {
    let text = metrics.render();
    let label = |line: &str| {
        let labels = line.strip_prefix(name)?.strip_prefix('{')?;
        let at = labels.find("partition=\"")? + "partition=\"".len();
        Some(labels[at..].split('"').next()?.to_owned())
    };
    text.lines().filter_map(label).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_show_owned_partitions_and_drop_revoked_ones() {
    const NAMES: [&str; 2] = [
        "citystream_consumer_lag_records",
        "citystream_watermark_timestamp_seconds",
    ];
    let world = World::new(4).await;
    let first = world.member(&[], None).await;
    for partition in 0..4 {
        world.event(partition, "NYC", "traffic", 0, BASE_MS);
    }
    let has = |count| {
        move |m: &crate::member::Member| {
            NAMES
                .iter()
                .all(|n| series_of(&m.metrics, n).len() == count)
        }
    };
    first.until("series of all four", has(4)).await;
    let second = world.member(&[], None).await;
    first.until("series of the two it kept", has(2)).await;
    for partition in 0..4 {
        world.event(partition, "NYC", "traffic", 0, BASE_MS);
    }
    second.until("series of the two it got", has(2)).await;
    for name in NAMES {
        let (a, b) = (
            series_of(&first.metrics, name),
            series_of(&second.metrics, name),
        );
        assert!(a.is_disjoint(&b), "{name}: {a:?} and {b:?}");
        let all: BTreeSet<String> = a.union(&b).cloned().collect();
        assert_eq!(all, ["0", "1", "2", "3"].map(str::to_owned).into());
    }
    assert!(second.stop().await.is_ok());
    first.until("series of all four again", has(4)).await;
    assert!(first.stop().await.is_ok());
}

/// Brokers drop six idle connections in an hour of a quiet producer. This test drops about thirty in a row.
#[test]
fn an_idle_role_logs_next_to_nothing() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("city-events", 6, 1).unwrap();
    let servers = broker.bootstrap_servers();
    let args = [
        "produce",
        "--listen",
        "127.0.0.1:0",
        "--brokers",
        &servers,
        "--interval",
        "1h",
        "--heartbeat",
        "1s",
        "--kafka-property",
        "connections.max.idle.ms=300",
    ];
    let mut child = citystream(&args).start().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    terminate(&child);
    let code = child.wait().unwrap().code();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.lines().count() < 10, "{said}");
    assert!(!said.contains("\"ERROR\""), "{said}");
    // Off a terminal, each line is one JSON object, except the summary at the end.
    for line in said.lines().filter(|l| !l.starts_with("citystream: ")) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|v| v["level"].is_string()), "{line}");
    }
}
