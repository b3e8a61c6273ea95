//! The ports of the page, the embedded Kafka and the embedded DynamoDB, which listen only on the loopback interface.
//!
//! librdkafka's mock broker chooses its own port. `dev` forwards connections from a fixed Kafka port to the mock
//! broker. The first response of the mock broker contains the address of the mock broker, so clients then connect to
//! the mock broker directly. This module answers DynamoDB requests itself, because the server in the database library
//! accepts requests from any web site.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use dynoxide::Database;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::api::server::{self, BindError};
use crate::settings::Dev;
use crate::shutdown::Shutdown;
use crate::store::embedded;

/// The default port of Kafka.
const KAFKA_PORT: u16 = 9092;
/// The default port of DynamoDB Local.
const DYNAMODB_PORT: u16 = 8000;
/// Maximum number of open connections to Kafka. When the maximum is reached, a new connection waits until an open
/// connection is closed.
const CONNECTIONS_MAX: usize = 256;
/// Maximum size of a request body in bytes, which equals the limit of DynamoDB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The open ports of `dev`.
#[derive(Debug)]
pub(crate) struct Ports {
    /// The listener of the page, the API and all metrics.
    pub(crate) page: TcpListener,
    /// The listener of the embedded Kafka.
    pub(crate) kafka: TcpListener,
    /// The listener of the embedded DynamoDB.
    pub(crate) dynamodb: TcpListener,
    /// The addresses of all three listeners.
    pub(crate) addresses: Addresses,
}

/// The addresses of the open ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The address of the page, the API and all metrics.
    pub(crate) page: SocketAddr,
    /// The address of the embedded Kafka.
    pub(crate) kafka: SocketAddr,
    /// The address of the embedded DynamoDB.
    pub(crate) dynamodb: SocketAddr,
}

impl Ports {
    /// Opens the three ports.
    ///
    /// # Errors
    /// Returns an error if a port cannot be opened.
    pub(crate) async fn open(args: &Dev) -> anyhow::Result<Ports> {
        let page = open(Some(args.port), 0, "--port").await?;
        let kafka = open(args.kafka_port, KAFKA_PORT, "--kafka-port").await?;
        let dynamodb = open(args.dynamodb_port, DYNAMODB_PORT, "--dynamodb-port").await?;
        let address = |listener: &TcpListener| {
            let address = listener.local_addr();
            address.context("failed to read the port")
        };
        let addresses = Addresses {
            page: address(&page)?,
            kafka: address(&kafka)?,
            dynamodb: address(&dynamodb)?,
        };
        Ok(Ports {
            page,
            kafka,
            dynamodb,
            addresses,
        })
    }
}

/// Opens the port in `given`. If no port is given, opens the port `usual`, or any free port if `usual` is in use.
async fn open(given: Option<u16>, usual: u16, option: &str) -> Result<TcpListener, BindError> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match given {
        Some(port) => server::bind(at(port), option).await,
        None => match server::bind(at(usual), option).await {
            Err(error) if error.source.kind() == ErrorKind::AddrInUse => {
                server::bind(at(0), option).await
            }
            bound => bound,
        },
    }
}

/// Forwards all connections to the address `target` until `shutdown` is triggered.
pub(crate) async fn forward(listener: TcpListener, target: SocketAddr, shutdown: Shutdown) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut client, _)) = accepted else {
            continue;
        };
        tokio::spawn(async move {
            // A stopped broker refuses connections, and the client's connection is then closed at once.
            if let Ok(mut broker) = TcpStream::connect(target).await
                && let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut broker).await
            {
                tracing::debug!(%error, "a connection to the embedded broker failed");
            }
            drop(permit);
        });
    }
}

/// Answers DynamoDB requests until `shutdown` is triggered.
///
/// # Errors
/// Returns an error if the port fails.
pub(crate) async fn serve_database(
    listener: TcpListener,
    database: Database,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let stop = async move { shutdown.wait().await };
    axum::serve(listener, database_router(database))
        .with_graceful_shutdown(stop)
        .await
        .context("failed to serve DynamoDB")
}

fn database_router(database: Database) -> Router {
    let answer = async move |headers: HeaderMap, body: Bytes| {
        answer_database_request(database, &headers, body).await
    };
    Router::new()
        .route("/", post(answer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn answer_database_request(database: Database, headers: &HeaderMap, body: Bytes) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A browser adds `Origin` to the requests of a web page. Clients of DynamoDB never send `Origin`.
    if headers.contains_key(ORIGIN) || !text(HOST).is_some_and(is_this_machine) {
        let why = "only programs on this machine may send requests here\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let target = headers.get("x-amz-target").and_then(|t| t.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next());
    let operation = operation.unwrap_or_default().to_owned();
    let done = tokio::task::spawn_blocking(move || embedded::run(&database, &operation, &body));
    let Ok((status, json)) = done.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = [(CONTENT_TYPE, "application/x-amz-json-1.0")];
    (status, kind, json).into_response()
}

/// Returns true if a `Host` header names this machine.
///
/// A foreign host name may belong to a web site whose domain resolves to this machine (DNS rebinding).
pub(crate) fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_an_error_only_if_it_was_given() {
        let taken = open(Some(0), KAFKA_PORT, "--kafka-port").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = open(None, port, "--kafka-port").await.unwrap();
        assert_ne!(other.local_addr().unwrap().port(), port);
        let error = open(Some(port), KAFKA_PORT, "--kafka-port").await;
        assert!(error.unwrap_err().to_string().contains("--kafka-port"));
    }

    #[tokio::test]
    async fn bytes_sent_to_the_port_arrive_at_the_target() {
        let target = open(Some(0), 0, "").await.unwrap();
        let port = open(Some(0), 0, "").await.unwrap();
        let address = port.local_addr().unwrap();
        let shutdown = Shutdown::default();
        let to = target.local_addr().unwrap();
        tokio::spawn(forward(port, to, shutdown.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let (mut broker, _) = target.accept().await.unwrap();
        let mut heard = [0; 4];
        broker.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        broker.write_all(b"pong").await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
        shutdown.trigger();
    }

    #[tokio::test]
    async fn only_programs_on_this_machine_reach_the_database() {
        let router = database_router(Database::memory().unwrap());
        let ask = async |headers: &[(&str, &str)]| {
            let mut request =
                Request::post("/").header("x-amz-target", "DynamoDB_20120810.ListTables");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::from("{}")).unwrap();
            router
                .clone()
                .oneshot(request)
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        assert_eq!(ask(&[("host", "127.0.0.1:8000")]).await, 200);
        assert_eq!(ask(&[("host", "localhost:8000")]).await, 200);
        assert_eq!(ask(&[("host", "rebound.example:8000")]).await, 403);
        let site = [
            ("host", "localhost:8000"),
            ("origin", "http://evil.example"),
        ];
        assert_eq!(ask(&site).await, 403);
        assert_eq!(ask(&[]).await, 403);
    }
}
