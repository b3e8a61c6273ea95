//! Topics: what `init-tables` makes, compares and deletes, and who is still reading.
//!
//! A topic that exists is never changed: its partition count decides which records lie where, and its
//! settings may be somebody's decision. What differs from the contract is told ([`differences`]).
//!
//! Every call ends within its timeout; librdkafka's blocking calls run on Tokio's blocking threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::chatter::Context;
use crate::kafka::client::{self, ClientError};
use crate::kafka::dlq::DLQ_MESSAGE_BYTES_MAX;
use crate::kafka::iam::IamError;
use crate::kafka::refusal::Refusal;
use crate::settings::KafkaArgs;
use crate::sys::{self, Members, MembersError, Rights, TopicError, TopicFacts};

/// Longest wait for the answer to one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the brokers may take to carry out a change.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// Stands for whatever replication the brokers give a new topic by themselves.
const REPLICATION_BROKERS: i32 = -1;
/// Time of one try to reach a broker, and longest wait for what the client then says of it.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
const EXCUSE_WAIT: Duration = Duration::from_millis(50);

/// Why an administrative request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The settings cannot work.
    #[error(transparent)]
    Settings(#[from] ClientError),
    /// The brokers let nobody in with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// No token to log in with.
    #[error("failed to log in to Kafka with AWS credentials")]
    Login(#[from] IamError),
    /// Kafka did not answer, or refused.
    // Not its source: the text of that holds its own source already.
    #[error("failed to {what}: {reason}")]
    Kafka {
        /// What was asked for.
        what: String,
        /// librdkafka's words.
        reason: KafkaError,
    },
    /// The brokers refused to create or delete a topic.
    #[error("failed to {what}: {code}")]
    Topic {
        /// What was asked for.
        what: String,
        /// The brokers' code.
        code: RDKafkaErrorCode,
    },
    /// These brokers do not answer such questions: what only speaks like Kafka.
    #[error("these brokers do not tell {what}")]
    Untold {
        /// What was asked for.
        what: String,
    },
    /// The members of a group are not known.
    #[error("failed to list the members of group {group}: {reason}")]
    Members {
        /// The group.
        group: String,
        /// The brokers' words.
        reason: String,
    },
    /// No broker is the one that makes topics.
    #[error("these brokers have no controller, which would make topic {topic}")]
    NoController {
        /// What was to be made.
        topic: String,
    },
    /// A topic could not be described.
    #[error(transparent)]
    Describe(#[from] TopicError),
    /// A background thread died.
    #[error("failed to wait for a thread")]
    Thread(#[from] tokio::task::JoinError),
}

/// The settings that MSK Serverless lets a topic have, and so those that every broker takes.
/// Source: "Configuration properties for MSK Serverless clusters" in AWS's documentation.
const TAKEN_EVERYWHERE: [&str; 7] = [
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "retention.bytes",
    "retention.ms",
];

/// What became of a topic that was to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// It was missing before.
    pub made: bool,
    /// Settings that these brokers refuse, and that the topic therefore does not have.
    pub left_out: Vec<&'static str>,
}

impl Creation {
    /// Returns a sentence about the settings that were left out, if there are any.
    pub fn note(&self) -> Option<String> {
        let names = self.left_out.join(", ");
        (!self.left_out.is_empty())
            .then(|| format!("without {names}, which these brokers do not let a topic set"))
    }
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Settings that differ from the brokers' defaults or must not follow them.
    pub config: Vec<(&'static str, String)>,
}

impl TopicSpec {
    /// Returns the settings that some brokers refuse, and the topic without them.
    pub fn reduced(&self) -> (Vec<&'static str>, TopicSpec) {
        let (config, refused): (Vec<_>, Vec<_>) = self
            .config
            .iter()
            .cloned()
            .partition(|(name, _)| TAKEN_EVERYWHERE.contains(name));
        let reduced = TopicSpec {
            config,
            ..self.clone()
        };
        (refused.into_iter().map(|(name, _)| name).collect(), reduced)
    }

    /// Returns the topic of events.
    pub fn events(name: &str, partitions: i32, replication: i32) -> TopicSpec {
        let mut config = common(replication, 24);
        // The broker's clock: a producer's cannot move both times of an event.
        config.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        TopicSpec {
            name: name.to_owned(),
            partitions,
            config,
        }
    }

    /// Returns the topic of rejected records.
    pub fn dead_letters(name: &str, replication: i32) -> TopicSpec {
        let mut config = common(replication, 14 * 24);
        config.push(("max.message.bytes", DLQ_MESSAGE_BYTES_MAX.to_string()));
        TopicSpec {
            name: name.to_owned(),
            partitions: 1,
            config,
        }
    }
}

fn common(replication: i32, retention_hours: u64) -> Vec<(&'static str, String)> {
    let mut config = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", (retention_hours * 3_600_000).to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    if replication >= 3 {
        config.push(("min.insync.replicas", "2".to_owned()));
    }
    config
}

/// Returns what differs between a topic and what it should be, a sentence each.
///
/// A setting that is absent from `actual` is not compared: not every service shows all.
pub fn differences(
    spec: &TopicSpec,
    partitions: i32,
    actual: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut out = Vec::new();
    if partitions != spec.partitions {
        out.push(format!(
            "has {partitions} partitions instead of {}",
            spec.partitions
        ));
    }
    for (name, wanted) in &spec.config {
        if let Some(value) = actual.get(*name)
            && value != wanted
        {
            out.push(format!("has {name}={value} instead of {wanted}"));
        }
    }
    out
}

/// The brokers, as seen by one who makes topics.
pub struct Admin {
    client: Arc<AdminClient<Context>>,
    config: ClientConfig,
}

impl Admin {
    /// Returns a client. Nothing is sent yet.
    ///
    /// # Errors
    /// If the settings cannot work.
    pub fn new(args: &KafkaArgs) -> Result<Admin, AdminError> {
        let config = client::client_config(args, "init-tables")?;
        let client = config
            .create_with_context(Context::new(&config))
            .map_err(|reason| AdminError::Kafka {
                what: "make a client".to_owned(),
                reason,
            })?;
        Ok(Admin {
            client: Arc::new(client),
            config,
        })
    }

    /// Returns the number of brokers, waiting for them for `timeout`, or less where they refuse.
    ///
    /// # Errors
    /// If none answers, or they let nobody in.
    pub async fn broker_count(&self, timeout: Duration) -> Result<usize, AdminError> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || reach(&config, timeout)).await?
    }

    /// Gives the client a token if its login takes one: nobody serves this client's callbacks.
    async fn log_in(&self) -> Result<(), AdminError> {
        let client = Arc::clone(&self.client);
        let logged_in = tokio::task::spawn_blocking(move || {
            let client = client.inner();
            match client.context().chatter().token().transpose()? {
                None => Ok(()),
                Some(token) => sys::set_token(client, &token.text, token.end_ms)
                    .map_err(|reason| IamError::Sign { reason }.into()),
            }
        });
        logged_in.await?
    }

    /// Asks something that blocks, about what has this name.
    async fn ask<T: Send + 'static>(
        &self,
        name: &str,
        question: impl FnOnce(&Client<Context>, &str) -> T + Send + 'static,
    ) -> Result<T, AdminError> {
        self.log_in().await?;
        let (client, name) = (Arc::clone(&self.client), name.to_owned());
        Ok(tokio::task::spawn_blocking(move || question(client.inner(), &name)).await?)
    }

    /// Returns what this client may do with a consumer group, which need not exist.
    ///
    /// # Errors
    /// If no token to log in with can be had.
    pub async fn group_rights(&self, name: &str) -> Result<Rights, AdminError> {
        self.ask(name, |client, name| {
            sys::group_rights(client, name, REQUEST_TIMEOUT)
        })
        .await
    }

    /// Returns a topic's id and partition count; `None` if there is no such topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn topic(&self, name: &str) -> Result<Option<TopicFacts>, AdminError> {
        let facts = self.ask(name, |client, name| {
            sys::topic_facts(client, name, REQUEST_TIMEOUT)
        });
        Ok(facts.await??)
    }

    /// Returns the same, and what this client may do with the topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn topic_and_rights(
        &self,
        name: &str,
    ) -> Result<Option<(TopicFacts, Rights)>, AdminError> {
        let both = self.ask(name, |client, name| {
            sys::topic_facts_and_rights(client, name, REQUEST_TIMEOUT)
        });
        Ok(both.await??)
    }

    /// Makes a topic, without the settings that the brokers refuse.
    ///
    /// # Errors
    /// If the brokers refuse or do not answer.
    pub async fn create_topic(
        &self,
        spec: &TopicSpec,
        replication: i32,
    ) -> Result<Creation, AdminError> {
        self.create(spec, replication, &options()).await
    }

    /// Returns what [`Admin::create_topic`] would do, and changes nothing.
    ///
    /// # Errors
    /// If the brokers refuse or do not answer.
    pub async fn try_create_topic(
        &self,
        spec: &TopicSpec,
        replication: i32,
    ) -> Result<Creation, AdminError> {
        self.create(spec, replication, &options().validate_only(true))
            .await
    }

    /// Returns whether there is a broker that makes topics, such as this one.
    ///
    /// # Errors
    /// If no token to log in with can be had.
    pub async fn has_controller(&self, topic: &str) -> Result<bool, AdminError> {
        let brokers = self.ask(topic, |client, _| sys::brokers(client, REQUEST_TIMEOUT));
        Ok(brokers
            .await?
            .map_or(true, |brokers| brokers.has_controller))
    }

    /// Returns whether this client may make a topic, which is asked for and not made.
    ///
    /// # Errors
    /// If the brokers do not answer, have no controller, or would refuse for another reason.
    pub async fn may_create_topic(&self, spec: &TopicSpec) -> Result<bool, AdminError> {
        // Whoever asks for one that is not there waits for it.
        if !self.has_controller(&spec.name).await? {
            let topic = spec.name.clone();
            return Err(AdminError::NoController { topic });
        }
        match self.try_create_topic(spec, REPLICATION_BROKERS).await {
            Err(AdminError::Topic {
                code:
                    RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed,
                ..
            }) => Ok(false),
            other => other.map(|_| true),
        }
    }

    async fn create(
        &self,
        spec: &TopicSpec,
        replication: i32,
        options: &AdminOptions,
    ) -> Result<Creation, AdminError> {
        let refused = match self.create_with_all(spec, replication, options).await {
            Err(AdminError::Topic { what, code }) if is_about_settings(code) => {
                AdminError::Topic { what, code }
            }
            done => {
                let left_out = Vec::new();
                return done.map(|made| Creation { made, left_out });
            }
        };
        let (left_out, reduced) = spec.reduced();
        if left_out.is_empty() {
            return Err(refused);
        }
        let made = self.create_with_all(&reduced, replication, options).await?;
        Ok(Creation { made, left_out })
    }

    async fn create_with_all(
        &self,
        spec: &TopicSpec,
        replication: i32,
        options: &AdminOptions,
    ) -> Result<bool, AdminError> {
        self.log_in().await?;
        let what = || format!("create topic {}", spec.name);
        let replicas = TopicReplication::Fixed(replication);
        let mut topic = NewTopic::new(&spec.name, spec.partitions, replicas);
        for (name, value) in &spec.config {
            topic = topic.set(name, value);
        }
        let results = self
            .client
            .create_topics([&topic], options)
            .await
            .map_err(|reason| AdminError::Kafka {
                what: what(),
                reason,
            })?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(AdminError::Topic { what: what(), code }),
            Some(Ok(_)) | None => Ok(true),
        }
    }

    /// Returns a topic's settings by name.
    ///
    /// # Errors
    /// If the brokers refuse, do not answer, or do not tell settings.
    pub async fn topic_config(&self, name: &str) -> Result<BTreeMap<String, String>, AdminError> {
        // Every broker knows them, and librdkafka would ask the controller.
        let brokers = self.ask(name, |client, _| sys::brokers(client, REQUEST_TIMEOUT));
        let asked = options().broker_id(brokers.await?.ok().map(|brokers| brokers.answering));
        let what = || format!("describe the settings of topic {name}");
        let results = self
            .client
            .describe_configs([&ResourceSpecifier::Topic(name)], &asked)
            .await
            .map_err(|reason| match reason {
                KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature) => AdminError::Untold {
                    what: format!("the settings of topic {name}"),
                },
                reason => AdminError::Kafka {
                    what: what(),
                    reason,
                },
            })?;
        let mut out = BTreeMap::new();
        for result in results {
            let resource = result.map_err(|code| AdminError::Topic { what: what(), code })?;
            for entry in resource.entries {
                if let Some(value) = entry.value {
                    out.insert(entry.name, value);
                }
            }
        }
        Ok(out)
    }

    /// Deletes a topic; returns `false` if there was none.
    ///
    /// # Errors
    /// If the brokers refuse or do not answer.
    pub async fn delete_topic(&self, name: &str) -> Result<bool, AdminError> {
        self.log_in().await?;
        let what = || format!("delete topic {name}");
        let results = self
            .client
            .delete_topics(&[name], &options())
            .await
            .map_err(|reason| AdminError::Kafka {
                what: what(),
                reason,
            })?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => Ok(false),
            Some(Err((_, code))) => Err(AdminError::Topic { what: what(), code }),
            Some(Ok(_)) | None => Ok(true),
        }
    }

    /// Returns the members of a consumer group, which need not exist.
    ///
    /// # Errors
    /// If the brokers refuse or do not answer.
    pub async fn group_members(&self, group: &str) -> Result<Members, AdminError> {
        let members = self.ask(group, |client, group| {
            sys::group_members(client, group, REQUEST_TIMEOUT)
        });
        members.await?.map_err(|error| match error {
            MembersError::Unsupported => AdminError::Untold {
                what: format!("the members of group {group}"),
            },
            MembersError::Failed(reason) => AdminError::Members {
                group: group.to_owned(),
                reason,
            },
        })
    }
}

