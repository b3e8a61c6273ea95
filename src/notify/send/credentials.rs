//! The AWS credentials for SNS, and the URL of SNS.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use tokio::sync::Mutex;
use url::Url;

use crate::aws::{http_client, profile};
use crate::failure::{Failure, chain};
use crate::notify::config::TopicArn;
use crate::notify::secret::parse_url;

/// The environment variables that override the URL of SNS. The first environment variable that is set takes effect.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_SNS", "AWS_ENDPOINT_URL"];
/// Maximum wait for credentials.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(8);
/// Remaining lifetime at which new credentials replace the current credentials.
const CREDENTIALS_LEFT: Duration = Duration::from_secs(300);
/// Time after which credentials without an expiry time are requested again, because their file may have changed.
const CREDENTIALS_KEPT: Duration = Duration::from_secs(600);

/// Provides the AWS credentials that the AWS SDK finds.
#[derive(Debug)]
pub(super) struct CredentialSource {
    provider: SharedCredentialsProvider,
    last: Mutex<Option<(Credentials, SystemTime)>>,
}

impl CredentialSource {
    /// # Errors
    /// Returns a failure if the AWS profile cannot be used, or if the AWS SDK finds no credentials.
    pub(super) async fn load(region: &str) -> Result<CredentialSource, Failure> {
        if let Some(refusal) = profile::refusal().await {
            return Err(refusal);
        }
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(http_client())
            .profile_files(profile::files_with_session_name().await)
            .load()
            .await;
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| Failure::new("nothing provides AWS credentials"))?;
        Ok(CredentialSource {
            provider,
            last: Mutex::new(None),
        })
    }

    /// Returns AWS credentials. If new credentials cannot be obtained, the previous credentials are used until they
    /// expire.
    ///
    /// # Errors
    /// Returns the reason for the failure as one line of text.
    pub(super) async fn credentials(&self) -> Result<Credentials, String> {
        // The lock is held during the request, so that concurrent messages share one request for credentials.
        let mut last = self.last.lock().await;
        let now = SystemTime::now();
        if let Some((credentials, renew)) = &*last
            && now < *renew
        {
            return Ok(credentials.clone());
        }
        let asked = tokio::time::timeout(CREDENTIALS_WAIT, self.provider.provide_credentials());
        let error = match asked.await {
            Ok(Ok(fresh)) => {
                let renew = match fresh.expiry() {
                    Some(end) => end - CREDENTIALS_LEFT,
                    None => now + CREDENTIALS_KEPT,
                };
                *last = Some((fresh.clone(), renew));
                return Ok(fresh);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        match &*last {
            Some((old, _)) if old.expiry().is_none_or(|end| now < end) => Ok(old.clone()),
            _ => Err(format!("no AWS credentials: {error}")),
        }
    }
}

/// Returns the URL at which SNS accepts messages for the topic.
///
/// # Errors
/// Returns a failure if the environment variable that takes effect does not contain a URL.
pub(super) fn sns_endpoint(topic: &TopicArn) -> Result<Url, Failure> {
    let given = ENDPOINT_VARIABLES.into_iter().find_map(|name| {
        let text = std::env::var(name).ok()?;
        (!text.trim().is_empty()).then_some((name, text))
    });
    let (name, text) = given.unwrap_or_else(|| (ENDPOINT_VARIABLES[0], topic.endpoint()));
    parse_url(&text, true).map_err(|flaw| {
        Failure::new(format!("{name} holds a URL that {flaw}"))
            .with_remedy("set it to a URL such as http://127.0.0.1:4566, or unset it")
    })
}
