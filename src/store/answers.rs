//! Checks every response from DynamoDB before the AWS SDK reads it.
//!
//! An HTTP response does not identify its request, and the SDK treats any response with status 2xx as a success.
//! Without the checks, the SDK would accept a response that a proxy, a load balancer or an emulator has swapped,
//! truncated or made up. [`checking`] wraps the HTTP client, so the checks apply to every operation.
//! [`find_answer_flaw`] checks the following:
//!
//! | what must hold | for which answers |
//! |---|---|
//! | the CRC-32 of the body as received equals `x-amz-crc32` | all with that header |
//! | the body is one JSON object without `__type` | 2xx; `TagResource` may have no body |
//! | `ConsumedCapacity` exists and names only tables of the request | 2xx, if the request asked for it |
//! | the item has the key of the request | GetItem, UpdateItem with `ALL_NEW`, refused UpdateItem |
//!
//! The wrapped HTTP client returns a connection error instead of an invalid response. After a connection error, the
//! outcome of the request is unknown ([`StoreErrorKind::Unknown`](crate::store::error::StoreErrorKind::Unknown)), so
//! the caller sends the request again. The module [`crate::store::proof`] checks whether the item in a response proves
//! the outcome of a write.

use std::collections::HashMap;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use memchr::memmem;
use prometheus::IntCounterVec;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::telemetry::LogLimit;

/// Limits how often the program logs warnings about invalid responses. A metric counts every invalid response, even
/// without a warning.
static FLAWS: LogLimit = LogLimit::every(Duration::from_secs(1));

/// The flaw of an invalid response. A flaw proves that the response is damaged, or is not DynamoDB's response to the
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The body does not match `x-amz-crc32`.
    Checksum,
    /// The response has a success status, but its body is empty.
    Empty,
    /// The response has a success status, but its body is not a JSON object.
    NotJson,
    /// The response has a success status, but its body reports an error.
    ErrorInside,
    /// The response does not contain `ConsumedCapacity`, although the request asked for this field.
    NoCapacity,
    /// The response names a table that the request does not name.
    OtherTable,
    /// An item in the response has a different key from the item in the request.
    OtherItem,
    /// The item in the response does not contain the values that the request has written.
    OtherValues,
    /// The response reports an unprocessed item that the request did not contain.
    Unprocessed,
}

impl Flaw {
    /// Returns the name of the flaw. Metrics use it as the value of the label `why`.
    pub(super) const fn name(self) -> &'static str {
        self.texts().0
    }

    const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Flaw::Checksum => ("checksum", "the body does not match its x-amz-crc32"),
            Flaw::Empty => ("empty", "a success without a body"),
            Flaw::NotJson => ("not_json", "a success whose body is not a JSON object"),
            Flaw::ErrorInside => ("error_inside", "a success that contains an error"),
            Flaw::NoCapacity => ("no_capacity", "the requested ConsumedCapacity is missing"),
            Flaw::OtherTable => ("other_table", "it names another table"),
            Flaw::OtherItem => ("other_item", "it is about another item"),
            Flaw::OtherValues => ("other_values", "it does not hold what was written"),
            Flaw::Unprocessed => (
                "unprocessed",
                "its unprocessed items are not those of the request",
            ),
        }
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer has a flaw: {}", self.texts().1)
    }
}

/// An error that reports why a response is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct FlawedAnswer(pub(super) Flaw);

/// Increments the counter of invalid responses, and logs a warning about the flaw.
pub(super) fn count_flaw(counter: Option<&IntCounterVec>, operation: &str, flaw: Flaw) {
    if let Some(counter) = counter {
        counter.with_label_values(&[operation, flaw.name()]).inc();
    }
    if FLAWS.allows() {
        tracing::warn!(
            operation,
            why = flaw.name(),
            todo = "look for a proxy or load balancer that changes or swaps answers",
            "rejected an invalid answer of DynamoDB, sending the request again"
        );
    }
}

/// Returns an HTTP client that sends requests through `inner`, and returns an error instead of an invalid response.
pub(super) fn checking(
    inner: SharedHttpClient,
    refused: Option<IntCounterVec>,
) -> SharedHttpClient {
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(CheckingConnector {
            inner: inner.http_connector(settings, components),
            refused: refused.clone(),
        })
    })
}

#[derive(Clone, Debug)]
struct CheckingConnector {
    inner: SharedHttpConnector,
    refused: Option<IntCounterVec>,
}

impl HttpConnector for CheckingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { this.send(request).await })
    }
}

impl CheckingConnector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        // Cloning a request body that is in memory does not copy its bytes.
        let sent = request.body().try_clone().unwrap_or_else(SdkBody::empty);
        let mut answer = self.inner.call(request).await?;
        let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
        let body = ByteStream::new(body).collect().await;
        let body = body
            .map_err(|error| ConnectorError::io(error.into()))?
            .into_bytes();
        let flaw = find_answer_flaw(&Exchange {
            operation: &operation,
            request: sent.bytes().unwrap_or_default(),
            status: answer.status().as_u16(),
            checksum: answer.headers().get("x-amz-crc32"),
            answer: &body,
        });
        if let Some(flaw) = flaw {
            count_flaw(self.refused.as_ref(), &operation, flaw);
            return Err(ConnectorError::io(FlawedAnswer(flaw).into()));
        }
        *answer.body_mut() = SdkBody::from(body);
        Ok(answer)
    }
}

