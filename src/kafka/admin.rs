//! Sends administrative requests. These requests create, describe and delete topics, and read the client's rights and
//! the members of consumer groups.
//!
//! This module never changes an existing topic, because the operator may have chosen its settings on purpose. A change
//! of the partition count would also move keys to other partitions.
//! [`differences`](crate::kafka::topic_spec::differences) reports the differences between a topic and the topic that
//! `init-tables` would create.
//!
//! Every call ends within its timeout. Blocking calls of librdkafka run on Tokio's threads for blocking tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::client::{self, ClientConfigError};
use crate::kafka::context::Context;
use crate::kafka::iam::IamError;
use crate::kafka::refusal::Refusal;
use crate::kafka::topic_spec::{Creation, TopicSpec};
use crate::settings::KafkaArgs;
use crate::sys::{self, Members, MembersError, Rights, TopicError, TopicFacts};

/// Maximum wait for the answer to one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the brokers to carry out a change, such as creating a topic.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// The replication factor that stands for the default of the brokers.
const REPLICATION_BROKERS: i32 = -1;
/// Timeout of one attempt to reach a broker.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum wait until the Kafka client reports why an attempt to reach a broker has failed.
const REPORT_WAIT: Duration = Duration::from_millis(50);

/// The reason why an administrative request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The settings of the Kafka client are invalid.
    #[error(transparent)]
    Settings(#[from] ClientConfigError),
    /// The brokers refuse every client with the given settings.
    #[error("{0}")]
    Refused(Refusal),
    /// The client could not get a token for the login.
    #[error("failed to log in to Kafka with AWS credentials")]
    Login(#[from] IamError),
    /// Kafka did not answer the request, or refused it.
    // The text of `reason` already includes its own source, so `reason` is not declared as the source of this error.
    #[error("failed to {what}: {reason}")]
    Kafka {
        /// The action that the request should carry out.
        what: String,
        /// The error from librdkafka.
        reason: KafkaError,
    },
    /// The brokers refused to create or delete a topic.
    #[error("failed to {what}: {code}")]
    Topic {
        /// The action that the request should carry out.
        what: String,
        /// The error code that the brokers returned.
        code: RDKafkaErrorCode,
    },
    /// The brokers do not support the request, because some Kafka-compatible services implement only part of Kafka's
    /// protocol.
    #[error("these brokers do not report {what}")]
    Unsupported {
        /// The kind of information that the brokers do not report.
        what: String,
    },
    /// The brokers did not list the members of a consumer group.
    #[error("failed to list the members of group {group}: {reason}")]
    Members {
        /// The name of the consumer group.
        group: String,
        /// The message that the brokers returned.
        reason: String,
    },
    /// The cluster has no controller, and only a controller creates topics.
    #[error("these brokers have no controller to create topic {topic}")]
    NoController {
        /// The name of the topic to create.
        topic: String,
    },
    /// The request for the id and the partition count of a topic has failed.
    #[error(transparent)]
    Describe(#[from] TopicError),
    /// A thread for blocking calls panicked.
    #[error("a background task failed")]
    Thread(#[from] tokio::task::JoinError),
}

/// A client that sends administrative requests.
pub struct Admin {
    client: Arc<AdminClient<Context>>,
    config: ClientConfig,
}

impl Admin {
    /// Returns a client for administrative requests. The function sends no request.
    ///
    /// # Errors
    /// Returns an error if the settings of the Kafka client are invalid.
    pub fn new(args: &KafkaArgs) -> Result<Admin, AdminError> {
        let config = client::client_config(args, "init-tables")?;
        let client = config
            .create_with_context(Context::new(&config))
            .map_err(failed("create a Kafka client"))?;
        Ok(Admin {
            client: Arc::new(client),
            config,
        })
    }

    /// Returns the number of brokers. The function waits for an answer for at most `timeout`. The wait ends earlier if
    /// the brokers refuse the client.
    ///
    /// # Errors
    /// Returns an error if no broker answers, or if the brokers refuse every client with these settings.
    pub async fn broker_count(&self, timeout: Duration) -> Result<usize, AdminError> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || reach(&config, timeout)).await?
    }

    /// Passes a login token to the Kafka client, if the login method requires a token. A callback cannot provide this
    /// token, because callbacks run only during a poll, and nothing polls this client.
    async fn log_in(&self) -> Result<(), AdminError> {
        let client = Arc::clone(&self.client);
        let logged_in = tokio::task::spawn_blocking(move || {
            let client = client.inner();
            match client.context().errors().token().transpose()? {
                None => Ok(()),
                Some(token) => sys::set_token(client, &token.text, token.end_ms)
                    .map_err(|reason| IamError::Sign { reason }.into()),
            }
        });
        logged_in.await?
    }

    /// Logs in if necessary, and sends a blocking request about the topic or the consumer group `name`.
    async fn request<T: Send + 'static>(
        &self,
        name: &str,
        call: impl FnOnce(&Client<Context>, &str) -> T + Send + 'static,
    ) -> Result<T, AdminError> {
        self.log_in().await?;
        let (client, name) = (Arc::clone(&self.client), name.to_owned());
        Ok(tokio::task::spawn_blocking(move || call(client.inner(), &name)).await?)
    }

    /// Returns this client's rights on a consumer group. The group does not have to exist.
    ///
    /// # Errors
    /// Returns an error if the client has no token for the login.
    pub async fn group_rights(&self, name: &str) -> Result<Rights, AdminError> {
        self.request(name, |client, name| {
            sys::group_rights(client, name, REQUEST_TIMEOUT)
        })
        .await
    }

    /// Returns the id and the partition count of a topic, or `None` if the topic does not exist.
    ///
    /// # Errors
    /// For the possible errors, see [`TopicError`].
    pub async fn topic(&self, name: &str) -> Result<Option<TopicFacts>, AdminError> {
        let facts = self.request(name, |client, name| {
            sys::topic_facts(client, name, REQUEST_TIMEOUT)
        });
        Ok(facts.await??)
    }

    /// Returns the id and the partition count of a topic, and this client's rights on the topic.
    ///
    /// # Errors
    /// For the possible errors, see [`TopicError`].
    pub async fn topic_and_rights(
        &self,
        name: &str,
    ) -> Result<Option<(TopicFacts, Rights)>, AdminError> {
        let both = self.request(name, |client, name| {
            sys::topic_facts_and_rights(client, name, REQUEST_TIMEOUT)
        });
        Ok(both.await??)
    }

    /// Creates a topic. If the brokers refuse some of its settings, the function creates the topic without them.
    ///
    /// # Errors
    /// Returns an error if the brokers refuse to create the topic or do not answer.
    pub async fn create_topic(
        &self,
        spec: &TopicSpec,
        replication: i32,
    ) -> Result<Creation, AdminError> {
        self.create(spec, replication, &options()).await
    }

    /// Returns the same result as [`Admin::create_topic`], but creates no topic.
    ///
    /// # Errors
    /// Returns an error if the brokers refuse to create the topic or do not answer.
    pub async fn try_create_topic(
        &self,
        spec: &TopicSpec,
        replication: i32,
    ) -> Result<Creation, AdminError> {
        self.create(spec, replication, &options().validate_only(true))
            .await
    }

    /// Returns true if the cluster has a controller. The controller is the broker that creates topics.
    ///
    /// # Errors
    /// Returns an error if the client has no token for the login.
    pub async fn has_controller(&self, topic: &str) -> Result<bool, AdminError> {
        let brokers = self.request(topic, |client, _| sys::brokers(client, REQUEST_TIMEOUT));
        Ok(brokers
            .await?
            .map_or(true, |brokers| brokers.has_controller))
    }

    /// Returns true if the brokers allow this client to create the topic. The method does not create the topic.
    ///
    /// # Errors
    /// Returns an error if the brokers do not answer, have no controller, or would refuse the topic for another reason.
    pub async fn may_create_topic(&self, spec: &TopicSpec) -> Result<bool, AdminError> {
        // librdkafka sends the request to the controller. Without a controller, it would wait for the whole timeout.
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
            .map_err(failed(what()))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(AdminError::Topic { what: what(), code }),
            Some(Ok(_)) | None => Ok(true),
        }
    }

    /// Returns the settings of a topic as a map from names to values.
    ///
    /// # Errors
    /// Returns an error if the brokers refuse the request, do not answer, or do not report settings.
    pub async fn topic_config(&self, name: &str) -> Result<BTreeMap<String, String>, AdminError> {
        // Every broker can describe the settings of a topic, so the request goes to a broker that currently answers. By
        // default, librdkafka sends the request to the controller, which may be unavailable.
        let brokers = self.request(name, |client, _| sys::brokers(client, REQUEST_TIMEOUT));
        let asked = options().broker_id(brokers.await?.ok().map(|brokers| brokers.answering));
        let what = || format!("describe the settings of topic {name}");
        let results = self
            .client
            .describe_configs([&ResourceSpecifier::Topic(name)], &asked)
            .await
            .map_err(|reason| match reason {
                KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature) => {
                    AdminError::Unsupported {
                        what: format!("the settings of topic {name}"),
                    }
                }
                reason => failed(what())(reason),
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

    /// Deletes a topic. Returns `false` if the topic did not exist.
    ///
    /// # Errors
    /// Returns an error if the brokers refuse the request or do not answer.
    pub async fn delete_topic(&self, name: &str) -> Result<bool, AdminError> {
        self.log_in().await?;
        let what = || format!("delete topic {name}");
        let results = self
            .client
            .delete_topics(&[name], &options())
            .await
            .map_err(failed(what()))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => Ok(false),
            Some(Err((_, code))) => Err(AdminError::Topic { what: what(), code }),
            Some(Ok(_)) | None => Ok(true),
        }
    }

    /// Returns the members of a consumer group. The group does not have to exist.
    ///
    /// # Errors
    /// Returns an error if the brokers refuse the request or do not answer.
    pub async fn group_members(&self, group: &str) -> Result<Members, AdminError> {
        let members = self.request(group, |client, group| {
            sys::group_members(client, group, REQUEST_TIMEOUT)
        });
        members.await?.map_err(|error| match error {
            MembersError::Unsupported => AdminError::Unsupported {
                what: format!("the members of group {group}"),
            },
            MembersError::Failed(reason) => AdminError::Members {
                group: group.to_owned(),
                reason,
            },
        })
    }
}

