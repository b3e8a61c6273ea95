//! Runs a DynamoDB emulator inside this process for `dev` and for tests. The SDK calls the emulator directly, without a
//! port or HTTP.
//!
//! This module provides an HTTP client for the SDK. The client passes the operation and the JSON body of each request
//! to the embedded database, and returns the response of the database as JSON. The SDK signs requests, retries them,
//! and parses responses and errors exactly as it does with AWS.
//!
//! The database library also has an HTTP server, but this server accepts requests from any web page that is open in a
//! browser on the host. Therefore, the subcommand `dev` has its own HTTP server, which answers DynamoDB requests with
//! [`run`].

use aws_sdk_dynamodb::Client;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use dynoxide::{Database, DynoxideError};

use crate::store::client::{ConnectOptions, connect};
use crate::store::error::StoreError;

/// Returns an HTTP client that passes DynamoDB requests for any endpoint to the database `db`.
///
/// The client needs a Tokio runtime, because the requests run on Tokio's threads for blocking calls.
pub fn embedded(db: Database) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Embedded { db });
    http_client_fn(move |_, _| connector.clone())
}

/// Returns a DynamoDB client that sends its requests to the database `db`. The client never repeats a request.
///
/// # Errors
/// Returns [`StoreError::Settings`] in the same cases as [`connect`].
pub async fn client(db: Database) -> Result<Client, StoreError> {
    client_through(embedded(db)).await
}

/// Returns a DynamoDB client that sends its requests through the HTTP client `http`. The other settings are the same as
/// for [`client`]. `http` must pass each request to an HTTP client from [`embedded`].
///
/// # Errors
/// Returns the same errors as [`client`].
pub async fn client_through(http: SharedHttpClient) -> Result<Client, StoreError> {
    connect(ConnectOptions {
        attempts: 1,
        http: Some(http),
        endpoint_url: Some("http://embedded.invalid".to_owned()),
        test_credentials: true,
        ..ConnectOptions::default()
    })
    .await
}

struct Embedded {
    db: Database,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

impl HttpConnector for Embedded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let db = self.db.clone();
        HttpConnectorFuture::new(async move {
            // The SDK keeps the body of a JSON request in memory. `bytes` returns `None` only for a streamed body.
            let Some(body) = request.body().bytes().map(<[u8]>::to_vec) else {
                return Err(ConnectorError::user("the body is a stream".into()));
            };
            let done = tokio::task::spawn_blocking(move || run(&db, &operation, &body));
            let (status, json) = done
                .await
                .map_err(|error| ConnectorError::other(error.into(), None))?;
            let status = StatusCode::try_from(status)
                .map_err(|error| ConnectorError::other(error.into(), None))?;
            let mut answer = HttpResponse::new(status, SdkBody::from(json));
            let headers = answer.headers_mut();
            headers.insert("content-type", "application/x-amz-json-1.0");
            headers.insert("x-amzn-requestid", "embedded");
            Ok(answer)
        })
    }
}

/// Runs one DynamoDB operation. Returns the HTTP status and the JSON body of the response. The call blocks the current
/// thread.
pub fn run(db: &Database, operation: &str, body: &[u8]) -> (u16, String) {
    macro_rules! call {
        ($method:ident) => {
            serde_json::from_slice(body)
                .map_err(|error| DynoxideError::SerializationException(error.to_string()))
                .and_then(|request| db.$method(request))
                .and_then(|answer| {
                    serde_json::to_string(&answer)
                        .map_err(|error| DynoxideError::InternalServerError(error.to_string()))
                })
        };
    }
    let result = match operation {
        "BatchGetItem" => call!(batch_get_item),
        "BatchWriteItem" => call!(batch_write_item),
        "CreateTable" => call!(create_table),
        "DeleteItem" => call!(delete_item),
        "DeleteTable" => call!(delete_table),
        "DescribeTable" => call!(describe_table),
        "DescribeTimeToLive" => call!(describe_time_to_live),
        "GetItem" => call!(get_item),
        "ExecuteStatement" => call!(execute_statement),
        "ListTables" => call!(list_tables),
        "ListTagsOfResource" => call!(list_tags_of_resource),
        "PutItem" => call!(put_item),
        "Query" => call!(query),
        // Only `init-tables` and tests scan tables. `init-tables` reads at most two items of a table, and tests read
        // whole tables.
        "Scan" => call!(scan),
        "TagResource" => call!(tag_resource),
        "TransactGetItems" => call!(transact_get_items),
        "TransactWriteItems" => call!(transact_write_items),
        "UpdateItem" => call!(update_item),
        "UpdateTable" => call!(update_table),
        "UpdateTimeToLive" => call!(update_time_to_live),
        other => {
            let json = serde_json::json!({
                "__type": "com.amazonaws.dynamodb.v20120810#UnknownOperationException",
                "message": format!("the embedded database does not have {other}"),
            });
            return (400, json.to_string());
        }
    };
    match result {
        Ok(json) => (200, json),
        Err(error) => (error.status_code(), error.to_json()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
        ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
    };

    #[tokio::test]
    async fn a_failed_condition_returns_the_row() {
        let client = client(Database::memory().unwrap()).await.unwrap();
        client
            .create_table()
            .table_name("rows")
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name("k")
                    .attribute_type(ScalarAttributeType::S)
                    .build()
                    .unwrap(),
            )
            .key_schema(
                KeySchemaElement::builder()
                    .attribute_name("k")
                    .key_type(KeyType::Hash)
                    .build()
                    .unwrap(),
            )
            .send()
            .await
            .unwrap();
        let update = client
            .update_item()
            .table_name("rows")
            .key("k", AttributeValue::S("a".to_owned()))
            .update_expression("ADD #n :n")
            .condition_expression("attribute_not_exists(#n)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .expression_attribute_names("#n", "n")
            .expression_attribute_values(":n", AttributeValue::N("7".to_owned()));
        update.clone().send().await.unwrap();
        let error = update.send().await.expect_err("it exists");
        let Some(aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            panic!("{error:?}");
        };
        let row = failed.item().expect("the row");
        assert_eq!(row["n"], AttributeValue::N("7".to_owned()));
    }
}
