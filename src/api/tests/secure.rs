//! Tests the server over TLS on a real socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::api::server::{ConnectionTimeouts, ServeOptions, bind, serve};
use crate::api::tls::Certificate;
use crate::shutdown::Shutdown;

/// A self-signed certificate for `localhost` and its key, made for these tests only. The certificate is valid until
/// 2126.
pub(super) struct TestCertificate {
    pub(super) certificate: &'static str,
    key: &'static str,
}

pub(super) const FIRST: TestCertificate = TestCertificate {
    certificate: include_str!("certificates/first.cert.pem"),
    key: include_str!("certificates/first.key.pem"),
};
const SECOND: TestCertificate = TestCertificate {
    certificate: include_str!("certificates/second.cert.pem"),
    key: include_str!("certificates/second.key.pem"),
};

impl TestCertificate {
    pub(super) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("key.pem"), self.key).unwrap();
        std::fs::write(dir.join("cert.pem"), self.certificate).unwrap();
    }
}

pub(super) async fn connect(
    address: SocketAddr,
    trusted: &str,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Starts a server over TLS with the given timeouts. Returns the address and the task of the server.
async fn served(
    certificate: Arc<Certificate>,
    timeouts: ConnectionTimeouts,
    shutdown: Shutdown,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "--port")
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(async || tokio::time::sleep(5 * SHORT).await));
    let options = ServeOptions {
        tls: Some(certificate.acceptor()),
        timeouts,
        ..ServeOptions::default()
    };
    (
        address,
        tokio::spawn(serve(listener, router, options, shutdown)),
    )
}

/// Starts HTTP/2 on a TLS connection. Returns the request sender and the task that drives the connection.
async fn http2(
    stream: TlsStream<TcpStream>,
) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let handshake = handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (requests, connection) = handshake.await.unwrap();
    (requests, tokio::spawn(connection))
}

#[tokio::test]
async fn both_protocols_work_and_a_renewed_certificate_is_used() {
    let dir = tempfile::tempdir().unwrap();
    FIRST.write(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let certificate = Arc::new(Certificate::load(&cert, &key).unwrap());
    let shutdown = Shutdown::default();
    tokio::spawn(Arc::clone(&certificate).watch(shutdown.clone()));
    let (address, server) =
        served(certificate, ConnectionTimeouts::default(), shutdown.clone()).await;

    let mut plain = connect(address, FIRST.certificate, "http/1.1")
        .await
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("hello"), "{text}");
    for header in [
        "strict-transport-security",
        "x-request-id",
        "x-content-type-options: nosniff",
    ] {
        assert!(text.contains(header), "{text}");
    }

    let stream = connect(address, FIRST.certificate, "h2").await.unwrap();
    let (mut requests, connection) = http2(stream).await;
    for id in ["mine-1", "mine 2"] {
        let request = hyper::Request::get("https://localhost/")
            .header("x-request-id", id)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = requests.send_request(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, hyper::Version::HTTP_2)
        );
        // The server keeps the client's own request id if the id is safe to log.
        assert_eq!(answer.headers()["x-request-id"] == id, id == "mine-1");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello");
    }

    SECOND.write(dir.path());
    while connect(address, SECOND.certificate, "h2").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect(address, FIRST.certificate, "h2").await.is_err());
    // The server rejects a key that does not belong to the certificate, and keeps using the previous certificate and
    // key.
    std::fs::write(&key, FIRST.key).unwrap();
    assert!(Certificate::load(&cert, &key).is_err());
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    connect(address, SECOND.certificate, "h2").await.unwrap();

    // The shutdown of the server also ends the idle connection.
    shutdown.trigger();
    let stopped = tokio::time::timeout(Duration::from_secs(10), server).await;
    stopped.expect("idle connections hold up nothing").unwrap();
    let _ended = connection.await.unwrap();
}

