//! A stub of DynamoDB whose writes cost nothing, so that a measurement shows the writer's own speed.
//!
//! It reads and counts BatchWriteItem and UpdateItem, and answers like DynamoDB after a successful write, with an
//! optional delay. It forwards every other operation, and updates of progress items, to DynamoDB Local, where a
//! consumer finds its tables, its config item and its progress. It runs in its own process, so that its work does not
//! count as the writer's, and on one thread.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

struct Sink {
    delay: Duration,
    /// While set, the stub answers no write. The path `/stall` sets it, and `/go` clears it.
    stalled: AtomicBool,
    behind: String,
    batches: AtomicU64,
    updates: AtomicU64,
    bytes: AtomicU64,
}

/// Prints its address and serves until it is killed.
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
                // The client handles a broken connection.
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
        json_body(counts.into())
    }

    async fn operation(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return bad_gateway(&error.to_string()),
        };
        let target = head.headers.get("x-amz-target");
        let operation = target.and_then(|t| t.as_bytes().rsplit(|b| *b == b'.').next());
        let (count, answer) = match operation {
            Some(b"BatchWriteItem") => (&self.batches, stored(&body)),
            Some(b"UpdateItem") => (&self.updates, updated(&body)),
            _ => (&self.updates, None),
        };
        let Some(answer) = answer else {
            let request = Request::from_parts(head, Full::new(body));
            let answer = self.forward(request).await;
            return answer.unwrap_or_else(|error| bad_gateway(&error.to_string()));
        };
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        while self.stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        json_body(answer.into())
    }

    async fn forward(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Full<Bytes>>> {
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

/// Returns the response to a BatchWriteItem of one table that stored everything.
fn stored(request: &[u8]) -> Option<String> {
    const TABLE: &[u8] = b"\"RequestItems\":{\"";
    let at = memchr::memmem::find(request, TABLE)? + TABLE.len();
    let end = request[at..].iter().position(|byte| *byte == b'"')?;
    let table = std::str::from_utf8(&request[at..at + end]).ok()?;
    Some(format!(
        r#"{{"UnprocessedItems":{{}},"ConsumedCapacity":[{{"TableName":"{table}","CapacityUnits":25.0}}]}}"#
    ))
}

/// Returns the response to a successful UpdateItem of a row, with the attributes that it set. Returns `None` for a
/// progress item.
fn updated(request: &[u8]) -> Option<String> {
    let request: Value = serde_json::from_slice(request).ok()?;
    if request["Key"]["shard"]["S"] == "progress" {
        return None;
    }
    let expression = request["UpdateExpression"].as_str()?;
    let set = expression.strip_prefix("SET ")?.split(" ADD ").next()?;
    let (names, values) = (
        &request["ExpressionAttributeNames"],
        &request["ExpressionAttributeValues"],
    );
    let mut attributes = serde_json::Map::new();
    for (name, value) in set.split(", ").filter_map(|part| part.split_once(" = ")) {
        if let (Some(name), Some(value)) = (names[name].as_str(), values.get(value)) {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    let table = &request["TableName"];
    let answer = json!({
        "Attributes": attributes,
        "ConsumedCapacity": {"TableName": table, "CapacityUnits": 1.0},
    });
    Some(answer.to_string())
}

fn bad_gateway(why: &str) -> Response<Full<Bytes>> {
    let mut response = json_body(why.to_owned().into());
    *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
    response
}

fn json_body(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let kind = hyper::header::HeaderValue::from_static("application/x-amz-json-1.0");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}
