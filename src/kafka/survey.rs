//! What Kafka knows about a log beside its records: the topic's id, where each partition begins and
//! ends, what a group has committed, and which records' items DynamoDB refused.
//!
//! For those who look on, such as `verify`: it joins no group and commits nothing. All calls block.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use crate::core::event::Offset;
use crate::core::parse::Reason;
use crate::core::restart::Commit;
use crate::kafka::client_errors::Context;
use crate::kafka::inquiry::committed;
use crate::kafka::second_read::{EndContext, SecondReader};
use crate::shutdown::Shutdown;
use crate::sys::{self, TopicError, TopicFacts};

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may come from the dead-letter topic before it is given up.
const SILENCE_MAX: u32 = 20;

/// A client that asks about one topic.
pub struct Survey {
    client: BaseConsumer<Context>,
    config: ClientConfig,
    topic: String,
}

impl Survey {
    /// Returns a client that asks about `topic` and the commits of `group`. Sends nothing yet.
    ///
    /// # Errors
    /// Where librdkafka refuses the settings.
    pub fn new(config: &ClientConfig, topic: &str, group: &str) -> KafkaResult<Survey> {
        let mut config = config.clone();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        Ok(Survey {
            client: config.create_with_context(Context::new(&config))?,
            config,
            topic: topic.to_owned(),
        })
    }

    /// Returns the topic's id and number of partitions; `None` if there is no such topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub fn topic(&self) -> Result<Option<TopicFacts>, TopicError> {
        // Nothing is assigned, so this serves callbacks only: a login's token comes by one.
        self.client.poll(Duration::ZERO);
        sys::topic_facts(self.client.client(), &self.topic, ANSWER_TIMEOUT)
    }

    /// Returns the offset of each partition's oldest record, and the one after its newest.
    ///
    /// # Errors
    /// When a leader does not answer in time.
    pub fn ends(&self, partitions: i32) -> KafkaResult<BTreeMap<i32, (Offset, Offset)>> {
        let ask = |partition: i32| {
            let ends = self
                .client
                .fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT);
            ends.map(|(start, end)| (partition, (Offset(start), Offset(end))))
        };
        (0..partitions).map(ask).collect()
    }

    /// Returns the group's commit for each partition that has one.
    ///
    /// # Errors
    /// When the coordinator refuses or does not answer in time.
    pub fn commits(&self, partitions: i32) -> KafkaResult<BTreeMap<i32, Commit>> {
        committed(&self.client, &self.topic, 0..partitions, ANSWER_TIMEOUT)
    }

    /// Reads the dead-letter topic `letters` to its end and returns the records of the topic with
    /// this id whose raw event or alert DynamoDB refused.
    ///
    /// # Errors
    /// When Kafka does not answer in time.
    pub fn refused(&self, letters: &str, topic_id: &str) -> KafkaResult<BTreeSet<(i32, Offset)>> {
        let metadata = self.client.fetch_metadata(None, ANSWER_TIMEOUT)?;
        let topic = metadata.topics().iter().find(|t| t.name() == letters);
        let client: BaseConsumer<EndContext> = self
            .config
            .create_with_context(EndContext::new(&self.config))?;
        let second = SecondReader::new(&self.config, letters);
        let never = Shutdown::new();
        client.poll(Duration::ZERO);
        let mut list = TopicPartitionList::new();
        let mut positions = BTreeMap::new();
        for partition in topic.iter().flat_map(|t| t.partitions()) {
            let (start, end) = client.fetch_watermarks(letters, partition.id(), ANSWER_TIMEOUT)?;
            if start < end {
                list.add_partition_offset(letters, partition.id(), ListOffset::Offset(start))?;
                positions.insert(partition.id(), Offset(start));
            }
        }
        client.assign(&list)?;
        let (mut refused, mut silence) = (BTreeSet::new(), 0);
        while !positions.is_empty() {
            match client.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    silence = 0;
                    let (partition, offset) = (message.partition(), Offset(message.offset()));
                    if let Some(position) = positions.get_mut(&partition) {
                        if !second.may_pass(&client, partition, (*position, offset), &never)? {
                            continue;
                        }
                        *position = offset.next();
                    }
                    let header = |name: &str| {
                        let headers = message.headers()?;
                        let found = headers.iter().filter(|h| h.key == name).last()?;
                        std::str::from_utf8(found.value?).ok().map(str::to_owned)
                    };
                    let is_it = header("reason").as_deref() == Some(Reason::RefusedByTable.name())
                        && header("source_topic_id").as_deref() == Some(topic_id);
                    let at = || {
                        let partition = header("source_partition")?.parse().ok()?;
                        Some((partition, Offset(header("source_offset")?.parse().ok()?)))
                    };
                    if is_it {
                        refused.extend(at());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let end = client.context().end_of_log().unwrap_or(Offset(0));
                    if let Some(position) = positions.get(&partition).copied()
                        && second.may_pass(&client, partition, (position, end), &never)?
                    {
                        positions.remove(&partition);
                    }
                }
                Some(Err(error)) if silence >= SILENCE_MAX => return Err(error),
                None if silence >= SILENCE_MAX => {
                    return Err(KafkaError::MessageConsumption(
                        rdkafka::error::RDKafkaErrorCode::OperationTimedOut,
                    ));
                }
                Some(Err(_)) | None => silence += 1,
            }
        }
        Ok(refused)
    }
}
