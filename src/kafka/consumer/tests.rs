//! Tests the consumer thread with librdkafka's mock cluster.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use std::collections::BTreeMap;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A mock broker with one topic of one partition, and a consumer of that topic.
struct Bed {
    broker: MockCluster<'static, DefaultProducerContext>,
    consumer: Consumer,
    events: UnboundedReceiver<ConsumerEvent>,
}

impl Bed {
    fn new() -> Bed {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t", 1, 1).expect("a topic");
        Bed::on(broker, &[])
    }

    fn on(broker: MockCluster<'static, DefaultProducerContext>, more: &[(&str, &str)]) -> Bed {
        let (events_in, events) = tokio::sync::mpsc::unbounded_channel();
        let options = ConsumerOptions {
            topic: "t".to_owned(),
            drain_max: Duration::from_secs(1),
            budget: Arc::new(Budget::new(1 << 30)),
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", broker.bootstrap_servers())
            .set("group.id", "g")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true");
        for (name, value) in more {
            config.set(*name, *value);
        }
        let consumer = Consumer::start(&config, options, events_in).expect("fine settings");
        Bed {
            broker,
            consumer,
            events,
        }
    }

    /// Sends the given number of records, each with the same value and header.
    fn send(&self, count: usize, value: Option<&str>, header: &str) {
        send(&self.broker, count, value, header);
    }

    /// Waits for an event for which the function `pick` returns a value.
    async fn until<T>(&mut self, pick: impl Fn(ConsumerEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the thread runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, found)
            .await
            .expect("it comes")
    }

    /// Waits for the assignment of the partition, and starts the partition from its beginning.
    async fn begin(&mut self) {
        self.until(|event| match event {
            ConsumerEvent::Assigned(partitions) => (partitions == [0]).then_some(()),
            _ => None,
        })
        .await;
        self.consumer.begin(0, 1, Offset(0));
    }

    async fn end(&mut self) -> Offset {
        self.until(|event| match event {
            ConsumerEvent::End { at, .. } => Some(at),
            _ => None,
        })
        .await
    }
}

/// Sends the given number of records, with the same value and header, in one batch.
fn send(
    broker: &MockCluster<'static, DefaultProducerContext>,
    count: usize,
    value: Option<&str>,
    header: &str,
) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .create()
        .expect("fine settings");
    for _ in 0..count {
        let mut record = BaseRecord::<str, str>::to("t").partition(0);
        record.payload = value;
        let value = Some(header);
        let header = Header { key: "h", value };
        let sent = producer.send(record.headers(OwnedHeaders::new().insert(header)));
        sent.map_err(|(e, _)| e).expect("room for it");
    }
    producer.flush(WAIT_MAX).expect("the broker takes it");
}

/// The program parses the end offset from a message of librdkafka, so this test fails if a new version of librdkafka
/// changes this message.
#[tokio::test]
async fn the_end_of_a_log_comes_with_its_offset() {
    let mut bed = Bed::new();
    bed.send(3, Some("a value"), "");
    bed.begin().await;
    assert_eq!(bed.end().await, Offset(3));
    bed.send(2, Some("a value"), "");
    assert_eq!(bed.end().await, Offset(5));
}

/// A rejected record stays in memory as a whole, including its headers.
#[tokio::test]
async fn headers_of_rejected_records_count_towards_the_budget() {
    let mut bed = Bed::new();
    let large = "x".repeat(10_000);
    bed.send(40, None, &large);
    bed.begin().await;
    let mut seen = 0;
    while seen < 40 {
        let runs = bed
            .until(|event| match event {
                ConsumerEvent::Records(runs) => Some(runs),
                _ => None,
            })
            .await;
        for record in runs.iter().flat_map(|run| &run.records) {
            assert!(record.bytes > 10_000, "{}", record.bytes);
            seen += 1;
        }
    }
}

/// Time after which the slow mock broker answers a request.
const SLOW_RTT: Duration = Duration::from_millis(300);
/// Number of records to read from the slow mock broker, which returns one record per request. The reads take longer
/// than two requests for the end of the log with a pause of 500 ms between them.
const RECORDS: usize = 10;

/// After an assignment at a logical offset, librdkafka requests the end of the log from the broker. If a seek happens
/// before the broker answers, librdkafka 2.12 treats the answer as outdated and repeats the request half a second
/// later. The second answer makes librdkafka jump to the end of the log, so it skips all records before the end
/// (`rd_kafka_toppar_handle_Offset` in rdkafka_partition.c).
#[tokio::test]
async fn an_answer_about_the_end_of_the_log_that_crosses_a_seek_skips_nothing() {
    let broker = MockCluster::new(1).expect("a broker");
    broker.create_topic("t", 1, 1).expect("a topic");
    for _ in 0..3 * RECORDS {
        send(&broker, 1, Some("a value"), "");
    }
    let slow = broker.broker_round_trip_time(1, SLOW_RTT);
    slow.expect("a slow broker");
    let mut bed = Bed::on(broker, &[("fetch.message.max.bytes", "1")]);
    bed.until(|event| matches!(event, ConsumerEvent::Assigned(_)).then_some(()))
        .await;
    // If the assignment has made librdkafka request the end of the log, the broker's answer has not arrived yet.
    tokio::time::sleep(SLOW_RTT / 3).await;
    bed.consumer.begin(0, 1, Offset(0));
    let mut offsets = Vec::new();
    while offsets.len() < RECORDS {
        let records = bed
            .until(|event| match event {
                ConsumerEvent::Records(runs) => Some(runs),
                ConsumerEvent::End { at, .. } => panic!("the end of the log at {at}"),
                _ => None,
            })
            .await;
        let records = records.iter().flat_map(|run| &run.records);
        offsets.extend(records.map(|record| record.offset.0));
    }
    let contiguous: Vec<i64> = (0..).take(offsets.len()).collect();
    assert_eq!(offsets, contiguous);
}

#[test]
fn a_newer_assignment_replaces_one_that_waits_to_start() {
    let broker = MockCluster::new(1).expect("a broker");
    let events = tokio::sync::mpsc::unbounded_channel().0;
    let settings = ClientConfig::new();
    let context = GroupContext::new(&settings, "t".to_owned(), Duration::ZERO, events);
    let client = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("group.id", "g")
        .create_with_context(context);
    let (commands, inbox) = mpsc::channel();
    let mut poller = Poller::new(
        Arc::new(client.expect("fine settings")),
        inbox,
        "t".to_owned(),
        Arc::new(Budget::new(1)),
        Arc::new(AtomicI64::new(0)),
    );
    for (partition, assignment, next) in [(0, 1, 5), (1, 2, 6), (0, 3, 7)] {
        let next = Offset(next);
        let begin = PollerCommand::Begin {
            partition,
            assignment,
            next,
        };
        commands.send(begin).expect("the poller lives");
    }
    assert!(poller.process_commands().is_continue());
    let want = [(0, (3, Offset(7))), (1, (2, Offset(6)))];
    assert_eq!(poller.beginning, BTreeMap::from(want));
}
