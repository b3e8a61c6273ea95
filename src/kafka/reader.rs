//! Reads a topic without a consumer group. The reader assigns the partitions itself and commits no offsets.
//!
//! The commands `tail` and `verify` read the topic with a [`LogReader`]. [`LogReader::run`] blocks. The reader calls a
//! callback for each record, in log order within each partition. The reader also calls the callback when no record has
//! arrived for a short time.
//!
//! - `start` finds the partitions of the topic, and the first offset to read in each partition.
//! - `reading` reads these partitions up to the end of the requested range.

mod reading;
mod start;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::parse::{Body, Reject};
use crate::kafka::client::configure_scan;
use crate::kafka::context::Context;
use crate::kafka::refusal::Refusal;
use crate::kafka::scan::Scan;
use crate::kafka::second_read::SecondReader;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY};
use crate::settings::StartFrom;
use crate::shutdown::Shutdown;
use crate::telemetry::LogLimit;
use reading::Reading;
use start::OpenPartition;

/// The name of a group, which librdkafka requires. No member ever joins this group.
const GROUP: &str = "citystream-tail";
/// Timeout of each request that the reader sends before it begins to read records.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of the first request. The timeout grows by the same amount after each failed attempt. The first timeout is
/// short, because the Kafka client reports the reason for a failed connection only after the request has failed.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum wait for a record. After each wait, the caller can update its display, flush its output or stop.
const POLL: Duration = Duration::from_millis(50);

/// The reason why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// librdkafka refused the settings.
    #[error("failed to create a Kafka consumer")]
    Create(#[source] KafkaError),
    /// The brokers refuse every client with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// The Kafka client has failed and cannot continue.
    #[error("failed to read the topic")]
    Read(#[source] KafkaError),
}

/// The position at which the reader begins to read a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// Reading begins with the first record after the start of the reader.
    End,
    /// Reading begins with the oldest record.
    Beginning,
    /// Reading begins with the first record whose Kafka timestamp is at or after the given time.
    At(UnixMs),
}

impl ReadStart {
    /// Returns the position that `--from` names.
    pub fn from_setting(from: StartFrom, now_ms: UnixMs) -> ReadStart {
        match from {
            StartFrom::End => ReadStart::End,
            StartFrom::Beginning => ReadStart::Beginning,
            StartFrom::Ago(ms) => ReadStart::At(now_ms - ms),
            StartFrom::At(ms) => ReadStart::At(ms),
        }
    }
}

/// The range of records to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange {
    /// The position at which the reader begins to read each partition.
    pub start: ReadStart,
    /// In each partition, the reader stops at the first record whose Kafka timestamp is at or after `until_ms`. The
    /// field is `None` if there is no time limit.
    pub until_ms: Option<UnixMs>,
    /// True if the reader stops at the end that the log of each partition had when reading began.
    pub stop_at_end: bool,
}

/// A record of the event topic.
#[derive(Debug)]
pub struct LogRecord {
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record in its partition.
    pub offset: Offset,
    /// The Kafka timestamp of the record.
    pub record_ms: Option<UnixMs>,
    /// True if the broker set the timestamp when it received the record.
    pub by_broker: bool,
    /// The event or heartbeat in the record, or the reason why the record is rejected.
    pub body: Result<Body, Reject>,
    /// The value of a rejected record, or `None` for a valid record. The content of a valid record is in `body`.
    pub value: Option<Box<[u8]>>,
}

/// A record of the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The partition of the dead letter.
    pub partition: i32,
    /// The offset of the dead letter in its partition.
    pub offset: Offset,
    /// The Kafka timestamp of the dead letter.
    pub record_ms: Option<UnixMs>,
    /// The headers in their original order. The replacement character stands for bytes that are not UTF-8.
    pub headers: Vec<(String, String)>,
    /// The key of the dead letter.
    pub key: Option<Vec<u8>>,
    /// The value of the dead letter.
    pub value: Option<Vec<u8>>,
}

/// The values that [`LogReader::run`] passes to its callback.
#[derive(Debug)]
pub enum ReadStep {
    /// A record of the event topic.
    Record(LogRecord),
    /// A dead letter. Only a reader from [`LogReader::of_letters`] passes dead letters to the callback.
    Letter(Letter),
    /// No record has arrived for a short time.
    Idle,
    /// The brokers answer. The field contains the number of records that the reader must still read. The reader reports
    /// this number several times a second.
    Behind(u64),
    /// The brokers do not answer, or the topic does not exist. The field contains the reason and the remedy. The reader
    /// repeats this step until the brokers answer ([`ReadStep::Behind`]).
    Waiting(String),
}

type Callback<'a> = &'a mut dyn FnMut(ReadStep) -> ControlFlow<()>;

