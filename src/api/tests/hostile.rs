//! Tests hostile clients on a real socket. A hostile client reads nothing, reads slowly, opens many connections, or
//! sends false headers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::secure::{FIRST, PATIENT, connect};
use crate::api::connection::STREAMS_MAX;
use crate::api::server::{ConnectionTimeouts, Hosts, ServeOptions, bind, serve};
use crate::api::shares::CLIENT_PART;
use crate::api::tls::Certificate;
use crate::shutdown::Shutdown;

/// A short timeout of the server, for which a test can wait.
const SHORT: Duration = Duration::from_millis(800);
/// A duration that is longer than every timeout in these tests, even on a busy host.
const LONG: Duration = Duration::from_secs(30);
/// Size in bytes of a response that the server sends in many pieces.
const LARGE: usize = 256 << 10;

/// Starts a server that runs until the end of the test. Returns its address.
async fn served(options: ServeOptions) -> (SocketAddr, JoinHandle<()>) {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "--port")
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let large = Bytes::from(vec![b'x'; LARGE]);
    let endless = async || {
        let beats = stream::unfold((), async |()| {
            tokio::time::sleep(SHORT / 20).await;
            Some((Ok::<_, axum::Error>(": beat\n\n"), ()))
        });
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(beats.boxed()),
        )
    };
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/livez", get(async || "ok\n"))
        .route("/large", get(async move || large.clone()))
        .route("/endless", get(endless));
    (
        address,
        tokio::spawn(serve(listener, router, options, Shutdown::default())),
    )
}

/// An HTTP/2 client that writes its frames itself, so that it can send frames that no library would send.
struct Frames<S>(S);

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Opens an HTTP/2 connection with a flow-control window of zero bytes for each stream.
    async fn begin(stream: S) -> Frames<S> {
        let mut frames = Frames(stream);
        frames
            .0
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        frames.send(4, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A failed write is ignored, because the server may already have ended the connection.
        let _sent = self.0.write_all(&frame).await;
    }

    async fn ask(&mut self, stream: u32, path: &str) {
        // The header block contains `:method` GET, `:scheme` https, and the literals of `:path` and `:authority`
        // without indexing.
        let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path.bytes());
        block.extend(b"\x01\x09localhost");
        self.send(HEADERS, 0x5, stream, &block).await;
    }

    /// Allows the server to send `bytes` more bytes on a stream.
    async fn grant(&mut self, stream: u32, bytes: u32) {
        self.send(8, 0, stream, &bytes.to_be_bytes()).await;
    }

    /// Returns the type, the stream id and the payload of the next frame that is not a ping. Answers each ping that
    /// arrives earlier.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            let read = tokio::time::timeout(LONG, self.0.read_exact(&mut head)).await;
            read.expect("the server ends the connection").ok()?;
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; usize::try_from(size).unwrap()];
            self.0.read_exact(&mut payload).await.ok()?;
            match (head[3], head[4] & 1) {
                (PING, 0) => self.send(PING, 1, 0, &payload).await,
                (kind, _) => return Some((kind, stream, payload)),
            }
        }
    }

    /// Reads all frames until the connection ends, and returns their types.
    async fn rest(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some((kind, ..)) = self.next().await {
            kinds.push(kind);
        }
        kinds
    }
}

async fn http2(options: ServeOptions) -> Frames<impl AsyncRead + AsyncWrite + Unpin> {
    let dir = tempfile::tempdir().unwrap();
    FIRST.write(dir.path());
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let certificate = Arc::new(Certificate::load(&cert, &key).unwrap());
    let tls = Some(certificate.acceptor());
    let (address, _) = served(ServeOptions { tls, ..options }).await;
    Frames::begin(connect(address, FIRST.certificate, "h2").await.unwrap()).await
}

fn with_timeouts(timeouts: ConnectionTimeouts) -> ServeOptions {
    ServeOptions {
        timeouts,
        ..ServeOptions::default()
    }
}

