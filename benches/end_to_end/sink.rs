//! A DynamoDB that only answers: writes cost it nothing, so what is left is the writer's own speed.
//!
//! BatchWriteItem and UpdateItem are read, counted and answered as if all had been stored, after a
//! delay that may be set; every other operation goes on to the DynamoDB Local behind it, so that a
//! consumer finds its tables, its config item and its progress. Runs in a process of its own, on one
//! thread, so that its work is not taken for the writer's.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

const STORED: &[u8] =
    br#"{"UnprocessedItems":{},"ConsumedCapacity":[{"TableName":"t","CapacityUnits":25.0}]}"#;
const COUNTED: &[u8] = br#"{"ConsumedCapacity":{"TableName":"t","CapacityUnits":1.0}}"#;

struct Sink {
    delay: Duration,
    /// Answers no write while set; the path `/stall` sets it, `/go` clears it.
    stalled: AtomicBool,
    behind: String,
    batches: AtomicU64,
    updates: AtomicU64,
    bytes: AtomicU64,
}

/// Serves until it is killed; prints its address.
#[allow(clippy::print_stdout)]
pub(crate) fn run(delay: Duration, stalled: bool, behind: &str) -> anyhow::Result<()> {
    let behind = behind
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let sink = Arc::new(Sink {
        delay,
        stalled: AtomicBool::new(stalled),
        behind,
        batches: AtomicU64::new(0),
        updates: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let sink = Arc::clone(&sink);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let sink = Arc::clone(&sink);
                    async move { Ok::<_, Infallible>(sink.answer(request).await) }
                });
                // A connection that breaks is the client's affair.
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    })
}

impl Sink {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/stall" => self.stalled.store(true, Ordering::Relaxed),
            "/go" => self.stalled.store(false, Ordering::Relaxed),
            "/counts" => {}
            _ => return self.operation(request).await,
        }
        let counts = format!(
            r#"{{"batches":{},"updates":{},"bytes":{}}}"#,
            self.batches.load(Ordering::Relaxed),
            self.updates.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        json(counts.into())
    }

    async fn operation(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let target = request.headers().get("x-amz-target");
        let operation = target.and_then(|t| t.as_bytes().rsplit(|b| *b == b'.').next());
        let (count, answer) = match operation {
            Some(b"BatchWriteItem") => (&self.batches, STORED),
            Some(b"UpdateItem") => (&self.updates, COUNTED),
            _ => {
                return self.forward(request).await.unwrap_or_else(|error| {
                    let mut response = json(Bytes::from(error.to_string()));
                    *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
                    response
                });
            }
        };
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        while self.stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        json(Bytes::from_static(answer))
    }

    async fn forward(&self, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.behind).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(
            head,
            Full::new(body.collect().await?.to_bytes()),
        ))
    }
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let kind = hyper::header::HeaderValue::from_static("application/x-amz-json-1.0");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}
