//! Which role may do what with which table: the one list.
//!
//! IAM policies are written from it, `check` tries it by calls that change nothing, and a test
//! compares it with what the roles really ask for. Least privilege: what no role of a kind calls is
//! not in its list, and no role that counts or answers may scan, delete or change a table.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeValue, DeleteRequest, KeysAndAttributes, ReturnConsumedCapacity, WriteRequest,
};
use serde_json::{Value, json};

use crate::core::keys::{
    AGGREGATIONS, ALERTS, CITY_INDEX, RAW, SERIES_INDEX, SEVERITY_INDEX, TOTALS, TableNames,
};
use crate::store::error::{Kind, StoreError};
use crate::store::tables::{TableSpec, specs};

/// A key that no event, row or item ever has.
const NO_KEY: &str = "citystream#check";

/// What somebody does with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// `init-tables`
    InitTables,
    /// `consume`
    Consume,
    /// `serve`
    Serve,
    /// `verify`
    Verify,
}

/// One operation on one table or its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Place of the table in [`crate::core::keys::TABLES`].
    pub table: usize,
    /// DynamoDB's name of the operation.
    pub operation: &'static str,
    /// The index, if the operation is on it and not on the table.
    pub index: Option<&'static str>,
}

const fn on(table: usize, operation: &'static str) -> Grant {
    Grant {
        table,
        operation,
        index: None,
    }
}

const fn on_index(table: usize, index: &'static str) -> Grant {
    Grant {
        table,
        operation: "Query",
        index: Some(index),
    }
}

/// What `consume` does.
const CONSUME: [Grant; 5] = [
    on(RAW, "BatchWriteItem"),
    on(ALERTS, "BatchWriteItem"),
    on(AGGREGATIONS, "UpdateItem"),
    on(TOTALS, "GetItem"),
    on(TOTALS, "UpdateItem"),
];

/// What `serve` does. It writes nothing.
const SERVE: [Grant; 7] = [
    on_index(RAW, CITY_INDEX),
    on_index(AGGREGATIONS, SERIES_INDEX),
    on(AGGREGATIONS, "BatchGetItem"),
    on(ALERTS, "Query"),
    on_index(ALERTS, SEVERITY_INDEX),
    on(TOTALS, "GetItem"),
    on(TOTALS, "Query"),
];

/// What `verify` does: it reads all four, and when the raw events' table was made.
const VERIFY: [Grant; 10] = [
    on(RAW, "DescribeTable"),
    on(RAW, "BatchGetItem"),
    on_index(RAW, CITY_INDEX),
    on(AGGREGATIONS, "BatchGetItem"),
    on_index(AGGREGATIONS, SERIES_INDEX),
    on(ALERTS, "BatchGetItem"),
    on(ALERTS, "Query"),
    on(TOTALS, "BatchGetItem"),
    on(TOTALS, "GetItem"),
    on(TOTALS, "Query"),
];

/// What `init-tables` does with each table; Scan looks at two items where a table was lost.
const INIT_EACH: [&str; 11] = [
    "CreateTable",
    "DescribeTable",
    "UpdateTable",
    "DeleteTable",
    "DescribeTimeToLive",
    "UpdateTimeToLive",
    "DescribeContinuousBackups",
    "UpdateContinuousBackups",
    "ListTagsOfResource",
    "TagResource",
    "Scan",
];

impl User {
    /// Everybody who uses the tables.
    pub const ALL: [User; 4] = [User::InitTables, User::Consume, User::Serve, User::Verify];

    /// Returns the command's name.
    pub const fn name(self) -> &'static str {
        match self {
            User::InitTables => "init-tables",
            User::Consume => "consume",
            User::Serve => "serve",
            User::Verify => "verify",
        }
    }

    /// Returns all it may do.
    pub fn grants(self) -> Vec<Grant> {
        match self {
            User::Consume => CONSUME.to_vec(),
            User::Serve => SERVE.to_vec(),
            User::Verify => VERIFY.to_vec(),
            User::InitTables => {
                let each = |table| INIT_EACH.map(|operation| on(table, operation));
                let mut out: Vec<Grant> = (RAW..=TOTALS).flat_map(each).collect();
                out.extend(["GetItem", "PutItem", "UpdateItem"].map(|o| on(TOTALS, o)));
                out
            }
        }
    }
}

