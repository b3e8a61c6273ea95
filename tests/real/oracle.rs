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

pub(crate) const WINDOW_MS: i64 = 5 * 60_000;
pub(crate) const LATENESS_MS: i64 = 10 * 60_000;
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

/// What a record is: with its time in ms, and whether that is too far ahead of the record.
pub(crate) enum Meaning {
    Rejected,
    Heartbeat(i64, bool),
    Event(Value, i64, bool),
}

/// Returns what a record is.
pub(crate) fn meaning(record: &Record) -> Meaning {
    let future = |ms: i64| record.timestamp_ms.is_none_or(|at| ms > at + SKEW_MS);
    if record.header("expect").is_some() {
        return Meaning::Rejected;
    }
    let Some(value) = &record.value else {
        let ms = record.header("citystream-heartbeat").unwrap();
        let ms = ms.parse().unwrap();
        return Meaning::Heartbeat(ms, future(ms));
    };
    let event: Value = serde_json::from_slice(value).unwrap();
    let time = event["timestamp"].as_str().unwrap();
    let ms = time.parse::<Timestamp>().unwrap().as_millisecond();
    Meaning::Event(event, ms, future(ms))
}

/// Returns the start of the window of a time.
pub(crate) fn window_start(ms: i64) -> i64 {
    ms.div_euclid(WINDOW_MS) * WINDOW_MS
}

/// Returns the series of an event.
pub(crate) fn series(event: &Value) -> String {
    let field = |name: &str| event[name].as_str().unwrap_or_default();
    let event_type = field("event_type").to_ascii_lowercase();
    format!("{}#{event_type}", field("city").trim_ascii())
}

fn fold_into(out: &mut Expected, topic: &str, records: &[Record]) {
    let mut largest: BTreeMap<i32, i64> = BTreeMap::new();
    for record in records {
        let (event, time_ms, future) = match meaning(record) {
            Meaning::Rejected => {
                out.rejected.push(record.clone());
                continue;
            }
            Meaning::Heartbeat(ms, future) => {
                if !future {
                    let max = largest.entry(record.partition).or_insert(ms);
                    *max = ms.max(*max);
                }
                continue;
            }
            Meaning::Event(event, ms, future) => (event, ms, future),
        };
        let start_ms = window_start(time_ms);
        let max_ms = largest.get(&record.partition).copied();
        let late = max_ms.is_some_and(|max| start_ms + WINDOW_MS <= max - LATENESS_MS);
        if !future {
            largest.insert(record.partition, max_ms.unwrap_or(time_ms).max(time_ms));
        }
        out.valid += 1;
        out.late += u64::from(late);
        out.future += u64::from(future);
        let event = Judged::new(topic, record, &event, time_ms, late, future);
        event.add_rows(out);
    }
}

/// An event with everything that its rows need.
struct Judged<'a> {
    event: &'a Value,
    time_ms: i64,
    late: bool,
    future: bool,
    city: String,
    event_type: String,
    severity: String,
    id: String,
    /// `topic/partition/offset`
    source: String,
    shard: u32,
}

