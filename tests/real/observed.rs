//! What a test with a proxy has seen, written down for `proof/observe.py`.
//!
//! The proxy sees each request to DynamoDB, when it took effect at the latest, and what its sender received. Kafka
//! keeps the log, the group's commits and the dead letters. `proof/observe.py` makes a trace of that, and checks it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::account::Account;
use crate::log::{self, Record};
use crate::oracle::{self, Meaning};
use crate::tables;
use crate::world::World;

/// The last partition of a topic that `init-tables` makes.
const LAST_PARTITION: i32 = 5;

/// Writes what was seen into the folder that `OBSERVED` names, if it does.
pub(crate) fn write(world: &World, account: &Account) {
    let Some(folder) = std::env::var_os("OBSERVED") else {
        return;
    };
    let config = tables::config(world.services, world.name);
    let topic_id = &config["topic_id"];
    let log_of = |partition: i32| format!("{topic_id}#{partition}");
    let mut lines = Vec::from([json!({
        "rules": {"window_ms": oracle::WINDOW_MS, "lateness_ms": oracle::LATENESS_MS},
    })]);
    let records = world.log();
    // A partition without records has restart points, too.
    let last = records.iter().map(|record| record.partition).max();
    for partition in 0..=last.unwrap_or(0).max(LAST_PARTITION) {
        let log = log_of(partition);
        lines.push(json!({"log": log, "topic": 0}));
        let mut next = 0;
        for record in records
            .iter()
            .filter(|record| record.partition == partition)
        {
            // Offsets without a record end a transaction.
            let blanks = next..record.offset;
            lines.extend(blanks.map(|_| json!({"record": "blank", "log": log})));
            lines.push(line_of(world, record, &log));
            next = record.offset + 1;
        }
    }
    lines.push(json!({"tables": config["tables"]}));
    lines.extend(commits(world));
    lines.extend(letters(world));
    lines.push(state(world, &config["tables"]));
    let mut text = account.lines();
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    let path = Path::new(&folder).join(format!("{}.ndjson", world.name));
    std::fs::write(path, text).unwrap();
}

/// Returns the line of a record, with the id of an event.
fn line_of(world: &World, record: &Record, log: &str) -> Value {
    match oracle::meaning(record) {
        Meaning::Rejected => json!({"record": "rejected", "log": log}),
        Meaning::Heartbeat(ms, future) => {
            json!({"record": "heartbeat", "log": log, "time_ms": ms, "future": future})
        }
        Meaning::Event(event, ms, future) => {
            let (partition, offset) = (record.partition, record.offset);
            let id = event["event_id"].as_str().map(str::to_owned);
            let severity = event["severity"].as_str().unwrap().to_ascii_lowercase();
            let items = ["raw", "alert"];
            let items = &items[..1 + usize::from(matches!(&*severity, "high" | "critical"))];
            json!({
                "record": "event", "log": log, "time_ms": ms, "series": oracle::series(&event), "future": future,
                "puts": items, "id": id.unwrap_or_else(|| format!("{}-{partition}-{offset}", world.name)),
            })
        }
    }
}

/// Returns the commits of the group, as Kafka keeps them.
fn commits(world: &World) -> impl Iterator<Item = Value> {
    let records = log::read(world.services, "__consumer_offsets");
    records.into_iter().filter_map(move |record| {
        let mut key = Bytes(record.key.as_deref()?);
        // Another version is not a commit.
        if key.number::<2>() > 1 {
            return None;
        }
        let (group, topic, partition) = (key.text(), key.text(), key.number::<4>());
        let mut value = Bytes(record.value.as_deref()?);
        if group != world.name || topic != world.name {
            return None;
        }
        let version = value.number::<2>();
        assert!(version <= 4, "a commit of version {version}");
        let next = value.number::<8>();
        if version >= 3 {
            value.number::<4>();
        }
        let metadata = match version {
            4 => value.compact_text(),
            _ => value.text(),
        };
        let ms = value.number::<8>();
        Some(json!({"commit": {"partition": partition, "next": next, "metadata": metadata, "ms": ms}}))
    })
}

