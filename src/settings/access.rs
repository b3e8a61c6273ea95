//! The access options of the roles that accept HTTP requests from other hosts.

use std::path::PathBuf;

use clap::Args;

use super::values::{parse_host, parse_whole};

/// The options that say who may send requests, by which protocol, and how often.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Require a bearer token from this file, which has one token per line; reloaded when it changes.
    /// /livez and the page without its data need no token
    #[arg(long, value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,

    /// Accept requests without a token from every host that can reach the port
    #[arg(long, conflicts_with = "auth_token_file")]
    pub allow_anonymous: bool,

    /// Use TLS with this certificate chain (PEM); reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Most requests per second of one client (an IPv4 address or an IPv6 /64), such as 20/s
    /// [default: no limit]
    #[arg(long, value_name = "N/s", value_parser = parse_rate_limit)]
    pub rate_limit: Option<f64>,

    /// Maximum number of open connections; further connections can only get /livez
    #[arg(long, default_value_t = 4_096, value_name = "N", value_parser = |s: &str| parse_whole::<u32>(s, 1, 1_000_000))]
    pub max_connections: u32,

    /// Most open connections of one client; behind a proxy, give the same as --max-connections
    /// [default: a quarter of --max-connections]
    #[arg(long, value_name = "N", value_parser = |s: &str| parse_whole::<u32>(s, 1, 1_000_000))]
    pub max_client_connections: Option<u32>,

    /// Host name that requests may use in addition to localhost and IP addresses, if no token is
    /// required; can be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// Log every request
    #[arg(long)]
    pub access_log: bool,
}

fn parse_rate_limit(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if (0.1..=1_000_000.0).contains(&n) => Ok(n),
        _ => Err("expected requests per second such as 20/s, from 0.1/s to 1000000/s".to_owned()),
    }
}
