//! The only list of which role may do what with which table.
//!
//! IAM policies are generated from it. `check` tries each right by a call that changes nothing, and a
//! test compares the list with the requests that the roles really send. A role has no right that it
//! does not use: `consume`, `serve` and `verify` may not scan, delete or change a table.

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
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::tables::{TableSpec, specs};

/// A key that no item has.
const NO_KEY: &str = "citystream#check";

/// A role that uses the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableUser {
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
    /// Index of the table in [`crate::core::keys::TABLES`].
    pub table: usize,
    /// DynamoDB's name of the operation.
    pub operation: &'static str,
    /// The index, if the operation is on an index and not on the table.
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

/// What `verify` does. It reads all four tables, and when the table of raw events was created.
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

/// What `init-tables` does with each table. It scans two items if another table is missing.
const INIT_EACH: [&str; 9] = [
    "CreateTable",
    "DescribeTable",
    "UpdateTable",
    "DeleteTable",
    "DescribeContinuousBackups",
    "UpdateContinuousBackups",
    "ListTagsOfResource",
    "TagResource",
    "Scan",
];

/// What `init-tables` does with each table whose items may expire.
const INIT_EXPIRING: [&str; 2] = ["DescribeTimeToLive", "UpdateTimeToLive"];

/// Tables whose items may expire.
const EXPIRING: [usize; 2] = [RAW, ALERTS];

/// What `init-tables` does with the config item.
const INIT_CONFIG: [&str; 3] = ["GetItem", "PutItem", "UpdateItem"];

/// Returns what `init-tables` does if a template has created the tables: it checks them, and writes the
/// config item.
pub fn grants_after_template() -> Vec<Grant> {
    let each = |table| ["DescribeTable", "Scan"].map(|operation| on(table, operation));
    let mut out: Vec<Grant> = (RAW..=TOTALS).flat_map(each).collect();
    out.extend(EXPIRING.map(|table| on(table, "DescribeTimeToLive")));
    out.extend(INIT_CONFIG.map(|operation| on(TOTALS, operation)));
    out
}

impl TableUser {
    /// Every role that uses the tables.
    pub const ALL: [TableUser; 4] = [
        TableUser::InitTables,
        TableUser::Consume,
        TableUser::Serve,
        TableUser::Verify,
    ];

    /// Returns the command's name.
    pub const fn name(self) -> &'static str {
        match self {
            TableUser::InitTables => "init-tables",
            TableUser::Consume => "consume",
            TableUser::Serve => "serve",
            TableUser::Verify => "verify",
        }
    }

    /// Returns everything that the role may do.
    pub fn grants(self) -> Vec<Grant> {
        match self {
            TableUser::Consume => CONSUME.to_vec(),
            TableUser::Serve => SERVE.to_vec(),
            TableUser::Verify => VERIFY.to_vec(),
            TableUser::InitTables => {
                let each = |table| INIT_EACH.map(|operation| on(table, operation));
                let mut out: Vec<Grant> = (RAW..=TOTALS).flat_map(each).collect();
                let expiring = |table| INIT_EXPIRING.map(|operation| on(table, operation));
                out.extend(EXPIRING.into_iter().flat_map(expiring));
                out.extend(INIT_CONFIG.map(|operation| on(TOTALS, operation)));
                out
            }
        }
    }
}

/// Returns an IAM policy document that allows what `user` does, and nothing else.
///
/// `arn_prefix` is `arn:<partition>:dynamodb:<region>:<account>:table/`. A part that is not known may
/// be a `*`.
pub fn policy(user: TableUser, names: &TableNames, arn_prefix: &str) -> Value {
    policy_of(user.grants(), names, arn_prefix)
}

/// Returns the partition of AWS that a Region belongs to, as ARNs name it.
///
/// Source: "Amazon Resource Names" and the endpoint rules of AWS's SDKs.
pub fn partition(region: &str) -> &'static str {
    [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ]
    .into_iter()
    .find_map(|(start, partition)| region.starts_with(start).then_some(partition))
    .unwrap_or("aws")
}

