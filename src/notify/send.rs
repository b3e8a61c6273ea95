//! Sends messages to receivers over HTTP.
//!
//! [`Receiver::send`] makes a single attempt to send a message, and reports what the caller must do next.
//!
//! | answer | resulting [`DeliveryResult`] |
//! |---|---|
//! | 2xx | `Taken`, regardless of the body |
//! | no answer within [`ANSWER_WAIT`], or the connection fails | `Again` |
//! | 408, 425, 429, 5xx | `Again`, after the time in `Retry-After` |
//! | SNS reports throttling or expired credentials | `Again` |
//! | a secret cannot be read, or the address is private | `Again`, because a person can fix the cause |
//! | 301, 302, 307, 308 to the same host | repeats the request there, at most [`REDIRECTS_MAX`] times |
//! | every other answer | `Refused` |

pub mod addresses;
mod client;
mod credentials;
mod route;
#[cfg(test)]
mod tests;
mod tls;

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use url::Url;

use crate::core::clock::UnixMs;
use crate::core::incident::message::Message;
use crate::failure::Failure;
use crate::notify::config::{Location, ReceiverConfig, Target};
use crate::notify::receiver::{Request, alertmanager, ntfy, pagerduty, slack, sns, webhook};

use client::{HttpClient, HttpResponse};
use credentials::CredentialSource;

pub use client::{ANSWER_BYTES_MAX, ANSWER_WAIT, REDIRECTS_MAX};

/// Maximum pause that the sender accepts from a `Retry-After` header.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Maximum number of characters that the description of a failure quotes from a response.
const REASON_CHARS_MAX: usize = 200;
/// Error codes of SNS that arrive with a status 4xx, although a later attempt to send the message may succeed.
const SNS_AGAIN: [&str; 4] = [
    "ExpiredToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "Throttl",
];

/// The result of an attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// The receiver has accepted the message.
    Taken,
    /// The message must be sent again. The receiver may already have received the message.
    Again {
        /// The pause that the receiver requested.
        after: Option<Duration>,
        /// The reason why the message was not delivered. The text contains no secrets.
        why: String,
    },
    /// The receiver will never accept the message.
    Refused {
        /// The reason why the message was not delivered. The text contains no secrets.
        why: String,
    },
}

impl DeliveryResult {
    fn again(why: impl Into<String>) -> DeliveryResult {
        DeliveryResult::Again {
            after: None,
            why: why.into(),
        }
    }
}

/// Sends messages to one receiver.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    client: HttpClient,
    /// The AWS credentials, if the receiver is an SNS topic.
    credentials: Option<CredentialSource>,
    /// The URL of SNS, if the receiver is an SNS topic.
    endpoint: Option<Url>,
}

impl Receiver {
    /// Prepares the connection settings for a receiver without sending anything.
    ///
    /// # Errors
    /// Returns a failure if `ca_file` holds no certificate, or if the AWS settings of SNS cannot be used.
    pub async fn new(config: ReceiverConfig) -> Result<Receiver, Failure> {
        let name = &config.name;
        let failed = |failure: Failure| Failure {
            what: format!("receiver {name} cannot be used: {}", failure.what),
            ..failure
        };
        let tls = tls::client_config(config.ca_file.as_deref()).map_err(failed)?;
        let (credentials, endpoint) = match &config.target {
            Target::Sns { topic } => {
                let source = CredentialSource::load(&topic.region).await;
                let endpoint = credentials::sns_endpoint(topic);
                (
                    Some(source.map_err(failed)?),
                    Some(endpoint.map_err(failed)?),
                )
            }
            _ => (None, None),
        };
        Ok(Receiver {
            client: HttpClient::new(tls, config.allow_private),
            config,
            credentials,
            endpoint,
        })
    }

    /// Returns the configuration of the receiver.
    pub fn config(&self) -> &ReceiverConfig {
        &self.config
    }

    /// Sends a message. The call takes at most slightly longer than [`ANSWER_WAIT`].
    pub async fn send(&self, message: &Message<'_>) -> DeliveryResult {
        let request = match self.request(message, now_ms()).await {
            Ok(request) => request,
            Err(why) => return DeliveryResult::again(why),
        };
        match self.client.post(request).await {
            Ok(answer) => judge(&answer, self.credentials.is_some(), SystemTime::now()),
            Err(delivery) => delivery,
        }
    }

    /// Reads the secrets and returns the request for a message.
    async fn request(&self, message: &Message<'_>, now_ms: UnixMs) -> Result<Request, String> {
        let allow_http = self.config.allow_private;
        let url = |location: &Location| match location {
            Location::Given(url) => Ok(url.clone()),
            Location::File(file) => file.url(allow_http),
        };
        Ok(match &self.config.target {
            Target::Webhook {
                url: at,
                secret,
                token,
            } => {
                let keys = secret.as_ref().map(|file| file.signing_keys());
                let keys = keys.transpose()?.unwrap_or_default();
                let token = token.as_ref().map(|file| file.line()).transpose()?;
                webhook::request(url(at)?, &keys, token.as_deref(), message, now_ms)
            }
            Target::Slack { url } => slack::request(url.url(allow_http)?, message),
            Target::PagerDuty { url, routing_key } => {
                pagerduty::request(url.clone(), &routing_key.line()?, message)
            }
            Target::Ntfy {
                url: at,
                topic,
                token,
            } => {
                let token = token.as_ref().map(|file| file.line()).transpose()?;
                ntfy::request(url(at)?, topic, token.as_deref(), message)
            }
            Target::Alertmanager { url: at, token } => {
                let token = token.as_ref().map(|file| file.line()).transpose()?;
                let repeat_ms = self.config.timing.repeat_ms;
                alertmanager::request(&url(at)?, token.as_deref(), repeat_ms, message, now_ms)
            }
            Target::Sns { topic } => {
                let (Some(source), Some(endpoint)) = (&self.credentials, &self.endpoint) else {
                    return Err("the receiver has no AWS credentials".to_owned());
                };
                let credentials = source.credentials().await?;
                sns::request(endpoint.clone(), topic, &credentials, message, now_ms)
                    .map_err(|error| format!("failed to sign: {error}"))?
            }
        })
    }
}

fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    UnixMs(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Decides from the receiver's response whether the message was delivered.
fn judge(answer: &HttpResponse, is_sns: bool, now: SystemTime) -> DeliveryResult {
    let status = answer.status;
    if status.is_success() {
        return DeliveryResult::Taken;
    }
    let why = reason(answer);
    let again = match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => true,
        _ if status.is_server_error() => true,
        _ => is_sns && SNS_AGAIN.iter().any(|code| answer.text.contains(code)),
    };
    if again {
        let after = retry_after(&answer.headers, now);
        DeliveryResult::Again { after, why }
    } else {
        DeliveryResult::Refused { why }
    }
}

/// Returns the status and the beginning of the response body as one line of text.
fn reason(answer: &HttpResponse) -> String {
    let status = answer.status;
    let text = answer.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(REASON_CHARS_MAX)
        .collect();
    let host = &answer.host;
    if text.is_empty() {
        format!("{host} answered {status}")
    } else {
        format!("{host} answered {status}: {text}")
    }
}

/// Returns the pause that a `Retry-After` header requests, in seconds or as a date, limited to [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        // A text of digits fails to parse only if the number is too large.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}
