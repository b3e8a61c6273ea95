//! The HTTP client for AWS, with its timeouts, proxies and trusted certificate authorities.
//!
//! All requests to AWS go through [`http_client`], including the requests for the credentials that DynamoDB and Kafka
//! need. TLS trusts the certificate authorities of the host. If the host has no certificate authorities, TLS trusts
//! authorities that are built into the program. The program loads the certificate authorities when it opens the first
//! `https` connection.
//!
//! The variables `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` apply only to `https` URLs. Requests over `http`, such as
//! requests for instance metadata, never use a proxy.

pub mod profile;

use std::sync::LazyLock;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use base64::Engine as _;

/// Time after which the client closes an idle connection. Load balancers and NAT gateways drop idle connections after a
/// minute or more. If idle connections stayed open longer, only a few more requests would reuse a connection.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// Returns an HTTP client for `http` and `https`.
pub fn http_client() -> SharedHttpClient {
    SharedHttpClient::new(Transport {
        plain: aws_smithy_http_client::Builder::new()
            .pool_idle_timeout(POOL_IDLE)
            .build_http(),
    })
}

/// The `https` client that all parts of the process share. All AWS clients share this client's connections, so the
/// certificate authorities are loaded only once.
static TLS: LazyLock<SharedHttpClient> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs().certs.len();
    let store = if found > 0 {
        tracing::info!(
            source = "host",
            count = found,
            "loaded certificate authorities"
        );
        TrustStore::default()
    } else {
        let count = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
        tracing::info!(source = "built in", count, "loaded certificate authorities");
        built_in_authorities()
    };
    tls_client(store)
});

fn tls_client(store: TrustStore) -> SharedHttpClient {
    tls_client_through(store, ProxyConfig::from_env())
}

fn tls_client_through(store: TrustStore, proxy: ProxyConfig) -> SharedHttpClient {
    let context = TlsContext::builder()
        .with_trust_store(store)
        .build()
        .expect("a context with only a trust store is valid");
    // This function creates the connector itself, because the builder of the HTTP client has no option for a proxy.
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder()
            .pool_idle_timeout(POOL_IDLE)
            .proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .build()
    })
}

/// Returns the certificate authorities that Mozilla trusted when this program was built.
fn built_in_authorities() -> TrustStore {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            // Base64 text is ASCII, so every index is at the start of a character.
            let (line, tail) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = tail;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    TrustStore::empty().with_pem_certificate(pem)
}

/// Sends `http` requests without a proxy, and sends `https` requests through [`TLS`].
#[derive(Debug)]
struct Transport {
    plain: SharedHttpClient,
}

impl HttpClient for Transport {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(ByScheme {
            plain: self.plain.http_connector(settings, components),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

#[derive(Debug)]
struct ByScheme {
    plain: SharedHttpConnector,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("http://") {
            self.plain.call(request)
        } else {
            TLS.http_connector(&self.settings, &self.components)
                .call(request)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::config::Credentials;

    /// Returns the first line that a test proxy receives, or an empty string if the proxy receives nothing.
    async fn first_line_at_proxy(no_proxy: &str) -> String {
        use tokio::io::AsyncReadExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let proxy = ProxyConfig::https(proxy).unwrap().no_proxy(no_proxy);
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_sdk_dynamodb::config::Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .http_client(tls_client_through(built_in_authorities(), proxy))
            .endpoint_url("https://dynamodb.invalid");
        let client = aws_sdk_dynamodb::Client::from_conf(config.build());
        let request = tokio::spawn(async move { client.list_tables().send().await });
        let asked = tokio::time::timeout(Duration::from_secs(2), listener.accept()).await;
        let mut line = [0; 64];
        let count = match asked {
            Ok(accepted) => accepted.unwrap().0.read(&mut line).await.unwrap(),
            Err(_) => 0,
        };
        request.abort();
        let text = String::from_utf8_lossy(&line[..count]).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn https_goes_through_the_proxy_unless_no_proxy_names_the_host() {
        let line = first_line_at_proxy("").await;
        assert_eq!(line, "CONNECT dynamodb.invalid:443 HTTP/1.1");
        assert_eq!(first_line_at_proxy("localhost,.invalid").await, "");
    }

    #[tokio::test]
    async fn the_built_in_authorities_make_a_client() {
        // The connector parses every certificate when it is created, and panics if a certificate is invalid.
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_sdk_dynamodb::config::Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .http_client(tls_client(built_in_authorities()))
            .endpoint_url("https://127.0.0.1:1");
        let client = aws_sdk_dynamodb::Client::from_conf(config.build());
        let error = client.list_tables().send().await.expect_err("nobody there");
        assert!(error.as_service_error().is_none());
    }
}
