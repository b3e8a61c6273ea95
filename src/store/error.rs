//! The errors of requests to DynamoDB, and the reaction to each kind of error.
//!
//! [`CODES`] assigns a [`StoreErrorKind`] to each error code of DynamoDB. For any other code, the HTTP status
//! determines the kind. Status 429 means that DynamoDB throttled the request. For status 5xx, or status 2xx with a
//! garbled body, the kind is [`StoreErrorKind::Unknown`], because DynamoDB may have carried out the request. For any
//! other status, the kind is [`StoreErrorKind::Denied`]. A status alone never gives the kind
//! [`StoreErrorKind::Invalid`], because the consumer would then send valid records to the dead-letter topic.
//!
//! The text of a store error contains the code, the operation, the table, the key and the request id. For a throttled
//! request, the text also contains DynamoDB's own reasons, which distinguish a hot key from a limit of the table. A
//! failed condition is an outcome and not an error. Therefore, code that sends conditional writes checks for a failed
//! condition before it creates a [`StoreError`].

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;
use aws_sdk_dynamodb::types::ThrottlingReason;

use crate::failure::{Failure, chain};
use crate::store::answers::{Flaw, FlawedAnswer};

/// The kind of an error. The kind determines what the caller must do after a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// DynamoDB did not carry out the request. The caller repeats the request until the request succeeds, with pauses
    /// that grow up to a maximum.
    Transient,
    /// DynamoDB throttled the request. The caller repeats the request as for [`StoreErrorKind::Transient`], and also
    /// sends fewer requests.
    Throttled,
    /// DynamoDB may have carried out the request. The caller sends the same conditional update again, and does not
    /// read the item first.
    Unknown,
    /// The table does not exist, or the item that the operation needs does not exist. The caller waits until it exists,
    /// and reads the config item again before it repeats the request.
    NotFound,
    /// The condition of a conditional write did not hold.
    Conflict,
    /// DynamoDB can never accept the request. If the request updates a row, the consumer stops. If the request puts an
    /// item, the consumer sends the record to the dead-letter topic.
    Invalid,
    /// The login failed or a right is missing. An operator must fix the cause. The caller reports the error, and
    /// repeats the request with the maximum pause.
    Denied,
    /// A stored item is damaged, so the caller stops.
    Corrupt,
    /// The settings for DynamoDB are invalid, so the program exits with code 2.
    Settings,
}

impl StoreErrorKind {
    /// Returns the value of the metric label `outcome` for this kind of error.
    pub const fn name(self) -> &'static str {
        match self {
            StoreErrorKind::Transient => "transient",
            StoreErrorKind::Throttled => "throttled",
            StoreErrorKind::Unknown => "unknown",
            StoreErrorKind::NotFound => "not_found",
            StoreErrorKind::Conflict => "conflict",
            StoreErrorKind::Invalid => "invalid",
            StoreErrorKind::Denied => "denied",
            StoreErrorKind::Corrupt => "corrupt",
            StoreErrorKind::Settings => "settings",
        }
    }

    /// Returns true if a later repetition of the request may succeed.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            StoreErrorKind::Transient
                | StoreErrorKind::Throttled
                | StoreErrorKind::Unknown
                | StoreErrorKind::NotFound
                | StoreErrorKind::Denied
        )
    }
}

