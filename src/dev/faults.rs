//! Injects faults into the requests that a consumer sends through the AWS SDK to the embedded DynamoDB. The panel on
//! the page of `dev` turns the faults on and off.
//!
//! The faults affect only writes, so that the page can still read the tables. To the consumer, the faults look like
//! throttling and network failures of a real table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

/// While throttling is on, one of every `THROTTLED_ONE_OF` writes succeeds.
const THROTTLED_ONE_OF: u64 = 5;
/// Pause before a held-back write checks again whether it may continue.
const HOLD_POLL: Duration = Duration::from_millis(20);

/// The fault switches of one client. All clones share the same switches.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteFaults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    throttled: AtomicBool,
    cut: AtomicBool,
    held: AtomicBool,
    writes: AtomicU64,
    refused: AtomicU64,
    answers_lost: AtomicU64,
}

impl WriteFaults {
    /// Turns throttling on or off. While throttling is on, four of five writes fail with the error that DynamoDB
    /// returns when a table exceeds its capacity.
    pub(crate) fn throttle(&self, on: bool) {
        self.0.throttled.store(on, Ordering::SeqCst);
    }

    /// Turns the loss of responses on or off. While responses are lost, every write is carried out, but the client gets
    /// no response.
    pub(crate) fn cut_replies(&self, on: bool) {
        self.0.cut.store(on, Ordering::SeqCst);
    }

    /// Starts or stops holding back all writes. A held-back write waits as if the process were suspended.
    pub(crate) fn hold(&self, on: bool) {
        self.0.held.store(on, Ordering::SeqCst);
    }

    /// Returns the number of writes that were refused by throttling.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::SeqCst)
    }

    /// Returns the number of writes whose responses were dropped.
    pub(crate) fn answers_lost(&self) -> u64 {
        self.0.answers_lost.load(Ordering::SeqCst)
    }

    /// Returns a client that applies the fault switches and sends requests through `inner`.
    pub(crate) fn wrap(&self, inner: SharedHttpClient) -> SharedHttpClient {
        let switches = Arc::clone(&self.0);
        http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Faulty {
                inner: inner.http_connector(settings, components),
                switches: Arc::clone(&switches),
            })
        })
    }
}

#[derive(Clone, Debug)]
struct Faulty {
    inner: SharedHttpConnector,
    switches: Arc<Switches>,
}

impl HttpConnector for Faulty {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { this.answer(request).await })
    }
}

impl Faulty {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let is_write = ["BatchWriteItem", "UpdateItem", "PutItem"]
            .iter()
            .any(|operation| target.ends_with(operation));
        if !is_write {
            return self.inner.call(request).await;
        }
        let switches = &self.switches;
        while switches.held.load(Ordering::SeqCst) {
            tokio::time::sleep(HOLD_POLL).await;
        }
        let number = switches.writes.fetch_add(1, Ordering::SeqCst);
        if switches.throttled.load(Ordering::SeqCst) && !number.is_multiple_of(THROTTLED_ONE_OF) {
            switches.refused.fetch_add(1, Ordering::SeqCst);
            return throttled();
        }
        let answer = self.inner.call(request).await?;
        if switches.cut.load(Ordering::SeqCst) {
            switches.answers_lost.fetch_add(1, Ordering::SeqCst);
            return Err(ConnectorError::io("the answer was cut off".into()));
        }
        Ok(answer)
    }
}

fn throttled() -> Result<HttpResponse, ConnectorError> {
    const BODY: &str = "{\"__type\":\"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException\",\
                        \"message\":\"throttled on demand\"}";
    let status =
        StatusCode::try_from(400_u16).map_err(|error| ConnectorError::other(error.into(), None))?;
    let mut answer = HttpResponse::new(status, SdkBody::from(BODY));
    answer
        .headers_mut()
        .insert("content-type", "application/x-amz-json-1.0");
    Ok(answer)
}
