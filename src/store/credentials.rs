//! Says at the start where credentials come from and when they expire (E4).
//!
//! Nothing waits for it: a source that does not answer now is asked again by the SDK with the first
//! request, and writes wait meanwhile. Secrets and key ids are not shown.

use std::time::UNIX_EPOCH;

use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials as _, SharedCredentialsProvider};

use crate::core::time::format_seconds;

/// Logs, some time later, what `provider` gives.
pub(super) fn say(provider: SharedCredentialsProvider) {
    tokio::spawn(async move {
        match provider.provide_credentials().await {
            Ok(credentials) => {
                let source = source(&credentials);
                match expiry(&credentials) {
                    Some(expires) => tracing::info!(source, expires, "credentials found"),
                    None => tracing::info!(source, expires = "never", "credentials found"),
                }
            }
            Err(error) => {
                let error = crate::failure::chain(&error);
                tracing::warn!(error, "no credentials yet, requests wait for them");
            }
        }
    });
}

fn expiry(credentials: &Credentials) -> Option<String> {
    let since = credentials.expiry()?.duration_since(UNIX_EPOCH).ok()?;
    let ms = i64::try_from(since.as_millis()).ok()?;
    Some(format_seconds(ms))
}

/// Returns the way credentials came, as the SDK notes it for AWS's statistics.
fn source(credentials: &Credentials) -> &'static str {
    let way = credentials.get_property::<Vec<Feature>>();
    // The last is where they came from in the end, as with a role assumed by a profile's key.
    match way.and_then(|way| way.last()) {
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
    fn e4_source_and_expiry_are_told_and_no_secret() {
        let expires = UNIX_EPOCH + Duration::from_secs(1_357_020_000);
        let mut credentials = Credentials::new("id", "secret", None, Some(expires), "test");
        assert_eq!(source(&credentials), "other");
        credentials
            .get_property_mut_or_default::<Vec<Feature>>()
            .push(Feature::CredentialsImds);
        assert_eq!(source(&credentials), "instance role");
        assert_eq!(
            expiry(&credentials).as_deref(),
            Some("2013-01-01T06:00:00Z")
        );
        let lasting = Credentials::new("id", "secret", None, None, "test");
        assert_eq!(expiry(&lasting), None);
    }
}
