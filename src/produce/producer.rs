//! The producer of events and heartbeats: idempotent, acknowledged by all replicas, never dropping.
//!
//! [`EventProducer`] hands records to librdkafka and counts what becomes of them by delivery
//! callbacks, without a future per record. A full queue makes [`EventProducer::send`] wait. Nothing
//! times out: a record is acknowledged, refused for good by the broker, or still undelivered when
//! the process ends, and [`EventProducer::finish`] tells how many those are. Where the topic is gone,
//! librdkafka gives back what waited for it; that is sent again, before anything new.
//!
//! Its calls block, so they belong on a thread that may block. What happened stands in the shared
//! [`Deliveries`], which anybody may read at any time: progress, health, metrics.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, Message as _};

use crate::core::parse::HEARTBEAT_HEADER;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::refusal::Refusal;
use crate::kafka::{MISSING_REMEDY, NOTICE_EVERY, REACH_REMEDY};
use crate::produce::deliveries::Deliveries;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// A pause before a full queue is tried again; at 500,000 records/s it frees 1,000 places.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Time between two looks at what is left at the end.
const FINISH_PAUSE: Duration = Duration::from_millis(100);
/// At the end of its work, a producer waits for acknowledgements as long as one comes in this time.
const FINISH_IDLE_MAX: Duration = Duration::from_secs(60);
/// After a request to stop it waits so long altogether; systemd and the contract give 10 s.
const FINISH_STOP_MAX: Duration = Duration::from_secs(8);
/// Time of one metadata request.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// Most records waiting in memory; with 64 MiB of them the process stays below 250 MB.
const QUEUE_RECORDS_MAX: &str = "300000";
const QUEUE_KBYTES_MAX: &str = "65536";
/// Marks the delivery of a heartbeat; every other mark is a time of sending in µs, plus one.
const HEARTBEAT_MARK: usize = 0;

/// Why the producer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// librdkafka refused the settings.
    #[error("failed to make a Kafka producer")]
    Create(#[source] KafkaError),
    /// The brokers let nobody in with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// The idempotent producer can no longer promise order without gaps.
    #[error("the Kafka producer failed for good: {reason}")]
    Fatal {
        /// librdkafka's words.
        reason: String,
    },
}

/// An event that came back since there was no topic.
struct Returned {
    mark: usize,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn topic_is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

/// DeliveryCounts deliveries; everything else goes where the other clients' messages go.
struct DeliveryContext {
    tally: Arc<Deliveries>,
    /// At most what the queue held: nothing new is taken before these.
    returned: Mutex<VecDeque<Returned>>,
    chatter: ClientErrors,
}

impl DeliveryContext {
    fn returned(&self) -> std::sync::MutexGuard<'_, VecDeque<Returned>> {
        self.returned
            .lock()
            .expect("no panic is possible while the lock is held")
    }
}

impl ClientContext for DeliveryContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.chatter.log(level, fac, log_message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.chatter.error(&error, reason);
        let refusal = self.chatter.refusal();
        self.tally
            .note(refusal.map_or_else(|| reason.to_owned(), |refusal| refusal.to_string()));
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.chatter.oauth_token()
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        let tally = &self.tally;
        match (mark, result) {
            (HEARTBEAT_MARK, Ok(_)) => {}
            (HEARTBEAT_MARK, Err((error, _))) => {
                tracing::warn!(%error, "failed to deliver a heartbeat");
            }
            (mark, Ok(_)) => {
                tally.count_acked(u64::try_from(mark - 1).unwrap_or(0));
            }
            (mark, Err((error, message))) if topic_is_missing(error) => {
                tally.miss(message.topic());
                let returned = Returned {
                    mark,
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                };
                self.returned().push_back(returned);
            }
            (_, Err((error, _))) => tally.count_failed(error),
        }
    }
}

/// Sends events and heartbeats to one topic.
pub struct EventProducer {
    client: ThreadedProducer<DeliveryContext>,
    topic: String,
    tally: Arc<Deliveries>,
}

