//! Reads a topic without a group: every partition assigned by hand, nothing ever committed.
//!
//! For those who look at the log, such as `tail`. [`LogReader::run`] blocks and calls back for each
//! record in the log's order per partition, and whenever there is none. The end of a partition is
//! the consumer's position, told by librdkafka, not the last record seen: control records leave
//! gaps. A second read confirms each gap ([`crate::kafka::second_read`]). Transactions that were rolled back are not shown. What a partition's log ends with is known
//! from each fetch, so how far reading is behind costs no request.
//!
//! A broker that does not answer offsets-for-times (librdkafka's mock cluster gives "none" for any
//! time) makes a start by time a scan from the beginning; the records before it are skipped.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use crate::core::event::Offset;
use crate::core::parse::{Body, HEARTBEAT_HEADER, Reject, parse_record};
use crate::kafka::refusal::Refusal;
use crate::kafka::second_read::{EndContext, SecondReader};
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY};
use crate::shutdown::Shutdown;
use crate::sys;
use crate::telemetry::unix_ms;

/// librdkafka reads by hand only under some group's name; no group of this name ever exists.
const GROUP: &str = "citystream-tail";
/// Time of one request at the start.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time of the first request; it grows by as much with each try. Nothing is heard from the client
/// meanwhile, not even why it does not get in.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for a record before the caller may draw, flush or stop.
const POLL: Duration = Duration::from_millis(50);
/// How often a look is taken at how far reading is behind.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for a broker that was away.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a wait for Kafka is told.
const NOTICE_EVERY: Duration = Duration::from_secs(10);
/// How long past `until_ms` a quiet partition is read, for records still on their way.
const UNTIL_GRACE_MS: i64 = 1_000;
/// How long to wait for the reason why a broker was not reached, and how many of them to hear.
const EXCUSE_WAIT: Duration = Duration::from_millis(300);
const EXCUSES_MAX: usize = 10;

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// librdkafka refused the settings.
    #[error("failed to make a Kafka consumer")]
    Create(#[source] KafkaError),
    /// The brokers let nobody in with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// The partitions could not be taken.
    #[error("failed to read the topic")]
    Read(#[source] KafkaError),
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// With the next record.
    End,
    /// With the oldest record.
    Beginning,
    /// With the records of this time (Unix milliseconds) and later, by record timestamp.
    At(i64),
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange {
    /// Where to begin.
    pub start: ReadStart,
    /// Reading ends before the first record of this time (Unix milliseconds) or later.
    pub until_ms: Option<i64>,
    /// Reading ends where the log ended when it began.
    pub stop_at_end: bool,
}

/// One record.
#[derive(Debug)]
pub struct LogRecord {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: Offset,
    /// Its Kafka timestamp in Unix milliseconds.
    pub record_ms: Option<i64>,
    /// The timestamp is the broker's, of when it took the record.
    pub by_broker: bool,
    /// What it says.
    pub body: Result<Body, Reject>,
    /// The value of a rejected record; of others the body says it all.
    pub value: Option<Box<[u8]>>,
}

/// A record as it stands, for topics whose records are no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: Offset,
    /// Its Kafka timestamp in Unix milliseconds.
    pub record_ms: Option<i64>,
    /// Its headers in order; values that are no UTF-8 with replacement characters.
    pub headers: Vec<(String, String)>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// What [`LogReader::run`] calls back with.
#[derive(Debug)]
pub enum ReadStep {
    /// A record.
    Record(LogRecord),
    /// A record of a reader that was made by [`LogReader::of_letters`].
    Letter(Letter),
    /// Nothing arrived for a moment.
    Idle,
    /// All goes well, and so many records are between the position and the log's end; now and then.
    Behind(u64),
    /// Kafka, or the topic, is not there: what is wrong, `; `, and what to do. Comes again and again,
    /// and [`ReadStep::Behind`] once that is over.
    Waiting(String),
}

/// A consumer of a whole topic.
pub struct LogReader {
    consumer: BaseConsumer<EndContext>,
    config: ClientConfig,
    topic: String,
    letters: bool,
}

/// Sets how a topic is read by one client from its beginning to its end, committed records only. `group`
/// is a name; nobody joins it.
pub(crate) fn read_alone(config: &mut ClientConfig, group: &str) {
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest");
}

/// How far one partition was read.
#[derive(Debug)]
struct PartitionCursor {
    /// Where the log ended at the start, if reading ends there.
    end: Option<i64>,
    /// Where reading stands.
    next: Offset,
    at_end: bool,
    done: bool,
}

impl LogReader {
    /// Makes a reader. It need not reach Kafka yet. `config` says how to reach the brokers.
    ///
    /// # Errors
    /// [`ReaderError::Create`] where librdkafka refuses the settings.
    pub fn new(mut config: ClientConfig, topic: &str) -> Result<LogReader, ReaderError> {
        read_alone(&mut config, GROUP);
        for (name, value) in [
            // At its default of 1 s it stalls a fast reader.
            ("fetch.queue.backoff.ms", "5"),
            // An end is told after this long.
            ("fetch.wait.max.ms", "100"),
            ("queued.max.messages.kbytes", "16384"),
            ("reconnect.backoff.max.ms", "2000"),
        ] {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        Ok(LogReader {
            consumer: config
                .create_with_context(EndContext::new(&config))
                .map_err(ReaderError::Create)?,
            config,
            topic: topic.to_owned(),
            letters: false,
        })
    }

    /// As [`LogReader::new`], for a topic whose records are shown as they stand.
    ///
    /// # Errors
    /// [`ReaderError::Create`] where librdkafka refuses the settings.
    pub fn of_letters(config: ClientConfig, topic: &str) -> Result<LogReader, ReaderError> {
        let mut reader = LogReader::new(config, topic)?;
        reader.letters = true;
        Ok(reader)
    }

    /// Reads until the range ends, `step` breaks, or stopping is asked for. Blocks; waits for Kafka
    /// and the topic, saying so every ten seconds.
    ///
    /// # Errors
    /// [`ReaderError::Refused`] where the brokers let nobody in with these settings,
    /// [`ReaderError::Read`] where librdkafka cannot go on.
    pub fn run(
        &self,
        range: &ReadRange,
        shutdown: &Shutdown,
        step: &mut dyn FnMut(ReadStep) -> ControlFlow<()>,
    ) -> Result<(), ReaderError> {
        let mut notice = Notice::default();
        let mut timeout = FIRST_TIMEOUT;
        let chatter = self.consumer.context().chatter();
        // Brings the login's first token, if it takes one.
        self.consumer.poll(Duration::ZERO);
        let mut parts = loop {
            if shutdown.is_triggered() {
                return Ok(());
            }
            match self.assign(range, timeout) {
                Ok(Some(parts)) => break parts,
                Ok(None) => {
                    chatter.reached();
                    let why = format!("there is no topic {}", self.topic);
                    notice.tell(&self.topic, &why, MISSING_REMEDY);
                }
                // A refusal is told by who hears it.
                Err(_) if let Some(refusal) = chatter.refusal() => {
                    notice.why = Some(refusal.to_string());
                }
                Err(error) => {
                    notice.tell(&self.topic, &plain(&error), REACH_REMEDY);
                    timeout = (timeout + FIRST_TIMEOUT).min(REQUEST_TIMEOUT);
                }
            }
            if let Some(refusal) = chatter.hopeless() {
                return Err(ReaderError::Refused(refusal));
            }
            let told = notice.why.take().map(ReadStep::Waiting);
            if told.is_some_and(|told| step(told).is_break()) || step(ReadStep::Idle).is_break() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        };
        let mut open = parts.values().filter(|part| !part.done).count();
        let mut looked = Instant::now() - LOOK_EVERY;
        let mut away = false;
        let second = SecondReader::new(&self.config, &self.topic);
        while open > 0 && !shutdown.is_triggered() {
            let flow = match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let to = (message.partition(), Offset(message.offset()));
                    if self.may_pass(&second, &parts, to, shutdown)? {
                        self.take(&message, range, &mut parts, &mut open, step)
                    } else {
                        ControlFlow::Continue(())
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let end = self.consumer.context().end_of_log().unwrap_or(Offset(0));
                    if self.may_pass(&second, &parts, (partition, end), shutdown)?
                        && let Some(part) = parts.get_mut(&partition)
                    {
                        part.next = part.next.max(end);
                        part.at_end = true;
                        away = false;
                        if part.end.is_some() {
                            self.close(partition, part, &mut open);
                        }
                    }
                    ControlFlow::Continue(())
                }
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Err(ReaderError::Read(KafkaError::MessageConsumptionFatal(code)));
                }
                Some(Err(error)) => {
                    // Rights on the group that is never used are not needed.
                    if error.rdkafka_error_code()
                        != Some(RDKafkaErrorCode::GroupAuthorizationFailed)
                    {
                        notice.tell(&self.topic, &plain(&error), REACH_REMEDY);
                    }
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
                        away = true;
                        step(ReadStep::Waiting(format!(
                            "{}; {REACH_REMEDY}",
                            plain(&error)
                        )))
                    } else {
                        ControlFlow::Continue(())
                    }
                }
                None => step(ReadStep::Idle),
            };
            if flow.is_break() {
                break;
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                // A topic at rest brings nothing that would tell that its broker is back.
                away = away && self.consumer.fetch_metadata(None, PROBE_TIMEOUT).is_err();
                if !away && step(ReadStep::Behind(self.behind(&parts))).is_break() {
                    break;
                }
            }
            let passed = range.until_ms.is_some_and(|until_ms| {
                open > 0 && unix_ms() >= until_ms.saturating_add(UNTIL_GRACE_MS)
            });
            if passed {
                for (partition, part) in &mut parts {
                    if part.at_end {
                        self.close(*partition, part, &mut open);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns whether reading may continue at `to` (partition, offset): the log holds nothing between the
    /// last record and it. Otherwise the client has been moved back.
    fn may_pass(
        &self,
        second: &SecondReader,
        parts: &BTreeMap<i32, PartitionCursor>,
        (partition, to): (i32, Offset),
        shutdown: &Shutdown,
    ) -> Result<bool, ReaderError> {
        match parts.get(&partition).filter(|part| !part.done) {
            Some(part) => second
                .may_pass(&self.consumer, partition, (part.next, to), shutdown)
                .map_err(ReaderError::Read),
            None => Ok(true),
        }
    }

    fn take(
        &self,
        message: &BorrowedMessage<'_>,
        range: &ReadRange,
        parts: &mut BTreeMap<i32, PartitionCursor>,
        open: &mut usize,
        step: &mut dyn FnMut(ReadStep) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (partition, offset) = (message.partition(), Offset(message.offset()));
        let Some(part) = parts.get_mut(&partition).filter(|part| !part.done) else {
            return ControlFlow::Continue(());
        };
        part.at_end = false;
        part.next = offset.next();
        let record_ms = message.timestamp().to_millis();
        let after = range.until_ms.zip(record_ms).is_some_and(|(u, r)| r >= u);
        if after || part.end.is_some_and(|end| offset.0 >= end) {
            self.close(partition, part, open);
            return ControlFlow::Continue(());
        }
        if part.end.is_some_and(|end| offset.next().0 >= end) {
            self.close(partition, part, open);
        }
        // Records of a producer's time may lie out of order behind the offset that was asked for.
        if let (ReadStart::At(from_ms), Some(record_ms)) = (range.start, record_ms)
            && record_ms < from_ms
        {
            return ControlFlow::Continue(());
        }
        if self.letters {
            return step(ReadStep::Letter(letter(message)));
        }
        let body = parse_record(message.payload(), heartbeat_values(message));
        let value = if body.is_err() {
            message.payload().map(Box::from)
        } else {
            None
        };
        step(ReadStep::Record(LogRecord {
            partition,
            offset,
            record_ms,
            by_broker: matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
            body,
            value,
        }))
    }

    /// Returns how many records are between the position and the log's end, as far as is known.
    fn behind(&self, parts: &BTreeMap<i32, PartitionCursor>) -> u64 {
        let of_part = |(partition, part): (&i32, &PartitionCursor)| {
            if part.at_end || part.done {
                return 0;
            }
            let end = sys::known_log_end(self.consumer.client(), &self.topic, *partition);
            end.map_or(0, |end| u64::try_from(end - part.next.0).unwrap_or(0))
        };
        parts.iter().map(of_part).sum()
    }

    /// Ends a partition: what it still brings would be in the way of the others.
    fn close(&self, partition: i32, part: &mut PartitionCursor, open: &mut usize) {
        if part.done {
            return;
        }
        part.done = true;
        *open -= 1;
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        if let Err(error) = self.consumer.pause(&list) {
            tracing::debug!(partition, %error, "failed to pause a partition");
        }
    }

    /// Finds the partitions and where each begins, and takes them; `None` without such a topic.
    fn assign(
        &self,
        range: &ReadRange,
        timeout: Duration,
    ) -> KafkaResult<Option<BTreeMap<i32, PartitionCursor>>> {
        // All topics: asking for one by name may create it.
        let metadata = self.consumer.fetch_metadata(None, timeout);
        if metadata.is_err() {
            // Nothing is assigned yet, so all that can come is why the broker was not reached, which
            // the client's context says better than the error does. It may come a moment later.
            for _ in 0..EXCUSES_MAX {
                if self.consumer.poll(EXCUSE_WAIT).is_none() {
                    break;
                }
            }
        }
        let metadata = metadata?;
        let topic = metadata.topics().iter().find(|t| t.name() == self.topic);
        let Some(topic) = topic.filter(|t| !t.partitions().is_empty()) else {
            return Ok(None);
        };
        let mut bounds = BTreeMap::new();
        for partition in topic.partitions().iter().map(|p| p.id()) {
            let low_and_end =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)?;
            bounds.insert(partition, low_and_end);
        }
        let by_time = match range.start {
            ReadStart::At(from_ms) => self.offsets_at(from_ms, &bounds)?,
            ReadStart::End | ReadStart::Beginning => None,
        };
        let (mut list, mut parts) = (TopicPartitionList::new(), BTreeMap::new());
        for (partition, (low, log_end)) in bounds {
            let start = match range.start {
                ReadStart::End => log_end,
                ReadStart::Beginning => low,
                ReadStart::At(_) => match &by_time {
                    None => low,
                    Some(offsets) => offsets.get(&partition).copied().unwrap_or(log_end),
                },
            };
            let end = range.stop_at_end.then_some(log_end);
            list.add_partition_offset(&self.topic, partition, ListOffset::Offset(start))?;
            let part = PartitionCursor {
                end,
                next: Offset(start),
                at_end: false,
                done: end.is_some_and(|end| start >= end),
            };
            parts.insert(partition, part);
        }
        self.consumer.assign(&list)?;
        Ok(Some(parts))
    }

    /// The first offset of this time or later by partition, none where all records are older; or
    /// `None` if the broker cannot tell.
    fn offsets_at(
        &self,
        from_ms: i64,
        bounds: &BTreeMap<i32, (i64, i64)>,
    ) -> KafkaResult<Option<BTreeMap<i32, i64>>> {
        let ask = |time_ms: i64| -> KafkaResult<BTreeMap<i32, i64>> {
            let mut list = TopicPartitionList::new();
            for partition in bounds.keys() {
                list.add_partition_offset(&self.topic, *partition, ListOffset::Offset(time_ms))?;
            }
            let answer = self.consumer.offsets_for_times(list, REQUEST_TIMEOUT)?;
            let elements = answer.elements();
            let found = elements.iter().filter_map(|e| match e.offset() {
                ListOffset::Offset(offset) if offset >= 0 => Some((e.partition(), offset)),
                _ => None,
            });
            Ok(found.collect())
        };
        let found = match ask(from_ms.max(0)) {
            Ok(found) => found,
            Err(error)
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // No partition has any record that late: or is it that the broker never answers? The time 0
        // finds the first record of every log that has one.
        let has_records = bounds.values().any(|(low, end)| low < end);
        if found.is_empty() && has_records && ask(0)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(found))
    }
}

/// Copies a record as it stands.
fn letter(message: &BorrowedMessage<'_>) -> Letter {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let text = |h: rdkafka::message::Header<'_, &[u8]>| {
            let value = String::from_utf8_lossy(h.value.unwrap_or_default());
            (h.key.to_owned(), value.into_owned())
        };
        headers.iter().map(text).collect()
    });
    Letter {
        partition: message.partition(),
        offset: Offset(message.offset()),
        record_ms: message.timestamp().to_millis(),
        headers,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// Says what is wrong in words for people, where librdkafka's are for its developers.
fn plain(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
            "no broker answers".to_owned()
        }
        Some(RDKafkaErrorCode::OperationTimedOut) => "no broker answers in time".to_owned(),
        _ => error.to_string(),
    }
}

fn heartbeat_values<'a>(
    message: &'a BorrowedMessage<'_>,
) -> impl Iterator<Item = Option<&'a [u8]>> {
    let headers = message.headers();
    headers
        .into_iter()
        .flat_map(|headers| headers.iter())
        .filter(|header| header.key == HEARTBEAT_HEADER)
        .map(|header| header.value)
}

/// Says what is waited for, but not all the time.
#[derive(Debug, Default)]
struct Notice {
    told: Option<Instant>,
    /// What is to be handed to the caller.
    why: Option<String>,
}

impl Notice {
    fn tell(&mut self, topic: &str, why: &str, todo: &str) {
        self.why = Some(format!("{why}; {todo}"));
        if self.told.is_none_or(|at| at.elapsed() >= NOTICE_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(topic, why, todo, "waiting for kafka and the topic");
        }
    }
}
