//! An HTTP client that breaks requests to DynamoDB, for any test that writes.
//!
//! It stands between the SDK and the embedded database and does, by a seeded draw, what a table
//! does on bad days: refuses as too much, answers 500, leaves parts of a batch out, is slow, loses
//! the request, loses the answer, or lets a write land after its sender gave it up.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Throttled,
    ServerError,
    LostRequest,
    LostAnswer,
    LandsLate,
    Unprocessed,
    Slow,
}

const FAULTS: [Fault; 7] = [
    Fault::Throttled,
    Fault::ServerError,
    Fault::LostRequest,
    Fault::LostAnswer,
    Fault::LandsLate,
    Fault::Unprocessed,
    Fault::Slow,
];

/// Shared between a test and the client it made.
#[derive(Debug)]
pub(crate) struct Faults {
    state: Mutex<u64>,
    per_cent: AtomicU32,
    held: AtomicBool,
    poison: Mutex<Option<String>>,
    seen: [AtomicU64; FAULTS.len()],
}

impl Faults {
    /// `per_cent` of all requests meet a fault; `seed` decides which.
    pub(crate) fn new(seed: u64, per_cent: u32) -> Arc<Faults> {
        Arc::new(Faults {
            state: Mutex::new(seed),
            per_cent: AtomicU32::new(per_cent),
            held: AtomicBool::new(false),
            poison: Mutex::new(None),
            seen: Default::default(),
        })
    }

    /// From now on no write is answered, until this is called with `false`.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// From now on a batch with this text in it is called invalid.
    pub(crate) fn refuse(&self, text: &str) {
        *self.poison.lock().unwrap() = Some(text.to_owned());
    }

    fn refuses(&self, request: &HttpRequest) -> bool {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
        let poison = self.poison.lock().unwrap();
        poison.as_ref().is_some_and(|text| body.contains(text))
    }

    pub(crate) fn seen(&self) -> Vec<(Fault, u64)> {
        let count = |(f, n): (&Fault, &AtomicU64)| (*f, n.load(Ordering::SeqCst));
        FAULTS.iter().zip(&self.seen).map(count).collect()
    }

    /// SplitMix64
    fn draw(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn pick(&self, batch: bool) -> Option<Fault> {
        if self.draw() % 100 >= u64::from(self.per_cent.load(Ordering::SeqCst)) {
            return None;
        }
        let at = usize::try_from(self.draw() % FAULTS.len() as u64).unwrap();
        if FAULTS[at] == Fault::Unprocessed && !batch {
            return None;
        }
        self.seen[at].fetch_add(1, Ordering::SeqCst);
        Some(FAULTS[at])
    }

    /// Returns a client that sends through `inner` what it does not break.
    pub(crate) fn wrap(self: &Arc<Faults>, inner: SharedHttpClient) -> SharedHttpClient {
        let faults = Arc::clone(self);
        http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Faulty {
                inner: inner.http_connector(settings, components),
                faults: Arc::clone(&faults),
            })
        })
    }
}

#[derive(Clone, Debug)]
struct Faulty {
    inner: SharedHttpConnector,
    faults: Arc<Faults>,
}

impl HttpConnector for Faulty {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { this.answer(request).await })
    }
}

impl Faulty {
    async fn answer(&self, mut request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let batch = target.ends_with("BatchWriteItem");
        let write = batch || target.ends_with("UpdateItem") || target.ends_with("PutItem");
        if write && self.faults.held.load(Ordering::SeqCst) {
            while self.faults.held.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if batch && self.faults.refuses(&request) {
            return Ok(refusal(400, "ValidationException"));
        }
        let lost = || ConnectorError::io("the connection was cut".into());
        match self.faults.pick(batch) {
            None => self.inner.call(request).await,
            Some(Fault::Throttled) => Ok(refusal(400, "ProvisionedThroughputExceededException")),
            Some(Fault::ServerError) => Ok(refusal(500, "InternalServerError")),
            Some(Fault::LostRequest) => Err(lost()),
            Some(Fault::LostAnswer) => {
                self.inner.call(request).await?;
                Err(lost())
            }
            Some(Fault::LandsLate) => {
                let (inner, wait) = (self.inner.clone(), self.faults.draw() % 200);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    drop(inner.call(request).await);
                });
                Err(lost())
            }
            Some(Fault::Unprocessed) => {
                let left = self.leave_out(&mut request);
                let answer = self.inner.call(request).await?;
                let mut body: Value =
                    serde_json::from_slice(answer.body().bytes().unwrap()).unwrap();
                body["UnprocessedItems"] = left;
                Ok(respond(answer.status().as_u16(), &body))
            }
            Some(Fault::Slow) => {
                tokio::time::sleep(Duration::from_millis(self.faults.draw() % 100)).await;
                self.inner.call(request).await
            }
        }
    }

    /// Takes puts out of a batch, all but one at most, and returns them.
    fn leave_out(&self, request: &mut HttpRequest) -> Value {
        let mut body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let mut left = json!({});
        for (table, puts) in body["RequestItems"].as_object_mut().unwrap() {
            let puts = puts.as_array_mut().unwrap();
            let keep = 1 + usize::try_from(self.faults.draw()).unwrap() % puts.len();
            if keep < puts.len() {
                left[table] = puts.drain(keep..).collect();
            }
        }
        *request.body_mut() = SdkBody::from(body.to_string());
        left
    }
}

fn refusal(status: u16, code: &str) -> HttpResponse {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
    respond(
        status,
        &json!({"__type": kind, "message": "made up by a test"}),
    )
}

fn respond(status: u16, body: &Value) -> HttpResponse {
    let status = StatusCode::try_from(status).unwrap();
    let mut answer = HttpResponse::new(status, SdkBody::from(body.to_string()));
    answer
        .headers_mut()
        .insert("content-type", "application/x-amz-json-1.0");
    answer
}
