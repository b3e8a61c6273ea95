//! Request bodies: core types → the JSON that DynamoDB takes.
//!
//! Written by hand into one buffer per request: at 100,000 events a second the SDK's typed items
//! would cost half as much again as the whole rest. Shapes are the contract's (section 3); every
//! attribute name in an expression goes through `#x`, because many of ours are reserved words.

use crate::core::event::Severity;
use crate::core::keys::{self, FENCE_FIRST, FENCE_NEXT, PROGRESS_PK, SUMS, SUMS_NEXT, TableNames};
use crate::core::pipeline::Publish;
use crate::core::plan::{PutTable, RowUpdate, StoredEvent};
use crate::core::time::{format_millis, format_seconds};

/// What the items of one consumer have in common.
#[derive(Clone, Copy, Debug)]
pub struct ItemOptions {
    /// Number of shards of cities and severities.
    pub shards: u32,
    /// How long raw events are kept.
    pub raw_ttl_ms: i64,
    /// How long alerts are kept; for ever if `None`.
    pub alert_ttl_ms: Option<i64>,
    /// Length of a window.
    pub window_ms: i64,
}

/// A growing JSON document.
struct Json(Vec<u8>);

impl Json {
    fn with_capacity(bytes: usize) -> Json {
        Json(Vec::with_capacity(bytes))
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) {
        self.raw("\"");
        self.escaped(text);
        self.raw("\"");
    }

    /// The inside of a string. Most have nothing to escape, and looking at all bytes at once is
    /// several times as fast as at one after another.
    fn escaped(&mut self, text: &str) {
        let special = |b: u8| (b < 0x20) | (b == b'"') | (b == b'\\');
        if text.bytes().fold(false, |any, b| any | special(b)) {
            let quoted = serde_json::to_string(text).expect("a string is always JSON");
            self.raw(&quoted[1..quoted.len() - 1]);
        } else {
            self.raw(text);
        }
    }

    fn digits(&mut self, value: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(value));
    }

    /// `"name":{"S":"…"}`; the name must need no escape.
    fn s(&mut self, name: &str, value: &str) {
        self.open(name, "S");
        self.string(value);
        self.raw("}");
    }

    /// `"name":{"N":"…"}`
    fn n(&mut self, name: &str, value: impl itoa::Integer) {
        self.open(name, "N");
        self.raw("\"");
        self.digits(value);
        self.raw("\"}");
    }

    /// `"name":{"S":"<text>#<shard>"}`
    fn shard(&mut self, name: &str, text: &str, shard: u32) {
        self.open(name, "S");
        self.raw("\"");
        self.escaped(text);
        self.raw("#");
        self.digits(shard);
        self.raw("\"}");
    }

    fn open(&mut self, name: &str, kind: &str) {
        self.raw("\"");
        self.raw(name);
        self.raw("\":{\"");
        self.raw(kind);
        self.raw("\":");
    }
}

/// Returns the body of a BatchWriteItem that puts `events` into `table`.
pub fn batch_body<'a>(
    names: &TableNames,
    table: PutTable,
    events: impl Iterator<Item = &'a StoredEvent>,
    options: &ItemOptions,
    now_ms: i64,
) -> Vec<u8> {
    let mut j = Json::with_capacity(12 * 1024);
    j.raw("{\"ReturnConsumedCapacity\":\"TOTAL\",\"RequestItems\":{");
    j.string(table_name(names, table));
    j.raw(":[");
    let processing_time = format_millis(now_ms);
    for (n, event) in events.enumerate() {
        j.raw(if n > 0 { "," } else { "" });
        j.raw("{\"PutRequest\":{\"Item\":{");
        match table {
            PutTable::Raw => raw_item(&mut j, event, options, &processing_time, now_ms),
            PutTable::Alerts => alert_item(&mut j, event, options, &processing_time, now_ms),
        }
        j.raw("}}}");
    }
    j.raw("]}}");
    j.0
}

/// Returns the name of the table that takes these puts.
pub fn table_name(names: &TableNames, table: PutTable) -> &str {
    match table {
        PutTable::Raw => &names.raw,
        PutTable::Alerts => &names.alerts,
    }
}

fn raw_item(j: &mut Json, e: &StoredEvent, options: &ItemOptions, now: &str, now_ms: i64) {
    j.s("event_id", &e.event_id);
    j.raw(",");
    j.s("timestamp", &format_millis(e.event.time_ms));
    j.raw(",");
    j.s("city", &e.event.city);
    j.raw(",");
    fields(j, e, now);
    j.n("ttl", (now_ms + options.raw_ttl_ms).div_euclid(1_000));
    j.raw(",");
    j.open("source", "S");
    j.raw("\"");
    j.escaped(&e.topic);
    j.raw("/");
    j.digits(e.partition);
    j.raw("/");
    j.digits(e.offset.0);
    j.raw("\"},");
    j.shard("city_shard", &e.event.city, e.id_hash % options.shards);
    if e.late {
        j.raw(",\"late\":{\"BOOL\":true}");
    }
    if e.future {
        j.raw(",\"future\":{\"BOOL\":true}");
    }
    if let Some(extra) = &e.event.extra {
        j.raw(",");
        j.s("extra", extra);
    }
}

