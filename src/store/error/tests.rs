//! Tests of the store's errors.

use super::*;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

/// An HTTP client that answers every request with the same status and body.
#[derive(Clone, Debug)]
struct FixedAnswer(u16, String);

impl HttpConnector for FixedAnswer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let status = StatusCode::try_from(self.0).expect("a status");
        let mut answer = HttpResponse::new(status, SdkBody::from(self.1.clone()));
        answer.headers_mut().insert("x-amzn-requestid", "R1");
        HttpConnectorFuture::ready(Ok(answer))
    }
}

fn answering(status: u16, body: &str) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(FixedAnswer(status, body.to_owned()));
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
async fn every_code_of_the_table_is_recognised_in_an_answer() {
    for (code, kind) in CODES {
        let status = match kind {
            StoreErrorKind::Unknown => 500,
            _ => 400,
        };
        let body =
            format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"why"}}"#);
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
fn each_code_is_listed_once() {
    for (n, (code, _)) in CODES.iter().enumerate() {
        assert!(!CODES[..n].iter().any(|(other, _)| other == code), "{code}");
    }
}

#[tokio::test]
async fn an_unforeseen_answer_costs_no_data() {
    for (status, body, kind) in [
        (
            400,
            r#"{"__type":"x#KmsKeyGoneException"}"#,
            StoreErrorKind::Denied,
        ),
        (403, "<html>proxy</html>", StoreErrorKind::Denied),
        (429, "{}", StoreErrorKind::Throttled),
        (500, "", StoreErrorKind::Unknown),
        (502, "<html>", StoreErrorKind::Unknown),
        (503, "{}", StoreErrorKind::Unknown),
    ] {
        let error = fail(status, body).await;
        assert_eq!(error.kind(), kind, "{status} {body}: {error}");
        assert!(error.kind().is_retryable());
    }
    assert_eq!(fail(200, "not json").await.kind(), StoreErrorKind::Unknown);
}

#[tokio::test]
async fn an_error_names_the_reasons_for_throttling() {
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
