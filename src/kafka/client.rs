//! Options every Kafka client of the program has in common, and what it does with their log lines.
//!
//! [`client_config`] turns the command line into librdkafka's properties. `--kafka-property` comes
//! last, so it wins; a role that has defaults of its own sets them with [`set_default`], which leaves
//! alone what the command line gave. Secrets come from files and are neither logged nor shown.
//!
//! librdkafka reports every lost connection as an error, many times over, though it mends them by
//! itself. [`Chatter`] passes on what a person should see (C14): idle disconnects are debug, brokers
//! that are away a warning at most every 30 seconds, and an error once that has lasted for 30.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::settings::{KafkaArgs, KafkaAuth};

/// Least time between two lines about brokers that are away, and how long that lasts before it is
/// an error.
const OUTAGE_LINE_EVERY: Duration = Duration::from_secs(30);
/// Without news of an outage for so long, the next one is a new one. librdkafka tries again at least
/// every ten seconds.
const OUTAGE_OVER_AFTER: Duration = Duration::from_secs(60);

/// Why there can be no client; settings are wrong in each case (exit code 2).
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An option that this way to log in needs was not given.
    #[error("--kafka-auth {auth} needs {option}")]
    Missing {
        /// The way to log in.
        auth: &'static str,
        /// The option.
        option: &'static str,
    },
    /// A file could not be read.
    #[error("failed to read {} ({option})", path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The password file is empty.
    #[error("{} ({option}) holds no password", path.display())]
    Empty {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// librdkafka does not take a property.
    #[error("Kafka property {name} cannot be set: {reason}")]
    Property {
        /// The property.
        name: String,
        /// librdkafka's words.
        reason: String,
    },
}

/// Returns the properties a client of `role` has: servers, name, login, trusted authorities and
/// whatever `--kafka-property` says.
///
/// # Errors
/// See [`ClientError`].
pub fn client_config(args: &KafkaArgs, role: &str) -> Result<ClientConfig, ClientError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.brokers)
        .set("client.id", format!("citystream-{role}"))
        .set("socket.keepalive.enable", "true");
    // The built-in OpenSSL would look where it was built, not where this host keeps them (F2).
    match &args.kafka_ca_file {
        Some(path) => set_file(&mut config, "ssl.ca.location", "--kafka-ca-file", path)?,
        None => {
            config.set("ssl.ca.location", "probe");
        }
    }
    match args.kafka_auth {
        KafkaAuth::Plaintext => {}
        KafkaAuth::Tls => {
            config.set("security.protocol", "ssl");
        }
        KafkaAuth::Scram => {
            let missing = |option| ClientError::Missing {
                auth: "scram",
                option,
            };
            let user = args.kafka_username.as_ref();
            let file = args.kafka_password_file.as_ref();
            let password = read_password(file.ok_or(missing("--kafka-password-file"))?)?;
            config
                .set("security.protocol", "sasl_ssl")
                .set("sasl.mechanism", "SCRAM-SHA-512")
                .set("sasl.username", user.ok_or(missing("--kafka-username"))?)
                .set("sasl.password", password);
        }
    }
    if let (Some(cert), Some(key)) = (&args.kafka_cert_file, &args.kafka_key_file) {
        set_file(
            &mut config,
            "ssl.certificate.location",
            "--kafka-cert-file",
            cert,
        )?;
        set_file(&mut config, "ssl.key.location", "--kafka-key-file", key)?;
    }
    // Without this the level of another logging library decides, which is off.
    let debug = args
        .kafka_properties
        .iter()
        .any(|(name, _)| name == "debug");
    config.set_log_level(if debug {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    });
    for (name, value) in &args.kafka_properties {
        config.set(name, value);
    }
    check(&config)?;
    Ok(config)
}

/// Sets a property to the role's own default, unless the command line gave it.
pub fn set_default(config: &mut ClientConfig, args: &KafkaArgs, name: &str, value: &str) {
    if !args.kafka_properties.iter().any(|(given, _)| given == name) {
        config.set(name, value);
    }
}

