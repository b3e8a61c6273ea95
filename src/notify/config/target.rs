//! The receivers of messages, as the file of rules describes them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::core::incident::outbox::Timing;
use crate::notify::secret::SecretFile;

/// A receiver of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// The name, which is unique.
    pub name: Arc<str>,
    /// The rules whose incidents the receiver wants, or `None` for all.
    pub rules: Option<BTreeSet<Arc<str>>>,
    /// When the receiver wants messages.
    pub timing: Timing,
    /// True if the receiver may have an address that is private or of this host.
    pub allow_private: bool,
    /// A PEM file with the only certificate authorities that are trusted for the receiver. `None` stands for those of
    /// the host.
    pub ca_file: Option<PathBuf>,
    /// What receives the messages.
    pub target: Target,
}

impl ReceiverConfig {
    /// Returns true if the receiver wants the incidents of the rule.
    pub fn wants(&self, rule: &str) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.contains(rule))
    }
}

/// What receives messages, with everything that depends on its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An HTTP server that takes Standard Webhooks.
    Webhook {
        /// Where it listens.
        url: Location,
        /// The keys that sign, or `None` for messages without a signature.
        secret: Option<SecretFile>,
        /// A bearer token.
        token: Option<SecretFile>,
    },
    /// An incoming webhook of Slack.
    Slack {
        /// The URL, which is a secret.
        url: SecretFile,
    },
    /// PagerDuty's Events API v2.
    PagerDuty {
        /// Where PagerDuty takes events.
        url: Url,
        /// The integration key.
        routing_key: SecretFile,
    },
    /// A topic of Amazon SNS.
    Sns {
        /// The topic.
        topic: TopicArn,
    },
    /// A topic of ntfy.
    Ntfy {
        /// The root of the server.
        url: Location,
        /// The topic.
        topic: String,
        /// An access token.
        token: Option<SecretFile>,
    },
    /// Alertmanager's API v2.
    Alertmanager {
        /// The server, without `/api/v2/alerts`.
        url: Location,
        /// A bearer token.
        token: Option<SecretFile>,
    },
}

impl Target {
    /// Returns the type as the file names it.
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

/// A URL in the file of rules, or in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// The URL is not a secret.
    Given(Url),
    /// The URL is a secret.
    File(SecretFile),
}

/// The name of an SNS topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicArn {
    /// The whole name.
    pub arn: String,
    /// The Region.
    pub region: String,
    /// True if the topic keeps an order and drops repeated messages.
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

    /// Returns the address of SNS in the topic's Region.
    pub fn endpoint(&self) -> String {
        let suffix = if self.arn.starts_with("arn:aws-cn:") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!("https://sns.{}.{suffix}/", self.region)
    }
}
