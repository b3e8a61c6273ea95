//! Reads ranges of a log a second time, to tell real gaps from skipped records ([`crate::core::gap`]).
//!
//! The second read has a Kafka client of its own, so it shares no fetch position with the first. The client
//! takes partitions at offsets that are numbers, never at "beginning" or "end", which librdkafka would look
//! up at the broker. All calls block.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use crate::core::event::Offset;
use crate::core::gap::{Gap, SecondRead, Verdict};
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::reader::read_alone;
use crate::shutdown::Shutdown;

/// The group's name where the settings have none. librdkafka wants one, and nobody joins it.
const GROUP: &str = "citystream-second-read";
/// Longest time that one call waits for an answer.
const WAIT: Duration = Duration::from_secs(1);
/// How long a client may look for the answer about a gap before another client starts anew. A range of
/// aborted transactions is read in full before its end shows, so each further client gets twice the time.
const LIFE_FIRST: Duration = Duration::from_secs(5);
/// No client gets longer.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// The reader forgets a gap after this long without a question about it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Most clients that are kept for later gaps.
const IDLE_MAX: usize = 8;
/// Longest wait of one poll.
const POLL: Duration = Duration::from_millis(100);
/// Longest wait of a seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a call without an answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

type ReadClient = BaseConsumer<EndContext>;

/// Reads ranges of one topic a second time. Each gap has a client of its own while it is looked into, so a
/// partition without a leader holds up no other.
pub struct SecondReader {
    config: ClientConfig,
    topic: String,
    clients: Mutex<ReadClients>,
}

#[derive(Default)]
struct ReadClients {
    idle: Vec<ReadClient>,
    /// Gaps without an answer yet, by partition.
    open: BTreeMap<i32, OpenGap>,
}

/// A gap without an answer yet.
struct OpenGap {
    gap: Gap,
    /// Continues with the next question about this gap.
    client: Option<ReadClient>,
    /// When `client` began.
    began: Instant,
    /// How long `client` may take.
    life: Duration,
    /// When the last question about this gap came.
    asked: Instant,
}

impl SecondReader {
    /// Returns a reader of `topic` that connects as `config` says once it is needed.
    pub fn new(config: &ClientConfig, topic: &str) -> SecondReader {
        let mut config = config.clone();
        let group = config.get("group.id").unwrap_or(GROUP).to_owned();
        read_alone(&mut config, &group);
        config
            .set("auto.offset.reset", "error")
            // Only the first record of a range matters.
            .set("fetch.message.max.bytes", "65536")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.queue.backoff.ms", "5")
            .remove("group.instance.id");
        SecondReader {
            config,
            topic: topic.to_owned(),
            clients: Mutex::default(),
        }
    }

    /// Reads `partition` from [`Gap::from`] and returns what came first. Blocks for about a second at most;
    /// after [`SecondRead::NoAnswer`] the next call about the same gap continues where this one ended.
    ///
    /// Calls about different partitions may run at once.
    pub fn read(&self, partition: i32, gap: Gap) -> SecondRead {
        let mut open = self.open(partition, gap);
        let (client, answer) = match self.look(&mut open, partition) {
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
            // Drops what the client fetched after the answer.
            clients
                .idle
                .extend(client.filter(|client| client.unassign().is_ok()));
        }
        answer
    }

