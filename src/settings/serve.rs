//! Options of `citystream serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::values::{parse_host, parse_port, parse_whole};
use super::{LogArgs, TableArgs};

/// `citystream serve`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream serve --port 8082\n  curl localhost:8082/api/v1/stats\n  \
                  citystream serve --bind 0.0.0.0 --tls-cert chain.pem --tls-key key.pem --auth-token-file tokens"
)]
pub struct Serve {
    /// Port to answer on; 0 picks a free one
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 8082,
        env = "CITYSTREAM_PORT",
        value_parser = parse_port
    )]
    pub port: u16,

    /// Address to answer on; another than this host's own needs --auth-token-file or
    /// --allow-anonymous
    #[arg(
        long,
        value_name = "IP",
        default_value = "127.0.0.1",
        env = "CITYSTREAM_BIND"
    )]
    pub bind: IpAddr,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tables: TableArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// Who may ask, how, and how often.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Answer only to bearer tokens in this file, one a line; read again when it changes. /livez, and
    /// the page without its data, need none
    #[arg(long, value_name = "FILE", env = "CITYSTREAM_AUTH_TOKEN_FILE")]
    pub auth_token_file: Option<PathBuf>,

    /// Let everybody ask who can reach --bind
    #[arg(
        long,
        env = "CITYSTREAM_ALLOW_ANONYMOUS",
        conflicts_with = "auth_token_file"
    )]
    pub allow_anonymous: bool,

    /// Speak TLS with this certificate chain (PEM); read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "CITYSTREAM_TLS_CERT",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "CITYSTREAM_TLS_KEY",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,

    /// Let pages of this origin ask, such as https://city.example; can be repeated
    #[arg(long, value_name = "ORIGIN", env = "CITYSTREAM_CORS_ORIGIN", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origin: Vec<String>,

    /// Most requests a second of one client, such as 20/s: an IPv4 address or an IPv6 /64
    /// [default: no limit]
    #[arg(long, value_name = "N/s", env = "CITYSTREAM_RATE_LIMIT", value_parser = parse_rate_limit)]
    pub rate_limit: Option<f64>,

    /// Most read units of DynamoDB a minute that the answers to one client may cost, or off
    #[arg(long, value_name = "UNITS", default_value = "200000", env = "CITYSTREAM_READ_BUDGET", value_parser = parse_read_budget)]
    pub read_budget: u64,

    /// Most connections at a time; further ones get an answer to /livez alone
    #[arg(long, default_value_t = 4_096, value_name = "N", env = "CITYSTREAM_MAX_CONNECTIONS", value_parser = |s: &str| parse_whole::<u32>(s, 1, 1_000_000))]
    pub max_connections: u32,

    /// Most connections of one client at a time; behind a proxy, as many as --max-connections
    /// [default: a quarter of --max-connections]
    #[arg(long, value_name = "N", env = "CITYSTREAM_MAX_CLIENT_CONNECTIONS", value_parser = |s: &str| parse_whole::<u32>(s, 1, 1_000_000))]
    pub max_client_connections: Option<u32>,

    /// Without tokens on this host's own address, a name by which clients may ask beside localhost and
    /// addresses; can be repeated
    #[arg(long, value_name = "NAME", env = "CITYSTREAM_ALLOWED_HOST", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// Log every request
    #[arg(long, env = "CITYSTREAM_ACCESS_LOG")]
    pub access_log: bool,
}

fn parse_rate_limit(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(n) if (0.1..=1_000_000.0).contains(&n) => Ok(n),
        _ => Err("expected requests a second such as 20/s, from 0.1/s to 1000000/s".to_owned()),
    }
}

fn parse_read_budget(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "off" => Ok(u64::MAX),
        Ok(units @ 1_000..=1_000_000_000) => Ok(units),
        _ => Err("expected read units a minute, from 1000 to 1000000000, or off".to_owned()),
    }
}

/// An origin as browsers send it: scheme, host, and the port if it is not the scheme's own.
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
