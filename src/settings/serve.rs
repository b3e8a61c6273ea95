//! Options of `citystream serve`.

use std::net::IpAddr;

use clap::Args;

use super::values::{parse_ip, parse_port};
use super::{AccessArgs, LogArgs, TableArgs};

/// The options of `citystream serve`.
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
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_parser = parse_ip)]
    pub bind: IpAddr,

    #[command(flatten)]
    pub access: AccessArgs,

    /// Let pages of this origin use the API, such as https://city.example; can be repeated
    #[arg(long, help_heading = "Access", value_name = "ORIGIN", value_delimiter = ',', value_parser = parse_origin)]
    pub cors_origin: Vec<String>,

    /// Most DynamoDB read units per minute for the answers to one client, or off
    #[arg(long, help_heading = "Access", value_name = "UNITS", default_value = "200000", value_parser = parse_read_budget)]
    pub read_budget: u64,

    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

fn parse_read_budget(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "off" => Ok(u64::MAX),
        Ok(units @ 1_000..=1_000_000_000) => Ok(units),
        _ => Err("expected read units per minute, from 1000 to 1000000000, or off".to_owned()),
    }
}

/// Parses an origin in the form that browsers send: the scheme, the host, and any port other than the default.
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
