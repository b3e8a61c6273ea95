//! Resends the events of dead letters to the events topic, if the events can be repaired. Each repaired event is sent
//! only once. All dead letters remain in the dead-letter topic.
//!
//! Each transaction sends a batch of events. In the same transaction, the run commits the offsets of the processed dead
//! letters for the consumer group [`RESEND_GROUP`]. If a run is interrupted during a transaction, the transaction is
//! aborted, and the next run begins with the same batch. If two runs overlap, the newer run fences the older run
//! through the transactional id. Consumers of the events topic read only committed events.
//!
//! Each transaction has its own producer. Kafka's protocol before KIP-890 does not name the transaction that a request
//! belongs to, and librdkafka has not implemented KIP-890. If the network delays a request to end a transaction, the
//! client sends the request again, and then begins the next transaction. If both transactions used the same producer, a
//! delayed request to end the first transaction could commit the second transaction too early. A new producer gets a
//! new epoch, and Kafka refuses requests of older epochs.
//!
//! A consumer that was killed may have sent two dead letters for the same record, so a run identifies a dead letter by
//! the partition and the offset of the rejected record. Each run reads all dead letters from the beginning, to learn
//! which records earlier runs have processed. A run processes only dead letters that no earlier run has processed.
//!
//! A run skips dead letters whose records come from other topics. A run also skips dead letters with the reason
//! `refused_by_table`, because their events are already counted. The function [`run`] blocks the calling thread.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::core::event::{Event, Offset};
use crate::core::parse::Reason;
use crate::core::repair::repair;
use crate::failure::Failure;
use crate::kafka::client::configure_scan;
use crate::kafka::consumer::committed;
use crate::kafka::context::Context;
use crate::kafka::refusal::Refusal;
use crate::kafka::rights::{RESEND_GROUP, resend_transactional_id};
use crate::kafka::scan::{Scan, Scanned};
use crate::kafka::second_read::SecondReader;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY, partitions_of};
use crate::shutdown::Shutdown;
use crate::telemetry::LogLimit;

/// Maximum number of dead letters in a transaction. Large transactions make a run fast, but each transaction must end
/// well within the transaction timeout of one minute.
const BATCH_MAX: u64 = 500;
/// Maximum number of rejected records that a run can remember, which limits the memory of the run to about 500 MB.
const KNOWN_MAX: usize = 5_000_000;
/// Timeout of one request to Kafka, and maximum wait for the next dead letter.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Maximum time for which the program repeats a failed request. A request is repeated only if its error allows a retry.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The reason why a run with `--from-dlq` did not process all dead letters.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// librdkafka refused the settings.
    #[error("failed to create a Kafka client")]
    Create(#[source] KafkaError),
    /// The brokers refuse the client, for example because its password is wrong.
    #[error("{0}")]
    Refused(Refusal),
    /// A request to Kafka failed. The failure does not affect events of transactions that were already committed.
    #[error("failed to {what}")]
    Kafka {
        /// The purpose of the request, in words that complete the error message "failed to …".
        what: &'static str,
        /// The error of librdkafka.
        #[source]
        source: KafkaError,
    },
    /// A topic does not exist.
    #[error("there is no topic {topic}; {MISSING_REMEDY}")]
    NoTopic {
        /// The missing topic.
        topic: String,
    },
    /// The dead-letter topic has more dead letters than one run can remember.
    #[error(
        "{topic} holds more than {KNOWN_MAX} letters; shorten its retention.ms until it holds fewer"
    )]
    TooMany {
        /// The name of the dead-letter topic.
        topic: String,
    },
    /// Another run with `--from-dlq` has processed dead letters between two transactions of this run.
    #[error("another run resends the dead letters")]
    Overtaken,
    /// No dead letter arrived for a while, although the end of the topic was not reached.
    #[error("no dead letter arrived for {} s", TIMEOUT.as_secs())]
    Silence,
}

impl From<&ResendError> for Failure {
    fn from(error: &ResendError) -> Failure {
        match error {
            ResendError::Refused(refusal) => refusal.into(),
            ResendError::NoTopic { topic } => {
                Failure::new(format!("there is no topic {topic}")).with_remedy(MISSING_REMEDY)
            }
            ResendError::TooMany { topic } => {
                Failure::new(format!("{topic} holds more than {KNOWN_MAX} letters"))
                    .with_remedy("shorten its retention.ms until it holds fewer")
            }
            ResendError::Kafka { .. } | ResendError::Overtaken | ResendError::Silence => {
                Failure::new(error.to_string()).with_remedy(
                    "run it again: it continues where it stopped and sends no event twice",
                )
            }
            ResendError::Create(_) => Failure::new(error.to_string()),
        }
    }
}

