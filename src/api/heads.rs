//! Checks the head of a request: its size, its host, and the headers that must appear exactly once.
//!
//! With DNS rebinding, a malicious site makes its own name resolve to the address of this host. A browser then lets the
//! pages of the malicious site read the responses of this host. However, the header `Host` of a request from a
//! malicious page contains the name of the malicious site. On ports without a login, [`Hosts`] therefore accepts only
//! names that no site can own (`localhost` and IP addresses), and names that the operator allows.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::body::HttpBody as _;
use axum::http::header::{AUTHORIZATION, HOST, HeaderName};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Version};
use hyper::Request;
use hyper::body::Incoming;

use crate::api::error::ApiError;

/// Maximum number of bytes of the path and the query. Valid requests stay far below this maximum, even with a cursor
/// and all parameters.
pub(super) const URI_BYTES_MAX: usize = 8 * 1_024;
/// Maximum number of bytes of all header lines.
pub(super) const HEADERS_BYTES_MAX: usize = 16 * 1_024;
/// Maximum number of bytes of a request body, except on the path of [`Uploads`](super::handler::Uploads).
pub(super) const BODY_BYTES_MAX: usize = 64 * 1_024;

/// The host names that clients may use in their requests.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Allows `names` in addition to `localhost` and IP addresses.
    pub fn new(names: &[String]) -> Hosts {
        Hosts(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Returns true if the host name `host`, with or without a port, is allowed.
    fn allows(&self, host: &[u8]) -> bool {
        let Ok(authority) = Authority::try_from(host) else {
            return false;
        };
        let name = authority.host().to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || name.parse::<Ipv4Addr>().is_ok()
            || (bare.len() < name.len() && bare.parse::<Ipv6Addr>().is_ok())
            || self.0.contains(&name)
    }
}

/// Rejects a request if its head is too large or ambiguous, or if its host is not allowed. Also rejects a request that
/// announces a body of more than `body_bytes_max` bytes.
pub(super) fn check_head(
    request: &Request<Incoming>,
    hosts: Option<&Hosts>,
    body_bytes_max: usize,
) -> Result<(), ApiError> {
    let uri = request.uri().path_and_query();
    if uri.map_or(0, |uri| uri.as_str().len()) > URI_BYTES_MAX {
        return Err(ApiError::uri_too_long(URI_BYTES_MAX));
    }
    if head_bytes(request) > HEADERS_BYTES_MAX {
        return Err(ApiError::headers_too_large(HEADERS_BYTES_MAX));
    }
    if request.body().size_hint().lower() > body_bytes_max as u64 {
        return Err(ApiError::body_too_large(body_bytes_max));
    }
    for name in [HOST, AUTHORIZATION] {
        if values(request, &name).count() > 1 {
            return Err(ApiError::bad_header(format!(
                "the header {name} appears twice"
            )));
        }
    }
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return Err(ApiError::bad_header("HTTP/1.1 requires the header Host"));
    }
    let named = request.uri().authority().map(|a| a.as_str().as_bytes());
    let in_header = values(request, &HOST).map(HeaderValue::as_bytes);
    if let Some(hosts) = hosts
        && !named
            .into_iter()
            .chain(in_header)
            .all(|host| hosts.allows(host))
    {
        return Err(ApiError::forbidden(
            "this host name is not allowed; use localhost, an IP address, or a name from --allowed-host",
        ));
    }
    Ok(())
}

/// Returns the number of bytes of all header lines.
pub(super) fn head_bytes<B>(request: &Request<B>) -> usize {
    let lines = request.headers().iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum()
}

fn values<'a>(
    request: &'a Request<Incoming>,
    name: &HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    request.headers().get_all(name).iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_that_another_site_could_own_are_rejected() {
        let hosts = Hosts::new(&["City.Example".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:8082",
            "127.0.0.1:8082",
            "10.1.2.3",
            "[::1]:8082",
            "[2001:db8::1]",
            "city.example",
            "CITY.example:443",
        ] {
            assert!(hosts.allows(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8082",
            "x.city.example",
            "127.0.0.1@evil.example",
            "localhost:80:80",
            "2130706433",
            "0x7f.1",
            "::1",
        ] {
            assert!(!hosts.allows(host.as_bytes()), "{host}");
        }
        assert!(!Hosts::default().allows(b"city.example"));
    }
}
