//! Connects to DynamoDB: chooses the Region, the credentials, the timeouts and the retries.
//!
//! AWS's configuration library reads the Region, the endpoint, the profile and the credentials from AWS's own
//! environment variables, files and instance roles. This module sets timeouts and retries. Every wait for DynamoDB has
//! a time limit, and the caller chooses the number of attempts for a request. Code that writes to DynamoDB allows only
//! one attempt, and repeats failed requests itself. Such code does not use the SDK's retries, because all requests of a
//! client share one retry budget, and many concurrent writes would exhaust this budget.
//!
//! [`connect`] sends no request to DynamoDB. Only the caller's first request shows whether the table exists and the
//! server answers.

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
use crate::store::answers::checking;
use crate::store::credentials;
use crate::store::error::StoreError;
use crate::store::skew::ClockWatch;

/// Maximum time to establish a TCP and TLS connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time for which one attempt waits for the complete response. DynamoDB itself aborts a slow request earlier.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause between two attempts of the SDK. The SDK doubles the pause after each attempt, and varies it randomly.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Maximum pause between two attempts of the SDK.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The settings for connecting to DynamoDB. With the default settings, the SDK makes three attempts, and everything
/// else comes from the environment.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Maximum number of attempts that the SDK makes for a request. It must be at least 1.
    pub attempts: u32,
    /// The HTTP client to use instead of the shared client.
    pub http: Option<SharedHttpClient>,
    /// The endpoint to use instead of the endpoint from the environment.
    pub endpoint_url: Option<String>,
    /// True if the client ignores the environment and signs requests with fixed test credentials for a fixed Region.
    /// Test credentials are enough for a server that accepts any signature.
    pub test_credentials: bool,
    /// True if the client logs the source of the credentials. False if the caller reports this source itself.
    pub log_credentials: bool,
    /// The gauge that shows the difference between this host's clock and DynamoDB's clock.
    pub clock_skew: Option<Gauge>,
    /// The counter of invalid responses, labeled by operation and reason.
    pub answers_refused: Option<IntCounterVec>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            attempts: 3,
            http: None,
            endpoint_url: None,
            test_credentials: false,
            log_credentials: true,
            clock_skew: None,
            answers_refused: None,
        }
    }
}

/// The environment variables that set the endpoint. If both are set, the first one takes effect.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"];

/// Returns a DynamoDB client, without sending a request.
///
/// # Errors
/// Returns [`StoreError::Settings`] if no Region is set or the endpoint is not a URL.
pub async fn connect(options: ConnectOptions) -> Result<Client, StoreError> {
    connect_within(options, ATTEMPT_TIMEOUT).await
}

async fn connect_within(
    options: ConnectOptions,
    attempt_timeout: Duration,
) -> Result<Client, StoreError> {
    let attempts = options.attempts.max(1);
    let http = options.http.unwrap_or_else(http_client);
    let answers = checking(http.clone(), options.answers_refused);
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
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(options.endpoint_url);
        return Ok(client_of(config, answers, options.clock_skew));
    }
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(retries)
        // The timeout of an attempt already limits the time until the complete response has arrived.
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
    check_config(&config, from_variables.is_some()).await?;
    if let Some(provider) = config.credentials_provider()
        && options.log_credentials
    {
        credentials::log_source(provider);
    }
    // The SDK requests credentials through an HTTP client that does not check responses, because these responses do not
    // come from DynamoDB.
    let config = aws_sdk_dynamodb::Config::from(&config).to_builder();
    Ok(client_of(config, answers, options.clock_skew))
}

/// Checks the settings that AWS's configuration library has loaded. `has_variable` is true if an environment variable
/// sets the endpoint.
async fn check_config(
    config: &aws_config::SdkConfig,
    has_variable: bool,
) -> Result<(), StoreError> {
    if let (false, Some(url)) = (has_variable, config.endpoint_url()) {
        check_endpoint("the profile's endpoint_url", url)?;
    }
    let region = config.region();
    if region.is_none_or(|region| region.as_ref().is_empty()) {
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
    let goes_to_aws = !has_variable && config.endpoint_url().is_none();
    if goes_to_aws && config.account_id_endpoint_mode() == Some(&AccountIdEndpointMode::Required) {
        check_account_id(config).await?;
    }
    Ok(())
}

/// Returns a client that sends requests through `http` and measures the skew of this host's clock.
fn client_of(
    config: aws_sdk_dynamodb::config::Builder,
    http: SharedHttpClient,
    clock_skew: Option<Gauge>,
) -> Client {
    let mut config = config.http_client(http);
    if let Some(gauge) = clock_skew {
        config.push_interceptor(SharedInterceptor::new(ClockWatch::new(gauge)));
    }
    Client::from_conf(config.build())
}

/// Returns an error if the credentials do not name an account. If the credentials cannot be loaded yet, the function
/// returns no error, because later requests load the credentials again.
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

/// Returns an error if a Region cannot be part of the host name of an endpoint.
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

/// Returns an error if an endpoint is not a URL. The SDK accepts any text as an endpoint, but with an invalid endpoint,
/// every request fails, and the program would repeat each request forever.
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
        // `port_u16` returns `None` if the URL has no port, and also if the port is not a number or is too large. A
        // colon in the authority of the URL means that it has a port.
        let port = uri.authority().is_none_or(|authority| {
            let after_bracket = authority.as_str().rsplit_once(']');
            let rest = after_bracket.map_or(authority.as_str(), |(_, rest)| rest);
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

/// Returns a description of where `client` sends its requests: the endpoint if one is set, and otherwise the Region.
pub fn describe_target(client: &Client) -> String {
    let region = client
        .config()
        .region()
        .map_or("no region", Region::as_ref)
        .to_owned();
    // The SDK offers no way to read the endpoint from its configuration, so this function reads AWS's environment
    // variables.
    match endpoint_of_variables() {
        Some((name, url)) => format!("DynamoDB at {url} ({name})"),
        None => format!("DynamoDB in region {region}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::error::StoreErrorKind;

    #[test]
    fn an_endpoint_must_be_a_url() {
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
            assert_eq!(error.kind(), StoreErrorKind::Settings);
            let text = error.to_string();
            assert!(text.starts_with('X') && text.contains("http://"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_error_about_an_endpoint_shows_no_debug_output_of_the_sdk() {
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
    async fn a_request_to_a_server_that_never_answers_ends() {
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
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
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
        let error = client.list_tables().send().await.expect_err("no server");
        let error = StoreError::from_sdk("ListTables", "", error);
        assert_eq!(error.kind(), StoreErrorKind::Transient, "{error}");
    }

    /// Answers every request on a connection with an empty JSON object.
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
    async fn the_request_after_a_time_out_uses_a_new_connection() {
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
        // The client keeps the connection of the first request in its pool of idle connections.
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
        // The test server keeps the first connection open, but sends no further response on this connection.
        let begun = std::time::Instant::now();
        let error = client.list_tables().send().await.expect_err("no answer");
        let error = StoreError::from_sdk("ListTables", "", error);
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
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