/// A request to DynamoDB, and the response to this request.
#[derive(Clone, Copy, Debug)]
struct Exchange<'a> {
    /// The name of the DynamoDB operation, such as `GetItem`.
    operation: &'a str,
    /// The body of the request.
    request: &'a [u8],
    status: u16,
    /// The value of the header `x-amz-crc32`.
    checksum: Option<&'a str>,
    /// The unchanged body of the response.
    answer: &'a [u8],
}

/// The fields of a response that this module checks.
#[derive(Deserialize)]
struct AnswerFields<'a> {
    #[serde(rename = "__type")]
    error: Option<IgnoredAny>,
    #[serde(rename = "ConsumedCapacity", borrow)]
    capacity: Option<&'a RawValue>,
    #[serde(rename = "Item", borrow)]
    item: Option<&'a RawValue>,
    #[serde(rename = "Attributes", borrow)]
    attributes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Capacity<'a> {
    #[serde(rename = "TableName", borrow)]
    table: &'a str,
}

#[derive(Deserialize)]
struct Keyed {
    #[serde(rename = "Key")]
    key: HashMap<String, Value>,
}

/// Returns the reason why a response is invalid, or `None` if the response is valid.
fn find_answer_flaw(x: &Exchange<'_>) -> Option<Flaw> {
    if let Some(checksum) = x.checksum
        && checksum.parse() != Ok(crc32fast::hash(x.answer))
    {
        return Some(Flaw::Checksum);
    }
    if !(200..300).contains(&x.status) {
        return refusal_flaw(x);
    }
    if x.answer.is_empty() {
        return (x.operation != "TagResource").then_some(Flaw::Empty);
    }
    let Ok(answer) = serde_json::from_slice::<AnswerFields<'_>>(x.answer) else {
        return Some(Flaw::NotJson);
    };
    if answer.error.is_some() {
        return Some(Flaw::ErrorInside);
    }
    if memmem::find(x.request, br#""ReturnConsumedCapacity":"TOTAL""#).is_some() {
        let flaw = capacity_flaw(answer.capacity, x.request);
        if flaw.is_some() {
            return flaw;
        }
    }
    let item = match x.operation {
        "GetItem" => answer.item,
        "UpdateItem" if memmem::find(x.request, br#""ReturnValues":"ALL_NEW""#).is_some() => {
            answer.attributes
        }
        _ => None,
    };
    item.filter(|item| !has_key_of(item, x.request))
        .map(|_| Flaw::OtherItem)
}

/// Returns the reason why an error response is invalid, or `None` if the response is valid. An item in an error
/// response must have the key of the request.
fn refusal_flaw(x: &Exchange<'_>) -> Option<Flaw> {
    if x.operation != "UpdateItem" {
        return None;
    }
    // An error response without valid JSON needs no check, because the SDK reports it as an error in any case.
    let answer = serde_json::from_slice::<AnswerFields<'_>>(x.answer).ok()?;
    answer
        .item
        .filter(|item| !has_key_of(item, x.request))
        .map(|_| Flaw::OtherItem)
}

/// Checks the field `ConsumedCapacity` of a response. The field is an object for one table, or a list for several
/// tables.
fn capacity_flaw(capacity: Option<&RawValue>, request: &[u8]) -> Option<Flaw> {
    let text = capacity.map_or("", RawValue::get);
    let tables = if text.starts_with('[') {
        serde_json::from_str::<Vec<Capacity<'_>>>(text)
    } else {
        serde_json::from_str(text).map(|one| vec![one])
    };
    let tables = tables.unwrap_or_default();
    if tables.is_empty() {
        return Some(Flaw::NoCapacity);
    }
    // The name of a table contains no character that must be escaped in JSON.
    let is_named = |c: &Capacity<'_>| memmem::find(request, format!("\"{}\"", c.table).as_bytes());
    let named = tables.iter().all(|c| is_named(c).is_some());
    (!named).then_some(Flaw::OtherTable)
}

