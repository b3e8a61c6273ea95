//! What must hold for any bytes from outside, as one function for each way in.
//!
//! The fuzz targets call these functions with libFuzzer's bytes, and `tests/it` with the corpus and with random
//! bytes. A panic is allowed only by an assertion in this file, and is a finding.

mod answers;
pub(crate) use answers::answers;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use citystream::api::cursor;
use citystream::core::audit::Key;
use citystream::core::clock::UnixMs;
use citystream::core::event::Event;
use citystream::core::keys::TableNames;
use citystream::core::parse::{Body, HEARTBEAT_HEADER, Reason, parse_event, parse_record};
use citystream::core::plan::RawRows;
use citystream::core::restart::Metadata;
use citystream::core::rollup::Grain;
use citystream::core::submission::{self, BodyError, Framing};
use citystream::core::time::{TIME_MS_END, format_millis, is_event_time};
use citystream::store::reads::audit::{AuditView, RollupView, put_from_item, row_from_item};
use citystream::store::reads::{AggregationItem, AlertItem, EventItem, Position, Range, TotalItem};
use citystream::store::{attributes, config};
use serde_json::{Map, Value};

/// A record: its value, or its heartbeat header.
pub(crate) fn parser(data: &[u8]) {
    assert!(!HEARTBEAT_HEADER.is_empty());
    match parse_record(Some(data), None) {
        Ok(Body::Event(event)) => sound(&event),
        Ok(Body::Heartbeat(_)) => panic!("a value is never a heartbeat"),
        Err(reject) => assert_eq!(reject.reason == Reason::Empty, data.is_empty()),
    }
    match parse_record(None, [Some(data)]) {
        Ok(Body::Heartbeat(ms)) => assert!((0..1_000_000_000_000_000).contains(&ms.0)),
        Ok(Body::Event(_)) => panic!("a header is never an event"),
        Err(reject) => assert_eq!(reject.reason, Reason::BadHeartbeat),
    }
}

/// An accepted event keeps the rules. Written and parsed again, it is the same event.
fn sound(event: &Event) {
    let city = event.city.chars();
    assert!((1..=64).contains(&city.clone().count()));
    assert!(city.clone().all(|c| !c.is_control() && c != '#'));
    assert!(is_event_time(event.time_ms));
    assert!(event.description.len() <= 4_096);
    let mut object = match &event.extra {
        Some(extra) => serde_json::from_str(extra).expect("extra is an object"),
        None => Map::new(),
    };
    for (name, text) in [
        ("city", &*event.city),
        ("event_type", &event.event_type),
        ("severity", event.severity.name()),
        ("timestamp", &format_millis(event.time_ms)),
        ("description", &event.description),
    ] {
        let before = object.insert(name.to_owned(), Value::from(text));
        assert!(before.is_none(), "{name} is no other field");
    }
    if let Some(id) = &event.event_id {
        object.insert("event_id".to_owned(), Value::from(&**id));
    }
    let text = Value::Object(object).to_string();
    // Numbers and escapes of other fields may take more room when they are written again.
    if text.len() > 65_536 {
        return;
    }
    let mut again = parse_event(text.as_bytes()).expect("what was accepted is accepted");
    // serde_json may write other fields in another form and order.
    assert_eq!(again.extra.is_some(), event.extra.is_some());
    again.extra.clone_from(&event.extra);
    assert_eq!(&again, event);
}

/// The body of a request with events. Every accepted event is valid by the rules of records.
pub(crate) fn submission(data: &[u8]) {
    const ITEMS_MAX: usize = 100;
    let arrival_ms = UnixMs(1_357_020_000_000);
    for framing in [Framing::Detect, Framing::Lines] {
        let items = match submission::split(data, framing, ITEMS_MAX) {
            Ok(items) => items,
            Err(BodyError::BrokenArray(why)) => {
                assert!(framing == Framing::Detect && !why.is_empty());
                continue;
            }
            Err(BodyError::TooMany) => {
                assert!(data.len() >= ITEMS_MAX);
                continue;
            }
            Err(BodyError::Empty) => continue,
        };
        assert!((1..=ITEMS_MAX).contains(&items.len()));
        let (mut line, mut at) = (0, data.as_ptr() as usize);
        for item in &items {
            assert!(item.line > line && item.value.as_ptr() as usize >= at);
            line = item.line;
            at = item.value.as_ptr() as usize + item.value.len();
            let Ok(event) = submission::judge(item, arrival_ms) else {
                continue;
            };
            let parsed = parse_event(&event.value).expect("what was accepted is valid");
            assert_eq!(
                (&*parsed.city, &parsed.event_id),
                (&*event.city, &event.event_id)
            );
            let is_unchanged = &*event.value == item.value;
            assert!(is_unchanged || parsed.time_ms == arrival_ms);
        }
        assert!(at <= data.as_ptr() as usize + data.len());
    }
}

/// The metadata of a committed offset.
pub(crate) fn metadata(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(metadata) = Metadata::parse(&text) {
        assert_eq!(Metadata::parse(&metadata.format()), Some(metadata));
    }
}

