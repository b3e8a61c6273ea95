//! Tests of the orders in which docs/MIGRATION.md replaces the parts of the former system.
//!
//! A Kafka client that sends the former format stands for the former producer. A reader that accepts only JSON values
//! with the five fields stands for the Spark job.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::log::{self, Record};
use crate::role::{Role, wait_for};
use crate::services::Services;
use crate::tables::{self, Rows};
use crate::world::World;

const CITIES: [&str; 6] = ["NYC", "LA", "Chicago", "Boston", "Seattle", "SF"];
const TYPES: [&str; 4] = ["traffic", "weather", "incident", "construction"];
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];
const FIELDS: [&str; 5] = ["city", "event_type", "severity", "description", "timestamp"];

/// Creates the topic as the former system had it, with the producer's time.
fn former_topic(world: &World) {
    let config = [("message.timestamp.type", "CreateTime")];
    log::make_topic(world.services, world.name, (6, 1), &config);
}

/// Creates the three tables of the former system, with one row each.
fn former_tables(services: &Services, prefix: &str) {
    let client = services.dynamodb();
    for (suffix, pk, sk) in &tables::KEYS[..3] {
        let table = format!("{prefix}-{suffix}");
        let keys = [(*pk, KeyType::Hash), (*sk, KeyType::Range)];
        let keys = keys.into_iter().filter(|(name, _)| !name.is_empty());
        let mut create = client
            .create_table()
            .table_name(&table)
            .billing_mode(BillingMode::PayPerRequest);
        let mut put = client.put_item().table_name(&table);
        for (name, kind) in keys {
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S);
            let key = KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind);
            create = create
                .attribute_definitions(attribute.build().unwrap())
                .key_schema(key.build().unwrap());
            put = put.item(name, AttributeValue::S("2025-10-13T11:30:00".to_owned()));
        }
        services.block_on(create.send()).unwrap();
        let put = put.item("event_count", AttributeValue::N("7".to_owned()));
        services.block_on(put.send()).unwrap();
    }
}

fn rows(services: &Services, prefix: &str) -> Vec<Rows> {
    let scan = |(suffix, ..): &(&str, &str, &str)| tables::scan(services, prefix, suffix);
    tables::KEYS[..3].iter().map(scan).collect()
}

/// Sends events as the former producer did: five strings, whole seconds with a Z, the city as the key, the header of
/// its framework, and Java's partitioner.
fn former_producer(world: &World, count: usize) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", world.services.brokers())
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    for n in 0..count {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let timestamp = jiff::Timestamp::from_second(seconds.try_into().unwrap()).unwrap();
        let (city, event_type) = (CITIES[n % 6], TYPES[n / 6 % 4]);
        let severity = SEVERITIES[n / 24 % 4];
        let value = json!({
            "city": city,
            "event_type": event_type,
            "severity": severity,
            "description": format!("{severity} {event_type} detected"),
            "timestamp": timestamp.to_string(),
        })
        .to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: "__TypeId__",
            value: Some("com.citystream.model.CityEvent"),
        });
        let record = FutureRecord::to(world.name)
            .key(city)
            .payload(&value)
            .headers(headers);
        let sent = producer.send(record, Duration::from_secs(30));
        world.services.block_on(sent).unwrap();
    }
}

/// Returns how many events the former job reads, or `None` if a record would end it.
fn former_job(log: &[Record]) -> Option<usize> {
    let is_event = |record: &Record| {
        let value = serde_json::from_slice::<Value>(record.value.as_deref()?).ok()?;
        let texts = FIELDS.into_iter().filter(|field| value[*field].is_string());
        (record.key.is_some() && texts.count() == FIELDS.len()).then_some(())
    };
    log.iter().map(is_event).collect::<Option<Vec<()>>>()?;
    Some(log.len())
}

/// The options of `consume`, `serve` and `init-tables` next to the former system.
fn own(prefix: &str) -> [&str; 2] {
    ["--table-prefix", prefix]
}

fn consume(world: &World, prefix: &str) -> Role {
    let [option, prefix] = own(prefix);
    world.consume(&[option, prefix, "--group", prefix])
}