/// Asks librdkafka whether it takes every property.
///
/// # Errors
/// [`ClientError::Property`] with the first it does not.
pub fn check(config: &ClientConfig) -> Result<(), ClientError> {
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, reason, name, _)) => {
            Err(ClientError::Property { name, reason })
        }
        Err(other) => Err(ClientError::Property {
            name: "set".to_owned(),
            reason: other.to_string(),
        }),
    }
}

fn set_file(
    config: &mut ClientConfig,
    property: &str,
    option: &'static str,
    path: &Path,
) -> Result<(), ClientError> {
    // librdkafka would report an unreadable file only later, and without the option.
    std::fs::File::open(path).map_err(|source| ClientError::File {
        option,
        path: path.to_owned(),
        source,
    })?;
    config.set(property, path.to_string_lossy());
    Ok(())
}

fn read_password(path: &Path) -> Result<String, ClientError> {
    let option = "--kafka-password-file";
    let text = std::fs::read_to_string(path).map_err(|source| ClientError::File {
        option,
        path: path.to_owned(),
        source,
    })?;
    // Editors end files with a line break; a password holds none.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(ClientError::Empty {
            option,
            path: path.to_owned(),
        });
    }
    Ok(password.to_owned())
}

/// How loud a line of librdkafka's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    Error,
    Warn,
    Debug,
    /// About a connection that failed: counts toward an outage.
    Outage,
}

/// Decides by level, facility and text.
fn judge(level: RDKafkaLogLevel, facility: &str, message: &str) -> Loudness {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            Loudness::Error
        }
        // What brokers do with idle connections every ten minutes, and on every restart.
        _ if message.contains("Disconnected") || message.contains("idle") => Loudness::Debug,
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
            if matches!(facility, "FAIL" | "ERROR" | "REQTMOUT") =>
        {
            Loudness::Outage
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility == "CONFWARN" => {
            Loudness::Debug
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => Loudness::Warn,
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => Loudness::Debug,
    }
}

/// Which lines about one outage are passed on.
#[derive(Debug, Default)]
struct Outage {
    began: Option<Instant>,
    last: Option<Instant>,
    last_line: Option<Instant>,
}

impl Outage {
    /// Takes news of a failed connection at `now`; returns how to report it.
    fn note(&mut self, now: Instant) -> Loudness {
        let over = self
            .last
            .is_none_or(|last| now.duration_since(last) >= OUTAGE_OVER_AFTER);
        if over {
            *self = Outage::default();
        }
        let began = *self.began.get_or_insert(now);
        self.last = Some(now);
        let due = self
            .last_line
            .is_none_or(|line| now.duration_since(line) >= OUTAGE_LINE_EVERY);
        if !due {
            return Loudness::Debug;
        }
        self.last_line = Some(now);
        if now.duration_since(began) >= OUTAGE_LINE_EVERY {
            Loudness::Error
        } else {
            Loudness::Warn
        }
    }
}

/// Passes librdkafka's log lines and errors on, as loud as they deserve.
#[derive(Debug, Default)]
pub struct Chatter {
    outage: Mutex<Outage>,
}

impl Chatter {
    /// For [`ClientContext::log`].
    pub fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match judge(level, facility, message) {
            Loudness::Error => tracing::error!(facility, message, "librdkafka"),
            Loudness::Warn => tracing::warn!(facility, message, "librdkafka"),
            Loudness::Debug => tracing::debug!(facility, message, "librdkafka"),
            Loudness::Outage => self.outage(message),
        }
    }

    /// For [`ClientContext::error`].
    pub fn error(&self, error: &KafkaError, reason: &str) {
        let away = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::OperationTimedOut
            )
        );
        if reason.contains("Disconnected") {
            tracing::debug!(reason, "lost a connection to kafka");
        } else if away {
            self.outage(reason);
        } else {
            tracing::warn!(%error, reason, "librdkafka");
        }
    }

    fn outage(&self, reason: &str) {
        let loudness = self
            .outage
            .lock()
            .expect("no panic holds the outage")
            .note(Instant::now());
        match loudness {
            Loudness::Error => tracing::error!(reason, "kafka is away"),
            Loudness::Warn => tracing::warn!(reason, "failed to reach a kafka broker"),
            Loudness::Debug | Loudness::Outage => {
                tracing::debug!(reason, "failed to reach a kafka broker");
            }
        }
    }
}