/// The error codes of DynamoDB and of AWS's front end, each with its kind.
///
/// The codes come from "Error handling with DynamoDB" and "Common errors" in AWS's documentation, and from the service
/// model of botocore. The script `scripts/check-aws` compares this list with the service model of botocore.
pub const CODES: [(&str, StoreErrorKind); 39] = [
    ("AccessDeniedException", StoreErrorKind::Denied),
    ("ConditionalCheckFailedException", StoreErrorKind::Conflict),
    (
        "ContinuousBackupsUnavailableException",
        StoreErrorKind::Transient,
    ), // returned for minutes after a table was created
    ("DuplicateItemException", StoreErrorKind::Conflict),
    ("ExpiredToken", StoreErrorKind::Transient), // the SDK fetches fresh credentials
    ("ExpiredTokenException", StoreErrorKind::Transient),
    (
        "IdempotentParameterMismatchException",
        StoreErrorKind::Invalid,
    ),
    ("IncompleteSignature", StoreErrorKind::Denied),
    ("IncompleteSignatureException", StoreErrorKind::Denied),
    ("InternalFailure", StoreErrorKind::Unknown),
    ("InternalServerError", StoreErrorKind::Unknown),
    ("InvalidClientTokenId", StoreErrorKind::Denied),
    ("InvalidSignatureException", StoreErrorKind::Denied),
    (
        "ItemCollectionSizeLimitExceededException",
        StoreErrorKind::Invalid,
    ),
    ("LimitExceededException", StoreErrorKind::Transient), // too many tables are being created
    ("MissingAuthenticationToken", StoreErrorKind::Denied),
    (
        "MissingAuthenticationTokenException",
        StoreErrorKind::Denied,
    ),
    ("NotAuthorized", StoreErrorKind::Denied),
    ("OptInRequired", StoreErrorKind::Denied),
    (
        "ProvisionedThroughputExceededException",
        StoreErrorKind::Throttled,
    ),
    (
        "ReplicatedWriteConflictException",
        StoreErrorKind::Transient,
    ),
    ("RequestExpired", StoreErrorKind::Transient), // the SDK corrects its clock from the answer
    ("RequestLimitExceeded", StoreErrorKind::Throttled),
    ("RequestTimeout", StoreErrorKind::Unknown),
    ("RequestTimeoutException", StoreErrorKind::Unknown),
    ("RequestTooLarge", StoreErrorKind::Invalid),
    ("RequestEntityTooLarge", StoreErrorKind::Invalid),
    ("ResourceInUseException", StoreErrorKind::Transient), // a table is being created, changed or deleted
    ("ResourceNotFoundException", StoreErrorKind::NotFound),
    ("SerializationException", StoreErrorKind::Invalid),
    ("ServiceUnavailable", StoreErrorKind::Unknown),
    ("ServiceUnavailableException", StoreErrorKind::Unknown),
    ("TableNotFoundException", StoreErrorKind::NotFound),
    ("Throttling", StoreErrorKind::Throttled),
    ("ThrottlingException", StoreErrorKind::Throttled),
    ("TransactionConflictException", StoreErrorKind::Transient),
    ("TransactionInProgressException", StoreErrorKind::Transient),
    ("UnrecognizedClientException", StoreErrorKind::Denied),
    ("ValidationException", StoreErrorKind::Invalid),
];

/// The error code for a response that fails the checks of [`crate::store::answers`].
pub const WRONG_ANSWER: &str = "WrongAnswer";

/// Returns the kind of error for a response with the error code `code` and the HTTP status `status`.
pub fn classify(code: &str, status: u16) -> StoreErrorKind {
    let known = CODES.iter().find(|(known, _)| *known == code);
    match (known, status) {
        (Some((_, kind)), _) => *kind,
        (None, 429) => StoreErrorKind::Throttled,
        // Status 2xx together with an error of the SDK means that the body is garbled, but DynamoDB may have carried
        // out the request.
        (None, 200..=299 | 500..) => StoreErrorKind::Unknown,
        (None, _) => StoreErrorKind::Denied,
    }
}

