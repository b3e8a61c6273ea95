//! Options of `citystream serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::values::{parse_host, parse_port, parse_whole};
use super::{LogArgs, TableArgs};

/// `citystream serve`
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream serve --port 8082\n  curl localhost:8082/api/v1/stats\n  \
                  citystream serve --bind 0.0.0.0 --tls-cert chain.pem --tls-key key.pem --auth-token-file tokens"
)]
pub struct Serve {
    /// Port to listen on; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 8082, value_parser = parse_port)]
    pub port: u16,

    /// Address to listen on; an address that other hosts can reach needs --auth-token-file or
    /// --allow-anonymous
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub bind: IpAddr,

    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Who may send requests, how, and how often.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Require a bearer token from this file, which has one token per line; reloaded when it changes.
    /// /livez and the page without its data need no token
    #[arg(long, value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,

    /// Accept requests without a token from every host that can reach --bind
    #[arg(long, conflicts_with = "auth_token_file")]
    pub allow_anonymous: bool,

    /// Use TLS with this certificate chain (PEM); reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Let pages of this origin use the API, such as https://city.example; can be repeated
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origin: Vec<String>,

    /// Most requests per second of one client (an IPv4 address or an IPv6 /64), such as 20/s
    /// [default: no limit]
    #[arg(long, value_name = "N/s", value_parser = parse_rate_limit)]
    pub rate_limit: Option<f64>,

    /// Most DynamoDB read units per minute for the answers to one client, or off
    #[arg(long, value_name = "UNITS", default_value = "200000", value_parser = parse_read_budget)]
    pub read_budget: u64,

    /// Most open connections; further ones can only get /livez
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

fn parse_read_budget(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "off" => Ok(u64::MAX),
        Ok(units @ 1_000..=1_000_000_000) => Ok(units),
        _ => Err("expected read units per minute, from 1000 to 1000000000, or off".to_owned()),
    }
}

/// Parses an origin as browsers send it: scheme, host, and the port if it is not the default.
fn parse_origin(text: &str) -> Result<String, String> {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:[]".contains(c);
    match host {
        Some(host) if !host.is_empty() && host.chars().all(legal) => Ok(text.to_owned()),
        _ => Err(
            "expected an origin such as https://city.example or http://localhost:3000, \
             in lower case and without a path"
                .to_owned(),
        ),
    }
}
