//! Finds the facts of a start: topic id, config item, commits, progress items, the log's ends.
//!
//! A partition whose facts cannot be had keeps no other from starting: it is told with the reason, and the
//! pipeline asks again. Order matters in one place: the topic's id is read before all else, so that facts
//! of an older log are never taken for those of a newer one.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use rdkafka::error::KafkaResult;

use crate::blocking::run_blocking;
use crate::consume::tables::TableSet;
use crate::core::RULES;
use crate::core::event::Offset;
use crate::core::keys;
use crate::core::pipeline::Tables;
use crate::core::plan::Keep;
use crate::core::restart::StartFacts;
use crate::exit::SettingsError;
use crate::kafka::REACH_REMEDY;
use crate::kafka::inquiry::Inquiry;
use crate::remedy::of_store;
use crate::settings::RawRows;
use crate::store::config::{ConfigItem, set_topic};
use crate::store::error::StoreError;
use crate::store::write::Writer;
use crate::sys;

/// Longest wait for one answer of a broker.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a partition's leader, beside others: those whose leader answers begin no later than this.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Leaders asked at the same time.
const QUESTIONS_MAX: usize = 16;
/// More partitions would fill a row with fences.
const PARTITIONS_MAX: usize = 1_000;

/// Asks Kafka and DynamoDB.
#[derive(Clone)]
pub(super) struct Locator {
    inquiry: Inquiry,
    tables: TableSet,
    writer: Writer,
    topic: String,
}

/// A start that is known.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    pub(super) facts: StartFacts,
    pub(super) tables: Tables,
}

/// What could be found of what was wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) located: Vec<Located>,
    pub(super) missing: Vec<Unlocated>,
}

/// A start that is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Unlocated {
    pub(super) partition: i32,
    pub(super) assignment: u64,
    /// What is waited for.
    pub(super) why: String,
}

/// Why a start is not known yet, or never will be.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Try again; what is waited for.
    Wait(String),
    /// Stop.
    Settings(SettingsError),
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

    /// Returns one that asks over another client.
    pub(super) fn renewed(&self, inquiry: Inquiry) -> Locator {
        Locator {
            inquiry,
            ..self.clone()
        }
    }

    /// Finds what it can of what is wanted.
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
        // One that the topic has no longer is taken away soon; one that it has not yet, for this broker, comes.
        let partitions: Vec<i32> = partitions.filter(|p| *p < count).collect();
        let asked = partitions.clone();
        let commits = run_blocking(move || inquiry.commits(&asked, ANSWER_TIMEOUT))
            .await
            .map_err(|e| Trouble::Wait(kafka(&e)))?;
        let mut ranges = self.ranges(partitions, LEADER_TIMEOUT).await;
        let tables = Tables {
            rules: config.rules,
            keep: keep(config.raw),
        };
        // A topic made again meanwhile, or a broker that had not heard of it: facts of two logs.
        if self.topic().await?.0 != topic_id {
            return Err(Trouble::Wait(
                "the topic to settle, it was made again".to_owned(),
            ));
        }
        let (mut located, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        for &(partition, assignment) in wanted {
            let why = match ranges.remove(&partition) {
                Some(Ok(log)) => {
                    let log_key = keys::log_key(&topic_id, partition);
                    match self.writer.read_progress(&log_key).await {
                        Ok(progress) => {
                            let facts = StartFacts {
                                topic_id: topic_id.clone(),
                                tables_id: config.tables_id.clone(),
                                tables_read_ms,
                                commit: commits.get(&partition).cloned(),
                                progress,
                                log,
                            };
                            located.push(Located {
                                partition,
                                assignment,
                                facts,
                                tables: tables.clone(),
                            });
                            continue;
                        }
                        Err(error) => dynamodb(&error),
                    }
                }
                Some(Err(error)) => format!("partition {partition}'s leader: {error}"),
                None => format!("partition {partition} to exist"),
            };
            missing.push(Unlocated {
                partition,
                assignment,
                why,
            });
        }
        if self.tables.config().await?.tables_id != config.tables_id {
            let why = "the tables to settle, they were made again";
            return Err(Trouble::Wait(why.to_owned()));
        }
        Ok(Found { located, missing })
    }

    /// Asks the leaders of partitions for the ends of their logs, several at a time.
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

    /// Returns the topic's id and its number of partitions.
    pub(super) async fn topic(&self) -> Result<(String, i32), Trouble> {
        let inquiry = self.inquiry.clone();
        let found = run_blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await;
        match found {
            Ok(Some(topic)) => {
                let partitions = topic.partitions;
                if usize::try_from(partitions).unwrap_or(usize::MAX) > PARTITIONS_MAX {
                    return Err(Trouble::Settings(SettingsError::new(format!(
                        "topic {} has {partitions} partitions, at most {PARTITIONS_MAX} are supported",
                        self.topic
                    ))));
                }
                Ok((topic.id.to_string(), partitions))
            }
            Ok(None) => Err(Trouble::Wait(format!(
                "topic {} to exist (citystream init-tables makes it)",
                self.topic
            ))),
            Err(error) => Err(Trouble::Wait(kafka(&error))),
        }
    }

    async fn config(&self) -> Result<ConfigItem, Trouble> {
        let config = self.tables.config().await?;
        if config.rules_number != RULES {
            let what = format!(
                "the tables {}… were made under rules {}, this program has rules {RULES}",
                self.tables.names().totals,
                config.rules_number
            );
            let error = SettingsError::new(what)
                .with_remedy("use the matching version, or a new --table-prefix and a replay");
            return Err(Trouble::Settings(error));
        }
        self.writer
            .set_tables(config.shards, config.rules.window_ms);
        Ok(config)
    }

    /// Writes the topic and its id into the config item where they are not there yet.
    async fn claim(&self, config: &ConfigItem, topic_id: &str) -> Result<(), Trouble> {
        match &config.topic {
            Some(topic) if *topic != self.topic => {
                let what = format!(
                    "the tables {}… belong to topic {topic}, not {}",
                    self.tables.names().totals,
                    self.topic
                );
                let remedy = format!("give --topic {topic}, or another --table-prefix");
                return Err(Trouble::Settings(
                    SettingsError::new(what).with_remedy(remedy),
                ));
            }
            Some(_) if config.topic_id.as_deref() == Some(topic_id) => return Ok(()),
            _ => {}
        }
        tracing::info!(
            topic = self.topic,
            topic_id,
            "the tables now follow this log"
        );
        set_topic(
            self.tables.client(),
            self.tables.names(),
            &self.topic,
            topic_id,
        )
        .await
        .map_err(|e| Trouble::Wait(dynamodb(&e)))
    }

    /// Returns the tables.
    pub(super) fn tables(&self) -> TableSet {
        self.tables.clone()
    }

    pub(super) fn inquiry(&self) -> Inquiry {
        self.inquiry.clone()
    }
}

/// Returns what is waited for where DynamoDB does not answer, or refuses.
pub(super) fn dynamodb(error: &StoreError) -> String {
    match of_store(error) {
        Some(todo) => format!("DynamoDB: {error}; {todo}"),
        None => format!("DynamoDB: {error}"),
    }
}

/// Returns what is waited for where brokers do not answer.
pub(super) fn kafka(error: &dyn std::fmt::Display) -> String {
    format!("Kafka: {error}; {REACH_REMEDY}")
}

fn keep(raw: RawRows) -> Keep {
    match raw {
        RawRows::All => Keep::All,
        RawRows::Alerts => Keep::Alerts,
        RawRows::None => Keep::None,
    }
}
