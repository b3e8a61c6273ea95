//! The proxy's record of every request: what it forwarded, what DynamoDB answered, and what the sender received.
//!
//! If log and tables differ, this record tells whose fault it is. DynamoDB Local is at fault if its tables lack what
//! it confirmed, or if its responses contradict their requests. Otherwise the program is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use citystream::telemetry::unix_ms;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::lies::Answer;
use crate::tables::{KEYS, Rows};

/// Most findings in a report.
const SHOWN_MAX: usize = 5;

/// When the proxy did something: its place in the order of all that the proxy did, and the time in Unix ms.
#[derive(Clone, Copy, Debug)]
struct Moment(u64, i64);

impl Moment {
    fn now() -> Moment {
        static ORDER: AtomicU64 = AtomicU64::new(0);
        let order = ORDER.fetch_add(1, Ordering::SeqCst);
        Moment(order, unix_ms().0)
    }

    /// Returns this moment and what happened then, as the account shows it.
    fn with(self, what: Value) -> Value {
        json!({"order": self.0, "ms": self.1, "what": what})
    }
}

#[derive(Debug)]
struct Exchange {
    asked: (Moment, Bytes),
    /// The forwarded request: perhaps only a part of a batch, and nothing if the request was lost.
    sent_on: Option<(Moment, Bytes)>,
    answered: Option<(Moment, Answer)>,
    handed_on: Option<(Moment, Answer)>,
}

/// One request's entry in the account.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    operation: Arc<str>,
    exchange: Arc<Mutex<Exchange>>,
}

impl Entry {
    pub(crate) fn operation(&self) -> &str {
        &self.operation
    }

    pub(crate) fn send_on(&self, request: Bytes) {
        self.exchange.lock().unwrap().sent_on = Some((Moment::now(), request));
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        self.exchange.lock().unwrap().answered = Some((Moment::now(), answer.clone()));
    }

    /// Records the response that the sender got, or `None` if its connection was cut.
    pub(crate) fn hand_on(&self, answer: Option<&Answer>) {
        let handed_on = answer.map(|answer| (Moment::now(), answer.clone()));
        self.exchange.lock().unwrap().handed_on = handed_on;
    }

    /// Returns the request that DynamoDB got, the status of its response, and the response.
    fn done(&self) -> Option<(Value, u16, Value)> {
        let exchange = self.exchange.lock().unwrap();
        let ((_, sent), (_, answer)) = (exchange.sent_on.as_ref()?, exchange.answered.as_ref()?);
        let parse = |body: &[u8]| serde_json::from_slice(body).unwrap_or_default();
        Some((parse(sent), answer.status, parse(&answer.body)))
    }
}

/// Every request since the proxy started.
#[derive(Debug, Default)]
pub(crate) struct Account {
    entries: Mutex<Vec<Entry>>,
}

impl Account {
    /// Opens the entry of a request.
    pub(crate) fn begin(&self, operation: &str, request: Bytes) -> Entry {
        let exchange = Exchange {
            asked: (Moment::now(), request),
            sent_on: None,
            answered: None,
            handed_on: None,
        };
        let entry = Entry {
            operation: operation.into(),
            exchange: Arc::new(Mutex::new(exchange)),
        };
        self.entries.lock().unwrap().push(entry.clone());
        entry
    }

    fn done(&self, operation: &str) -> Vec<(Value, u16, Value)> {
        let entries = self.entries.lock().unwrap();
        let of = entries
            .iter()
            .filter(|entry| &*entry.operation == operation);
        of.filter_map(Entry::done).collect()
    }

    /// Returns the responses to row updates that contradict their requests.
    pub(crate) fn wrong_answers(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (request, status, answer) in self.done("UpdateItem") {
            let values = &request["ExpressionAttributeValues"];
            let Some(first) = offset(&values[":first"]) else {
                continue;
            };
            let fence = request["ExpressionAttributeNames"]["#f"].as_str().unwrap();
            let is_right = match status {
                // A request without `ReturnValues` gets no attributes.
                200 if request.get("ReturnValues").is_none() => true,
                200 => offset(&answer["Attributes"][fence]) == offset(&values[":next"]),
                400 if answer.get("Item").is_some() => {
                    offset(&answer["Item"][fence]).is_some_and(|at| at > first)
                }
                _ => true,
            };
            if !is_right && wrong.len() < SHOWN_MAX {
                wrong.push(format!("{request} {status} {answer}"));
            }
        }
        wrong
    }

