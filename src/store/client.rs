//! The connection to DynamoDB: region, credentials, timeouts, retries.
//!
//! Region, endpoint, profile and credentials come from AWS's own variables, files and instance
//! roles, through its configuration library. This module adds what that library leaves open: every
//! wait has an end (E1), and the number of attempts is the caller's (writers ask for one and retry by
//! themselves, because the SDK's token bucket, shared by all requests of a client, runs dry under
//! concurrency: E3).
//!
//! [`connect`] sends nothing to DynamoDB: a table that is missing or a server that is down is seen
//! by the first request.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials as _, Region, SharedInterceptor};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::endpoint_config::AccountIdEndpointMode;
use prometheus::{Gauge, IntCounterVec};

use crate::aws::{http_client, profile};
use crate::failure::Failure;
use crate::store::answers::checked;
use crate::store::credentials;
use crate::store::error::StoreError;
use crate::store::skew::ClockWatch;

/// Longest wait for a TCP and TLS connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an answer to one attempt, its body included. DynamoDB gives up on its side
/// before that.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause between the SDK's own attempts; it doubles, with jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between the SDK's own attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How to connect. [`Default`] is what a role asks for: three attempts, everything from the
/// environment.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// How often the SDK sends a request before it reports the error; at least 1.
    pub attempts: u32,
    /// Answers requests instead of the network.
    pub http: Option<SharedHttpClient>,
    /// Where to send requests, instead of what the environment says.
    pub endpoint_url: Option<String>,
    /// Signs with made-up credentials for a made-up region and reads nothing from the environment:
    /// for a server that accepts anything.
    pub test_credentials: bool,
    /// Logs where credentials come from, or that there are none; for who says it otherwise, not.
    pub tell_credentials: bool,
    /// Where to show how far this host's clock is from DynamoDB's.
    pub clock_skew: Option<Gauge>,
    /// Where to count answers that are not believed, by operation and reason.
    pub answers_refused: Option<IntCounterVec>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            attempts: 3,
            http: None,
            endpoint_url: None,
            test_credentials: false,
            tell_credentials: true,
            clock_skew: None,
            answers_refused: None,
        }
    }
}

/// Variables that say where to send requests; the first that is set counts.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"];

/// Returns a client. Nothing is sent to DynamoDB yet.
///
/// # Errors
/// [`StoreError::Settings`] if no region is set, or an endpoint that is no URL.
pub async fn connect(options: ConnectOptions) -> Result<Client, StoreError> {
    connect_within(options, ATTEMPT_TIMEOUT).await
}

async fn connect_within(
    options: ConnectOptions,
    attempt_timeout: Duration,
) -> Result<Client, StoreError> {
    let attempts = options.attempts.max(1);
    let http = options.http.unwrap_or_else(http_client);
    let answers = checked(http.clone(), options.answers_refused);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(attempt_timeout)
        .operation_attempt_timeout(attempt_timeout)
        .operation_timeout((attempt_timeout + BACKOFF_MAX) * attempts)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(BACKOFF_FIRST)
        .with_max_backoff(BACKOFF_MAX);
    if options.test_credentials {
        let mut config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .timeout_config(timeouts)
            .retry_config(retries)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(answers);
        config.set_endpoint_url(options.endpoint_url);
        if let Some(gauge) = options.clock_skew {
            config.push_interceptor(SharedInterceptor::new(ClockWatch::new(gauge)));
        }
        return Ok(Client::from_conf(config.build()));
    }
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(retries)
        // The attempt's timeout covers the body of an answer already.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(http);
    if let Some(url) = options.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    let from_variables = endpoint_of_variables();
    if let Some((variable, url)) = &from_variables {
        check_endpoint(variable, url)?;
    }
    if let Some(failure) = profile::refusal().await {
        return Err(StoreError::Settings(failure));
    }
    let config = loader.load().await;
    if let (None, Some(url)) = (&from_variables, config.endpoint_url()) {
        check_endpoint("the profile's endpoint_url", url)?;
    }
    if config
        .region()
        .is_none_or(|region| region.as_ref().is_empty())
    {
        return Err(StoreError::Settings(
            Failure::new("no AWS region is set").with_remedy(
                "set AWS_REGION, such as AWS_REGION=eu-west-1, or a region in the profile; to use \
                 a DynamoDB of your own, set AWS_ENDPOINT_URL_DYNAMODB as well, such as \
                 http://127.0.0.1:8000 for that of citystream dev",
            ),
        ));
    }
    if let Some(region) = config.region() {
        check_region(region.as_ref())?;
    }
    let goes_to_aws = from_variables.is_none() && config.endpoint_url().is_none();
    if goes_to_aws && config.account_id_endpoint_mode() == Some(&AccountIdEndpointMode::Required) {
        check_account_id(&config).await?;
    }
    if let Some(provider) = config.credentials_provider()
        && options.tell_credentials
    {
        credentials::say(provider);
    }
    // Credentials come over the plain client: what they are told is no answer of DynamoDB's.
    let mut config = aws_sdk_dynamodb::Config::from(&config)
        .to_builder()
        .http_client(answers);
    if let Some(gauge) = options.clock_skew {
        config.push_interceptor(SharedInterceptor::new(ClockWatch::new(gauge)));
    }
    Ok(Client::from_conf(config.build()))
}