#[tokio::test]
async fn an_http2_client_that_reads_nothing_is_dropped_although_it_answers_pings() {
    for path in ["/large", "/", "/endless"] {
        let timeouts = ConnectionTimeouts {
            write_progress: SHORT,
            ping: SHORT / 8,
            ..PATIENT
        };
        let mut client = http2(with_timeouts(timeouts)).await;
        let begun = Instant::now();
        client.ask(1, path).await;
        let seen = client.rest().await;
        assert!(
            seen.contains(&RST_STREAM) && seen.contains(&GOAWAY),
            "{path}: {seen:?}"
        );
        assert!(!seen.contains(&DATA), "{path}: {seen:?}");
        assert!(begun.elapsed() >= SHORT, "{path}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn an_http2_client_that_reads_a_byte_at_a_time_is_dropped() {
    let timeouts = ConnectionTimeouts {
        write_progress: SHORT,
        ..PATIENT
    };
    let mut client = http2(with_timeouts(timeouts)).await;
    client.ask(1, "/large").await;
    let begun = Instant::now();
    loop {
        client.grant(1, 1).await;
        if matches!(client.next().await, Some((RST_STREAM, ..)) | None) {
            break;
        }
        assert!(begun.elapsed() < LONG, "the connection continues");
        tokio::time::sleep(SHORT / 20).await;
    }
}

#[tokio::test]
async fn after_goaway_a_connection_ends_within_the_drain_time() {
    let timeouts = ConnectionTimeouts {
        write_progress: SHORT,
        drain: SHORT,
        ..PATIENT
    };
    let mut client = http2(with_timeouts(timeouts)).await;
    // The client requests an endless response and a large response, and reads only the endless response.
    client.ask(1, "/endless").await;
    client.grant(1, 1 << 20).await;
    client.ask(3, "/large").await;
    let mut goaway = None;
    while let Some((kind, ..)) = client.next().await {
        if kind == GOAWAY && goaway.is_none() {
            goaway = Some(Instant::now());
        }
    }
    let took = goaway.expect("GOAWAY comes first").elapsed();
    assert!(took >= SHORT / 2 && took < LONG, "{took:?}");
}

#[tokio::test]
async fn memory_for_unread_answers_is_bounded_and_further_requests_are_refused() {
    let options = ServeOptions {
        bytes_max: CLIENT_PART * 4 * LARGE,
        ..with_timeouts(PATIENT)
    };
    let mut client = http2(options).await;
    let asked = STREAMS_MAX;
    for n in 0..asked {
        client.ask(2 * n + 1, "/large").await;
    }
    let (mut held, mut refused) = (0, 0);
    while held + refused < asked {
        match client.next().await.expect("an answer to each") {
            // The first byte of the header block is 0x88 if the status of the response is 200, and another byte if the
            // request is refused.
            (HEADERS, _, block) if block[0] == 0x88 => held += 1,
            (HEADERS, ..) => refused += 1,
            _ => {}
        }
    }
    assert!((1..4).contains(&held), "{held} held, {refused} refused");
    // When the client closes a stream, the server no longer counts the bytes of the stream.
    for n in 0..asked {
        client
            .send(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes())
            .await;
    }
    client.ask(2 * asked + 1, "/large").await;
    let again = loop {
        match client.next().await.expect("an answer") {
            (HEADERS, stream, block) if stream > 2 * asked => break block,
            _ => {}
        }
    };
    assert_eq!(again[0], 0x88);
}

#[tokio::test]
async fn streams_above_the_limit_of_a_connection_are_refused() {
    let mut client = http2(with_timeouts(PATIENT)).await;
    for n in 0..=STREAMS_MAX {
        client.ask(2 * n + 1, "/endless").await;
    }
    loop {
        if let (RST_STREAM, stream, _) = client.next().await.expect("a refusal") {
            assert_eq!(stream, 2 * STREAMS_MAX + 1);
            break;
        }
    }
}

async fn from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends one request. Returns everything that the client receives until the connection ends. Fails after [`LONG`].
async fn ask(stream: &mut TcpStream, head: &str) -> String {
    let mut text = Vec::new();
    // A failed write is ignored, because the server may already have closed the connection.
    let _sent = stream.write_all(head.as_bytes()).await;
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await;
    let _ended = read.expect("it ends");
    String::from_utf8_lossy(&text).into_owned()
}

const CLOSE: &str = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
const PROBE: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn one_client_cannot_lock_out_others_or_the_probe() {
    let options = ServeOptions {
        connections_max: 20,
        ..with_timeouts(PATIENT)
    };
    let (address, _server) = served(options).await;
    // Each connection sends half a request. A connection with half a request is not idle, so the server does not close
    // it to make room for another connection.
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut one = from("127.0.0.2", address).await;
        one.write_all(b"GET / HT").await.unwrap();
        held.push(one);
    }
    let mut other = from("127.0.0.3", address).await;
    assert!(ask(&mut other, CLOSE).await.ends_with("hello"));
    // Many clients together can use up all connections of the server. A full server still answers a request for
    // `/livez`, and answers all other requests with status 503.
    for n in 10..30 {
        let mut one = from(&format!("127.0.0.{n}"), address).await;
        one.write_all(b"GET / HT").await.unwrap();
        held.push(one);
    }
    let mut probe = from("127.0.0.4", address).await;
    assert!(ask(&mut probe, PROBE).await.ends_with("ok\n"));
    let mut refused = from("127.0.0.5", address).await;
    let answer = ask(&mut refused, CLOSE).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("\"busy\""),
        "{answer}"
    );
    assert!(answer.contains("retry-after"), "{answer}");
}

