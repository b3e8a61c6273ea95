//! Turns the access options of `serve` into rules for requests.

use std::sync::Arc;

use axum::http::HeaderValue;

use crate::api::access::{Access, ClientRate, Tokens};
use crate::api::server::{Hosts, ServeOptions};
use crate::api::tls::Certificate;
use crate::exit::SettingsError;
use crate::settings::{Serve, warn_if_others_can_read};

const FILE_REMEDY: &str = "check the content of the file, and that this user may read it";

/// Loads the certificate of `--tls-cert`, if it is given.
///
/// # Errors
/// If certificate and key cannot be used.
pub(crate) fn load_certificate(args: &Serve) -> Result<Option<Arc<Certificate>>, SettingsError> {
    let (Some(cert), Some(key)) = (&args.access.tls_cert, &args.access.tls_key) else {
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

/// Returns the rules for requests. Without a token file, only this host may send requests, unless
/// `--allow-anonymous` is given.
///
/// # Errors
/// If other hosts could send requests without a token, or the token file cannot be read.
pub(crate) fn rules(args: &Serve) -> Result<Access, SettingsError> {
    let access = &args.access;
    if !args.bind.is_loopback() && access.auth_token_file.is_none() && !access.allow_anonymous {
        return Err(SettingsError::new(format!("--bind {}", args.bind))
            .with_why("other hosts could send requests without a token")
            .with_remedy("give --auth-token-file, or --allow-anonymous if you intend that"));
    }
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
    if tokens.is_some() && !args.bind.is_loopback() && access.tls_cert.is_none() {
        tracing::warn!(
            "tokens travel unencrypted; give --tls-cert and --tls-key, or put a proxy with TLS in front"
        );
    }
    let origins = access.cors_origin.iter().map(|origin| {
        HeaderValue::from_str(origin)
            .map_err(|_| SettingsError::new(format!("--cors-origin {origin} is not an origin")))
    });
    Ok(Access {
        tokens,
        rate: access.rate_limit.map(ClientRate::new),
        origins: origins.collect::<Result<_, _>>()?,
    })
}

/// Returns the options of the HTTP server.
pub(crate) fn server_options(args: &Serve, certificate: Option<Arc<Certificate>>) -> ServeOptions {
    let access = &args.access;
    let limit = |count| usize::try_from(count).unwrap_or(usize::MAX);
    // A page of another site can make a browser send requests to this host under the site's own name.
    // Tokens stop such requests; without tokens, the name in `Host` is checked.
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
