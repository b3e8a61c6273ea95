//! The ports through which the embedded Kafka and DynamoDB are reached from a second terminal.
//!
//! librdkafka's mock broker listens on a port that it picks itself, so the fixed port forwards to it: a
//! client that begins there hears of the broker's own port by the metadata. DynamoDB's requests are
//! answered here: the database library has a server, but that lets every web site in. Both listen on
//! loopback alone.

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
use crate::shutdown::Shutdown;
use crate::store::embedded;

/// Where Kafka's clients look first.
pub(super) const KAFKA_PORT: u16 = 9092;
/// Where DynamoDB Local listens.
pub(super) const DYNAMODB_PORT: u16 = 8000;
/// Most connections to Kafka at a time; further ones wait.
const CONNECTIONS_MAX: usize = 256;
/// DynamoDB takes requests of up to 16 MiB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Opens the port that was asked for, or the usual one, or a free one where that is taken.
pub(super) async fn open(
    asked: Option<u16>,
    usual: u16,
    option: &str,
) -> Result<TcpListener, BindError> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match asked {
        Some(port) => server::bind(at(port), option).await,
        None => match server::bind(at(usual), option).await {
            Err(error) if error.source.kind() == ErrorKind::AddrInUse => {
                server::bind(at(0), option).await
            }
            bound => bound,
        },
    }
}

/// Forwards connections to `target` until `shutdown`.
pub(super) async fn forward(listener: TcpListener, target: SocketAddr, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
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
            // A stopped broker refuses, and so does this port by closing at once.
            if let Ok(mut broker) = TcpStream::connect(target).await
                && let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut broker).await
            {
                tracing::debug!(%error, "a connection to the embedded broker broke");
            }
            drop(place);
        });
    }
}

/// Answers DynamoDB's requests until `shutdown`.
pub(super) async fn serve_database(
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
    let answer =
        async move |headers: HeaderMap, body: Bytes| answer(database, &headers, body).await;
    Router::new()
        .route("/", post(answer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn answer(database: Database, headers: &HeaderMap, body: Bytes) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // No program that speaks to DynamoDB sends an origin; browsers do, for whatever site is open.
    if headers.contains_key(ORIGIN) || !text(HOST).is_some_and(is_this_machine) {
        let why = "only programs of this machine may ask here\n";
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

/// Tells whether a `Host` is this machine's own name: another would be that of a site whose name leads
/// here.
pub(super) fn is_this_machine(host: &str) -> bool {
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
    async fn a_taken_port_is_an_error_only_if_it_was_asked_for() {
        let taken = open(Some(0), KAFKA_PORT, "--kafka-port").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let other = open(None, port, "--kafka-port").await.unwrap();
        assert_ne!(other.local_addr().unwrap().port(), port);
        let error = open(Some(port), KAFKA_PORT, "--kafka-port").await;
        assert!(error.unwrap_err().to_string().contains("--kafka-port"));
    }

    #[tokio::test]
    async fn what_is_sent_to_the_port_arrives_at_the_target() {
        let target = open(Some(0), 0, "").await.unwrap();
        let port = open(Some(0), 0, "").await.unwrap();
        let address = port.local_addr().unwrap();
        let shutdown = Shutdown::new();
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
    async fn only_programs_of_this_machine_reach_the_database() {
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
