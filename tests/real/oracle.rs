//! What the tables must hold: a plain fold over the log by the rules of docs/EVENTS.md. It shares no code with the
//! program.
//!
//! The test itself knows which records are bad: it sends them with a header `expect` that names the reason. Every
//! other record in a log is an event or a heartbeat.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::log::Record;
use crate::tables::{PRESENT, Row, Rows};

const WINDOW_MS: i64 = 5 * 60_000;
const LATENESS_MS: i64 = 10 * 60_000;
const SKEW_MS: i64 = 5 * 60_000;
const SHARDS: u32 = 4;
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];
const KNOWN: [&str; 6] = [
    "city",
    "event_type",
    "severity",
    "timestamp",
    "description",
    "event_id",
];

#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// The rows by table suffix.
    pub(crate) tables: BTreeMap<&'static str, Rows>,
    pub(crate) rejected: Vec<Record>,
    pub(crate) valid: u64,
    pub(crate) late: u64,
    pub(crate) future: u64,
}

/// CRC-32 as in zlib, bit by bit.
fn crc32(text: &str) -> u32 {
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0xedb8_8320;
            }
        }
    }
    !crc
}

fn millis(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn seconds(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn row<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> Row {
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn add(row: &mut Row, name: &str, count: u64) {
    let value = row.entry(name.to_owned()).or_insert_with(|| "0".to_owned());
    *value = (value.parse::<u64>().unwrap() + count).to_string();
}

/// Folds the successive logs of one topic name. Each log is given partition after partition, in offset order.
pub(crate) fn fold(topic: &str, logs: &[&[Record]]) -> Expected {
    let mut out = Expected::default();
    for (suffix, _, _) in crate::tables::KEYS {
        out.tables.insert(suffix, Rows::new());
    }
    for records in logs {
        fold_into(&mut out, topic, records);
    }
    out
}

fn fold_into(out: &mut Expected, topic: &str, records: &[Record]) {
    let mut largest: BTreeMap<i32, i64> = BTreeMap::new();
    for record in records {
        let future = |ms: i64| record.timestamp_ms.is_none_or(|at| ms > at + SKEW_MS);
        if record.header("expect").is_some() {
            out.rejected.push(record.clone());
            continue;
        }
        let Some(value) = &record.value else {
            let ms: i64 = record
                .header("citystream-heartbeat")
                .unwrap()
                .parse()
                .unwrap();
            if !future(ms) {
                let max = largest.entry(record.partition).or_insert(ms);
                *max = ms.max(*max);
            }
            continue;
        };
        let event: Value = serde_json::from_slice(value).unwrap();
        let time = event["timestamp"].as_str().unwrap();
        let time_ms = time.parse::<Timestamp>().unwrap().as_millisecond();
        let start_ms = time_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        let max_ms = largest.get(&record.partition).copied();
        let late = max_ms.is_some_and(|max| start_ms + WINDOW_MS <= max - LATENESS_MS);
        let future = future(time_ms);
        if !future {
            largest.insert(record.partition, max_ms.unwrap_or(time_ms).max(time_ms));
        }
        out.valid += 1;
        out.late += u64::from(late);
        out.future += u64::from(future);
        event_rows(out, topic, record, &event, time_ms, (late, future));
    }
}

fn event_rows(
    out: &mut Expected,
    topic: &str,
    record: &Record,
    event: &Value,
    time_ms: i64,
    (late, future): (bool, bool),
) {
    let (partition, offset) = (record.partition, record.offset);
    let field = |name: &str| event[name].as_str().unwrap_or_default();
    let city = field("city").trim_ascii();
    let event_type = field("event_type").to_ascii_lowercase();
    let severity = field("severity").to_ascii_lowercase();
    let id = match event.get("event_id") {
        Some(id) => id.as_str().unwrap().to_owned(),
        None => format!("{topic}-{partition}-{offset}"),
    };
    let time = millis(time_ms);
    let series = format!("{city}#{event_type}");
    let of_event = [
        ("city", city.to_owned()),
        ("event_type", event_type.clone()),
        ("severity", severity.clone()),
        ("event_id", id.clone()),
        ("description", field("description").to_owned()),
        ("processing_time", PRESENT.to_owned()),
    ];
    let shard = crc32(&id) % SHARDS;

    let mut raw = row(of_event.clone());
    raw.extend(row([
        ("timestamp", time.clone()),
        ("ttl", PRESENT.to_owned()),
        ("source", format!("{topic}/{partition}/{offset}")),
        ("city_shard", format!("{city}#{shard}")),
    ]));
    for (name, set) in [("late", late), ("future", future)] {
        if set {
            raw.insert(name.to_owned(), "true".to_owned());
        }
    }
    let mut extra = event.as_object().unwrap().clone();
    extra.retain(|name, _| !KNOWN.contains(&name.as_str()));
    if !extra.is_empty() {
        raw.insert("extra".to_owned(), Value::Object(extra).to_string());
    }
    let key = (id.clone(), time.clone());
    let before = out.table("raw-events").insert(key, raw);
    assert!(
        before.is_none(),
        "the oracle wants distinct events: {event}"
    );

    if matches!(&*severity, "high" | "critical") {
        let sort = format!("{time}#{id}");
        let mut alert = row(of_event);
        alert.extend(row([
            ("timestamp", sort.clone()),
            ("event_time", time),
            ("severity_shard", format!("{severity}#{shard}")),
        ]));
        if late {
            alert.insert("late".to_owned(), "true".to_owned());
        }
        out.table("alerts").insert((city.to_owned(), sort), alert);
    }

    let severity_count = format!("severity_{severity}");
    let totals = (format!("totals#{}", crc32(&series) % 16), series.clone());
    let total = out
        .table("totals")
        .entry(totals.clone())
        .or_insert_with(|| {
            row([
                ("shard", totals.0),
                ("series", totals.1),
                ("city", city.to_owned()),
                ("event_type", event_type.clone()),
            ])
        });
    add(total, "event_count", u64::from(!late));
    add(total, "late_count", u64::from(late));
    for name in SEVERITIES {
        add(total, &format!("severity_{name}"), 0);
    }
    add(total, &severity_count, 1);
    if late {
        return;
    }
    let start_ms = time_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
    let key = format!("{series}#{}", seconds(start_ms));
    let window = out
        .table("aggregations")
        .entry((key.clone(), String::new()));
    let window = window.or_insert_with(|| {
        row([
            ("partition_key", key),
            ("series", series),
            ("city", city.to_owned()),
            ("event_type", event_type),
            ("window_start", seconds(start_ms)),
            ("window_end", seconds(start_ms + WINDOW_MS)),
            ("last_updated", PRESENT.to_owned()),
        ])
    });
    add(window, "event_count", 1);
    for name in SEVERITIES {
        add(window, &format!("severity_{name}"), 0);
    }
    add(window, &severity_count, 1);
    let mut distinct: Vec<&str> = window
        .get("severities")
        .map_or_else(Vec::new, |set| set.split(' ').collect());
    if !distinct.contains(&&*severity) {
        distinct.push(&severity);
        distinct.sort_unstable();
    }
    let distinct = distinct.join(" ");
    window.insert("severities".to_owned(), distinct);
}

impl Expected {
    fn table(&mut self, suffix: &'static str) -> &mut Rows {
        self.tables.entry(suffix).or_default()
    }

    /// Returns the sum of a count over a table.
    pub(crate) fn sum(&self, suffix: &str, name: &str) -> u64 {
        let rows = self.tables[suffix].values();
        rows.map(|row| row[name].parse::<u64>().unwrap()).sum()
    }
}

#[test]
fn the_oracles_hash_gives_the_documented_values() {
    assert_eq!(crc32("NYC#traffic"), 4_065_496_510);
    assert_eq!(crc32("São Paulo#incident"), 4_032_233_575);
}
