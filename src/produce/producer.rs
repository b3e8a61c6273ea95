//! The producer of events and heartbeats: idempotent, and acknowledged by all replicas.
//!
//! [`EventProducer`] hands records to librdkafka and counts the results in delivery callbacks, without a future for
//! each record. When librdkafka's queue is full, [`EventProducer::send`] waits. No record times out. A record is
//! acknowledged, refused by the broker, or still undelivered when the process ends; [`EventProducer::finish`]
//! returns how many are undelivered.
//!
//! When the topic is deleted, librdkafka returns the records that wait for it. The producer sends them again before
//! any new record.
//!
//! The calls block, so they belong on a thread for blocking work. Any thread may read the results in the shared
//! [`Deliveries`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
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
use crate::kafka::log_limit::LogLimit;
use crate::kafka::refusal::Refusal;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY, is_topic_missing, partitions_of};
use crate::produce::deliveries::Deliveries;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Pause before a record is offered to a full queue again. At 500,000 records/s it frees 1,000 places.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Time between two checks for undelivered records at the end.
const FINISH_PAUSE: Duration = Duration::from_millis(100);
/// At the end of its input, a producer gives up after this time without an acknowledgement.
const FINISH_IDLE_MAX: Duration = Duration::from_secs(60);
/// After a request to stop, a producer waits this long in total. systemd ends the process after 10 s.
const FINISH_STOP_MAX: Duration = Duration::from_secs(8);
/// Timeout of the first metadata request. It is short, so that missing brokers are reported soon.
const METADATA_TIMEOUT_FIRST: Duration = Duration::from_secs(1);
/// Timeout of the further metadata requests.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two metadata requests.
const METADATA_PAUSE: Duration = Duration::from_millis(500);
/// Most records that wait in memory. With 64 MiB of them, the process stays below 250 MB.
const QUEUE_RECORDS_MAX: &str = "300000";
const QUEUE_KBYTES_MAX: &str = "65536";
/// The delivery mark of heartbeats. The mark of an event is the time of sending in µs, plus one.
const HEARTBEAT_MARK: usize = 0;

/// Why the producer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// librdkafka refused the settings.
    #[error("failed to create a Kafka producer")]
    Create(#[source] KafkaError),
    /// The brokers refuse every client with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// The idempotent producer can no longer guarantee an order without gaps.
    #[error("the Kafka producer failed for good: {reason}")]
    Fatal {
        /// librdkafka's message.
        reason: String,
    },
}

/// An event that librdkafka returned because the topic is missing.
struct ReturnedEvent {
    mark: usize,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The callbacks of the producer's client.
struct DeliveryContext {
    deliveries: Arc<Deliveries>,
    /// Events to send again before any new one. There are at most as many as the queue held.
    returned: Mutex<VecDeque<ReturnedEvent>>,
    errors: ClientErrors,
}

impl DeliveryContext {
    fn returned(&self) -> MutexGuard<'_, VecDeque<ReturnedEvent>> {
        self.returned
            .lock()
            .expect("no panic is possible while the lock is held")
    }
}

impl ClientContext for DeliveryContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.report_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.report_error(&error, reason);
        let refusal = self.errors.refusal();
        self.deliveries
            .set_trouble(refusal.map_or_else(|| reason.to_owned(), |refusal| refusal.to_string()));
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.errors.oauth_token()
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        match (mark, result) {
            (HEARTBEAT_MARK, Ok(_)) => {}
            (HEARTBEAT_MARK, Err((error, _))) => {
                tracing::warn!(%error, "failed to deliver a heartbeat");
            }
            (mark, Ok(_)) => {
                let sent_us = u64::try_from(mark - 1).unwrap_or(0);
                self.deliveries.count_acknowledged(sent_us);
            }
            // These are sent to the topic's next log. A copy can only be in the log that was deleted.
            (mark, Err((error, message))) if is_topic_missing(error) => {
                self.deliveries.set_topic_missing(message.topic());
                let returned = ReturnedEvent {
                    mark,
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                };
                self.returned().push_back(returned);
            }
            // Not sent again, because the outcome may be unknown. One such error is `DestroyBroker`, when the
            // metadata no longer lists a broker that has requests in flight. librdkafka retries these requests
            // itself while the producer id is the same. It fails them only after the id has changed, and then
            // always with the status "possibly persisted" (`rd_kafka_handle_idempotent_Produce_error` in
            // rdkafka_request.c, version 2.12). So `rd_kafka_message_status` cannot show that a resend is safe.
            (_, Err((error, _))) => self.deliveries.count_failed(error),
        }
    }
}

