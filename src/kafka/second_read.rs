//! Reads ranges of a log a second time, to tell real gaps from skipped records ([`crate::core::gap`]).
//!
//! The second read has a Kafka client of its own, so it shares no fetch position with the first. The client
//! takes partitions at offsets that are numbers, never at "beginning" or "end", which librdkafka would look
//! up at the broker. All calls block.

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
use crate::kafka::chatter::Chatter;
use crate::kafka::reader::read_alone;
use crate::shutdown::Shutdown;

/// The group's name where the settings have none. librdkafka wants one, and nobody joins it.
const GROUP: &str = "citystream-second-read";
/// How long the first try may take. A range of aborted transactions is read in full before its end shows, so
/// each try that ends without an answer doubles the time of the next.
const TIMEOUT_FIRST: Duration = Duration::from_secs(5);
/// No try takes longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Longest wait of one poll.
const POLL: Duration = Duration::from_millis(100);
/// Pause after a try without an answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Reads ranges of one topic a second time.
pub struct SecondReader {
    config: ClientConfig,
    topic: String,
    client: Option<BaseConsumer<EndContext>>,
    timeout: Duration,
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
            client: None,
            timeout: TIMEOUT_FIRST,
        }
    }

    /// Reads each gap's partition from [`Gap::from`] and returns what came first, in the order of `gaps`,
    /// which hold each partition at most once.
    pub fn read(&mut self, gaps: &[(i32, Gap)]) -> Vec<SecondRead> {
        let found = match self.try_read(gaps) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "failed to read a range a second time");
                vec![SecondRead::NoAnswer; gaps.len()]
            }
        };
        if found.contains(&SecondRead::NoAnswer) {
            self.timeout = (self.timeout * 2).min(TIMEOUT_MAX);
            self.client = None;
        } else {
            self.timeout = TIMEOUT_FIRST;
        }
        found
    }

    fn try_read(&mut self, gaps: &[(i32, Gap)]) -> KafkaResult<Vec<SecondRead>> {
        let mut list = TopicPartitionList::new();
        for (partition, gap) in gaps {
            let from = ListOffset::Offset(gap.from.0);
            list.add_partition_offset(&self.topic, *partition, from)?;
        }
        let client = match self.client.take() {
            Some(client) => client,
            None => self
                .config
                .create_with_context(EndContext::new(&self.config))?,
        };
        client.assign(&list)?;
        let deadline = Instant::now() + self.timeout;
        let mut found = vec![SecondRead::NoAnswer; gaps.len()];
        while found.contains(&SecondRead::NoAnswer) && Instant::now() < deadline {
            let Some((at, answer)) = poll(&client, gaps)? else {
                continue;
            };
            if answer == SecondRead::OutOfRange && gaps.len() > 1 {
                // librdkafka does not say which partition it means.
                drop(client);
                return gaps.iter().map(|gap| self.read_one(*gap)).collect();
            }
            if found[at] == SecondRead::NoAnswer {
                found[at] = answer;
            }
        }
        self.client = Some(client);
        Ok(found)
    }

    fn read_one(&mut self, gap: (i32, Gap)) -> KafkaResult<SecondRead> {
        Ok(self.try_read(&[gap])?[0])
    }

    /// Decides whether a reader that stands at `from` may continue at `to`, which is the offset of the record
    /// or the end of the log that `client` reported. If the client skipped records, it is moved back to
    /// `from`. Returns `false` then, and after a request to stop.
    ///
    /// # Errors
    /// When the client cannot be moved back.
    pub(super) fn may_pass<C: ConsumerContext>(
        &mut self,
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
            let verdict = gap.verdict(self.read(&[(partition, gap)])[0]);
            match verdict {
                Verdict::Real => return Ok(true),
                Verdict::Skipped { .. } => {
                    report(partition, gap, verdict);
                    let from = ListOffset::Offset(from.0);
                    client.seek(&self.topic, partition, from, TIMEOUT_FIRST)?;
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

/// Polls once. Returns which gap the answer is about.
fn poll(
    client: &BaseConsumer<EndContext>,
    gaps: &[(i32, Gap)],
) -> KafkaResult<Option<(usize, SecondRead)>> {
    let of = |partition: i32| gaps.iter().position(|(p, _)| *p == partition);
    match client.poll(POLL) {
        None => Ok(None),
        Some(Ok(message)) => {
            let offset = Offset(message.offset());
            let at = of(message.partition()).filter(|at| offset >= gaps[*at].1.from);
            Ok(at.map(|at| (at, SecondRead::Next(offset))))
        }
        Some(Err(KafkaError::PartitionEOF(partition))) => {
            // A log that ends inside the gap proves nothing: this broker may not have the rest yet.
            let end = client.context().end_of_log().unwrap_or(Offset(0));
            let at = of(partition).filter(|at| end >= gaps[*at].1.to);
            Ok(at.map(|at| (at, SecondRead::Next(end))))
        }
        Some(Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
        ))) => Ok(Some((0, SecondRead::OutOfRange))),
        // Brokers come and go; the deadline ends the wait.
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
pub(super) fn end_of_log(reason: &str) -> Option<Offset> {
    let (_, rest) = reason.split_once("end of partition at offset ")?;
    let digits = rest.split(' ').next()?;
    digits.parse().ok().map(Offset)
}

/// The context of a client that needs the offset at which a log ends: the error that reports the end of a
/// partition does not hold it.
#[derive(Debug)]
pub(super) struct EndContext {
    chatter: Chatter,
    end: Mutex<Option<Offset>>,
}

impl EndContext {
    /// Returns the context of a client made with `config`.
    pub(super) fn new(config: &ClientConfig) -> EndContext {
        EndContext {
            chatter: Chatter::new(config),
            end: Mutex::new(None),
        }
    }

    /// Returns what listens.
    pub(super) fn chatter(&self) -> &Chatter {
        &self.chatter
    }

    /// Returns the offset of the end that the last poll reported, once.
    pub(super) fn end_of_log(&self) -> Option<Offset> {
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
