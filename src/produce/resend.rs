//! Resends repaired dead letters to the topic of events, each once. Other dead letters stay.
//!
//! Each transaction sends a batch of events and commits, for the group [`RESEND_GROUP`], the offset up to which the
//! dead letters were processed. A run that dies in the middle has sent nothing of its last batch, and the next run
//! continues after the previous one. If two runs overlap, the newer one fences the older one by the transactional
//! id. Readers of the events see committed events only.
//!
//! A consumer that was killed may have sent a dead letter twice. Therefore a dead letter is identified by the partition
//! and offset of its record. Each run reads all dead letters from the beginning: those of earlier runs only to know
//! them, the others to resend them.
//!
//! Dead letters of other topics stay, and so do those with the reason `refused_by_table`, because their events are
//! counted already. [`run`] blocks.

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
use crate::kafka::context::Context;
use crate::kafka::inquiry::committed;
use crate::kafka::log_limit::LogLimit;
use crate::kafka::refusal::Refusal;
use crate::kafka::rights::{RESEND_GROUP, resend_transactional_id};
use crate::kafka::scan::{Scan, Scanned};
use crate::kafka::second_read::SecondReader;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY, partitions_of};
use crate::shutdown::Shutdown;

/// Most dead letters in a transaction: few enough for its timeout of a minute, enough for a quick run.
const BATCH_MAX: u64 = 500;
/// Most records that a run can identify. They take some 500 MB.
const KNOWN_MAX: usize = 5_000_000;
/// Timeout of one request, and the longest time without a dead letter.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a request is repeated that Kafka asks to repeat.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why not all dead letters were processed.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// librdkafka refused the settings.
    #[error("failed to create a Kafka client")]
    Create(#[source] KafkaError),
    /// The brokers refuse every client with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// A request failed. What was sent before it remains sent.
    #[error("failed to {what}")]
    Kafka {
        /// The request.
        what: &'static str,
        /// librdkafka's error.
        #[source]
        source: KafkaError,
    },
    /// A topic does not exist.
    #[error("there is no topic {topic}; {MISSING_REMEDY}")]
    NoTopic {
        /// The missing topic.
        topic: String,
    },
    /// The topic has more dead letters than a run can identify.
    #[error(
        "{topic} holds more than {KNOWN_MAX} letters; shorten its retention.ms until it holds fewer"
    )]
    TooMany {
        /// The dead-letter topic.
        topic: String,
    },
    /// No dead letter arrived before the end of the topic.
    #[error("no dead letter came for {} s", TIMEOUT.as_secs())]
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
            ResendError::Kafka { .. } | ResendError::Silence => Failure::new(error.to_string())
                .with_remedy(
                    "run it again: it continues where it stopped and sends no event twice",
                ),
            ResendError::Create(_) => Failure::new(error.to_string()),
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// Dead letters that no earlier run has processed.
    pub letters: u64,
    /// Events that were sent again.
    pub sent: u64,
    /// Dead letters that stay, by reason.
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