fn answer(serve: &mut Role, path: &str) -> Value {
    let (status, body) = wait_for("an answer", || serve.get(path));
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until the API shows this many events.
fn shows(serve: &mut Role, count: u64) {
    wait_for(&format!("{count} events to be shown"), || {
        let (status, body) = serve.get("/api/v1/stats")?;
        let stats: Value = serde_json::from_str(&body).unwrap();
        (status == 200 && stats["total_events_processed"] == count).then_some(())
    });
}

#[test]
#[ignore = "needs scripts/test-real"]
fn consume_serve_the_end_of_the_job_and_produce_replace_the_former_parts_in_this_order() {
    let world = World::new("former-system");
    let prefix = "new-of-former";
    former_topic(&world);
    former_tables(world.services, world.name);
    let before = rows(world.services, world.name);
    former_producer(&world, 60);

    // Step 1: `consume` runs next to the former job, whose tables stay as they are.
    let mut init = world.start("init-tables", &["--partitions", "6"]);
    init.ends_with(2);
    assert!(init.err().contains("nothing was changed"), "{}", init.err());
    let mut init = world.start("init-tables", &own(prefix));
    init.ends_with(0);
    let kept = "message.timestamp.type=CreateTime instead of LogAppendTime";
    assert!(init.out().contains(kept), "{}", init.out());
    let mut counting = consume(&world, prefix);

    // Step 2: `serve` replaces the API while the former job and producer continue.
    let mut serve = world.start("serve", &own(prefix));
    shows(&mut serve, 60);
    former_producer(&world, 60);
    shows(&mut serve, 120);
    assert_eq!(former_job(&world.log()), Some(120));
    let events = answer(&mut serve, "/api/v1/events/NYC?limit=1");
    for field in FIELDS {
        assert!(events["events"][0][field].is_string(), "{events}");
    }
    let alerts = answer(&mut serve, "/api/v1/alerts?city=NYC&hours=1");
    assert!(alerts["count"].as_u64() > Some(0), "{alerts}");
    // The way back, and forward again.
    assert_eq!(counting.terminate().0, Some(0), "{}", counting.err());
    former_producer(&world, 30);
    let mut counting = consume(&world, prefix);
    shows(&mut serve, 150);

    // Steps 3 and 4: the job is off, so heartbeats may begin.
    let args = ["--count", "90", "--rate", "30/s", "--heartbeat", "1s"];
    world.start("produce", &args).ends_with(0);
    shows(&mut serve, 240);
    assert_eq!(
        former_job(&world.log()),
        None,
        "it would fail on heartbeats"
    );
    former_producer(&world, 10);
    shows(&mut serve, 250);
    assert_eq!(counting.terminate().0, Some(0), "{}", counting.err());
    let [option, prefix] = own(prefix);
    world
        .start("verify", &[option, prefix, "--group", prefix])
        .ends_with(0);
    assert_eq!(rows(world.services, world.name), before);
    assert_eq!(tables::names(world.services, world.name).len(), 3);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn produce_without_heartbeats_replaces_the_former_producer_at_any_place() {
    let world = World::new("former-producer");
    let prefix = "new-producer";
    former_topic(&world);
    former_producer(&world, 48);
    let args = [
        "--count",
        "120",
        "--rate",
        "60/s",
        "--heartbeat",
        "off",
        "--uniform",
    ];
    world.start("produce", &args).ends_with(0);
    former_producer(&world, 12);
    let log = world.log();
    assert_eq!(former_job(&log), Some(180));
    for city in CITIES {
        let of_city = log
            .iter()
            .filter(|r| r.key.as_deref() == Some(city.as_bytes()));
        let mut partitions: Vec<i32> = of_city.map(|r| r.partition).collect();
        partitions.dedup();
        assert_eq!(partitions.len(), 1, "{city} lies in one partition");
    }
    world.start("init-tables", &own(prefix)).ends_with(0);
    let mut serve = world.start("serve", &own(prefix));
    let mut counting = consume(&world, prefix);
    shows(&mut serve, 180);
    assert_eq!(counting.terminate().0, Some(0), "{}", counting.err());

    // A second set of tables with windows of one minute counts the same log.
    let minutes = "minutes-of-former";
    let windows = ["--window", "1m", "--lateness", "2m"];
    let init = [&own(minutes)[..], &windows].concat();
    world.start("init-tables", &init).ends_with(0);
    let args = [&own(minutes)[..], &["--group", minutes, "--stop-at-end"]].concat();
    world.consume(&args).ends_with(0);
    let mut serve = world.start("serve", &own(minutes));
    let mut sum = 0;
    for event_type in TYPES {
        let path = format!("/api/v1/aggregations?city=NYC&event_type={event_type}&limit=60");
        for window in answer(&mut serve, &path)["aggregations"]
            .as_array()
            .unwrap()
        {
            let time = |name: &str| window[name].as_str().unwrap().parse::<jiff::Timestamp>();
            let length = time("window_end").unwrap() - time("window_start").unwrap();
            assert_eq!(length.as_secs(), 60, "{window}");
            sum += window["event_count"].as_u64().unwrap();
        }
    }
    let nyc = log
        .iter()
        .filter(|r| r.key.as_deref() == Some(b"NYC"))
        .count();
    assert_eq!(usize::try_from(sum).unwrap(), nyc);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn on_the_former_tables_consume_and_serve_wait_and_nothing_is_deleted() {
    let world = World::new("former-tables");
    former_topic(&world);
    former_tables(world.services, world.name);
    let before = rows(world.services, world.name);
    former_producer(&world, 6);
    for role in ["consume", "serve"] {
        let mut role = world.start(role, &[]);
        role.is_ready(503, "waiting");
        let todo = "citystream init-tables --table-prefix city2, and the same option here";
        wait_for("the remedy", || role.err().contains(todo).then_some(()));
        assert_eq!(role.get("/livez").unwrap().0, 200);
        assert_eq!(role.terminate().0, Some(0), "{}", role.err());
    }
    let mut delete = world.start("init-tables", &["--delete", "--yes"]);
    delete.ends_with(2);
    let refusal = "table former-tables-raw-events is not one of citystream's";
    assert!(delete.err().contains(refusal), "{}", delete.err());
    assert_eq!(rows(world.services, world.name), before);
}
