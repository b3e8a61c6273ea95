//! Helpers for Kafka: sending single records, reading whole logs, changing groups and topics.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::topic_partition_list::Offset;

use crate::role::wait_for;
use crate::services::Services;

const ANSWER_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    /// Set by Kafka.
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// Set by Kafka.
    pub(crate) timestamp_ms: Option<i64>,
}

impl Record {
    /// Returns the text of the only header with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        Some(std::str::from_utf8(value.as_ref()?).unwrap())
    }
}

fn config(services: &Services) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", services.brokers());
    config
}

/// Sends records one after another, each to its partition.
pub(crate) fn send(services: &Services, topic: &str, records: &[Record]) {
    let producer: FutureProducer = config(services)
        .set("message.max.bytes", "2000000")
        .set("linger.ms", "0")
        .create()
        .unwrap();
    for record in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            let value = value.as_deref();
            headers = headers.insert(Header { key, value });
        }
        let mut sent = FutureRecord::<[u8], [u8]>::to(topic).partition(record.partition);
        if !record.headers.is_empty() {
            sent = sent.headers(headers);
        }
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        services
            .block_on(producer.send(sent, ANSWER_MAX))
            .map_err(|(error, _)| error)
            .unwrap();
    }
}

/// Reads everything in a topic, partition after partition in offset order.
pub(crate) fn read(services: &Services, topic: &str) -> Vec<Record> {
    let client: BaseConsumer = config(services)
        .set("group.id", "reads-and-never-joins")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(Some(topic), ANSWER_MAX).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    client.assign(&list).unwrap();
    let (mut records, mut left) = (Vec::new(), partitions);
    while left > 0 {
        let message = wait_for("the next record", || client.poll(Duration::from_secs(1)));
        let message = match message {
            // Each partition ends once, because nothing is sent in the meantime.
            Err(KafkaError::PartitionEOF(_)) => {
                left -= 1;
                continue;
            }
            // A broker is away that leads none of the partitions, or soon leads them again.
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)) => {
                continue;
            }
            message => message.unwrap(),
        };
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let one = |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.map(<[u8]>::to_vec));
            headers.iter().map(one).collect()
        });
        records.push(Record {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        });
    }
    records.sort_by_key(|r| (r.partition, r.offset));
    records
}

/// Returns the offset of a partition's oldest record and the offset after its newest.
pub(crate) fn range(services: &Services, topic: &str, partition: i32) -> (i64, i64) {
    let client = member(services, "asks-and-never-joins");
    client
        .fetch_watermarks(topic, partition, ANSWER_MAX)
        .unwrap()
}

/// Returns the broker that leads a partition, from 1.
pub(crate) fn leader(services: &Services, topic: &str, partition: usize) -> usize {
    let client = member(services, "asks-and-never-joins");
    wait_for("a partition to have a leader", || {
        let metadata = client.fetch_metadata(Some(topic), ANSWER_MAX).ok()?;
        let leader = metadata.topics()[0].partitions().get(partition)?.leader();
        usize::try_from(leader).ok().filter(|node| *node > 0)
    })
}

/// Waits until exactly these brokers, in ascending order, are in sync with a partition's leader.
pub(crate) fn in_sync(services: &Services, topic: &str, partition: usize, nodes: &[i32]) {
    let client = member(services, "asks-and-never-joins");
    wait_for("a partition to have these replicas in sync", || {
        let metadata = client.fetch_metadata(Some(topic), ANSWER_MAX).ok()?;
        let partition = metadata.topics()[0].partitions().get(partition)?;
        let mut found = partition.isr().to_vec();
        found.sort_unstable();
        (found == nodes).then_some(())
    });
}

fn admin(services: &Services) -> AdminClient<DefaultClientContext> {
    config(services).create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER_MAX))
}

/// Creates a topic with `LogAppendTime`, unless `config` sets something else.
pub(crate) fn make_topic(
    services: &Services,
    topic: &str,
    (partitions, copies): (i32, i32),
    config: &[(&str, &str)],
) {
    make(
        services,
        NewTopic::new(topic, partitions, TopicReplication::Fixed(copies)),
        config,
    );
}

