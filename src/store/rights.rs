//! Lists the rights of each role on each DynamoDB table.
//!
//! The program generates IAM policies from this list. `check` tests each right with a call that changes nothing. A test
//! compares the list with the requests that each role really sends, so no role has a right that it does not use. Only
//! `init-tables` has a right to scan, delete or change a table.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::types::{
    AttributeValue, DeleteRequest, KeysAndAttributes, ReturnConsumedCapacity, WriteRequest,
};
use serde_json::{Value, json};

use crate::core::keys::{
    AGGREGATIONS, ALERTS, CITY_INDEX, INCIDENTS, RAW, SERIES_INDEX, SEVERITY_INDEX, STATE_INDEX,
    TOTALS, TableNames,
};
use crate::store::error::{OperationError, StoreError, StoreErrorKind};
use crate::store::tables::{TableSpec, spec_of};

/// A key that no item in the tables has.
const NO_KEY: &str = "citystream#check";

/// A subcommand that uses the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableUser {
    /// The subcommand `init-tables`.
    InitTables,
    /// The subcommand `consume`.
    Consume,
    /// The subcommand `serve`.
    Serve,
    /// The subcommand `verify`.
    Verify,
    /// The subcommands `notify` and `silence`.
    Notify,
    /// The subcommand `tail --incidents`.
    Tail,
}

/// The right to perform one operation on one table or on its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The index of the table in [`crate::core::keys::TABLES`], or [`INCIDENTS`].
    pub table: usize,
    /// DynamoDB's name for the operation, such as `PutItem`.
    pub operation: &'static str,
    /// The name of the index, or `None` if the operation applies to the table itself.
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

/// The rights that `consume` needs in addition to [`ROLLUPS`].
const CONSUME: [Grant; 5] = [
    on(RAW, "BatchWriteItem"),
    on(ALERTS, "BatchWriteItem"),
    on(AGGREGATIONS, "UpdateItem"),
    on(TOTALS, "GetItem"),
    on(TOTALS, "UpdateItem"),
];

/// The rights that the rollup writer needs in addition to `GetItem` and `UpdateItem` on the totals table.
const ROLLUPS: [Grant; 4] = [
    on(AGGREGATIONS, "BatchGetItem"),
    on_index(AGGREGATIONS, SERIES_INDEX),
    on(TOTALS, "BatchWriteItem"),
    on(TOTALS, "Query"),
];

/// The rights of `serve`, which writes nothing. The incident table may be missing, because only `notify` needs it.
const SERVE: [Grant; 9] = [
    on_index(RAW, CITY_INDEX),
    on_index(AGGREGATIONS, SERIES_INDEX),
    on(AGGREGATIONS, "BatchGetItem"),
    on(ALERTS, "Query"),
    on_index(ALERTS, SEVERITY_INDEX),
    on(TOTALS, "GetItem"),
    on(TOTALS, "Query"),
    on(INCIDENTS, "Query"),
    on_index(INCIDENTS, STATE_INDEX),
];

/// The rights of `verify`, which reads all four tables and the creation time of the raw events table. With
/// `--incidents`, `verify` also reads the incident table.
const VERIFY: [Grant; 11] = [
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
    on(INCIDENTS, "Query"),
];

/// The rights of `tail --incidents`.
const TAIL: [Grant; 1] = [on_index(INCIDENTS, STATE_INDEX)];

/// The rights of `notify`, which also reads the rules for event times in the config item.
const NOTIFY: [Grant; 5] = [
    on(TOTALS, "GetItem"),
    on(INCIDENTS, "GetItem"),
    on(INCIDENTS, "PutItem"),
    on(INCIDENTS, "Query"),
    on(INCIDENTS, "UpdateItem"),
];

/// The operations that `init-tables` may perform on each table. `init-tables` uses `Scan` only if another table or the
/// config item is missing, and then reads at most two items.
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

/// The operations that `init-tables` may perform on each table whose items may expire.
const INIT_EXPIRING: [&str; 2] = ["DescribeTimeToLive", "UpdateTimeToLive"];

/// The tables whose items may expire.
const EXPIRING: [usize; 2] = [RAW, ALERTS];

/// The operations that `init-tables` may perform on the config item.
const INIT_CONFIG: [&str; 3] = ["GetItem", "PutItem", "UpdateItem"];

/// Returns the rights that `init-tables` needs if the CloudFormation template has created the tables. After the
/// template, `init-tables` only checks the tables, writes the config item, and rolls up hours.
pub fn grants_after_template() -> Vec<Grant> {
    let each = |table| ["DescribeTable", "Scan"].map(|operation| on(table, operation));
    let mut out: Vec<Grant> = (RAW..=TOTALS).flat_map(each).collect();
    out.extend(EXPIRING.map(|table| on(table, "DescribeTimeToLive")));
    out.push(on(INCIDENTS, "DescribeTable"));
    out.extend(INIT_CONFIG.map(|operation| on(TOTALS, operation)));
    out.extend(ROLLUPS);
    out
}

impl TableUser {
    /// All roles that use the tables.
    pub const ALL: [TableUser; 6] = [
        TableUser::InitTables,
        TableUser::Consume,
        TableUser::Serve,
        TableUser::Verify,
        TableUser::Notify,
        TableUser::Tail,
    ];

