//! Tests that send messages to HTTP servers on the loopback interface.

mod server;

use std::path::Path;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use tokio::net::TcpListener;

use crate::core::incident::outbox::{MessageKind, Timing};
use crate::notify::fixture::{incident, message};
use crate::notify::receiver::webhook;
use crate::notify::secret::SecretFile;

use server::{Reply, Server};

use super::*;

fn config(target: Target) -> ReceiverConfig {
    ReceiverConfig {
        name: "ops".into(),
        rules: None,
        timing: Timing {
            repeat_ms: None,
            interval_min_ms: 0,
        },
        allow_private: true,
        ca_file: None,
        target,
    }
}

fn webhook_at(url: Url) -> ReceiverConfig {
    config(Target::Webhook {
        url: Location::Given(url),
        secret: None,
        token: None,
    })
}

async fn send(config: ReceiverConfig) -> DeliveryResult {
    let receiver = Receiver::new(config).await.unwrap();
    let incident = incident();
    receiver
        .send(&message(MessageKind::Opened, &incident))
        .await
}

fn again(delivery: DeliveryResult) -> (Option<Duration>, String) {
    match delivery {
        DeliveryResult::Again { after, why } => (after, why),
        other => panic!("{other:?}"),
    }
}

fn refused(delivery: DeliveryResult) -> String {
    match delivery {
        DeliveryResult::Refused { why } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_status_code_decides_whether_a_message_was_delivered() {
    let server = Server::start(|path| {
        let status = path[1..].parse().unwrap();
        Reply::Status(status, "", String::new())
    })
    .await;
    for status in [200, 201, 202, 204] {
        let delivery = send(webhook_at(server.url(&format!("/{status}")))).await;
        assert_eq!(delivery, DeliveryResult::Taken, "{status}");
    }
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        let (after, why) = again(send(webhook_at(server.url(&format!("/{status}")))).await);
        assert_eq!(after, None);
        assert!(
            why.starts_with(&format!("127.0.0.1 answered {status}")),
            "{why}"
        );
    }
    for status in [300, 303, 304, 400, 401, 403, 404, 410, 413, 422] {
        let why = refused(send(webhook_at(server.url(&format!("/{status}")))).await);
        assert!(
            why.starts_with(&format!("127.0.0.1 answered {status}")),
            "{why}"
        );
    }
    let why = refused(send(webhook_at(server.url("/404"))).await);
    assert_eq!(why, "127.0.0.1 answered 404 Not Found: no such hook");
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_an_hour() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (text, wanted) in [
        ("0", Some(0)),
        ("120", Some(120)),
        ("7200", Some(3_600)),
        ("99999999999999999999999", Some(3_600)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
        ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3_600)),
        ("soon", None),
        ("-1", None),
        ("", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        let wait = retry_after(&headers, now).map(|wait| wait.as_secs());
        assert_eq!(wait, wanted, "{text}");
    }
    let server = Server::start(|_| Reply::Status(429, "retry-after", "30".to_owned())).await;
    let (after, _) = again(send(webhook_at(server.url("/"))).await);
    assert_eq!(after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_host_only() {
    let mut other = Server::start(|_| Reply::Status(200, "", String::new())).await;
    let away = other.url("/").to_string();
    let server = Server::start(move |path| {
        let (status, to) = match path {
            "/once" => (308, "/twice".to_owned()),
            "/twice" => (302, "/end?a=b".to_owned()),
            "/round" => (307, "/round".to_owned()),
            "/away" => (301, away.clone()),
            "/by-name" => (307, away.replace("127.0.0.1", "localhost")),
            "/nowhere" => (307, "http://[".to_owned()),
            _ => (200, String::new()),
        };
        Reply::Status(status, "location", to)
    })
    .await;
    let sent = |path| send(webhook_at(server.url(path)));
    assert_eq!(sent("/once").await, DeliveryResult::Taken);
    let port = other.address.port();
    for (path, wanted) in [
        ("/round", "127.0.0.1 redirects more than 2 times".to_owned()),
        (
            "/away",
            format!("127.0.0.1 redirects to http://127.0.0.1:{port}, which is another server"),
        ),
        (
            "/by-name",
            format!("127.0.0.1 redirects to http://localhost:{port}, which is another server"),
        ),
        (
            "/nowhere",
            "127.0.0.1 answered 307 Temporary Redirect without a valid Location".to_owned(),
        ),
    ] {
        assert_eq!(refused(sent(path).await), wanted);
    }
    assert!(
        other.seen.try_recv().is_err(),
        "nothing went to the other server"
    );
    let mut server = server;
    let mut requests = Vec::new();
    while let Ok(seen) = server.seen.try_recv() {
        requests.push(seen);
    }
    let paths: Vec<&str> = requests.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths[..3], ["/once", "/twice", "/end"]);
    assert!(requests[2].body == requests[0].body && !requests[0].body.is_empty());
}

#[tokio::test]
async fn a_long_answer_is_read_in_part() {
    let server = Server::start(|path| match path {
        "/endless" => Reply::Endless(200),
        "/endless-error" => Reply::Endless(500),
        "/late" => Reply::NoBody(200),
        _ => Reply::NoBody(400),
    })
    .await;
    let sent = |path| send(webhook_at(server.url(path)));
    assert_eq!(sent("/endless").await, DeliveryResult::Taken);
    let (_, why) = again(sent("/endless-error").await);
    assert!(why.len() < 300, "{why}");
    assert_eq!(sent("/late").await, DeliveryResult::Taken);
    let why = refused(sent("/late-error").await);
    assert_eq!(why, "127.0.0.1 answered 400 Bad Request");

    let client = HttpClient::new(tls::client_config(None).unwrap(), true);
    let request = request_to(server.url("/endless").as_str());
    let answer = client.post(request).await.unwrap();
    assert_eq!(answer.text.len(), ANSWER_BYTES_MAX);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_given_up() {
    let mut server = Server::start(|_| Reply::Nothing).await;
    let sending = tokio::spawn(send(webhook_at(server.url("/"))));
    server.seen.recv().await.unwrap();
    // The server has received the request. A paused clock lets the test skip the wait for the timeout.
    tokio::time::pause();
    let (after, why) = again(sending.await.unwrap());
    assert_eq!(
        (after, why.as_str()),
        (None, "127.0.0.1 did not answer within 10 s")
    );
}

#[tokio::test]
async fn a_closed_port_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/secret", listener.local_addr().unwrap());
    drop(listener);
    let (after, why) = again(send(webhook_at(Url::parse(&url).unwrap())).await);
    assert_eq!(after, None);
    assert!(why.starts_with("failed to send to 127.0.0.1: "), "{why}");
    assert!(why.contains("refused") && !why.contains("secret"), "{why}");
}

#[tokio::test]
async fn nothing_goes_to_a_private_address_unless_allowed() {
    let mut server = Server::start(|_| Reply::Status(200, "", String::new())).await;
    let port = server.address.port();
    for (host, shown) in [
        ("127.0.0.1", "127.0.0.1 has the address 127.0.0.1,"),
        ("0x7f000001", "127.0.0.1 has the address 127.0.0.1,"),
        (
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1] has the address ::ffff:127.0.0.1,",
        ),
        (
            "169.254.169.254",
            "169.254.169.254 has the address 169.254.169.254,",
        ),
        ("localhost", "localhost has the address "),
    ] {
        let url = Url::parse(&format!("http://{host}:{port}/")).unwrap();
        let config = ReceiverConfig {
            allow_private: false,
            ..webhook_at(url)
        };
        let (after, why) = again(send(config).await);
        assert_eq!(after, None);
        assert!(why.contains(shown), "{host}: {why}");
        assert!(
            why.ends_with("set allow_private = true to admit it"),
            "{why}"
        );
    }
    assert!(server.seen.try_recv().is_err());
    let url = Url::parse(&format!("http://localhost:{port}/")).unwrap();
    assert_eq!(send(webhook_at(url)).await, DeliveryResult::Taken);
    assert_eq!(
        server.seen.recv().await.unwrap().headers["user-agent"],
        client::AGENT
    );
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start(|_| Reply::Status(200, "", String::new())).await;
    let receiver = Receiver::new(webhook_at(server.url("/"))).await.unwrap();
    let incident = incident();
    for kind in MessageKind::ALL {
        assert_eq!(
            receiver.send(&message(kind, &incident)).await,
            DeliveryResult::Taken
        );
    }
}

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/tests/certificates");

fn acceptor(name: &str) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let path = |end: &str| format!("{CERTIFICATES}/{name}.{end}.pem");
    let chain = CertificateDer::pem_file_iter(path("cert")).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// Returns a client that trusts the authorities in the file `ca`, and uses `proxies` instead of the proxies of this
/// host.
fn client_trusting(ca: Option<&str>, allow_private: bool, proxies: Matcher) -> HttpClient {
    let path = ca.map(|name| Path::new(CERTIFICATES).join(name));
    let tls = tls::client_config(path.as_deref()).unwrap();
    HttpClient::through(tls, allow_private, proxies)
}

fn request_to(url: &str) -> Request {
    let incident = incident();
    let message = message(MessageKind::Opened, &incident);
    webhook::request(Url::parse(url).unwrap(), &[], None, &message, UnixMs(0))
}

#[tokio::test]
async fn only_the_authorities_of_ca_file_are_trusted() {
    let reply = |_: &str| Reply::Status(200, "", String::new());
    let server = Server::start_with(reply, Some(acceptor("first"))).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let client = client_trusting(Some("first.cert.pem"), true, Matcher::builder().build());
    let answer = client.post(request_to(&url)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    for ca in [None, Some("second.cert.pem")] {
        let client = client_trusting(ca, true, Matcher::builder().build());
        let (_, why) = again(client.post(request_to(&url)).await.unwrap_err());
        assert!(why.contains("invalid peer certificate"), "{why}");
    }
    for (ca, words) in [
        ("README.md", "holds no certificate"),
        ("absent", "failed to load"),
    ] {
        let config = ReceiverConfig {
            ca_file: Some(Path::new(CERTIFICATES).join(ca)),
            ..webhook_at(Url::parse(&url).unwrap())
        };
        let failure = Receiver::new(config).await.unwrap_err().to_string();
        let start = "receiver ops cannot be used: ";
        assert!(
            failure.starts_with(start) && failure.contains(words),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_secret_is_read_before_each_message() {
    let mut server = Server::start(|_| Reply::Status(200, "", String::new())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| SecretFile::new(folder.path().join(name));
    let receiver = Receiver::new(config(Target::Webhook {
        url: Location::File(file("url")),
        secret: Some(file("key")),
        token: Some(file("token")),
    }));
    let receiver = receiver.await.unwrap();
    let incident = incident();
    let message = message(MessageKind::Opened, &incident);
    let (_, why) = again(receiver.send(&message).await);
    assert!(
        why.starts_with("failed to read ") && why.contains("/key: "),
        "{why}"
    );

    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    std::fs::write(folder.path().join("key"), key).unwrap();
    for token in ["one", "two"] {
        std::fs::write(folder.path().join("token"), token).unwrap();
        std::fs::write(
            folder.path().join("url"),
            server.url(&format!("/{token}")).as_str(),
        )
        .unwrap();
        assert_eq!(receiver.send(&message).await, DeliveryResult::Taken);
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(seen.path, format!("/{token}"));
        assert_eq!(seen.headers["authorization"], format!("Bearer {token}"));
        let header = |name: &str| seen.headers[name].to_str().unwrap();
        let key = crate::notify::secret::parse_signing_key(key).unwrap();
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        let wanted = webhook::sign(&key, id, timestamp, &seen.body);
        assert_eq!(header("webhook-signature"), wanted);
        assert_eq!(id, message.id());
    }
}

#[tokio::test]
async fn the_other_receivers_get_their_requests() {
    let mut server = Server::start(|_| Reply::Status(202, "", String::new())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        SecretFile::new(folder.path().join(name))
    };
    let location = Location::Given(server.url("/"));
    let targets = [
        Target::Slack {
            url: file("slack", server.url("/services/a").as_str()),
        },
        Target::PagerDuty {
            url: server.url("/v2/enqueue"),
            routing_key: file("key", "r-1"),
        },
        Target::Ntfy {
            url: location.clone(),
            topic: "city".to_owned(),
            token: None,
        },
        Target::Alertmanager {
            url: location,
            token: None,
        },
    ];
    let paths = ["/services/a", "/v2/enqueue", "/", "/api/v2/alerts"];
    let words = [
        "blocks",
        "\"routing_key\":\"r-1\"",
        "\"topic\":\"city\"",
        "alertname",
    ];
    for ((target, path), word) in targets.into_iter().zip(paths).zip(words) {
        assert_eq!(send(config(target)).await, DeliveryResult::Taken);
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(seen.path, path);
        assert!(seen.body.contains(word), "{}", seen.body);
        assert_eq!(seen.headers["content-type"], "application/json");
    }
}

#[test]
fn sns_is_asked_again_after_throttling() {
    let answer = |status: u16, text: &str| HttpResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        host: "sns".to_owned(),
        text: format!("<ErrorResponse><Error><Code>{text}</Code></Error></ErrorResponse>"),
    };
    let now = SystemTime::UNIX_EPOCH;
    for code in [
        "Throttling",
        "ThrottledException",
        "KMSThrottling",
        "ExpiredToken",
        "RequestExpired",
    ] {
        again(judge(&answer(400, code), true, now));
        refused(judge(&answer(400, code), false, now));
    }
    refused(judge(&answer(403, "AuthorizationError"), true, now));
    again(judge(&answer(500, "InternalError"), true, now));
}

/// Accepts one request for a tunnel, and connects the tunnel to the address `to` regardless of the requested host.
/// Returns the first line of the request.
async fn tunnel_once(listener: TcpListener, to: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut inner, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(inner.read_u8().await.unwrap());
    }
    inner.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut outer = tokio::net::TcpStream::connect(to).await.unwrap();
    // This task ends when the client closes the connection.
    tokio::spawn(async move {
        tokio::io::copy_bidirectional(&mut inner, &mut outer)
            .await
            .ok()
    });
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn https_goes_through_the_proxy() {
    let reply = |_: &str| Reply::Status(200, "", String::new());
    let mut server = Server::start_with(reply, Some(acceptor("first"))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let tunnel = tokio::spawn(tunnel_once(listener, server.address));
    let proxies = Matcher::builder().https(proxy).build();
    let client = client_trusting(Some("first.cert.pem"), false, proxies);
    let request = request_to("https://localhost/city");
    let answer = client.post(request).await.unwrap();
    assert_eq!(
        judge(&answer, false, SystemTime::UNIX_EPOCH),
        DeliveryResult::Taken
    );
    assert_eq!(tunnel.await.unwrap(), "CONNECT localhost:443 HTTP/1.1");
    assert_eq!(server.seen.recv().await.unwrap().path, "/city");
}
