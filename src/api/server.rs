//! The accept loop: serves a router on a bound listener until it is told to stop.
//!
//! Own loop instead of `axum::serve`, which sets no timer, no cap and no limit: there a client that
//! sends half a request line keeps its connection for ever. Here each thing a client can hold is
//! bounded: connections ([`CONNECTIONS_MAX`]), the time to send a request's head
//! ([`HEADER_READ_TIMEOUT`], which also ends idle keep-alive), its size, its body, the time of an
//! answer ([`REQUEST_DEADLINE`]), and how long a reader may stop reading ([`WRITE_STALL_MAX`]).
//!
//! Stopping closes the listener first, so that a successor can bind it, lets answers under way end,
//! and after [`DRAIN_MAX`] drops whatever is still open.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::api::error::{ApiError, shaped};
use crate::api::stall::StallGuard;
use crate::shutdown::Shutdown;

/// Most connections at a time; further ones wait in the listener's backlog. At a few kilobytes each
/// this stays far below the memory of a small host, and it holds a few thousand stalled clients.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take to send the head of a request, from the moment it could begin.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
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
/// hyper's own read buffer: above our limits, so that our error shape answers first.
const READ_BUFFER_BYTES: usize = 64 * 1_024;
/// Most header lines; hyper answers 431 itself beyond it.
const HEADERS_MAX: usize = 128;
/// Wait after a failed accept, so that running out of file descriptors does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

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

/// Serves `router` on `listener` until `shutdown`; returns once every connection is closed, at most
/// [`DRAIN_MAX`] later.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(connection(stream, router.clone(), shutdown.clone()));
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

async fn connection(stream: TcpStream, router: Router, shutdown: Shutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let used = Arc::new(AtomicBool::new(false));
    let in_use = Arc::clone(&used);
    let service = service_fn(move |request| {
        in_use.store(true, Ordering::Relaxed);
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(router, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(READ_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .keep_alive(true)
        .serve_connection(
            TokioIo::new(StallGuard::new(stream, WRITE_STALL_MAX)),
            service,
        );
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.wait() => {
            if !used.load(Ordering::Relaxed) {
                // Nothing was ever asked here: a browser's spare connection, or half a request.
                return;
            }
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        // Clients that go away or never finish a request are their own affair.
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(router: Router, request: hyper::Request<Incoming>) -> Response {
    if let Err(error) = check_size(&request) {
        return error.into_response();
    }
    let request: Request = request.map(|body| Body::new(Limited::new(body, BODY_BYTES_MAX)));
    match tokio::time::timeout(REQUEST_DEADLINE, router.oneshot(request)).await {
        Ok(Ok(response)) => shaped(response),
        Ok(Err(never)) => match never {},
        Err(_elapsed) => ApiError::deadline_exceeded().into_response(),
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
