//! Finds the facts that the consumer needs to start reading a partition: the topic's id, the config item, the group's
//! committed offset, the progress item, and the offset range of the log.
//!
//! If facts about one partition are missing, the consumer still starts reading the other partitions. The pipeline
//! requests the missing facts again later. The locator reads the topic's id before all other facts. With the reverse
//! order, it could take facts about a deleted topic's log for facts about the new topic's log.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use rdkafka::error::KafkaResult;

use crate::blocking::run_blocking;
use crate::consume::tables::TableSet;
use crate::consume::trouble::{Trouble, dynamodb, kafka};
use crate::core::event::Offset;
use crate::core::keys;
use crate::core::pipeline::Tables;
use crate::core::restart::{Commit, StartFacts};
use crate::exit::SettingsError;
use crate::kafka::consumer::Inquiry;
use crate::kafka::replaced::Committed;
use crate::store::config::{ConfigItem, set_topic};
use crate::store::write::Writer;
use crate::sys;

/// Maximum wait for a broker's answer to one request.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum wait for the answer of a partition leader. If one leader does not answer, the consumer starts reading the
/// partitions of the other leaders after at most five seconds.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of requests to partition leaders at the same time.
const QUESTIONS_MAX: usize = 16;
/// Maximum number of partitions of a topic. With more partitions, the fences of a row could exceed the size limit of a
/// DynamoDB item.
const PARTITIONS_MAX: usize = 1_000;

/// Sends requests to Kafka and DynamoDB for the facts that the consumer needs to start reading a partition.
#[derive(Clone)]
pub(super) struct Locator {
    inquiry: Inquiry,
    tables: TableSet,
    writer: Writer,
    topic: String,
}

/// A partition with all facts that the consumer needs to start reading it.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    pub(super) facts: StartFacts,
    pub(super) tables: Tables,
}

/// The result of `Locator::locate`: the partitions with all facts, and the partitions with missing facts.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) located: Vec<Located>,
    pub(super) missing: Vec<Unlocated>,
}

/// A partition that the consumer cannot start reading yet, because it lacks facts.
#[derive(Clone, Debug)]
pub(super) struct Unlocated {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    /// A description of the condition for which the consumer waits before it reads the partition.
    pub(super) why: String,
}

impl Locator {
    pub(super) fn new(
        inquiry: Inquiry,
        tables: TableSet,
        writer: Writer,
        topic: String,
    ) -> Locator {
        Locator {
            inquiry,
            tables,
            writer,
            topic,
        }
    }

    /// Returns a copy of this locator that sends its requests through another Kafka client.
    pub(super) fn renewed(&self, inquiry: Inquiry) -> Locator {
        Locator {
            inquiry,
            ..self.clone()
        }
    }

    /// Finds the facts that the consumer needs to start reading the given partitions. The result also lists the
    /// partitions for which facts are missing.
    pub(super) async fn locate(&self, wanted: Vec<(i32, u64)>) -> Result<Found, SettingsError> {
        match self.try_locate(&wanted).await {
            Ok(found) => Ok(found),
            Err(Trouble::Wait(why)) => {
                let missing = |(partition, assignment)| Unlocated {
                    partition,
                    assignment,
                    why: why.clone(),
                };
                Ok(Found {
                    located: Vec::new(),
                    missing: wanted.into_iter().map(missing).collect(),
                })
            }
            Err(Trouble::Settings(error)) => Err(error),
        }
    }