/// Returns an IAM policy document that allows `user` what it does, and nothing else.
///
/// `arn_prefix` is `arn:<partition>:dynamodb:<region>:<account>:table/`; stars stand for what is not
/// known.
pub fn policy(user: User, names: &TableNames, arn_prefix: &str) -> Value {
    let mut by_resource: Vec<(String, Vec<&str>)> = Vec::new();
    let mut grants = user.grants();
    grants.sort_unstable();
    for grant in grants {
        let table = names.all()[grant.table];
        let resource = match grant.index {
            None => format!("{arn_prefix}{table}"),
            Some(index) => format!("{arn_prefix}{table}/index/{index}"),
        };
        match by_resource.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, operations)) => operations.push(grant.operation),
            None => by_resource.push((resource, vec![grant.operation])),
        }
    }
    let statements: Vec<Value> = by_resource
        .into_iter()
        .map(|(resource, operations)| {
            let actions: Vec<String> = operations.iter().map(|o| format!("dynamodb:{o}")).collect();
            json!({"Effect": "Allow", "Action": actions, "Resource": resource})
        })
        .collect();
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// Tries one grant by a call that changes nothing: it asks for a key that nobody has, or writes under
/// a condition that cannot hold.
///
/// # Errors
/// What DynamoDB answers; [`Kind::Denied`] where the right is missing.
pub async fn try_grant(
    client: &Client,
    names: &TableNames,
    grant: Grant,
) -> Result<(), StoreError> {
    let spec = &specs(names)[grant.table];
    let table = spec.name.as_str();
    // An answer without it is not believed.
    let units = ReturnConsumedCapacity::Total;
    let answer = match grant.operation {
        "GetItem" => {
            let request = client
                .get_item()
                .table_name(table)
                .set_key(Some(no_key(spec)))
                .return_consumed_capacity(units);
            report(grant.operation, table, request.send().await)
        }
        "BatchGetItem" => {
            let keys = KeysAndAttributes::builder().keys(no_key(spec)).build();
            let keys = keys.expect("a key is set");
            let request = client
                .batch_get_item()
                .request_items(table, keys)
                .return_consumed_capacity(units);
            report(grant.operation, table, request.send().await)
        }
        "Query" => {
            let keys = match (grant.index, &spec.index) {
                (Some(_), Some(index)) => index.keys,
                _ => spec.keys,
            };
            let request = client
                .query()
                .table_name(table)
                .set_index_name(grant.index.map(str::to_owned))
                .key_condition_expression("#k = :k")
                .expression_attribute_names("#k", keys.0)
                .expression_attribute_values(":k", AttributeValue::S(NO_KEY.to_owned()))
                .limit(1)
                .return_consumed_capacity(units);
            report(grant.operation, table, request.send().await)
        }
        "BatchWriteItem" => {
            // Removing what is not there is the one batch that changes nothing.
            let delete = DeleteRequest::builder().set_key(Some(no_key(spec))).build();
            let delete = delete.expect("a key is set");
            let write = WriteRequest::builder().delete_request(delete).build();
            let request = client
                .batch_write_item()
                .request_items(table, vec![write])
                .return_consumed_capacity(units);
            report(grant.operation, table, request.send().await)
        }
        "PutItem" => {
            let request = client
                .put_item()
                .table_name(table)
                .set_item(Some(no_key(spec)))
                .condition_expression(NEVER)
                .expression_attribute_names("#k", spec.keys.0)
                .return_consumed_capacity(units);
            report(grant.operation, table, request.send().await)
        }
        "UpdateItem" => {
            let request = client
                .update_item()
                .table_name(table)
                .set_key(Some(no_key(spec)))
                .update_expression("SET #n = :n")
                .condition_expression(NEVER)
                .expression_attribute_names("#k", spec.keys.0)
                .expression_attribute_names("#n", "never")
                .expression_attribute_values(":n", AttributeValue::N("0".to_owned()))
                .return_consumed_capacity(units);
            report(grant.operation, table, request.send().await)
        }
        // Operations on tables as a whole cannot be tried without a change.
        _ => Ok(()),
    };
    match answer {
        Err(error) if error.kind() == Kind::Conflict => Ok(()),
        other => other,
    }
}

