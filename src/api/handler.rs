//! Answers one request within its limits, and logs the request.
//!
//! Every response carries a request id, and headers that restrict what a browser may do with the response.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::api::access::Peer;
use crate::api::error::{ApiError, REQUEST_ID, RequestId, with_error_body};
use crate::api::export::StreamedBody;
use crate::api::heads::{self, BODY_BYTES_MAX, Hosts};
use crate::api::shares::{BASE_BYTES, ByteShare};

/// Maximum time to compute a response before the client gets status 408.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of characters of a path in the access log.
const LOGGED_CHARS_MAX: usize = 256;
/// Maximum number of characters of an HTTP method in the access log. Without a limit, a client could write very long
/// lines to the log.
const LOGGED_METHOD_CHARS_MAX: usize = 16;
/// Parameters whose values appear in the access log. The values of unknown parameters are hidden, because a client may
/// put a token into a parameter by mistake.
const LOGGED_PARAMETERS: &str = "city compare cursor event_type eventType format from hours limit rule series_limit severity state step to tz verbose";

/// Response headers that restrict what a browser may do, with their default values. A route may set a different value,
/// as the dashboard does for its content security policy.
const GUARDS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];
/// The header that tells browsers to reach this host only over TLS during the next two years. The server sends the HSTS
/// header only over TLS.
const HSTS: (&str, &str) = ("strict-transport-security", "max-age=63072000");

/// The path to which clients may send large bodies, and the limits for requests to the path. All other paths ignore
/// request bodies.
#[derive(Clone, Copy, Debug)]
pub struct Uploads {
    /// The path to which clients may send large bodies with POST.
    pub path: &'static str,
    /// Maximum size of a request body in bytes, before decompression.
    pub body_bytes_max: usize,
    /// Maximum duration of a request, including the time in which its body arrives.
    pub deadline: Duration,
}

/// The router and the settings with which the server answers the requests of all connections.
pub(super) struct Handler {
    pub(super) router: Router,
    pub(super) over_tls: bool,
    pub(super) access_log: bool,
    pub(super) hosts: Option<Hosts>,
    pub(super) uploads: Option<Uploads>,
}

impl Handler {
    /// Answers one request. `share` counts the bytes of the request and its response against the limit of the client.
    ///
    /// If `share` is `None`, or if the response exceeds the client's limit of bytes, the client gets status 503 with
    /// the code `busy`.
    pub(super) async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: Peer,
        share: &mut Option<ByteShare>,
    ) -> Response {
        let id = RequestId::from_headers(request.headers());
        let begun = Instant::now();
        let logged = self.access_log.then(|| {
            let method = request.method().as_str();
            let method: String = method.chars().take(LOGGED_METHOD_CHARS_MAX).collect();
            (method, logged_target(request.uri()))
        });
        let answering = async {
            let Some(held) = share else {
                return ApiError::busy().into_response();
            };
            let response = self.answer_in_time(request, peer, held.clone()).await;
            let bytes = match response.extensions().get::<StreamedBody>() {
                Some(streamed) => streamed.held_bytes,
                None => response
                    .body()
                    .size_hint()
                    .exact()
                    .map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX / 2)),
            };
            if held.resize(BASE_BYTES + bytes) {
                return response;
            }
            *share = None;
            ApiError::busy().into_response()
        };
        let mut response = id.scope(answering).await;
        let headers = response.headers_mut();
        if !headers.contains_key(REQUEST_ID) {
            headers.insert(REQUEST_ID, id.header());
        }
        let hsts = self.over_tls.then_some(HSTS);
        for (name, value) in GUARDS.into_iter().chain(hsts) {
            headers
                .entry(HeaderName::from_static(name))
                .or_insert(HeaderValue::from_static(value));
        }
        if let Some((method, target)) = logged {
            tracing::info!(
                peer = %peer.0.ip(),
                method,
                target,
                status = response.status().as_u16(),
                ms = begun.elapsed().as_millis(),
                bytes = response.body().size_hint().exact(),
                request_id = %id,
                "request"
            );
        }
        response
    }

    async fn answer_in_time(
        &self,
        request: hyper::Request<Incoming>,
        peer: Peer,
        share: ByteShare,
    ) -> Response {
        let is_upload = |uploads: &Uploads| {
            request.method() == Method::POST && request.uri().path() == uploads.path
        };
        let (body_bytes_max, deadline) = match self.uploads.filter(is_upload) {
            Some(uploads) => (uploads.body_bytes_max, uploads.deadline),
            None => (BODY_BYTES_MAX, REQUEST_DEADLINE),
        };
        if let Err(error) = heads::check_head(&request, self.hosts.as_ref(), body_bytes_max) {
            return error.into_response();
        }
        let mut request: Request =
            request.map(|body| Body::new(Limited::new(body, body_bytes_max)));
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(share);
        let answer = async {
            match self.router.clone().oneshot(request).await {
                Ok(response) => collect_body(with_error_body(response)).await,
                Err(never) => match never {},
            }
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error.into_response(),
            Err(_elapsed) => ApiError::deadline_exceeded().into_response(),
        }
    }
}

/// Returns the path and the query as the access log shows them.
fn logged_target(uri: &Uri) -> String {
    let mut target = uri.path().to_owned();
    let mut separator = '?';
    for pair in uri.query().into_iter().flat_map(|query| query.split('&')) {
        let name = pair.split('=').next().unwrap_or_default();
        let is_known = LOGGED_PARAMETERS.split(' ').any(|known| known == name);
        target.push(separator);
        target.push_str(if is_known { pair } else { "(hidden)" });
        separator = '&';
    }
    target.chars().take(LOGGED_CHARS_MAX).collect()
}

/// Collects the whole body of a response in memory, unless the body is sent as a stream.
///
/// After the body is collected, a slow client uses only memory, and no handler has to wait for the client.
async fn collect_body(response: Response) -> Result<Response, ApiError> {
    let is_whole = response.body().size_hint().exact().is_some();
    if is_whole || response.extensions().get::<StreamedBody>().is_some() {
        return Ok(response);
    }
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::internal(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        // Compression takes time, so this task yields to other requests after each frame.
        tokio::task::yield_now().await;
    }
    Ok(Response::from_parts(head, Body::from(bytes.freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_log_hides_a_token_in_the_query() {
        let shown = |target: &'static str| logged_target(&Uri::from_static(target));
        assert_eq!(shown("/api/v1/stats"), "/api/v1/stats");
        let page = "/api/v1/events/NYC?limit=5&from=2013-01-01T00:00:00Z";
        assert_eq!(shown(page), page);
        for query in [
            "token=s3cret",
            "s3cret",
            "x=1&access_token=s3cret",
            "limit%3D=s3cret",
        ] {
            let target = format!("/?limit=5&{query}");
            let uri: Uri = target.parse().unwrap();
            let shown = logged_target(&uri);
            assert!(
                !shown.contains("s3cret") && shown.contains("(hidden)"),
                "{shown}"
            );
        }
        let long = format!("/{}", "a".repeat(1_000));
        assert_eq!(
            logged_target(&long.parse().unwrap()).len(),
            LOGGED_CHARS_MAX
        );
    }
}
