//! Command-line options for the connection to Kafka.

use std::path::PathBuf;
use std::str::FromStr as _;

use clap::{Args, ValueEnum};

use super::values::parse_text;

/// The librdkafka properties on which exact counting depends. `--kafka-property` refuses these properties.
pub const KAFKA_PROPERTIES_FIXED: [&str; 8] = [
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "group.id",
    "partition.assignment.strategy",
    "enable.partition.eof",
    "group.protocol",
];

/// Environment variables that hold secrets. No option can set a secret, because every user of a host can read command
/// lines.
pub const KAFKA_SECRET_VARIABLES: [&str; 2] =
    ["CITYSTREAM_KAFKA_PASSWORD", "CITYSTREAM_KAFKA_KEY_PASSWORD"];

/// The options that say how to reach Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap servers, as host:port separated by commas (also KAFKA_BOOTSTRAP_SERVERS)
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        default_value_t = brokers_default(),
        value_parser = parse_brokers,
    )]
    pub brokers: String,

    /// Topic of the events; rejected records go to <topic>-dlq (also KAFKA_TOPIC)
    #[arg(long, value_name = "NAME", default_value_t = topic_default(), value_parser = parse_topic)]
    pub topic: String,

    /// How to log in to Kafka
    #[arg(long, value_enum, default_value_t = KafkaAuth::Plaintext, value_name = "HOW")]
    pub kafka_auth: KafkaAuth,

    /// User name for scram
    #[arg(long, value_name = "NAME", value_parser = parse_text)]
    pub kafka_username: Option<String>,

    /// File with the password for scram; or set CITYSTREAM_KAFKA_PASSWORD
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    pub kafka_password_file: Option<PathBuf>,

    /// Certificate authorities of the brokers (PEM) [default: those of the host]
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    pub kafka_ca_file: Option<PathBuf>,

    /// Client certificate for mutual TLS (PEM), followed by any intermediate certificates
    #[arg(long, value_name = "FILE", requires = "kafka_key_file", value_parser = parse_file)]
    pub kafka_cert_file: Option<PathBuf>,

    /// Private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "kafka_cert_file", value_parser = parse_file)]
    pub kafka_key_file: Option<PathBuf>,

    /// File with the password of the private key; or set CITYSTREAM_KAFKA_KEY_PASSWORD
    #[arg(long, value_name = "FILE", requires = "kafka_key_file", value_parser = parse_file)]
    pub kafka_key_password_file: Option<PathBuf>,

    /// Any other librdkafka property, as name=value; can be repeated
    #[arg(
        long = "kafka-property",
        value_name = "NAME=VALUE",
        value_delimiter = ',',
        value_parser = parse_property,
    )]
    pub kafka_properties: Vec<(String, String)>,
}

impl KafkaArgs {
    /// Returns the name of the dead-letter topic.
    pub fn dlq_topic(&self) -> String {
        format!("{}-dlq", self.topic)
    }

    /// Returns the password for the login to Kafka, or `None` if the environment variable for this password is missing
    /// or empty.
    pub fn password() -> Option<String> {
        secret(KAFKA_SECRET_VARIABLES[0])
    }

    /// Returns the password of the private key, or `None` if the environment variable for this password is missing or
    /// empty.
    pub fn key_password() -> Option<String> {
        secret(KAFKA_SECRET_VARIABLES[1])
    }
}

/// How to log in to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KafkaAuth {
    /// Neither encryption nor a login.
    Plaintext,
    /// TLS, with the client certificate if one is set.
    Tls,
    /// SASL/SCRAM-SHA-512 over TLS.
    Scram,
    /// AWS credentials over TLS, for Amazon MSK.
    MskIam,
}

fn secret(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

/// Parses the path of a file. If systemd provides a credential of the given name (`LoadCredential=`), the function
/// returns the path of that credential.
fn parse_file(text: &str) -> Result<PathBuf, String> {
    let given = PathBuf::from(parse_text(text)?);
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
    // `join` returns an absolute path unchanged.
    let credential = folder.map(|folder| PathBuf::from(folder).join(&given));
    Ok(credential.filter(|path| path.is_file()).unwrap_or(given))
}

fn brokers_default() -> String {
    std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_else(|_| "localhost:9092".to_owned())
}

fn topic_default() -> String {
    std::env::var("KAFKA_TOPIC").unwrap_or_else(|_| "city-events".to_owned())
}

fn parse_brokers(text: &str) -> Result<String, String> {
    for server in text.split(',').map(str::trim) {
        // librdkafka accepts only a few URL schemes. If an address had an unknown scheme, librdkafka would try to
        // connect forever.
        if let Some((scheme, rest)) = server.split_once("://") {
            let rest = rest.split('/').next().unwrap_or_default();
            return Err(format!(
                "{server:?} begins with {scheme}://, which brokers do not have; give {rest} alone, \
                 and --kafka-auth for TLS and logins"
            ));
        }
        let is_server = server.rsplit_once(':').is_some_and(|(host, port)| {
            is_host(host) && u16::from_str(port).is_ok_and(|port| port > 0)
        });
        if !is_server {
            return Err(format!("{server:?} is not host:port"));
        }
    }
    Ok(text.to_owned())
}

/// Returns true if the text can be a host name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match inner {
        Some(address) => std::net::Ipv6Addr::from_str(address).is_ok(),
        None => {
            let foreign = |c: char| c.is_whitespace() || c.is_control() || "/:@[]?#".contains(c);
            !text.is_empty() && !text.contains(foreign)
        }
    }
}

fn parse_topic(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // Kafka limits topic names to 249 characters, and the dead-letter topic has the name of the topic plus "-dlq".
    if text.is_empty() || text.len() > 245 || matches!(text, "." | "..") || !text.chars().all(legal)
    {
        return Err("a topic has 1 to 245 of the characters a-z A-Z 0-9 . _ -".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("expected name=value".to_owned());
    };
    if KAFKA_PROPERTIES_FIXED.contains(&name) {
        return Err(format!(
            "{name} is fixed, because exact counting depends on it; also fixed: {}",
            KAFKA_PROPERTIES_FIXED
                .into_iter()
                .filter(|other| *other != name)
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}