/// As [`policy`], for a list of grants.
pub fn policy_of(mut grants: Vec<Grant>, names: &TableNames, arn_prefix: &str) -> Value {
    let mut by_resource: Vec<(String, Vec<&str>)> = Vec::new();
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

/// Tries a grant by a call that changes nothing: it reads a key that no item has, or writes under a
/// condition that cannot hold.
///
/// # Errors
/// What DynamoDB answers; [`StoreErrorKind::Denied`] if the right is missing.
pub async fn try_grant(
    client: &Client,
    names: &TableNames,
    grant: Grant,
) -> Result<(), StoreError> {
    let spec = &specs(names)[grant.table];
    let table = spec.name.as_str();
    // An answer without its capacity has a flaw.
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
        "BatchWriteItem" | "PutItem" | "UpdateItem" => {
            try_write_request(client, grant.operation, spec).await
        }
        // An operation on a whole table cannot be tried without a change.
        _ => Ok(()),
    };
    match answer {
        Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(()),
        other => other,
    }
}

/// Sends a write that changes nothing.
async fn try_write_request(
    client: &Client,
    operation: &'static str,
    spec: &TableSpec,
) -> Result<(), StoreError> {
    let table = spec.name.as_str();
    let units = ReturnConsumedCapacity::Total;
    match operation {
        "BatchWriteItem" => {
            // The only batch that changes nothing deletes an item that does not exist.
            let delete = DeleteRequest::builder().set_key(Some(no_key(spec))).build();
            let delete = delete.expect("a key is set");
            let write = WriteRequest::builder().delete_request(delete).build();
            let request = client
                .batch_write_item()
                .request_items(table, vec![write])
                .return_consumed_capacity(units);
            report(operation, table, request.send().await)
        }
        "PutItem" => {
            let request = client
                .put_item()
                .table_name(table)
                .set_item(Some(no_key(spec)))
                .condition_expression(NEVER)
                .expression_attribute_names("#k", spec.keys.0)
                .return_consumed_capacity(units);
            report(operation, table, request.send().await)
        }
        _ => {
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
            report(operation, table, request.send().await)
        }
    }
}

/// Checks that a table accepts the writes of `consume`, by a write that changes nothing.
///
/// # Errors
/// What DynamoDB answers; [`StoreErrorKind::NotFound`] if the table is missing.
pub async fn try_write(
    client: &Client,
    names: &TableNames,
    table: usize,
) -> Result<(), StoreError> {
    let writes = |grant: &&Grant| grant.table == table && grant.operation != "GetItem";
    let grant = CONSUME
        .iter()
        .find(writes)
        .expect("it writes to each table");
    try_grant(client, names, *grant).await
}

/// A condition that no item fulfils.
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
        for user in [TableUser::Consume, TableUser::Serve, TableUser::Verify] {
            for grant in user.grants() {
                let operation = grant.operation;
                let changes = operation.contains("Table") && operation != "DescribeTable";
                assert!(!changes && operation != "Scan", "{grant:?}");
                let writes = ["Put", "Update", "Delete", "BatchWrite"];
                let writes = writes.iter().any(|w| operation.starts_with(w));
                assert!(!writes || user == TableUser::Consume, "{grant:?}");
            }
        }
    }

    #[test]
    fn init_tables_may_change_the_ttl_of_expiring_tables_alone() {
        for grant in TableUser::InitTables.grants() {
            let is_ttl = grant.operation.ends_with("TimeToLive");
            assert!(!is_ttl || EXPIRING.contains(&grant.table), "{grant:?}");
        }
        let all = TableUser::InitTables.grants();
        assert!(
            grants_after_template()
                .iter()
                .all(|grant| all.contains(grant))
        );
    }

    #[test]
    fn an_arn_names_the_regions_partition() {
        for (region, wanted) in [
            ("eu-west-1", "aws"),
            ("us-east-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eusc-de-east-1", "aws-eusc"),
            ("", "aws"),
        ] {
            assert_eq!(partition(region), wanted, "{region}");
        }
    }

    #[test]
    fn a_policy_names_tables_and_indexes_one_by_one() {
        let names = TableNames::new("x");
        let text = policy(TableUser::Serve, &names, "arn:aws:dynamodb:*:*:table/").to_string();
        for part in [
            r#""Resource":"arn:aws:dynamodb:*:*:table/x-raw-events/index/city-timestamp-index""#,
            r#"{"Action":["dynamodb:GetItem","dynamodb:Query"],"Effect":"Allow","Resource":"arn:aws:dynamodb:*:*:table/x-totals"}"#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(
            !text.contains("x-raw-events\""),
            "serve reads raw events only through the index"
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
        for user in TableUser::ALL {
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
