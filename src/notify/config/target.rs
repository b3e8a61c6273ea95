//! The receivers of messages, as the rules file describes them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::core::incident::outbox::Timing;
use crate::notify::secret::SecretFile;

/// The configuration of one receiver of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// The unique name of the receiver.
    pub name: Arc<str>,
    /// The rules whose incidents are sent to the receiver, or `None` for all rules.
    pub rules: Option<BTreeSet<Arc<str>>>,
    /// The minimum time between two messages about an incident, and the time after which a message is repeated.
    pub timing: Timing,
    /// True if messages may go to private addresses and to this host.
    pub allow_private: bool,
    /// A PEM file with certificate authorities. The connection to the receiver trusts only the certificate authorities
    /// in `ca_file`. Without `ca_file`, the connection trusts the certificate authorities of the host.
    pub ca_file: Option<PathBuf>,
    /// The service that receives the messages.
    pub target: Target,
}

impl ReceiverConfig {
    /// Returns true if incidents of the rule are sent to the receiver.
    pub fn wants(&self, rule: &str) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.contains(rule))
    }
}

/// The service that receives the messages, with the settings for its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An HTTP server that accepts messages in the format of Standard Webhooks.
    Webhook {
        /// The URL of the HTTP server.
        url: Location,
        /// The file with the signing keys, or `None` if messages are not signed.
        secret: Option<SecretFile>,
        /// The file with a bearer token.
        token: Option<SecretFile>,
    },
    /// An incoming webhook of Slack.
    Slack {
        /// The file with the URL, which is a secret.
        url: SecretFile,
    },
    /// PagerDuty's Events API v2.
    PagerDuty {
        /// The URL to which PagerDuty accepts events.
        url: Url,
        /// The file with the integration key.
        routing_key: SecretFile,
    },
    /// A topic of Amazon SNS.
    Sns {
        /// The ARN of the SNS topic.
        topic: TopicArn,
    },
    /// A topic of ntfy.
    Ntfy {
        /// The root URL of the ntfy server.
        url: Location,
        /// The name of the ntfy topic.
        topic: String,
        /// The file with an access token.
        token: Option<SecretFile>,
    },
    /// Alertmanager's API v2.
    Alertmanager {
        /// The URL of the Alertmanager server, without `/api/v2/alerts`.
        url: Location,
        /// The file with a bearer token.
        token: Option<SecretFile>,
    },
}

impl Target {
    /// Returns the type of the receiver, as written in the rules file.
    pub fn kind(&self) -> &'static str {
        match self {
            Target::Webhook { .. } => "webhook",
            Target::Slack { .. } => "slack",
            Target::PagerDuty { .. } => "pagerduty",
            Target::Sns { .. } => "sns",
            Target::Ntfy { .. } => "ntfy",
            Target::Alertmanager { .. } => "alertmanager",
        }
    }
}

/// The location of a receiver's URL: the rules file, or a separate file if the URL is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The rules file contains the URL, which is not a secret.
    Given(Url),
    /// A separate file contains the URL, which is a secret.
    File(SecretFile),
}

/// The Amazon Resource Name (ARN) of an SNS topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicArn {
    /// The complete ARN.
    pub arn: String,
    /// The AWS Region of the topic.
    pub region: String,
    /// True if the topic is a FIFO topic, which keeps the order of messages and drops repeated messages.
    pub is_fifo: bool,
}

impl TopicArn {
    /// Parses `arn:<partition>:sns:<region>:<account>:<topic>`.
    pub fn parse(text: &str) -> Option<TopicArn> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, "sns", region, account, topic] = parts[..] else {
            return None;
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let stem = topic.strip_suffix(".fifo").unwrap_or(topic);
        let is_valid = partition.starts_with("aws")
            && [partition, region, stem]
                .iter()
                .all(|part| !part.is_empty() && part.chars().all(legal))
            && account.len() == 12
            && account.chars().all(|c| c.is_ascii_digit())
            && topic.len() <= 256;
        is_valid.then(|| TopicArn {
            arn: text.to_owned(),
            region: region.to_owned(),
            is_fifo: stem != topic,
        })
    }

    /// Returns the URL of the SNS endpoint in the topic's Region.
    pub fn endpoint(&self) -> String {
        let suffix = if self.arn.starts_with("arn:aws-cn:") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!("https://sns.{}.{suffix}/", self.region)
    }
}
