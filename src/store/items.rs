//! Writes the JSON bodies of requests to DynamoDB.
//!
//! Each function writes the JSON text directly into one buffer, without the types of the SDK. At 100,000 events per
//! second, the SDK's types would take half as much CPU time as all other work together. `docs/TABLES.md` describes the
//! items that the requests write. Expressions contain aliases such as `#x` instead of attribute names, because many
//! attribute names are reserved words in DynamoDB.

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::keys::{self, FENCE_FIRST, FENCE_NEXT, PROGRESS_PK, SUMS, SUMS_NEXT, TableNames};
use crate::core::pipeline::Publish;
use crate::core::plan::{PutTable, RowKey, RowUpdate, StoredEvent};
use crate::core::time::{format_millis, format_seconds};
use crate::store::attributes::{
    CITY, CITY_SHARD, DESCRIPTION, EVENT_COUNT, EVENT_ID, EVENT_TIME, EVENT_TYPE, EXTRA, FUTURE,
    LAST_UPDATED, LATE, LATE_COUNT, MAX, NEXT, PARTITION_KEY, PROCESSING_TIME, SERIES, SEVERITIES,
    SEVERITY, SEVERITY_COUNTS, SEVERITY_SHARD, SHARD, SOURCE, TIMESTAMP, TTL, WATERMARK,
    WINDOW_END, WINDOW_START,
};

/// The aliases of the four severity counts in update expressions, without the leading `#` or `:`.
const SEVERITY_ALIASES: [&str; 4] = ["a", "b", "c", "d"];
/// The JSON members that make DynamoDB return the consumed capacity and, with a refusal, the stored item. Both cost
/// nothing extra.
const RETURNS: &str =
    ",\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\",\"ReturnConsumedCapacity\":\"TOTAL\"";

/// The settings for all items that a consumer writes.
#[derive(Clone, Copy, Debug)]
pub struct ItemOptions {
    /// Number of shards per city and per severity.
    pub shards: u32,
    /// Time for which the table keeps a raw event, in milliseconds.
    pub raw_ttl_ms: i64,
    /// Time for which the table keeps an alert, in milliseconds, or `None` if alerts never expire.
    pub alert_ttl_ms: Option<i64>,
    /// Length of a window in milliseconds.
    pub window_ms: i64,
}

/// A buffer for the text of a JSON document. Each method that writes a member of an object first writes a comma if
/// another member precedes it.
struct Json(Vec<u8>);

impl Json {
    fn with_capacity(bytes: usize) -> Json {
        Json(Vec::with_capacity(bytes))
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Writes a comma, unless the last byte is an opening brace or bracket.
    fn comma(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.raw(",");
        }
    }

    fn string(&mut self, text: &str) {
        self.raw("\"");
        self.escaped(text);
        self.raw("\"");
    }

    /// Escapes a string for JSON, and writes it without quotation marks. Most strings contain no special character. The
    /// check for special characters reads all bytes, because a check that can stop early is several times slower on
    /// such strings.
    fn escaped(&mut self, text: &str) {
        let is_special = |b: u8| (b < 0x20) | (b == b'"') | (b == b'\\');
        if text.bytes().fold(false, |any, b| any | is_special(b)) {
            let quoted = serde_json::to_string(text).expect("a string is always JSON");
            self.raw(&quoted[1..quoted.len() - 1]);
        } else {
            self.raw(text);
        }
    }

    fn digits(&mut self, value: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(value));
    }

    /// Writes `"name":{"kind":`. The `name` must not contain a character that needs an escape in JSON.
    fn open(&mut self, name: &str, kind: &str) {
        self.comma();
        self.raw("\"");
        self.raw(name);
        self.raw("\":{\"");
        self.raw(kind);
        self.raw("\":");
    }

    /// Writes a string attribute: `"name":{"S":"value"}`.
    fn s(&mut self, name: &str, value: &str) {
        self.open(name, "S");
        self.string(value);
        self.raw("}");
    }

    /// Writes a number attribute: `"name":{"N":"value"}`.
    fn n(&mut self, name: &str, value: impl itoa::Integer) {
        self.open(name, "N");
        self.raw("\"");
        self.digits(value);
        self.raw("\"}");
    }

    /// Writes a boolean attribute: `"name":{"BOOL":true}`.
    fn yes(&mut self, name: &str) {
        self.open(name, "BOOL");
        self.raw("true}");
    }

    /// Writes a string attribute that ends with a shard number, in the form `"name":{"S":"<text>#<shard>"}`.
    fn shard(&mut self, name: &str, text: &str, shard: u32) {
        self.open(name, "S");
        self.raw("\"");
        self.escaped(text);
        self.raw("#");
        self.digits(shard);
        self.raw("\"}");
    }

    /// Writes a member of `ExpressionAttributeNames` in the form `"alias":"name"`.
    fn alias(&mut self, alias: &str, name: &str) {
        self.comma();
        self.string(alias);
        self.raw(":");
        self.string(name);
    }
}