impl EventProducer {
    /// Makes a producer. It need not reach Kafka yet.
    ///
    /// `config` says how to reach the brokers; what the protocol stands on is set here: idempotence,
    /// acknowledgement by all replicas, and the partitioner of the Java clients.
    ///
    /// # Errors
    /// [`ProducerError::Create`] where librdkafka refuses the settings.
    pub fn new(
        mut config: ClientConfig,
        topic: &str,
        metrics: &Metrics,
    ) -> Result<EventProducer, ProducerError> {
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random");
        for (names, value) in [
            // Never gives up; see the module's words.
            (&["message.timeout.ms", "delivery.timeout.ms"][..], "0"),
            (&["linger.ms", "queue.buffering.max.ms"], "5"),
            (&["queue.buffering.max.messages"], QUEUE_RECORDS_MAX),
            (&["queue.buffering.max.kbytes"], QUEUE_KBYTES_MAX),
            // Built into librdkafka, unlike the others; events shrink to a fifth.
            (&["compression.codec", "compression.type"], "lz4"),
            (&["reconnect.backoff.max.ms"], "2000"),
        ] {
            if names.iter().all(|name| config.get(name).is_none()) {
                config.set(names[0], value);
            }
        }
        let tally = Arc::new(Deliveries::new(metrics));
        let context = DeliveryContext {
            tally: Arc::clone(&tally),
            returned: Mutex::default(),
            chatter: ClientErrors::new(&config),
        };
        let client = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(ProducerError::Create)?;
        Ok(EventProducer {
            client,
            topic: topic.to_owned(),
            tally,
        })
    }

    /// Returns the shared counts.
    pub fn tally(&self) -> Arc<Deliveries> {
        Arc::clone(&self.tally)
    }

    /// Waits for Kafka and the topic, saying so every ten seconds, and returns the number of
    /// partitions, or `None` after a request to stop. Blocks.
    ///
    /// Brokers that refuse this client are waited for as well if `patient`; somebody may mend them.
    ///
    /// # Errors
    /// [`ProducerError::Refused`] unless `patient`, and [`ProducerError::Fatal`].
    pub fn wait_for_topic(
        &self,
        shutdown: &Shutdown,
        patient: bool,
    ) -> Result<Option<i32>, ProducerError> {
        let chatter = &self.client.client().context().chatter;
        let mut told: Option<Instant> = None;
        // The first try is short, so that a missing broker is told soon.
        let mut timeout = Duration::from_secs(1);
        while !shutdown.is_triggered() {
            let found = self.partition_count(timeout);
            let todo = if found.is_ok() {
                MISSING_REMEDY
            } else {
                REACH_REMEDY
            };
            timeout = METADATA_TIMEOUT.min(Duration::from_secs(2));
            match found {
                Ok(Some(count)) => {
                    self.tally.reached();
                    if told.is_some() {
                        tracing::info!(topic = self.topic, partitions = count, "found the topic");
                    }
                    return Ok(Some(count));
                }
                Ok(None) => {
                    chatter.reached();
                    self.tally.note(format!("no topic {}", self.topic));
                }
                Err(error) => {
                    // The error callback may know more than "timed out".
                    if self.tally.last_trouble().is_none() {
                        self.tally.note(error.to_string());
                    }
                }
            }
            self.check_fatal()?;
            if let Some(refusal) = chatter.hopeless().filter(|_| !patient) {
                return Err(ProducerError::Refused(refusal));
            }
            // A refusal is told by who hears it.
            if chatter.refusal().is_none() && told.is_none_or(|at| at.elapsed() >= NOTICE_EVERY) {
                told = Some(Instant::now());
                let why = self.tally.last_trouble().unwrap_or_default();
                tracing::warn!(
                    topic = self.topic,
                    why,
                    todo,
                    "waiting for kafka and the topic"
                );
            }
            pause(shutdown, Duration::from_millis(500));
        }
        Ok(None)
    }

    /// Returns the topic's number of partitions, or `None` if there is no such topic. Blocks.
    ///
    /// Asks for all topics: a request for one by name would create it where brokers allow that,
    /// with the wrong settings.
    ///
    /// # Errors
    /// librdkafka's, where Kafka does not answer in time.
    pub fn partition_count(&self, timeout: Duration) -> Result<Option<i32>, KafkaError> {
        let metadata = self.client.client().fetch_metadata(None, timeout)?;
        let topic = metadata.topics().iter().find(|t| t.name() == self.topic);
        Ok(topic
            .map(|t| i32::try_from(t.partitions().len()).unwrap_or(i32::MAX))
            .filter(|count| *count > 0))
    }

    /// Sends one event; its key decides the partition. Waits while the queue is full, and tells
    /// whether the event was taken: it is not once stopping is asked for while there is no room.
    ///
    /// # Errors
    /// [`ProducerError::Fatal`] where no record will ever be taken again.
    pub fn send(
        &self,
        key: &str,
        value: &[u8],
        shutdown: &Shutdown,
    ) -> Result<bool, ProducerError> {
        while let Some(returned) = self.take_returned() {
            let taken = self.enqueue(self.again(&returned), shutdown);
            if !matches!(taken, Ok(true)) {
                self.put_back(returned);
                return taken;
            }
        }
        let mark = usize::try_from(self.tally.elapsed_us()).unwrap_or(usize::MAX - 1) + 1;
        let record = BaseRecord::with_opaque_to(&self.topic, mark)
            .key(key)
            .payload(value);
        let taken = self.enqueue(record, shutdown)?;
        if taken {
            self.tally.count_sent();
        }
        Ok(taken)
    }