/// A page cursor: these bytes as a client sends them, and a cursor of ours made from them.
pub(crate) fn cursor(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok((position, range)) = cursor::decode("query", &text) {
        let token = cursor::encode("query", &position, range);
        assert_eq!(cursor::decode("query", &token), Ok((position, range)));
    }
    let mut numbers = [0; 20];
    let taken = data.len().min(20);
    numbers[..taken].copy_from_slice(&data[..taken]);
    let rest: String = String::from_utf8_lossy(&data[taken..])
        .chars()
        .take(128)
        .collect();
    let number = |at: usize| i64::from_le_bytes(numbers[at..at + 8].try_into().expect("8 bytes"));
    // Other cursors are refused, because no list of ours gives them out.
    let number = |at: usize| number(at).rem_euclid(TIME_MS_END.0);
    let position = Position {
        sort_key: format_millis(UnixMs(number(0))),
        lane: u32::from_le_bytes(numbers[16..].try_into().expect("4 bytes")),
        key: rest,
    };
    let range = Range {
        from_ms: UnixMs(number(0)),
        to_ms: UnixMs(number(8)),
    };
    let token = cursor::encode("query", &position, range);
    assert_eq!(cursor::decode("query", &token), Ok((position, range)));
    assert!(cursor::decode("another query", &token).is_err());
}

/// Attributes of items, and prefixes of those that end in a topic id and a partition.
/// The corpus refers to them by number, so the order must not change.
const NAMES: [&str; 40] = [
    attributes::CITY,
    attributes::EVENT_TYPE,
    attributes::EVENT_COUNT,
    attributes::LATE_COUNT,
    attributes::SEVERITY_COUNTS[0],
    attributes::SEVERITY_COUNTS[1],
    attributes::SEVERITY_COUNTS[2],
    attributes::SEVERITY_COUNTS[3],
    attributes::SEVERITIES,
    attributes::SERIES,
    attributes::WINDOW_START,
    attributes::WINDOW_END,
    attributes::LAST_UPDATED,
    attributes::EVENT_ID,
    attributes::TIMESTAMP,
    attributes::SEVERITY,
    attributes::DESCRIPTION,
    attributes::PROCESSING_TIME,
    attributes::TTL,
    attributes::SOURCE,
    attributes::CITY_SHARD,
    attributes::LATE,
    attributes::FUTURE,
    attributes::EXTRA,
    attributes::EVENT_TIME,
    attributes::SHARD,
    attributes::WINDOW_MS,
    attributes::LATENESS_MS,
    attributes::SKEW_MS,
    attributes::RULES,
    attributes::RAW,
    attributes::TABLES,
    attributes::SHARDS,
    attributes::TOPIC,
    attributes::TOPIC_ID,
    attributes::NEXT,
    "next#id#",
    "first#id#",
    "next#other#",
    "first#",
];

/// Items as DynamoDB returns them, with any attributes: one per line, as `name type text`. The name is a number in
/// [`NAMES`], or stands for itself.
pub(crate) fn items(data: &[u8]) {
    let mut item = HashMap::new();
    for line in String::from_utf8_lossy(data).lines() {
        let mut parts = line.splitn(3, ' ');
        let (name, kind, text) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let name = name.unwrap_or_default();
        let known = name.get(..2).and_then(|n| n.parse::<usize>().ok());
        let name = match known.and_then(|n| NAMES.get(n)) {
            Some(known) => format!("{known}{}", &name[2..]),
            None => name.to_owned(),
        };
        let value = match kind.unwrap_or_default() {
            "N" => AttributeValue::N(text.to_owned()),
            "B" => AttributeValue::Bool(!text.is_empty()),
            "SS" => AttributeValue::Ss(text.split(' ').map(str::to_owned).collect()),
            "0" => AttributeValue::Null(true),
            _ => AttributeValue::S(text.to_owned()),
        };
        item.insert(name, value);
    }
    let view = AuditView {
        topic_id: "id".to_owned(),
        shards: 4,
        window_ms: 300_000,
        raw_rows: RawRows::All,
        range: (UnixMs(0), UnixMs(TIME_MS_END.0)),
        now_ms: UnixMs(1_000_000),
        rollups: RollupView::default(),
    };
    for key in [
        Key::totals("NYC", "traffic"),
        Key::window("NYC", "traffic", UnixMs(1_357_020_000_000)),
        Key::rollup("NYC", "traffic", Grain::Hour, UnixMs(1_357_020_000_000)),
        Key::rollup("", "traffic", Grain::Day, UnixMs(1_356_998_400_000)),
    ] {
        let row = row_from_item(&item, &key, &view);
        for fence in &row.fences {
            assert!(0 <= fence.first.0 && fence.first < fence.next);
        }
        assert_eq!(row, row_from_item(&item, &key, &view));
    }
    for key in [
        Key::raw("NYC", UnixMs(0), "1"),
        Key::alert("NYC", UnixMs(0), "1"),
    ] {
        let put = put_from_item(&item, &key, UnixMs(1_000_000));
        assert!(!put.expired || item.contains_key("ttl"));
    }
    if let Ok(config) = config::decode(&TableNames::new("p"), &item) {
        assert!((1..=64).contains(&config.shards));
        assert!(config.rules.window_ms > 0);
    }
    let event = EventItem::from_item(&item);
    assert_eq!(
        event.late,
        item.get("late") == Some(&AttributeValue::Bool(true))
    );
    let total = TotalItem::from_item(&item);
    assert!(total.events() >= total.late_count);
    let alert = AlertItem::from_item(&item);
    let row = AggregationItem::from_item(&item);
    assert_eq!((alert.city, row.is_final), (event.city, false));
}
