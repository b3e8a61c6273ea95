//! The life of one connection: handshake, requests, end.
//!
//! A connection ends when one of these happens:
//! - The client is too slow with the handshake or the head of a request, or leaves the connection idle.
//! - The client takes nothing of an answer.
//! - The connection has reached its age or its number of requests.
//! - The server is full and this connection is idle.
//! - The server shuts down. Answers in flight may then finish; over HTTP/2, within the drain time.

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

/// How long answers in flight may take to finish once the server shuts down.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Maximum number of concurrent requests on an HTTP/2 connection.
pub(super) const STREAMS_MAX: u32 = 32;
/// Size of hyper's read buffer for HTTP/1.1. It exceeds our own limits, so our errors answer first.
const READ_BUFFER_BYTES: usize = 32 * 1_024;
/// Maximum number of bytes of an HTTP/2 answer that wait for the socket.
const SEND_BUFFER_BYTES: usize = 16 * 1_024;
/// Maximum number of unread bytes of request bodies on an HTTP/2 connection: the smallest window that the protocol
/// allows. No route reads a body.
const RECEIVE_BYTES_MAX: u32 = 65_535;
/// Time between two checks whether an old connection is idle.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a spare connection waits for its only request.
const SPARE_HEAD_MAX: Duration = Duration::from_secs(2);
/// Maximum number of header lines. Beyond it, hyper answers 431 itself.
const HEADERS_MAX: usize = 128;

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// Time to send the head of a request. Over HTTP/2 it applies to the first request only.
    pub head: Duration,
    /// Over HTTP/2, the time without a request after the first one. HTTP/1.1 uses `head`.
    pub idle: Duration,
    /// Over HTTP/2, the time until the server sends a ping.
    pub ping: Duration,
    /// Over HTTP/2, the time to answer that ping.
    pub pong: Duration,
    /// Time within which the client must take some of an answer.
    pub write_progress: Duration,
    /// Over HTTP/2, the time for answers in flight to finish once the connection should end.
    pub drain: Duration,
    /// Age at which a connection closes between two answers, so that busy ones also come to an end.
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

/// What all connections of a server share.
pub(super) struct Endpoint {
    pub(super) handler: Handler,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) timeouts: ConnectionTimeouts,
}

tokio::task_local! {
    /// The progress of the HTTP/2 stream that this task serves.
    static PROGRESS: Arc<WriteProgress>;
}

/// Runs the streams of an HTTP/2 connection and resets a stream whose client takes nothing of its answer.
///
/// A write timeout on the socket does not suffice here: such a client may still answer pings and read other
/// streams.
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
                // Dropping the other branch resets the stream.
                () = watched.wait_for_stall(stall_max) => usage.stalled.notify_one(),
            }
        }));
    }
}

/// One connection.
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
            service_fn(move |request| answer(request, Arc::clone(&answering))),
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
            service_fn(move |request| answer(request, Arc::clone(&answering))),
        );
    let end = http2::Connection::graceful_shutdown;
    drive(connection, end, &conn, true, &shutdown).await;
}

/// Answers a request, or rejects it if the client already holds too many bytes.
async fn answer(
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
    // A probe does not keep its connection, and a spare connection serves one request.
    if (conn.share.is_spare || is_livez) && version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if conn.share.is_spare {
        conn.usage.worn_out.notify_one();
    }
    Ok(response.map(|body| PacedBody::new(body, progress, share, in_flight)))
}

/// Drives a connection until it ends. The function `end` asks the connection to finish after the answers in flight.
///
/// hyper itself ends an HTTP/1.1 connection that is idle or should end. Over HTTP/2 (`is_http2`) it does
/// neither, so this function does.
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
    // The first request must arrive within the `head` timeout. Over HTTP/1.1 hyper enforces this.
    let head = Instant::now() + timeouts.head;
    let mut check_at = if is_http2 { head } else { old };
    loop {
        let begun = usage.begun();
        let must_end = ending.filter(|_| is_http2);
        let is_to_end = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // A client that leaves or never finishes a request is no fault of the server.
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
                // An old connection ends between two answers. Over HTTP/1.1 hyper waits for that itself.
                (is_idle && usage.begun() == begun) || (is_old && (is_idle || !is_http2))
            }
        };
        if is_to_end {
            if usage.begun() == 0 {
                // No request has begun: a browser's spare connection, or half a request.
                return;
            }
            end(connection.as_mut());
            ending = Some(Instant::now() + timeouts.drain);
        }
    }
}
