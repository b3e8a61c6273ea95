//! The life of one connection: handshake, requests, end.
//!
//! It ends by itself when the client is too slow with a handshake or a head, keeps it idle, takes none of
//! an answer, or has used it [`REQUESTS_MAX`] times or long enough; when there is no room for others; and
//! when the server stops, after the answers under way. Over HTTP/2 these have the time of a drain.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::access::{LIVEZ, Peer};
use crate::api::paced::{BASE_BYTES, Paced, Progress};
use crate::api::server::{HEADERS_BYTES_MAX, Patience, Serving, head_bytes};
use crate::api::shares::ConnectionShare;
use crate::api::write_timeout::WriteTimeout;
use crate::api::tls::H2;
use crate::shutdown::Shutdown;

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Requests after which a connection is closed, so that long-lived clients spread over new servers.
const REQUESTS_MAX: u64 = 10_000;
/// Most requests of an HTTP/2 connection at a time.
pub(super) const STREAMS_MAX: u32 = 32;
/// hyper's own buffer, of an HTTP/1.1 connection: above our limits, so that our error shape answers first.
const READ_BUFFER_BYTES: usize = 32 * 1_024;
/// Most bytes of an HTTP/2 answer that wait for the socket.
const SEND_BUFFER_BYTES: usize = 16 * 1_024;
/// Most bytes of request bodies that an HTTP/2 connection takes in before they are read: the least that
/// the protocol knows. No route reads one.
const RECEIVE_BYTES_MAX: u32 = 65_535;
/// Time between two looks at whether an old connection has come to the end of its answers.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a spare connection waits for its one request.
const SPARE_PATIENCE: Duration = Duration::from_secs(2);
/// Most header lines; hyper answers 431 itself beyond it.
const HEADERS_MAX: usize = 128;

/// How a connection was used so far.
#[derive(Default)]
struct Usage {
    begun: AtomicU64,
    ended: AtomicU64,
    /// It is to end after the answers under way.
    worn_out: Notify,
    /// A client takes nothing of an answer.
    stalled: Notify,
}

impl Usage {
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.begun() == self.ended.load(Ordering::Relaxed)
    }
}

/// A request under way, from its head to the end of the answer's body.
#[derive(Default)]
pub(super) struct InUse(Arc<Usage>);

impl InUse {
    fn begin(usage: &Arc<Usage>) -> InUse {
        if usage.begun.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX {
            usage.worn_out.notify_one();
        }
        InUse(Arc::clone(usage))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

tokio::task_local! {
    /// How the HTTP/2 stream of this task gets on.
    static PROGRESS: Arc<Progress>;
}

/// Runs the streams of an HTTP/2 connection; resets one whose client takes nothing of its answer.
#[derive(Clone)]
struct Streams {
    stall_max: Duration,
    usage: Arc<Usage>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, answering: F) {
        let (usage, stall_max) = (Arc::clone(&self.usage), self.stall_max);
        let progress = Progress::new();
        let watched = Arc::clone(&progress);
        tokio::spawn(PROGRESS.scope(progress, async move {
            tokio::select! {
                () = answering => {}
                // What is dropped with the other branch resets the stream.
                () = watched.stalled(stall_max) => usage.stalled.notify_one(),
            }
        }));
    }
}

/// One connection: whose, of which server, how used.
struct Conn {
    peer: Peer,
    serving: Arc<Serving>,
    share: ConnectionShare,
    usage: Arc<Usage>,
    patience: Patience,
}

/// Serves one accepted connection to its end.
pub(super) async fn run(
    stream: TcpStream,
    peer: Peer,
    serving: Arc<Serving>,
    share: ConnectionShare,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let mut patience = serving.patience;
    if share.is_spare {
        patience.head = patience.head.min(SPARE_PATIENCE);
    }
    let stream = WriteTimeout::new(stream, patience.stall);
    let tls = serving.tls.clone();
    let conn = Arc::new(Conn {
        peer,
        serving,
        share,
        usage: Arc::default(),
        patience,
    });
    let Some(tls) = tls else {
        return http1(stream, conn, shutdown).await;
    };
    let handshake_max = HANDSHAKE_MAX.min(patience.head);
    let handshake = tokio::time::timeout(handshake_max, tls.accept(stream));
    let stream = tokio::select! {
        () = shutdown.wait() => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
            Err(_elapsed) => return tracing::debug!("handshake took too long"),
        },
    };
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        http2(stream, conn, shutdown).await;
    } else {
        http1(stream, conn, shutdown).await;
    }
}

