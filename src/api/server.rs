//! The accept loop: serves a router on a bound listener until it is told to stop.
//!
//! Own loop instead of `axum::serve`, which sets no timer, no cap and no limit: there a client that
//! sends half a request line keeps its connection for ever. Here each thing a client can hold is
//! bounded: connections ([`CONNECTIONS_MAX`]), the time to send a request's head
//! ([`HEADER_READ_TIMEOUT`], which also ends idle keep-alive), its size, its body, the time of an
//! answer ([`REQUEST_DEADLINE`]), and how long a reader may stop reading ([`WRITE_STALL_MAX`]). The
//! protocol is never guessed from the first bytes: HTTP/1.1, and over TLS what the handshake agreed.
//!
//! Every answer gets a request id and headers that keep browsers from doing more with it than asked.
//!
//! Stopping closes the listener first, so that a successor can bind it, lets answers under way end,
//! and after [`DRAIN_MAX`] drops whatever is still open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use http_body_util::Limited;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::api::access::Peer;
use crate::api::connection;
use crate::api::error::{ApiError, REQUEST_ID, RequestId, shaped};
use crate::shutdown::Shutdown;

/// Most connections at a time, unless the role says otherwise; further ones wait in the listener's
/// backlog. At a few kilobytes each this stays far below the memory of a small host.
pub const CONNECTIONS_MAX: usize = 10_000;
/// How long a client may take to send the head of a request, from the moment it could begin.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/2 connection may stay without a request. HTTP/1.1 has the time for a head.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// HTTP/2 clients are asked whether they are still there, and dropped if they do not answer.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long they may take to answer.
const PONG_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take before it becomes 408.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take none of the bytes offered to it.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(20);
/// How long answers under way may take to end once the server is told to stop.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Longest path and query: a cursor and every parameter fit many times.
pub const URI_BYTES_MAX: usize = 8 * 1_024;
/// Most bytes in all header lines.
pub const HEADERS_BYTES_MAX: usize = 16 * 1_024;
/// Largest request body. No route reads one.
pub const BODY_BYTES_MAX: usize = 64 * 1_024;
/// Wait after a failed accept, so that running out of file descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Most characters of a path in the access log.
const LOGGED_CHARS_MAX: usize = 256;

/// What browsers may do with an answer, unless the answer itself says otherwise. The page has a policy
/// of its own.
const GUARDS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];
/// Two years, as browsers' lists ask for; only said over TLS.
const HSTS: (&str, &str) = ("strict-transport-security", "max-age=63072000");

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} ({option})")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The option that named it.
    pub option: String,
    /// What the operating system said.
    pub source: std::io::Error,
}

/// Opens `address`; `option` is the command-line option that named it, for the error.
///
/// # Errors
/// If the address is in use or not this host's.
pub async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError {
            address,
            option: option.to_owned(),
            source,
        })
}

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request, and over HTTP/2 for the first one.
    pub head: Duration,
    /// Over HTTP/2, for a request after the first one.
    pub idle: Duration,
    /// Over HTTP/2, until the client is asked whether it is still there.
    pub ping: Duration,
    /// For the answer to that.
    pub pong: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            head: HEADER_READ_TIMEOUT,
            idle: IDLE_MAX,
            ping: PING_EVERY,
            pong: PONG_MAX,
        }
    }
}

/// How to serve.
pub struct Options {
    /// Most connections at a time.
    pub connections_max: usize,
    /// What makes connections TLS connections.
    pub tls: Option<TlsAcceptor>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// How long a connection waits for its client.
    pub patience: Patience,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connections_max: CONNECTIONS_MAX,
            tls: None,
            access_log: false,
            patience: Patience::default(),
        }
    }
}

/// Serves `router` on `listener` until `shutdown`; returns once every connection is closed, at most
/// [`DRAIN_MAX`] later.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    serve_with(listener, router, Options::default(), shutdown).await;
}

