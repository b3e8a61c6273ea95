//! Helpers for DynamoDB: whole tables as text, and changes of single items.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};

use crate::services::Services;

/// An item: attribute → text.
pub(crate) type Row = BTreeMap<String, String>;
/// A table: key → item.
pub(crate) type Rows = BTreeMap<(String, String), Row>;

/// Table suffix, partition key, sort key.
pub(crate) const KEYS: [(&str, &str, &str); 4] = [
    ("raw-events", "event_id", "timestamp"),
    ("aggregations", "partition_key", ""),
    ("alerts", "city", "timestamp"),
    ("totals", "shard", "series"),
];
/// Attributes that depend on when a row was written. Tests compare only their presence.
pub(crate) const WRITTEN: [&str; 3] = ["processing_time", "ttl", "last_updated"];
/// Replaces the values of these attributes.
pub(crate) const PRESENT: &str = "(present)";

fn text(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.clone(),
        AttributeValue::Bool(value) => value.to_string(),
        AttributeValue::Ss(set) => {
            let set: BTreeSet<&str> = set.iter().map(String::as_str).collect();
            set.into_iter().collect::<Vec<_>>().join(" ")
        }
        AttributeValue::B(bytes) => format!("{:?}", bytes.as_ref()),
        AttributeValue::M(map) => {
            let map: BTreeMap<_, _> = map
                .iter()
                .map(|(name, value)| (name, text(value)))
                .collect();
            format!("{map:?}")
        }
        other => panic!("an attribute of a foreign type: {other:?}"),
    }
}

/// Reads a whole table, fences included.
pub(crate) fn scan(services: &Services, prefix: &str, suffix: &str) -> Rows {
    let (_, pk, sk) = KEYS.into_iter().find(|(s, ..)| *s == suffix).unwrap();
    let client = services.dynamodb();
    services.block_on(async {
        let (mut rows, mut start) = (Rows::new(), None);
        loop {
            let page = client
                .scan()
                .table_name(format!("{prefix}-{suffix}"))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .send()
                .await
                .unwrap();
            for item in page.items() {
                let row: Row = item.iter().map(|(n, v)| (n.clone(), text(v))).collect();
                let key = (row[pk].clone(), row.get(sk).cloned().unwrap_or_default());
                assert!(rows.insert(key, row).is_none());
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return rows;
            }
        }
    })
}

/// Reads the rows that the log decides, without fences, config item and progress items.
pub(crate) fn counted(services: &Services, prefix: &str, suffix: &str) -> Rows {
    let mut rows = scan(services, prefix, suffix);
    rows.retain(|(pk, _), _| suffix != "totals" || pk.starts_with("totals#"));
    for row in rows.values_mut() {
        row.retain(|name, _| !name.starts_with("next#") && !name.starts_with("first#"));
        for name in WRITTEN {
            row.entry(name.to_owned())
                .and_modify(|v| *v = PRESENT.to_owned());
        }
    }
    rows
}

/// Returns the config item.
pub(crate) fn config(services: &Services, prefix: &str) -> Row {
    let key = ("config".to_owned(), "tables".to_owned());
    scan(services, prefix, "totals").remove(&key).unwrap()
}

/// Returns the progress items by `<topic id>#<partition>`.
pub(crate) fn progress(services: &Services, prefix: &str) -> BTreeMap<String, Row> {
    let rows = scan(services, prefix, "totals").into_iter();
    rows.filter(|((pk, _), _)| pk == "progress")
        .map(|((_, sk), row)| (sk, row))
        .collect()
}

/// Deletes the progress items.
pub(crate) fn delete_progress(services: &Services, prefix: &str) {
    let client = services.dynamodb();
    for series in progress(services, prefix).into_keys() {
        let delete = client
            .delete_item()
            .table_name(format!("{prefix}-totals"))
            .key("shard", AttributeValue::S("progress".to_owned()))
            .key("series", AttributeValue::S(series));
        services.block_on(delete.send()).unwrap();
    }
}

