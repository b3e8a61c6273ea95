//! Tests with credentials of an instance role whose metadata service starts late and goes away.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::role::{Role, wait_for};
use crate::world::{World, file_lines};

/// The instance metadata service, as far as credentials need it.
struct Metadata {
    url: String,
    up: Arc<AtomicBool>,
    given: Arc<AtomicU32>,
}

impl Metadata {
    /// Starts the service, absent at first. Credentials last for `lifetime`.
    fn start(lifetime: Duration) -> Metadata {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (up, given) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (serves, counts) = (Arc::clone(&up), Arc::clone(&given));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // While the service is absent, it closes connections without a response.
                if serves.load(Ordering::SeqCst) {
                    answer(stream.unwrap(), lifetime, &counts);
                }
            }
        });
        Metadata { url, up, given }
    }

    fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }
}

fn answer(mut stream: TcpStream, lifetime: Duration, given: &AtomicU32) {
    let mut request = Vec::new();
    let mut part = [0; 4_096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => request.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut status = "200 OK";
    let body = if request.starts_with("PUT /latest/api/token") {
        "a-token".to_owned()
    } else if !request.contains("x-aws-ec2-metadata-token: a-token\r\n") {
        // Version 2 of the service answers only requests with its token.
        status = "401 Unauthorized";
        String::new()
    } else if request.starts_with("GET /latest/meta-data/iam/security-credentials") {
        let path = request.split(' ').nth(1).unwrap();
        if path.trim_end_matches('/').ends_with("security-credentials")
            || path
                .trim_end_matches('/')
                .ends_with("security-credentials-extended")
        {
            "a-role".to_owned()
        } else {
            given.fetch_add(1, Ordering::SeqCst);
            let expires = Timestamp::try_from(SystemTime::now() + lifetime).unwrap();
            let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ");
            // The access key stays the same, because DynamoDB Local can keep separate tables for each key.
            format!(
                r#"{{"Code":"Success","LastUpdated":"2013-01-01T06:00:00Z","Type":"AWS-HMAC",
                "AccessKeyId":"citystream","SecretAccessKey":"citystream","Token":"t",
                "Expiration":"{expires}"}}"#
            )
        }
    } else {
        status = "404 Not Found";
        String::new()
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // The client may be gone. It will ask again.
    drop(stream.write_all(answer.as_bytes()));
}

fn consume_as_instance(world: &World, metadata: &Metadata) -> Role {
    let args = [
        "consume",
        "--topic",
        world.name,
        "--table-prefix",
        world.name,
        "--group",
        world.name,
        "--listen",
        "127.0.0.1:0",
    ];
    let env = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url.as_str()),
    ];
    Role::start(world.services, &args, &env)
}

#[test]
#[ignore = "needs scripts/test-real"]
fn writes_wait_for_credentials_and_survive_an_absent_metadata_service() {
    let world = World::new("instance-role");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..1_000]);
    // This lifetime is so short that the role renews credentials all the time.
    let metadata = Metadata::start(Duration::from_secs(2));
    let mut consume = consume_as_instance(&world, &metadata);
    consume.is_ready(503, "credentials");
    assert_eq!(consume.get("/livez").unwrap().0, 200, "down is not dead");
    assert!(
        consume.err().contains("no credentials yet"),
        "{}",
        consume.err()
    );
    metadata.set_up(true);
    consume.has_settled(1_000.0);
    consume.is_ready(200, "");
    assert!(metadata.given.load(Ordering::SeqCst) > 0);

    // The service is absent for longer than the last credentials last.
    metadata.set_up(false);
    let given = metadata.given.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(4));
    world.produce(&lines[1_000..1_500]);
    metadata.set_up(true);
    consume.has_settled(1_500.0);
    wait_for("credentials to be requested again", || {
        (metadata.given.load(Ordering::SeqCst) > given).then_some(())
    });
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn source_and_expiry_of_the_credentials_are_logged_at_the_start() {
    let world = World::new("instance-role-told");
    world.init();
    let metadata = Metadata::start(Duration::from_secs(3_600));
    metadata.set_up(true);
    let mut consume = consume_as_instance(&world, &metadata);
    consume.is_ready(200, "");
    let line = wait_for("the line about credentials", || {
        let err = consume.err();
        err.lines()
            .find(|l| l.contains("credentials found"))
            .map(str::to_owned)
    });
    assert!(line.contains("\"source\":\"instance role\""), "{line}");
    assert!(line.contains("\"expires\":\"20"), "{line}");
    assert!(!line.contains("secret"), "{line}");
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
}
