//! The accept loop: serves a router on a bound listener until it is told to stop.
//!
//! Own loop instead of `axum::serve`, which sets no timer, no cap and no limit: there a client that
//! sends half a request line keeps its connection for ever. Here each thing a client can hold is
//! bounded: connections ([`CONNECTIONS_MAX`]) and bytes under way (`shares::BYTES_MAX`), of each client
//! as well, the time to send a request's head ([`HEADER_READ_TIMEOUT`], which also ends idle
//! keep-alive), its size, its body, the time of an answer ([`REQUEST_DEADLINE`]), how long a reader may
//! stop reading ([`WRITE_STALL_MAX`]), and how long a connection is used ([`CONNECTION_AGE_MAX`]). The
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
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::api::access::{Peer, client};
use crate::api::error::{ApiError, REQUEST_ID, RequestId, shaped};
pub use crate::api::heads::Hosts;
use crate::api::paced::BASE_BYTES;
use crate::api::shares::{self, ByteShare, Limits, Shares};
use crate::api::{connection, heads};
use crate::shutdown::Shutdown;

/// Most connections at a time, unless the role says otherwise. Further ones are for `/livez` alone, and
/// once there are `shares::SPARE_MAX` of those, they are closed. A hostile client can make the server
/// hold some 80 KiB for each beside `shares::BYTES_MAX` for all, so together they fit into 512 MiB.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take to send the head of a request, from the moment it could begin.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/2 connection may stay without a request. HTTP/1.1 has the time for a head.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// HTTP/2 clients are asked whether they are still there, and dropped if they do not answer.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long they may take to answer.
const PONG_MAX: Duration = Duration::from_secs(10);
/// How long a connection is used before it is closed between two answers, so that idle ones do not stay
/// for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
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
/// Most bytes of answers that the kernel holds for a connection; it takes the double for itself.
const SOCKET_BYTES_MAX: u32 = 128 * 1_024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Wait after a failed accept, so that running out of file descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Most characters of a path in the access log, and of a method, which a client may make up.
const LOGGED_CHARS_MAX: usize = 256;
const LOGGED_METHOD_CHARS_MAX: usize = 16;
/// Parameters whose values the access log shows. A client may have put its token into any other.
const LOGGED_PARAMETERS: [&str; 16] = [
    "city",
    "compare",
    "cursor",
    "event_type",
    "eventType",
    "format",
    "from",
    "hours",
    "limit",
    "rule",
    "series_limit",
    "severity",
    "state",
    "step",
    "to",
    "tz",
];

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
#[allow(clippy::unused_async)] // it needs the runtime
pub async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| BindError {
        address,
        option: option.to_owned(),
        source,
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections that ended lately do not keep a successor from the port.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it. Otherwise the kernel lets each grow to 4 MiB.
    socket.set_send_buffer_size(SOCKET_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
    /// For some of an answer to be taken.
    pub stall: Duration,
    /// Over HTTP/2, for answers under way to end once the connection is to end.
    pub drain: Duration,
    /// Until it is closed between two answers.
    pub age: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            head: HEADER_READ_TIMEOUT,
            idle: IDLE_MAX,
            ping: PING_EVERY,
            pong: PONG_MAX,
            stall: WRITE_STALL_MAX,
            drain: DRAIN_MAX,
            age: CONNECTION_AGE_MAX,
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
    /// Most connections of one client at a time; the usual part of all if there is none.
    pub client_connections_max: Option<usize>,
    /// Most bytes of requests and answers under way.
    pub bytes_max: usize,
    /// By which names clients may ask; by any if there is none.
    pub hosts: Option<Hosts>,
}

impl Options {
    /// Returns how to serve without a login: names that another site could have are refused.
    pub fn without_login(allowed_hosts: &[String]) -> Options {
        Options {
            hosts: Some(Hosts::new(allowed_hosts)),
            ..Options::default()
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            client_connections_max: None,
            bytes_max: shares::BYTES_MAX,
            hosts: None,
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
        hosts: options.hosts,
    });
    let part = options.connections_max.div_ceil(shares::CLIENT_PART);
    let shares = Shares::new(Limits {
        connections_max: options.connections_max,
        client_connections_max: options.client_connections_max.unwrap_or(part),
        bytes_max: options.bytes_max,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match shares.connect(client(peer.ip())) {
                    Some(share) => {
                        let serving = Arc::clone(&serving);
                        let run = connection::run(stream, Peer(peer), serving, share, shutdown.clone());
                        connections.spawn(run);
                    }
                    None => tracing::debug!(%peer, "closed a connection beyond the bounds"),
                },
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
    hosts: Option<Hosts>,
}

impl Serving {
    /// Answers one request, within its bounds. `share` counts what the client holds by it; without one,
    /// or where the answer does not fit into it, the answer is that there is too much.
    pub(super) async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: Peer,
        share: &mut Option<ByteShare>,
    ) -> Response {
        let id = RequestId::of(request.headers());
        let begun = Instant::now();
        let logged = self.access_log.then(|| {
            let method = request.method().as_str();
            let method: String = method.chars().take(LOGGED_METHOD_CHARS_MAX).collect();
            (method, logged_target(request.uri()))
        });
        let answering = async {
            let Some(held) = share else {
                return ApiError::busy().into_response();
            };
            let response = self.bounded(request, peer).await;
            let bytes = response.body().size_hint().exact().unwrap_or(0);
            if held.resize(BASE_BYTES + usize::try_from(bytes).unwrap_or(usize::MAX / 2)) {
                return response;
            }
            *share = None;
            ApiError::busy().into_response()
        };
        let mut response = id.scope(answering).await;
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
                method,
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
        if let Err(error) = heads::check(&request, self.hosts.as_ref()) {
            return error.into_response();
        }
        let mut request: Request =
            request.map(|body| Body::new(Limited::new(body, BODY_BYTES_MAX)));
        request.extensions_mut().insert(peer);
        let answer = async {
            match self.router.clone().oneshot(request).await {
                Ok(response) => gathered(shaped(response)).await,
                Err(never) => match never {},
            }
        };
        match tokio::time::timeout(REQUEST_DEADLINE, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error.into_response(),
            Err(_elapsed) => ApiError::deadline_exceeded().into_response(),
        }
    }
}

/// Returns path and query as the access log shows them.
fn logged_target(uri: &Uri) -> String {
    let mut target = uri.path().to_owned();
    let mut separator = '?';
    for pair in uri.query().into_iter().flat_map(|query| query.split('&')) {
        let name = pair.split('=').next().unwrap_or_default();
        let is_ours = LOGGED_PARAMETERS.contains(&name);
        target.push(separator);
        target.push_str(if is_ours { pair } else { "(hidden)" });
        separator = '&';
    }
    target.chars().take(LOGGED_CHARS_MAX).collect()
}

/// Returns the bytes of the header lines.
pub(super) fn head_bytes<B>(request: &hyper::Request<B>) -> usize {
    let lines = request.headers().iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum()
}

/// Returns the answer with all of its body at hand, unless it is one that does not end: so nothing but
/// its bytes waits for a slow client.
async fn gathered(response: Response) -> Result<Response, ApiError> {
    let is_stream = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    let is_whole = response.body().size_hint().exact().is_some();
    if is_whole || response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
        return Ok(response);
    }
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::internal(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        // Compressing takes its time, and others have requests as well.
        tokio::task::yield_now().await;
    }
    Ok(Response::from_parts(head, Body::from(bytes.freeze())))
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

    #[test]
    fn the_access_log_shows_no_token_that_stands_in_a_query() {
        let shown = |target: &'static str| logged_target(&Uri::from_static(target));
        assert_eq!(shown("/api/v1/stats"), "/api/v1/stats");
        let page = "/api/v1/events/NYC?limit=5&from=2013-01-01T00:00:00Z";
        assert_eq!(shown(page), page);
        for query in [
            "token=s3cret",
            "s3cret",
            "x=1&access_token=s3cret",
            "limit%3D=s3cret",
        ] {
            let target = format!("/?limit=5&{query}");
            let uri: Uri = target.parse().unwrap();
            let shown = logged_target(&uri);
            assert!(
                !shown.contains("s3cret") && shown.contains("(hidden)"),
                "{shown}"
            );
        }
        let long = format!("/{}", "a".repeat(1_000));
        assert_eq!(
            logged_target(&long.parse().unwrap()).len(),
            LOGGED_CHARS_MAX
        );
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
