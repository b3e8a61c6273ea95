//! Serves one client connection from its handshake to its end.
//!
//! A connection ends in each of the following cases:
//! - The client is too slow with the handshake or with the head of a request.
//! - The client leaves the connection idle, or stops reading a response.
//! - The connection has reached its maximum age or its maximum number of requests.
//! - The server is full, and this connection is idle.
//! - The server shuts down. Responses in flight may finish. Over HTTP/2, responses in flight must finish within the
//!   drain time.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::api::access::{LIVEZ, Peer};
use crate::api::handler::Handler;
use crate::api::heads::{HEADERS_BYTES_MAX, head_bytes};
use crate::api::paced::{PacedBody, WriteProgress};
use crate::api::shares::{BASE_BYTES, ConnectionShare};
use crate::api::tls::H2;
use crate::api::usage::{InFlight, Usage};
use crate::api::write_timeout::WriteTimeout;
use crate::shutdown::Shutdown;

/// Maximum time for responses in flight to finish after the server begins to shut down.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Maximum duration of a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Maximum number of concurrent requests on an HTTP/2 connection.
pub(super) const STREAMS_MAX: u32 = 32;
/// Size of hyper's read buffer for HTTP/1.1. The buffer is larger than any request head that the server accepts, so
/// that the server itself, and not hyper, rejects an oversized head.
const READ_BUFFER_BYTES: usize = 32 * 1_024;
/// Maximum number of bytes of a response that hyper buffers for each HTTP/2 stream.
const SEND_BUFFER_BYTES: usize = 16 * 1_024;
/// Maximum number of unread bytes of request bodies on an HTTP/2 connection. Most routes read no body, so the maximum
/// is the smallest connection window that HTTP/2 allows.
const RECEIVE_BYTES_MAX: u32 = 65_535;
/// Interval at which the server checks whether an old connection has become idle.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Maximum time for which the server waits for the only request of a spare connection. A spare connection is accepted
/// above the connection limit, and serves only `/livez`.
const SPARE_HEAD_MAX: Duration = Duration::from_secs(2);
/// Maximum number of header lines of a request. If a request has too many header lines, hyper answers with status 431.
const HEADERS_MAX: usize = 128;

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// Maximum time for the client to send the head of a request. Over HTTP/2, the timeout `head` applies only to the
    /// first request of a connection.
    pub head: Duration,
    /// Maximum time for which an HTTP/2 connection may be idle after its first request. The timeout `head` limits the
    /// time for which an HTTP/1.1 connection may be idle.
    pub idle: Duration,
    /// Time without a received frame after which the server sends an HTTP/2 ping.
    pub ping: Duration,
    /// Maximum time for the client to answer an HTTP/2 ping.
    pub pong: Duration,
    /// Maximum time for which a client may stop reading while the server has bytes to send.
    pub write_progress: Duration,
    /// Maximum time for responses in flight on an HTTP/2 connection to finish after the server has begun to close the
    /// connection.
    pub drain: Duration,
    /// Maximum age of a connection. The server closes an older connection as soon as no response is in flight. Without
    /// a maximum age, a connection that is always busy would never close.
    pub age: Duration,
}

impl Default for ConnectionTimeouts {
    fn default() -> ConnectionTimeouts {
        ConnectionTimeouts {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(10),
            write_progress: Duration::from_secs(20),
            drain: DRAIN_MAX,
            age: Duration::from_secs(300),
        }
    }
}

/// The request handler, the TLS acceptor and the timeouts that all connections of a server share.
pub(super) struct Endpoint {
    pub(super) handler: Handler,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) timeouts: ConnectionTimeouts,
}

tokio::task_local! {
    /// Records whether the client reads the response of the HTTP/2 stream that the current task serves.
    static PROGRESS: Arc<WriteProgress>;
}

/// Runs the streams of an HTTP/2 connection. The executor resets a stream if the client stops reading the stream's
/// response.
///
/// A write timeout on the socket does not detect a client that stops reading only one response. The client may still
/// read other streams and answer pings.
#[derive(Clone)]
struct StreamExecutor {
    write_progress: Duration,
    usage: Arc<Usage>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, answering: F) {
        let (usage, stall_max) = (Arc::clone(&self.usage), self.write_progress);
        let progress = WriteProgress::new();
        let watched = Arc::clone(&progress);
        tokio::spawn(PROGRESS.scope(progress, async move {
            tokio::select! {
                () = answering => {}
                // When the client stalls, `select!` drops the future of the stream. Dropping the future resets the
                // stream.
                () = watched.wait_for_stall(stall_max) => usage.stalled.notify_one(),
            }
        }));
    }
}

/// The state that all requests of one connection share.
struct Connection {
    peer: Peer,
    endpoint: Arc<Endpoint>,
    share: ConnectionShare,
    usage: Arc<Usage>,
    timeouts: ConnectionTimeouts,
}