/// An error while using DynamoDB.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request to DynamoDB failed.
    #[error("{0}")]
    Request(Box<RequestError>),
    /// The settings for DynamoDB are invalid.
    #[error("{0}")]
    Settings(Failure),
    /// A stored item does not have the shape that `docs/TABLES.md` describes.
    #[error("item {key} of table {table} is corrupt: {message}")]
    Corrupt {
        /// The name of the affected table.
        table: String,
        /// The key of the damaged item.
        key: String,
        /// A sentence that describes the damage of the item.
        message: String,
    },
    /// The keys or indexes of a table differ from the definition in `docs/TABLES.md`.
    #[error("table {table} differs: {}", differences.join("; "))]
    Different {
        /// The name of the affected table.
        table: String,
        /// The differences between the table and its definition, with one sentence for each.
        differences: Vec<String>,
    },
    /// The condition for which the program waited did not become true in time.
    #[error("waited {seconds} s for {what} in vain")]
    Waited {
        /// The condition for which the program waited.
        what: String,
        /// The number of seconds that the program waited.
        seconds: u64,
    },
    /// The response to an API request would cost more read units than the limit allows.
    #[error("an answer may read at most {units} units of DynamoDB")]
    TooCostly {
        /// Maximum number of read units for one API response.
        units: u64,
    },
}

/// The details of a failed request to DynamoDB.
#[derive(Debug)]
pub struct RequestError {
    /// The kind of the error, which determines what the caller must do.
    pub kind: StoreErrorKind,
    /// DynamoDB's name for the operation, such as `PutItem`.
    pub operation: &'static str,
    /// The name of the table, or an empty string if the operation does not concern a table.
    pub table: String,
    /// The key of the item, if the request concerned a single item.
    pub key: Option<String>,
    /// The code that DynamoDB returned, or one of `Timeout`, `Dispatch`, `Response`, `Construction` and
    /// [`WRONG_ANSWER`].
    pub code: String,
    /// The message from DynamoDB or from the SDK.
    pub message: String,
    /// The id that DynamoDB gave the request.
    pub request_id: Option<String>,
    /// The reasons that DynamoDB returned for throttling the request.
    pub throttling: Vec<String>,
}

