//! Reads the records before the group's committed offsets again, in order to find replaced records
//! ([`core::replaced`]).
//!
//! [`core::replaced`]: crate::core::replaced

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use crate::core::event::Offset;
use crate::core::replaced::{Probed, find_replaced};
use crate::kafka::context::Context;
use crate::kafka::second_read::second_read_config;
use crate::sys;

/// Maximum number of partitions to read at the same time. A leader may send 64 KiB for each of these partitions.
const PROBES_MAX: usize = 64;
/// Maximum wait of one poll.
const POLL: Duration = Duration::from_millis(50);

/// A commit. The program checks whether the log still has the records below its offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    /// The number of the Kafka partition.
    pub(crate) partition: i32,
    /// The committed offset.
    pub(crate) next: Offset,
    /// The leader epoch that the commit contains.
    pub(crate) epoch: i32,
    /// The first offset of the partition's log.
    pub(crate) log_start: Offset,
}

/// Returns for each committed offset the first lower offset at which the log now contains another record, or `None` if
/// no record was replaced. The result excludes partitions whose leader does not answer before `timeout`. The call
/// blocks.
///
/// All reads use the same Kafka client. The first reads of up to [`PROBES_MAX`] partitions run at the same time, and
/// cost about one round trip to each leader.
///
/// # Errors
/// Returns an error if librdkafka refuses the settings.
pub(super) fn find_all_replaced(
    config: &ClientConfig,
    topic: &str,
    commits: &[Committed],
    timeout: Duration,
) -> KafkaResult<BTreeMap<i32, Option<Offset>>> {
    let config = second_read_config(config);
    let client = config.create_with_context(Context::new(&config))?;
    let mut prober = Prober {
        client,
        topic,
        deadline: Instant::now() + timeout,
    };
    let last = |commit: &Committed| (commit.partition, Offset(commit.next.0 - 1));
    let mut firsts = BTreeMap::new();
    for some in commits.chunks(PROBES_MAX) {
        firsts.extend(prober.probe(&some.iter().map(last).collect())?);
    }
    let mut found = BTreeMap::new();
    for commit in commits {
        let partition = commit.partition;
        let Some(&first) = firsts.get(&partition) else {
            continue;
        };
        let mut first = Some(first);
        let probe = |from| match first.take() {
            Some(first) => Ok(first),
            None => {
                let answers = prober.probe(&BTreeMap::from([(partition, from)]))?;
                let no_answer = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                answers.get(&partition).copied().ok_or(no_answer)
            }
        };
        match find_replaced(commit.next, commit.epoch, commit.log_start, probe) {
            Ok(since) => drop(found.insert(partition, since)),
            Err(error) => tracing::debug!(partition, %error, "failed to search replaced records"),
        }
    }
    Ok(found)
}

/// Reads individual records with a Kafka client that joins no group.
struct Prober<'a> {
    client: BaseConsumer<Context>,
    topic: &'a str,
    deadline: Instant,
}

impl Prober<'_> {
    /// Returns the first record at or after the given offset of each partition, or `None` if the log has no such
    /// record. The result excludes partitions without an answer before the deadline.
    fn probe(
        &mut self,
        from: &BTreeMap<i32, Offset>,
    ) -> KafkaResult<BTreeMap<i32, Option<Probed>>> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(self.topic, *partition, ListOffset::Offset(offset.0))?;
        }
        self.client.assign(&list)?;
        let mut found = BTreeMap::new();
        while found.len() < from.len() && Instant::now() < self.deadline {
            match self.client.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), Offset(message.offset()));
                    let asked = from.get(&partition).is_some_and(|from| offset >= *from);
                    if asked {
                        // Without an epoch, the program cannot compare the record, so it treats the record as the end
                        // of the log.
                        let probed = sys::record_epoch(&message);
                        let probed = probed.map(|epoch| Probed { offset, epoch });
                        found.entry(partition).or_insert(probed);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    found.entry(partition).or_insert(None);
                }
                // The brokers may be unreachable only for a while.
                Some(Err(KafkaError::MessageConsumption(code))) => {
                    tracing::debug!(%code, "waiting for the records before the commits");
                }
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(found)
    }
}
