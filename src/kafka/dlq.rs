//! The dead-letter topic: every rejected record with its original and the reason.
//!
//! Sending goes on until Kafka acknowledges. A record that does not fit with its headers goes
//! without its value, and at last without its own key and headers: it never blocks a partition.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sha2::{Digest as _, Sha256};

use crate::core::pace::backoff_ms;
use crate::core::worker::Rejected;
use crate::kafka::client::Context;

/// Largest message of the dead-letter topic: room for the largest record with headers added.
pub const DLQ_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Longest `detail` header; a parser's message may quote the record.
const DETAIL_CHARS_MAX: usize = 1_000;
/// How long one try may take before it counts as failed.
const DELIVERY_TIMEOUT_MS: &str = "30000";

/// Sends dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    producer: FutureProducer<Context>,
    topic: String,
    source_topic: String,
}

/// How much of the original a dead letter carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    WithoutValue,
    Bare,
}

impl DeadLetters {
    /// Returns a sender to `topic` for records of `source_topic`.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(
        config: &ClientConfig,
        topic: String,
        source_topic: String,
    ) -> KafkaResult<DeadLetters> {
        let mut config = config.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("message.max.bytes", DLQ_MESSAGE_BYTES_MAX.to_string())
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS)
            // A log full of bad records must not break the memory budget.
            .set("queue.buffering.max.kbytes", "16384");
        Ok(DeadLetters {
            producer: config.create_with_context(Context::default())?,
            topic,
            source_topic,
        })
    }

    /// Sends a record and returns once it is acknowledged. `chance` spreads the retries.
    pub async fn send(&self, rejected: &Rejected, topic_id: &str, chance: impl Fn() -> u32) {
        let mut form = Form::Whole;
        let mut attempt = 0;
        loop {
            let Err(error) = self.try_send(rejected, topic_id, form).await else {
                return;
            };
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                form = match form {
                    Form::Whole => Form::WithoutValue,
                    Form::WithoutValue | Form::Bare => Form::Bare,
                };
                if attempt == 0 {
                    attempt += 1;
                    continue;
                }
            }
            attempt += 1;
            if attempt % 20 == 1 {
                tracing::warn!(
                    partition = rejected.partition, offset = %rejected.offset, topic = self.topic, %error,
                    "failed to send a dead letter, trying again"
                );
            }
            let wait = Duration::from_millis(backoff_ms(attempt, chance()).unsigned_abs());
            tokio::time::sleep(wait).await;
        }
    }

    async fn try_send(&self, r: &Rejected, topic_id: &str, form: Form) -> Result<(), KafkaError> {
        let value = r.value.as_deref().filter(|_| form == Form::Whole);
        let key = r.key.as_deref().filter(|_| form != Form::Bare);
        let headers = self.headers(r, topic_id, form);
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = key;
        record.payload = value;
        let sent = self.producer.send(record, Duration::from_secs(10)).await;
        sent.map(|_delivery| ()).map_err(|(error, _)| error)
    }

    fn headers(&self, r: &Rejected, topic_id: &str, form: Form) -> OwnedHeaders {
        let mut out = OwnedHeaders::new();
        if form != Form::Bare {
            for (key, value) in &r.headers {
                out = out.insert(Header {
                    key,
                    value: value.as_deref(),
                });
            }
        }
        let detail: String = r.detail.chars().take(DETAIL_CHARS_MAX).collect();
        let timestamp = r.timestamp_ms.map_or_else(String::new, |ms| ms.to_string());
        let mut ours = vec![
            ("reason", r.reason.name().to_owned()),
            ("detail", detail),
            ("source_topic", self.source_topic.clone()),
            ("source_topic_id", topic_id.to_owned()),
            ("source_partition", r.partition.to_string()),
            ("source_offset", r.offset.to_string()),
            ("source_timestamp", timestamp),
        ];
        if let Some(value) = r.value.as_deref().filter(|_| form != Form::Whole) {
            ours.push(("truncated", value.len().to_string()));
            ours.push(("sha256", hex(&Sha256::digest(value))));
        }
        for (key, value) in &ours {
            out = out.insert(Header {
                key,
                value: Some(value),
            });
        }
        out
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
