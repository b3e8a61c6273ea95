//! Errors of the store, and what the caller must do about each.
//!
//! [`CODES`] is the one table from DynamoDB's error codes to a [`Kind`]. A code that is not in it is
//! judged by its HTTP status: 429 is throttling, 5xx may have been carried out (2xx, too, where the
//! body is garbled), and anything else is [`Kind::Denied`] and not [`Kind::Invalid`], because the latter sends items to the dead-letter
//! topic, and an answer nobody has foreseen must never cost data.
//!
//! The text names code, operation, table, key and request id (D6), and for throttling DynamoDB's
//! own reasons, which tell a hot key from a limit of the table. A failed condition is an answer, not
//! an error: code that sends conditions looks for it before it makes a [`StoreError`].

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;
use aws_sdk_dynamodb::types::ThrottlingReason;

use crate::failure::{Failure, chain};
use crate::store::answers::{Disbelieved, Flaw};

/// What the caller of a failed request must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was not carried out: send it again, for ever, with a capped back-off.
    Transient,
    /// As [`Kind::Transient`], and send less.
    Throttled,
    /// It may have been carried out: send the same conditional update again, without a read.
    Unknown,
    /// The table is missing (or the item, for operations on items): wait for it, read the config
    /// item again before sending.
    NotFound,
    /// A condition did not hold.
    Conflict,
    /// What was sent can never be accepted: a row, stop; an item, to the dead-letter topic.
    Invalid,
    /// Login or rights are missing: send it again with the longest back-off and say so, since a
    /// person must act.
    Denied,
    /// What is stored contradicts itself: stop.
    Corrupt,
    /// The settings cannot work: exit code 2.
    Settings,
}

impl Kind {
    /// Returns the value of the label `outcome` in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Transient => "transient",
            Kind::Throttled => "throttled",
            Kind::Unknown => "unknown",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Invalid => "invalid",
            Kind::Denied => "denied",
            Kind::Corrupt => "corrupt",
            Kind::Settings => "settings",
        }
    }

    /// Tells whether the same request may succeed later without anybody changing it.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Kind::Transient | Kind::Throttled | Kind::Unknown | Kind::NotFound | Kind::Denied
        )
    }
}

/// DynamoDB's error codes, and the ones of its front end, by what to do about them.
///
/// Source: "Error handling with DynamoDB" and "Common errors" in AWS's documentation, and the service
/// model of botocore; `scripts/check-aws` compares this table with the model.
pub const CODES: [(&str, Kind); 39] = [
    ("AccessDeniedException", Kind::Denied),
    ("ConditionalCheckFailedException", Kind::Conflict),
    ("ContinuousBackupsUnavailableException", Kind::Transient), // minutes after a table was made
    ("DuplicateItemException", Kind::Conflict),
    ("ExpiredToken", Kind::Transient), // the SDK fetches fresh credentials
    ("ExpiredTokenException", Kind::Transient),
    ("IdempotentParameterMismatchException", Kind::Invalid),
    ("IncompleteSignature", Kind::Denied),
    ("IncompleteSignatureException", Kind::Denied),
    ("InternalFailure", Kind::Unknown),
    ("InternalServerError", Kind::Unknown),
    ("InvalidClientTokenId", Kind::Denied),
    ("InvalidSignatureException", Kind::Denied),
    ("ItemCollectionSizeLimitExceededException", Kind::Invalid),
    ("LimitExceededException", Kind::Transient), // too many tables in the making
    ("MissingAuthenticationToken", Kind::Denied),
    ("MissingAuthenticationTokenException", Kind::Denied),
    ("NotAuthorized", Kind::Denied),
    ("OptInRequired", Kind::Denied),
    ("ProvisionedThroughputExceededException", Kind::Throttled),
    ("ReplicatedWriteConflictException", Kind::Transient),
    ("RequestExpired", Kind::Transient), // the SDK corrects its clock by the answer
    ("RequestLimitExceeded", Kind::Throttled),
    ("RequestTimeout", Kind::Unknown),
    ("RequestTimeoutException", Kind::Unknown),
    ("RequestTooLarge", Kind::Invalid),
    ("RequestEntityTooLarge", Kind::Invalid),
    ("ResourceInUseException", Kind::Transient), // being made, changed or deleted
    ("ResourceNotFoundException", Kind::NotFound),
    ("SerializationException", Kind::Invalid),
    ("ServiceUnavailable", Kind::Unknown),
    ("ServiceUnavailableException", Kind::Unknown),
    ("TableNotFoundException", Kind::NotFound),
    ("Throttling", Kind::Throttled),
    ("ThrottlingException", Kind::Throttled),
    ("TransactionConflictException", Kind::Transient),
    ("TransactionInProgressException", Kind::Transient),
    ("UnrecognizedClientException", Kind::Denied),
    ("ValidationException", Kind::Invalid),
];

