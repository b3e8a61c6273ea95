//! Dead letters sent again, each once: what can be mended goes to the topic of events, the rest stays.
//!
//! One transaction sends a batch of events and moves the place in the dead-letter topic up to which
//! letters were looked at, which is an offset committed for the group [`RESEND_GROUP`]. So a run that dies
//! half-way has sent nothing of its last batch, and the next run begins where the last one ended; two
//! at once fence each other off by the transactional id. Readers of the events see committed ones only.
//!
//! A consumer that was killed may have sent a letter twice. So letters are known by the place of their
//! record, and all are read from the topic's beginning, those of earlier runs to know them only.
//!
//! Letters of other topics stay. So do those that DynamoDB refused (`refused_by_table`): they are
//! counted already. [`run`] blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::core::event::{self, Event};
use crate::core::parse::Reason;
use crate::core::repair::repair;
use crate::failure::Failure;
use crate::kafka::chatter::Context;
use crate::kafka::reader::read_alone;
use crate::kafka::refusal::Refusal;
use crate::kafka::rights::{RESEND_GROUP, resend_transactional_id};
use crate::kafka::second_read::{EndContext, SecondReader};
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY};
use crate::shutdown::Shutdown;

/// Letters in a transaction: few enough for a timeout of a minute, many enough for a quick pass.
const BATCH_MAX: u64 = 500;
/// Letters that are known at most: some 500 MB.
const KNOWN_MAX: usize = 5_000_000;
/// Time of one request, and the longest pause in which no letter comes.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often a wait for Kafka is told.
const NOTICE_EVERY: Duration = Duration::from_secs(10);

/// Why letters were not all looked at.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// librdkafka refused the settings.
    #[error("failed to make a Kafka client")]
    Create(#[source] KafkaError),
    /// The brokers let nobody in with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// Kafka did not do what was asked. What was sent before stays sent.
    #[error("failed to {what}")]
    Kafka {
        /// What was asked.
        what: &'static str,
        /// librdkafka's words.
        #[source]
        source: KafkaError,
    },
    /// The topics are not there.
    #[error("there is no topic {topic}; {MISSING_REMEDY}")]
    NoTopic {
        /// The missing one.
        topic: String,
    },
    /// More letters than can be known.
    #[error(
        "{topic} holds more than {KNOWN_MAX} letters; shorten its retention.ms until it holds fewer"
    )]
    TooMany {
        /// The topic of letters.
        topic: String,
    },
    /// Letters stopped coming before the end.
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

/// What became of the letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// Letters looked at.
    pub letters: u64,
    /// Events sent again.
    pub sent: u64,
    /// Letters that stay, by reason.
    pub stay: BTreeMap<&'static str, u64>,
}

/// Looks at all letters that no run has looked at, and sends what can be mended.
///
/// # Errors
/// [`ResendError`].
pub fn run(
    config: &ClientConfig,
    topic: &str,
    dlq_topic: &str,
    shutdown: &Shutdown,
) -> Result<Resent, ResendError> {
    let consumer = consumer(config).map_err(ResendError::Create)?;
    let producer = producer(config, topic).map_err(ResendError::Create)?;
    let (mut out, mut known) = (Resent::default(), BTreeSet::new());
    let failed = |what| move |source| ResendError::Kafka { what, source };
    if begin(&consumer, topic, dlq_topic, shutdown)?.is_none_or(|left| left.is_empty()) {
        return Ok(out);
    }
    retried(|| producer.init_transactions(TIMEOUT)).map_err(failed("begin sending"))?;
    let second = SecondReader::new(config, dlq_topic);
    // Only now can no other run move the place any more, so only now is it known.
    let Some(mut left) = begin(&consumer, topic, dlq_topic, shutdown)? else {
        return Ok(out);
    };
    while !left.is_empty() && !shutdown.is_triggered() {
        let mut batch = Resent::default();
        producer
            .begin_transaction()
            .map_err(failed("begin a transaction"))?;
        let letters = Letters {
            consumer: &consumer,
            second: &second,
            shutdown,
        };
        let places = fill(letters, &producer, topic, &mut left, &mut known, &mut batch)?;
        if places.count() == 0 {
            break;
        }
        let group = consumer
            .group_metadata()
            .expect("a consumer with a group has metadata of it");
        retried(|| producer.send_offsets_to_transaction(&places, &group, TIMEOUT))
            .map_err(failed("note which letters were looked at"))?;
        retried(|| producer.commit_transaction(TIMEOUT)).map_err(failed("commit a transaction"))?;
        out.add(batch);
    }
    Ok(out)
}