fn alert_item(j: &mut Json, e: &StoredEvent, options: &ItemOptions, now: &str, now_ms: i64) {
    j.s("city", &e.event.city);
    j.raw(",");
    j.s("timestamp", &keys::alert_sk(e.event.time_ms, &e.event_id));
    j.raw(",");
    j.s("event_id", &e.event_id);
    j.raw(",");
    j.s("event_time", &format_millis(e.event.time_ms));
    j.raw(",");
    fields(j, e, now);
    if let Some(ttl_ms) = options.alert_ttl_ms {
        j.n("ttl", (now_ms + ttl_ms).div_euclid(1_000));
        j.raw(",");
    }
    let severity = e.event.severity.name();
    j.shard("severity_shard", severity, e.id_hash % options.shards);
    if e.late {
        j.raw(",\"late\":{\"BOOL\":true}");
    }
}

/// What raw events and alerts share; ends with a comma.
fn fields(j: &mut Json, e: &StoredEvent, now: &str) {
    j.s("event_type", &e.event.event_type);
    j.raw(",");
    j.s("severity", e.event.severity.name());
    j.raw(",");
    j.s("description", &e.event.description);
    j.raw(",");
    j.s("processing_time", now);
    j.raw(",");
}

/// Returns the table and the body of the UpdateItem for one row.
///
/// Condition and fence: see [`crate::core::stretch`].
pub fn update_body<'a>(
    names: &'a TableNames,
    update: &RowUpdate,
    options: &ItemOptions,
    now_ms: i64,
) -> (&'a str, Vec<u8>) {
    let mut j = Json::with_capacity(2 * 1024);
    let (series, sum) = (&*update.row.series, &update.sum);
    let table = match update.row.window_start_ms {
        Some(_) => &names.aggregations,
        None => &names.totals,
    };
    j.raw("{\"TableName\":");
    j.string(table);
    j.raw(",\"Key\":{");
    match update.row.window_start_ms {
        Some(start) => j.s("partition_key", &keys::window_key(series, start)),
        None => {
            j.s("shard", &keys::totals_shard(series));
            j.raw(",");
            j.s("series", series);
        }
    }
    j.raw("},\"UpdateExpression\":\"SET #f = :next, #g = if_not_exists(#g, :first), #ci = :ci, #ty = :ty");
    let window = update.row.window_start_ms;
    if window.is_some() {
        j.raw(", #ws = :ws, #we = :we, #lu = :lu, #se = :se");
    }
    j.raw(" ADD #n :n, #a :a, #b :b, #c :c, #d :d");
    j.raw(if window.is_some() {
        ", #set :set"
    } else {
        ", #l :l"
    });
    j.raw("\",\"ConditionExpression\":\"attribute_not_exists(#f) OR #f <= :first\"");
    j.raw(
        ",\"ReturnValues\":\"UPDATED_NEW\",\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\",\"ReturnConsumedCapacity\":\"TOTAL\"",
    );

    j.raw(",\"ExpressionAttributeNames\":{\"#f\":");
    j.string(&format!("{FENCE_NEXT}{}", update.log_key));
    j.raw(",\"#g\":");
    j.string(&format!("{FENCE_FIRST}{}", update.log_key));
    j.raw(",\"#n\":\"event_count\",\"#a\":\"severity_low\",\"#b\":\"severity_medium\",\"#c\":\"severity_high\",\"#d\":\"severity_critical\",\"#ci\":\"city\",\"#ty\":\"event_type\"");
    j.raw(if window.is_some() {
        ",\"#ws\":\"window_start\",\"#we\":\"window_end\",\"#lu\":\"last_updated\",\"#se\":\"series\",\"#set\":\"severities\""
    } else {
        ",\"#l\":\"late_count\""
    });

    j.raw("},\"ExpressionAttributeValues\":{");
    j.n(":first", update.first.0);
    j.raw(",");
    j.n(":next", update.next.0);
    j.raw(",");
    j.n(":n", sum.event_count);
    for (name, count) in [":a", ":b", ":c", ":d"].into_iter().zip(sum.severities) {
        j.raw(",");
        j.n(name, count);
    }
    j.raw(",");
    let (city, event_type) = keys::split_series(series).expect("a series has both parts");
    j.s(":ci", city);
    j.raw(",");
    j.s(":ty", event_type);
    j.raw(",");
    if let Some(start_ms) = window {
        j.s(":ws", &format_seconds(start_ms));
        j.raw(",");
        j.s(":we", &format_seconds(start_ms + options.window_ms));
        j.raw(",");
        j.s(":lu", &format_millis(now_ms));
        j.raw(",");
        j.s(":se", series);
        j.raw(",\":set\":{\"SS\":[");
        let distinct = Severity::ALL
            .iter()
            .filter(|s| sum.severities[s.index()] > 0);
        for (n, severity) in distinct.enumerate() {
            j.raw(if n > 0 { "," } else { "" });
            j.string(severity.name());
        }
        j.raw("]}");
    } else {
        j.n(":l", sum.late_count);
    }
    j.raw("}}");
    (table, j.0)
}

