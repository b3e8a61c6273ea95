//! Tests of the JSON bodies of requests to DynamoDB.

use std::collections::BTreeMap;

use super::*;
use crate::core::clock::UnixMs;
use crate::core::event::{Event, Offset};
use crate::core::plan::RowKey;
use crate::core::restart::Boundary;
use crate::core::stretch::Sum;
use crate::core::watermark::MaxTime;
use serde_json::{Value, json};

fn options() -> ItemOptions {
    ItemOptions {
        shards: 4,
        raw_ttl_ms: 86_400_000,
        alert_ttl_ms: None,
        window_ms: 300_000,
    }
}

fn value(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("valid JSON")
}

#[test]
fn items_have_the_documented_shape() {
    let event = Event {
        city: "São \"P\"".into(),
        event_type: "traffic".into(),
        severity: Severity::High,
        time_ms: UnixMs(1_357_020_000_000),
        description: "".into(),
        event_id: None,
        extra: Some("{\"a\":1.0}".into()),
    };
    let stored = StoredEvent::new(event, "city-events".into(), 0, Offset(0), true, true);
    let names = TableNames::new("citystream");
    let body = batch_body(
        &names,
        PutTable::Raw,
        [&stored].into_iter(),
        &options(),
        UnixMs(5_000),
    );
    let put = &value(&body)["RequestItems"]["citystream-raw-events"][0]["PutRequest"]["Item"];
    assert_eq!(
        *put,
        json!({
            "event_id": {"S": "city-events-0-0"}, "timestamp": {"S": "2013-01-01T06:00:00.000Z"},
            "city": {"S": "São \"P\""}, "event_type": {"S": "traffic"}, "severity": {"S": "high"},
            "description": {"S": ""}, "processing_time": {"S": "1970-01-01T00:00:05.000Z"},
            "ttl": {"N": "86405"}, "source": {"S": "city-events/0/0"},
            "city_shard": {"S": "São \"P\"#3"}, "late": {"BOOL": true}, "future": {"BOOL": true},
            "extra": {"S": "{\"a\":1.0}"},
        })
    );
    let body = batch_body(
        &names,
        PutTable::Alerts,
        [&stored].into_iter(),
        &options(),
        UnixMs(5_000),
    );
    let put = &value(&body)["RequestItems"]["citystream-alerts"][0]["PutRequest"]["Item"];
    assert_eq!(
        *put,
        json!({
            "city": {"S": "São \"P\""}, "timestamp": {"S": "2013-01-01T06:00:00.000Z#city-events-0-0"},
            "event_id": {"S": "city-events-0-0"}, "event_time": {"S": "2013-01-01T06:00:00.000Z"},
            "event_type": {"S": "traffic"}, "severity": {"S": "high"}, "description": {"S": ""},
            "processing_time": {"S": "1970-01-01T00:00:05.000Z"}, "severity_shard": {"S": "high#3"},
            "late": {"BOOL": true},
        })
    );
    let expiring = ItemOptions {
        alert_ttl_ms: Some(60_000),
        ..options()
    };
    let (table, alert) = (PutTable::Alerts, [&stored].into_iter());
    let body = value(&batch_body(&names, table, alert, &expiring, UnixMs(5_000)));
    let mut with_ttl = put.clone();
    with_ttl["ttl"] = json!({"N": "65"});
    assert_eq!(
        body["RequestItems"]["citystream-alerts"][0]["PutRequest"]["Item"],
        with_ttl
    );
}

