//! The body of every error: `{"error":"<sentence>","code":"<stable word>","request_id":"<hex>"}`.
//!
//! Every error message that clients see is written in this program. A client never receives text from AWS, the SDK or
//! the operating system. Internal details appear only in the log, together with the request id. The header
//! `x-request-id` repeats the request id. Clients can rely on the codes, because a code never changes its meaning. The
//! following table contains all error codes of the API:
//!
//! | status | code |
//! |---|---|
//! | 400 | `bad_parameter` `bad_cursor` `bad_event_id` `bad_path` `bad_header` `bad_body` |
//! | 401, 403 | `unauthorized` `forbidden` |
//! | 404, 405 | `not_found` `no_incidents_table` `method_not_allowed` |
//! | 408, 413, 414, 431 | `deadline_exceeded` `body_too_slow` `body_too_large` `too_many_events` `uri_too_long` `headers_too_large` |
//! | 415, 422 | `unsupported_media_type` `no_valid_event` |
//! | 429 | `too_many_requests` `read_budget_spent`, with `Retry-After` |
//! | 500 | `internal` |
//! | 503, 504 | `store_unavailable` `read_ceiling` `busy` `kafka_unavailable` `stopping` `store_timeout`, with `Retry-After`; `too_many_series` without |

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::spent::Spent;

/// The header that carries the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Number of seconds after which a client should retry if DynamoDB is slow or unreachable.
const RETRY_AFTER_S: u64 = 2;

/// Maximum number of characters of a request id that the server accepts from a client.
const ID_CHARS_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of a request in responses and logs.
///
/// If the client's header `x-request-id` consists of letters, digits, dots, dashes and underscores, the header's value
/// is the request id. If the client's header is absent, too long or invalid, the server chooses a random id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id of the request to which `headers` belong.
    pub(super) fn from_headers(headers: &HeaderMap) -> RequestId {
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

    /// Runs the future `answering`, which answers a request. Every error that the future creates contains the request
    /// id.
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

/// An error that the server sends as a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{public}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    public: String,
    detail: Option<String>,
    /// The number of seconds in the header `Retry-After`.
    retry_after_s: Option<u64>,
    /// The cost of the request before it failed, in thousandths of a read unit. The cost is an integer, so that
    /// `ApiError` can implement `Eq`.
    milliunits: u64,
}

