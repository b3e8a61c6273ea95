//! The Kafka producer that sends events and heartbeats. The producer is idempotent, and Kafka acknowledges a record
//! only when all in-sync replicas have stored it.
//!
//! [`EventProducer`] passes records to librdkafka. Delivery callbacks of librdkafka count the results, so the producer
//! needs no future for each record. If librdkafka's queue is full, [`EventProducer::send`] waits. Records never time
//! out: a record is acknowledged, refused by the broker, or still undelivered when the process ends.
//! [`EventProducer::finish`] returns the number of events that are still undelivered.
//!
//! When the topic is deleted, librdkafka returns all records that still wait for delivery to this topic. The producer
//! sends every returned record again before it sends a new record.
//!
//! The methods of [`EventProducer`] block, so callers must run them on a thread for blocking tasks. Any thread may read
//! the results from the shared [`Deliveries`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use crate::core::clock::UnixMs;
use crate::core::parse::HEARTBEAT_HEADER;
use crate::kafka::refusal::Refusal;
use crate::kafka::{MISSING_REMEDY, REACH_REMEDY, is_topic_missing, partitions_of};
use crate::produce::deliveries::Deliveries;
use crate::produce::delivery_context::{DeliveryContext, HEARTBEAT_MARK, ReturnedEvent};
use crate::produce::receipts::{ReceiptBatch, Receipts};
use crate::shutdown::Shutdown;
use crate::telemetry::{LogLimit, Metrics};

/// Pause before the producer tries again to add a record to a full queue. At 500,000 records per second, librdkafka
/// takes 1,000 records from the queue within two milliseconds.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Time between two checks for undelivered records at the end of a run.
const FINISH_PAUSE: Duration = Duration::from_millis(100);
/// Time without an acknowledgement after which a producer stops waiting for undelivered events at the end of a run.
const FINISH_IDLE_MAX: Duration = Duration::from_secs(60);
/// Maximum time that a producer waits for acknowledgements after a request to stop. After a request to stop, systemd
/// ends the process after ten seconds.
const FINISH_STOP_MAX: Duration = Duration::from_secs(8);
/// Timeout of the first metadata request. The first timeout is short, so that the role reports quickly if no broker
/// answers.
const METADATA_TIMEOUT_FIRST: Duration = Duration::from_secs(1);
/// Timeout of all further metadata requests.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two metadata requests.
const METADATA_PAUSE: Duration = Duration::from_millis(500);
/// Maximum number of records in librdkafka's queue. The limits of 300,000 records and of 64 MiB for the queue together
/// keep the memory of the process below 250 MB.
const QUEUE_RECORDS_MAX: &str = "300000";
const QUEUE_KBYTES_MAX: &str = "65536";

/// The reason why the producer cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// librdkafka refused the settings.
    #[error("failed to create a Kafka producer")]
    Create(#[source] KafkaError),
    /// The brokers refuse the client, for example because its password is wrong.
    #[error("{0}")]
    Refused(Refusal),
    /// The idempotent producer can no longer guarantee that the records are in order and complete.
    #[error("the Kafka producer failed for good: {reason}")]
    Fatal {
        /// The error message of librdkafka.
        reason: String,
    },
}

/// Sends events and heartbeats to one topic.
pub struct EventProducer {
    client: ThreadedProducer<DeliveryContext>,
    topic: String,
    deliveries: Arc<Deliveries>,
}