/// Asks whether a table takes what `consume` writes, by a write that changes nothing.
///
/// # Errors
/// What DynamoDB answers; [`Kind::NotFound`] where the table is missing.
pub async fn try_write(
    client: &Client,
    names: &TableNames,
    table: usize,
) -> Result<(), StoreError> {
    let writes = |grant: &&Grant| grant.table == table && grant.operation != "GetItem";
    let grant = CONSUME.iter().find(writes).expect("it writes to each");
    try_grant(client, names, *grant).await
}

/// A condition that no item meets.
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

fn no_key(spec: &TableSpec) -> HashMap<String, AttributeValue> {
    let value = || AttributeValue::S(NO_KEY.to_owned());
    let mut out = HashMap::from([(spec.keys.0.to_owned(), value())]);
    if let Some(sort) = spec.keys.1 {
        out.insert(sort.to_owned(), value());
    }
    out
}

fn report<T, E>(
    operation: &'static str,
    table: &str,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<(), StoreError>
where
    E: ProvideErrorMetadata
        + Into<aws_sdk_dynamodb::Error>
        + std::error::Error
        + Send
        + Sync
        + 'static,
{
    match answer {
        Ok(_) => Ok(()),
        Err(error) => Err(StoreError::from_sdk(operation, table, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_init_tables_may_change_or_scan_a_table() {
        for user in [User::Consume, User::Serve, User::Verify] {
            for grant in user.grants() {
                let operation = grant.operation;
                let changes = operation.contains("Table") && operation != "DescribeTable";
                assert!(!changes && operation != "Scan", "{grant:?}");
                let writes = ["Put", "Update", "Delete", "BatchWrite"];
                let writes = writes.iter().any(|w| operation.starts_with(w));
                assert!(!writes || user == User::Consume, "{grant:?}");
            }
        }
    }

    #[test]
    fn a_policy_names_tables_and_indexes_one_by_one() {
        let names = TableNames::new("x");
        let text = policy(User::Serve, &names, "arn:aws:dynamodb:*:*:table/").to_string();
        for part in [
            r#""Resource":"arn:aws:dynamodb:*:*:table/x-raw-events/index/city-timestamp-index""#,
            r#"{"Action":["dynamodb:GetItem","dynamodb:Query"],"Effect":"Allow","Resource":"arn:aws:dynamodb:*:*:table/x-totals"}"#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(
            !text.contains("x-raw-events\""),
            "raw is read by its index alone"
        );
    }

    #[cfg(feature = "dev")]
    #[tokio::test]
    async fn trying_a_right_changes_nothing() {
        let db = dynoxide::Database::memory().unwrap();
        let client = crate::store::embedded::client(db).await.unwrap();
        let names = TableNames::new("citystream");
        for spec in specs(&names) {
            crate::store::tables::create(&client, &spec).await.unwrap();
        }
        for user in User::ALL {
            for grant in user.grants() {
                try_grant(&client, &names, grant)
                    .await
                    .unwrap_or_else(|e| panic!("{grant:?}: {e}"));
            }
        }
        for name in names.all() {
            assert!(
                !crate::store::tables::holds_data(&client, name)
                    .await
                    .unwrap()
            );
        }
    }
}
