//! Reads a topic without a group: partitions are assigned by hand, and nothing is committed.
//!
//! `tail` and `verify` use it. [`LogReader::run`] blocks and calls back for each record, in log order within each
//! partition, and whenever no record has arrived for a moment.
//!
//! - `start` finds the partitions and the offset at which each one begins.
//! - `reading` reads them until the range ends.

mod reading;
mod start;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::core::event::Offset;
use crate::core::parse::{Body, Reject};
use crate::kafka::client::configure_scan;
use crate::kafka::context::Context;
use crate::kafka::log_limit::LogLimit;
use crate::kafka::refusal::Refusal;
use crate::kafka::scan::Scan;
use crate::kafka::second_read::SecondReader;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY};
use crate::shutdown::Shutdown;
use reading::Reading;
use start::OpenPartition;

/// The group name, which librdkafka requires. No member ever joins this group.
const GROUP: &str = "citystream-tail";
/// Timeout of one request at the start.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of the first request. Each attempt adds as much. It is short, because the client reports why it cannot
/// connect only after the request has failed.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for a record before the caller gets a turn to draw, flush or stop.
const POLL: Duration = Duration::from_millis(50);

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// librdkafka refused the settings.
    #[error("failed to create a Kafka consumer")]
    Create(#[source] KafkaError),
    /// The brokers refuse every client with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// The client failed and cannot continue.
    #[error("failed to read the topic")]
    Read(#[source] KafkaError),
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// With the next record that is written.
    End,
    /// With the oldest record.
    Beginning,
    /// With the first record whose timestamp is at or after this time, in Unix milliseconds.
    At(i64),
}

/// The records to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange {
    /// Where to begin.
    pub start: ReadStart,
    /// A partition ends before its first record at or after this time, in Unix milliseconds.
    pub until_ms: Option<i64>,
    /// A partition ends where its log ended when reading began.
    pub stop_at_end: bool,
}

/// One record of the topic of events.
#[derive(Debug)]
pub struct LogRecord {
    /// The partition that holds it.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its Kafka timestamp in Unix milliseconds.
    pub record_ms: Option<i64>,
    /// The broker set the timestamp when it received the record.
    pub by_broker: bool,
    /// The event or heartbeat in it, or why it is rejected.
    pub body: Result<Body, Reject>,
    /// The value of a rejected record. The body of a valid one holds all of its value.
    pub value: Option<Box<[u8]>>,
}

/// A record of the dead-letter topic, as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The partition that holds it.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its Kafka timestamp in Unix milliseconds.
    pub record_ms: Option<i64>,
    /// Its headers in order. Bytes that are not UTF-8 become replacement characters.
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
    /// A dead letter, from a reader that was created by [`LogReader::of_letters`].
    Letter(Letter),
    /// No record has arrived for a moment.
    Idle,
    /// The brokers answer, and this many records follow the position. Repeated several times a second.
    Behind(u64),
    /// The brokers or the topic are away: the reason, `; `, and the remedy. Repeated until [`ReadStep::Behind`].
    Waiting(String),
}

type Callback<'a> = &'a mut dyn FnMut(ReadStep) -> ControlFlow<()>;

/// A consumer of all partitions of a topic.
pub struct LogReader {
    consumer: BaseConsumer<Context>,
    config: ClientConfig,
    topic: String,
    letters: bool,
}

impl LogReader {
    /// Returns a reader of the events in `topic`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ReaderError::Create`] when librdkafka refuses the settings.
    pub fn new(mut config: ClientConfig, topic: &str) -> Result<LogReader, ReaderError> {
        configure_scan(&mut config, GROUP);
        for (name, value) in [
            // The default of 1 s stalls a reader that is faster than the fetches.
            ("fetch.queue.backoff.ms", "5"),
            // A broker reports the end of a log only after this wait.
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

    /// Returns a reader of the dead letters in `topic`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ReaderError::Create`] when librdkafka refuses the settings.
    pub fn of_letters(config: ClientConfig, topic: &str) -> Result<LogReader, ReaderError> {
        let mut reader = LogReader::new(config, topic)?;
        reader.letters = true;
        Ok(reader)
    }

    /// Reads until the range ends, `step` breaks, or a stop is requested. Blocks. Waits for Kafka and the topic,
    /// and logs that every ten seconds.
    ///
    /// # Errors
    /// [`ReaderError::Refused`] when the brokers refuse every client with these settings, and
    /// [`ReaderError::Read`] when the client cannot continue.
    pub fn run(
        &self,
        range: &ReadRange,
        shutdown: &Shutdown,
        step: Callback<'_>,
    ) -> Result<(), ReaderError> {
        let mut log_limit = LogLimit::default();
        let Some(open) = self.wait_for_topic(range, shutdown, &mut log_limit, &mut *step)? else {
            return Ok(());
        };
        let second = SecondReader::new(&self.config, &self.topic);
        let next = open.iter().map(|(p, part)| (*p, part.first)).collect();
        let scan = Scan::new(&self.consumer, &second, &self.topic, shutdown, next);
        Reading::new(self, range, scan, open, log_limit, step).run(shutdown)
    }

    /// Assigns the partitions once Kafka and the topic are there. Returns `None` after a request to stop, or when
    /// `step` breaks.
    fn wait_for_topic(
        &self,
        range: &ReadRange,
        shutdown: &Shutdown,
        log_limit: &mut LogLimit,
        step: Callback<'_>,
    ) -> Result<Option<BTreeMap<i32, OpenPartition>>, ReaderError> {
        let mut timeout = FIRST_TIMEOUT;
        let errors = self.consumer.context().errors();
        // Serves the callback that provides the login's first token.
        self.consumer.poll(Duration::ZERO);
        while !shutdown.is_triggered() {
            let waiting = match self.assign(range, timeout) {
                Ok(Some(open)) => return Ok(Some(open)),
                Ok(None) => {
                    errors.clear_refusal();
                    let why = format!("there is no topic {}", self.topic);
                    self.explain(log_limit, &why, MISSING_REMEDY)
                }
                // The client's context has logged the refusal.
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

    /// Logs what the reader waits for, and returns it as text for [`ReadStep::Waiting`].
    fn explain(&self, log_limit: &mut LogLimit, why: &str, todo: &str) -> String {
        if log_limit.allow() {
            tracing::warn!(
                topic = self.topic,
                why,
                todo,
                "waiting for kafka and the topic"
            );
        }
        format!("{why}; {todo}")
    }
}

/// Describes an error for operators. librdkafka's messages are for its developers.
fn plain(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
            "no broker answers".to_owned()
        }
        Some(RDKafkaErrorCode::OperationTimedOut) => "no broker answers in time".to_owned(),
        _ => error.to_string(),
    }
}
