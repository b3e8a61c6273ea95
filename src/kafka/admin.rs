//! Administrative requests: creates, describes and deletes topics, and asks for rights and group members.
//!
//! An existing topic is never changed. Its partition count decides which partition a record goes to, and its
//! settings may be the operator's choice. [`differences`](crate::kafka::topic_spec::differences) reports what
//! differs from the topic that `init-tables` would create.
//!
//! Every call ends within its timeout. Blocking calls of librdkafka run on Tokio's threads for blocking work.

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

/// Longest wait for the answer to one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the brokers may take for a change.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// The replication factor that asks for the brokers' default.
const REPLICATION_BROKERS: i32 = -1;
/// Timeout of one attempt to reach a broker.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the client's report about a failed attempt.
const REPORT_WAIT: Duration = Duration::from_millis(50);

/// Why an administrative request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The settings cannot work.
    #[error(transparent)]
    Settings(#[from] ClientConfigError),
    /// The brokers refuse every client with these settings.
    #[error("{0}")]
    Refused(Refusal),
    /// There is no token for the login.
    #[error("failed to log in to Kafka with AWS credentials")]
    Login(#[from] IamError),
    /// Kafka did not answer, or refused.
    // `reason` is not the error's source, because its text already includes its own source.
    #[error("failed to {what}: {reason}")]
    Kafka {
        /// The request.
        what: String,
        /// librdkafka's error.
        reason: KafkaError,
    },
    /// The brokers refused to create or delete a topic.
    #[error("failed to {what}: {code}")]
    Topic {
        /// The request.
        what: String,
        /// The brokers' code.
        code: RDKafkaErrorCode,
    },
    /// These brokers do not support the request. Some services implement only part of Kafka's protocol.
    #[error("these brokers do not report {what}")]
    Unsupported {
        /// What was requested.
        what: String,
    },
    /// The members of a group cannot be listed.
    #[error("failed to list the members of group {group}: {reason}")]
    Members {
        /// The group.
        group: String,
        /// The brokers' message.
        reason: String,
    },
    /// No broker is the controller, which creates topics.
    #[error("these brokers have no controller to create topic {topic}")]
    NoController {
        /// The topic to create.
        topic: String,
    },
    /// A topic could not be described.
    #[error(transparent)]
    Describe(#[from] TopicError),
    /// A thread for blocking work panicked.
    #[error("failed to wait for a thread")]
    Thread(#[from] tokio::task::JoinError),
}

/// A client for administrative requests.
pub struct Admin {
    client: Arc<AdminClient<Context>>,
    config: ClientConfig,
}

impl Admin {
    /// Returns a client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the settings cannot work.
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

    /// Returns the number of brokers. Waits for them until `timeout`, or shorter if they refuse the client.
    ///
    /// # Errors
    /// When no broker answers, or the brokers refuse every client with these settings.
    pub async fn broker_count(&self, timeout: Duration) -> Result<usize, AdminError> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || reach(&config, timeout)).await?
    }

    /// Gives the client a token if its login needs one. Nothing polls this client, so librdkafka cannot request
    /// the token by a callback.
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

    /// Sends a blocking request about the topic or group with this name.
    async fn request<T: Send + 'static>(
        &self,
        name: &str,
        call: impl FnOnce(&Client<Context>, &str) -> T + Send + 'static,
    ) -> Result<T, AdminError> {
        self.log_in().await?;
        let (client, name) = (Arc::clone(&self.client), name.to_owned());
        Ok(tokio::task::spawn_blocking(move || call(client.inner(), &name)).await?)
    }

    /// Returns this client's rights on a consumer group. The group need not exist.
    ///
    /// # Errors
    /// When there is no token for the login.
    pub async fn group_rights(&self, name: &str) -> Result<Rights, AdminError> {
        self.request(name, |client, name| {
            sys::group_rights(client, name, REQUEST_TIMEOUT)
        })
        .await
    }

    /// Returns a topic's id and partition count; `None` if the topic does not exist.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn topic(&self, name: &str) -> Result<Option<TopicFacts>, AdminError> {
        let facts = self.request(name, |client, name| {
            sys::topic_facts(client, name, REQUEST_TIMEOUT)
        });
        Ok(facts.await??)
    }

    /// Returns the same, and this client's rights on the topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn topic_and_rights(
        &self,
        name: &str,
    ) -> Result<Option<(TopicFacts, Rights)>, AdminError> {
        let both = self.request(name, |client, name| {
            sys::topic_facts_and_rights(client, name, REQUEST_TIMEOUT)
        });
        Ok(both.await??)
    }

    /// Creates a topic, without the settings that the brokers refuse.
    ///
    /// # Errors
    /// When the brokers refuse or do not answer.
    pub async fn create_topic(
        &self,
        spec: &TopicSpec,
        replication: i32,
    ) -> Result<Creation, AdminError> {
        self.create(spec, replication, &options()).await
    }

    /// Returns what [`Admin::create_topic`] would do, without a change.
    ///
    /// # Errors
    /// When the brokers refuse or do not answer.
    pub async fn try_create_topic(
        &self,
        spec: &TopicSpec,
        replication: i32,
    ) -> Result<Creation, AdminError> {
        self.create(spec, replication, &options().validate_only(true))
            .await
    }

    /// Returns whether a broker is the controller, which would create `topic`.
    ///
    /// # Errors
    /// When there is no token for the login.
    pub async fn has_controller(&self, topic: &str) -> Result<bool, AdminError> {
        let brokers = self.request(topic, |client, _| sys::brokers(client, REQUEST_TIMEOUT));
        Ok(brokers
            .await?
            .map_or(true, |brokers| brokers.has_controller))
    }

    /// Returns whether this client may create a topic, without creating it.
    ///
    /// # Errors
    /// When the brokers do not answer, have no controller, or would refuse for another reason.
    pub async fn may_create_topic(&self, spec: &TopicSpec) -> Result<bool, AdminError> {
        // librdkafka sends the request to the controller and would wait for one until the timeout.
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

    /// Returns a topic's settings by name.
    ///
    /// # Errors
    /// When the brokers refuse, do not answer, or do not report settings.
    pub async fn topic_config(&self, name: &str) -> Result<BTreeMap<String, String>, AdminError> {
        // Any broker can answer, so ask the one that answers now. librdkafka would ask the controller.
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

    /// Deletes a topic. Returns `false` if it did not exist.
    ///
    /// # Errors
    /// When the brokers refuse or do not answer.
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

    /// Returns the members of a consumer group. The group need not exist.
    ///
    /// # Errors
    /// When the brokers refuse or do not answer.
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

/// Returns whether brokers answer with this code to a setting that they do not allow for topics.
fn is_about_settings(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::InvalidRequest
    )
}

/// Asks for the list of brokers until one answers, and returns their number.
///
/// Uses a separate client that is polled, because callbacks provide the login's token and report why no broker
/// answers.
fn reach(config: &ClientConfig, timeout: Duration) -> Result<usize, AdminError> {
    let context = Context::new(config);
    let errors = context.errors().clone();
    let client: BaseConsumer<Context> = config
        .create_with_context(context)
        .map_err(failed("create a Kafka client"))?;
    let begin = Instant::now();
    loop {
        while client.poll(REPORT_WAIT).is_some() {}
        // The answer lists all topics of the cluster, which is large but requested only once.
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
