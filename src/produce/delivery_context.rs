//! The callbacks of the producer's Kafka client, which receive the outcome of each record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, Message as _};

use crate::kafka::client_errors::ClientErrors;
use crate::kafka::is_topic_missing;
use crate::produce::deliveries::Deliveries;
use crate::produce::receipts::{EventOutcome, Receipts};

/// The delivery mark of heartbeats. A delivery mark is the number that librdkafka returns together with the outcome of
/// a record. The delivery mark of an event is the time of sending in microseconds, plus one. If the sender waits for
/// the outcome of an event, the event gets a delivery mark from [`Receipts`] instead.
pub(super) const HEARTBEAT_MARK: usize = 0;

/// An event that librdkafka returned because the topic is missing.
pub(super) struct ReturnedEvent {
    pub(super) mark: usize,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The callbacks of the producer's Kafka client.
pub(super) struct DeliveryContext {
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) receipts: Arc<Receipts>,
    /// The events that librdkafka returned because the topic is missing. The producer sends every returned event again
    /// before it sends a new event. The number of returned events cannot exceed the size of librdkafka's queue.
    returned: Mutex<VecDeque<ReturnedEvent>>,
    pub(super) errors: ClientErrors,
}

impl DeliveryContext {
    pub(super) fn new(config: &ClientConfig, deliveries: Arc<Deliveries>) -> DeliveryContext {
        DeliveryContext {
            deliveries,
            receipts: Arc::default(),
            returned: Mutex::default(),
            errors: ClientErrors::new(config),
        }
    }

    pub(super) fn returned(&self) -> MutexGuard<'_, VecDeque<ReturnedEvent>> {
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
        self.deliveries.set_last_error(
            refusal.map_or_else(|| reason.to_owned(), |refusal| refusal.to_string()),
        );
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
            (mark, Ok(message)) => {
                let outcome = EventOutcome::Acknowledged {
                    partition: message.partition(),
                    // If Kafka's reply to a record is lost, librdkafka sends the record again. If Kafka already has the
                    // record, librdkafka may not learn the record's offset.
                    offset: Some(message.offset()).filter(|offset| *offset >= 0),
                };
                let sent_us = match self.receipts.settle(mark, outcome) {
                    Some(batch) => batch.sent_us(),
                    None => u64::try_from(mark - 1).unwrap_or(0),
                };
                self.deliveries.count_acknowledged(sent_us);
            }
            // After the topic is recreated, the producer sends each returned event again. An earlier copy of the event
            // can exist only in the deleted topic, so the event cannot count twice.
            (mark, Err((error, message))) if is_topic_missing(error) => {
                self.deliveries.set_topic_missing(message.topic());
                let returned = ReturnedEvent {
                    mark,
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                };
                self.returned().push_back(returned);
            }
            // An event whose delivery failed is not sent again, because Kafka may already have stored the event. For
            // example, the error `DestroyBroker` occurs when the metadata no longer lists a broker that has requests in
            // flight. As long as the producer id stays the same, librdkafka itself retries the requests in flight. A
            // request in flight fails only after the producer id has changed. The status of such a failed request is
            // always "possibly persisted" (`rd_kafka_handle_idempotent_Produce_error` in rdkafka_request.c, librdkafka
            // 2.12). The function `rd_kafka_message_status` therefore never shows that a failed event can safely be
            // sent again.
            (mark, Err((error, _))) => {
                self.receipts.settle(mark, EventOutcome::Unknown);
                self.deliveries.count_failed(error);
            }
        }
    }
}