/// What is left of a partition of letters.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The first letter that no run has looked at.
    next: i64,
    /// Where the partition ended at the start.
    end: i64,
    /// The offset after the last letter that was read.
    position: i64,
}

/// Where a letter's record stood: topic id, partition, offset.
type Place = (String, i32, i64);

impl Resent {
    fn add(&mut self, other: Resent) {
        self.letters += other.letters;
        self.sent += other.sent;
        for (reason, count) in other.stay {
            *self.stay.entry(reason).or_insert(0) += count;
        }
    }
}

fn consumer(config: &ClientConfig) -> KafkaResult<BaseConsumer<EndContext>> {
    let mut config = config.clone();
    read_alone(&mut config, RESEND_GROUP);
    config.create_with_context(EndContext::new(&config))
}

fn producer(config: &ClientConfig, topic: &str) -> KafkaResult<FutureProducer<Context>> {
    let mut config = config.clone();
    config
        .set("transactional.id", resend_transactional_id(topic))
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    config.create_with_context(Context::new(&config))
}

/// Calls again what Kafka says may be called again, for a minute at most.
fn retried(call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let begun = Instant::now();
    loop {
        match call() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && begun.elapsed() < 6 * TIMEOUT =>
            {
                std::thread::sleep(RETRY_PAUSE);
            }
            other => return other,
        }
    }
}

/// Takes the letters' partitions from their beginning; none if there are no new letters. `None` after a
/// request to stop.
fn begin(
    consumer: &BaseConsumer<EndContext>,
    topic: &str,
    dlq_topic: &str,
    shutdown: &Shutdown,
) -> Result<Option<BTreeMap<i32, Part>>, ResendError> {
    // Brings the login's first token, if it takes one.
    consumer.poll(Duration::ZERO);
    let mut told: Option<Instant> = None;
    while !shutdown.is_triggered() {
        let error = match assign(consumer, topic, dlq_topic) {
            Ok(Ok(parts)) => return Ok(Some(parts)),
            Ok(Err(topic)) => return Err(ResendError::NoTopic { topic }),
            Err(error) => error,
        };
        let chatter = consumer.context().chatter();
        if let Some(refusal) = chatter.hopeless() {
            return Err(ResendError::Refused(refusal));
        }
        if chatter.refusal().is_none() && told.is_none_or(|at| at.elapsed() >= NOTICE_EVERY) {
            told = Some(Instant::now());
            tracing::warn!(%error, todo = REACH_REMEDY, "waiting for kafka");
        }
        consumer.poll(RETRY_PAUSE);
    }
    Ok(None)
}

fn assign(
    consumer: &BaseConsumer<EndContext>,
    topic: &str,
    dlq_topic: &str,
) -> KafkaResult<Result<BTreeMap<i32, Part>, String>> {
    // All topics: asking for one by name may create it.
    let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
    let partitions = |name: &str| {
        let found = metadata.topics().iter().find(|t| t.name() == name);
        let ids = found.map(|t| t.partitions().iter().map(|p| p.id()).collect::<Vec<_>>());
        ids.filter(|ids| !ids.is_empty())
    };
    if partitions(topic).is_none() {
        return Ok(Err(topic.to_owned()));
    }
    let Some(letters) = partitions(dlq_topic) else {
        return Ok(Err(dlq_topic.to_owned()));
    };
    let mut asked = TopicPartitionList::new();
    for partition in &letters {
        asked.add_partition(dlq_topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, TIMEOUT)?;
    let (mut list, mut parts) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in letters {
        let (low, end) = consumer.fetch_watermarks(dlq_topic, partition, TIMEOUT)?;
        let place = committed.find_partition(dlq_topic, partition);
        let next = match place.map(|place| place.offset()) {
            Some(Offset::Offset(next)) => next.max(low),
            _ => low,
        };
        if low < end {
            list.add_partition_offset(dlq_topic, partition, Offset::Offset(low))?;
            parts.insert(
                partition,
                Part {
                    next,
                    end,
                    position: low,
                },
            );
        }
    }
    if parts.values().all(|part| part.next >= part.end) {
        return Ok(Ok(BTreeMap::new()));
    }
    consumer.assign(&list)?;
    Ok(Ok(parts))
}

/// What letters are read with.
struct Letters<'a> {
    consumer: &'a BaseConsumer<EndContext>,
    second: &'a SecondReader,
    shutdown: &'a Shutdown,
}