impl Judged<'_> {
    fn new<'a>(
        topic: &str,
        record: &Record,
        event: &'a Value,
        time_ms: i64,
        late: bool,
        future: bool,
    ) -> Judged<'a> {
        let (partition, offset) = (record.partition, record.offset);
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        let id = match event.get("event_id") {
            Some(id) => id.as_str().unwrap().to_owned(),
            None => format!("{topic}-{partition}-{offset}"),
        };
        Judged {
            event,
            time_ms,
            late,
            future,
            city: field("city").trim_ascii().to_owned(),
            event_type: field("event_type").to_ascii_lowercase(),
            severity: field("severity").to_ascii_lowercase(),
            shard: crc32(&id) % SHARDS,
            id,
            source: format!("{topic}/{partition}/{offset}"),
        }
    }

    fn series(&self) -> String {
        format!("{}#{}", self.city, self.event_type)
    }

    /// Adds the event to the expected rows.
    fn add_rows(&self, out: &mut Expected) {
        self.add_raw_event(out);
        if matches!(&*self.severity, "high" | "critical") {
            self.add_alert(out);
        }
        self.add_to_totals(out);
        if !self.late {
            self.add_to_window(out);
        }
    }

    /// Returns the attributes that raw events and alerts share.
    fn shared_attributes(&self) -> Row {
        row([
            ("city", self.city.clone()),
            ("event_type", self.event_type.clone()),
            ("severity", self.severity.clone()),
            ("event_id", self.id.clone()),
            (
                "description",
                self.event["description"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            ),
            ("processing_time", PRESENT.to_owned()),
        ])
    }

    fn add_raw_event(&self, out: &mut Expected) {
        let time = millis(self.time_ms);
        let mut raw = self.shared_attributes();
        raw.extend(row([
            ("timestamp", time.clone()),
            ("ttl", PRESENT.to_owned()),
            ("source", self.source.clone()),
            ("city_shard", format!("{}#{}", self.city, self.shard)),
        ]));
        for (name, set) in [("late", self.late), ("future", self.future)] {
            if set {
                raw.insert(name.to_owned(), "true".to_owned());
            }
        }
        let mut extra = self.event.as_object().unwrap().clone();
        extra.retain(|name, _| !KNOWN.contains(&name.as_str()));
        if !extra.is_empty() {
            raw.insert("extra".to_owned(), Value::Object(extra).to_string());
        }
        let before = out.table("raw-events").insert((self.id.clone(), time), raw);
        assert!(
            before.is_none(),
            "the oracle needs distinct events: {}",
            self.event
        );
    }

    fn add_alert(&self, out: &mut Expected) {
        let time = millis(self.time_ms);
        let sort = format!("{time}#{}", self.id);
        let mut alert = self.shared_attributes();
        alert.extend(row([
            ("timestamp", sort.clone()),
            ("event_time", time),
            (
                "severity_shard",
                format!("{}#{}", self.severity, self.shard),
            ),
        ]));
        if self.late {
            alert.insert("late".to_owned(), "true".to_owned());
        }
        out.table("alerts").insert((self.city.clone(), sort), alert);
    }

    fn add_to_totals(&self, out: &mut Expected) {
        let series = self.series();
        let key = (format!("totals#{}", crc32(&series) % 16), series);
        let total = out.table("totals").entry(key.clone()).or_insert_with(|| {
            row([
                ("shard", key.0),
                ("series", key.1),
                ("city", self.city.clone()),
                ("event_type", self.event_type.clone()),
            ])
        });
        add(total, "event_count", u64::from(!self.late));
        add(total, "late_count", u64::from(self.late));
        self.add_severity(total);
    }

    fn add_to_window(&self, out: &mut Expected) {
        let start_ms = self.time_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        let key = format!("{}#{}", self.series(), seconds(start_ms));
        let window = out
            .table("aggregations")
            .entry((key.clone(), String::new()));
        let window = window.or_insert_with(|| {
            row([
                ("partition_key", key),
                ("series", self.series()),
                ("city", self.city.clone()),
                ("event_type", self.event_type.clone()),
                ("window_start", seconds(start_ms)),
                ("window_end", seconds(start_ms + WINDOW_MS)),
                ("last_updated", PRESENT.to_owned()),
            ])
        });
        add(window, "event_count", 1);
        self.add_severity(window);
        let mut distinct: Vec<&str> = window
            .get("severities")
            .map_or_else(Vec::new, |set| set.split(' ').collect());
        if !distinct.contains(&&*self.severity) {
            distinct.push(&self.severity);
            distinct.sort_unstable();
        }
        let distinct = distinct.join(" ");
        window.insert("severities".to_owned(), distinct);
    }

    /// Counts the event's severity in a row that has a count of each severity.
    fn add_severity(&self, row: &mut Row) {
        for name in SEVERITIES {
            add(row, &format!("severity_{name}"), 0);
        }
        add(row, &format!("severity_{}", self.severity), 1);
    }
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