/// Credentials that cannot be had now are not judged: requests wait for them.
async fn check_account_id(config: &aws_config::SdkConfig) -> Result<(), StoreError> {
    let Some(provider) = config.credentials_provider() else {
        return Ok(());
    };
    match provider.provide_credentials().await {
        Ok(credentials) if credentials.account_id().is_none() => Err(StoreError::Settings(
            Failure::new(
                "AWS_ACCOUNT_ID_ENDPOINT_MODE=required, and the credentials name no account",
            )
            .with_remedy("set AWS_ACCOUNT_ID, or AWS_ACCOUNT_ID_ENDPOINT_MODE=preferred"),
        )),
        _ => Ok(()),
    }
}

fn endpoint_of_variables() -> Option<(&'static str, String)> {
    let set = |name| std::env::var(name).ok().map(|url| (name, url));
    ENDPOINT_VARIABLES.into_iter().find_map(set)
}

/// Refuses a region that cannot be part of an endpoint's host name.
fn check_region(region: &str) -> Result<(), StoreError> {
    let is_label = region
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_label {
        return Ok(());
    }
    Err(StoreError::Settings(
        Failure::new(format!("{region:?} is not an AWS region"))
            .with_remedy("set AWS_REGION, such as AWS_REGION=eu-west-1"),
    ))
}

/// The SDK takes any text and finds out with each request, which a role would repeat without an end.
fn check_endpoint(source: &str, url: &str) -> Result<(), StoreError> {
    if url.is_empty() {
        return Err(StoreError::Settings(
            Failure::new(format!("{source} is empty"))
                .with_remedy("remove it, or give a URL such as http://localhost:8000"),
        ));
    }
    let is_url = url.parse::<hyper::Uri>().is_ok_and(|uri| {
        let schemes = ["http", "https"];
        let host = uri.host().is_some_and(|host| !host.is_empty());
        // A port that is no number, or too large a one, is told by its colon alone.
        let port = uri.authority().is_none_or(|authority| {
            let behind = authority.as_str().rsplit_once(']');
            let rest = behind.map_or(authority.as_str(), |(_, rest)| rest);
            rest.contains(':') == authority.port_u16().is_some()
        });
        uri.scheme_str()
            .is_some_and(|scheme| schemes.contains(&scheme))
            && host
            && port
    });
    if is_url {
        return Ok(());
    }
    Err(StoreError::Settings(
        Failure::new(format!("{source}={url}"))
            .with_why("not a URL of http or https")
            .with_remedy(
                "give one such as http://localhost:8000 for a server of your own, or remove it \
                 for AWS's",
            ),
    ))
}