/// Sends events and heartbeats to one topic.
pub struct EventProducer {
    client: ThreadedProducer<DeliveryContext>,
    topic: String,
    deliveries: Arc<Deliveries>,
}

impl EventProducer {
    /// Returns a producer. Nothing is sent yet.
    ///
    /// `config` says how to reach the brokers. This function sets what exact counting depends on: idempotence,
    /// acknowledgement by all replicas, and the partitioner of the Java clients.
    ///
    /// # Errors
    /// [`ProducerError::Create`] when librdkafka refuses the settings.
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
            // A record never times out (see the module's documentation).
            (&["message.timeout.ms", "delivery.timeout.ms"][..], "0"),
            (&["linger.ms", "queue.buffering.max.ms"], "5"),
            (&["queue.buffering.max.messages"], QUEUE_RECORDS_MAX),
            (&["queue.buffering.max.kbytes"], QUEUE_KBYTES_MAX),
            // Built into librdkafka, unlike other codecs. Events shrink to a fifth.
            (&["compression.codec", "compression.type"], "lz4"),
            (&["reconnect.backoff.max.ms"], "2000"),
        ] {
            if names.iter().all(|name| config.get(name).is_none()) {
                config.set(names[0], value);
            }
        }
        let deliveries = Arc::new(Deliveries::new(metrics));
        let context = DeliveryContext {
            deliveries: Arc::clone(&deliveries),
            returned: Mutex::default(),
            errors: ClientErrors::new(&config),
        };
        let client = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(ProducerError::Create)?;
        Ok(EventProducer {
            client,
            topic: topic.to_owned(),
            deliveries,
        })
    }

    /// Returns the shared results.
    pub fn deliveries(&self) -> Arc<Deliveries> {
        Arc::clone(&self.deliveries)
    }

    fn context(&self) -> &DeliveryContext {
        self.client.client().context()
    }

    /// Waits for Kafka and the topic, and logs that every ten seconds. Returns the number of partitions, or `None`
    /// after a request to stop. Blocks.
    ///
    /// If `patient`, also waits for brokers that refuse this client, because an operator may fix that.
    ///
    /// # Errors
    /// [`ProducerError::Refused`] unless `patient`, and [`ProducerError::Fatal`].
    pub fn wait_for_topic(
        &self,
        shutdown: &Shutdown,
        patient: bool,
    ) -> Result<Option<i32>, ProducerError> {
        let errors = &self.context().errors;
        let mut log_limit = LogLimit::default();
        let mut timeout = METADATA_TIMEOUT_FIRST;
        while !shutdown.is_triggered() {
            let todo = match self.partition_count(timeout) {
                Ok(Some(count)) => {
                    self.deliveries.set_connected();
                    if log_limit.was_used() {
                        tracing::info!(topic = self.topic, partitions = count, "found the topic");
                    }
                    return Ok(Some(count));
                }
                Ok(None) => {
                    errors.clear_refusal();
                    self.deliveries
                        .set_trouble(format!("no topic {}", self.topic));
                    MISSING_REMEDY
                }
                Err(error) => {
                    // The error callback may have reported a more precise reason than "timed out".
                    if self.deliveries.trouble().is_none() {
                        self.deliveries.set_trouble(error.to_string());
                    }
                    REACH_REMEDY
                }
            };
            timeout = METADATA_TIMEOUT;
            self.check_fatal()?;
            if let Some(refusal) = errors.lasting_refusal().filter(|_| !patient) {
                return Err(ProducerError::Refused(refusal));
            }
            // The client's context has logged a refusal.
            if errors.refusal().is_none() && log_limit.allow() {
                let why = self.deliveries.trouble().unwrap_or_default();
                let topic = &self.topic;
                tracing::warn!(topic, why, todo, "waiting for kafka and the topic");
            }
            sleep_unless_stopped(shutdown, METADATA_PAUSE);
        }
        Ok(None)
    }

    /// Returns the topic's number of partitions; `None` if the topic does not exist. Blocks.
    ///
    /// # Errors
    /// librdkafka's, when Kafka does not answer in time.
    pub fn partition_count(&self, timeout: Duration) -> Result<Option<i32>, KafkaError> {
        let metadata = self.client.client().fetch_metadata(None, timeout)?;
        let partitions = partitions_of(&metadata, &self.topic);
        Ok(partitions.map(|ids| i32::try_from(ids.len()).unwrap_or(i32::MAX)))
    }

    /// Sends one event. Its key decides the partition. Waits while the queue is full.
    ///
    /// Returns whether the event was queued. It was not if a stop is requested while there is no room.
    ///
    /// # Errors
    /// [`ProducerError::Fatal`] when the producer can send no more records.
    pub fn send(
        &self,
        key: &str,
        value: &[u8],
        shutdown: &Shutdown,
    ) -> Result<bool, ProducerError> {
        while let Some(returned) = self.take_returned() {
            let queued = self.enqueue(self.record_of(&returned), shutdown);
            if !matches!(queued, Ok(true)) {
                self.put_back(returned);
                return queued;
            }
        }
        let mark = usize::try_from(self.deliveries.elapsed_us()).unwrap_or(usize::MAX - 1) + 1;
        let record = BaseRecord::with_opaque_to(&self.topic, mark)
            .key(key)
            .payload(value);
        let queued = self.enqueue(record, shutdown)?;
        if queued {
            self.deliveries.count_sent();
        }
        Ok(queued)
    }

    fn take_returned(&self) -> Option<ReturnedEvent> {
        self.context().returned().pop_front()
    }

    fn put_back(&self, returned: ReturnedEvent) {
        self.context().returned().push_front(returned);
    }

    fn record_of<'a>(&'a self, returned: &'a ReturnedEvent) -> BaseRecord<'a, [u8], [u8], usize> {
        BaseRecord::with_opaque_to(&self.topic, returned.mark)
            .key(&returned.key[..])
            .payload(&returned.value[..])
    }

    /// Sends a heartbeat with event time `time_ms` to one partition. Waits as [`EventProducer::send`] does.
    ///
    /// # Errors
    /// As [`EventProducer::send`].
    pub fn send_heartbeat(
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
        let queued = self.enqueue(record, shutdown)?;
        if queued {
            self.deliveries.count_heartbeat();
        }
        Ok(queued)
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
        let mut log_limit = LogLimit::default();
        loop {
            let error = match self.client.send(record) {
                Ok(()) => return Ok(true),
                Err((error, back)) => {
                    record = back;
                    error
                }
            };
            // The topic was deleted while the producer runs. `init-tables` may create it again.
            let missing = is_topic_missing(&error);
            match error.rdkafka_error_code() {
                code if missing || code == Some(RDKafkaErrorCode::QueueFull) => {
                    if shutdown.is_triggered() {
                        return Ok(false);
                    }
                    if missing {
                        self.deliveries.set_topic_missing(&self.topic);
                        if log_limit.allow() {
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
                    // An event that librdkafka refuses at once, such as one that is too large, counts as sent
                    // and failed. A heartbeat is not counted.
                    let is_event = record.delivery_opaque != HEARTBEAT_MARK;
                    if is_event {
                        self.deliveries.count_failed(&error);
                    }
                    return Ok(is_event);
                }
            }
        }
    }

    /// Waits until every event is acknowledged or has failed, and returns how many are still undelivered. Blocks.
    ///
    /// Gives up after a minute without an acknowledgement, or eight seconds after a request to stop.
    pub fn finish(&self, shutdown: &Shutdown) -> u64 {
        let begun = Instant::now();
        let mut stop_begun = None;
        let mut last_settled = (0, begun);
        loop {
            while let Some(returned) = self.take_returned() {
                if self.client.send(self.record_of(&returned)).is_err() {
                    self.put_back(returned);
                    std::thread::sleep(FINISH_PAUSE);
                    break;
                }
            }
            let done = self.client.flush(FINISH_PAUSE).is_ok();
            let counts = self.deliveries.counts();
            if done && counts.undelivered() == 0 {
                return 0;
            }
            let settled = counts.acknowledged + counts.failed;
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

/// Sleeps, but no longer than until a request to stop.
fn sleep_unless_stopped(shutdown: &Shutdown, time: Duration) {
    let until = Instant::now() + time;
    while !shutdown.is_triggered() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
}
