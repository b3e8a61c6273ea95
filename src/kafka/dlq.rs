//! Sends rejected records to the dead-letter topic. Each dead letter contains the original record and the reject
//! reason.
//!
//! The sender sends each dead letter again until Kafka acknowledges it. If the added headers make the dead letter too
//! large, the sender omits the value of the record. If the dead letter is still too large, the sender also omits the
//! key and the headers of the record. Therefore, even a very large rejected record does not block its partition.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sha2::{Digest as _, Sha256};

use crate::core::pace::backoff_ms;
use crate::core::worker::Rejected;
use crate::kafka::context::Context;

/// Maximum size of a message in the dead-letter topic, in bytes. Two MiB are enough for the largest record and the
/// added headers.
pub const DLQ_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Maximum number of characters in the header `detail`. The header contains the error message of the parser, which may
/// quote the whole record.
const DETAIL_CHARS_MAX: usize = 1_000;
/// Timeout of one attempt to send a dead letter, in milliseconds.
const DELIVERY_TIMEOUT_MS: &str = "30000";

/// Sends dead letters to one dead-letter topic.
#[derive(Clone)]
pub struct DeadLetters {
    producer: FutureProducer<Context>,
    topic: String,
    source_topic: String,
}

/// Says which parts of the original record a dead letter contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    WithoutValue,
    Bare,
}

impl DeadLetters {
    /// Returns a sender of dead letters for records of the topic `source_topic`. The dead letters go to the topic
    /// `topic`.
    ///
    /// # Errors
    /// Returns an error if librdkafka refuses the settings.
    pub fn new(
        config: &ClientConfig,
        topic: String,
        source_topic: String,
    ) -> KafkaResult<DeadLetters> {
        let mut config = config.clone();
        config
            // An idempotent producer fails permanently after a broker has lost the producer's state, and the partition
            // of a rejected record would then wait forever. Therefore, this producer is not idempotent and may write a
            // dead letter twice. Readers identify a dead letter by the partition and offset of its original record.
            .set("enable.idempotence", "false")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("message.max.bytes", DLQ_MESSAGE_BYTES_MAX.to_string())
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS)
            // This limit bounds the memory of the queue if a log contains many invalid records.
            .set("queue.buffering.max.kbytes", "16384");
        Ok(DeadLetters {
            producer: config.create_with_context(Context::new(&config))?,
            topic,
            source_topic,
        })
    }

    /// Sends a dead letter, and returns after Kafka has acknowledged it. `chance` returns random numbers, which spread
    /// the attempts over time.
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
                    partition = rejected.partition, offset = rejected.offset.0, topic = self.topic, %error,
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
        let timestamp = r
            .timestamp_ms
            .map_or_else(String::new, |ms| ms.0.to_string());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Offset;
    use crate::core::parse::Reason;
    use rdkafka::Message as _;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Headers as _;
    use rdkafka::mocking::MockCluster;

    /// The headers that [`DeadLetters`] adds. [`DeadLetters`] adds `truncated` and `sha256` only if the dead letter
    /// omits the record's value.
    const ADDED: [&str; 9] = [
        "reason",
        "detail",
        "source_topic",
        "source_topic_id",
        "source_partition",
        "source_offset",
        "source_timestamp",
        "truncated",
        "sha256",
    ];

    fn rejected(key: usize, value: usize, header: usize) -> Rejected {
        let own = |n: usize| vec![b'x'; n];
        Rejected {
            reason: Reason::TooLarge,
            detail: "d".repeat(DETAIL_CHARS_MAX + 1),
            key: Some(own(key)),
            value: Some(own(value)),
            headers: vec![("own".into(), Some(own(header))), ("null".into(), None)],
            partition: 3,
            offset: Offset(7),
            timestamp_ms: None,
        }
    }

    #[tokio::test]
    async fn a_record_that_is_too_large_is_sent_with_less_and_never_blocks() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t-dlq", 1, 1).expect("a topic");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap_servers());
        let letters = DeadLetters::new(&config, "t-dlq".into(), "t".into()).expect("fine settings");
        // Each test case lists the sizes of the record's key, value and headers. Each test case also says which of the
        // key, the value, the headers and the hash the dead letter contains.
        let large = DLQ_MESSAGE_BYTES_MAX;
        let cases = [
            ((5, 100, 10), (Some(5), Some(100), 2), false),
            ((5, large - 10, 10), (Some(5), None, 2), true),
            ((5, large + 1, 10), (Some(5), None, 2), true),
            ((5, 100, large), (None, None, 0), true),
            ((large, 100, 10), (None, None, 0), true),
        ];
        for ((key, value, header), _, _) in cases {
            let rejected = rejected(key, value, header);
            let send = letters.send(&rejected, "T", || 0);
            tokio::time::timeout(Duration::from_secs(60), send)
                .await
                .expect("it never blocks");
        }
        let consumer: BaseConsumer = config.set("group.id", "g").create().expect("a reader");
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset("t-dlq", 0, rdkafka::Offset::Beginning)
            .expect("a place");
        consumer.assign(&list).expect("its partition");
        for ((key, value, header), (want_key, want_value, own), hash) in cases {
            let what = format!("{key} {value} {header}");
            let message = consumer
                .poll(Duration::from_secs(60))
                .expect("a letter")
                .expect("no error");
            assert_eq!(message.key().map(<[u8]>::len), want_key, "{what}");
            assert_eq!(message.payload().map(<[u8]>::len), want_value, "{what}");
            let headers: Vec<(String, Vec<u8>)> = message
                .headers()
                .expect("headers")
                .iter()
                .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
                .collect();
            let mut names: Vec<&str> = headers.iter().map(|(key, _)| key.as_str()).collect();
            let ours = names.split_off(own);
            assert_eq!(
                names,
                ["own", "null"][..own],
                "the headers of the record come first: {what}"
            );
            assert_eq!(ours, ADDED[..if hash { 9 } else { 7 }], "{what}");
            let text = |name: &str| {
                let found = headers.iter().find(|(key, _)| key == name);
                found.map(|(_, v)| String::from_utf8_lossy(v).into_owned())
            };
            assert_eq!(text("detail").map(|d| d.len()), Some(DETAIL_CHARS_MAX));
            assert_eq!(text("source_offset").as_deref(), Some("7"));
            if hash {
                assert_eq!(text("truncated"), Some(value.to_string()));
                let want = hex(&Sha256::digest(vec![b'x'; value]));
                assert_eq!(text("sha256"), Some(want));
            }
        }
    }
}