    async fn try_locate(&self, wanted: &[(i32, u64)]) -> Result<Found, Trouble> {
        let (topic_id, count) = self.topic().await?;
        let tables_read_ms = sys::boot_ms();
        let config = self.config().await?;
        self.claim(&config, &topic_id).await?;
        let (inquiry, partitions) = (self.inquiry.clone(), wanted.iter().map(|(p, _)| *p));
        // The function skips partitions that the topic does not have according to the broker. If the topic no longer
        // has a partition, the group soon revokes it. If the broker does not know a new partition yet, a later attempt
        // finds the facts about the new partition.
        let partitions: Vec<i32> = partitions.filter(|p| *p < count).collect();
        let asked = partitions.clone();
        let commits = run_blocking(move || inquiry.commits(&asked, ANSWER_TIMEOUT))
            .await
            .map_err(|e| Trouble::Wait(kafka(&e)))?;
        let ranges = self.ranges(partitions, LEADER_TIMEOUT).await;
        let replaced = self.replaced(&topic_id, &config, &commits, &ranges).await?;
        let tables = Tables {
            rules: config.rules,
            keep: config.raw,
        };
        // A different id means that the topic was recreated since the first request, or that one broker does not know
        // the new topic yet. The facts may then come from the logs of two different topics.
        if self.topic().await?.0 != topic_id {
            return Err(recreated("topic"));
        }
        let (mut located, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        for &(partition, assignment) in wanted {
            let log = log_of(partition, &ranges, &replaced);
            let log_key = keys::log_key(&topic_id, partition);
            let progress = match log {
                Ok(_) => self.writer.read_progress(&log_key).await,
                Err(_) => Ok(None),
            };
            match (log, progress) {
                (Ok((log, replaced_from)), Ok(progress)) => located.push(Located {
                    partition,
                    assignment,
                    facts: StartFacts {
                        topic_id: topic_id.clone(),
                        tables_id: config.tables_id.clone(),
                        tables_read_ms,
                        commit: commits.get(&partition).cloned(),
                        progress,
                        log,
                        replaced_from,
                    },
                    tables: tables.clone(),
                }),
                (Ok(_), Err(error)) => missing.push(Unlocated {
                    partition,
                    assignment,
                    why: dynamodb(&error),
                }),
                (Err(why), _) => missing.push(Unlocated {
                    partition,
                    assignment,
                    why,
                }),
            }
        }
        if self.tables.config().await?.tables_id != config.tables_id {
            return Err(recreated("tables"));
        }
        Ok(Found { located, missing })
    }

    /// Returns for each committed offset that may be a restart point the first lower offset at which the log now
    /// contains another record. The value is `None` if no record was replaced, and an error if the leader of the
    /// partition has not answered.
    async fn replaced(
        &self,
        topic_id: &str,
        config: &ConfigItem,
        commits: &BTreeMap<i32, Commit>,
        ranges: &BTreeMap<i32, KafkaResult<(Offset, Offset)>>,
    ) -> Result<BTreeMap<i32, Result<Option<Offset>, String>>, Trouble> {
        let asked = |(partition, commit): (&i32, &Commit)| {
            let (log_start, log_end) = *ranges.get(partition)?.as_ref().ok()?;
            let is_inside = log_start < commit.next && commit.next <= log_end;
            let is_ours = commit.boundary(topic_id, &config.tables_id).is_some();
            (is_inside && is_ours).then_some(Committed {
                partition: *partition,
                next: commit.next,
                epoch: commit.epoch()?,
                log_start,
            })
        };
        let asked: Vec<Committed> = commits.iter().filter_map(asked).collect();
        if asked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (inquiry, all) = (self.inquiry.clone(), asked.clone());
        let found = run_blocking(move || inquiry.replaced(&all, LEADER_TIMEOUT))
            .await
            .map_err(|e| Trouble::Wait(kafka(&e)))?;
        let answer = |commit: Committed| {
            let partition = commit.partition;
            let why = || format!("the leader of partition {partition} to return a record");
            (partition, found.get(&partition).copied().ok_or_else(why))
        };
        Ok(asked.into_iter().map(answer).collect())
    }

    /// Requests the first offset and the end offset of each partition's log from its leader. Several requests run at
    /// the same time.
    pub(super) async fn ranges(
        &self,
        partitions: impl IntoIterator<Item = i32>,
        timeout: Duration,
    ) -> BTreeMap<i32, KafkaResult<(Offset, Offset)>> {
        let range = |partition| {
            let inquiry = self.inquiry.clone();
            run_blocking(move || (partition, inquiry.log_range(partition, timeout)))
        };
        let asked = futures_util::stream::iter(partitions).map(range);
        asked.buffer_unordered(QUESTIONS_MAX).collect().await
    }

    /// Returns the id of the topic and the number of its partitions.
    pub(super) async fn topic(&self) -> Result<(String, i32), Trouble> {
        let inquiry = self.inquiry.clone();
        let found = run_blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await;
        match found {
            Ok(Some(topic)) => {
                let partitions = topic.partitions;
                if usize::try_from(partitions).unwrap_or(usize::MAX) > PARTITIONS_MAX {
                    return Err(Trouble::Settings(SettingsError::new(format!(
                        "topic {} has {partitions} partitions, but at most {PARTITIONS_MAX} are supported",
                        self.topic
                    ))));
                }
                Ok((topic.id.to_string(), partitions))
            }
            Ok(None) => Err(Trouble::Wait(format!(
                "topic {} to exist (citystream init-tables creates it)",
                self.topic
            ))),
            Err(error) => Err(Trouble::Wait(kafka(&error))),
        }
    }

    async fn config(&self) -> Result<ConfigItem, Trouble> {
        let config = self.tables.config().await?;
        if let Some(failure) = config.mismatch(self.tables.names(), &self.topic) {
            return Err(Trouble::Settings(SettingsError(failure)));
        }
        self.writer
            .set_tables(config.shards, config.rules.window_ms);
        Ok(config)
    }

    /// Writes the topic's name and id into the config item, unless the config item already contains this name and id.
    async fn claim(&self, config: &ConfigItem, topic_id: &str) -> Result<(), Trouble> {
        if config.topic.is_some() && config.topic_id.as_deref() == Some(topic_id) {
            return Ok(());
        }
        // The config item was read before this request to Kafka, as `set_topic` requires.
        if self.topic().await?.0 != topic_id {
            return Err(recreated("topic"));
        }
        tracing::info!(
            topic = self.topic,
            topic_id,
            "the tables now follow this log"
        );
        let (client, names) = (self.tables.client(), self.tables.names());
        let known_id = config.topic_id.as_deref();
        let set = set_topic(client, names, &self.topic, topic_id, known_id).await;
        set.map_err(|e| Trouble::Wait(dynamodb(&e)))
    }

    /// Returns the set of DynamoDB tables that the locator reads.
    pub(super) fn tables(&self) -> TableSet {
        self.tables.clone()
    }

    pub(super) fn inquiry(&self) -> Inquiry {
        self.inquiry.clone()
    }
}

/// Returns the wait for `what`, which was recreated while the consumer looked up facts about it.
fn recreated(what: &str) -> Trouble {
    Trouble::Wait(format!("the recreated {what} to settle"))
}

/// The range of a partition's log, and the first offset below the committed offset at which the log now contains
/// another record.
type LogFacts = ((Offset, Offset), Option<Offset>);

/// Returns the facts about a partition's log from Kafka's answers, or a description of the missing answer.
fn log_of(
    partition: i32,
    ranges: &BTreeMap<i32, KafkaResult<(Offset, Offset)>>,
    replaced: &BTreeMap<i32, Result<Option<Offset>, String>>,
) -> Result<LogFacts, String> {
    let log = match ranges.get(&partition) {
        Some(Ok(log)) => *log,
        Some(Err(error)) => return Err(format!("the leader of partition {partition}: {error}")),
        None => return Err(format!("partition {partition} to exist")),
    };
    let replaced = replaced.get(&partition).cloned().unwrap_or(Ok(None))?;
    Ok((log, replaced))
}