/// The code of an answer that is not believed ([`crate::store::answers`]).
pub const WRONG_ANSWER: &str = "WrongAnswer";

/// Returns what to do about an answer with this code and HTTP status.
pub fn classify(code: &str, status: u16) -> Kind {
    let known = CODES.iter().find(|(known, _)| *known == code);
    match (known, status) {
        (Some((_, kind)), _) => *kind,
        (None, 429) => Kind::Throttled,
        // A success whose body cannot be read was carried out.
        (None, 200..=299 | 500..) => Kind::Unknown,
        (None, _) => Kind::Denied,
    }
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request failed.
    #[error("{0}")]
    Request(Box<RequestError>),
    /// The settings cannot work.
    #[error("{0}")]
    Settings(Failure),
    /// A stored item does not have the shape the contract gives it.
    #[error("item {key} of table {table} is corrupt: {message}")]
    Corrupt {
        /// The table.
        table: String,
        /// Key of the item.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A table exists with another shape than the contract's.
    #[error("table {table} differs: {}", differences.join("; "))]
    Different {
        /// The table.
        table: String,
        /// What differs, a sentence each.
        differences: Vec<String>,
    },
    /// Something did not come about in time.
    #[error("waited {seconds} s for {what} in vain")]
    Waited {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// An answer needs more reads than one request may pay for.
    #[error("an answer may read at most {units} units of DynamoDB")]
    TooCostly {
        /// The ceiling.
        units: u64,
    },
}

/// A request that DynamoDB, or the way to it, refused.
#[derive(Debug)]
pub struct RequestError {
    /// What to do about it.
    pub kind: Kind,
    /// The operation, as DynamoDB calls it.
    pub operation: &'static str,
    /// The table, or "" where the operation has none.
    pub table: String,
    /// Key of the item, where it was one.
    pub key: Option<String>,
    /// DynamoDB's code, or one of `Timeout`, `Dispatch`, `Response`, `Construction` and
    /// [`WRONG_ANSWER`].
    pub code: String,
    /// DynamoDB's words, or the SDK's.
    pub message: String,
    /// DynamoDB's id of the request.
    pub request_id: Option<String>,
    /// DynamoDB's reasons for throttling, `reason resource` each.
    pub throttling: Vec<String>,
}

impl std::error::Error for RequestError {}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Failure::from(self).fmt(f)
    }
}

impl From<&RequestError> for Failure {
    fn from(error: &RequestError) -> Failure {
        let mut what = error.operation.to_owned();
        if !error.table.is_empty() {
            what.push_str(&format!(" on {}", error.table));
        }
        if let Some(key) = &error.key {
            what.push_str(&format!(" at {key}"));
        }
        what.push_str(&format!(" failed with {}", error.code));
        let mut details = String::new();
        if !error.throttling.is_empty() {
            details.push_str(&format!(" [{}]", error.throttling.join(", ")));
        }
        if let Some(id) = &error.request_id {
            details.push_str(&format!(" (request id {id})"));
        }
        if error.message.is_empty() {
            Failure::new(what + &details)
        } else {
            Failure::new(what).with_why(error.message.clone() + &details)
        }
    }
}

impl StoreError {
    /// Returns the error of a request for `operation` (DynamoDB's name) on `table`.
    pub fn from_sdk<E>(
        operation: &'static str,
        table: &str,
        error: SdkError<E, HttpResponse>,
    ) -> StoreError
    where
        E: ProvideErrorMetadata
            + Into<aws_sdk_dynamodb::Error>
            + std::error::Error
            + Send
            + Sync
            + 'static,
    {
        let request_id = error.request_id().map(str::to_owned);
        let text = || chain(&error);
        let (kind, code, message) = match &error {
            SdkError::DispatchFailure(_) if let Some(flaw) = flaw(&error) => {
                (Kind::Unknown, WRONG_ANSWER.to_owned(), flaw.to_string())
            }
            SdkError::ConstructionFailure(_) => (Kind::Invalid, "Construction".to_owned(), text()),
            SdkError::TimeoutError(_) => (Kind::Unknown, "Timeout".to_owned(), text()),
            SdkError::ResponseError(_) => (Kind::Unknown, "Response".to_owned(), text()),
            SdkError::DispatchFailure(failure) => {
                let kind = if failure.is_user() {
                    Kind::Invalid
                } else if failure.is_other() && failure.as_other().is_none() {
                    judge_other(&error)
                } else if was_never_sent(&error) {
                    Kind::Transient
                } else {
                    Kind::Unknown
                };
                (kind, "Dispatch".to_owned(), text())
            }
            SdkError::ServiceError(context) => {
                let meta = context.err().meta();
                let status = context.raw().status().as_u16();
                let code = meta
                    .code()
                    .map_or_else(|| format!("HTTP{status}"), str::to_owned);
                let message = meta.message().unwrap_or_default().to_owned();
                (classify(&code, status), code, message)
            }
            _ => (Kind::Unknown, "Unknown".to_owned(), text()),
        };
        let throttling = match error {
            SdkError::ServiceError(context) if kind == Kind::Throttled => {
                throttling_reasons(&context.into_err().into())
            }
            _ => Vec::new(),
        };
        StoreError::Request(Box::new(RequestError {
            kind,
            operation,
            table: table.to_owned(),
            key: None,
            code,
            message,
            request_id,
            throttling,
        }))
    }