/// Defines a constructor for each error whose message is always the same. The name of a constructor is the code of its
/// error.
macro_rules! fixed_errors {
    ($($(#[$doc:meta])* $code:ident = $status:literal, $public:literal;)*) => {
        impl ApiError {$(
            $(#[$doc])*
            pub fn $code() -> ApiError {
                ApiError::new($status, stringify!($code), $public)
            }
        )*}
    };
}

fixed_errors! {
    /// 400: the cursor does not belong to this query.
    bad_cursor = 400, "cursor does not belong to this query; repeat the request without it";
    /// 400: `Last-Event-ID` is malformed.
    bad_event_id = 400, "Last-Event-ID is not an id of this stream; reconnect without it";
    /// 400: the path is not percent-encoded UTF-8.
    bad_path = 400, "the path is not percent-encoded UTF-8";
    /// 503: this client alone, or all clients together, have reached a limit of the server.
    busy = 503, "too many connections or unread answers; read or close some, then retry";
    /// 401: the request has no valid token.
    unauthorized = 401, "missing or unknown token; send the header Authorization: Bearer <token>";
    /// 404: no route has this path.
    not_found = 404, "there is nothing at this path";
    /// 404: the incidents table does not exist.
    no_incidents_table = 404, "there is no table of incidents; citystream init-tables --incidents makes it, and citystream notify fills it";
    /// 405: the path does not support the method of the request.
    method_not_allowed = 405, "this path does not support that method; see the header Allow";
    /// 408: the response took too long.
    deadline_exceeded = 408, "the server could not answer in time";
    /// 408: the body arrived too slowly.
    body_too_slow = 408, "the request body did not arrive in time; send smaller bodies";
    /// 422: the body contains events, but none of the events is valid.
    no_valid_event = 422, "no event is valid; `results` says why";
    /// 503: the server is stopping, and no event of the request was sent to Kafka.
    stopping = 503, "the server is stopping; nothing of this request was sent, so send it again";
}

impl ApiError {
    fn new(status: u16, code: &'static str, public: impl Into<String>) -> ApiError {
        ApiError {
            status: StatusCode::from_u16(status).expect("a status of HTTP"),
            retry_after_s: matches!(status, 503 | 504).then_some(RETRY_AFTER_S),
            code,
            public: public.into(),
            detail: None,
            milliunits: 0,
        }
    }

    fn with_retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Returns the error with the number of read units that the request spent before it failed.
    #[must_use]
    pub(super) fn with_units(mut self, units: f64) -> ApiError {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is clamped
        let milliunits = (units * 1_000.0).clamp(0.0, 1e15) as u64;
        self.milliunits = milliunits;
        self
    }

    /// 400: a parameter is unknown, repeated, malformed or out of range. The message `public` names the parameter.
    pub fn bad_parameter(public: impl Into<String>) -> ApiError {
        ApiError::new(400, "bad_parameter", public)
    }

    /// 400: a header of the request is missing or repeated. The message `public` names the header.
    pub fn bad_header(public: impl Into<String>) -> ApiError {
        ApiError::new(400, "bad_header", public)
    }

    /// 400: the body cannot be divided into events. The message `public` gives the reason.
    pub fn bad_body(public: impl Into<String>) -> ApiError {
        ApiError::new(400, "bad_body", public)
    }

    /// 415: the route cannot read a body of this content type or encoding. The message `public` names the content types
    /// and encodings that the route can read.
    pub fn unsupported_media_type(public: impl Into<String>) -> ApiError {
        ApiError::new(415, "unsupported_media_type", public)
    }

    /// 413: the body has more than `events_max` events.
    pub fn too_many_events(events_max: usize) -> ApiError {
        let public = format!("the body has more than {events_max} events; send several requests");
        ApiError::new(413, "too_many_events", public)
    }

    /// 503: Kafka does not acknowledge events. The message `public` says what happened to the events of the request.
    /// The text `detail` appears only in the log.
    pub fn kafka_unavailable(public: impl Into<String>, detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(503, "kafka_unavailable", public)
        }
    }

    /// 403: the request is not allowed. The message `public` gives the reason.
    pub fn forbidden(public: impl Into<String>) -> ApiError {
        ApiError::new(403, "forbidden", public)
    }

    /// 429: the client sends too many requests.
    pub fn too_many_requests(retry_after_s: u64) -> ApiError {
        ApiError::new(
            429,
            "too_many_requests",
            "too many requests; retry after the time in `Retry-After`",
        )
        .with_retry_after(retry_after_s)
    }

    /// 429: the client has spent its read units for the current minute.
    pub fn read_budget_spent(units: u64, retry_after_s: u64) -> ApiError {
        ApiError::new(
            429,
            "read_budget_spent",
            format!(
                "your requests have used {units} DynamoDB read units within a minute, which is the limit; \
                 retry after the time in `Retry-After`"
            ),
        )
        .with_retry_after(retry_after_s)
    }

    /// 503: the response would cost more read units than one request may spend.
    pub fn read_ceiling(units: u64) -> ApiError {
        ApiError::new(
            503,
            "read_ceiling",
            format!(
                "the answer needs more than {units} DynamoDB read units, the limit of one request; \
                 use a shorter range, a smaller limit or one city"
            ),
        )
    }

    /// 503: the tables contain too many series to sum up one event type over all cities. The response has no header
    /// `Retry-After`. A repeated request would fail as well, because rows of the totals table are never deleted.
    pub fn too_many_series() -> ApiError {
        ApiError {
            retry_after_s: None,
            ..ApiError::new(
                503,
                "too_many_series",
                "the tables hold too many series to sum those of one event type; ask for one city"
                    .to_owned(),
            )
        }
    }

    /// 413: the body is larger than `bytes_max` bytes.
    pub fn body_too_large(bytes_max: usize) -> ApiError {
        let public = format!("the request body is larger than {bytes_max} bytes");
        ApiError::new(413, "body_too_large", public)
    }

    /// 414: the path and the query are longer than `bytes_max` bytes.
    pub fn uri_too_long(bytes_max: usize) -> ApiError {
        let public = format!("path and query are longer than {bytes_max} bytes");
        ApiError::new(414, "uri_too_long", public)
    }

    /// 431: the header lines are longer than `bytes_max` bytes.
    pub fn headers_too_large(bytes_max: usize) -> ApiError {
        let public = format!("the header lines are longer than {bytes_max} bytes");
        ApiError::new(431, "headers_too_large", public)
    }

    /// 500: the server has a bug. The text `detail` appears only in the log.
    pub fn internal(detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(
                500,
                "internal",
                "internal error; the server's log describes it under this request_id",
            )
        }
    }

    /// 503: DynamoDB cannot answer. The message `public` gives the reason. The text `detail` appears only in the log.
    pub fn store_unavailable(public: impl Into<String>, detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(503, "store_unavailable", public)
        }
    }

    /// 504: DynamoDB did not answer in time.
    pub fn store_timeout(detail: impl Into<String>) -> ApiError {
        ApiError {
            detail: Some(detail.into()),
            ..ApiError::new(504, "store_timeout", "DynamoDB did not answer in time")
        }
    }

    /// Returns the HTTP status of the error.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the stable code of the error.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the HTTP response for the error. The body also contains the fields of the JSON object `fields`.
    pub fn into_response_with(self, fields: serde_json::Value) -> Response {
        let id = RequestId::current();
        let request_id = id.to_string();
        let status = self.status.as_u16();
        let detail = self.detail.as_deref().unwrap_or_default();
        let code = self.code;
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(request_id, status, code, detail, "request failed");
        } else if self.status.is_server_error() {
            tracing::warn!(request_id, status, code, detail, "request failed");
        } else {
            tracing::debug!(request_id, status, code, "request rejected");
        }
        let mut body = fields;
        body["error"] = self.public.into();
        body["code"] = code.into();
        body["request_id"] = request_id.clone().into();
        let mut response = (self.status, Body::from(format!("{body}\n"))).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REQUEST_ID, id.header());
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        #[allow(clippy::cast_precision_loss)] // the units of one answer are a small number
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

/// Adds an error body if the router's response is empty and has status 404 or 405. The response keeps its headers, such
/// as `Allow`.
pub fn with_error_body(response: Response) -> Response {
    let error = match response.status() {
        StatusCode::NOT_FOUND => ApiError::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::method_not_allowed(),
        _ => return response,
    };
    if response.headers().contains_key(CONTENT_TYPE) {
        return response;
    }
    let mut with_body = error.into_response();
    for (name, value) in response.headers() {
        if name != axum::http::header::CONTENT_LENGTH {
            with_body.headers_mut().append(name, value.clone());
        }
    }
    with_body
}
