//! Ceilings: what the same libraries achieve without the program around them, the most that any consumer could reach.
//!
//! `read` takes and parses records as the consumer thread does. `write` puts the raw items and alerts of the same
//! events with a fixed number of requests in flight, once with the SDK's typed items, once with the body written into
//! one buffer. Each runs in its own process and prints one line of JSON with its work, its duration and its CPU time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use citystream::core::clock::UnixMs;
use citystream::core::event::{Event, Offset};
use citystream::core::keys::{self, TableNames};
use citystream::core::parse::parse_event;
use citystream::core::plan::{PutTable, StoredEvent};
use citystream::core::time::format_millis;
use citystream::store::client::{ConnectOptions, connect};
use citystream::store::items::{ItemOptions, batch_body, table_name};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _};

use crate::process::cpu_seconds_of;
use crate::text::Events;

/// Puts in one request and requests in flight, as in the product.
const BATCH: usize = 25;

#[allow(clippy::print_stdout)]
fn print_result(count: u64, seconds: f64, cpu: f64) {
    println!(
        "{}",
        serde_json::json!({"count": count, "seconds": seconds, "cpu": cpu})
    );
}

fn own_cpu() -> f64 {
    cpu_seconds_of(std::process::id()).unwrap_or_default()
}

/// Reads `count` records of a topic and parses them.
pub(crate) fn read(brokers: &str, topic: &str, count: u64) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("ceiling-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    consumer.subscribe(&[topic])?;
    let (mut done, mut started, mut cpu) = (0, Instant::now(), own_cpu());
    let mut length = 0;
    let mut came = Instant::now();
    while done < count {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            anyhow::ensure!(
                came.elapsed() < Duration::from_secs(30),
                "no record for 30 s"
            );
            continue;
        };
        let message = message?;
        came = Instant::now();
        if done == 0 {
            (started, cpu) = (Instant::now(), own_cpu());
        }
        let event = parse_event(message.payload().unwrap_or_default())
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        length += event.city.len();
        done += 1;
    }
    std::hint::black_box(length);
    print_result(done, started.elapsed().as_secs_f64(), own_cpu() - cpu);
    Ok(())
}

/// Puts the raw items and alerts of `count` events.
pub(crate) async fn write(
    endpoint: &str,
    names: &TableNames,
    count: u64,
    in_flight: usize,
    typed: bool,
) -> anyhow::Result<()> {
    let options = ConnectOptions {
        attempts: 1,
        endpoint_url: Some(endpoint.to_owned()),
        test_credentials: true,
        ..ConnectOptions::default()
    };
    let client = connect(options).await?;
    let names = Arc::new(names.clone());
    let items = ItemOptions {
        shards: 4,
        raw_ttl_ms: 86_400_000,
        alert_ttl_ms: None,
        window_ms: 300_000,
    };
    let permits = Arc::new(tokio::sync::Semaphore::new(in_flight));
    let mut events = Events::new(6, 163, 1_760_000_000_000, 0);
    let mut line = String::new();
    let (mut raw, mut alerts) = (Vec::new(), Vec::new());
    let (started, cpu) = (Instant::now(), own_cpu());
    for n in 0..count {
        events.next(&mut line);
        let event: Event = parse_event(line.as_bytes()).map_err(|e| anyhow::anyhow!("{e}"))?;
        let alert = event.severity.is_alert();
        let offset = Offset(i64::try_from(n)?);
        let stored = StoredEvent::new(event, "city-events".into(), 0, offset, false, false);
        let stored = Arc::new(stored);
        if alert {
            alerts.push(Arc::clone(&stored));
        }
        raw.push(stored);
        let last = n + 1 == count;
        for (table, queue) in [(PutTable::Raw, &mut raw), (PutTable::Alerts, &mut alerts)] {
            if queue.is_empty() || (queue.len() < BATCH && !last) {
                continue;
            }
            let batch = std::mem::replace(queue, Vec::with_capacity(BATCH));
            let permit = Arc::clone(&permits).acquire_owned().await?;
            let (client, names) = (client.clone(), Arc::clone(&names));
            tokio::spawn(async move {
                let sent = put_batch(&client, &names, items, table, &batch, typed).await;
                assert!(
                    matches!(sent, Ok(0)),
                    "the sink did not take everything: {sent:?}"
                );
                drop(permit);
            });
        }
    }
    let all = permits.acquire_many(u32::try_from(in_flight)?).await?;
    print_result(count, started.elapsed().as_secs_f64(), own_cpu() - cpu);
    drop(all);
    Ok(())
}

/// Puts a batch, and returns how many tables have unprocessed items.
async fn put_batch(
    client: &Client,
    names: &TableNames,
    items: ItemOptions,
    table: PutTable,
    batch: &[Arc<StoredEvent>],
    typed: bool,
) -> anyhow::Result<usize> {
    let request = client.batch_write_item();
    let sent = if typed {
        let puts = batch.iter().map(|e| typed_put(table, e)).collect();
        let request = request.request_items(table_name(names, table), puts);
        request.send().await?
    } else {
        let events = batch.iter().map(|e| &**e);
        let body = Bytes::from(batch_body(names, table, events, &items, UnixMs(0)));
        request
            .customize()
            .mutate_request(move |request| {
                let headers = request.headers_mut();
                headers.insert("content-length", body.len().to_string());
                *request.body_mut() = SdkBody::from(body.clone());
            })
            .send()
            .await?
    };
    Ok(sent.unprocessed_items().map_or(0, |tables| tables.len()))
}

fn typed_put(table: PutTable, e: &StoredEvent) -> WriteRequest {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let time = format_millis(e.event.time_ms);
    let put = PutRequest::builder()
        .item("city", s(&e.event.city))
        .item("event_id", s(&e.event_id))
        .item("event_type", s(&e.event.event_type))
        .item("severity", s(e.event.severity.name()))
        .item("description", s(&e.event.description))
        .item("processing_time", s(&format_millis(UnixMs(0))));
    let put = match table {
        PutTable::Raw => put
            .item("timestamp", s(&time))
            .item("ttl", AttributeValue::N("1765000000".to_owned()))
            .item(
                "source",
                s(&format!("{}/{}/{}", e.topic, e.partition, e.offset)),
            )
            .item(
                "city_shard",
                s(&keys::city_shard(&e.event.city, &e.event_id, 4)),
            ),
        PutTable::Alerts => put
            .item(
                "timestamp",
                s(&keys::alert_sk(e.event.time_ms, &e.event_id)),
            )
            .item("event_time", s(&time))
            .item(
                "severity_shard",
                s(&keys::severity_shard(e.event.severity, &e.event_id, 4)),
            ),
    };
    let put = put.build().expect("the item is set");
    WriteRequest::builder().put_request(put).build()
}
