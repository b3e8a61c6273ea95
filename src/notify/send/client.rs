//! The HTTP client for a receiver. The client sends one POST request and follows redirects, within limits for time and
//! bytes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, LOCATION, USER_AGENT};
use hyper::{Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use url::{Host, Url};

use crate::failure::chain;
use crate::notify::receiver::Request;

use super::DeliveryResult;
use super::addresses::{is_public, refusal};
use super::route::Route;

/// Maximum wait for a response, including the time for connecting and for redirects.
pub const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Maximum number of bytes that are read from a response.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Maximum number of redirects that are followed.
pub const REDIRECTS_MAX: usize = 2;
/// Maximum wait for the body of a response after its headers have arrived. The result depends only on the status, so
/// the client does not wait long for a slow body.
const BODY_WAIT: Duration = Duration::from_secs(1);
/// Time after which an idle connection is closed. `src/aws.rs` explains the value.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// Maximum number of idle connections per receiver.
const POOL_COUNT: usize = 4;
pub(super) const AGENT: &str = concat!("citystream/", env!("CARGO_PKG_VERSION"));

/// The parts of an HTTP response that the sender uses.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The host that sent the response.
    pub(super) host: String,
    /// The beginning of the response body.
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct HttpClient {
    inner: legacy::Client<HttpsConnector<Route>, Full<Bytes>>,
    allow_private: bool,
}

impl HttpClient {
    pub(super) fn new(tls: ClientConfig, allow_private: bool) -> HttpClient {
        HttpClient::through(tls, allow_private, Matcher::from_env())
    }

    pub(super) fn through(tls: ClientConfig, allow_private: bool, proxies: Matcher) -> HttpClient {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Route::new(allow_private, proxies));
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_COUNT)
            .http1_max_buf_size(ANSWER_BYTES_MAX)
            .build(connector);
        HttpClient {
            inner,
            allow_private,
        }
    }

    /// Sends the request. Returns the response, or the resulting [`DeliveryResult`] if no response arrives.
    pub(super) async fn post(&self, request: Request) -> Result<HttpResponse, DeliveryResult> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let answer = tokio::time::timeout(ANSWER_WAIT, self.post_following(request));
        answer.await.unwrap_or_else(|_| {
            let seconds = ANSWER_WAIT.as_secs();
            Err(DeliveryResult::again(format!(
                "{host} did not answer within {seconds} s"
            )))
        })
    }

    async fn post_following(&self, mut request: Request) -> Result<HttpResponse, DeliveryResult> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.post_once(&request).await?;
            match redirect(&request.url, response.status(), response.headers()) {
                Redirect::None => return Ok(read(&request.url, response).await),
                Redirect::To(url) => request.url = url,
                Redirect::Away(why) => return Err(DeliveryResult::Refused { why }),
            }
        }
        let host = request.url.host_str().unwrap_or_default();
        let why = format!("{host} redirects more than {REDIRECTS_MAX} times");
        Err(DeliveryResult::Refused { why })
    }

    async fn post_once(&self, request: &Request) -> Result<Response<Incoming>, DeliveryResult> {
        let host = request.url.host_str().unwrap_or_default();
        // The connector checks only addresses that it resolves from names, so this function checks an IP address in a
        // URL itself.
        let address = match request.url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = address.filter(|a| !self.allow_private && !is_public(*a)) {
            return Err(DeliveryResult::again(refusal(host, address)));
        }
        let mut built = hyper::Request::post(request.url.as_str()).header(USER_AGENT, AGENT);
        for (name, value) in &request.headers {
            built = built.header(*name, value);
        }
        let body = Full::new(Bytes::from(request.body.clone()));
        let built = built.body(body).map_err(|error| DeliveryResult::Refused {
            why: format!("the request to {host} is invalid: {error}"),
        })?;
        let answer = self.inner.request(built).await;
        answer.map_err(|error| {
            let reason = chain(&error);
            DeliveryResult::again(format!("failed to send to {host}: {reason}"))
        })
    }
}

enum Redirect {
    /// The response is not a redirect with the status 301, 302, 307 or 308.
    None,
    To(Url),
    /// The client does not follow the redirect. The text contains the reason.
    Away(String),
}

/// Returns the target of a redirect. The client follows redirects only to the same host, because the rules file does
/// not name other hosts.
fn redirect(from: &Url, status: StatusCode, headers: &HeaderMap) -> Redirect {
    if !matches!(status.as_u16(), 301 | 302 | 307 | 308) {
        return Redirect::None;
    }
    let host = from.host_str().unwrap_or_default();
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(to) = location.and_then(|text| from.join(text).ok()) else {
        return Redirect::Away(format!("{host} answered {status} without a valid Location"));
    };
    let ports = (from.port_or_known_default(), to.port_or_known_default());
    let is_upgrade = (from.scheme(), to.scheme()) == ("http", "https");
    let is_same = from.scheme() == to.scheme() && ports.0 == ports.1;
    if from.host() != to.host() || !(is_same || is_upgrade) {
        let other = to.host_str().unwrap_or_default();
        let port = ports.1.unwrap_or_default();
        return Redirect::Away(format!(
            "{host} redirects to {}://{other}:{port}, which is another server",
            to.scheme()
        ));
    }
    Redirect::To(to)
}

/// Reads the response body, up to [`ANSWER_BYTES_MAX`] bytes and for at most [`BODY_WAIT`].
async fn read(url: &Url, response: Response<Incoming>) -> HttpResponse {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let room = ANSWER_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() >= room {
                break;
            }
        }
    };
    let is_late = tokio::time::timeout(BODY_WAIT, reading).await.is_err();
    if is_late {
        tracing::debug!("a receiver did not finish its answer in time");
    }
    HttpResponse {
        status: head.status,
        headers: head.headers,
        host: url.host_str().unwrap_or_default().to_owned(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}