/// Processes all dead letters that no earlier run has processed, and resends those that can be repaired.
///
/// # Errors
/// See [`ResendError`].
pub fn run(
    config: &ClientConfig,
    topic: &str,
    dlq_topic: &str,
    shutdown: &Shutdown,
) -> Result<Resent, ResendError> {
    let consumer = consumer(config).map_err(ResendError::Create)?;
    let producer = producer(config, topic).map_err(ResendError::Create)?;
    let mut out = Resent::default();
    let assigned = wait_and_assign(&consumer, topic, dlq_topic, shutdown)?;
    if assigned.is_none_or(|partitions| partitions.is_empty()) {
        return Ok(out);
    }
    retry(|| producer.init_transactions(TIMEOUT)).map_err(failed("begin sending"))?;
    // The call above has fenced any other run, so the committed offsets can no longer change. Until then another run
    // may have moved them, so they are read again.
    let Some(partitions) = wait_and_assign(&consumer, topic, dlq_topic, shutdown)? else {
        return Ok(out);
    };
    let second = SecondReader::new(config, dlq_topic);
    let first = partitions.iter().map(|(p, part)| (*p, part.first));
    let scan = Scan::new(&consumer, &second, dlq_topic, shutdown, first.collect());
    let mut resend = Resend {
        scan,
        producer: &producer,
        topic,
        dlq_topic,
        partitions,
        known: BTreeSet::new(),
    };
    while !resend.scan.is_done() && !shutdown.is_triggered() {
        producer
            .begin_transaction()
            .map_err(failed("begin a transaction"))?;
        let batch = resend.fill_transaction(shutdown)?;
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

fn producer(config: &ClientConfig, topic: &str) -> KafkaResult<FutureProducer<Context>> {
    let mut config = config.clone();
    config
        .set("transactional.id", resend_transactional_id(topic))
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    config.create_with_context(Context::new(&config))
}

/// Repeats a request for at most [`RETRY_MAX`] while its error says that it may be repeated.
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

/// A partition of the dead-letter topic.
#[derive(Clone, Copy, Debug)]
struct LetterPartition {
    /// The oldest dead letter.
    first: Offset,
    /// The first dead letter that no earlier run has processed.
    first_new: Offset,
    /// The end of the partition when the run began.
    end: Offset,
}

/// Assigns the partitions of the dead-letter topic from their beginning, once Kafka is reached. There are none if no
/// dead letter is new. Returns `None` after a request to stop.
fn wait_and_assign(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    dlq_topic: &str,
    shutdown: &Shutdown,
) -> Result<Option<BTreeMap<i32, LetterPartition>>, ResendError> {
    // Serves the callback that provides the login's first token.
    consumer.poll(Duration::ZERO);
    let mut log_limit = LogLimit::default();
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
        // The client's context has logged a refusal.
        if errors.refusal().is_none() && log_limit.allow() {
            tracing::warn!(%error, todo = REACH_REMEDY, "waiting for kafka");
        }
        consumer.poll(RETRY_PAUSE);
    }
    Ok(None)
}

/// Assigns the partitions; returns the name of a missing topic as the inner error.
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

/// Identifies a record by its topic id, partition and offset.
type SourceRecord = (String, i32, i64);

/// The content of one transaction.
struct TransactionBatch {
    resent: Resent,
    /// The offsets after the last dead letters of the transaction.
    next_offsets: TopicPartitionList,
}

/// The state of a run.
struct Resend<'a> {
    scan: Scan<'a>,
    producer: &'a FutureProducer<Context>,
    topic: &'a str,
    dlq_topic: &'a str,
    partitions: BTreeMap<i32, LetterPartition>,
    /// The records whose dead letter was read already.
    known: BTreeSet<SourceRecord>,
}

impl Resend<'_> {
    /// Fills one transaction. Closes partitions that have been read to their end.
    fn fill_transaction(&mut self, shutdown: &Shutdown) -> Result<TransactionBatch, ResendError> {
        let mut resent = Resent::default();
        let mut next = BTreeMap::new();
        let mut last_letter = Instant::now();
        while !self.scan.is_done() && resent.letters < BATCH_MAX && !shutdown.is_triggered() {
            let scanned = self.scan.poll(POLL);
            match scanned.map_err(failed("read the dead letters"))? {
                Scanned::Record(letter) => {
                    last_letter = Instant::now();
                    if let Some(after) = self.process_letter(&letter, &mut resent)? {
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

    /// Resends a dead letter if it can be repaired. Returns the offset after it, or `None` if an earlier run has
    /// processed it.
    fn process_letter(
        &mut self,
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
        // A second dead letter of the same record is passed over, but its offset is committed.
        if is_first {
            resent.letters += 1;
            match repaired(letter, self.topic) {
                Ok((value, event)) => {
                    let record = FutureRecord::<str, str>::to(self.topic)
                        .key(&event.city)
                        .payload(&value);
                    // The commit of the transaction fails if the event is not delivered.
                    let _delivery = self
                        .producer
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

/// Returns the value of a header that the consumer added. These follow the last `reason`; the record's own headers may
/// have the same names.
fn header(letter: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers: Vec<_> = letter.headers()?.iter().collect();
    let ours = headers.iter().rposition(|header| header.key == "reason")?;
    let found = headers[ours..]
        .iter()
        .rev()
        .find(|header| header.key == name)?;
    String::from_utf8(found.value?.to_vec()).ok()
}

/// Returns the record of a dead letter.
fn source_of(letter: &BorrowedMessage<'_>) -> Option<SourceRecord> {
    Some((
        header(letter, "source_topic_id")?,
        header(letter, "source_partition")?.parse().ok()?,
        header(letter, "source_offset")?.parse().ok()?,
    ))
}

/// Returns the repaired event of a dead letter, or why it stays.
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