impl EventProducer {
    /// Creates a producer, without sending a request to Kafka.
    ///
    /// `config` contains the addresses of the brokers and the settings for the login. This function sets the properties
    /// on which exact counting depends: idempotence, acknowledgement by all in-sync replicas, and the partitioner of
    /// the Java clients.
    ///
    /// # Errors
    /// Returns [`ProducerError::Create`] if librdkafka refuses the settings.
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
            // A timeout of 0 means that a record never times out, so that librdkafka drops no record while Kafka is
            // unavailable.
            (&["message.timeout.ms", "delivery.timeout.ms"][..], "0"),
            (&["linger.ms", "queue.buffering.max.ms"], "5"),
            (&["queue.buffering.max.messages"], QUEUE_RECORDS_MAX),
            (&["queue.buffering.max.kbytes"], QUEUE_KBYTES_MAX),
            // lz4 compresses events to a fifth of their size. The codec lz4 is included in librdkafka, whereas gzip and
            // zstd need additional libraries.
            (&["compression.codec", "compression.type"], "lz4"),
            (&["reconnect.backoff.max.ms"], "2000"),
        ] {
            if names.iter().all(|name| config.get(name).is_none()) {
                config.set(names[0], value);
            }
        }
        let deliveries = Arc::new(Deliveries::new(metrics));
        let context = DeliveryContext::new(&config, Arc::clone(&deliveries));
        let client = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(ProducerError::Create)?;
        Ok(EventProducer {
            client,
            topic: topic.to_owned(),
            deliveries,
        })
    }

    /// Returns the counts of all records that this producer has sent. The producer and all readers share the counts, so
    /// any thread can read the counts.
    pub fn deliveries(&self) -> Arc<Deliveries> {
        Arc::clone(&self.deliveries)
    }

    fn context(&self) -> &DeliveryContext {
        self.client.client().context()
    }

    /// Waits until Kafka answers and the topic exists. The function logs the reason for the wait every ten seconds.
    /// Returns the number of partitions, or `None` if a stop was requested. The function blocks its thread.
    ///
    /// If `patient` is true, the function keeps waiting even if the brokers refuse this client, because an operator may
    /// repair the cause.
    ///
    /// # Errors
    /// Returns [`ProducerError::Refused`] if `patient` is false and the brokers refuse this client. Returns
    /// [`ProducerError::Fatal`] if the producer cannot continue.
    pub fn wait_for_topic(
        &self,
        shutdown: &Shutdown,
        patient: bool,
    ) -> Result<Option<i32>, ProducerError> {
        let errors = &self.context().errors;
        let log_limit = LogLimit::default();
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
                    errors.broker_answered();
                    self.deliveries
                        .set_last_error(format!("no topic {}", self.topic));
                    MISSING_REMEDY
                }
                Err(error) => {
                    // The error callback may already have stored a reason that is more precise than "timed out".
                    if self.deliveries.last_error().is_none() {
                        self.deliveries.set_last_error(error.to_string());
                    }
                    REACH_REMEDY
                }
            };
            timeout = METADATA_TIMEOUT;
            self.check_fatal()?;
            if let Some(refusal) = errors.lasting_refusal().filter(|_| !patient) {
                return Err(ProducerError::Refused(refusal));
            }
            // If the brokers refuse the client, the client's error callback has already logged the refusal.
            if errors.refusal().is_none() && log_limit.allows() {
                let why = self.deliveries.last_error().unwrap_or_default();
                let topic = &self.topic;
                tracing::warn!(topic, why, todo, "waiting for Kafka and the topic");
            }
            sleep_unless_stopped(shutdown, METADATA_PAUSE);
        }
        Ok(None)
    }

    /// Returns the number of partitions of the topic, or `None` if the topic does not exist. The function blocks its
    /// thread.
    ///
    /// # Errors
    /// Returns the error of librdkafka if Kafka does not answer in time.
    pub fn partition_count(&self, timeout: Duration) -> Result<Option<i32>, KafkaError> {
        let metadata = self.client.client().fetch_metadata(None, timeout)?;
        let partitions = partitions_of(&metadata, &self.topic);
        Ok(partitions.map(|ids| i32::try_from(ids.len()).unwrap_or(i32::MAX)))
    }

    /// Sends one event. The key of the event determines the partition. The function waits while librdkafka's queue is
    /// full.
    ///
    /// Returns true if the event was queued. Returns false if a stop was requested while the queue was full.
    ///
    /// # Errors
    /// Returns [`ProducerError::Fatal`] if the producer can send no more records.
    pub fn send(
        &self,
        key: &str,
        value: &[u8],
        shutdown: &Shutdown,
    ) -> Result<bool, ProducerError> {
        if !self.resend_returned(shutdown)? {
            return Ok(false);
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

    /// Resends the events that librdkafka returned because the topic was missing. The function waits while librdkafka's
    /// queue is full. Returns false if a stop is requested while the queue is full.
    ///
    /// # Errors
    /// Returns the same errors as [`EventProducer::send`].
    pub fn resend_returned(&self, shutdown: &Shutdown) -> Result<bool, ProducerError> {
        while let Some(returned) = self.take_returned() {
            let queued = self.enqueue(self.record_of(&returned), shutdown);
            if !matches!(queued, Ok(true)) {
                self.put_back(returned);
                return queued;
            }
        }
        Ok(true)
    }

    /// Returns the `Receipts` that store the outcome of each event sent with [`EventProducer::try_send`].
    pub(super) fn receipts(&self) -> &Receipts {
        &self.context().receipts
    }

    /// Sends one event of a batch without waiting. The outcome of the event is later stored in `batch` at position
    /// `index`.
    ///
    /// # Errors
    /// Returns the error of librdkafka if librdkafka refused to queue the event. A refused event is not sent.
    pub(super) fn try_send(
        &self,
        batch: &ReceiptBatch,
        index: usize,
        key: &str,
        value: &[u8],
    ) -> Result<(), KafkaError> {
        let record = BaseRecord::with_opaque_to(&self.topic, batch.mark(index))
            .key(key)
            .payload(value);
        match self.client.send(record) {
            Ok(()) => {
                self.deliveries.count_sent();
                Ok(())
            }
            Err((error, _)) => {
                if is_topic_missing(&error) {
                    self.deliveries.set_topic_missing(&self.topic);
                }
                Err(error)
            }
        }
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

    /// Sends a heartbeat with the event time `time_ms` to one partition. Waits while librdkafka's queue is full, like
    /// [`EventProducer::send`].
    ///
    /// # Errors
    /// Returns the same errors as [`EventProducer::send`].
    pub fn send_heartbeat(
        &self,
        partition: i32,
        time_ms: UnixMs,
        shutdown: &Shutdown,
    ) -> Result<bool, ProducerError> {
        let text = time_ms.0.to_string();
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
        let log_limit = LogLimit::default();
        loop {
            let error = match self.client.send(record) {
                Ok(()) => return Ok(true),
                Err((error, back)) => {
                    record = back;
                    error
                }
            };
            // The topic may have been deleted while the producer was running. The operator can create the topic again
            // with `citystream init-tables`.
            let missing = is_topic_missing(&error);
            match error.rdkafka_error_code() {
                code if missing || code == Some(RDKafkaErrorCode::QueueFull) => {
                    if shutdown.is_triggered() {
                        return Ok(false);
                    }
                    if missing {
                        self.deliveries.set_topic_missing(&self.topic);
                        if log_limit.allows() {
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
                    // librdkafka may refuse an event at once, for example because the event is too large. An event that
                    // librdkafka refuses at once counts both as sent and as failed. A heartbeat that librdkafka refuses
                    // at once is not counted.
                    let is_event = record.delivery_opaque != HEARTBEAT_MARK;
                    if is_event {
                        self.deliveries.count_failed(&error);
                    }
                    return Ok(is_event);
                }
            }
        }
    }

    /// Waits until every event is acknowledged or has failed. Returns the number of events that are still undelivered.
    /// The function blocks its thread.
    ///
    /// The function stops waiting after one minute without an acknowledgement. After a request to stop, the function
    /// waits for at most eight seconds.
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

    /// Returns an error if the producer can send no more records.
    ///
    /// # Errors
    /// Returns [`ProducerError::Fatal`] after a fatal error of librdkafka.
    pub fn check_fatal(&self) -> Result<(), ProducerError> {
        match self.client.client().fatal_error() {
            Some((_, reason)) => Err(ProducerError::Fatal { reason }),
            None => Ok(()),
        }
    }
}

/// Sleeps for the duration `time`, but ends the sleep early if a stop is requested.
fn sleep_unless_stopped(shutdown: &Shutdown, time: Duration) {
    let until = Instant::now() + time;
    while !shutdown.is_triggered() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
}
