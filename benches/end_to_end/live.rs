//! A consumer that keeps up: how soon an event can be read, what it costs, and what the API serves.
//!
//! This process sends events at a steady rate, so it knows when it sent each one. It then reads the table until the
//! event is there. So a latency includes one response of DynamoDB Local, and for a row the time between two reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use citystream::core::clock::UnixMs;
use citystream::core::keys::{self, TableNames};
use citystream::core::time::format_millis;
use citystream::core::window::Rules;
use citystream::store::client::{ConnectOptions, connect};
use citystream::telemetry::unix_ms;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::{Server, get, metric, peak_mib_of};
use crate::report::Row;
use crate::scenarios::Size;
use crate::world::{Log, Shape, World};

const RATE: u64 = 1_000;
const SECONDS: u64 = 15;
/// One event of this many is observed.
const WATCHED_EVERY: u64 = 50;

type Producer = ThreadedProducer<DefaultProducerContext>;

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    let at = (values.len() as f64 * share) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

pub(crate) fn rows(w: &World, _: &Size) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let client = runtime.block_on(connect(ConnectOptions {
        endpoint_url: Some(w.local().to_owned()),
        test_credentials: true,
        ..ConnectOptions::default()
    }))?;
    let log = w.log("live", Shape::plain(0))?;
    let producer: Producer = ClientConfig::new()
        .set("bootstrap.servers", w.brokers())
        .set("linger.ms", "5")
        .create()?;
    let mut rows = Vec::new();

    let consumer = consumer(w, &log, "live", &[])?;
    rows.extend(steady(&runtime, &client, &producer, &consumer)?);
    drop(consumer);
    for (what, target, interval, rate, count) in [
        (
            "write units an event, 1 event in a while",
            "≤ 5.5",
            "250ms",
            1,
            12,
        ),
        (
            "write units an event at 1,000/s",
            "≤ 3.25",
            "250ms",
            RATE,
            RATE * 10,
        ),
        (
            "write units an event at 1,000/s, `--row-interval 5s`",
            "≤ 3.05",
            "5s",
            RATE,
            RATE * 10,
        ),
    ] {
        let prefix = format!("units-{interval}-{rate}");
        let before = consumer_of_new_tables(w, &log, &prefix, interval)?;
        let units = before.1;
        send(&producer, rate, count, |_, _| {})?;
        let done = || counted(&before.0).map(|n| n - units.0);
        #[allow(clippy::cast_precision_loss)]
        let wanted = count as f64;
        wait_for("the events to be counted", || Ok(done()? >= wanted))?;
        std::thread::sleep(Duration::from_millis(300));
        let spent = spent(&before.0)? - units.1;
        rows.push(Row::new(what, format!("{:.2}", spent / wanted), target));
    }
    rows.extend(api(w, &runtime)?);
    Ok(rows)
}

fn consumer(w: &World, log: &Log, prefix: &str, more: &[&str]) -> anyhow::Result<Server> {
    w.init(prefix, &log.topic, &[])?;
    let consumer = Server::start(w.consumer(log, prefix, w.local()).args(more))?;
    wait_for("the consumer to be ready", || {
        Ok(get(&consumer.url, "/readyz")?.contains("ok"))
    })?;
    Ok(consumer)
}

/// A consumer that has caught up, and what it counted and spent until then.
fn consumer_of_new_tables(
    w: &World,
    log: &Log,
    prefix: &str,
    interval: &str,
) -> anyhow::Result<(Server, (f64, f64))> {
    let consumer = consumer(w, log, prefix, &["--row-interval", interval])?;
    let mut last = (-1.0, -1.0);
    wait_for("the log to be read", || {
        std::thread::sleep(Duration::from_millis(1_500));
        let now = (counted(&consumer)?, spent(&consumer)?);
        Ok(std::mem::replace(&mut last, now) == now)
    })?;
    Ok((consumer, last))
}

fn counted(consumer: &Server) -> anyhow::Result<f64> {
    Ok(metric(
        &get(&consumer.url, "/metrics")?,
        "citystream_events_counted_total",
    ))
}

/// Write units, including those of progress items: one per window and partition.
fn spent(consumer: &Server) -> anyhow::Result<f64> {
    let text = get(&consumer.url, "/metrics")?;
    let name = "citystream_dynamodb_consumed_capacity_units_total";
    let lines = text.lines().filter(|l| l.starts_with(name));
    Ok(metric(&lines.collect::<Vec<_>>().join("\n"), name))
}

