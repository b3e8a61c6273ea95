//! Tests of TLS and logins to Kafka: each way in works for each role, each wrong setting is reported with its option,
//! and no secret appears.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::role::{Role, last_words, wait_for};
use crate::services::Services;
use crate::world::{World, file_lines};

/// The time within which a refusal must be reported. It takes two seconds on an idle machine.
const TOLD_MAX: Duration = Duration::from_secs(10);
const PASSWORD: &str = "a secret of scram";
const KEY_PASSWORD: &str = "a secret of the key";

/// The options for a listener of `scripts/real-services --secure`.
fn way(services: &Services, listener: &str, options: &str) -> Vec<String> {
    let servers = match listener {
        "PLAIN" => services.brokers().to_owned(),
        name => services.export(&format!("KAFKA_SERVERS_{name}")).to_owned(),
    };
    let mut line = vec!["--brokers".to_owned(), servers];
    let credentials = services.export("KAFKA_CREDENTIALS");
    // A name with a dot or a dash is a file in the credentials folder.
    line.extend(options.split_whitespace().map(|word| {
        let file = word.ends_with(".pem") || word.ends_with(".key") || word.ends_with("-password");
        if file {
            format!("{credentials}/{word}")
        } else {
            word.to_owned()
        }
    }));
    line
}

const SCRAM: &str = "--kafka-auth scram --kafka-ca-file root.pem --kafka-username citystream \
                     --kafka-password-file scram-password";