/// Returns the body of the UpdateItem for a progress item: created only where there is none, or moved
/// forward only where there is one. In tables made anew a moved item would hide all that they lack.
///
/// An update and not a put, since only an update returns the item that it leaves behind.
pub fn progress_body(names: &TableNames, publish: &Publish, create: bool) -> Vec<u8> {
    let mut j = Json::with_capacity(1024);
    j.raw("{\"TableName\":");
    j.string(&names.totals);
    j.raw(",\"Key\":{");
    j.s("shard", PROGRESS_PK);
    j.raw(",");
    j.s("series", &publish.log_key);
    j.raw("},\"UpdateExpression\":\"SET #n = :next");
    let attributes = progress_attributes(publish);
    for (at, (_, value)) in attributes.iter().enumerate() {
        if value.is_some() {
            j.raw(&format!(", #a{at} = :a{at}"));
        }
    }
    let gone = attributes.iter().enumerate();
    let gone = gone.filter(|(_, (_, value))| value.is_none());
    for (n, (at, _)) in gone.enumerate() {
        j.raw(if n == 0 { " REMOVE " } else { ", " });
        j.raw(&format!("#a{at}"));
    }
    j.raw("\",\"ConditionExpression\":\"");
    j.raw(if create {
        "attribute_not_exists(#n)"
    } else {
        "#n < :next"
    });
    j.raw("\",\"ReturnValues\":\"ALL_NEW\",\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\",\"ReturnConsumedCapacity\":\"TOTAL\"");
    j.raw(",\"ExpressionAttributeNames\":{\"#n\":\"next\"");
    for (at, (name, _)) in attributes.iter().enumerate() {
        j.raw(&format!(",\"#a{at}\":\"{name}\""));
    }
    j.raw("},\"ExpressionAttributeValues\":{");
    j.n(":next", publish.boundary.next.0);
    for (at, (_, value)) in attributes.iter().enumerate() {
        if let Some(value) = value {
            j.raw(",");
            j.n(&format!(":a{at}"), *value);
        }
    }
    j.raw("}}");
    j.0
}

/// Returns what a progress item holds beside its key and `next`; what has no value is not there.
pub(super) fn progress_attributes(publish: &Publish) -> Vec<(&'static str, Option<i64>)> {
    let at = &publish.boundary;
    let sums = at.sums.map(|sums| sums.numbers());
    let mut out = vec![
        ("max", at.max.max_ms()),
        ("watermark", publish.watermark_ms),
        (SUMS_NEXT, sums.map(|_| at.next.0)),
    ];
    for (place, name) in SUMS.into_iter().enumerate() {
        // Offsets are below 2^63, so no count of records is larger.
        let number = sums.and_then(|numbers| i64::try_from(numbers[place]).ok());
        out.push((name, number));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
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
    fn items_have_the_contracts_shape() {
        let event = Event {
            city: "São \"P\"".into(),
            event_type: "traffic".into(),
            severity: Severity::High,
            time_ms: 1_357_020_000_000,
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
            5_000,
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
            5_000,
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
        let body = value(&batch_body(&names, table, alert, &expiring, 5_000));
        let mut with_ttl = put.clone();
        with_ttl["ttl"] = json!({"N": "65"});
        assert_eq!(
            body["RequestItems"]["citystream-alerts"][0]["PutRequest"]["Item"],
            with_ttl
        );
    }

    #[test]
    fn updates_carry_the_fence() {
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
        let (table, body) = update_body(&names, &update(Some(1_357_020_000_000)), &options(), 0);
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
        let (table, body) = update_body(&names, &update(None), &options(), 0);
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
    fn progress_moves_forward_only() {
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
        publish.boundary.max = MaxTime::new(Some(9));
        publish.watermark_ms = Some(-5);
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
}
