//! The accept loop: serves a router on an open listener until the role shuts down.
//!
//! This accept loop replaces `axum::serve`, which sets no timeouts and no limits. With `axum::serve`, a client that
//! sends half a request line keeps its connection forever. This server limits every resource that clients can use, both
//! in total and for each client. The limited resources are connections ([`CONNECTIONS_MAX`]) and the bytes of requests
//! and responses in flight (`shares::BYTES_MAX`). [`ConnectionTimeouts`] contains the time limits of a single
//! connection. [`heads`](super::heads) and [`handler`](super::handler) define the limits of a single request. The
//! server never guesses the protocol from the first bytes of a connection. A plain connection uses HTTP/1.1, and a TLS
//! connection uses the protocol that its handshake negotiated.
//!
//! On shutdown, the server first closes the listener, so that the next process can bind the port. Responses in flight
//! may finish within [`DRAIN_MAX`], and then the server closes all remaining connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::api::access::{Peer, client};
pub use crate::api::connection::ConnectionTimeouts;
use crate::api::connection::{self, DRAIN_MAX, Endpoint};
use crate::api::handler::Handler;
pub use crate::api::handler::Uploads;
pub use crate::api::heads::Hosts;
use crate::api::shares::{self, Limits, Shares};
pub(crate) use crate::api::shares::{BASE_BYTES, ByteShare};
use crate::shutdown::Shutdown;

/// Maximum number of connections at the same time, unless the role sets another limit.
///
/// The server accepts `shares::SPARE_MAX` additional connections, which serve only `/livez`, and closes all further
/// connections. Hostile clients can make the server use about 80 KiB of memory per connection, in addition to
/// `shares::BYTES_MAX` for all clients. With these limits, all connections and all bytes in flight together fit into
/// 512 MiB of memory.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Maximum number of bytes of responses that the kernel buffers for a connection. Linux doubles the buffer size that a
/// program sets.
const SOCKET_BYTES_MAX: u32 = 128 * 1_024;
/// Maximum length of the kernel's queue of connections that the server has not accepted yet.
const BACKLOG: u32 = 1_024;
/// Pause after a failed `accept`. Without a pause, the accept loop would use a whole CPU while no file descriptor is
/// free.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// The error for a port that the server cannot listen on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} ({option})")]
pub struct BindError {
    /// The address that the server should listen on.
    pub address: SocketAddr,
    /// The command-line option that named the address.
    pub option: String,
    /// The error that the operating system returned.
    pub source: std::io::Error,
}

/// Opens a listener on `address`. If the call fails, the error names `option`, the command-line option that set the
/// address.
///
/// # Errors
/// Returns an error if the address is in use or does not belong to this host.
#[allow(clippy::unused_async)] // the function needs the Tokio runtime
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
    // A restarted role must be able to bind the port while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit this buffer size. By default, the kernel lets each send buffer grow to 4 MiB.
    socket.set_send_buffer_size(SOCKET_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The settings with which [`serve`] runs a server.
pub struct ServeOptions {
    /// Maximum number of connections at the same time.
    pub connections_max: usize,
    /// The acceptor of TLS connections. If the acceptor is `None`, connections use no TLS.
    pub tls: Option<TlsAcceptor>,
    /// True if the server logs each request.
    pub access_log: bool,
    /// The timeouts of each connection.
    pub timeouts: ConnectionTimeouts,
    /// Maximum number of connections of one client at the same time. `None` means a quarter of `connections_max`.
    pub client_connections_max: Option<usize>,
    /// Maximum number of bytes of requests and responses in flight, over all clients.
    pub bytes_max: usize,
    /// The host names that clients may use. `None` allows any host name.
    pub hosts: Option<Hosts>,
    /// The path to which clients may send large bodies, or `None` if there is no such path.
    pub uploads: Option<Uploads>,
}

impl ServeOptions {
    /// Returns settings for a port without a login. A port without a login rejects a request whose header `Host`
    /// contains a name that a malicious site could own.
    pub fn without_login(allowed_hosts: &[String]) -> ServeOptions {
        ServeOptions {
            hosts: Some(Hosts::new(allowed_hosts)),
            ..ServeOptions::default()
        }
    }
}

impl Default for ServeOptions {
    fn default() -> ServeOptions {
        ServeOptions {
            client_connections_max: None,
            bytes_max: shares::BYTES_MAX,
            hosts: None,
            uploads: None,
            connections_max: CONNECTIONS_MAX,
            tls: None,
            access_log: false,
            timeouts: ConnectionTimeouts::default(),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` is triggered. Returns when every connection is closed, at most
/// [`DRAIN_MAX`] after the shutdown began.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    shutdown: Shutdown,
) {
    let endpoint = Arc::new(Endpoint {
        handler: Handler {
            router,
            over_tls: options.tls.is_some(),
            access_log: options.access_log,
            hosts: options.hosts,
            uploads: options.uploads,
        },
        tls: options.tls,
        timeouts: options.timeouts,
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
                Ok((stream, peer)) => match shares.add_connection(client(peer.ip())) {
                    Some(share) => {
                        let endpoint = Arc::clone(&endpoint);
                        let run = connection::run(stream, Peer(peer), endpoint, share, shutdown.clone());
                        connections.spawn(run);
                    }
                    None => tracing::debug!(%peer, "closed a connection above the limit"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::heads::{BODY_BYTES_MAX, HEADERS_BYTES_MAX, URI_BYTES_MAX};
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    /// A timeout that is long enough for a busy test host, and short enough to detect a server that hangs.
    const PATIENCE: Duration = Duration::from_secs(4);

    async fn started() -> (SocketAddr, Shutdown, JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap(), "--port")
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/hang", get(std::future::pending::<&str>));
        let shutdown = Shutdown::default();
        let server = tokio::spawn(serve(
            listener,
            router,
            ServeOptions::default(),
            shutdown.clone(),
        ));
        (address, shutdown, server)
    }

    async fn connect(address: SocketAddr, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    /// Reads from the connection until the response contains `end`.
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
    async fn half_open_connections_do_not_block_other_clients() {
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
            .expect("half a request does not delay shutdown")
            .unwrap();
    }

    #[tokio::test]
    async fn idle_keep_alive_connections_do_not_delay_shutdown() {
        let (address, shutdown, server) = started().await;
        let mut idle = connect(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        read_until(&mut idle, "hello").await;
        let _spare = connect(address, "").await;
        shutdown.trigger();
        let stopped = tokio::time::timeout(PATIENCE, server).await;
        stopped.expect("no request is in flight").unwrap();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        bind(address, "--port")
            .await
            .expect("the port is free again");
    }

    #[tokio::test]
    async fn an_endless_request_is_dropped_after_the_drain_time() {
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
    async fn a_request_above_a_limit_gets_an_error_with_a_code() {
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
