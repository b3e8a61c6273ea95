//! A broker, a database and consumers in this process, and what the tables must hold.
//!
//! The broker is librdkafka's mock cluster, the database is the embedded one, and the members run as in `consume`.
//! The world records every record that a test sends. [`World::want`] folds this log with the simulation's reference
//! model, which shares no code with the product.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use citystream::consume::RollupPace;
use citystream::core::clock::UnixMs;
use citystream::core::keys::TableNames;
use citystream::core::plan::RawRows;
use citystream::core::stall::PATIENCE_MS;
use citystream::core::time::{format_millis, format_seconds};
use citystream::exit::Exit;
use citystream::settings::{Cli, Command, Consume};
use citystream::store::client::{ConnectOptions, connect};
use citystream::store::embedded::embedded;
use citystream::store::rollups::Speed;
use citystream::tables::dynamodb::{WantedTables, ensure};
use citystream::tables::steps::StepDisplay;
use clap::Parser as _;
use dynoxide::Database;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::json;

use crate::broker::{Broker, start_brokers};
use crate::faults::Faults;
use crate::faulty;
use crate::member::Member;
use crate::process::Start as _;
use crate::reference::{Logged, Said, Tables, fold};
use crate::snapshot::{Snapshot, counts, s, same};

pub(crate) const TOPIC: &str = "city-events";
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(90);
/// Sends SIGTERM to a process.
pub(crate) fn terminate(child: &std::process::Child) {
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .finish();
    assert!(sent.unwrap().success());
}

/// 2013-01-01T06:00:00Z
pub(crate) const BASE_MS: i64 = 1_357_020_000_000;

/// Settings of every consumer whose test sets no session timeout of its own. In each rebalance but a group's first, the
/// mock waits for the session timeout less one second, so the default of 10 s would make every rebalance take 9 s.
const QUICK: [&str; 4] = [
    "--kafka-property",
    "session.timeout.ms=3300",
    "--kafka-property",
    "heartbeat.interval.ms=100",
];

pub(crate) struct World {
    pub(crate) broker: Broker,
    producer: BaseProducer,
    db: Database,
    pub(crate) client: Client,
    pub(crate) names: TableNames,
    logs: Mutex<Vec<Vec<Logged>>>,
}

/// A dead letter: headers in order, key, value.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Letter {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().rev().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

impl World {
    pub(crate) async fn new(partitions: i32) -> World {
        World::with(Database::memory().unwrap(), partitions, 1, RawRows::All).await
    }

