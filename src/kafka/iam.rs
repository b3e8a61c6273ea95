//! Creates the short-lived tokens for a login to MSK with AWS credentials (IAM) over SASL/OAUTHBEARER.
//!
//! A token is a presigned URL (Signature Version 4) for the action `kafka-cluster:Connect` on
//! `https://kafka.<region>.amazonaws.com/`, encoded as URL-safe base64 without padding. AWS's own clients create tokens
//! in the same format, and a test compares the tokens of this module with those of two AWS clients. A token is valid
//! for at most 15 minutes, and never longer than the AWS credentials. After four fifths of this time, librdkafka
//! requests the next token.
//!
//! librdkafka requests tokens on threads outside the async runtime. Therefore, a [`Signer`] has its own thread with a
//! small async runtime, in which the AWS SDK finds the credentials. The signer requests credentials for each token. If
//! this request fails, the signer uses the previous credentials while they are valid.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::{http_client, profile};
use crate::core::clock::UnixMs;
use crate::failure::{Failure, chain};

/// Maximum validity of a token. MSK rejects tokens that are valid for more than 15 minutes.
const TOKEN_LIFE: Duration = Duration::from_secs(900);
/// Maximum wait for credentials. The polling thread also waits during this time, and the group removes a member that
/// has not polled for five minutes. The instance metadata service answers within milliseconds.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(8);
/// Minimum remaining validity of the AWS credentials for a new token. The login itself takes time, so the signer does
/// not use credentials that expire sooner.
const CREDENTIALS_LEFT_MIN: Duration = Duration::from_secs(5);
/// The characters that the URL contains in percent-encoded form: all except the unreserved characters of RFC 3986.
const QUERY: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The reason why no login token is available.
#[derive(Debug, thiserror::Error)]
pub enum IamError {
    /// The AWS configuration does not name a Region.
    #[error("no AWS region is set; {REGION_REMEDY}")]
    NoRegion,
    /// The AWS profile uses a login that this program does not support.
    #[error("{0}")]
    Profile(Failure),
    /// The AWS SDK has found no credentials within the time limit.
    #[error("no AWS credentials: {reason}")]
    NoCredentials {
        /// The message from the AWS SDK.
        reason: String,
    },
    /// The credentials have expired, or will expire within seconds.
    #[error("the AWS credentials have expired")]
    Expired,
    /// The signing library could not sign the URL of the token.
    #[error("failed to sign: {reason}")]
    Sign {
        /// The message from the signing library.
        reason: String,
    },
    /// The signing thread has ended, or does not answer in time.
    #[error("no answer from the signing thread")]
    Thread,
}

const REGION_REMEDY: &str = "set AWS_REGION, such as AWS_REGION=eu-west-1";

impl From<&IamError> for Failure {
    fn from(error: &IamError) -> Failure {
        match error {
            IamError::NoRegion => Failure::new("no AWS region is set").with_remedy(REGION_REMEDY),
            IamError::Profile(failure) => failure.clone(),
            other => Failure::new(other.to_string()),
        }
    }
}

/// A token for one login to MSK.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The presigned URL in its encoded form.
    pub text: String,
    /// The time at which the token expires.
    pub end_ms: UnixMs,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("end_ms", &self.end_ms)
            .finish_non_exhaustive()
    }
}

/// Creates tokens from the credentials that the AWS SDK finds.
#[derive(Debug)]
pub struct Signer {
    requests: mpsc::Sender<mpsc::Sender<Result<Token, IamError>>>,
}

impl Signer {
    /// Starts the thread that signs tokens for `region`. The thread ends when the signer is dropped.
    ///
    /// # Panics
    /// Panics if the operating system cannot start a thread.
    pub fn start(region: String) -> Signer {
        let (requests, inbox) = mpsc::channel::<mpsc::Sender<Result<Token, IamError>>>();
        std::thread::Builder::new()
            .name("kafka-login".to_owned())
            .spawn(move || {
                let runtime = runtime();
                let provider = runtime.block_on(provider(&region));
                let mut last = None;
                for reply in inbox {
                    let token = runtime.block_on(next_token(&region, provider.as_ref(), &mut last));
                    if reply.send(token).is_err() {
                        tracing::debug!("the request for a token was given up");
                    }
                }
            })
            .expect("the system gives a thread");
        Signer { requests }
    }

