//! The connection to a receiver: direct, or through the tunnel of a proxy.
//!
//! The environment variables `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` apply only to `https` URLs, as they do for AWS.
//! If a proxy is used, the proxy resolves the host name of the receiver. The program cannot check the resolved address,
//! so the proxy must block private addresses.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::addresses::Resolver;

/// Maximum wait for a TCP connection. The short limit leaves time for an attempt with another address of the host.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn Error + Send + Sync>;

/// Opens connections to receivers.
#[derive(Clone)]
pub(super) struct Route {
    direct: HttpConnector<Resolver>,
    /// Opens connections to proxies, which may have private addresses.
    to_proxy: HttpConnector<Resolver>,
    proxies: Arc<Matcher>,
}

impl Route {
    pub(super) fn new(allow_private: bool, proxies: Matcher) -> Route {
        Route {
            direct: connector(allow_private),
            to_proxy: connector(true),
            proxies: Arc::new(proxies),
        }
    }
}

fn connector(allow_private: bool) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver { allow_private });
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_WAIT));
    connector
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let is_https = to.scheme_str() == Some("https");
        let Some(proxy) = self.proxies.intercept(&to).filter(|_| is_https) else {
            let connecting = self.direct.call(to);
            return Box::pin(async { Ok(connecting.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        Box::pin(async move {
            // The connectors are always ready, so the code need not call `poll_ready` first.
            Ok(tunnel.call(to).await?)
        })
    }
}