    /// Takes up the gap where the last call about it ended.
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
        // A client may be stuck, so another one takes over.
        if open.client.is_some() && now.duration_since(open.began) >= open.life {
            open.client = None;
            open.began = now;
            open.life = (open.life * 2).min(LIFE_MAX);
        }
        open
    }

    fn look(&self, open: &mut OpenGap, partition: i32) -> KafkaResult<(ReadClient, SecondRead)> {
        let client = match open.client.take() {
            Some(client) => client,
            None => self.begin(partition, open.gap)?,
        };
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            if let Some(answer) = poll(&client, partition, open.gap)? {
                return Ok((client, answer));
            }
        }
        Ok((client, SecondRead::NoAnswer))
    }

    /// Returns a client that reads the gap from its beginning.
    fn begin(&self, partition: i32, gap: Gap) -> KafkaResult<ReadClient> {
        let idle = self.clients().idle.pop();
        let client = match idle {
            Some(client) => client,
            None => self
                .config
                .create_with_context(EndContext::new(&self.config))?,
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

    /// Decides whether a reader that stands at `from` may continue at `to`, which is the offset of the record
    /// or the end of the log that `client` reported. If the client skipped records, it is moved back to
    /// `from`. Returns `false` then, and after a request to stop.
    ///
    /// # Errors
    /// When the client cannot be moved back.
    pub(crate) fn may_pass<C: ConsumerContext>(
        &self,
        client: &BaseConsumer<C>,
        partition: i32,
        (from, to): (Offset, Offset),
        shutdown: &Shutdown,
    ) -> KafkaResult<bool> {
        if to <= from {
            return Ok(true);
        }
        let gap = Gap { from, to };
        while !shutdown.is_triggered() {
            let verdict = gap.verdict(self.read(partition, gap));
            match verdict {
                Verdict::Real => return Ok(true),
                Verdict::Skipped { .. } => {
                    report(partition, gap, verdict);
                    let from = ListOffset::Offset(from.0);
                    client.seek(&self.topic, partition, from, SEEK_TIMEOUT)?;
                    return Ok(false);
                }
                Verdict::OutOfRange => {
                    tracing::warn!(partition, %from, %to, "kafka removed records before they were read");
                    return Ok(true);
                }
                Verdict::Unknown => std::thread::sleep(RETRY_PAUSE),
            }
        }
        Ok(false)
    }
}

/// Logs a gap in which the client skipped records.
pub fn report(partition: i32, gap: Gap, verdict: Verdict) {
    if let Verdict::Skipped { found } = verdict {
        tracing::warn!(
            partition, from = %gap.from, to = %gap.to, %found,
            "the kafka client skipped records, reading them again"
        );
    }
}

/// Polls once. Returns what came first after [`Gap::from`], once that is known.
fn poll(client: &ReadClient, partition: i32, gap: Gap) -> KafkaResult<Option<SecondRead>> {
    match client.poll(POLL) {
        None => Ok(None),
        Some(Ok(message)) => {
            let offset = Offset(message.offset());
            let asked = message.partition() == partition && offset >= gap.from;
            Ok(asked.then_some(SecondRead::Next(offset)))
        }
        Some(Err(KafkaError::PartitionEOF(ended))) => {
            // A log that ends inside the gap proves nothing: this broker may not have the rest yet.
            let end = client.context().end_of_log().unwrap_or(Offset(0));
            let passed = ended == partition && end >= gap.to;
            Ok(passed.then_some(SecondRead::Next(end)))
        }
        Some(Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
        ))) => Ok(Some(SecondRead::OutOfRange)),
        // Brokers come and go; the next client tries again.
        Some(Err(KafkaError::MessageConsumption(code))) => {
            tracing::debug!(%code, "waiting for a second read");
            Ok(None)
        }
        Some(Err(error)) => Err(error),
    }
}

/// Returns the offset in librdkafka's message about the end of a log.
///
/// The last fetch had nothing from there on, and everything below it has been handed on. No call returns it:
/// the client's position follows the last record, and the ends that brokers report belong to another
/// moment, and perhaps to another broker than the one that is read from.
pub(crate) fn end_of_log(reason: &str) -> Option<Offset> {
    let (_, rest) = reason.split_once("end of partition at offset ")?;
    let digits = rest.split(' ').next()?;
    digits.parse().ok().map(Offset)
}

/// The context of a client that needs the offset at which a log ends: the error that reports the end of a
/// partition does not hold it.
#[derive(Debug)]
pub(crate) struct EndContext {
    chatter: ClientErrors,
    end: Mutex<Option<Offset>>,
}

impl EndContext {
    /// Returns the context of a client made with `config`.
    pub(crate) fn new(config: &ClientConfig) -> EndContext {
        EndContext {
            chatter: ClientErrors::new(config),
            end: Mutex::new(None),
        }
    }

    /// Returns what listens.
    pub(crate) fn chatter(&self) -> &ClientErrors {
        &self.chatter
    }

    /// Returns the offset of the end that the last poll reported, once.
    pub(crate) fn end_of_log(&self) -> Option<Offset> {
        self.end().take()
    }

    fn end(&self) -> MutexGuard<'_, Option<Offset>> {
        self.end.lock().expect("no panic holds the lock")
    }
}

impl ClientContext for EndContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.chatter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => *self.end() = end_of_log(reason),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {}
            _ => self.chatter.error(&error, reason),
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.chatter.oauth_token()
    }
}

impl ConsumerContext for EndContext {}

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

    /// Repeats the question as its callers do.
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
    fn a_partition_without_a_leader_holds_up_no_other() {
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