/// Creates tables, sends, counts and shows events over one way in.
fn every_role_works(name: &'static str, listener: &str, options: &str) {
    let world = World::new(name);
    let way = way(world.services, listener, options);
    let way: Vec<&str> = way.iter().map(String::as_str).collect();
    let role = |role: &str, args: &[&str]| {
        let mut role = world.start(role, &[args, &way].concat());
        role.ends_with(0);
        for secret in [PASSWORD, KEY_PASSWORD] {
            assert!(!role.err().contains(secret), "a secret shows");
        }
        role
    };
    role("init-tables", &[]);
    let lines = &file_lines()[..300];
    let path = world.services.folder().join(format!("{name}.ndjson"));
    std::fs::write(&path, lines.join("\n")).unwrap();
    role("produce", &["--input", path.to_str().unwrap()]);
    role("consume", &["--stop-at-end"]);
    let shown = role(
        "tail",
        &["--from", "beginning", "--exit-at-end", "--output", "json"],
    );
    assert_eq!(shown.out().lines().count(), lines.len());
    role("init-tables", &["--check"]);
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn tls_with_a_root_an_intermediate_and_a_leaf() {
    every_role_works("tls", "TLS", "--kafka-auth tls --kafka-ca-file root.pem");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn tls_with_the_intermediate_only_in_the_bundle() {
    every_role_works(
        "leaf",
        "LEAF",
        "--kafka-auth tls --kafka-ca-file bundle.pem",
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn mutual_tls_with_an_encrypted_key() {
    every_role_works(
        "mutual-tls",
        "MTLS",
        "--kafka-auth tls --kafka-ca-file root.pem --kafka-cert-file client-chain.pem \
         --kafka-key-file client-encrypted.key --kafka-key-password-file key-password",
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn scram_over_tls() {
    every_role_works("scram", "SCRAM", SCRAM);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn msk_iam_with_a_broker_that_checks_the_signature() {
    every_role_works(
        "iam",
        "IAM",
        "--kafka-auth msk-iam --kafka-ca-file root.pem",
    );
}

/// The listener, the options, and the words that the message must contain.
const REFUSALS: [(&str, &str, &[&str]); 14] = [
    (
        "TLS",
        "--kafka-auth tls --kafka-ca-file stranger.pem",
        &["not trusted", "--kafka-ca-file"],
    ),
    // The host's authorities did not sign this certificate.
    (
        "TLS",
        "--kafka-auth tls",
        &["cannot be trusted", "--kafka-ca-file"],
    ),
    (
        "EXPIRED",
        "--kafka-auth tls --kafka-ca-file root.pem",
        &["it has expired"],
    ),
    (
        "ELSEWHERE",
        "--kafka-auth tls --kafka-ca-file root.pem",
        &["not for 127.0.0.1, but for kafka.example.com", "--brokers"],
    ),
    (
        "MTLS",
        "--kafka-auth tls --kafka-ca-file root.pem",
        &["client certificate", "--kafka-cert-file"],
    ),
    (
        "MTLS",
        "--kafka-auth tls --kafka-ca-file root.pem --kafka-cert-file stranger-client.pem \
         --kafka-key-file stranger-client.key",
        &["client certificate", "--kafka-cert-file"],
    ),
    (
        "SCRAM",
        "--kafka-auth scram --kafka-ca-file root.pem --kafka-username citystream \
         --kafka-password-file key-password",
        &[
            "refuses the login",
            "--kafka-username",
            "--kafka-password-file",
        ],
    ),
    (
        "SCRAM",
        "--kafka-auth scram --kafka-ca-file root.pem --kafka-username nobody \
         --kafka-password-file scram-password",
        &["refuses the login", "--kafka-username"],
    ),
    ("IAM", SCRAM, &["it knows OAUTHBEARER", "--kafka-auth"]),
    ("TLS", SCRAM, &["accepts no login", "--kafka-auth"]),
    (
        "SCRAM",
        "--kafka-auth tls --kafka-ca-file root.pem",
        &["requires a login", "--kafka-auth"],
    ),
    ("TLS", "", &["requires TLS", "--kafka-auth"]),
    ("SCRAM", "", &["requires TLS", "--kafka-auth"]),
    (
        "PLAIN",
        "--kafka-auth tls --kafka-ca-file root.pem",
        &["does not speak TLS", "--kafka-auth"],
    ),
];

#[test]
#[ignore = "needs scripts/test-real"]
fn a_failed_login_is_reported_with_its_option_within_ten_seconds() {
    let world = World::new("refused");
    let began = Instant::now();
    let cases = REFUSALS.map(|(listener, options, words)| {
        let way = way(world.services, listener, options);
        let way: Vec<&str> = way.iter().map(String::as_str).collect();
        let tail = world.start("tail", &[&["--log-format", "text"], &way[..]].concat());
        (tail, listener, options, words)
    });
    for (mut tail, listener, options, words) in cases {
        let case = format!("{listener} with {options:?}");
        wait_for(&case, || {
            let err = tail.err();
            words.iter().all(|w| err.contains(w)).then_some(())
        });
        // All run at once, so the later ones had more time.
        let took = began.elapsed();
        eprintln!("{case}: told after {took:.1?} at most");
        assert!(took < 2 * TOLD_MAX, "{case}: told after {took:?}");
        tail.ends_with(2);
        let err = tail.err();
        let (_, last) = err.rsplit_once("citystream: the Kafka broker at").unwrap();
        assert_eq!(last.lines().count(), 2, "what, and what to do: {err}");
        assert!(words.iter().all(|w| last.contains(w)), "{case}\n{err}");
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_wrong_password_ends_finite_runs_and_makes_services_wait() {
    let world = World::new("wrong-password");
    let wrong = SCRAM.replace("scram-password", "key-password");
    let way = way(world.services, "SCRAM", &wrong);
    let way: Vec<&str> = way.iter().map(String::as_str).collect();
    let start = |role: &str, args: &[&str]| world.start(role, &[args, &way].concat());
    let mut ending = [
        start("init-tables", &[]),
        start("produce", &["--count", "3"]),
        start("consume", &["--stop-at-end"]),
        start("tail", &[]),
    ];
    let mut staying = [start("produce", &[]), start("consume", &[])];
    for role in &mut ending {
        role.ends_with(2);
        let err = role.err();
        let last = last_words(&err);
        assert!(last.contains("--kafka-password-file"), "{err}");
    }
    for role in &mut staying {
        role.is_ready(503, "--kafka-password-file");
        assert!(
            role.err().contains("--kafka-password-file"),
            "{}",
            role.err()
        );
        assert_eq!(role.get("/livez").unwrap().0, 200);
        assert_eq!(role.terminate().0, Some(0), "{}", role.err());
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_unusable_key_is_reported_at_once() {
    let world = World::new("wrong-key");
    let tls = "--kafka-auth tls --kafka-ca-file root.pem --kafka-cert-file client-chain.pem";
    for (more, words) in [
        ("--kafka-key-file server.key", "does not belong to"),
        (
            "--kafka-key-file client-encrypted.key",
            "--kafka-key-password-file",
        ),
        (
            "--kafka-key-file client-encrypted.key --kafka-key-password-file scram-password",
            "holds another password",
        ),
    ] {
        let way = way(world.services, "MTLS", &format!("{tls} {more}"));
        let way: Vec<&str> = way.iter().map(String::as_str).collect();
        for role in ["init-tables", "produce", "consume", "tail"] {
            let mut role = world.start(role, &way);
            role.ends_with(2);
            assert!(role.err().contains(words), "{more}\n{}", role.err());
        }
    }
}

/// What no output may contain.
const SECRETS: [&str; 5] = [
    PASSWORD,
    KEY_PASSWORD,
    "a secret session",
    "X-Amz-Signature",
    // The beginning of a token, which is base64.
    "aHR0cHM6Ly9rYWZrYS4",
];

#[test]
#[ignore = "needs scripts/test-real"]
fn secrets_appear_neither_on_command_lines_nor_in_logs() {
    let world = World::new("secrets");
    world.init();
    let services = world.services;
    let credentials = services.export("KAFKA_CREDENTIALS").to_owned();
    let scram = SCRAM.replace("--kafka-password-file scram-password", "");
    let mutual = "--kafka-auth tls --kafka-ca-file root.pem --kafka-cert-file client-chain.pem \
                  --kafka-key-file client-encrypted.key";
    let systemd = ("CREDENTIALS_DIRECTORY", credentials.as_str());
    let cases: [(&str, String, (&str, &str)); 4] = [
        (
            "SCRAM",
            scram.clone(),
            ("CITYSTREAM_KAFKA_PASSWORD", PASSWORD),
        ),
        // With systemd's LoadCredential, the value is a name without a folder.
        (
            "SCRAM",
            format!("{scram} --kafka-password-file ./scram-password"),
            systemd,
        ),
        (
            "MTLS",
            mutual.to_owned(),
            ("CITYSTREAM_KAFKA_KEY_PASSWORD", KEY_PASSWORD),
        ),
        (
            "IAM",
            "--kafka-auth msk-iam --kafka-ca-file root.pem".to_owned(),
            ("AWS_SESSION_TOKEN", "a secret session"),
        ),
    ];
    for (listener, options, variable) in cases {
        let mut way = way(services, listener, &options);
        if variable == systemd {
            *way.last_mut().unwrap() = "scram-password".to_owned();
        }
        let mut line = vec![
            "consume",
            "--topic",
            world.name,
            "--table-prefix",
            world.name,
        ];
        line.extend(["--group", listener, "--listen", "127.0.0.1:0"]);
        line.extend(["--kafka-property", "debug=security"]);
        line.extend(way.iter().map(String::as_str));
        let mut consume = Role::start(services, &line, &[variable, ("RUST_LOG", "trace")]);
        consume.is_ready(200, "");
        let command = std::fs::read(format!("/proc/{}/cmdline", consume.pid())).unwrap();
        let command = String::from_utf8(command).unwrap();
        assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
        let (out, err) = (consume.out(), consume.err());
        assert!(
            err.contains("librdkafka"),
            "the log shows what librdkafka does"
        );
        for (place, text) in [("ps", &command), ("stdout", &out), ("the log", &err)] {
            let shown = SECRETS.iter().find(|secret| text.contains(**secret));
            assert_eq!(shown, None, "in {place} ({listener})");
        }
    }
}

/// Serves credentials that last for some seconds, as a container's agent does.
fn short_credentials(life: Duration) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/credentials", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let given = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).unwrap();
            let end = std::time::SystemTime::now() + life;
            let end = jiff::Timestamp::try_from(end).unwrap();
            let body = serde_json::json!({
                "AccessKeyId": "citystream",
                "SecretAccessKey": "citystream",
                "Token": "short+lived/==",
                "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            })
            .to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
            given.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, count)
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_login_token_is_renewed_before_it_expires_and_the_consumer_goes_on() {
    let world = World::new("renewed");
    world.init();
    let options = "--kafka-auth msk-iam --kafka-ca-file root.pem";
    let way = way(world.services, "IAM", options);
    let (url, given) = short_credentials(Duration::from_secs(12));
    let mut line = vec![
        "consume",
        "--topic",
        world.name,
        "--table-prefix",
        world.name,
    ];
    line.extend(["--group", world.name, "--listen", "127.0.0.1:0"]);
    line.extend(way.iter().map(String::as_str));
    let env = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let mut consume = Role::start(world.services, &line, &env);
    consume.is_ready(200, "");
    let first = given.load(Ordering::SeqCst);
    // The broker closes a connection when its token expires, so three more rounds are three renewals.
    let lines = file_lines();
    for (round, part) in lines[..900].chunks(300).enumerate() {
        wait_for("new credentials to be requested", || {
            (given.load(Ordering::SeqCst) > first + round).then_some(())
        });
        world.produce(part);
        let settled = (round + 1) * part.len();
        #[allow(clippy::cast_precision_loss)]
        consume.has_settled(settled as f64);
    }
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    let err = consume.err();
    assert!(!err.contains("refuses"), "{err}");
    world.tables_are_exact();
}