fn wait_for(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done()? {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(120),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends `count` events. Calls `sent` before each event.
fn send(
    producer: &Producer,
    rate: u64,
    count: u64,
    mut sent: impl FnMut(u64, UnixMs),
) -> anyhow::Result<()> {
    let began = Instant::now();
    for n in 0..count {
        let due = began + Duration::from_micros(n * 1_000_000 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now_ms = unix_ms();
        let severity = ["low", "medium", "high", "critical"][usize::try_from(n % 4)?];
        let value = format!(
            r#"{{"event_id":"live-{n}","timestamp":"{}","city":"City-{}","event_type":"traffic","severity":"{severity}","description":"congestion on the ring road, expect delays"}}"#,
            format_millis(now_ms),
            n % 6,
        );
        sent(n, now_ms);
        producer
            .send(BaseRecord::to("live").key("k").payload(&value))
            .map_err(|(error, _)| error)?;
    }
    producer.flush(Duration::from_secs(10))?;
    Ok(())
}

/// Sends 1,000 events per second and measures the latency of raw items and of a window's row, and the memory.
fn steady(
    runtime: &tokio::runtime::Runtime,
    client: &Client,
    producer: &Producer,
    consumer: &Server,
) -> anyhow::Result<Vec<Row>> {
    let names = Arc::new(TableNames::new("live"));
    let window_ms = Rules::default().window_start(unix_ms());
    // The first second warms up connections and code.
    send(producer, RATE, RATE, |_, _| {})?;
    std::thread::sleep(Duration::from_secs(1));
    let raw = Arc::new(Mutex::new(Vec::new()));
    send(producer, RATE, RATE * SECONDS, |n, time_ms| {
        if n % WATCHED_EVERY == 7 {
            let (client, names, raw) = (client.clone(), Arc::clone(&names), Arc::clone(&raw));
            runtime.spawn(async move {
                let began = Instant::now();
                if watch_item(&client, &names, n, time_ms).await {
                    let ms = began.elapsed().as_secs_f64() * 1e3;
                    raw.lock().expect("not poisoned").push(ms);
                }
            });
        }
    })?;
    // The row is measured afterwards, because reading it all the time would slow down the items.
    let first = i64::try_from(RATE.div_ceil(6) + (RATE * SECONDS).div_ceil(6))?;
    // When each event of the observed series was sent, after the earlier ones.
    let went = Arc::new(Mutex::new(Vec::<Instant>::new()));
    let total = usize::try_from((RATE * SECONDS).div_ceil(6))?;
    let watched = Watched {
        window_ms,
        first,
        total,
        went: Arc::clone(&went),
    };
    let row = runtime.spawn(watch_row(client.clone(), Arc::clone(&names), watched));
    send(producer, RATE, RATE * SECONDS, |n, _| {
        if n % 6 == 0 {
            went.lock().expect("not poisoned").push(Instant::now());
        }
    })?;
    let mut row = runtime.block_on(row)??;
    std::thread::sleep(Duration::from_secs(1));
    let mut raw = raw.lock().expect("not poisoned");
    let peak = peak_mib_of(consumer.pid()).context("the consumer is gone")?;
    let shown = |v: &mut [f64]| {
        let (p50, p99) = (percentile(v, 0.5), percentile(v, 0.99));
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms ({} watched)", v.len())
    };
    Ok(vec![
        Row::new(
            "1,000 events/s: sent → raw item readable",
            shown(&mut raw),
            "p50 ≤ 15 ms, p99 ≤ 100 ms",
        ),
        Row::new(
            "1,000 events/s: sent → in the window's row",
            shown(&mut row),
            "p99 ≤ 350 ms",
        ),
        Row::new(
            "peak memory at 1,000 events/s",
            format!("{peak:.0} MiB"),
            "≤ 64 MiB",
        ),
    ])
}

/// Reads a raw item until it exists.
async fn watch_item(client: &Client, names: &TableNames, n: u64, time_ms: UnixMs) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        let answer = client
            .get_item()
            .table_name(&names.raw)
            .key("event_id", AttributeValue::S(format!("live-{n}")))
            .key("timestamp", AttributeValue::S(format_millis(time_ms)))
            .consistent_read(true)
            .send()
            .await;
        if answer.is_ok_and(|a| a.item.is_some()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

/// A series whose events are sent at known times.
struct Watched {
    /// The start of its first window. The next window counts, too.
    window_ms: UnixMs,
    /// Events that were counted before.
    first: i64,
    /// Events that are sent.
    total: usize,
    went: Arc<Mutex<Vec<Instant>>>,
}

/// Reads the row until it has all events. Returns how long each event took to be in it, in ms.
async fn watch_row(
    client: Client,
    names: Arc<TableNames>,
    watched: Watched,
) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::new();
    let began = Instant::now();
    while took.len() < watched.total && began.elapsed() < Duration::from_secs(60 + SECONDS) {
        let mut count = -watched.first;
        for window_ms in [watched.window_ms, watched.window_ms + 300_000] {
            let key = keys::window_key(&keys::series("City-0", "traffic"), window_ms);
            let answer = client
                .get_item()
                .table_name(&names.aggregations)
                .key("partition_key", AttributeValue::S(key))
                .consistent_read(true)
                .send()
                .await?;
            let item: HashMap<_, _> = answer.item.unwrap_or_default();
            let n = item.get("event_count").and_then(|v| v.as_n().ok());
            count += n.map_or(Ok(0), |n| n.parse::<i64>())?;
        }
        let now = Instant::now();
        {
            let went = watched.went.lock().expect("not poisoned");
            let seen = usize::try_from(count.max(0))?.min(went.len());
            for at in went.get(took.len()..seen).unwrap_or_default() {
                took.push((now - *at).as_secs_f64() * 1e3);
            }
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    Ok(took)
}

/// Measures the API on the tables that the steady rate filled.
fn api(w: &World, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Vec<Row>> {
    let server =
        Server::start(
            w.citystream("serve")
                .args(["--port", "0", "--table-prefix", "live"]),
        )?;
    let address = server.url.trim_start_matches("http://").to_owned();
    let (count, mut ms) = runtime.block_on(load(&address, 64, Duration::from_secs(5), |_| {
        "/api/v1/stats".to_owned()
    }))?;
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / 5_000.0;
    let stats = format!("{rate:.1} k/s, p99 {:.1} ms", percentile(&mut ms, 0.99));
    // Each limit gives a different response, so that none comes from the cache.
    let (_, mut ms) = runtime.block_on(load(&address, 1, Duration::from_secs(5), |n| {
        format!("/api/v1/events/City-{}?limit={}", n % 6, 20 + n / 6 % 500)
    }))?;
    let p99 = percentile(&mut ms, 0.99);
    let events = format!("p50 {:.1} ms, p99 {p99:.1} ms", percentile(&mut ms, 0.5));
    Ok(vec![
        Row::new(
            "`/api/v1/stats`, 64 connections",
            stats,
            "≥ 30 k/s, p99 ≤ 10 ms",
        ),
        Row::new(
            "`/api/v1/events/{city}`, never from memory",
            events,
            "p99 ≤ 25 ms",
        ),
    ])
}

/// Sends requests over several connections, each as soon as the last response has arrived. Returns the number of
/// responses, and the time of each in ms.
async fn load(
    address: &str,
    connections: usize,
    time: Duration,
    path: fn(u64) -> String,
) -> anyhow::Result<(usize, Vec<f64>)> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let address = address.to_owned();
        tasks.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let (mut took, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            let began = Instant::now();
            let mut n = 0;
            while began.elapsed() < time {
                let asked = Instant::now();
                let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path(n));
                n += 1;
                stream.write_all(request.as_bytes()).await?;
                let mut answer = Vec::new();
                while !is_whole(&answer) {
                    let got = stream.read(&mut buffer).await?;
                    anyhow::ensure!(got > 0, "the server closed a connection");
                    answer.extend_from_slice(&buffer[..got]);
                }
                let status = answer.get(9..12).unwrap_or_default();
                anyhow::ensure!(status == b"200", "{}", String::from_utf8_lossy(&answer));
                took.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            Ok(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    Ok((all.len(), all))
}

/// Returns whether a response has all the bytes that its head promises.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| answer.len() >= end + 4 + length)
}