/// Returns true if the item in a response has the key from the request.
fn has_key_of(item: &RawValue, request: &[u8]) -> bool {
    let item = serde_json::from_str::<HashMap<String, &RawValue>>(item.get());
    let (Ok(item), Ok(asked)) = (item, serde_json::from_slice::<Keyed>(request)) else {
        return false;
    };
    asked.key.iter().all(|(name, value)| {
        let found = item.get(name).map(|found| found.get());
        found.and_then(|found| serde_json::from_str(found).ok()) == Some(value.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = r#"{"TableName":"t","Key":{"shard":{"S":"config"},"series":{"S":"tables"}},"ReturnConsumedCapacity":"TOTAL"}"#;
    const UNITS: &str = r#""ConsumedCapacity":{"TableName":"t","CapacityUnits":1.0}"#;

    fn flaw(operation: &str, request: &str, status: u16, answer: &str) -> Option<Flaw> {
        let right = crc32fast::hash(answer.as_bytes()).to_string();
        let without = Exchange {
            operation,
            request: request.as_bytes(),
            status,
            checksum: None,
            answer: answer.as_bytes(),
        };
        let found = find_answer_flaw(&without);
        for (checksum, want) in [
            (&*right, found),
            ("1", Some(Flaw::Checksum)),
            ("no number", Some(Flaw::Checksum)),
        ] {
            let with = Exchange {
                checksum: Some(checksum),
                ..without
            };
            assert_eq!(find_answer_flaw(&with), want, "{answer}");
        }
        found
    }

    #[test]
    fn a_success_is_an_object_without_an_error_and_with_the_requested_capacity() {
        let table = [
            ("", Some(Flaw::Empty)),
            ("{", Some(Flaw::NotJson)),
            ("[]", Some(Flaw::NotJson)),
            ("null", Some(Flaw::NotJson)),
            ("<html>", Some(Flaw::NotJson)),
            (
                r#"{"__type":"x#InternalServerError"}"#,
                Some(Flaw::ErrorInside),
            ),
            ("{}", Some(Flaw::NoCapacity)),
            (r#"{"ConsumedCapacity":null}"#, Some(Flaw::NoCapacity)),
            (r#"{"ConsumedCapacity":[]}"#, Some(Flaw::NoCapacity)),
            (r#"{"ConsumedCapacity":7}"#, Some(Flaw::NoCapacity)),
            (
                r#"{"ConsumedCapacity":{"TableName":"T"}}"#,
                Some(Flaw::OtherTable),
            ),
            (
                r#"{"ConsumedCapacity":[{"TableName":"t"},{"TableName":"u"}]}"#,
                Some(Flaw::OtherTable),
            ),
            (&format!("{{{UNITS}}}"), None),
            (r#"{"ConsumedCapacity":[{"TableName":"t"}]}"#, None),
        ];
        for (answer, want) in table {
            assert_eq!(flaw("GetItem", GET, 200, answer), want, "{answer}");
        }
        assert_eq!(
            flaw("DescribeTable", r#"{"TableName":"t"}"#, 200, "{}"),
            None
        );
        assert_eq!(flaw("TagResource", "{}", 200, ""), None);
        assert_eq!(flaw("UpdateItem", GET, 500, ""), None);
        assert_eq!(flaw("UpdateItem", GET, 400, "<html>"), None);
    }

    #[test]
    fn an_item_has_the_key_of_the_request() {
        let update = GET.replace('}', r#","ReturnValues":"ALL_NEW"}"#);
        let update = update.replacen(r#","ReturnValues":"ALL_NEW"}"#, "}", 3);
        for (item, want) in [
            (
                r#"{"shard":{"S":"config"},"series":{"S":"tables"},"x":{"N":"1"}}"#,
                None,
            ),
            (
                r#"{"series":{"S":"tables"},"shard":{"S":"confi\u0067"}}"#,
                None,
            ),
            (r#"{"shard":{"S":"config"}}"#, Some(Flaw::OtherItem)),
            (
                r#"{"shard":{"S":"config"},"series":{"S":"T#0"}}"#,
                Some(Flaw::OtherItem),
            ),
            (
                r#"{"shard":{"S":"config"},"series":{"N":"7"}}"#,
                Some(Flaw::OtherItem),
            ),
            ("[]", Some(Flaw::OtherItem)),
        ] {
            let answer = format!("{{{UNITS},\"Item\":{item}}}");
            assert_eq!(flaw("GetItem", GET, 200, &answer), want, "{item}");
            let answer = format!("{{{UNITS},\"Attributes\":{item}}}");
            assert_eq!(flaw("UpdateItem", &update, 200, &answer), want, "{item}");
            // The request does not ask for all attributes of the item, so the client does not check the key.
            assert_eq!(flaw("UpdateItem", GET, 200, &answer), None, "{item}");
            let refusal =
                format!(r#"{{"__type":"x#ConditionalCheckFailedException","Item":{item}}}"#);
            assert_eq!(flaw("UpdateItem", GET, 400, &refusal), want, "{item}");
        }
    }

    #[test]
    fn each_invalid_record_has_its_own_reason() {
        let flaws = [
            Flaw::Checksum,
            Flaw::Empty,
            Flaw::NotJson,
            Flaw::ErrorInside,
            Flaw::NoCapacity,
            Flaw::OtherTable,
            Flaw::OtherItem,
            Flaw::OtherValues,
            Flaw::Unprocessed,
        ];
        let names: std::collections::BTreeSet<_> = flaws.iter().map(|flaw| flaw.name()).collect();
        assert_eq!(names.len(), flaws.len());
    }
}