    /// Makes a new log next to a database that may hold tables already.
    pub(crate) async fn with(db: Database, partitions: i32, brokers: i32, raw: RawRows) -> World {
        let broker = start_brokers(brokers);
        let copies = brokers.min(3);
        broker.create_topic(TOPIC, partitions, copies).unwrap();
        broker
            .create_topic(&format!("{TOPIC}-dlq"), 1, copies)
            .unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers())
            .set("linger.ms", "0")
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        let client = client(&db, None).await;
        let names = TableNames::new("citystream");
        let wanted = WantedTables {
            raw: Some(raw),
            ..WantedTables::default()
        };
        ensure(&client, &names, &wanted, &StepDisplay::silent())
            .await
            .unwrap();
        let logs = (0..partitions).map(|_| Vec::new()).collect();
        World {
            broker,
            producer,
            db,
            client,
            names,
            logs: Mutex::new(logs),
        }
    }

    /// Starts a consumer with more arguments.
    pub(crate) async fn member(&self, args: &[&str], faults: Option<&Arc<Faults>>) -> Member {
        self.member_with(args, faults, PATIENCE_MS).await
    }

    /// Starts a consumer that reports a stall after `stall_ms`.
    pub(crate) async fn member_with(
        &self,
        args: &[&str],
        faults: Option<&Arc<Faults>>,
        stall_ms: i64,
    ) -> Member {
        let client = client(&self.db, faults).await;
        Member::start(self.args(args), client, stall_ms)
    }

    /// Starts a consumer that rolls up hours soon, and that reaches the database through `http` if that is given.
    pub(crate) async fn member_rolling(&self, http: Option<SharedHttpClient>) -> Member {
        let pace = RollupPace {
            interval: Duration::from_millis(100),
            settle: Duration::ZERO,
            speed: Speed::Full,
        };
        let client = match http {
            Some(http) => client_through(http).await,
            None => client(&self.db, None).await,
        };
        Member::start_with(self.args(&[]), client, PATIENCE_MS, Some(pace))
    }

    fn args(&self, args: &[&str]) -> Consume {
        let servers = self.broker.bootstrap_servers();
        let fixed = ["citystream", "consume", "--brokers", &servers];
        let session = args
            .iter()
            .any(|arg| arg.starts_with("session.timeout.ms="));
        let quick = if session { &[][..] } else { &QUICK };
        let line = fixed.iter().chain(quick).chain(args);
        let Command::Consume(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!("the line says consume");
        };
        args
    }

    /// Returns the database, for another client.
    pub(crate) fn database(&self) -> Database {
        self.db.clone()
    }

    /// Sends a record and adds it to the expected log.
    pub(crate) fn send(
        &self,
        partition: usize,
        said: Said,
        timestamp_ms: i64,
        value: Option<&[u8]>,
        headers: &[(&str, &str)],
    ) {
        let mut own = OwnedHeaders::new();
        for (key, value) in headers {
            let value = Some(*value);
            own = own.insert(Header { key, value });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(TOPIC)
            .partition(i32::try_from(partition).unwrap())
            .timestamp(timestamp_ms)
            .key(b"a key")
            .headers(own);
        record.payload = value;
        self.producer.send(record).map_err(|(e, _)| e).unwrap();
        self.logs.lock().unwrap()[partition].push(Logged {
            said,
            timestamp_ms: Some(timestamp_ms),
        });
    }

    /// Sends an event whose record has the event's own time.
    pub(crate) fn event(
        &self,
        partition: usize,
        city: &'static str,
        kind: &'static str,
        severity: usize,
        time_ms: i64,
    ) {
        let names = ["low", "medium", "high", "critical"];
        let value = json!({
            "city": city, "event_type": kind, "severity": names[severity],
            "timestamp": format_millis(UnixMs(time_ms)), "description": "d",
        });
        let said = Said::Event(city, kind, severity, time_ms, None);
        let value = value.to_string();
        self.send(partition, said, time_ms, Some(value.as_bytes()), &[]);
    }

    /// Sends a line of the data file.
    pub(crate) fn line(&self, partition: usize, line: &str) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| -> &'static str { value[name].as_str().unwrap().to_owned().leak() };
        let severity = ["low", "medium", "high", "critical"]
            .iter()
            .position(|s| *s == text("severity"));
        let time: jiff::Timestamp = text("timestamp").parse().unwrap();
        let time_ms = time.as_millisecond();
        let said = Said::Event(
            text("city"),
            text("event_type"),
            severity.unwrap(),
            time_ms,
            value["event_id"].as_str().map(str::to_owned),
        );
        self.send(partition, said, time_ms, Some(line.as_bytes()), &[]);
    }

    /// Waits until Kafka has acknowledged everything.
    pub(crate) fn flush(&self) {
        self.producer.flush(WAIT_MAX).unwrap();
    }

    /// Returns the end offset of each partition.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let logs = self.logs.lock().unwrap();
        let ends = logs.iter().map(|log| i64::try_from(log.len()).unwrap());
        ends.collect()
    }

    fn asker(&self, group: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap_servers())
            .set("group.id", group)
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }

    /// Commits an offset as another tool does, without metadata.
    pub(crate) fn foreign_commit(&self, group: &str, partition: i32, next: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, partition, Offset::Offset(next))
            .unwrap();
        let mode = rdkafka::consumer::CommitMode::Sync;
        self.asker(group).commit(&list, mode).unwrap();
    }

    /// Commits an offset with the metadata of another commit.
    pub(crate) fn commit_with(&self, group: &str, next: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(TOPIC, 0);
        element.set_offset(Offset::Offset(next)).unwrap();
        element.set_metadata(metadata);
        let mode = rdkafka::consumer::CommitMode::Sync;
        self.asker(group).commit(&list, mode).unwrap();
    }

    /// Returns the metadata of a group's commit of partition 0.
    pub(crate) fn commit_text(&self, group: &str) -> String {
        let mut list = TopicPartitionList::new();
        list.add_partition(TOPIC, 0);
        let answer = self.asker(group).committed_offsets(list, WAIT_MAX).unwrap();
        let element = answer.find_partition(TOPIC, 0).unwrap();
        element.metadata().to_owned()
    }

    /// Waits until `group` has committed the end of every partition.
    pub(crate) async fn committed(&self, group: &str) {
        self.flush();
        let ends = self.ends();
        let asker = Arc::new(self.asker(group));
        let begun = Instant::now();
        loop {
            let mut list = TopicPartitionList::new();
            for partition in (0..).take(ends.len()) {
                list.add_partition(TOPIC, partition);
            }
            let (asking, timeout) = (Arc::clone(&asker), Duration::from_secs(10));
            let answer =
                tokio::task::spawn_blocking(move || asking.committed_offsets(list, timeout));
            let at: Vec<i64> = answer.await.unwrap().map_or_else(
                |_| Vec::new(),
                |list| {
                    let elements = list.elements();
                    let raw = elements.iter().map(|e| e.offset().to_raw().unwrap_or(-1));
                    raw.collect()
                },
            );
            let reached = |(at, end): (&i64, &i64)| *end == 0 || at >= end;
            if at.len() == ends.len() && at.iter().zip(&ends).all(reached) {
                return;
            }
            assert!(
                begun.elapsed() < WAIT_MAX,
                "committed {at:?}, the log ends at {ends:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns all dead letters.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        let consumer = self.asker("reads-the-letters");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&format!("{TOPIC}-dlq"), 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let mut letters = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < WAIT_MAX {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return letters,
                Some(Ok(message)) => {
                    let headers = message.headers().into_iter().flat_map(|h| h.iter());
                    let text = |v: Option<&[u8]>| String::from_utf8(v.unwrap_or_default().to_vec());
                    letters.push(Letter {
                        headers: headers
                            .map(|h| (h.key.to_owned(), text(h.value).unwrap()))
                            .collect(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                    });
                }
                Some(Err(_)) | None => {}
            }
        }
        panic!("the end of the dead-letter topic was not reached");
    }

    /// Returns the contents of the tables and of the dead-letter topic.
    pub(crate) async fn got(&self) -> Snapshot {
        let mut out = Snapshot::default();
        let letters = tokio::task::block_in_place(|| self.letters());
        out.dead = letters
            .iter()
            .map(|l| {
                let number = |name: &str| l.header(name).parse::<i64>().unwrap();
                let partition = i32::try_from(number("source_partition")).unwrap();
                (partition, number("source_offset"))
            })
            .collect();
        for item in self.scan(&self.names.raw).await {
            out.raw
                .insert((s(&item, "event_id"), s(&item, "timestamp")));
        }
        for item in self.scan(&self.names.alerts).await {
            out.alerts.insert((s(&item, "city"), s(&item, "timestamp")));
        }
        for item in self.scan(&self.names.aggregations).await {
            let counts = counts(&item);
            let names = ["low", "medium", "high", "critical"];
            let distinct = names.iter().zip(counts.severities).filter(|(_, n)| *n > 0);
            let mut set = item["severities"].as_ss().unwrap().clone();
            set.sort_by_key(|name| names.iter().position(|n| n == name));
            assert_eq!(
                set,
                distinct.map(|(name, _)| *name).collect::<Vec<_>>(),
                "{item:?}"
            );
            let key = (s(&item, "series"), Some(s(&item, "window_start")));
            out.rows.insert(key, counts);
        }
        for item in self.scan(&self.names.totals).await {
            if s(&item, "shard").starts_with("totals#") {
                out.rows.insert((s(&item, "series"), None), counts(&item));
            }
        }
        out
    }

    /// Returns what they must hold, by a fold over the log.
    pub(crate) fn want(&self) -> Snapshot {
        let mut tables = Tables::default();
        let logs = self.logs.lock().unwrap();
        for (partition, log) in (0..).zip(logs.iter()) {
            fold(&mut tables, "", partition, log);
        }
        let rows = tables.rows.into_iter();
        let alert = |(city, ms, id): (String, i64, String)| {
            (city, format!("{}#{id}", format_millis(UnixMs(ms))))
        };
        Snapshot {
            rows: rows
                .map(|((series, start), counts)| {
                    ((series, start.map(|ms| format_seconds(UnixMs(ms)))), counts)
                })
                .collect(),
            raw: tables
                .raw
                .into_iter()
                .map(|(id, ms)| (id, format_millis(UnixMs(ms))))
                .collect(),
            alerts: tables.alerts.into_iter().map(alert).collect(),
            dead: tables
                .dead
                .into_iter()
                .map(|(_, p, o)| (p, i64::try_from(o).unwrap()))
                .collect(),
        }
    }

    /// Compares the tables with the fold.
    pub(crate) async fn check(&self) {
        same(&self.got().await, &self.want());
    }

    /// Returns all items of a table.
    pub(crate) async fn items(&self, table: &str) -> Vec<HashMap<String, AttributeValue>> {
        self.scan(table).await
    }

    /// Returns all items of the raw table.
    pub(crate) async fn raw_items(&self) -> Vec<HashMap<String, AttributeValue>> {
        self.scan(&self.names.raw).await
    }

    async fn scan(&self, table: &str) -> Vec<HashMap<String, AttributeValue>> {
        let mut out = Vec::new();
        let mut from = None;
        loop {
            let page = self
                .client
                .scan()
                .table_name(table)
                .set_exclusive_start_key(from)
                .send()
                .await
                .unwrap();
            out.extend(page.items().iter().cloned());
            from = page.last_evaluated_key().cloned();
            if from.is_none() {
                return out;
            }
        }
    }
}

async fn client(db: &Database, faults: Option<&Arc<Faults>>) -> Client {
    let plain = embedded(db.clone());
    client_through(faults.map_or(plain.clone(), |f| faulty::wrap(f, plain))).await
}

/// Returns a client that sends through `http`.
pub(crate) async fn client_through(http: SharedHttpClient) -> Client {
    connect(ConnectOptions {
        attempts: 1,
        http: Some(http),
        endpoint_url: Some("http://embedded.invalid".to_owned()),
        test_credentials: true,
        ..ConnectOptions::default()
    })
    .await
    .unwrap()
}

/// Returns the first lines of the recorded data.
pub(crate) fn data_lines(count: usize) -> Vec<String> {
    use std::io::BufRead as _;
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/data/city-events-2013-01.ndjson.gz"
    );
    let file = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    let lines = std::io::BufReader::new(file).lines().take(count);
    lines.map(Result::unwrap).collect()
}

/// Returns whether an error makes the program exit with 2.
pub(crate) fn is_settings(error: &anyhow::Error) -> bool {
    Exit::of(error) == Exit::Settings
}