/// The result of a run with `--from-dlq`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// Number of dead letters that this run has processed.
    pub letters: u64,
    /// Number of events that were sent again.
    pub sent: u64,
    /// Number of dead letters whose events were not sent again, by reason.
    pub stay: BTreeMap<&'static str, u64>,
}

impl Resent {
    fn add(&mut self, other: Resent) {
        self.letters += other.letters;
        self.sent += other.sent;
        for (reason, count) in other.stay {
            *self.stay.entry(reason).or_insert(0) += count;
        }
    }
}

/// Processes all dead letters that no earlier run has processed, and sends the events that can be repaired.
///
/// # Errors
/// Returns [`ResendError`] if not all dead letters could be processed.
pub fn run(
    config: &ClientConfig,
    topic: &str,
    dlq_topic: &str,
    shutdown: &Shutdown,
) -> Result<Resent, ResendError> {
    let consumer = consumer(config).map_err(ResendError::Create)?;
    let mut out = Resent::default();
    let assigned = wait_and_assign(&consumer, topic, dlq_topic, shutdown)?;
    if assigned.is_none_or(|partitions| partitions.is_empty()) {
        return Ok(out);
    }
    let mut producer = next_producer(config, topic)?;
    // `next_producer` has fenced all other runs, so the committed offsets can no longer change. Another run may have
    // changed the committed offsets before it was fenced, so this run reads the offsets again.
    let Some(partitions) = wait_and_assign(&consumer, topic, dlq_topic, shutdown)? else {
        return Ok(out);
    };
    let second = SecondReader::new(config, dlq_topic);
    let first = partitions.iter().map(|(p, part)| (*p, part.first));
    let scan = Scan::new(&consumer, &second, dlq_topic, shutdown, first.collect());
    let mut resend = Resend {
        scan,
        topic,
        dlq_topic,
        partitions,
        known: BTreeSet::new(),
    };
    while !resend.scan.is_done() && !shutdown.is_triggered() {
        producer
            .begin_transaction()
            .map_err(failed("begin a transaction"))?;
        let batch = resend.fill_transaction(&producer, shutdown)?;
        if batch.next_offsets.count() == 0 {
            break;
        }
        let group = consumer
            .group_metadata()
            .expect("a consumer with a group has metadata of it");
        retry(|| producer.send_offsets_to_transaction(&batch.next_offsets, &group, TIMEOUT))
            .map_err(failed("commit how far the dead letters were processed"))?;
        retry(|| producer.commit_transaction(TIMEOUT)).map_err(failed("commit a transaction"))?;
        out.add(batch.resent);
        resend.advance(&batch.next_offsets);
        if !resend.scan.is_done() {
            producer = next_producer(config, topic)?;
            // The new producer also fences a run that began later than this run. The later run may already have
            // committed offsets, so this run checks that the offsets are unchanged.
            resend.expect_unchanged(&consumer)?;
        }
    }
    Ok(out)
}

fn failed(what: &'static str) -> impl Fn(KafkaError) -> ResendError {
    move |source| ResendError::Kafka { what, source }
}

fn consumer(config: &ClientConfig) -> KafkaResult<BaseConsumer<Context>> {
    let mut config = config.clone();
    configure_scan(&mut config, RESEND_GROUP);
    config.create_with_context(Context::new(&config))
}

/// Creates a producer for one transaction. The function fences all earlier producers with the same transactional id,
/// and waits until their transactions have ended.
fn next_producer(
    config: &ClientConfig,
    topic: &str,
) -> Result<FutureProducer<Context>, ResendError> {
    let mut config = config.clone();
    config
        .set("transactional.id", resend_transactional_id(topic))
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    let created = config.create_with_context(Context::new(&config));
    let producer: FutureProducer<Context> = created.map_err(ResendError::Create)?;
    retry(|| producer.init_transactions(TIMEOUT)).map_err(failed("begin sending"))?;
    Ok(producer)
}

/// Sends a request, and retries it after an error that allows a retry. The function gives up after [`RETRY_MAX`].
fn retry(request: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let began = Instant::now();
    loop {
        match request() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && began.elapsed() < RETRY_MAX =>
            {
                std::thread::sleep(RETRY_PAUSE);
            }
            done => return done,
        }
    }
}

/// A partition of the dead-letter topic, with its offsets at the beginning of the run.
#[derive(Clone, Copy, Debug)]
struct LetterPartition {
    /// The offset of the oldest dead letter.
    first: Offset,
    /// The offset of the first dead letter that no earlier run has processed.
    first_new: Offset,
    /// The offset after the newest dead letter at the beginning of the run.
    end: Offset,
}

