//! Sends requests about the group and the log, and commits restart points, over the connections of the consumer.
//!
//! All requests block, so callers run them on a thread for blocking tasks. An [`Inquiry`] keeps the Kafka client alive,
//! so the member leaves the consumer group only after the last [`Inquiry`] is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientConfig, Message as _, Offset as KafkaOffset, TopicPartitionList};

use super::GroupContext;
use crate::core::event::Offset;
use crate::core::parse::Reason;
use crate::core::pipeline::CommitPart;
use crate::core::restart::{Commit, with_epoch};
use crate::core::worker::Rejected;
use crate::kafka::context::Context;
use crate::kafka::record::original;
use crate::kafka::replaced::{Committed, find_all_replaced};
use crate::sys;

/// Returns the committed offsets of the group to which `client` belongs. The result excludes partitions without a
/// committed offset.
///
/// # Errors
/// Returns an error if the coordinator refuses the request or does not answer in time.
pub(crate) fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partitions: impl Iterator<Item = i32>,
    timeout: Duration,
) -> KafkaResult<BTreeMap<i32, Commit>> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, partition);
    }
    let list = client.committed_offsets(list, timeout)?;
    let mut out = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let KafkaOffset::Offset(next) = element.offset() {
            let metadata = sys::commit_metadata(&list, topic, element.partition());
            let commit = Commit {
                next: Offset(next),
                metadata: String::from_utf8(metadata).unwrap_or_default(),
            };
            out.insert(element.partition(), commit);
        }
    }
    Ok(out)
}

/// Sends blocking requests over the connections of the consumer.
#[derive(Clone)]
pub struct Inquiry {
    client: Arc<BaseConsumer<GroupContext>>,
    config: ClientConfig,
    topic: String,
}

impl Inquiry {
    /// Returns a handle for `client`, which has the settings `config` and reads the topic `topic`.
    pub(super) fn new(
        client: Arc<BaseConsumer<GroupContext>>,
        config: ClientConfig,
        topic: String,
    ) -> Inquiry {
        Inquiry {
            client,
            config,
            topic,
        }
    }

    /// Returns the group's committed offsets for `partitions`. The result excludes partitions without a committed
    /// offset.
    ///
    /// # Errors
    /// Returns an error if the coordinator does not answer in time.
    pub fn commits(
        &self,
        partitions: &[i32],
        timeout: Duration,
    ) -> KafkaResult<BTreeMap<i32, Commit>> {
        committed(
            &self.client,
            &self.topic,
            partitions.iter().copied(),
            timeout,
        )
    }

    /// Commits restart points and waits for the coordinator's answer.
    ///
    /// # Errors
    /// Returns an error if the coordinator does not answer. Also returns an error if the coordinator refuses the
    /// commit, for example during a rebalance.
    pub fn commit(&self, parts: &[CommitPart]) -> KafkaResult<()> {
        commit(&self.client, &self.topic, parts, CommitMode::Sync)
    }

    /// Returns the offset of a partition's oldest record, and the offset after its newest record.
    ///
    /// # Errors
    /// Returns an error if the leader of the partition does not answer in time.
    pub fn log_range(&self, partition: i32, timeout: Duration) -> KafkaResult<(Offset, Offset)> {
        let (start, end) = self
            .client
            .fetch_watermarks(&self.topic, partition, timeout)?;
        Ok((Offset(start), Offset(end)))
    }

    /// Returns for each committed offset the first lower offset at which the log now contains another record, or `None`
    /// if no record was replaced. The result excludes partitions whose leader does not answer in time.
    ///
    /// # Errors
    /// Returns an error if librdkafka refuses the settings.
    pub(crate) fn replaced(
        &self,
        commits: &[Committed],
        timeout: Duration,
    ) -> KafkaResult<BTreeMap<i32, Option<Offset>>> {
        find_all_replaced(&self.config, &self.topic, commits, timeout)
    }

    /// Returns the id and the number of partitions of the topic, or `None` if the topic does not exist.
    ///
    /// # Errors
    /// Returns an error if no broker answers in time.
    pub fn topic(&self, timeout: Duration) -> Result<Option<sys::TopicFacts>, sys::TopicError> {
        sys::topic_facts(self.client.client(), &self.topic, timeout)
    }

    /// Reads one record again with a separate Kafka client. Returns `None` if no broker returns the record in time.
    pub fn read_one(&self, partition: i32, offset: Offset, timeout: Duration) -> Option<Rejected> {
        let mut config = self.config.clone();
        config
            .set("enable.partition.eof", "false")
            .remove("group.instance.id");
        let context = Context::new(&config);
        let client: BaseConsumer<Context> = config.create_with_context(context).ok()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, KafkaOffset::Offset(offset.0))
            .ok()?;
        client.assign(&list).ok()?;
        let message = client.poll(timeout)?.ok()?;
        (message.offset() == offset.0)
            .then(|| original(&message, Reason::RefusedByTable, String::new()))
    }
}

/// Commits restart points. Returns an error if the coordinator refuses any of the restart points.
pub(super) fn commit(
    client: &BaseConsumer<GroupContext>,
    topic: &str,
    parts: &[CommitPart],
    mode: CommitMode,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for part in parts {
        // The next owner needs the leader epoch to check whether the log still has the records below the committed
        // offset.
        let epochs = client.context().epochs();
        let epochs = epochs.get(&part.partition);
        let metadata = match epochs.and_then(|epochs| epochs.before(part.boundary.next)) {
            Some(epoch) => with_epoch(&part.metadata, epoch),
            None => part.metadata.clone(),
        };
        let mut element = list.add_partition(topic, part.partition);
        element.set_offset(KafkaOffset::Offset(part.boundary.next.0))?;
        element.set_metadata(&metadata);
    }
    // The list contains the offset and the metadata of each partition. The alternative, a commit of librdkafka's stored
    // offsets, has no metadata.
    client.commit(&list, mode)
}