#[test]
fn invalid_certificate_files_are_rejected_by_name() {
    let dir = tempfile::tempdir().unwrap();
    FIRST.write(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let none = dir.path().join("none.pem");
    for (cert, key, names) in [
        (&key, &key, "key.pem"),
        (&cert, &cert, "cert.pem"),
        (&none, &key, "none.pem"),
    ] {
        let error = Certificate::load(cert, key).unwrap_err().to_string();
        assert!(error.contains(names), "{error}");
    }
}

/// A duration that is longer than any test takes.
const FOREVER: Duration = Duration::from_secs(3_600);
/// A short timeout of the server, for which a test can wait.
const SHORT: Duration = Duration::from_millis(500);
pub(super) const PATIENT: ConnectionTimeouts = ConnectionTimeouts {
    head: FOREVER,
    idle: FOREVER,
    ping: FOREVER,
    pong: FOREVER,
    write_progress: FOREVER,
    drain: FOREVER,
    age: FOREVER,
};

/// Starts a TLS server with the given timeouts, which runs until the end of the test. Returns a TLS connection to the
/// server that has negotiated HTTP/2.
async fn http2_with(timeouts: ConnectionTimeouts) -> TlsStream<TcpStream> {
    let dir = tempfile::tempdir().unwrap();
    FIRST.write(dir.path());
    let certificate =
        Certificate::load(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
    let (address, _) = served(Arc::new(certificate), timeouts, Shutdown::default()).await;
    connect(address, FIRST.certificate, "h2").await.unwrap()
}

/// Waits for a future that must finish within a minute.
async fn ended<T>(ending: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(60), ending).await;
    ended.expect("the server ends the connection")
}

/// Reads all frames until the connection ends, and returns their types.
async fn frames(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut types = Vec::new();
    let mut head = [0; 9];
    while ended(stream.read_exact(&mut head)).await.is_ok() {
        let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload).await.unwrap();
        types.push(head[3]);
    }
    types
}

/// Frame types of HTTP/2 (RFC 9113).
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn an_http2_connection_without_a_first_request_ends() {
    for opening in [&b""[..], OPENING] {
        let head = SHORT;
        let mut stream = http2_with(ConnectionTimeouts { head, ..PATIENT }).await;
        let begun = std::time::Instant::now();
        stream.write_all(opening).await.unwrap();
        let seen = frames(&mut stream).await;
        assert!(!seen.contains(&PING), "{seen:?}");
        // The server starts the timeout before the client finishes the handshake, so the measured time is slightly
        // shorter than the timeout.
        assert!(begun.elapsed() > SHORT / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn an_http2_client_is_dropped_only_if_it_does_not_answer_pings() {
    let timeouts = ConnectionTimeouts {
        ping: SHORT / 5,
        pong: 2 * SHORT,
        ..PATIENT
    };
    let mut stream = http2_with(timeouts).await;
    let begun = std::time::Instant::now();
    stream.write_all(OPENING).await.unwrap();
    let seen = frames(&mut stream).await;
    assert!(seen.contains(&SETTINGS) && seen.contains(&PING), "{seen:?}");
    assert!(begun.elapsed() > SHORT, "{:?}", begun.elapsed());

    let (mut requests, connection) = http2(http2_with(timeouts).await).await;
    let request = |path: &str| {
        let request = hyper::Request::get(format!("https://localhost{path}"));
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    // The response to `/slow` takes so long that the server sends about twenty-five pings in the meantime.
    let answer = requests.send_request(request("/slow")).await.unwrap();
    assert_eq!(answer.status(), 200);
    requests.send_request(request("/")).await.unwrap();
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn an_idle_http2_connection_ends_and_one_with_a_request_in_flight_does_not() {
    let timeouts = ConnectionTimeouts {
        // The timeout `head` must be long enough for the first request on a busy host.
        head: 4 * SHORT,
        idle: SHORT,
        ..PATIENT
    };
    let (mut requests, connection) = http2(http2_with(timeouts).await).await;
    let request = hyper::Request::get("https://localhost/slow");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = requests.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    // The connection ends without an error, because the server sends GOAWAY before it closes the connection.
    ended(connection).await.unwrap().unwrap();
}
