//! Reads a range of a log a second time, to distinguish real gaps from records that the client skipped
//! ([`crate::core::gap`]).
//!
//! The second read uses a separate Kafka client, which shares no fetch position with the first client. The separate
//! client assigns partitions only at numeric offsets. For a logical offset such as "beginning" or "end", librdkafka
//! would first have to request the numeric offset from the broker. All calls block.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use crate::core::event::Offset;
use crate::core::gap::{Gap, SecondRead, Verdict};
use crate::kafka::client::configure_scan;
use crate::kafka::context::Context;

/// The group name that is used if the settings contain no group name. No member ever joins the group, but librdkafka
/// requires a group name.
const GROUP: &str = "citystream-second-read";
/// Maximum time that one call of [`SecondReader::read`] waits for an answer.
const WAIT: Duration = Duration::from_secs(1);
/// Time after which a new client replaces the first client that searches a gap for records. Each later client may
/// search twice as long as the client before it. Searching a long range of aborted transactions takes more time,
/// because a single client must read the whole range.
const LIFE_FIRST: Duration = Duration::from_secs(5);
/// Maximum time that any client may search a gap for records.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// Time after which the reader forgets a gap if [`SecondReader::read`] is not called again for the gap.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Maximum number of idle clients that the reader keeps for later gaps.
const IDLE_MAX: usize = 8;
/// Maximum wait of one poll.
const POLL: Duration = Duration::from_millis(100);

type ReadClient = BaseConsumer<Context>;

/// Returns the settings of a client that reads individual records again. The client never joins a group.
pub(super) fn second_read_config(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    let group = config.get("group.id").unwrap_or(GROUP).to_owned();
    configure_scan(&mut config, &group);
    config
        .set("auto.offset.reset", "error")
        // The answer is the first record of the range, so the client does not have to fetch further records.
        .set("fetch.message.max.bytes", "65536")
        .set("queued.min.messages", "1")
        .set("queued.max.messages.kbytes", "1024")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "5")
        .remove("group.instance.id");
    config
}

/// Reads ranges of one topic a second time. Each gap that is being searched has its own client. A partition without a
/// leader therefore does not delay the second reads of other partitions.
pub struct SecondReader {
    config: ClientConfig,
    topic: String,
    clients: Mutex<ReadClients>,
}

#[derive(Default)]
struct ReadClients {
    idle: Vec<ReadClient>,
    /// The gaps for which the search for records has not ended yet, by partition.
    open: BTreeMap<i32, OpenGap>,
}

/// A gap for which the search for records has not ended yet.
struct OpenGap {
    gap: Gap,
    /// The client that searches this gap. The next call for the same gap continues the search with the same client.
    client: Option<ReadClient>,
    /// The time at which the current client began to search this gap.
    began: Instant,
    /// Maximum time that the current client may spend on the search of this gap.
    life: Duration,
    /// The time of the last call of [`SecondReader::read`] for this gap.
    asked: Instant,
}

impl SecondReader {
    /// Returns a reader of the topic `topic`. The reader uses `config` to connect when it has to read the first gap.
    pub fn new(config: &ClientConfig, topic: &str) -> SecondReader {
        SecondReader {
            config: second_read_config(config),
            topic: topic.to_owned(),
            clients: Mutex::default(),
        }
    }

    /// Reads a partition from the offset [`Gap::from`], and returns the first result: a record or the end of the log.
    /// The call blocks for about a second at most.
    ///
    /// After [`SecondRead::NoAnswer`], the next call for the same gap continues the search. Several threads may call
    /// this function for different partitions at the same time.
    pub fn read(&self, partition: i32, gap: Gap) -> SecondRead {
        let mut open = self.open(partition, gap);
        let (client, answer) = match self.poll_until_answer(&mut open, partition) {
            Ok((client, answer)) => (Some(client), answer),
            Err(error) => {
                tracing::debug!(partition, %error, "failed to read a range a second time");
                (None, SecondRead::NoAnswer)
            }
        };
        let mut clients = self.clients();
        if answer == SecondRead::NoAnswer {
            open.client = client;
            clients.open.insert(partition, open);
        } else if clients.idle.len() < IDLE_MAX {
            // Unassigning the partition releases the memory of records that the client has fetched but that are no
            // longer needed.
            clients
                .idle
                .extend(client.filter(|client| client.unassign().is_ok()));
        }
        answer
    }

    /// Returns the state of an earlier search of the gap, or a new state if no earlier search is known.
    fn open(&self, partition: i32, gap: Gap) -> OpenGap {
        let now = Instant::now();
        let mut clients = self.clients();
        let known = clients.open.remove(&partition);
        let used = |open: &OpenGap| now.duration_since(open.asked) < FORGOTTEN_AFTER;
        clients.open.retain(|_, open| used(open));
        let mut open = known.filter(|open| open.gap == gap).unwrap_or(OpenGap {
            gap,
            client: None,
            began: now,
            life: LIFE_FIRST,
            asked: now,
        });
        open.asked = now;
        // A client that has used up its time may be stuck, so a new client replaces it.
        if open.client.is_some() && now.duration_since(open.began) >= open.life {
            open.client = None;
            open.began = now;
            open.life = (open.life * 2).min(LIFE_MAX);
        }
        open
    }