/// Serves one accepted connection until it ends.
pub(super) async fn run(
    stream: TcpStream,
    peer: Peer,
    endpoint: Arc<Endpoint>,
    share: ConnectionShare,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let mut timeouts = endpoint.timeouts;
    if share.is_spare {
        timeouts.head = timeouts.head.min(SPARE_HEAD_MAX);
    }
    let stream = WriteTimeout::new(stream, timeouts.write_progress);
    let tls = endpoint.tls.clone();
    let conn = Arc::new(Connection {
        peer,
        endpoint,
        share,
        usage: Arc::default(),
        timeouts,
    });
    let Some(tls) = tls else {
        return serve_http1(stream, conn, shutdown).await;
    };
    let handshake_max = HANDSHAKE_MAX.min(timeouts.head);
    let handshake = tokio::time::timeout(handshake_max, tls.accept(stream));
    let stream = tokio::select! {
        () = shutdown.wait() => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "failed to complete the TLS handshake"),
            Err(_elapsed) => return tracing::debug!("timed out in the TLS handshake"),
        },
    };
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        serve_http2(stream, conn, shutdown).await;
    } else {
        serve_http1(stream, conn, shutdown).await;
    }
}

async fn serve_http1<S>(stream: S, conn: Arc<Connection>, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let answering = Arc::clone(&conn);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(conn.timeouts.head)
        .max_buf_size(READ_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .keep_alive(true)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer_request(request, Arc::clone(&answering))),
        );
    let end = http1::Connection::graceful_shutdown;
    drive(connection, end, &conn, false, &shutdown).await;
}

async fn serve_http2<S>(stream: S, conn: Arc<Connection>, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let timeouts = conn.timeouts;
    let executor = StreamExecutor {
        write_progress: timeouts.write_progress,
        usage: Arc::clone(&conn.usage),
    };
    let answering = Arc::clone(&conn);
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADERS_BYTES_MAX * 2).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_connection_window_size(RECEIVE_BYTES_MAX)
        .initial_stream_window_size(RECEIVE_BYTES_MAX)
        .keep_alive_interval(timeouts.ping)
        .keep_alive_timeout(timeouts.pong)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer_request(request, Arc::clone(&answering))),
        );
    let end = http2::Connection::graceful_shutdown;
    drive(connection, end, &conn, true, &shutdown).await;
}

/// Answers a request, or rejects the request if the client's requests and responses already use too much memory.
async fn answer_request(
    request: hyper::Request<Incoming>,
    conn: Arc<Connection>,
) -> Result<Response<PacedBody>, Infallible> {
    let in_flight = InFlight::begin(&conn.usage);
    let progress = PROGRESS.try_with(Arc::clone).ok();
    let is_livez = request.uri().path() == LIVEZ;
    let version = request.version();
    let may_answer = is_livez || !conn.share.is_spare;
    let mut share = may_answer
        .then(|| conn.share.bytes(BASE_BYTES + head_bytes(&request)))
        .flatten();
    let handler = &conn.endpoint.handler;
    let mut response = handler.answer(request, conn.peer, &mut share).await;
    // The server closes a connection after answering a request for `/livez`, and closes a spare connection after its
    // first response.
    if (conn.share.is_spare || is_livez) && version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if conn.share.is_spare {
        conn.usage.worn_out.notify_one();
    }
    Ok(response.map(|body| PacedBody::new(body, progress, share, in_flight)))
}

/// Drives a connection until it ends. The closure `end` starts a graceful shutdown, in which responses in flight may
/// finish.
///
/// Over HTTP/1.1, hyper closes an idle connection, and waits for the response in flight during a graceful shutdown.
/// Over HTTP/2 (`is_http2`), the function `drive` detects an idle connection and enforces the drain time.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    conn: &Connection,
    is_http2: bool,
    shutdown: &Shutdown,
) {
    let mut connection = std::pin::pin!(connection);
    let (usage, timeouts) = (&*conn.usage, conn.timeouts);
    let old = Instant::now() + timeouts.age;
    let mut ending = None;
    // The first request must arrive within the timeout `head`. Over HTTP/1.1, hyper enforces this timeout.
    let head = Instant::now() + timeouts.head;
    let mut check_at = if is_http2 { head } else { old };
    loop {
        let begun = usage.begun();
        let must_end = ending.filter(|_| is_http2);
        let is_to_end = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // A client that disconnects or never finishes a request is not an error of the server.
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = tokio::time::sleep_until(must_end.unwrap_or(check_at)), if must_end.is_some() => {
                return tracing::debug!("dropped a connection that did not end in time");
            }
            () = shutdown.wait(), if ending.is_none() => true,
            () = usage.worn_out.notified(), if ending.is_none() => true,
            () = usage.stalled.notified(), if ending.is_none() => true,
            () = conn.share.crowded(), if ending.is_none() => usage.begun() > 0 && usage.is_idle(),
            () = tokio::time::sleep_until(check_at), if ending.is_none() => {
                let now = Instant::now();
                let (is_old, is_idle) = (now >= old, usage.is_idle());
                check_at = now + if is_old { CHECK_EVERY } else { timeouts.idle };
                // An HTTP/2 connection that has reached its maximum age ends when no response is in flight. The server
                // may end an old HTTP/1.1 connection at any time, because hyper first finishes the response in flight.
                (is_idle && usage.begun() == begun) || (is_old && (is_idle || !is_http2))
            }
        };
        if is_to_end {
            if usage.begun() == 0 {
                // No request has begun on the connection, for example because a browser has opened the connection in
                // advance, or because the client has sent only half a request.
                return;
            }
            end(connection.as_mut());
            ending = Some(Instant::now() + timeouts.drain);
        }
    }
}
