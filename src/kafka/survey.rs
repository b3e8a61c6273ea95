//! Reads the facts from Kafka that `verify` needs: the topic's id, its log ends, the committed offsets of a group, and
//! the dead letters for items that DynamoDB has refused.
//!
//! The client joins no consumer group and commits no offsets. All calls block.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use crate::core::event::Offset;
use crate::core::parse::Reason;
use crate::core::restart::Commit;
use crate::kafka::admin::AdminError;
use crate::kafka::client::configure_scan;
use crate::kafka::consumer::committed;
use crate::kafka::context::Context;
use crate::kafka::partitions_of;
use crate::kafka::scan::{Scan, Scanned};
use crate::kafka::second_read::SecondReader;
use crate::shutdown::Shutdown;
use crate::sys::{self, TopicError, TopicFacts};

/// Maximum wait for the answer to one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum wait of one attempt to get the topic's id. The attempt is shorter than [`ANSWER_TIMEOUT`], because the Kafka
/// client reports a refusal by the brokers only between two attempts.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum wait until the Kafka client reports why an attempt has failed.
const REPORT_WAIT: Duration = Duration::from_millis(50);
/// Maximum wait of one poll of the dead-letter topic.
const POLL: Duration = Duration::from_millis(500);
/// Number of consecutive polls without a record after which the read of the dead-letter topic fails.
const SILENT_POLLS_MAX: u32 = 20;

/// A client that reads facts about one topic.
pub struct Survey {
    client: BaseConsumer<Context>,
    config: ClientConfig,
    topic: String,
}

impl Survey {
    /// Returns a client that reads facts about `topic` and the committed offsets of `group`. The function sends no
    /// request.
    ///
    /// # Errors
    /// Returns an error if librdkafka refuses the settings.
    pub fn new(config: &ClientConfig, topic: &str, group: &str) -> KafkaResult<Survey> {
        let mut config = config.clone();
        configure_scan(&mut config, group);
        Ok(Survey {
            client: config.create_with_context(Context::new(&config))?,
            config,
            topic: topic.to_owned(),
        })
    }

    /// Returns the id and the number of partitions of the topic, or `None` if the topic does not exist.
    ///
    /// # Errors
    /// Returns [`AdminError::Refused`] if the brokers refuse every client with these settings, and
    /// [`AdminError::Describe`] if they do not answer in time or refuse the request.
    pub fn topic(&self) -> Result<Option<TopicFacts>, AdminError> {
        let errors = self.client.context().errors();
        let begin = Instant::now();
        let mut wait = Duration::ZERO;
        loop {
            // The client has no assigned partitions, so the poll only runs callbacks. One callback provides the first
            // token for the login, and another one reports a refusal.
            while self.client.poll(wait).is_some() {}
            if let Some(refusal) = errors.lasting_refusal() {
                return Err(AdminError::Refused(refusal));
            }
            match sys::topic_facts(self.client.client(), &self.topic, ATTEMPT_TIMEOUT) {
                Err(TopicError::Unreachable { .. }) if begin.elapsed() < ANSWER_TIMEOUT => {}
                answer => {
                    if answer.is_ok() {
                        errors.broker_answered();
                    }
                    return Ok(answer?);
                }
            }
            wait = REPORT_WAIT;
        }
    }

    /// Returns the offset of the oldest record and the offset after the newest record, for each partition.
    ///
    /// # Errors
    /// Returns an error if the leader of a partition does not answer in time.
    pub fn ends(&self, partitions: i32) -> KafkaResult<BTreeMap<i32, (Offset, Offset)>> {
        let ask = |partition: i32| {
            let ends = self
                .client
                .fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT);
            ends.map(|(start, end)| (partition, (Offset(start), Offset(end))))
        };
        (0..partitions).map(ask).collect()
    }

    /// Returns the group's committed offset and its metadata for each partition that has a committed offset.
    ///
    /// # Errors
    /// Returns an error if the coordinator refuses the request or does not answer in time.
    pub fn commits(&self, partitions: i32) -> KafkaResult<BTreeMap<i32, Commit>> {
        committed(&self.client, &self.topic, 0..partitions, ANSWER_TIMEOUT)
    }

    /// Reads the dead-letter topic `dlq_topic` up to its end. Returns the records of the topic id `topic_id` whose raw
    /// row or alert row DynamoDB has refused.
    ///
    /// # Errors
    /// Returns an error if Kafka does not answer in time.
    pub fn refused(&self, dlq_topic: &str, topic_id: &str) -> KafkaResult<BTreeSet<(i32, Offset)>> {
        let metadata = self.client.fetch_metadata(None, ANSWER_TIMEOUT)?;
        let client: BaseConsumer<Context> = self
            .config
            .create_with_context(Context::new(&self.config))?;
        let second = SecondReader::new(&self.config, dlq_topic);
        client.poll(Duration::ZERO);
        let mut list = TopicPartitionList::new();
        let mut starts = BTreeMap::new();
        for partition in partitions_of(&metadata, dlq_topic).unwrap_or_default() {
            let (start, end) = client.fetch_watermarks(dlq_topic, partition, ANSWER_TIMEOUT)?;
            if start < end {
                list.add_partition_offset(dlq_topic, partition, ListOffset::Offset(start))?;
                starts.insert(partition, Offset(start));
            }
        }
        client.assign(&list)?;
        let never = Shutdown::default();
        let mut scan = Scan::new(&client, &second, dlq_topic, &never, starts);
        let (mut refused, mut silent_polls) = (BTreeSet::new(), 0);
        while !scan.is_done() {
            match scan.poll(POLL) {
                Ok(Scanned::Record(message)) => {
                    silent_polls = 0;
                    refused.extend(refused_record(&message, topic_id));
                }
                Ok(Scanned::End(partition)) => scan.close(partition),
                Err(error) if silent_polls >= SILENT_POLLS_MAX => return Err(error),
                Ok(Scanned::Nothing) if silent_polls >= SILENT_POLLS_MAX => {
                    return Err(KafkaError::MessageConsumption(
                        RDKafkaErrorCode::OperationTimedOut,
                    ));
                }
                Ok(Scanned::Nothing) | Err(_) => silent_polls += 1,
            }
        }
        Ok(refused)
    }
}

/// Returns the partition and the offset of a dead letter's original record. Returns `None` if the record has another
/// topic id than `topic_id`, or if DynamoDB has not refused any of its items.
fn refused_record(letter: &BorrowedMessage<'_>, topic_id: &str) -> Option<(i32, Offset)> {
    let header = |name: &str| {
        let found = letter.headers()?.iter().filter(|h| h.key == name).last()?;
        std::str::from_utf8(found.value?).ok()
    };
    if header("reason")? != Reason::RefusedByTable.name() || header("source_topic_id")? != topic_id
    {
        return None;
    }
    let partition = header("source_partition")?.parse().ok()?;
    Some((partition, Offset(header("source_offset")?.parse().ok()?)))
}