    fn poll_until_answer(
        &self,
        open: &mut OpenGap,
        partition: i32,
    ) -> KafkaResult<(ReadClient, SecondRead)> {
        let client = match open.client.take() {
            Some(client) => client,
            None => self.assign_client(partition, open.gap)?,
        };
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            if let Some(answer) = poll(&client, partition, open.gap)? {
                return Ok((client, answer));
            }
        }
        Ok((client, SecondRead::NoAnswer))
    }

    /// Returns a client that reads the gap from its first offset.
    fn assign_client(&self, partition: i32, gap: Gap) -> KafkaResult<ReadClient> {
        let idle = self.clients().idle.pop();
        let client = match idle {
            Some(client) => client,
            None => self
                .config
                .create_with_context(Context::new(&self.config))?,
        };
        let mut list = TopicPartitionList::new();
        let from = ListOffset::Offset(gap.from.0);
        list.add_partition_offset(&self.topic, partition, from)?;
        client.assign(&list)?;
        Ok(client)
    }

    fn clients(&self) -> MutexGuard<'_, ReadClients> {
        self.clients.lock().expect("no panic holds the clients")
    }
}

/// Logs a warning if the client skipped records in a gap.
pub fn warn_if_skipped(partition: i32, gap: Gap, verdict: Verdict) {
    if let Verdict::Skipped { found } = verdict {
        tracing::warn!(
            partition,
            from = gap.from.0,
            to = gap.to.0,
            found = found.0,
            "the Kafka client skipped records, reading them again"
        );
    }
}

/// Polls the client once. Returns the result of the search, or `None` if the search must continue.
fn poll(client: &ReadClient, partition: i32, gap: Gap) -> KafkaResult<Option<SecondRead>> {
    match client.poll(POLL) {
        None => Ok(None),
        Some(Ok(message)) => {
            let offset = Offset(message.offset());
            let asked = message.partition() == partition && offset >= gap.from;
            Ok(asked.then_some(SecondRead::Next(offset)))
        }
        Some(Err(KafkaError::PartitionEOF(ended))) => {
            // If a replica reports an end of the log inside the gap, the gap may still contain records. The replica may
            // lack the newest records of the log.
            let end = client.context().take_end_of_log().unwrap_or(Offset(0));
            let passed = ended == partition && end >= gap.to;
            Ok(passed.then_some(SecondRead::Next(end)))
        }
        Some(Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
        ))) => Ok(Some(SecondRead::OutOfRange)),
        // The error may be temporary, so the next poll or the next client tries again.
        Some(Err(KafkaError::MessageConsumption(code))) => {
            tracing::debug!(%code, "waiting for a second read");
            Ok(None)
        }
        Some(Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::*;

    const TOPIC: &str = "t";
    const RECORDS: usize = 10;

    fn gap(from: i64, to: i64) -> Gap {
        Gap {
            from: Offset(from),
            to: Offset(to),
        }
    }

    /// Calls [`SecondReader::read`] repeatedly until it returns an answer, as callers outside of tests do.
    fn answer(reader: &SecondReader, partition: i32, gap: Gap) -> SecondRead {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            let answer = reader.read(partition, gap);
            if answer != SecondRead::NoAnswer {
                return answer;
            }
        }
        panic!("no answer about {gap:?} of partition {partition}");
    }

    #[test]
    fn a_partition_without_a_leader_does_not_delay_another() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic(TOPIC, 2, 1).expect("a topic");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap_servers());
        let producer: BaseProducer = config.create().expect("fine settings");
        for n in 0..2 * RECORDS {
            let partition = i32::from(n >= RECORDS);
            let record = BaseRecord::<str, str>::to(TOPIC)
                .partition(partition)
                .payload("x");
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("room for it");
        }
        producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes it");
        broker
            .partition_leader(TOPIC, 0, None)
            .expect("no leader of partition 0");

        let reader = SecondReader::new(&config, TOPIC);
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| reader.read(0, gap(3, 6)));
            assert_eq!(answer(&reader, 1, gap(3, 6)), SecondRead::Next(Offset(3)));
            assert_eq!(answer(&reader, 1, gap(7, 9)), SecondRead::Next(Offset(7)));
            assert_eq!(blocked.join().expect("no panic"), SecondRead::NoAnswer);
        });
        assert_eq!(reader.clients().idle.len(), 1, "one client served both");

        broker
            .partition_leader(TOPIC, 0, Some(1))
            .expect("a leader again");
        assert_eq!(answer(&reader, 0, gap(3, 6)), SecondRead::Next(Offset(3)));
        let end = i64::try_from(RECORDS).expect("small");
        assert_eq!(
            answer(&reader, 0, gap(end, end)),
            SecondRead::Next(Offset(end))
        );
        assert_eq!(answer(&reader, 1, gap(99, 100)), SecondRead::OutOfRange);
        assert!(reader.clients().open.is_empty(), "all is answered");
    }
}