    /// Returns the writes that DynamoDB confirmed but that `scan` of the table does not show. Writes without a
    /// response may appear in addition.
    pub(crate) fn lost_writes(&self, scan: &dyn Fn(&str) -> Rows) -> Vec<String> {
        let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
        let mut rows_of = |table: &str| -> Rows {
            let rows = tables.entry(table.to_owned());
            rows.or_insert_with(|| scan(table)).clone()
        };
        let mut lost = Vec::new();
        for (table, counts) in self.told_counts() {
            let rows = rows_of(&table);
            for (key, told) in counts {
                let holds = rows.get(&key).map_or(0, |row| {
                    let count = |name: &str| row.get(name).map_or(0, |n| n.parse().unwrap());
                    count("event_count") + count("late_count")
                });
                if holds < told {
                    lost.push(format!("{table} {key:?} counted {told} and holds {holds}"));
                }
            }
        }
        for (table, keys) in self.told_puts() {
            let rows = rows_of(&table);
            let missing = keys.into_iter().filter(|key| !rows.contains_key(key));
            lost.extend(missing.map(|key| format!("{table} {key:?} was put and is not there")));
        }
        lost.truncate(SHOWN_MAX);
        lost
    }

    /// For each table and key, the events that DynamoDB confirmed as counted.
    fn told_counts(&self) -> BTreeMap<String, BTreeMap<(String, String), u64>> {
        let mut told: BTreeMap<String, BTreeMap<_, u64>> = BTreeMap::new();
        for (request, status, _) in self.done("UpdateItem") {
            let values = &request["ExpressionAttributeValues"];
            let table = request["TableName"].as_str().unwrap();
            if status != 200 || values.get(":first").is_none() {
                continue;
            }
            let count = |name: &str| offset(&values[name]).map_or(0, i64::unsigned_abs);
            let counts = told.entry(table.to_owned()).or_default();
            *counts.entry(key(table, &request["Key"])).or_default() += count(":n") + count(":l");
        }
        told
    }

    /// For each table, the keys of items that DynamoDB confirmed as stored.
    fn told_puts(&self) -> BTreeMap<String, Vec<(String, String)>> {
        let mut told: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (request, status, answer) in self.done("BatchWriteItem") {
            let batch = request["RequestItems"].as_object();
            for (table, puts) in batch.into_iter().flatten().filter(|_| status == 200) {
                let keys = |puts: &Value| -> Vec<(String, String)> {
                    let puts = puts.as_array().into_iter().flatten();
                    puts.map(|put| key(table, &put["PutRequest"]["Item"]))
                        .collect()
                };
                let left = keys(&answer["UnprocessedItems"][table]);
                let stored = keys(puts).into_iter().filter(|key| !left.contains(key));
                told.entry(table.clone()).or_default().extend(stored);
            }
        }
        told
    }

    /// Returns the account as lines of JSON.
    pub(crate) fn lines(&self) -> String {
        let text = |(at, body): &(Moment, Bytes)| at.with(String::from_utf8_lossy(body).into());
        let answer = |(at, answer): &(Moment, Answer)| {
            let body = String::from_utf8_lossy(&answer.body);
            at.with(json!({"status": answer.status, "body": body}))
        };
        let mut lines = String::new();
        for entry in &*self.entries.lock().unwrap() {
            let exchange = entry.exchange.lock().unwrap();
            let line = json!({
                "operation": &*entry.operation,
                "asked": text(&exchange.asked),
                "sent_on": exchange.sent_on.as_ref().map(text),
                "answered": exchange.answered.as_ref().map(answer),
                "handed_on": exchange.handed_on.as_ref().map(answer),
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        lines
    }
}

/// Returns the number in an attribute.
fn offset(attribute: &Value) -> Option<i64> {
    attribute["N"].as_str()?.parse().ok()
}

/// Returns the key of an item in a table.
fn key(table: &str, item: &Value) -> (String, String) {
    let (_, pk, sk) = *KEYS
        .iter()
        .find(|(suffix, ..)| table.ends_with(suffix))
        .unwrap();
    let text = |name: &str| item[name]["S"].as_str().unwrap_or_default().to_owned();
    (text(pk), text(sk))
}
