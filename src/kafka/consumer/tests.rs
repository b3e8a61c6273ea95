//! The thread against librdkafka's own broker.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// A broker with a topic of one partition, and a consumer that is to read it.
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
        let (tell, events) = tokio::sync::mpsc::unbounded_channel();
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
        let consumer = Consumer::start(&config, options, tell).expect("fine settings");
        Bed {
            broker,
            consumer,
            events,
        }
    }

    /// Sends records with `value` and a header.
    fn send(&self, count: usize, value: Option<&str>, header: &str) {
        send(&self.broker, count, value, header);
    }

    /// Waits for an event that `pick` takes.
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

    /// Waits for the partition and reads it from the beginning.
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

/// Sends records with `value` and a header in one batch.
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

/// Words of librdkafka's are read for it, so this fails where another version has others.
#[tokio::test]
async fn c7_the_end_of_a_log_comes_with_its_offset() {
    let mut bed = Bed::new();
    bed.send(3, Some("a value"), "");
    bed.begin().await;
    assert_eq!(bed.end().await, Offset(3));
    bed.send(2, Some("a value"), "");
    assert_eq!(bed.end().await, Offset(5));
}

/// A record that is rejected is kept whole.
#[tokio::test]
async fn c5_headers_of_rejected_records_are_in_the_budget() {
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

/// How long each answer of the slow broker takes.
const SLOW_RTT: Duration = Duration::from_millis(300);
/// Records to read from it, each by a request of its own. This takes longer than a question for the log's end,
/// librdkafka's pause of 500 ms before it repeats such a question, and the second answer.
const RECORDS: usize = 10;

/// A partition that is taken at a logical offset makes librdkafka ask for its end when it is assigned.
/// librdkafka 2.12 finds the answer outdated by the seek, asks again half a second later, and then jumps to
/// the end over everything between (`rd_kafka_toppar_handle_Offset` in rdkafka_partition.c).
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
    // A question that was asked at the assignment is under way now.
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
fn other_words_name_no_end() {
    let eof = "Fetch from broker 3 reached end of partition at offset 41 (HighwaterMark 52)";
    assert_eq!(end_of_log(eof), Some(Offset(41)));
    for reason in [
        "",
        "Broker: Unknown partition",
        "end of partition at offset x",
    ] {
        assert_eq!(end_of_log(reason), None, "{reason}");
    }
}

#[test]
fn c3_of_two_assignments_that_wait_to_begin_the_newer_one_does() {
    let broker = MockCluster::new(1).expect("a broker");
    let bridge = Bridge {
        chatter: ClientErrors::new(&ClientConfig::new()),
        topic: "t".to_owned(),
        events: tokio::sync::mpsc::unbounded_channel().0,
        active: Mutex::new(BTreeMap::new()),
        end_at: Mutex::new(None),
        drain_max: Duration::ZERO,
    };
    let client = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("group.id", "g")
        .create_with_context(bridge);
    let (commands, inbox) = mpsc::channel();
    let mut poller = Poller {
        client: Arc::new(client.expect("fine settings")),
        inbox,
        topic: "t".to_owned(),
        budget: Arc::new(Budget::new(1)),
        beat_ms: Arc::new(AtomicI64::new(0)),
        beginning: BTreeMap::new(),
        paused: false,
        runs: Vec::new(),
        gathered: 0,
    };
    for (partition, assignment, next) in [(0, 1, 5), (1, 2, 6), (0, 3, 7)] {
        let next = Offset(next);
        let begin = PollerCommand::Begin {
            partition,
            assignment,
            next,
        };
        commands.send(begin).expect("it listens");
    }
    assert!(poller.take_commands().is_continue());
    let want = [(0, (3, Offset(7))), (1, (2, Offset(6)))];
    assert_eq!(poller.beginning, BTreeMap::from(want));
}