    /// Returns a new login token. The call blocks for a few seconds at most.
    ///
    /// # Errors
    /// For the possible errors, see [`IamError`].
    pub fn token(&self) -> Result<Token, IamError> {
        let (reply, answer) = mpsc::channel();
        self.requests.send(reply).map_err(|_| IamError::Thread)?;
        answer
            .recv_timeout(CREDENTIALS_WAIT + Duration::from_secs(2))
            .unwrap_or_else(|error| match error {
                RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => Err(IamError::Thread),
            })
    }
}

/// Returns the AWS Region from the AWS configuration. The call blocks for a few seconds at most.
///
/// # Errors
/// Returns [`IamError::NoRegion`] if no Region is set, and [`IamError::Profile`] if the profile cannot be used.
pub fn region() -> Result<String, IamError> {
    // The function starts a thread, because a Tokio runtime must not block inside another Tokio runtime.
    let found = std::thread::spawn(|| {
        let chain = async {
            let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
            if let Some(reason) = profile::refusal().await {
                return Err(IamError::Profile(reason));
            }
            let config = config.load().await;
            Ok(config.region().map(|region| region.as_ref().to_owned()))
        };
        runtime().block_on(async { tokio::time::timeout(CREDENTIALS_WAIT, chain).await })
    });
    match found.join() {
        Ok(Ok(Ok(Some(region)))) if !region.is_empty() => Ok(region),
        Ok(Ok(Err(error))) => Err(error),
        _ => Err(IamError::NoRegion),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a small runtime starts")
}

async fn provider(region: &str) -> Option<SharedCredentialsProvider> {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http_client())
        .profile_files(profile::files_with_session_name().await)
        .load()
        .await
        .credentials_provider()
}

/// Requests credentials and signs a token with them. If the request for credentials fails, the function signs the token
/// with the previous credentials in `last`.
async fn next_token(
    region: &str,
    provider: Option<&SharedCredentialsProvider>,
    last: &mut Option<Credentials>,
) -> Result<Token, IamError> {
    let no_credentials = |reason: String| IamError::NoCredentials { reason };
    let asked = match provider {
        None => Err(no_credentials("nothing provides them".to_owned())),
        Some(provider) => {
            match tokio::time::timeout(CREDENTIALS_WAIT, provider.provide_credentials()).await {
                Ok(Ok(credentials)) => Ok(credentials),
                Ok(Err(error)) => Err(no_credentials(chain(&error))),
                Err(_) => Err(no_credentials("no answer in time".to_owned())),
            }
        }
    };
    let now = SystemTime::now();
    match asked {
        Ok(credentials) => {
            if last.is_none() {
                // Only the debug text of the credentials contains their source, in its first pair of quotes. The debug
                // text contains no secrets.
                let text = format!("{credentials:?}");
                let source = text.split('"').nth(1).unwrap_or_default();
                tracing::info!(region, source, "logging in to Kafka with AWS credentials");
            }
            let token = token(region, &credentials, now);
            *last = Some(credentials);
            token
        }
        Err(error) => {
            let Some(credentials) = last else {
                return Err(error);
            };
            let token = token(region, credentials, now).map_err(|_| IamError::NoCredentials {
                reason: format!("the last ones have expired, and there are no new ones: {error}"),
            })?;
            tracing::warn!(%error, "logging in to Kafka with the previous AWS credentials");
            Ok(token)
        }
    }
}