/// [`serve`] with options.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    options: Options,
    shutdown: Shutdown,
) {
    let serving = Arc::new(Serving {
        router,
        tls: options.tls,
        access_log: options.access_log,
        patience: options.patience,
    });
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < options.connections_max;
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, peer)) => {
                    let serving = Arc::clone(&serving);
                    connections.spawn(connection::run(stream, Peer(peer), serving, shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN_MAX, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::info!(
            connections = connections.len(),
            "dropping connections that are still open"
        );
    }
    connections.shutdown().await;
}

/// What all connections share.
pub(super) struct Serving {
    router: Router,
    pub(super) tls: Option<TlsAcceptor>,
    access_log: bool,
    pub(super) patience: Patience,
}

impl Serving {
    /// Answers one request, within its bounds.
    pub(super) async fn answer(&self, request: hyper::Request<Incoming>, peer: Peer) -> Response {
        let id = RequestId::of(request.headers());
        let begun = Instant::now();
        let logged = self.access_log.then(|| {
            let target = request.uri().path_and_query().map_or("*", |p| p.as_str());
            let target: String = target.chars().take(LOGGED_CHARS_MAX).collect();
            (request.method().clone(), target)
        });
        let mut response = id.scope(self.bounded(request, peer)).await;
        let headers = response.headers_mut();
        if !headers.contains_key(REQUEST_ID) {
            headers.insert(REQUEST_ID, id.header());
        }
        let hsts = self.tls.as_ref().map(|_| HSTS);
        for (name, value) in GUARDS.into_iter().chain(hsts) {
            headers
                .entry(HeaderName::from_static(name))
                .or_insert(HeaderValue::from_static(value));
        }
        if let Some((method, target)) = logged {
            tracing::info!(
                peer = %peer.0.ip(),
                %method,
                target,
                status = response.status().as_u16(),
                ms = begun.elapsed().as_millis(),
                bytes = response.body().size_hint().exact(),
                request_id = %id,
                "request"
            );
        }
        response
    }

    async fn bounded(&self, request: hyper::Request<Incoming>, peer: Peer) -> Response {
        if let Err(error) = check_size(&request) {
            return error.into_response();
        }
        let mut request: Request =
            request.map(|body| Body::new(Limited::new(body, BODY_BYTES_MAX)));
        request.extensions_mut().insert(peer);
        let answer = self.router.clone().oneshot(request);
        match tokio::time::timeout(REQUEST_DEADLINE, answer).await {
            Ok(Ok(response)) => shaped(response),
            Ok(Err(never)) => match never {},
            Err(_elapsed) => ApiError::deadline_exceeded().into_response(),
        }
    }
}

fn check_size(request: &hyper::Request<Incoming>) -> Result<(), ApiError> {
    let uri_bytes = request
        .uri()
        .path_and_query()
        .map_or(0, |p| p.as_str().len());
    if uri_bytes > URI_BYTES_MAX {
        return Err(ApiError::uri_too_long(URI_BYTES_MAX));
    }
    let headers_bytes: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    if headers_bytes > HEADERS_BYTES_MAX {
        return Err(ApiError::headers_too_large(HEADERS_BYTES_MAX));
    }
    let body_bytes = request.body().size_hint().lower();
    if body_bytes > BODY_BYTES_MAX as u64 {
        return Err(ApiError::body_too_large(BODY_BYTES_MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    /// Long enough for a loaded test host, short enough to tell a hang.
    const PATIENCE: Duration = Duration::from_secs(4);

    async fn started() -> (SocketAddr, Shutdown, JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "--port")
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/hang", get(std::future::pending::<&str>));
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve(listener, router, shutdown.clone()));
        (address, shutdown, server)
    }

    async fn connect(address: SocketAddr, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    /// Reads until the answer's text holds `end`.
    async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = String::new();
        let mut buf = [0; 4_096];
        while !text.contains(end) {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut buf));
            let n = read.await.expect("an answer").unwrap();
            assert!(n > 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&buf[..n]).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn g1_half_open_connections_hold_nobody_up() {
        let (address, shutdown, server) = started().await;
        let mut stalled = Vec::new();
        for _ in 0..200 {
            stalled.push(connect(address, "GET / HT").await);
        }
        let mut good = connect(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        read_until(&mut good, "hello").await;
        shutdown.trigger();
        let stopped = tokio::time::timeout(PATIENCE, server).await;
        stopped
            .expect("half a request does not hold up the end")
            .unwrap();
    }

    #[tokio::test]
    async fn g2_idle_keep_alive_does_not_hold_up_the_end() {
        let (address, shutdown, server) = started().await;
        let mut idle = connect(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        read_until(&mut idle, "hello").await;
        let _spare = connect(address, "").await;
        shutdown.trigger();
        let stopped = tokio::time::timeout(PATIENCE, server).await;
        stopped.expect("no request is under way").unwrap();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        bind(address, "--port")
            .await
            .expect("the port is free again");
    }

    #[tokio::test]
    async fn g2_a_request_without_end_is_dropped_at_the_bound() {
        let (address, shutdown, server) = started().await;
        let mut hanging = connect(address, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut good = connect(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        read_until(&mut good, "hello").await;
        shutdown.trigger();
        let stopped = tokio::time::timeout(DRAIN_MAX + PATIENCE, server).await;
        stopped.expect("the bound holds").unwrap();
        let mut rest = Vec::new();
        let ended = hanging.read_to_end(&mut rest).await;
        assert!(ended.is_err() || rest.is_empty());
    }

    #[tokio::test]
    async fn limits_answer_in_the_shape_of_errors() {
        let (address, _shutdown, _server) = started().await;
        let check = async |request: String, status: &str, code: &str| {
            let mut stream = connect(address, &request).await;
            let text = read_until(&mut stream, "request_id\":\"").await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
            assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
        };
        let long = "a".repeat(URI_BYTES_MAX);
        check(
            format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
            "414",
            "uri_too_long",
        )
        .await;
        let long = "a".repeat(HEADERS_BYTES_MAX);
        check(
            format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
            "431",
            "headers_too_large",
        )
        .await;
        let length = BODY_BYTES_MAX + 1;
        check(
            format!("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"),
            "413",
            "body_too_large",
        )
        .await;
        check(
            "GET /x HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            "404",
            "not_found",
        )
        .await;
        check(
            "POST / HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            "405",
            "method_not_allowed",
        )
        .await;
    }

    #[tokio::test]
    async fn a_port_in_use_names_the_option() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "--listen")
            .await
            .unwrap();
        let error = bind(listener.local_addr().unwrap(), "--listen").await;
        let error = error.expect_err("the port is taken").to_string();
        assert!(
            error.contains("--listen") && error.contains("127.0.0.1:"),
            "{error}"
        );
    }
}