/// Returns true if the error code means that the brokers do not allow one of the requested topic settings.
fn is_about_settings(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::InvalidRequest
    )
}

/// Requests the list of brokers until a broker answers, and returns the number of brokers.
///
/// The function polls a separate Kafka client. The callbacks of this client provide the login token, and report why no
/// broker answers.
fn reach(config: &ClientConfig, timeout: Duration) -> Result<usize, AdminError> {
    let context = Context::new(config);
    let errors = context.errors().clone();
    let client: BaseConsumer<Context> = config
        .create_with_context(context)
        .map_err(failed("create a Kafka client"))?;
    let begin = Instant::now();
    loop {
        while client.poll(REPORT_WAIT).is_some() {}
        // The metadata lists all topics of the cluster and can be large, so the loop ends with the first answer.
        let reason = match client.fetch_metadata(None, REACH_TIMEOUT) {
            Ok(metadata) => return Ok(metadata.brokers().len()),
            Err(reason) => reason,
        };
        if let Some(refusal) = errors.lasting_refusal() {
            return Err(AdminError::Refused(refusal));
        }
        if begin.elapsed() >= timeout {
            return Err(failed("reach any broker")(reason));
        }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(KafkaError) -> AdminError {
    let what = what.into();
    |reason| AdminError::Kafka { what, reason }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT + OPERATION_TIMEOUT))
        .operation_timeout(Some(OPERATION_TIMEOUT))
}