/// Waits for Kafka, and lets the consumer read the partitions of the dead-letter topic from their beginning. The result
/// is empty if the topic has no new dead letter. Returns `None` if a stop was requested.
fn wait_and_assign(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    dlq_topic: &str,
    shutdown: &Shutdown,
) -> Result<Option<BTreeMap<i32, LetterPartition>>, ResendError> {
    // The call of `poll` runs the callback that provides the first OAuth token for the login.
    consumer.poll(Duration::ZERO);
    let log_limit = LogLimit::default();
    while !shutdown.is_triggered() {
        let error = match assign(consumer, topic, dlq_topic) {
            Ok(Ok(partitions)) => return Ok(Some(partitions)),
            Ok(Err(topic)) => return Err(ResendError::NoTopic { topic }),
            Err(error) => error,
        };
        let errors = consumer.context().errors();
        if let Some(refusal) = errors.lasting_refusal() {
            return Err(ResendError::Refused(refusal));
        }
        // If the brokers refuse the client, the client's error callback has already logged the refusal.
        if errors.refusal().is_none() && log_limit.allows() {
            tracing::warn!(%error, todo = REACH_REMEDY, "waiting for Kafka");
        }
        consumer.poll(RETRY_PAUSE);
    }
    Ok(None)
}

/// Assigns the partitions of the dead-letter topic to the consumer. If `topic` or `dlq_topic` does not exist, the inner
/// error is the name of the missing topic.
fn assign(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    dlq_topic: &str,
) -> KafkaResult<Result<BTreeMap<i32, LetterPartition>, String>> {
    let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
    if partitions_of(&metadata, topic).is_none() {
        return Ok(Err(topic.to_owned()));
    }
    let Some(ids) = partitions_of(&metadata, dlq_topic) else {
        return Ok(Err(dlq_topic.to_owned()));
    };
    let commits = committed(consumer, dlq_topic, ids.iter().copied(), TIMEOUT)?;
    let (mut list, mut partitions) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in ids {
        let (low, end) = consumer.fetch_watermarks(dlq_topic, partition, TIMEOUT)?;
        let first_new = commits
            .get(&partition)
            .map_or(low, |commit| low.max(commit.next.0));
        if low < end {
            list.add_partition_offset(dlq_topic, partition, KafkaOffset::Offset(low))?;
            let part = LetterPartition {
                first: Offset(low),
                first_new: Offset(first_new),
                end: Offset(end),
            };
            partitions.insert(partition, part);
        }
    }
    if partitions.values().all(|part| part.first_new >= part.end) {
        return Ok(Ok(BTreeMap::new()));
    }
    consumer.assign(&list)?;
    Ok(Ok(partitions))
}

/// The topic id, the partition and the offset of a record, which together identify the record.
type SourceRecord = (String, i32, i64);

/// The results of one transaction, and the offsets that the transaction commits.
struct TransactionBatch {
    resent: Resent,
    /// For each partition of the dead-letter topic, the offset after the last dead letter of the transaction.
    next_offsets: TopicPartitionList,
}

/// The state of a run with `--from-dlq`.
struct Resend<'a> {
    scan: Scan<'a>,
    topic: &'a str,
    dlq_topic: &'a str,
    partitions: BTreeMap<i32, LetterPartition>,
    /// The records whose dead letters have already been read.
    known: BTreeSet<SourceRecord>,
}