impl RequestError {
    fn new(
        kind: StoreErrorKind,
        operation: &'static str,
        table: &str,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> RequestError {
        RequestError {
            kind,
            operation,
            table: table.to_owned(),
            key: None,
            code: code.into(),
            message: message.into(),
            request_id: None,
            throttling: Vec::new(),
        }
    }
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

/// The error of one operation of the SDK, such as `PutItemError`.
pub trait OperationError:
    ProvideErrorMetadata + Into<aws_sdk_dynamodb::Error> + std::error::Error + Send + Sync + 'static
{
}

impl<E> OperationError for E where
    E: ProvideErrorMetadata
        + Into<aws_sdk_dynamodb::Error>
        + std::error::Error
        + Send
        + Sync
        + 'static
{
}

impl StoreError {
    /// Returns the error for a failed request. `operation` is DynamoDB's name for the operation on `table`.
    pub fn from_sdk<E: OperationError>(
        operation: &'static str,
        table: &str,
        error: SdkError<E, HttpResponse>,
    ) -> StoreError {
        let request_id = error.request_id().map(str::to_owned);
        let text = || chain(&error);
        let (kind, code, message) = match &error {
            SdkError::DispatchFailure(_) if let Some(flaw) = flaw_in_sources(&error) => (
                StoreErrorKind::Unknown,
                WRONG_ANSWER.to_owned(),
                flaw.to_string(),
            ),
            SdkError::ConstructionFailure(_) => {
                (StoreErrorKind::Invalid, "Construction".to_owned(), text())
            }
            SdkError::TimeoutError(_) => (StoreErrorKind::Unknown, "Timeout".to_owned(), text()),
            SdkError::ResponseError(_) => (StoreErrorKind::Unknown, "Response".to_owned(), text()),
            SdkError::DispatchFailure(failure) => {
                let kind = if failure.is_user() {
                    StoreErrorKind::Invalid
                } else if failure.is_other() && failure.as_other().is_none() {
                    classify_unsent(&error)
                } else if was_never_sent(&error) {
                    StoreErrorKind::Transient
                } else {
                    StoreErrorKind::Unknown
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
            _ => (StoreErrorKind::Unknown, "Unknown".to_owned(), text()),
        };
        let throttling = match error {
            SdkError::ServiceError(context) if kind == StoreErrorKind::Throttled => {
                throttling_reasons(&context.into_err().into())
            }
            _ => Vec::new(),
        };
        StoreError::Request(Box::new(RequestError {
            request_id,
            throttling,
            ..RequestError::new(kind, operation, table, code, message)
        }))
    }

    /// Returns the error for a response that is invalid because of `flaw`.
    pub(super) fn wrong_answer(operation: &'static str, table: &str, flaw: Flaw) -> StoreError {
        StoreError::Request(Box::new(RequestError::new(
            StoreErrorKind::Unknown,
            operation,
            table,
            WRONG_ANSWER,
            flaw.to_string(),
        )))
    }

    /// Adds the key of the affected item to the error, and returns the error.
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

    /// Returns the kind of the error, which determines what the caller must do.
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            StoreError::Request(request) => request.kind,
            StoreError::Settings { .. } | StoreError::Different { .. } => StoreErrorKind::Settings,
            StoreError::Corrupt { .. } => StoreErrorKind::Corrupt,
            StoreError::Waited { .. } | StoreError::TooCostly { .. } => StoreErrorKind::Transient,
        }
    }

    /// Returns true if the SDK did not send the request because it had no credentials for the signature. If no source
    /// of credentials is configured, the kind of the error is [`StoreErrorKind::Denied`]. If the source does not
    /// answer, the kind is [`StoreErrorKind::Transient`].
    pub fn is_about_credentials(&self) -> bool {
        matches!(self, StoreError::Request(request) if request.code == "Dispatch"
            && (request.kind == StoreErrorKind::Denied || request.message.contains("loading credentials")))
    }

    /// Returns true if DynamoDB refused a change to a table because an earlier change is not finished. DynamoDB accepts
    /// the change later.
    pub fn is_busy(&self) -> bool {
        const BUSY: [&str; 3] = [
            "ContinuousBackupsUnavailableException",
            "LimitExceededException",
            "ResourceInUseException",
        ];
        self.code().is_some_and(|code| BUSY.contains(&code))
    }

    /// Returns the error code of a failed request.
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

/// Returns an iterator over an error and its sources, from the outermost to the innermost.
fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Returns the flaw that caused the error, or `None` if the error has another cause.
fn flaw_in_sources(error: &(dyn std::error::Error + 'static)) -> Option<Flaw> {
    sources(error).find_map(|source| source.downcast_ref().map(|FlawedAnswer(flaw)| *flaw))
}

/// Returns true if the server refused the connection. In this case, DynamoDB cannot have carried out the request.
fn was_never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = sources(error).find_map(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Returns the kind of an error that occurred before the SDK sent the request, such as missing credentials.
fn classify_unsent(error: &(dyn std::error::Error + 'static)) -> StoreErrorKind {
    let text = chain(error);
    // AWS_ACCOUNT_ID_ENDPOINT_MODE is `required`, but the credentials do not name an account.
    if text.contains("AccountIdEndpointMode is required") {
        return StoreErrorKind::Settings;
    }
    // The SDK does not export the type of credential errors, so this function checks the text of the error. Without any
    // source of credentials, an operator must configure one. A source that fails now may work again later.
    if text.contains("credential provider was not enabled")
        || text.contains("no providers in chain provided credentials")
    {
        StoreErrorKind::Denied
    } else if was_never_sent(error) || text.contains("credentials") {
        StoreErrorKind::Transient
    } else {
        StoreErrorKind::Unknown
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
                describe_limit(reason),
                resource.unwrap_or_default()
            )
        })
        .collect()
}

/// Returns a description of the DynamoDB limit that a reason for throttling names. The reasons for reads, writes,
/// tables and indexes contain the same words. Source: "Understanding DynamoDB throttling" in AWS's documentation.
fn describe_limit(reason: &str) -> &'static str {
    if reason.contains("KeyRange") {
        "one key is hot"
    } else if reason.contains("Account") {
        "the account's limit is reached"
    } else {
        "the table's limit is reached"
    }
}

#[cfg(test)]
mod tests;