/// Returns the dead letters, as Kafka keeps them.
fn letters(world: &World) -> impl Iterator<Item = Value> {
    let letters = log::read(world.services, &format!("{}-dlq", world.name));
    letters.into_iter().map(|letter| {
        let number = |name: &str| letter.header(name).unwrap().parse::<i64>().unwrap();
        let topic_id = letter.header("source_topic_id").unwrap();
        let log = format!("{topic_id}#{}", number("source_partition"));
        let offset = number("source_offset");
        json!({"letter": {"log": log, "offset": offset, "ms": letter.timestamp_ms}})
    })
}

/// Returns what the tables hold: fences, counts and progress items.
fn state(world: &World, tables_id: &str) -> Value {
    let (mut fences, mut counts, mut progress) = (Vec::new(), Vec::new(), Vec::new());
    for suffix in ["totals", "aggregations"] {
        for ((pk, sk), row) in tables::scan(world.services, world.name, suffix) {
            let number = |name: &str| row.get(name).map_or(0, |n| n.parse::<i64>().unwrap());
            if pk == "progress" {
                let max = row.get("max").map(|max| max.parse::<i64>().unwrap());
                let known = row.get("sums_next") == row.get("next");
                let sums = known.then(|| number("event_count") + number("late_count"));
                progress.push(json!([sk, number("next"), max, sums]));
            } else if suffix == "aggregations" || pk.starts_with("totals#") {
                let name = match suffix {
                    "totals" => json!(["totals", row["series"]]),
                    _ => {
                        let start: jiff::Timestamp = row["window_start"].parse().unwrap();
                        json!(["window", row["series"], start.as_millisecond()])
                    }
                };
                counts.push(json!([name, number("event_count") + number("late_count")]));
                let of_row = row.keys().filter_map(|name| name.strip_prefix("next#"));
                fences.extend(of_row.map(|log| json!([name, log, number(&format!("next#{log}"))])));
            }
        }
    }
    json!({"state": {"tables": tables_id, "fences": fences, "counts": counts, "progress": progress}})
}

/// The rest of a message in Kafka's encoding.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// Takes a signed number of `N` bytes.
    fn number<const N: usize>(&mut self) -> i64 {
        let (number, rest) = self.0.split_first_chunk::<N>().unwrap();
        self.0 = rest;
        let sign = if number[0] >= 128 { -1 } else { 0 };
        number
            .iter()
            .fold(sign, |n, byte| n << 8 | i64::from(*byte))
    }

    /// Takes a text after its length in two bytes.
    fn text(&mut self) -> String {
        let length = usize::try_from(self.number::<2>()).unwrap();
        self.text_of(length)
    }

    /// Takes a text after its length plus one, in seven bits to a byte, the lowest first.
    fn compact_text(&mut self) -> String {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.0[0];
            self.0 = &self.0[1..];
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return self.text_of(length - 1);
            }
            shift += 7;
        }
    }

    fn text_of(&mut self, length: usize) -> String {
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8(text.to_vec()).unwrap()
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn numbers_and_texts_are_read_as_kafka_writes_them() {
    let mut bytes = Bytes(b"\x00\x03NYC\xff\xff\xff\xfe\x00\x00\x00\x00\x00\x00\x01\x00");
    assert_eq!(bytes.text(), "NYC");
    assert_eq!(bytes.number::<4>(), -2);
    assert_eq!(bytes.number::<8>(), 256);
    let long = [&[0x83, 0x01][..], &[b'x'; 130]].concat();
    assert_eq!(Bytes(&long).compact_text(), "x".repeat(130));
    assert_eq!(Bytes(b"\x04NYC").compact_text(), "NYC");
}