/// Returns how a person would name where `client` sends its requests: the endpoint if one is set,
/// else the region.
pub fn describe_target(client: &Client) -> String {
    let region = client
        .config()
        .region()
        .map_or("no region", Region::as_ref)
        .to_owned();
    // The SDK's configuration shows no endpoint; AWS's own variables are the way to set one.
    match endpoint_of_variables() {
        Some((name, url)) => format!("DynamoDB at {url} ({name})"),
        None => format!("DynamoDB in region {region}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::error::Kind;

    #[test]
    fn an_endpoint_is_a_url() {
        for url in [
            "http://localhost:8000",
            "https://vpce-1.dynamodb.eu-west-1.vpce.amazonaws.com",
            "http://[::1]:8000/",
            "http://127.0.0.1",
        ] {
            check_endpoint("X", url).expect(url);
        }
        for url in [
            "localhost:8000",
            "localhost",
            "",
            "http://",
            "http://:8000",
            "ftp://a",
            "http://a:99999",
            "http://a b",
            "//a:1",
        ] {
            let error = check_endpoint("X", url).expect_err(url);
            assert_eq!(error.kind(), Kind::Settings);
            let text = error.to_string();
            assert!(text.starts_with('X') && text.contains("http://"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_the_sdk_cannot_use_is_told_without_its_insides() {
        let client = connect(ConnectOptions {
            attempts: 1,
            endpoint_url: Some("localhost:8000".to_owned()),
            test_credentials: true,
            ..ConnectOptions::default()
        })
        .await
        .unwrap();
        let error = client.list_tables().send().await.expect_err("no URL");
        let text = StoreError::from_sdk("ListTables", "", error).to_string();
        assert!(text.contains("localhost:8000"), "{text}");
        assert!(!text.contains("SdkBody") && !text.contains('{'), "{text}");
    }

    #[tokio::test]
    async fn e1_a_server_that_never_answers_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ConnectOptions {
            attempts: 1,
            endpoint_url: Some(format!("http://{}", listener.local_addr().unwrap())),
            test_credentials: true,
            ..ConnectOptions::default()
        };
        let client = connect_within(options, Duration::from_millis(50))
            .await
            .unwrap();
        let error = client.list_tables().send().await.expect_err("no answer");
        let error = StoreError::from_sdk("ListTables", "", error);
        assert_eq!(error.kind(), Kind::Unknown, "{error}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_transient() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = connect(ConnectOptions {
            attempts: 1,
            endpoint_url: Some(format!("http://{address}")),
            test_credentials: true,
            ..ConnectOptions::default()
        })
        .await
        .unwrap();
        let error = client.list_tables().send().await.expect_err("nobody there");
        let error = StoreError::from_sdk("ListTables", "", error);
        assert_eq!(error.kind(), Kind::Transient, "{error}");
    }

    /// Answers requests on one connection with an empty object.
    async fn answer(mut stream: tokio::net::TcpStream) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut request = vec![0; 64 * 1024];
        while stream.read(&mut request).await.unwrap_or(0) > 0 {
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\
                          content-length: 2\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn e1_after_a_black_hole_the_next_request_takes_a_new_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ConnectOptions {
            attempts: 1,
            endpoint_url: Some(format!("http://{}", listener.local_addr().unwrap())),
            test_credentials: true,
            ..ConnectOptions::default()
        };
        let client = connect_within(options, Duration::from_millis(300))
            .await
            .unwrap();
        // One request on a connection that works, so that it waits in the pool.
        let asked = tokio::spawn({
            let client = client.clone();
            async move { client.list_tables().send().await }
        });
        let (mut first, _) = listener.accept().await.unwrap();
        {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut request = vec![0; 64 * 1024];
            assert!(first.read(&mut request).await.unwrap() > 0);
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            first.write_all(answer.as_bytes()).await.unwrap();
        }
        asked.await.unwrap().expect("it answered");
        // From here on nobody answers there any more, and nobody closes it either.
        let begun = std::time::Instant::now();
        let error = client.list_tables().send().await.expect_err("no answer");
        let error = StoreError::from_sdk("ListTables", "", error);
        assert_eq!(error.kind(), Kind::Unknown, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        let server = tokio::spawn(async move {
            let (second, _) = listener.accept().await.unwrap();
            answer(second).await;
        });
        client.list_tables().send().await.expect("a new connection");
        client.list_tables().send().await.expect("and again");
        drop((client, first));
        server.abort();
    }
}