    /// Returns the name of the subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            TableUser::InitTables => "init-tables",
            TableUser::Consume => "consume",
            TableUser::Serve => "serve",
            TableUser::Verify => "verify",
            TableUser::Notify => "notify",
            TableUser::Tail => "tail",
        }
    }

    /// Returns all rights of the role.
    pub fn grants(self) -> Vec<Grant> {
        match self {
            TableUser::Consume => [&CONSUME[..], &ROLLUPS].concat(),
            TableUser::Serve => SERVE.to_vec(),
            TableUser::Verify => VERIFY.to_vec(),
            TableUser::Notify => NOTIFY.to_vec(),
            TableUser::Tail => TAIL.to_vec(),
            TableUser::InitTables => {
                let each = |table| INIT_EACH.map(|operation| on(table, operation));
                let mut out: Vec<Grant> = (RAW..=TOTALS).flat_map(each).collect();
                let expiring = |table| INIT_EXPIRING.map(|operation| on(table, operation));
                out.extend(EXPIRING.into_iter().flat_map(expiring));
                let scans = |grant: &Grant| grant.operation == "Scan";
                out.extend(each(INCIDENTS).into_iter().filter(|grant| !scans(grant)));
                out.extend(INIT_CONFIG.map(|operation| on(TOTALS, operation)));
                out.extend(ROLLUPS);
                out
            }
        }
    }
}

/// Returns an IAM policy document that contains exactly the rights that `user` needs.
///
/// `arn_prefix` is `arn:<partition>:dynamodb:<region>:<account>:table/`. Each unknown part of `arn_prefix` may be `*`.
pub fn policy(user: TableUser, names: &TableNames, arn_prefix: &str) -> Value {
    policy_of(user.grants(), names, arn_prefix)
}

/// Returns the name of a Region's AWS partition, as it appears in ARNs.
///
/// The names come from "Amazon Resource Names" in AWS's documentation and from the endpoint rules of AWS's SDKs.
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

/// Returns an IAM policy document that allows exactly the given grants.
pub fn policy_of(mut grants: Vec<Grant>, names: &TableNames, arn_prefix: &str) -> Value {
    let mut by_resource: Vec<(String, Vec<&str>)> = Vec::new();
    grants.sort_unstable();
    for grant in grants {
        let table = names.of(grant.table);
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

/// Tests a grant with a call that changes nothing. The call reads a key that no item has, or writes with a condition
/// that never holds.
///
/// # Errors
/// Returns the error from DynamoDB. The kind is [`StoreErrorKind::Denied`] if the right is missing.
pub async fn try_grant(
    client: &Client,
    names: &TableNames,
    grant: Grant,
) -> Result<(), StoreError> {
    let spec = &spec_of(names, grant.table);
    let table = spec.name.as_str();
    // The checks of responses ([`crate::store::answers`]) expect the consumed capacity, so the request must ask for it.
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
        // The function does not test rights to operations on whole tables, because a test call would change the table.
        _ => Ok(()),
    };
    match answer {
        Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(()),
        other => other,
    }
}

/// Sends a write request that changes nothing.
async fn try_write_request(
    client: &Client,
    operation: &'static str,
    spec: &TableSpec,
) -> Result<(), StoreError> {
    let table = spec.name.as_str();
    let units = ReturnConsumedCapacity::Total;
    match operation {
        "BatchWriteItem" => {
            // BatchWriteItem does not support conditions. Therefore, the request deletes an item that does not exist,
            // which changes nothing.
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

/// Sends a write that changes nothing, in order to check that a table accepts the writes of `consume`.
///
/// # Errors
/// Returns the error from DynamoDB. The kind is [`StoreErrorKind::NotFound`] if the table is missing.
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

/// A condition that no item can satisfy.
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

fn no_key(spec: &TableSpec) -> HashMap<String, AttributeValue> {
    let value = || AttributeValue::S(NO_KEY.to_owned());
    let mut out = HashMap::from([(spec.keys.0.to_owned(), value())]);
    if let Some(sort) = spec.keys.1 {
        out.insert(sort.to_owned(), value());
    }
    out
}

fn report<T, E: OperationError>(
    operation: &'static str,
    table: &str,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<(), StoreError> {
    answer
        .map(|_| ())
        .map_err(|error| StoreError::from_sdk(operation, table, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_init_tables_may_change_or_scan_a_table() {
        let readers = [TableUser::Serve, TableUser::Verify, TableUser::Tail];
        for user in readers.into_iter().chain([TableUser::Consume]) {
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
        let after_template = grants_after_template();
        assert!(after_template.iter().all(|grant| all.contains(grant)));
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
            r#"{"Action":["dynamodb:Query"],"Effect":"Allow","Resource":"arn:aws:dynamodb:*:*:table/x-incidents/index/state-opened-index"}"#,
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
        for table in RAW..=INCIDENTS {
            let spec = spec_of(&names, table);
            crate::store::tables::create(&client, &spec).await.unwrap();
        }
        for user in TableUser::ALL {
            for grant in user.grants() {
                let tried = try_grant(&client, &names, grant).await;
                assert!(tried.is_ok(), "{grant:?}: {tried:?}");
            }
        }
        for name in names.all() {
            let holds_data = crate::store::tables::holds_data(&client, name).await;
            assert!(!holds_data.unwrap(), "{name}");
        }
    }
}