    fn take_returned(&self) -> Option<Returned> {
        self.client.client().context().returned().pop_front()
    }

    fn put_back(&self, returned: Returned) {
        let deliveries = self.client.client().context();
        deliveries.returned().push_front(returned);
    }

    fn again<'a>(&'a self, returned: &'a Returned) -> BaseRecord<'a, [u8], [u8], usize> {
        BaseRecord::with_opaque_to(&self.topic, returned.mark)
            .key(&returned.key[..])
            .payload(&returned.value[..])
    }

    /// Sends a heartbeat of `time_ms` to one partition. Waits as [`EventProducer::send`] does.
    ///
    /// # Errors
    /// As [`EventProducer::send`].
    pub fn heartbeat(
        &self,
        partition: i32,
        time_ms: i64,
        shutdown: &Shutdown,
    ) -> Result<bool, ProducerError> {
        let text = time_ms.to_string();
        let headers = OwnedHeaders::new().insert(Header {
            key: HEARTBEAT_HEADER,
            value: Some(&text),
        });
        let record = BaseRecord::<(), (), usize>::with_opaque_to(&self.topic, HEARTBEAT_MARK)
            .partition(partition)
            .headers(headers);
        let taken = self.enqueue(record, shutdown)?;
        if taken {
            self.tally.count_heartbeat();
        }
        Ok(taken)
    }

    fn enqueue<K, P>(
        &self,
        mut record: BaseRecord<'_, K, P, usize>,
        shutdown: &Shutdown,
    ) -> Result<bool, ProducerError>
    where
        K: rdkafka::message::ToBytes + ?Sized,
        P: rdkafka::message::ToBytes + ?Sized,
    {
        let mut told: Option<Instant> = None;
        loop {
            let error = match self.client.send(record) {
                Ok(()) => return Ok(true),
                Err((error, back)) => {
                    record = back;
                    error
                }
            };
            // Deleted while we run; `init-tables` may bring it back.
            let missing = topic_is_missing(&error);
            match error.rdkafka_error_code() {
                code if missing || code == Some(RDKafkaErrorCode::QueueFull) => {
                    if shutdown.is_triggered() {
                        return Ok(false);
                    }
                    if missing {
                        self.tally.miss(&self.topic);
                        if told.is_none_or(|at| at.elapsed() >= NOTICE_EVERY) {
                            told = Some(Instant::now());
                            let (topic, todo) = (&self.topic, MISSING_REMEDY);
                            tracing::warn!(topic, todo, "waiting for the topic");
                        }
                    }
                    std::thread::sleep(FULL_PAUSE);
                }
                Some(RDKafkaErrorCode::Fatal) => {
                    self.check_fatal()?;
                    return Err(ProducerError::Fatal {
                        reason: error.to_string(),
                    });
                }
                _ => {
                    let heartbeat = record.delivery_opaque == HEARTBEAT_MARK;
                    if !heartbeat {
                        self.tally.count_failed(&error);
                    }
                    return Ok(!heartbeat);
                }
            }
        }
    }

    /// Waits until every record is settled and returns how many events are not. Blocks.
    ///
    /// Gives up after a minute in which nothing was acknowledged, or eight seconds after it is
    /// called while stopping is asked for.
    pub fn finish(&self, shutdown: &Shutdown) -> u64 {
        let begun = Instant::now();
        let mut stop_begun = None;
        let mut last_settled = (0, begun);
        loop {
            while let Some(returned) = self.take_returned() {
                if self.client.send(self.again(&returned)).is_err() {
                    self.put_back(returned);
                    std::thread::sleep(FINISH_PAUSE);
                    break;
                }
            }
            let done = self.client.flush(FINISH_PAUSE).is_ok();
            let counts = self.tally.counts();
            if done && counts.undelivered() == 0 {
                return 0;
            }
            let settled = counts.acked + counts.failed;
            if settled != last_settled.0 {
                last_settled = (settled, Instant::now());
            }
            if shutdown.is_triggered() {
                stop_begun.get_or_insert_with(Instant::now);
            }
            if last_settled.1.elapsed() >= FINISH_IDLE_MAX
                || stop_begun.is_some_and(|at| at.elapsed() >= FINISH_STOP_MAX)
                || self.check_fatal().is_err()
            {
                return counts.undelivered();
            }
        }
    }

    fn check_fatal(&self) -> Result<(), ProducerError> {
        match self.client.client().fatal_error() {
            Some((_, reason)) => Err(ProducerError::Fatal { reason }),
            None => Ok(()),
        }
    }
}

/// Sleeps, but no longer than until stopping is asked for.
fn pause(shutdown: &Shutdown, time: Duration) {
    let until = Instant::now() + time;
    while !shutdown.is_triggered() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
}
