//! The life of one connection: handshake, requests, end.
//!
//! It ends by itself when the client is too slow with a handshake or a head, keeps it idle, or has
//! used it [`REQUESTS_MAX`] times; and when the server stops, after the answers under way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::api::access::Peer;
use crate::api::server::{HEADERS_BYTES_MAX, Patience, Serving, WRITE_STALL_MAX};
use crate::api::stall::StallGuard;
use crate::api::tls::H2;
use crate::shutdown::Shutdown;

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Requests after which a connection is closed, so that long-lived clients spread over new servers.
const REQUESTS_MAX: u64 = 10_000;
/// Most requests of an HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 128;
/// hyper's own read buffer: above our limits, so that our error shape answers first.
const READ_BUFFER_BYTES: usize = 64 * 1_024;
/// Most bytes of an HTTP/2 answer that wait for the client.
const SEND_BUFFER_BYTES: usize = 64 * 1_024;
/// Most header lines; hyper answers 431 itself beyond it.
const HEADERS_MAX: usize = 128;

/// How a connection was used so far.
#[derive(Default)]
struct Usage {
    begun: AtomicU64,
    ended: AtomicU64,
    worn_out: Notify,
}

impl Usage {
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.begun() == self.ended.load(Ordering::Relaxed)
    }
}

/// Serves one accepted connection to its end.
pub(super) async fn run(stream: TcpStream, peer: Peer, serving: Arc<Serving>, shutdown: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let stream = StallGuard::new(stream, WRITE_STALL_MAX);
    let Some(tls) = &serving.tls else {
        return http1(stream, peer, serving, shutdown).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream));
    let stream = tokio::select! {
        () = shutdown.wait() => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
            Err(_elapsed) => return tracing::debug!("handshake took too long"),
        },
    };
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        http2(stream, peer, serving, shutdown).await;
    } else {
        http1(stream, peer, serving, shutdown).await;
    }
}

async fn http1<S>(stream: S, peer: Peer, serving: Arc<Serving>, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let patience = serving.patience;
    let usage = Arc::new(Usage::default());
    let service = {
        let usage = Arc::clone(&usage);
        service_fn(move |request| handle(request, peer, Arc::clone(&serving), Arc::clone(&usage)))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(READ_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .keep_alive(true)
        .serve_connection(TokioIo::new(stream), service);
    drive(
        connection,
        http1::Connection::graceful_shutdown,
        &usage,
        patience,
        false,
        &shutdown,
    )
    .await;
}

async fn http2<S>(stream: S, peer: Peer, serving: Arc<Serving>, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = serving.patience;
    let usage = Arc::new(Usage::default());
    let service = {
        let usage = Arc::clone(&usage);
        service_fn(move |request| handle(request, peer, Arc::clone(&serving), Arc::clone(&usage)))
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADERS_BYTES_MAX * 2).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(patience.ping)
        .keep_alive_timeout(patience.pong)
        .serve_connection(TokioIo::new(stream), service);
    drive(
        connection,
        http2::Connection::graceful_shutdown,
        &usage,
        patience,
        true,
        &shutdown,
    )
    .await;
}

async fn handle(
    request: hyper::Request<Incoming>,
    peer: Peer,
    serving: Arc<Serving>,
    usage: Arc<Usage>,
) -> Result<axum::response::Response, Infallible> {
    if usage.begun.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX {
        usage.worn_out.notify_one();
    }
    let response = serving.answer(request, peer).await;
    usage.ended.fetch_add(1, Ordering::Relaxed);
    Ok(response)
}

/// Runs a connection to its end; `end` asks it to finish after the answers under way. `waits` says that
/// the protocol itself does not end a connection on which nothing is asked.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    usage: &Usage,
    patience: Patience,
    waits: bool,
    shutdown: &Shutdown,
) {
    let mut connection = std::pin::pin!(connection);
    let mut ending = false;
    // The first request has to come in the time for a head, whatever the protocol.
    let mut wait = patience.head;
    loop {
        let begun = usage.begun();
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // Clients that go away or never finish a request are their own affair.
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = shutdown.wait(), if !ending => {
                if usage.begun() == 0 {
                    // Nothing was ever asked here: a browser's spare connection, or half a request.
                    return;
                }
                end(connection.as_mut());
                ending = true;
            }
            () = usage.worn_out.notified(), if !ending => {
                end(connection.as_mut());
                ending = true;
            }
            () = tokio::time::sleep(wait), if !ending && waits => {
                if usage.begun() == 0 {
                    return;
                }
                if usage.is_idle() && usage.begun() == begun {
                    end(connection.as_mut());
                    ending = true;
                }
                wait = patience.idle;
            }
        }
    }
}
