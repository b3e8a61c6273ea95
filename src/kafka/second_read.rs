//! Reads a range of a log a second time, in order to distinguish real gaps from skipped records ([`crate::core::gap`]).
//!
//! The second read uses a separate Kafka client, which shares no fetch position with the first one. The reader assigns
//! partitions only at numeric offsets, because librdkafka must request the numeric value of a logical offset, such as
//! "beginning" or "end", from the broker. All calls block.

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

/// The name of the group if the settings contain none. librdkafka requires the name of a group, but no member ever
/// joins this group.
const GROUP: &str = "citystream-second-read";
/// Maximum time for which one call of [`SecondReader::read`] waits for an answer.
const WAIT: Duration = Duration::from_secs(1);
/// Time after which a new Kafka client replaces the first one that searches a gap for records. Each later client may
/// search for twice the time of the previous one. The time must grow, because a single client must read a long range of
/// aborted transactions completely.
const LIFE_FIRST: Duration = Duration::from_secs(5);
/// Maximum time for which a Kafka client may search a gap for records.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// Time after which the reader forgets a gap without another call of [`SecondReader::read`] for it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Maximum number of idle Kafka clients that the reader keeps for later gaps.
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

/// Reads ranges of one topic a second time. Each gap has its own Kafka client, so that a partition without a leader
/// does not delay the second reads of other partitions.
pub struct SecondReader {
    config: ClientConfig,
    topic: String,
    clients: Mutex<ReadClients>,
}

#[derive(Default)]
struct ReadClients {
    idle: Vec<ReadClient>,
    /// The gaps in which the search for records has not ended yet, by partition.
    open: BTreeMap<i32, OpenGap>,
}

/// A gap in which the search for records has not ended yet.
struct OpenGap {
    gap: Gap,
    /// The Kafka client that searches this gap. The next call for the same gap continues the search with the same
    /// client.
    client: Option<ReadClient>,
    /// The time at which the current Kafka client began to search this gap.
    began: Instant,
    /// Maximum time for which the current Kafka client may search this gap.
    life: Duration,
    /// The time of the last call of [`SecondReader::read`] for this gap.
    asked: Instant,
}

impl SecondReader {
    /// Returns a reader of the topic `topic`. The reader connects with the settings `config` when it reads the first
    /// gap.
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
            // The function unassigns the partition, in order to free the memory of fetched records.
            clients
                .idle
                .extend(client.filter(|client| client.unassign().is_ok()));
        }
        answer
    }

    /// Returns the state of the search of this gap, or a new state if this is the first search.
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
        // A Kafka client that has used up its time may be stuck, so a new one replaces it.
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

/// Logs a warning if the Kafka client has skipped records in a gap.
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
            // A replica that lacks the newest records of the log may report an end of the log inside the gap. The gap
            // may then still contain records.
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

    /// Calls [`SecondReader::read`] repeatedly until it returns an answer, like the program.
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