#[test]
fn an_update_carries_its_fence() {
    let update = |window_start_ms| RowUpdate {
        partition: 3,
        assignment: 1,
        row_id: 0,
        row: RowKey {
            series: "NYC#traffic".into(),
            window_start_ms,
        },
        log_key: "T#3".into(),
        first: Offset(7),
        next: Offset(12),
        sum: Sum {
            event_count: 3,
            late_count: 1,
            severities: [1, 0, 2, 0],
        },
    };
    let names = TableNames::new("citystream");
    let (table, body) = update_body(
        &names,
        &update(Some(UnixMs(1_357_020_000_000))),
        &options(),
        UnixMs(0),
    );
    assert_eq!(table, "citystream-aggregations");
    let v = value(&body);
    assert_eq!(
        v["Key"],
        json!({"partition_key": {"S": "NYC#traffic#2013-01-01T06:00:00Z"}})
    );
    assert_eq!(
        v["ConditionExpression"],
        "attribute_not_exists(#f) OR #f <= :first"
    );
    assert_eq!(v["ExpressionAttributeNames"]["#f"], "next#T#3");
    assert_eq!(v["ExpressionAttributeValues"][":next"], json!({"N": "12"}));
    assert_eq!(
        v["ExpressionAttributeValues"][":set"],
        json!({"SS": ["low", "high"]})
    );
    assert_eq!(
        v["ExpressionAttributeValues"][":we"],
        json!({"S": "2013-01-01T06:05:00Z"})
    );
    let (table, body) = update_body(&names, &update(None), &options(), UnixMs(0));
    assert_eq!(table, "citystream-totals");
    let v = value(&body);
    assert_eq!(
        v["Key"],
        json!({"shard": {"S": "totals#14"}, "series": {"S": "NYC#traffic"}})
    );
    assert_eq!(v["ExpressionAttributeValues"][":l"], json!({"N": "1"}));
    assert_eq!(v["ExpressionAttributeNames"]["#ci"], "city");
    assert_eq!(v["ExpressionAttributeValues"][":ci"], json!({"S": "NYC"}));
    assert_eq!(
        v["ExpressionAttributeValues"][":ty"],
        json!({"S": "traffic"})
    );
}

#[test]
fn a_progress_item_is_created_once_and_moves_forward_only() {
    let mut publish = Publish {
        partition: 0,
        assignment: 1,
        log_key: "T#0".into(),
        tables_id: "D".into(),
        boundary: Boundary {
            next: Offset(4),
            max: MaxTime::default(),
            sums: None,
        },
        watermark_ms: None,
    };
    let names = TableNames::new("citystream");
    let v = value(&progress_body(&names, &publish, true));
    assert_eq!(
        v["Key"],
        json!({"shard": {"S": "progress"}, "series": {"S": "T#0"}})
    );
    assert_eq!(
        v["UpdateExpression"],
        "SET #n = :next REMOVE #a0, #a1, #a2, #a3, #a4, #a5, #a6, #a7, #a8"
    );
    assert_eq!(v["ConditionExpression"], "attribute_not_exists(#n)");
    assert_eq!(v["ExpressionAttributeValues"], json!({":next": {"N": "4"}}));
    publish.boundary.max = MaxTime::new(Some(UnixMs(9)));
    publish.watermark_ms = Some(UnixMs(-5));
    publish.boundary.sums = Sum::checked([2, 1, 3, 0, 0, 0]);
    let v = value(&progress_body(&names, &publish, false));
    assert_eq!(
        v["UpdateExpression"],
        "SET #n = :next, #a0 = :a0, #a1 = :a1, #a2 = :a2, #a3 = :a3, #a4 = :a4, #a5 = :a5, \
         #a6 = :a6, #a7 = :a7, #a8 = :a8"
    );
    assert_eq!(v["ConditionExpression"], "#n < :next");
    let named = v["ExpressionAttributeNames"].as_object().unwrap();
    let written: BTreeMap<&str, &str> = named
        .iter()
        .filter(|(alias, _)| *alias != "#n")
        .map(|(alias, name)| {
            let value = &v["ExpressionAttributeValues"][alias.replace('#', ":")];
            (name.as_str().unwrap(), value["N"].as_str().unwrap())
        })
        .collect();
    let want = [
        ("max", "9"),
        ("watermark", "-5"),
        ("sums_next", "4"),
        ("event_count", "2"),
        ("late_count", "1"),
        ("severity_low", "3"),
        ("severity_medium", "0"),
        ("severity_high", "0"),
        ("severity_critical", "0"),
    ];
    assert_eq!(written, BTreeMap::from(want));
}