/// The context of clients that need no callbacks of their own.
#[derive(Debug, Default)]
pub struct Context {
    chatter: Chatter,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.chatter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.chatter.error(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::io::Write as _;

    fn args(line: &str) -> KafkaArgs {
        let line = format!("citystream init-tables {line}");
        let words = line.split_whitespace();
        match crate::settings::Cli::try_parse_from(words).unwrap().command {
            crate::settings::Command::InitTables(args) => args.kafka,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn f2_authorities_are_looked_for_unless_given() {
        let config = client_config(&args(""), "test").unwrap();
        assert_eq!(config.get("ssl.ca.location"), Some("probe"));
        assert_eq!(config.get("client.id"), Some("citystream-test"));
        assert_eq!(config.get("security.protocol"), None);
        let error = client_config(&args("--kafka-ca-file /nonexistent"), "t").expect_err("none");
        assert!(error.to_string().contains("--kafka-ca-file"), "{error}");
    }

    #[test]
    fn scram_logs_in_over_tls_with_the_files_password_and_hides_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "s3cret").unwrap();
        let line = format!(
            "--kafka-auth scram --kafka-username u --kafka-password-file {}",
            file.path().display()
        );
        let config = client_config(&args(&line), "t").unwrap();
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(config.get("sasl.password"), Some("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
        for line in [
            "--kafka-auth scram --kafka-username u",
            "--kafka-auth scram --kafka-password-file /dev/null --kafka-username u",
        ] {
            let error = client_config(&args(line), "t").expect_err(line);
            assert!(
                error.to_string().contains("--kafka-password-file"),
                "{error}"
            );
        }
    }

    #[test]
    fn j5_a_property_nobody_knows_is_named() {
        let line = "--kafka-property fetch.min.byte=1";
        let error = client_config(&args(line), "t").expect_err(line);
        assert!(
            matches!(&error, ClientError::Property { name, .. } if name == "fetch.min.byte"),
            "{error}"
        );
        let line = "--kafka-property fetch.min.bytes=many";
        let error = client_config(&args(line), "t").expect_err(line);
        assert!(error.to_string().contains("fetch.min.bytes"), "{error}");
    }

    #[test]
    fn the_command_line_wins_over_a_roles_default() {
        let args = args("--kafka-property session.timeout.ms=6000");
        let mut config = client_config(&args, "t").unwrap();
        set_default(&mut config, &args, "session.timeout.ms", "10000");
        set_default(&mut config, &args, "heartbeat.interval.ms", "3000");
        assert_eq!(config.get("session.timeout.ms"), Some("6000"));
        assert_eq!(config.get("heartbeat.interval.ms"), Some("3000"));
    }

    #[test]
    fn c14_idle_disconnects_are_quiet_and_outages_told_once_in_a_while() {
        let idle = "b1:9092/1: Disconnected (after 600123ms in state UP)";
        assert_eq!(judge(RDKafkaLogLevel::Error, "FAIL", idle), Loudness::Debug);
        let refused = "b1:9092/1: Connect to ipv4#… failed: Connection refused";
        assert_eq!(
            judge(RDKafkaLogLevel::Error, "FAIL", refused),
            Loudness::Outage
        );
        let mut outage = Outage::default();
        let begin = Instant::now();
        let mut told = Vec::new();
        for second in 0..70 {
            let loudness = outage.note(begin + Duration::from_secs(second));
            if loudness != Loudness::Debug {
                told.push((second, loudness));
            }
        }
        assert_eq!(
            told,
            [
                (0, Loudness::Warn),
                (30, Loudness::Error),
                (60, Loudness::Error)
            ]
        );
        let later = begin + Duration::from_secs(1_000);
        assert_eq!(outage.note(later), Loudness::Warn);
    }
}
