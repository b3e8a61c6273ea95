//! Converts the access options of `serve` and `produce` to rules for HTTP requests.

use std::net::IpAddr;
use std::sync::Arc;

use crate::api::access::{Access, ClientRate, Tokens};
use crate::api::server::{Hosts, ServeOptions};
use crate::api::tls::Certificate;
use crate::exit::SettingsError;
use crate::settings::{AccessArgs, warn_if_others_can_read};

const FILE_REMEDY: &str = "check the content of the file, and that this user may read it";

/// Loads the certificate of `--tls-cert`, if the option is set.
///
/// # Errors
/// Returns an error if the certificate and the key cannot be used.
pub(crate) fn load_certificate(
    access: &AccessArgs,
) -> Result<Option<Arc<Certificate>>, SettingsError> {
    let (Some(cert), Some(key)) = (&access.tls_cert, &access.tls_key) else {
        return Ok(None);
    };
    warn_if_others_can_read("--tls-key", key);
    let certificate = Certificate::load(cert, key).map_err(|error| {
        SettingsError::new("--tls-cert and --tls-key cannot be used")
            .with_why(error.to_string())
            .with_remedy(FILE_REMEDY)
    })?;
    Ok(Some(Arc::new(certificate)))
}

/// Rejects an address at which other hosts could send requests without a token, unless `--allow-anonymous` is set.
/// `given` is the command-line option that sets the address, together with its value.
///
/// # Errors
/// Returns an error that names the option if the address is rejected.
pub(crate) fn check_address(
    access: &AccessArgs,
    address: IpAddr,
    given: impl Into<String>,
) -> Result<(), SettingsError> {
    if address.is_loopback() || access.auth_token_file.is_some() || access.allow_anonymous {
        return Ok(());
    }
    Err(SettingsError::new(given)
        .with_why("other hosts could send requests without a token")
        .with_remedy("give --auth-token-file, or --allow-anonymous if you intend that"))
}

/// Returns the access rules for a port on `address`. The rules do not allow web pages of other origins to send requests
/// to the port.
///
/// # Errors
/// Returns an error if the token file cannot be read.
pub(crate) fn rules(access: &AccessArgs, address: IpAddr) -> Result<Access, SettingsError> {
    let tokens = match &access.auth_token_file {
        Some(path) => {
            warn_if_others_can_read("--auth-token-file", path);
            let tokens = Tokens::load(path).map_err(|error| {
                SettingsError::new("--auth-token-file cannot be used")
                    .with_why(error.to_string())
                    .with_remedy(FILE_REMEDY)
            })?;
            Some(tokens)
        }
        None => None,
    };
    if tokens.is_some() && !address.is_loopback() && access.tls_cert.is_none() {
        tracing::warn!(
            "tokens are sent unencrypted; set --tls-cert and --tls-key, or put a proxy with TLS in front"
        );
    }
    Ok(Access {
        tokens,
        rate: access.rate_limit.map(ClientRate::new),
        origins: Vec::new(),
    })
}

/// Returns the HTTP server settings that result from the access options.
pub(crate) fn server_options(
    access: &AccessArgs,
    certificate: Option<Arc<Certificate>>,
) -> ServeOptions {
    let limit = |count| usize::try_from(count).unwrap_or(usize::MAX);
    // With DNS rebinding, a page of another site can make a browser send requests to this host under the name of the
    // other site. Tokens prevent such requests. If the server requires no token, the server checks the name in the
    // header `Host`.
    let checks_host = access.auth_token_file.is_none() && !access.allow_anonymous;
    ServeOptions {
        connections_max: limit(access.max_connections),
        client_connections_max: access.max_client_connections.map(limit),
        tls: certificate.map(Certificate::acceptor),
        access_log: access.access_log,
        hosts: checks_host.then(|| Hosts::new(&access.allowed_host)),
        ..ServeOptions::default()
    }
}