/// Creates a topic of one partition on these brokers, as [`make_topic`] does. The first broker leads it.
pub(crate) fn make_topic_on(
    services: &Services,
    topic: &str,
    nodes: &[i32],
    config: &[(&str, &str)],
) {
    let copies = TopicReplication::Variable(&[nodes]);
    make(services, NewTopic::new(topic, 1, copies), config);
}

fn make(services: &Services, new: NewTopic<'_>, config: &[(&str, &str)]) {
    let mut new = new.set("message.timestamp.type", "LogAppendTime");
    for (name, value) in config {
        new = new.set(name, value);
    }
    // Kafka may hold the name of a topic for a moment after its deletion.
    wait_for("a topic to be created", || {
        let made = services.block_on(admin(services).create_topics([&new], &options()));
        made.unwrap().remove(0).ok()
    });
}

/// Deletes a topic.
pub(crate) fn delete_topic(services: &Services, topic: &str) {
    let deleted = services.block_on(admin(services).delete_topics(&[topic], &options()));
    deleted.unwrap().remove(0).unwrap();
}

/// Adds partitions to a topic.
pub(crate) fn grow(services: &Services, topic: &str, partitions: usize) {
    let more = NewPartitions::new(topic, partitions);
    let grown = services.block_on(admin(services).create_partitions([&more], &options()));
    grown.unwrap().remove(0).unwrap();
}

/// Removes the records below `offset`, as retention does.
pub(crate) fn cut(services: &Services, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .unwrap();
    let done = services.block_on(admin(services).delete_records(&list, &options()));
    done.unwrap().elements()[0].error().unwrap();
}

/// An open transaction. Its end leaves a control record after its records.
pub(crate) struct Transaction(FutureProducer);

impl Transaction {
    /// Sends records in a transaction of the producer `id`.
    pub(crate) fn begin(services: &Services, id: &str, topic: &str, records: &[Record]) -> Self {
        let producer: FutureProducer = config(services)
            .set("transactional.id", id)
            .set("linger.ms", "0")
            .create()
            .unwrap();
        producer.init_transactions(ANSWER_MAX).unwrap();
        producer.begin_transaction().unwrap();
        for record in records {
            let mut sent = FutureRecord::<[u8], [u8]>::to(topic).partition(record.partition);
            sent.payload = record.value.as_deref();
            services
                .block_on(producer.send(sent, ANSWER_MAX))
                .map_err(|(error, _)| error)
                .unwrap();
        }
        Transaction(producer)
    }

    pub(crate) fn commit(self) {
        self.0.commit_transaction(ANSWER_MAX).unwrap();
    }

    pub(crate) fn abort(self) {
        self.0.abort_transaction(ANSWER_MAX).unwrap();
    }
}

fn member(services: &Services, group: &str) -> BaseConsumer {
    config(services)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}

/// Commits an offset for a group without members, as an offset-reset tool does.
pub(crate) fn reset(
    services: &Services,
    group: &str,
    topic: &str,
    (partition, offset): (i32, i64),
    metadata: &str,
) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))
        .unwrap();
    if !metadata.is_empty() {
        let mut element = list.find_partition(topic, partition).unwrap();
        element.set_metadata(metadata);
    }
    let client = member(services, group);
    client.commit(&list, CommitMode::Sync).unwrap();
}

/// Returns the committed offset of a partition and its metadata.
pub(crate) fn committed(
    services: &Services,
    group: &str,
    topic: &str,
    partition: i32,
) -> (Option<i64>, String) {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let client = member(services, group);
    let list = client.committed_offsets(list, ANSWER_MAX).unwrap();
    let element = list.find_partition(topic, partition).unwrap();
    let offset = match element.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    (offset, element.metadata().to_owned())
}

/// Deletes a group with all its offsets. It must have no members.
pub(crate) fn delete_group(services: &Services, group: &str) {
    // The client must live until the response has arrived.
    let deleted = services.block_on(admin(services).delete_groups(&[group], &options()));
    for result in deleted.unwrap() {
        result.unwrap();
    }
}