impl Letters<'_> {
    /// Returns whether reading may continue at `to`: the topic holds nothing between the last letter and it.
    fn may_pass(&self, partition: i32, part: &Part, to: i64) -> Result<bool, ResendError> {
        let range = (event::Offset(part.position), event::Offset(to));
        self.second
            .may_pass(self.consumer, partition, range, self.shutdown)
            .map_err(|source| ResendError::Kafka {
                what: "read skipped dead letters again",
                source,
            })
    }
}

/// Fills one transaction; returns the places behind its letters. Partitions that are at their end
/// leave `left`.
fn fill(
    letters: Letters<'_>,
    producer: &FutureProducer<Context>,
    topic: &str,
    left: &mut BTreeMap<i32, Part>,
    known: &mut BTreeSet<Place>,
    batch: &mut Resent,
) -> Result<TopicPartitionList, ResendError> {
    let failed = |what| move |source| ResendError::Kafka { what, source };
    let mut places = BTreeMap::new();
    let mut letters_topic = String::new();
    let mut heard = Instant::now();
    while !left.is_empty() && batch.letters < BATCH_MAX {
        if letters.shutdown.is_triggered() {
            break;
        }
        let consumer = letters.consumer;
        let message = match consumer.poll(POLL) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let end = consumer.context().end_of_log().map_or(0, |end| end.0);
                if let Some(part) = left.get(&partition)
                    && letters.may_pass(partition, part, end)?
                {
                    left.remove(&partition);
                }
                continue;
            }
            Some(Err(error)) => return Err(failed("read the dead letters")(error)),
            None if heard.elapsed() >= TIMEOUT => return Err(ResendError::Silence),
            None => continue,
        };
        heard = Instant::now();
        let (partition, offset) = (message.partition(), message.offset());
        letters_topic.clear();
        letters_topic.push_str(message.topic());
        let Some(part) = left.get(&partition).copied() else {
            continue;
        };
        if !letters.may_pass(partition, &part, offset)? {
            continue;
        }
        left.insert(
            partition,
            Part {
                position: offset + 1,
                ..part
            },
        );
        if offset + 1 >= part.end {
            left.remove(&partition);
        }
        if offset >= part.end {
            continue;
        }
        let is_new = source(&message).is_none_or(|place| known.insert(place));
        if known.len() > KNOWN_MAX {
            let topic = letters_topic;
            return Err(ResendError::TooMany { topic });
        }
        if offset < part.next {
            continue;
        }
        places.insert(partition, offset + 1);
        if !is_new {
            continue;
        }
        batch.letters += 1;
        match mended(&message, topic) {
            Ok((value, event)) => {
                let record = FutureRecord::<str, str>::to(topic)
                    .key(&event.city)
                    .payload(&value);
                // Whether it arrived is what committing tells.
                let _delivery = producer
                    .send_result(record)
                    .map_err(|(error, _)| failed("send an event again")(error))?;
                batch.sent += 1;
            }
            Err(reason) => *batch.stay.entry(reason).or_insert(0) += 1,
        }
    }
    let mut list = TopicPartitionList::new();
    for (partition, next) in places {
        list.add_partition_offset(&letters_topic, partition, Offset::Offset(next))
            .map_err(failed("note which letters were looked at"))?;
    }
    Ok(list)
}

/// A header of ours: the last `reason` and what follows it. A record's own may have the same names.
fn header(letter: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers: Vec<_> = letter.headers()?.iter().collect();
    let ours = headers.iter().rposition(|header| header.key == "reason")?;
    let found = headers[ours..]
        .iter()
        .rev()
        .find(|header| header.key == name)?;
    String::from_utf8(found.value?.to_vec()).ok()
}

fn source(letter: &BorrowedMessage<'_>) -> Option<Place> {
    Some((
        header(letter, "source_topic_id")?,
        header(letter, "source_partition")?.parse().ok()?,
        header(letter, "source_offset")?.parse().ok()?,
    ))
}

/// Returns the letter's event, or why it stays.
fn mended(letter: &BorrowedMessage<'_>, topic: &str) -> Result<(String, Event), &'static str> {
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