/// Returns a token that is signed with `credentials` at the time `now`.
///
/// # Errors
/// Returns [`IamError::Expired`] if the credentials expire too soon, and [`IamError::Sign`] if the signing library
/// fails.
pub fn token(region: &str, credentials: &Credentials, now: SystemTime) -> Result<Token, IamError> {
    let wrong = |error: &dyn std::fmt::Display| IamError::Sign {
        reason: error.to_string(),
    };
    let life = match credentials.expiry() {
        None => TOKEN_LIFE,
        Some(end) => end.duration_since(now).unwrap_or_default().min(TOKEN_LIFE),
    };
    // The URL contains the validity of the token in whole seconds.
    let life = Duration::from_secs(life.as_secs());
    if life < CREDENTIALS_LEFT_MIN {
        return Err(IamError::Expired);
    }
    let mut url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(life);
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|e| wrong(&e))?
        .into();
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|e| wrong(&e))?;
    let (instructions, _) = sign(request, &parameters)
        .map_err(|e| wrong(&e))?
        .into_parts();
    for (name, value) in instructions.params() {
        let value = utf8_percent_encode(value, &QUERY);
        url.push_str(&format!("&{name}={value}"));
    }
    // MSK logs the user agent, which is not part of the signature.
    url.push_str(concat!(
        "&User-Agent=citystream%2F",
        env!("CARGO_PKG_VERSION")
    ));
    let signed = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let end = Duration::from_secs(signed.as_secs()) + life;
    Ok(Token {
        text: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(url),
        end_ms: UnixMs(i64::try_from(end.as_millis()).unwrap_or(i64::MAX)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instant 2026-01-02T03:04:05Z in Unix seconds.
    const NOW_S: u64 = 1_767_323_045;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW_S)
    }

    fn credentials(session: Option<&str>, expiry: Option<SystemTime>) -> Credentials {
        Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session.map(str::to_owned),
            expiry,
            "test",
        )
    }

    fn url(token: &Token) -> String {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&token.text);
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    /// Returns the query parameters of a URL in sorted order, without the parameter `User-Agent`. The order of query
    /// parameters has no meaning, so the tests compare sorted parameters.
    fn query(url: &str) -> Vec<&str> {
        let mut pairs: Vec<&str> = url.split(['?', '&']).collect();
        pairs.retain(|pair| !pair.starts_with("User-Agent="));
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn the_token_equals_that_of_awss_own_client() {
        // The expected tokens come from AWS's aws-msk-iam-sasl-signer-python 1.0.2 with botocore 1.44.8, for the
        // instant `NOW_S`.
        for (session, theirs) in [
            (
                None,
                "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect\
                 &X-Amz-Algorithm=AWS4-HMAC-SHA256\
                 &X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Feu-west-1%2Fkafka-cluster%2Faws4_request\
                 &X-Amz-Date=20260102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
                 &X-Amz-Signature=7cc178453342e479def8e0e69cbff443ca929b5b0426af0f4b64554172c7195d\
                 &User-Agent=aws-msk-iam-sasl-signer-python%2F1.0.2",
            ),
            (
                Some("IQoJb3JpZ2luX2VjEA0aCWV1+w/est=="),
                "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect\
                 &X-Amz-Algorithm=AWS4-HMAC-SHA256\
                 &X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Feu-west-1%2Fkafka-cluster%2Faws4_request\
                 &X-Amz-Date=20260102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
                 &X-Amz-Security-Token=IQoJb3JpZ2luX2VjEA0aCWV1%2Bw%2Fest%3D%3D\
                 &X-Amz-Signature=f30b525204a358080ccbd1daf2652900b16aa5c4075ee115828537011bea666b\
                 &User-Agent=aws-msk-iam-sasl-signer-python%2F1.0.2",
            ),
        ] {
            let token = token("eu-west-1", &credentials(session, None), now()).unwrap();
            assert_eq!(query(&url(&token)), query(theirs));
            assert!(url(&token).contains("&User-Agent=citystream%2F"));
            assert_eq!(token.end_ms, UnixMs((NOW_S as i64 + 900) * 1_000));
            assert!(!format!("{token:?}").contains(&token.text));
        }
    }

    #[test]
    fn a_token_does_not_outlive_its_credentials() {
        let end = |left: Duration| {
            let credentials = credentials(Some("s"), Some(now() + left));
            token("eu-west-1", &credentials, now())
        };
        let short = end(Duration::from_millis(60_900)).unwrap();
        assert_eq!(short.end_ms, UnixMs((NOW_S as i64 + 60) * 1_000));
        assert!(url(&short).contains("&X-Amz-Expires=60&"));
        let long = end(Duration::from_secs(3_600)).unwrap();
        assert_eq!(long.end_ms, UnixMs((NOW_S as i64 + 900) * 1_000));
        assert!(matches!(
            end(Duration::from_secs(4)),
            Err(IamError::Expired)
        ));
        let past = credentials(None, Some(now() - Duration::from_secs(1)));
        let refused = token("eu-west-1", &past, now());
        assert!(matches!(refused, Err(IamError::Expired)));
    }

    #[tokio::test]
    async fn the_last_credentials_are_used_while_they_are_valid() {
        let soon = SystemTime::now() + Duration::from_secs(600);
        let mut last = Some(credentials(None, Some(soon)));
        assert!(next_token("eu-west-1", None, &mut last).await.is_ok());
        let mut last = Some(credentials(None, Some(UNIX_EPOCH)));
        let error = next_token("eu-west-1", None, &mut last)
            .await
            .expect_err("expired");
        assert!(error.to_string().contains("expired"), "{error}");
        let error = next_token("eu-west-1", None, &mut None)
            .await
            .expect_err("none");
        assert!(matches!(error, IamError::NoCredentials { .. }), "{error}");
    }
}