    /// Returns the error of an answer that is not believed.
    pub(super) fn wrong_answer(operation: &'static str, table: &str, flaw: Flaw) -> StoreError {
        StoreError::Request(Box::new(RequestError {
            kind: Kind::Unknown,
            operation,
            table: table.to_owned(),
            key: None,
            code: WRONG_ANSWER.to_owned(),
            message: flaw.to_string(),
            request_id: None,
            throttling: Vec::new(),
        }))
    }

    /// Returns the same error with the key of the item it was about.
    #[must_use]
    pub fn with_key(mut self, item: impl Into<String>) -> StoreError {
        match &mut self {
            StoreError::Request(request) => request.key = Some(item.into()),
            StoreError::Corrupt { key, .. } => *key = item.into(),
            StoreError::Settings { .. }
            | StoreError::Different { .. }
            | StoreError::Waited { .. }
            | StoreError::TooCostly { .. } => {}
        }
        self
    }

    /// Returns what the caller must do.
    pub fn kind(&self) -> Kind {
        match self {
            StoreError::Request(request) => request.kind,
            StoreError::Settings { .. } | StoreError::Different { .. } => Kind::Settings,
            StoreError::Corrupt { .. } => Kind::Corrupt,
            StoreError::Waited { .. } | StoreError::TooCostly { .. } => Kind::Transient,
        }
    }

    /// Tells whether the request was not even sent, since there is nothing to sign it with.
    pub fn lacks_credentials(&self) -> bool {
        matches!(self, StoreError::Request(request)
            if request.kind == Kind::Denied && request.code == "Dispatch")
    }

    /// Returns whether the credentials could not be loaded, for now at least, so that nothing was sent.
    pub fn is_about_credentials(&self) -> bool {
        matches!(self, StoreError::Request(request)
            if request.code == "Dispatch" && request.message.contains("loading credentials"))
    }

    /// Returns whether DynamoDB refused a change to a table because an earlier one is not finished, so
    /// that the same change is accepted later.
    pub fn is_busy(&self) -> bool {
        const BUSY: [&str; 3] = [
            "ContinuousBackupsUnavailableException",
            "LimitExceededException",
            "ResourceInUseException",
        ];
        self.code().is_some_and(|code| BUSY.contains(&code))
    }

    /// Returns DynamoDB's code, where there was an answer.
    pub fn code(&self) -> Option<&str> {
        match self {
            StoreError::Request(request) => Some(&request.code),
            StoreError::Settings { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Different { .. }
            | StoreError::Waited { .. }
            | StoreError::TooCostly { .. } => None,
        }
    }
}

/// Returns why the answer was not believed, if that is what failed.
fn flaw(error: &(dyn std::error::Error + 'static)) -> Option<Flaw> {
    let mut next = Some(error);
    while let Some(source) = next {
        if let Some(Disbelieved(flaw)) = source.downcast_ref() {
            return Some(*flaw);
        }
        next = source.source();
    }
    None
}

/// Tells whether no connection came about, so that nothing can have been carried out.
fn was_never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(source) = next {
        if let Some(io) = source.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        next = source.source();
    }
    false
}

/// Judges what failed before the network: credentials that are not there, or not just now.
fn judge_other(error: &(dyn std::error::Error + 'static)) -> Kind {
    let text = chain(error);
    // AWS_ACCOUNT_ID_ENDPOINT_MODE=required, and credentials that do not say whose account they are of.
    if text.contains("AccountIdEndpointMode is required") {
        return Kind::Settings;
    }
    // By its words, since the SDK does not re-export the type. None at all: a person must act; a
    // source that fails: it may come back (E4).
    if text.contains("credential provider was not enabled")
        || text.contains("no providers in chain provided credentials")
    {
        Kind::Denied
    } else if was_never_sent(error) || text.contains("credentials") {
        Kind::Transient
    } else {
        Kind::Unknown
    }
}

fn throttling_reasons(error: &aws_sdk_dynamodb::Error) -> Vec<String> {
    let reasons: &[ThrottlingReason] = match error {
        aws_sdk_dynamodb::Error::ProvisionedThroughputExceededException(e) => {
            e.throttling_reasons()
        }
        aws_sdk_dynamodb::Error::RequestLimitExceeded(e) => e.throttling_reasons(),
        aws_sdk_dynamodb::Error::ThrottlingException(e) => e.throttling_reasons(),
        _ => &[],
    };
    reasons
        .iter()
        .map(|r| {
            let (reason, resource) = (r.reason().unwrap_or_default(), r.resource());
            format!(
                "{}: {reason} {}",
                blame(reason),
                resource.unwrap_or_default()
            )
        })
        .collect()
}

/// Says in words which limit was reached. Source: "Understanding DynamoDB throttling" in AWS's
/// documentation; reasons end alike for reads and writes, tables and indexes.
fn blame(reason: &str) -> &'static str {
    if reason.contains("KeyRange") {
        "one key is hot"
    } else if reason.contains("Account") {
        "the account's limit is reached"
    } else {
        "the table's limit is reached"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    /// Answers every request alike.
    #[derive(Clone, Debug)]
    struct Answer(u16, String);

    impl HttpConnector for Answer {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(self.0).expect("a status");
            let mut answer = HttpResponse::new(status, SdkBody::from(self.1.clone()));
            answer.headers_mut().insert("x-amzn-requestid", "R1");
            HttpConnectorFuture::ready(Ok(answer))
        }
    }

    fn answering(status: u16, body: &str) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(Answer(status, body.to_owned()));
        http_client_fn(move |_, _| connector.clone())
    }