/// Reads all partitions of a topic.
pub struct LogReader {
    consumer: BaseConsumer<Context>,
    config: ClientConfig,
    topic: String,
    letters: bool,
}

impl LogReader {
    /// Returns a reader of the events in `topic`. The function sends no request.
    ///
    /// # Errors
    /// Returns [`ReaderError::Create`] if librdkafka refuses the settings.
    pub fn new(mut config: ClientConfig, topic: &str) -> Result<LogReader, ReaderError> {
        configure_scan(&mut config, GROUP);
        for (name, value) in [
            // With librdkafka's default of 1 s, the client pauses fetching for up to a second whenever its queue is
            // full.
            ("fetch.queue.backoff.ms", "5"),
            // If a partition has no new record, the broker answers a fetch only after `fetch.wait.max.ms`. This time is
            // short, so that the client soon reports the end of a log.
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
                .create_with_context(Context::new(&config))
                .map_err(ReaderError::Create)?,
            config,
            topic: topic.to_owned(),
            letters: false,
        })
    }

    /// Returns a reader of the dead letters in `topic`. The function sends no request.
    ///
    /// # Errors
    /// Returns [`ReaderError::Create`] if librdkafka refuses the settings.
    pub fn of_letters(config: ClientConfig, topic: &str) -> Result<LogReader, ReaderError> {
        let mut reader = LogReader::new(config, topic)?;
        reader.letters = true;
        Ok(reader)
    }

    /// Reads records until the end of the requested range, until the callback `step` returns `Break`, or until a
    /// shutdown. The call blocks the current thread. While Kafka is unreachable or the topic does not exist, the reader
    /// waits, and logs the reason every ten seconds.
    ///
    /// # Errors
    /// Returns [`ReaderError::Refused`] if the brokers refuse every client with these settings. Returns
    /// [`ReaderError::Read`] if the client cannot continue.
    pub fn run(
        &self,
        range: &ReadRange,
        shutdown: &Shutdown,
        step: Callback<'_>,
    ) -> Result<(), ReaderError> {
        let log_limit = LogLimit::default();
        let Some(open) = self.wait_for_topic(range, shutdown, &log_limit, &mut *step)? else {
            return Ok(());
        };
        let second = SecondReader::new(&self.config, &self.topic);
        let next = open.iter().map(|(p, part)| (*p, part.first)).collect();
        let scan = Scan::new(&self.consumer, &second, &self.topic, shutdown, next);
        Reading::new(self, range, scan, open, log_limit, step).run(shutdown)
    }

    /// Assigns the partitions as soon as Kafka and the topic are available. Returns `None` after a shutdown, or if the
    /// callback `step` has returned `Break`.
    fn wait_for_topic(
        &self,
        range: &ReadRange,
        shutdown: &Shutdown,
        log_limit: &LogLimit,
        step: Callback<'_>,
    ) -> Result<Option<BTreeMap<i32, OpenPartition>>, ReaderError> {
        let mut timeout = FIRST_TIMEOUT;
        let errors = self.consumer.context().errors();
        // This poll runs the callback that provides the first token for the login.
        self.consumer.poll(Duration::ZERO);
        while !shutdown.is_triggered() {
            let waiting = match self.assign(range, timeout) {
                Ok(Some(open)) => return Ok(Some(open)),
                Ok(None) => {
                    errors.broker_answered();
                    let why = format!("there is no topic {}", self.topic);
                    self.explain(log_limit, &why, MISSING_REMEDY)
                }
                // [`ClientErrors`] has already logged the refusal.
                Err(_) if let Some(refusal) = errors.refusal() => refusal.to_string(),
                Err(error) => {
                    timeout = (timeout + FIRST_TIMEOUT).min(REQUEST_TIMEOUT);
                    self.explain(log_limit, &plain(&error), REACH_REMEDY)
                }
            };
            if let Some(refusal) = errors.lasting_refusal() {
                return Err(ReaderError::Refused(refusal));
            }
            if step(ReadStep::Waiting(waiting)).is_break() || step(ReadStep::Idle).is_break() {
                break;
            }
            std::thread::sleep(POLL);
        }
        Ok(None)
    }

    /// Logs why the reader is waiting, and returns the text for [`ReadStep::Waiting`].
    fn explain(&self, log_limit: &LogLimit, why: &str, todo: &str) -> String {
        if log_limit.allows() {
            tracing::warn!(
                topic = self.topic,
                why,
                todo,
                "waiting for Kafka and the topic"
            );
        }
        format!("{why}; {todo}")
    }
}

/// Returns a description of an error for operators. librdkafka's own messages are for developers.
fn plain(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
            "no broker answers".to_owned()
        }
        Some(RDKafkaErrorCode::OperationTimedOut) => "no broker answers in time".to_owned(),
        _ => error.to_string(),
    }
}