/// Returns whether brokers answer so to a setting that they do not let a topic have.
fn is_about_settings(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::InvalidRequest
    )
}

/// Asks for the brokers until some answer, and returns how many there are. Over a client of its own,
/// one whose callbacks are served: those say why nobody answers, and bring the login's token.
fn reach(config: &ClientConfig, timeout: Duration) -> Result<usize, AdminError> {
    let failed = |reason| AdminError::Kafka {
        what: "reach any broker".to_owned(),
        reason,
    };
    let context = Context::new(config);
    let chatter = context.chatter().clone();
    let client: BaseConsumer<Context> = config.create_with_context(context).map_err(failed)?;
    let begin = Instant::now();
    loop {
        while client.poll(EXCUSE_WAIT).is_some() {}
        // All topics of the cluster come along; this is asked once.
        let reason = match client.fetch_metadata(None, REACH_TIMEOUT) {
            Ok(metadata) => return Ok(metadata.brokers().len()),
            Err(reason) => reason,
        };
        if let Some(refusal) = chatter.hopeless() {
            return Err(AdminError::Refused(refusal));
        }
        if begin.elapsed() >= timeout {
            return Err(failed(reason));
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT + OPERATION_TIMEOUT))
        .operation_timeout(Some(OPERATION_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_msk_serverless_refuses_are_left_out_and_named() {
        let spec = TopicSpec::events("city-events", 6, 3);
        let (left_out, reduced) = spec.reduced();
        let refused = ["unclean.leader.election.enable", "min.insync.replicas"];
        assert_eq!(left_out, refused);
        let names: Vec<&str> = reduced.config.iter().map(|(name, _)| *name).collect();
        let kept = ["cleanup.policy", "retention.ms", "message.timestamp.type"];
        assert_eq!(names, kept);
        let creation = Creation {
            made: true,
            left_out,
        };
        let note = creation.note().unwrap();
        assert!(refused.iter().all(|name| note.contains(name)), "{note}");
        assert_eq!(Creation::default().note(), None);
        assert!(reduced.reduced().0.is_empty());
    }

    #[test]
    fn topics_are_the_contracts() {
        let events = TopicSpec::events("city-events", 6, 3);
        assert_eq!(
            events.config,
            [
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", "86400000".to_owned()),
                ("unclean.leader.election.enable", "false".to_owned()),
                ("min.insync.replicas", "2".to_owned()),
                ("message.timestamp.type", "LogAppendTime".to_owned()),
            ]
        );
        let dlq = TopicSpec::dead_letters("city-events-dlq", 1);
        assert_eq!(dlq.partitions, 1);
        assert_eq!(
            dlq.config,
            [
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", "1209600000".to_owned()),
                ("unclean.leader.election.enable", "false".to_owned()),
                ("max.message.bytes", "2097152".to_owned()),
            ]
        );
    }

    #[test]
    fn differences_name_what_is_and_what_should_be() {
        let spec = TopicSpec::events("city-events", 6, 1);
        let mut actual: BTreeMap<String, String> = spec
            .config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        assert!(differences(&spec, 6, &actual).is_empty());
        actual.insert("message.timestamp.type".into(), "CreateTime".into());
        actual.remove("cleanup.policy");
        assert_eq!(
            differences(&spec, 12, &actual),
            [
                "has 12 partitions instead of 6",
                "has message.timestamp.type=CreateTime instead of LogAppendTime"
            ]
        );
    }
}