#[tokio::test]
async fn idle_connections_make_room_for_others() {
    let options = ServeOptions {
        connections_max: 8,
        ..with_timeouts(PATIENT)
    };
    let (address, _server) = served(options).await;
    let mut idle = Vec::new();
    for n in 2..6 {
        for _ in 0..2 {
            let mut one = from(&format!("127.0.0.{n}"), address).await;
            one.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await
                .unwrap();
            let mut head = [0; 12];
            one.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200");
            idle.push(one);
        }
    }
    let begun = Instant::now();
    loop {
        let mut one = from("127.0.0.9", address).await;
        if ask(&mut one, CLOSE).await.ends_with("hello") {
            break;
        }
        assert!(begun.elapsed() < LONG, "it stays full");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn keep_alive_ends_at_once_for_a_probe_and_by_age_for_others() {
    let timeouts = ConnectionTimeouts {
        age: SHORT,
        ..PATIENT
    };
    let (address, _server) = served(with_timeouts(timeouts)).await;
    let mut probe = from("127.0.0.1", address).await;
    assert!(ask(&mut probe, PROBE).await.contains("connection: close"));
    let mut other = from("127.0.0.1", address).await;
    let begun = Instant::now();
    let mut buffer = [0; 4_096];
    let keeps = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    while other.write_all(keeps).await.is_ok() {
        if !matches!(other.read(&mut buffer).await, Ok(1..)) {
            break;
        }
        assert!(begun.elapsed() < LONG, "the connection continues");
        tokio::time::sleep(SHORT / 20).await;
    }
    assert!(begun.elapsed() >= SHORT / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_http1_client_that_reads_nothing_is_dropped() {
    let timeouts = ConnectionTimeouts {
        write_progress: SHORT,
        ..PATIENT
    };
    let (address, _server) = served(with_timeouts(timeouts)).await;
    let mut client = from("127.0.0.1", address).await;
    let begun = Instant::now();
    let asks = "GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
    while client.write_all(asks.as_bytes()).await.is_ok() {
        assert!(begun.elapsed() < LONG, "it takes requests for ever");
        tokio::time::sleep(SHORT / 20).await;
    }
}

#[tokio::test]
async fn ambiguous_heads_and_foreign_hosts_are_rejected() {
    let options = ServeOptions {
        hosts: Some(Hosts::new(&["city.example".to_owned()])),
        ..with_timeouts(PATIENT)
    };
    let (address, _server) = served(options).await;
    let end = "connection: close\r\n\r\n";
    for (head, status, code) in [
        ("GET / HTTP/1.1\r\nhost: localhost\r\n", 200, ""),
        ("GET / HTTP/1.1\r\nhost: city.example:8082\r\n", 200, ""),
        ("GET / HTTP/1.0\r\n", 200, ""),
        ("GET / HTTP/1.1\r\n", 400, "bad_header"),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n",
            400,
            "bad_header",
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n",
            400,
            "bad_header",
        ),
        (
            "GET / HTTP/1.1\r\nhost: rebound.example\r\n",
            403,
            "forbidden",
        ),
        (
            "GET / HTTP/1.1\r\nhost: localhost.rebound.example\r\n",
            403,
            "forbidden",
        ),
        (
            "GET http://rebound.example/ HTTP/1.1\r\nhost: localhost\r\n",
            403,
            "forbidden",
        ),
        (
            "GET /livez HTTP/1.1\r\nhost: rebound.example\r\n",
            403,
            "forbidden",
        ),
    ] {
        let mut client = from("127.0.0.1", address).await;
        let answer = ask(&mut client, &format!("{head}{end}")).await;
        assert!(answer.contains(&format!(" {status} ")), "{head}: {answer}");
        assert!(answer.contains(code), "{head}: {answer}");
    }
}
