//! Logs the source and the expiry time of the AWS credentials at the start of a subcommand.
//!
//! A separate task writes the log line, so no request has to wait for it. If the source of the credentials does not
//! answer at the start, the SDK contacts it again for the first request. The log never contains a secret or a key id.

use std::time::UNIX_EPOCH;

use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials as _, SharedCredentialsProvider};

use crate::core::clock::UnixMs;
use crate::core::time::format_seconds;

/// Starts a task that gets the credentials from `provider` and logs their source.
pub(super) fn log_source(provider: SharedCredentialsProvider) {
    tokio::spawn(async move {
        match provider.provide_credentials().await {
            Ok(credentials) => {
                let source = source_name(&credentials);
                match expiry(&credentials) {
                    Some(expires) => tracing::info!(source, expires, "credentials found"),
                    None => tracing::info!(source, expires = "never", "credentials found"),
                }
            }
            Err(error) => {
                let error = crate::failure::chain(&error);
                tracing::warn!(error, "no credentials yet; requests wait for them");
            }
        }
    });
}

fn expiry(credentials: &Credentials) -> Option<String> {
    let since = credentials.expiry()?.duration_since(UNIX_EPOCH).ok()?;
    let ms = i64::try_from(since.as_millis()).ok()?;
    Some(format_seconds(UnixMs(ms)))
}

/// Returns the name of the source of the credentials. The SDK stores the source in a property of the credentials, for
/// AWS's usage statistics.
fn source_name(credentials: &Credentials) -> &'static str {
    let notes = credentials.get_property::<Vec<Feature>>();
    // The last entry of `notes` is the source that returned the credentials. For example, `notes` has several entries
    // if the SDK has assumed an IAM role with a key from a profile.
    match notes.and_then(|notes| notes.last()) {
        Some(Feature::CredentialsEnvVars) => "environment variables",
        Some(Feature::CredentialsProfile | Feature::CredentialsProfileSourceProfile) => "profile",
        Some(Feature::CredentialsProcess) => "process of a profile",
        Some(Feature::CredentialsImds) => "instance role",
        Some(Feature::CredentialsHttp) => "container role",
        Some(Feature::CredentialsStsAssumeRole) => "assumed role",
        Some(Feature::CredentialsStsAssumeRoleWebId) => "web identity",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_source_and_the_expiry_of_credentials_are_known() {
        let expires = UNIX_EPOCH + Duration::from_secs(1_357_020_000);
        let mut credentials = Credentials::new("id", "secret", None, Some(expires), "test");
        assert_eq!(source_name(&credentials), "other");
        credentials
            .get_property_mut_or_default::<Vec<Feature>>()
            .push(Feature::CredentialsImds);
        assert_eq!(source_name(&credentials), "instance role");
        assert_eq!(
            expiry(&credentials).as_deref(),
            Some("2013-01-01T06:00:00Z")
        );
        let lasting = Credentials::new("id", "secret", None, None, "test");
        assert_eq!(expiry(&lasting), None);
    }
}
