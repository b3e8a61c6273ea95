//! Finds the facts of a start: topic id, config item, commits, progress items, the log's ends.
//!
//! Everything here is repeated until it is known; what is waited for is said every ten seconds.
//! Order matters in one place: the topic's id is read before all else, so that facts of an older
//! log are never taken for those of a newer one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cmd::SettingsError;
use crate::core::RULES;
use crate::core::keys::{self, TableNames};
use crate::core::pace::backoff_ms;
use crate::core::pipeline::Tables;
use crate::core::plan::Keep;
use crate::core::restart::StartFacts;
use crate::kafka::inquiry::Inquiry;
use crate::settings::RawRows;
use crate::store::config::{Config, read_config, set_topic};
use crate::store::write::Writer;

/// Longest wait for one answer of a broker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// More partitions would fill a row with fences.
const PARTITIONS_MAX: usize = 1_000;

/// Asks Kafka and DynamoDB.
#[derive(Clone)]
pub(super) struct Locator {
    inquiry: Inquiry,
    /// Set once another client has taken the place of this one's.
    retired: Arc<AtomicBool>,
    client: aws_sdk_dynamodb::Client,
    names: TableNames,
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
        client: aws_sdk_dynamodb::Client,
        names: TableNames,
        writer: Writer,
        topic: String,
    ) -> Locator {
        Locator {
            inquiry,
            retired: Arc::default(),
            client,
            names,
            writer,
            topic,
        }
    }

    /// Returns one that asks over another client; this one's questions end.
    pub(super) fn renewed(&self, inquiry: Inquiry) -> Locator {
        self.retired.store(true, Ordering::Relaxed);
        Locator {
            inquiry,
            retired: Arc::default(),
            ..self.clone()
        }
    }

    /// Repeats [`Locator::try_locate`] until it succeeds; `waiting` hears what is waited for.
    pub(super) async fn locate(
        &self,
        wanted: &[(i32, u64)],
        waiting: impl Fn(Option<String>),
    ) -> Result<Vec<Located>, SettingsError> {
        let mut attempt = 0;
        loop {
            if self.retired.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
            match self.try_locate(wanted).await {
                Ok(located) => {
                    waiting(None);
                    return Ok(located);
                }
                Err(Trouble::Settings(error)) => return Err(error),
                Err(Trouble::Wait(what)) => {
                    attempt += 1;
                    waiting(Some(what));
                    let wait = backoff_ms(attempt + 2, fastrand::u32(..)).min(2_000);
                    tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
                }
            }
        }
    }

    async fn try_locate(&self, wanted: &[(i32, u64)]) -> Result<Vec<Located>, Trouble> {
        let (topic_id, partitions) = self.topic().await?;
        // A topic made again with fewer partitions: the group takes the others away soon.
        let exists = |(partition, _): &&(i32, u64)| *partition < partitions;
        let wanted: Vec<(i32, u64)> = wanted.iter().filter(exists).copied().collect();
        let config = self.config().await?;
        self.claim(&config, &topic_id).await?;
        let partitions: Vec<i32> = wanted.iter().map(|(p, _)| *p).collect();
        let inquiry = self.inquiry.clone();
        let (commits, ranges) = blocking(move || {
            let commits = inquiry.commits(&partitions, ANSWER_TIMEOUT)?;
            let ranges: Result<Vec<_>, _> = partitions
                .iter()
                .map(|p| inquiry.log_range(*p, ANSWER_TIMEOUT))
                .collect();
            ranges.map(|ranges| (commits, ranges))
        })
        .await
        .map_err(|e| Trouble::Wait(format!("Kafka: {e}")))?;
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
        let mut out = Vec::with_capacity(wanted.len());
        for ((partition, assignment), log) in wanted.iter().zip(ranges) {
            let log_key = keys::log_key(&topic_id, *partition);
            let progress = self.writer.read_progress(&log_key).await;
            out.push(Located {
                partition: *partition,
                assignment: *assignment,
                facts: StartFacts {
                    topic_id: topic_id.clone(),
                    tables_id: config.tables_id.clone(),
                    commit: commits.get(partition).cloned(),
                    progress: progress.map_err(|e| Trouble::Wait(format!("DynamoDB: {e}")))?,
                    log,
                },
                tables: tables.clone(),
            });
        }
        Ok(out)
    }

    /// Returns the topic's id and its number of partitions.
    pub(super) async fn topic(&self) -> Result<(String, i32), Trouble> {
        let inquiry = self.inquiry.clone();
        let found = blocking(move || inquiry.topic(ANSWER_TIMEOUT)).await;
        match found {
            Ok(Some(topic)) => {
                let partitions = topic.partitions;
                if usize::try_from(partitions).unwrap_or(usize::MAX) > PARTITIONS_MAX {
                    return Err(Trouble::Settings(SettingsError(format!(
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
            Err(error) => Err(Trouble::Wait(format!("Kafka: {error}"))),
        }
    }

    async fn config(&self) -> Result<Config, Trouble> {
        let config = read_config(&self.client, &self.names).await;
        let config = config.map_err(|error| {
            if error.kind() == crate::store::error::Kind::NotFound {
                Trouble::Wait(missing(&self.names))
            } else {
                Trouble::Wait(format!("DynamoDB: {error}"))
            }
        })?;
        let Some(config) = config else {
            return Err(Trouble::Wait(missing(&self.names)));
        };
        if config.rules_number != RULES {
            return Err(Trouble::Settings(SettingsError(format!(
                "the tables {}… were made under rules {}, this program has rules {RULES}; use the matching version, or a new --table-prefix and a replay",
                self.names.totals, config.rules_number
            ))));
        }
        self.writer
            .set_tables(config.shards, config.rules.window_ms);
        Ok(config)
    }

    /// Writes the topic and its id into the config item where they are not there yet.
    async fn claim(&self, config: &Config, topic_id: &str) -> Result<(), Trouble> {
        match &config.topic {
            Some(topic) if *topic != self.topic => {
                return Err(Trouble::Settings(SettingsError(format!(
                    "the tables {}… belong to topic {topic}, not {}; give --topic {topic}, or another --table-prefix",
                    self.names.totals, self.topic
                ))));
            }
            Some(_) if config.topic_id.as_deref() == Some(topic_id) => return Ok(()),
            _ => {}
        }
        tracing::info!(
            topic = self.topic,
            topic_id,
            "the tables now follow this log"
        );
        set_topic(&self.client, &self.names, &self.topic, topic_id)
            .await
            .map_err(|e| Trouble::Wait(format!("DynamoDB: {e}")))
    }

    /// Returns the tables' random id now; `None` while it cannot be had.
    pub(super) async fn tables_id(&self) -> Option<String> {
        let config = read_config(&self.client, &self.names).await;
        config.ok().flatten().map(|config| config.tables_id)
    }

    pub(super) fn inquiry(&self) -> Inquiry {
        self.inquiry.clone()
    }
}

fn missing(names: &TableNames) -> String {
    format!(
        "the tables {}… to exist (citystream init-tables makes them)",
        names.totals
    )
}

fn keep(raw: RawRows) -> Keep {
    match raw {
        RawRows::All => Keep::All,
        RawRows::Alerts => Keep::Alerts,
        RawRows::None => Keep::None,
    }
}

/// Runs a blocking call on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
