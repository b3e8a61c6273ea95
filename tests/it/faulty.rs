//! An HTTP client between the SDK and the embedded database that breaks requests as [`Faults`] draws them.

use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use crate::faults::{Fault, Faults, refusal, with_unprocessed};

/// Returns a client that breaks requests as `faults` draws them and sends the others through `inner`.
pub(crate) fn wrap(faults: &Arc<Faults>, inner: SharedHttpClient) -> SharedHttpClient {
    let faults = Arc::clone(faults);
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Faulty {
            inner: inner.http_connector(settings, components),
            faults: Arc::clone(&faults),
        })
    })
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
        if batch || target.ends_with("UpdateItem") || target.ends_with("PutItem") {
            self.faults.held().await;
        }
        if batch
            && self
                .faults
                .refuses(request.body().bytes().unwrap_or_default())
        {
            return Ok(respond(400, refusal("ValidationException")));
        }
        let lost = || ConnectorError::io("the connection was cut".into());
        match self.faults.pick(batch) {
            None => self.inner.call(request).await,
            Some(Fault::Throttled) => Ok(respond(
                400,
                refusal("ProvisionedThroughputExceededException"),
            )),
            Some(Fault::ServerError) => Ok(respond(500, refusal("InternalServerError"))),
            Some(Fault::LostRequest) => Err(lost()),
            Some(Fault::LostAnswer) => {
                self.inner.call(request).await?;
                Err(lost())
            }
            Some(Fault::LandsLate) => {
                let (inner, wait) = (self.inner.clone(), self.faults.pause(200));
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(inner.call(request).await);
                });
                Err(lost())
            }
            Some(Fault::Unprocessed) => {
                let (body, left) = self.faults.leave_out(request.body().bytes().unwrap());
                *request.body_mut() = SdkBody::from(body);
                let answer = self.inner.call(request).await?;
                let body = with_unprocessed(answer.body().bytes().unwrap(), left);
                Ok(respond(answer.status().as_u16(), body))
            }
            Some(Fault::Slow) => {
                tokio::time::sleep(self.faults.pause(100)).await;
                self.inner.call(request).await
            }
        }
    }
}

fn respond(status: u16, body: Vec<u8>) -> HttpResponse {
    let status = StatusCode::try_from(status).unwrap();
    let mut answer = HttpResponse::new(status, SdkBody::from(body));
    answer
        .headers_mut()
        .insert("content-type", "application/x-amz-json-1.0");
    answer
}
