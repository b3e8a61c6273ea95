//! The one shape of every error: `{"error":"<sentence>","code":"<stable word>","request_id":"<hex>"}`.
//!
//! The sentence is public and ours: nothing that AWS, the SDK or the operating system wrote goes to a
//! client. Such detail is only logged, under the same `request_id`, which the answer also carries in
//! the header `x-request-id`. Codes are a closed set, so that a client can decide by them:
//!
//! | status | code |
//! |---|---|
//! | 400 | `bad_parameter` `bad_cursor` `bad_event_id` `bad_path` `bad_header` |
//! | 401, 403 | `unauthorized` `forbidden` |
//! | 404, 405 | `not_found` `method_not_allowed` |
//! | 408, 413, 414, 431 | `deadline_exceeded` `body_too_large` `uri_too_long` `headers_too_large` |
//! | 429 | `too_many_requests` `read_budget_spent`, with `Retry-After` |
//! | 500 | `internal` |
//! | 503, 504 | `store_unavailable` `read_ceiling` `too_many_series` `busy` `store_timeout`, with `Retry-After` |

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::spent::Spent;

/// The header that carries the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Seconds after which a client should ask again when DynamoDB is slow or away.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("2");

/// Longest id that is taken over from a client.
const ID_CHARS_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The name of a request in answers and logs: the client's own `x-request-id`, if it is of letters,
/// digits, dots, dashes and underscores, or a random one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> RequestId {
        let legal = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
        let given = headers.get(REQUEST_ID).filter(|id| {
            let id = id.as_bytes();
            !id.is_empty() && id.len() <= ID_CHARS_MAX && id.iter().all(legal)
        });
        given.cloned().map_or_else(RequestId::random, RequestId)
    }

    fn random() -> RequestId {
        let text = format!("{:016x}", fastrand::u64(..));
        RequestId(HeaderValue::from_str(&text).expect("hex digits"))
    }

    /// Runs what belongs to the request, so that its errors carry this id.
    pub(super) async fn scope<T>(&self, answering: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), answering).await
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    fn current() -> RequestId {
        CURRENT
            .try_with(Clone::clone)
            .unwrap_or_else(|_| RequestId::random())
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{public}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    public: String,
    detail: Option<String>,
    /// Thousandths of read units that were spent before it failed.
    milliunits: u64,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, public: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code,
            public: public.into(),
            detail: None,
            milliunits: 0,
        }
    }

    /// Returns the same with the read units that were spent before it failed.
    #[must_use]
    pub(super) fn with_units(mut self, units: f64) -> ApiError {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let milliunits = (units * 1_000.0).clamp(0.0, 1e15) as u64;
        self.milliunits = milliunits;
        self
    }

    /// 400: a parameter is unknown, repeated, malformed or out of range; `public` names it.
    pub fn bad_parameter(public: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_parameter", public)
    }

    /// 400: the cursor is not one that this query gave out.
    pub fn bad_cursor() -> ApiError {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_cursor",
            "cursor is not one that this query gave out; begin again without it",
        )
    }

    /// 400: `Last-Event-ID` is none that this API gave out.
    pub fn bad_event_id() -> ApiError {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_event_id",
            "Last-Event-ID is not one that this API gave out; begin again without it",
        )
    }

    /// 400: the path is not percent-encoded UTF-8.
    pub fn bad_path() -> ApiError {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_path",
            "the path is not percent-encoded UTF-8",
        )
    }

    /// 400: a header of the request is missing or there twice; `public` names it.
    pub fn bad_header(public: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_header", public)
    }

    /// 503: this client, or all together, hold as much as they may.
    pub fn busy() -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many connections or unread answers; read or close them, then ask again",
        )
    }

    /// 403: who asks may not; `public` says why.
    pub fn forbidden(public: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", public)
    }

    /// 401: no token of ours came with the request.
    pub fn unauthorized() -> ApiError {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a bearer token is needed here, in the header Authorization",
        )
    }

    /// 429: the client asks too often.
    pub fn too_many_requests() -> ApiError {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "you ask too often; Retry-After says in how many seconds to ask again",
        )
    }

    /// 429: the client has spent its read units of this minute.
    pub fn read_budget_spent(units: u64) -> ApiError {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "read_budget_spent",
            format!(
                "your requests cost {units} read units of DynamoDB within a minute, which is the limit; \
                 Retry-After says in how many seconds to ask again"
            ),
        )
    }

    /// 503: the answer needs more reads than one request may pay for.
    pub fn read_ceiling(units: u64) -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "read_ceiling",
            format!(
                "the answer needs more than {units} read units of DynamoDB, the most that one request may cost; \
                 ask for a shorter range, a smaller limit or one city, or ask for the timeline again: \
                 it goes on where this request ended"
            ),
        )
    }

    /// 503: there are more series than this answer can cover.
    pub fn too_many_series(series_max: usize) -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_series",
            format!(
                "there are more than {series_max} pairs of city and event type, so this answer could \
                 not cover all of them; ask for one city, or for /api/v1/stats"
            ),
        )
    }

    /// 404: nothing is at this path.
    pub fn not_found() -> ApiError {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "nothing is at this path",
        )
    }

    /// 405: the path answers other methods.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take that method",
        )
    }

    /// 408: the request was not done in time.
    pub fn deadline_exceeded() -> ApiError {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "deadline_exceeded",
            "the request was not done in time",
        )
    }

    /// 413: the body has more than `bytes_max` bytes.
    pub fn body_too_large(bytes_max: usize) -> ApiError {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a request body has at most {bytes_max} bytes"),
        )
    }

    /// 414: path and query have more than `bytes_max` bytes.
    pub fn uri_too_long(bytes_max: usize) -> ApiError {
        ApiError::new(
            StatusCode::URI_TOO_LONG,
            "uri_too_long",
            format!("path and query have at most {bytes_max} bytes"),
        )
    }

    /// 431: the header lines have more than `bytes_max` bytes.
    pub fn headers_too_large(bytes_max: usize) -> ApiError {
        ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            format!("header lines have at most {bytes_max} bytes"),
        )
    }

    /// 500: a bug; `detail` goes to the log only.
    pub fn internal(detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the answer could not be made",
            )
        }
    }

    /// 503: the store cannot answer; `public` says what is waited for, `detail` goes to the log only.
    pub fn store_unavailable(public: impl Into<String>, detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", public)
        }
    }

    /// 504: the store did not answer in time.
    pub fn store_timeout(detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "store_timeout",
                "DynamoDB did not answer in time",
            )
        }
    }

    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the stable code of the answer.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the answer with the fields of the JSON object `fields` beside its own.
    pub fn into_response_with(self, fields: serde_json::Value) -> Response {
        let id = RequestId::current();
        let request_id = id.to_string();
        let status = self.status.as_u16();
        let detail = self.detail.as_deref().unwrap_or_default();
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(
                request_id,
                status,
                code = self.code,
                detail,
                "request failed"
            );
        } else if self.status.is_server_error() {
            tracing::warn!(
                request_id,
                status,
                code = self.code,
                detail,
                "request failed"
            );
        } else {
            tracing::debug!(request_id, status, code = self.code, "request refused");
        }
        let mut body = fields;
        body["error"] = self.public.into();
        body["code"] = self.code.into();
        body["request_id"] = request_id.clone().into();
        let mut response = (self.status, Body::from(body.to_string())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REQUEST_ID, id.header());
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_S);
        }
        #[allow(clippy::cast_precision_loss)] // units of one answer
        let units = self.milliunits as f64 / 1_000.0;
        response.extensions_mut().insert(Spent(units));
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.into_response_with(serde_json::json!({}))
    }
}

/// Gives the router's own bare 404 and 405 the shape of every other error; other headers, such as
/// `Allow`, stay.
pub fn shaped(response: Response) -> Response {
    let error = match response.status() {
        StatusCode::NOT_FOUND => ApiError::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::method_not_allowed(),
        _ => return response,
    };
    if response.headers().contains_key(CONTENT_TYPE) {
        return response;
    }
    let mut shaped = error.into_response();
    for (name, value) in response.headers() {
        if name != axum::http::header::CONTENT_LENGTH {
            shaped.headers_mut().append(name, value.clone());
        }
    }
    shaped
}