impl Resend<'_> {
    /// Sends the events of one transaction. The scan of a dead-letter partition stops at the end of the partition.
    fn fill_transaction(
        &mut self,
        producer: &FutureProducer<Context>,
        shutdown: &Shutdown,
    ) -> Result<TransactionBatch, ResendError> {
        let mut resent = Resent::default();
        let mut next = BTreeMap::new();
        let mut last_letter = Instant::now();
        while !self.scan.is_done() && resent.letters < BATCH_MAX && !shutdown.is_triggered() {
            let scanned = self.scan.poll(POLL);
            match scanned.map_err(failed("read the dead letters"))? {
                Scanned::Record(letter) => {
                    last_letter = Instant::now();
                    if let Some(after) = self.process_letter(producer, &letter, &mut resent)? {
                        next.insert(letter.partition(), after);
                    }
                }
                Scanned::End(partition) => self.scan.close(partition),
                Scanned::Nothing if last_letter.elapsed() >= TIMEOUT => {
                    return Err(ResendError::Silence);
                }
                Scanned::Nothing => {}
            }
        }
        let mut next_offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            next_offsets
                .add_partition_offset(self.dlq_topic, partition, KafkaOffset::Offset(offset.0))
                .map_err(failed("commit how far the dead letters were processed"))?;
        }
        Ok(TransactionBatch {
            resent,
            next_offsets,
        })
    }

    /// Remembers the offsets that a transaction has committed.
    fn advance(&mut self, next_offsets: &TopicPartitionList) {
        for element in next_offsets.elements() {
            if let (Some(part), KafkaOffset::Offset(next)) = (
                self.partitions.get_mut(&element.partition()),
                element.offset(),
            ) {
                part.first_new = Offset(next);
            }
        }
    }

    /// Returns an error if the committed offsets differ from the offsets of this run's last transaction.
    fn expect_unchanged(&self, consumer: &BaseConsumer<Context>) -> Result<(), ResendError> {
        let ids = self.partitions.keys().copied();
        let commits = committed(consumer, self.dlq_topic, ids, TIMEOUT)
            .map_err(failed("read how far the dead letters were processed"))?;
        let is_unchanged = self.partitions.iter().all(|(id, part)| {
            let next = commits.get(id).map_or(part.first, |commit| commit.next);
            part.first.max(next) == part.first_new
        });
        if is_unchanged {
            Ok(())
        } else {
            Err(ResendError::Overtaken)
        }
    }

    /// Sends the event of a dead letter if the event can be repaired. Returns the offset after the dead letter, or
    /// `None` if an earlier run has processed the dead letter or a later run must process it.
    fn process_letter(
        &mut self,
        producer: &FutureProducer<Context>,
        letter: &BorrowedMessage<'_>,
        resent: &mut Resent,
    ) -> Result<Option<Offset>, ResendError> {
        let offset = Offset(letter.offset());
        let Some(part) = self.partitions.get(&letter.partition()) else {
            return Ok(None);
        };
        if offset.next() >= part.end {
            self.scan.close(letter.partition());
        }
        if offset >= part.end {
            return Ok(None);
        }
        let is_first = source_of(letter).is_none_or(|source| self.known.insert(source));
        if self.known.len() > KNOWN_MAX {
            let topic = self.dlq_topic.to_owned();
            return Err(ResendError::TooMany { topic });
        }
        if offset < part.first_new {
            return Ok(None);
        }
        // A second dead letter for the same record is not processed, but its offset is committed.
        if is_first {
            resent.letters += 1;
            match repaired(letter, self.topic) {
                Ok((value, event)) => {
                    let record = FutureRecord::<str, str>::to(self.topic)
                        .key(&event.city)
                        .payload(&value);
                    // The result of the delivery can be ignored, because the commit of the transaction fails if the
                    // event is not delivered.
                    let _delivery = producer
                        .send_result(record)
                        .map_err(|(error, _)| failed("send an event again")(error))?;
                    resent.sent += 1;
                }
                Err(reason) => *resent.stay.entry(reason).or_insert(0) += 1,
            }
        }
        Ok(Some(offset.next()))
    }
}

/// Returns the value of a header that the consumer added to a dead letter. The headers that the consumer added begin
/// with the last header named `reason`. All headers before the last `reason` belong to the original record.
fn header(letter: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers: Vec<_> = letter.headers()?.iter().collect();
    let ours = headers.iter().rposition(|header| header.key == "reason")?;
    let found = headers[ours..]
        .iter()
        .rev()
        .find(|header| header.key == name)?;
    String::from_utf8(found.value?.to_vec()).ok()
}

/// Returns the identity of the original record of a dead letter, or `None` if the headers do not identify a record.
fn source_of(letter: &BorrowedMessage<'_>) -> Option<SourceRecord> {
    Some((
        header(letter, "source_topic_id")?,
        header(letter, "source_partition")?.parse().ok()?,
        header(letter, "source_offset")?.parse().ok()?,
    ))
}

/// Returns the repaired event of a dead letter, both as JSON and parsed. The error is the reason why the event cannot
/// be repaired.
fn repaired(letter: &BorrowedMessage<'_>, topic: &str) -> Result<(String, Event), &'static str> {
    let header = |name: &str| header(letter, name);
    let text = |name: &str| header(name).unwrap_or_default();
    if text("source_topic") != topic {
        return Err("of another topic");
    }
    if let Some(kept) = [Reason::RefusedByTable, Reason::BadHeartbeat]
        .into_iter()
        .find(|reason| text("reason") == reason.name())
    {
        return Err(kept.name());
    }
    if header("truncated").is_some() {
        return Err(Reason::TooLarge.name());
    }
    let own_id = format!(
        "{topic}-{}-{}",
        text("source_partition"),
        text("source_offset")
    );
    repair(letter.payload().unwrap_or_default(), &own_id).map_err(Reason::name)
}