/// Creates a table with one partition key, which no version of the program does.
pub(crate) fn make_foreign(services: &Services, name: &str, pk: &str) {
    let attribute = AttributeDefinition::builder()
        .attribute_name(pk)
        .attribute_type(ScalarAttributeType::N);
    let key = KeySchemaElement::builder()
        .attribute_name(pk)
        .key_type(KeyType::Hash);
    let create = services
        .dynamodb()
        .create_table()
        .table_name(name)
        .attribute_definitions(attribute.build().unwrap())
        .key_schema(key.build().unwrap())
        .billing_mode(BillingMode::PayPerRequest);
    services.block_on(create.send()).unwrap();
}

/// Returns the names of all tables with a prefix.
pub(crate) fn names(services: &Services, prefix: &str) -> Vec<String> {
    let pages = services.dynamodb().list_tables().into_paginator();
    let all: Result<Vec<String>, _> = services.block_on(pages.items().send().collect());
    let all = all.unwrap().into_iter();
    all.filter(|name| name.starts_with(&format!("{prefix}-")))
        .collect()
}

type Item = std::collections::HashMap<String, AttributeValue>;

/// Returns the items of all tables with a prefix, by table.
pub(crate) fn backup(services: &Services, prefix: &str) -> Vec<(String, Vec<Item>)> {
    let client = services.dynamodb();
    let tables = KEYS.map(|(suffix, ..)| format!("{prefix}-{suffix}"));
    let items = |table: String| {
        let pages = client
            .scan()
            .table_name(&table)
            .consistent_read(true)
            .into_paginator();
        let items: Result<Vec<Item>, _> = services.block_on(pages.items().send().collect());
        (table, items.unwrap())
    };
    tables.into_iter().map(items).collect()
}

/// Puts the items of a backup into their tables, over the existing ones.
pub(crate) fn restore(services: &Services, backup: Vec<(String, Vec<Item>)>) {
    let client = services.dynamodb();
    for (table, items) in backup {
        for item in items {
            let put = client.put_item().table_name(&table).set_item(Some(item));
            services.block_on(put.send()).unwrap();
        }
    }
}

/// Deletes one table.
pub(crate) fn drop_one(services: &Services, name: &str) {
    let delete = services.dynamodb().delete_table().table_name(name);
    services.block_on(delete.send()).unwrap();
}

/// Deletes all tables with a prefix.
pub(crate) fn drop_all(services: &Services, prefix: &str) {
    for name in names(services, prefix) {
        drop_one(services, &name);
    }
}

/// Sets an attribute of the config item.
pub(crate) fn set_config(services: &Services, prefix: &str, name: &str, value: AttributeValue) {
    let set = services
        .dynamodb()
        .update_item()
        .table_name(format!("{prefix}-totals"))
        .key("shard", AttributeValue::S("config".to_owned()))
        .key("series", AttributeValue::S("tables".to_owned()))
        .update_expression("SET #name = :value")
        .expression_attribute_names("#name", name)
        .expression_attribute_values(":value", value);
    services.block_on(set.send()).unwrap();
}

/// Deletes an item of a table and returns it.
pub(crate) fn take_one(services: &Services, prefix: &str, suffix: &str) -> Item {
    let (_, pk, sk) = KEYS.into_iter().find(|(s, ..)| *s == suffix).unwrap();
    let table = format!("{prefix}-{suffix}");
    let client = services.dynamodb();
    services.block_on(async {
        let page = client.scan().table_name(&table).limit(1).send();
        let item = page.await.unwrap().items.unwrap().remove(0);
        let key = [pk, sk].into_iter().filter(|name| !name.is_empty());
        let key = key.map(|name| (name.to_owned(), item[name].clone()));
        let delete = client.delete_item().table_name(&table);
        delete.set_key(Some(key.collect())).send().await.unwrap();
        item
    })
}

/// Puts an item into a table.
pub(crate) fn put(services: &Services, prefix: &str, suffix: &str, item: Item) {
    let put = services.dynamodb().put_item();
    let put = put.table_name(format!("{prefix}-{suffix}"));
    services.block_on(put.set_item(Some(item)).send()).unwrap();
}