    async fn fail(status: u16, body: &str) -> StoreError {
        let client = crate::store::client::connect(crate::store::client::ConnectOptions {
            attempts: 1,
            http: Some(answering(status, body)),
            test_credentials: true,
            ..Default::default()
        })
        .await
        .unwrap();
        let error: SdkError<UpdateItemError, HttpResponse> = client
            .update_item()
            .table_name("t")
            .key(
                "k",
                aws_sdk_dynamodb::types::AttributeValue::S("v".to_owned()),
            )
            .send()
            .await
            .expect_err("an error");
        StoreError::from_sdk("UpdateItem", "t", error).with_key("v")
    }

    #[tokio::test]
    async fn d5_every_code_of_the_table_is_classified_from_the_wire() {
        for (code, kind) in CODES {
            let status = match kind {
                Kind::Unknown => 500,
                _ => 400,
            };
            let body = format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"why"}}"#
            );
            let error = fail(status, &body).await;
            assert_eq!(error.kind(), kind, "{code}");
            assert_eq!(error.code(), Some(code));
            let text = error.to_string();
            for word in [code, "UpdateItem", "on t", "at v", "why", "R1"] {
                assert!(text.contains(word), "{word} is not in {text}");
            }
        }
    }

    #[test]
    fn d5_codes_are_listed_once() {
        for (n, (code, _)) in CODES.iter().enumerate() {
            assert!(!CODES[..n].iter().any(|(other, _)| other == code), "{code}");
        }
    }

    #[tokio::test]
    async fn d5_answers_nobody_foresaw_cost_no_data() {
        for (status, body, kind) in [
            (400, r#"{"__type":"x#KmsKeyGoneException"}"#, Kind::Denied),
            (403, "<html>proxy</html>", Kind::Denied),
            (429, "{}", Kind::Throttled),
            (500, "", Kind::Unknown),
            (502, "<html>", Kind::Unknown),
            (503, "{}", Kind::Unknown),
        ] {
            let error = fail(status, body).await;
            assert_eq!(error.kind(), kind, "{status} {body}: {error}");
            assert!(error.kind().is_retryable());
        }
        assert_eq!(fail(200, "not json").await.kind(), Kind::Unknown);
    }

    #[tokio::test]
    async fn d6_throttling_reasons_are_named() {
        for (reason, words) in [
            ("TableWriteKeyRangeThroughputExceeded", "one key is hot"),
            ("IndexWriteKeyRangeThroughputExceeded", "one key is hot"),
            (
                "TableWriteProvisionedThroughputExceeded",
                "the table's limit",
            ),
            (
                "TableWriteMaxOnDemandThroughputExceeded",
                "the table's limit",
            ),
            ("TableWriteAccountLimitExceeded", "the account's limit"),
        ] {
            let body = format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException",
                "throttlingReasons":[{{"reason":"{reason}","resource":"arn:t"}}]}}"#
            );
            let text = fail(400, &body).await.to_string();
            assert!(text.contains(&format!("{reason} arn:t")), "{text}");
            assert!(text.contains(words), "{text}");
        }
    }
}