/// Returns the body of a BatchWriteItem that puts `events` into `table`.
pub fn batch_body<'a>(
    names: &TableNames,
    table: PutTable,
    events: impl Iterator<Item = &'a StoredEvent>,
    options: &ItemOptions,
    now_ms: UnixMs,
) -> Vec<u8> {
    let mut j = Json::with_capacity(12 * 1024);
    j.raw("{\"ReturnConsumedCapacity\":\"TOTAL\",\"RequestItems\":{");
    j.string(table_name(names, table));
    j.raw(":[");
    let processing_time = format_millis(now_ms);
    for event in events {
        j.comma();
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

/// Returns the name of the table that stores raw events or alerts.
pub fn table_name(names: &TableNames, table: PutTable) -> &str {
    match table {
        PutTable::Raw => &names.raw,
        PutTable::Alerts => &names.alerts,
    }
}

fn raw_item(j: &mut Json, e: &StoredEvent, options: &ItemOptions, now: &str, now_ms: UnixMs) {
    j.s(EVENT_ID, &e.event_id);
    j.s(TIMESTAMP, &format_millis(e.event.time_ms));
    common_attributes(j, e, now);
    j.n(TTL, (now_ms + options.raw_ttl_ms).0.div_euclid(1_000));
    j.open(SOURCE, "S");
    j.raw("\"");
    j.escaped(&e.topic);
    j.raw("/");
    j.digits(e.partition);
    j.raw("/");
    j.digits(e.offset.0);
    j.raw("\"}");
    j.shard(CITY_SHARD, &e.event.city, e.id_hash % options.shards);
    if e.future {
        j.yes(FUTURE);
    }
    if let Some(extra) = &e.event.extra {
        j.s(EXTRA, extra);
    }
}

fn alert_item(j: &mut Json, e: &StoredEvent, options: &ItemOptions, now: &str, now_ms: UnixMs) {
    j.s(TIMESTAMP, &keys::alert_sk(e.event.time_ms, &e.event_id));
    j.s(EVENT_ID, &e.event_id);
    j.s(EVENT_TIME, &format_millis(e.event.time_ms));
    common_attributes(j, e, now);
    if let Some(ttl_ms) = options.alert_ttl_ms {
        j.n(TTL, (now_ms + ttl_ms).0.div_euclid(1_000));
    }
    let severity = e.event.severity.name();
    j.shard(SEVERITY_SHARD, severity, e.id_hash % options.shards);
}

/// Writes the attributes that raw events and alerts have in common.
fn common_attributes(j: &mut Json, e: &StoredEvent, now: &str) {
    j.s(CITY, &e.event.city);
    j.s(EVENT_TYPE, &e.event.event_type);
    j.s(SEVERITY, e.event.severity.name());
    j.s(DESCRIPTION, &e.event.description);
    j.s(PROCESSING_TIME, now);
    if e.late {
        j.yes(LATE);
    }
}

/// Returns the table name and the body of the UpdateItem request for one row.
///
/// One request adds the sum of the stretch to the row and also moves the fence, so DynamoDB does both or neither. With
/// two separate requests, a crash could leave a sum without its fence, which would violate INV-2.
/// [`crate::core::stretch`] explains the condition of the update.
pub fn update_body<'a>(
    names: &'a TableNames,
    update: &RowUpdate,
    options: &ItemOptions,
    now_ms: UnixMs,
) -> (&'a str, Vec<u8>) {
    let mut j = Json::with_capacity(2 * 1024);
    let is_window = update.row.window_start_ms.is_some();
    let table = if is_window {
        &names.aggregations
    } else {
        &names.totals
    };
    j.raw("{\"TableName\":");
    j.string(table);
    j.raw(",\"Key\":{");
    row_key(&mut j, &update.row);
    j.raw("},\"UpdateExpression\":\"SET #f = :next, #g = if_not_exists(#g, :first), #ci = :ci, #ty = :ty");
    if is_window {
        j.raw(", #ws = :ws, #we = :we, #lu = :lu, #se = :se");
    }
    // The update also adds counts of zero, so that a row has all count attributes after its first update.
    j.raw(" ADD #n :n, #a :a, #b :b, #c :c, #d :d");
    j.raw(if is_window { ", #set :set" } else { ", #l :l" });
    j.raw("\",\"ConditionExpression\":\"attribute_not_exists(#f) OR #f <= :first\"");
    j.raw(",\"ReturnValues\":\"UPDATED_NEW\"");
    j.raw(RETURNS);
    j.raw(",\"ExpressionAttributeNames\":{");
    row_aliases(&mut j, &update.log_key, is_window);
    j.raw("},\"ExpressionAttributeValues\":{");
    row_values(&mut j, update, options, now_ms);
    j.raw("}}");
    (table, j.0)
}

fn row_key(j: &mut Json, row: &RowKey) {
    match row.window_start_ms {
        Some(start_ms) => j.s(PARTITION_KEY, &keys::window_key(&row.series, start_ms)),
        None => {
            j.s(SHARD, &keys::totals_shard(&row.series));
            j.s(SERIES, &row.series);
        }
    }
}

fn row_aliases(j: &mut Json, log_key: &str, is_window: bool) {
    j.alias("#f", &format!("{FENCE_NEXT}{log_key}"));
    j.alias("#g", &format!("{FENCE_FIRST}{log_key}"));
    j.alias("#n", EVENT_COUNT);
    for (alias, name) in SEVERITY_ALIASES.into_iter().zip(SEVERITY_COUNTS) {
        j.alias(&format!("#{alias}"), name);
    }
    j.alias("#ci", CITY);
    j.alias("#ty", EVENT_TYPE);
    if is_window {
        j.alias("#ws", WINDOW_START);
        j.alias("#we", WINDOW_END);
        j.alias("#lu", LAST_UPDATED);
        j.alias("#se", SERIES);
        j.alias("#set", SEVERITIES);
    } else {
        j.alias("#l", LATE_COUNT);
    }
}

fn row_values(j: &mut Json, update: &RowUpdate, options: &ItemOptions, now_ms: UnixMs) {
    let (series, sum) = (&*update.row.series, &update.sum);
    j.n(":first", update.first.0);
    j.n(":next", update.next.0);
    j.n(":n", sum.event_count);
    for (alias, count) in SEVERITY_ALIASES.into_iter().zip(sum.severities) {
        j.n(&format!(":{alias}"), count);
    }
    let (city, event_type) = keys::split_series(series).expect("a series has both parts");
    j.s(":ci", city);
    j.s(":ty", event_type);
    let Some(start_ms) = update.row.window_start_ms else {
        return j.n(":l", sum.late_count);
    };
    j.s(":ws", &format_seconds(start_ms));
    j.s(":we", &format_seconds(start_ms + options.window_ms));
    j.s(":lu", &format_millis(now_ms));
    j.s(":se", series);
    j.open(":set", "SS");
    j.raw("[");
    // DynamoDB refuses an empty set, but this set is never empty, because a stretch of a window row contains at least
    // one event.
    let has_some = |s: &Severity| sum.severities[s.index()] > 0;
    for severity in Severity::ALL.into_iter().filter(has_some) {
        j.comma();
        j.string(severity.name());
    }
    j.raw("]}");
}

/// Returns the body of the UpdateItem request for a progress item. If `create` is true, the request creates the item,
/// but does not change an existing item. If `create` is false, the request only advances an existing item. A request to
/// advance an item must not create it, because in recreated tables, a new progress item would hide that the counts of
/// earlier records are missing.
///
/// The request is an UpdateItem, because PutItem cannot return the stored item after the write.
pub fn progress_body(names: &TableNames, publish: &Publish, create: bool) -> Vec<u8> {
    let mut j = Json::with_capacity(1024);
    j.raw("{\"TableName\":");
    j.string(&names.totals);
    j.raw(",\"Key\":{");
    j.s(SHARD, PROGRESS_PK);
    j.s(SERIES, &publish.log_key);
    j.raw("},\"UpdateExpression\":\"SET #n = :next");
    let attributes = progress_attributes(publish);
    let (mut set, mut removed) = (String::new(), Vec::new());
    for (at, (_, value)) in attributes.iter().enumerate() {
        match value {
            Some(_) => set.push_str(&format!(", #a{at} = :a{at}")),
            None => removed.push(format!("#a{at}")),
        }
    }
    j.raw(&set);
    if !removed.is_empty() {
        j.raw(&format!(" REMOVE {}", removed.join(", ")));
    }
    j.raw("\",\"ConditionExpression\":\"");
    j.raw(if create {
        "attribute_not_exists(#n)"
    } else {
        "#n < :next"
    });
    j.raw("\",\"ReturnValues\":\"ALL_NEW\"");
    j.raw(RETURNS);
    j.raw(",\"ExpressionAttributeNames\":{");
    j.alias("#n", NEXT);
    for (at, (name, _)) in attributes.iter().enumerate() {
        j.alias(&format!("#a{at}"), name);
    }
    j.raw("},\"ExpressionAttributeValues\":{");
    j.n(":next", publish.boundary.next.0);
    for (at, (_, value)) in attributes.iter().enumerate() {
        if let Some(value) = value {
            j.n(&format!(":a{at}"), *value);
        }
    }
    j.raw("}}");
    j.0
}

/// Returns the attributes of a progress item except its key and `next`. The update removes each attribute whose value
/// is `None`.
pub(super) fn progress_attributes(publish: &Publish) -> Vec<(&'static str, Option<i64>)> {
    let at = &publish.boundary;
    let sums = at.sums.map(|sums| sums.numbers());
    let mut out = vec![
        (MAX, at.max.max_ms().map(|ms| ms.0)),
        (WATERMARK, publish.watermark_ms.map(|ms| ms.0)),
        (SUMS_NEXT, sums.map(|_| at.next.0)),
    ];
    for (place, name) in SUMS.into_iter().enumerate() {
        // The number of records fits into `i64`, because offsets are below 2^63.
        let number = sums.and_then(|numbers| i64::try_from(numbers[place]).ok());
        out.push((name, number));
    }
    out
}

#[cfg(test)]
mod tests;