async fn http1<S>(stream: S, conn: Arc<Conn>, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let answering = Arc::clone(&conn);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(conn.patience.head)
        .max_buf_size(READ_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .keep_alive(true)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| handle(request, Arc::clone(&answering))),
        );
    let end = http1::Connection::graceful_shutdown;
    drive(connection, end, &conn, false, &shutdown).await;
}

async fn http2<S>(stream: S, conn: Arc<Conn>, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = conn.patience;
    let streams = Streams {
        stall_max: patience.stall,
        usage: Arc::clone(&conn.usage),
    };
    let answering = Arc::clone(&conn);
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADERS_BYTES_MAX * 2).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_connection_window_size(RECEIVE_BYTES_MAX)
        .initial_stream_window_size(RECEIVE_BYTES_MAX)
        .keep_alive_interval(patience.ping)
        .keep_alive_timeout(patience.pong)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| handle(request, Arc::clone(&answering))),
        );
    let end = http2::Connection::graceful_shutdown;
    drive(connection, end, &conn, true, &shutdown).await;
}

/// Answers a request within what its client may hold.
async fn handle(
    request: hyper::Request<Incoming>,
    conn: Arc<Conn>,
) -> Result<Response<Paced>, Infallible> {
    let in_use = InUse::begin(&conn.usage);
    let progress = PROGRESS.try_with(Arc::clone).ok();
    let is_livez = request.uri().path() == LIVEZ;
    let version = request.version();
    let is_for_it = is_livez || !conn.share.is_spare;
    let mut share = is_for_it
        .then(|| conn.share.bytes(BASE_BYTES + head_bytes(&request)))
        .flatten();
    let mut response = conn.serving.answer(request, conn.peer, &mut share).await;
    // A probe keeps no connection, and a spare one is for one request.
    if (conn.share.is_spare || is_livez) && version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if conn.share.is_spare {
        conn.usage.worn_out.notify_one();
    }
    Ok(response.map(|body| Paced::new(body, progress, share, in_use)))
}

/// Runs a connection to its end; `end` asks it to finish after the answers under way. `is_http2` says that
/// the protocol itself neither ends a connection on which nothing is asked, nor one that is to end.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    conn: &Conn,
    is_http2: bool,
    shutdown: &Shutdown,
) {
    let mut connection = std::pin::pin!(connection);
    let (usage, patience) = (&*conn.usage, conn.patience);
    let old = Instant::now() + patience.age;
    let mut ending = None;
    // The first request has to come in the time for a head; over HTTP/1.1 hyper sees to that.
    let head = Instant::now() + patience.head;
    let mut look = if is_http2 { head } else { old };
    loop {
        let begun = usage.begun();
        let must_end = ending.filter(|_| is_http2);
        let is_to_end = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // Clients that go away or never finish a request are their own affair.
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = tokio::time::sleep_until(must_end.unwrap_or(look)), if must_end.is_some() => {
                return tracing::debug!("dropped a connection that did not end");
            }
            () = shutdown.wait(), if ending.is_none() => true,
            () = usage.worn_out.notified(), if ending.is_none() => true,
            () = usage.stalled.notified(), if ending.is_none() => true,
            () = conn.share.crowded(), if ending.is_none() => usage.begun() > 0 && usage.is_idle(),
            () = tokio::time::sleep_until(look), if ending.is_none() => {
                let now = Instant::now();
                let (is_old, is_idle) = (now >= old, usage.is_idle());
                look = now + if is_old { LOOK_AGAIN } else { patience.idle };
                // An old connection ends between two answers, which HTTP/1.1 sees to itself.
                (is_idle && usage.begun() == begun) || (is_old && (is_idle || !is_http2))
            }
        };
        if is_to_end {
            if usage.begun() == 0 {
                // Nothing was ever asked here: a browser's spare connection, or half a request.
                return;
            }
            end(connection.as_mut());
            ending = Some(Instant::now() + patience.drain);
        }
    }
}
