//! Options every Kafka client of the program has in common.
//!
//! [`client_config`] turns the command line into librdkafka's properties. `--kafka-property` comes
//! last, so it wins; a role that has defaults of its own sets them with [`set_default`], which leaves
//! alone what the command line gave. Secrets come from files or the environment and are neither
//! logged nor shown. Files that cannot be used are found here, before anything connects.

use std::path::{Path, PathBuf};

use rdkafka::config::{ClientConfig, FromClientConfig as _, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::failure::Failure;
use crate::kafka::chatter::{IAM_PREFIX, IAM_PROPERTY};
use crate::kafka::iam::{self, IamError};
use crate::settings::{KafkaArgs, KafkaAuth, nearest, warn_if_others_can_read};
use crate::sys;

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
    /// An option means nothing without TLS, which the way to log in does not have.
    #[error("{option} has no effect with --kafka-auth plaintext; {UNENCRYPTED_REMEDY}")]
    Unencrypted {
        /// The option.
        option: &'static str,
    },
    /// A certificate, a key or an authority cannot be used.
    #[error("{option} cannot be used: {reason}")]
    Unusable {
        /// The option, or librdkafka's property.
        option: String,
        /// librdkafka's words.
        reason: String,
    },
    /// There is no way to log in with AWS's credentials.
    #[error("--kafka-auth msk-iam cannot log in: {0}")]
    Iam(IamError),
    /// librdkafka does not take a property.
    #[error(
        "Kafka property {name} cannot be set: {reason}{}",
        nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
    )]
    Property {
        /// The property.
        name: String,
        /// librdkafka's words.
        reason: String,
        /// The property with the most similar name, if librdkafka has none of this name.
        nearest: Option<String>,
    },
}

const UNENCRYPTED_REMEDY: &str = "give --kafka-auth tls, scram or msk-iam";

impl From<&ClientError> for Failure {
    fn from(error: &ClientError) -> Failure {
        match error {
            ClientError::Unencrypted { option } => Failure::new(format!(
                "{option} has no effect with --kafka-auth plaintext"
            ))
            .with_remedy(UNENCRYPTED_REMEDY),
            ClientError::Unusable { option, reason } => {
                Failure::new(format!("{option} cannot be used")).with_why(reason)
            }
            ClientError::Iam(error) => {
                let Failure { what, remedy, .. } = Failure::from(error);
                Failure {
                    what: "--kafka-auth msk-iam cannot log in".to_owned(),
                    why: Some(what),
                    remedy,
                }
            }
            ClientError::Property {
                name,
                reason,
                nearest,
            } => Failure {
                what: format!("Kafka property {name} cannot be set"),
                why: Some(reason.clone()),
                remedy: nearest.as_ref().map(|name| format!("did you mean {name}?")),
            },
            ClientError::Missing { .. } | ClientError::File { .. } | ClientError::Empty { .. } => {
                Failure::new(error.to_string())
            }
        }
    }
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
    log_in(&mut config, args)?;
    if let (Some(cert), Some(key)) = (&args.kafka_cert_file, &args.kafka_key_file) {
        set_file(
            &mut config,
            "ssl.certificate.location",
            "--kafka-cert-file",
            cert,
        )?;
        set_file(&mut config, "ssl.key.location", "--kafka-key-file", key)?;
        warn_if_others_can_read("--kafka-key-file", key);
        let from_file = args.kafka_key_password_file.as_deref();
        let from_file = from_file.map(|path| read_secret("--kafka-key-password-file", path));
        if let Some(password) = from_file.transpose()?.or_else(KafkaArgs::key_password) {
            config.set("ssl.key.password", password);
        }
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
    if config.get("security.protocol").is_some() {
        assert!(
            sys::openssl_knows_threads(),
            "OpenSSL must be built with threads"
        );
        try_files(&config)?;
    }
    Ok(config)
}

/// Sets what `--kafka-auth` stands for.
fn log_in(config: &mut ClientConfig, args: &KafkaArgs) -> Result<(), ClientError> {
    match args.kafka_auth {
        KafkaAuth::Plaintext => {
            let by_property = args
                .kafka_properties
                .iter()
                .any(|(name, _)| name == "security.protocol");
            let given = [
                ("--kafka-ca-file", args.kafka_ca_file.is_some()),
                ("--kafka-cert-file", args.kafka_cert_file.is_some()),
                ("--kafka-username", args.kafka_username.is_some()),
                ("--kafka-password-file", args.kafka_password_file.is_some()),
            ];
            // Whoever names an authority believes that the connection is encrypted.
            if let Some((option, _)) = given.into_iter().find(|(_, given)| *given && !by_property) {
                return Err(ClientError::Unencrypted { option });
            }
        }
        KafkaAuth::Tls => {
            config.set("security.protocol", "ssl");
        }
        KafkaAuth::Scram => {
            let missing = |option| ClientError::Missing {
                auth: "scram",
                option,
            };
            let user = args.kafka_username.as_ref();
            let option = "--kafka-password-file";
            let from_file = args.kafka_password_file.as_deref();
            let from_file = from_file
                .map(|path| read_secret(option, path))
                .transpose()?;
            let password = from_file.or_else(KafkaArgs::password);
            config
                .set("security.protocol", "sasl_ssl")
                .set("sasl.mechanism", "SCRAM-SHA-512")
                .set("sasl.username", user.ok_or(missing("--kafka-username"))?)
                .set("sasl.password", password.ok_or(missing(option))?);
        }
        KafkaAuth::MskIam => {
            config
                .set("security.protocol", "sasl_ssl")
                .set("sasl.mechanism", "OAUTHBEARER")
                .set(
                    IAM_PROPERTY,
                    format!("{IAM_PREFIX}{}", iam::region().map_err(ClientError::Iam)?),
                );
        }
    }
    Ok(())
}

/// Has librdkafka load certificates and keys, which it does when a client is made, for a client that
/// connects to nobody.
fn try_files(config: &ClientConfig) -> Result<(), ClientError> {
    let mut config = config.clone();
    config.remove("bootstrap.servers");
    let Err(error) = BaseProducer::from_config(&config) else {
        return Ok(());
    };
    let reason = match &error {
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    let property = reason.split(' ').next().unwrap_or_default();
    let option = match property {
        "ssl.ca.location" => "--kafka-ca-file",
        "ssl.certificate.location" => "--kafka-cert-file",
        "ssl.key.location" => "--kafka-key-file",
        other => other,
    };
    let hint = if reason.contains("key values mismatch") {
        "it does not belong to --kafka-cert-file: "
    } else if option == "--kafka-key-file" && config.get("ssl.key.password").is_some() {
        "no PEM key, or --kafka-key-password-file holds another password: "
    } else if option == "--kafka-key-file" {
        "no PEM key, or an encrypted one, which needs --kafka-key-password-file: "
    } else if option.starts_with("--") {
        "no PEM certificate: "
    } else {
        ""
    };
    Err(ClientError::Unusable {
        option: option.to_owned(),
        reason: format!("{hint}{reason}"),
    })
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
            let nearest = nearest_property(&name, &reason);
            Err(ClientError::Property {
                name,
                reason,
                nearest,
            })
        }
        Err(other) => Err(ClientError::Property {
            name: "set".to_owned(),
            reason: other.to_string(),
            nearest: None,
        }),
    }
}

/// Returns the property with the most similar name, if `reason` says that librdkafka has none of
/// this name.
fn nearest_property(name: &str, reason: &str) -> Option<String> {
    if !reason.contains("No such") {
        return None;
    }
    let known = sys::kafka_properties();
    nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
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

fn read_secret(option: &'static str, path: &Path) -> Result<String, ClientError> {
    warn_if_others_can_read(option, path);
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
        for auth in ["plaintext", "tls"] {
            let line = format!("--kafka-auth {auth} --kafka-ca-file /nonexistent");
            let error = client_config(&args(&line), "t").expect_err(&line);
            assert!(error.to_string().contains("--kafka-ca-file"), "{error}");
        }
    }

    #[test]
    fn an_authority_without_tls_is_refused_since_nothing_would_be_encrypted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for option in ["--kafka-ca-file", "--kafka-password-file"] {
            let line = format!("{option} {}", file.path().display());
            let error = client_config(&args(&line), "t").expect_err(&line);
            assert!(matches!(error, ClientError::Unencrypted { .. }), "{error}");
            assert!(error.to_string().contains(option), "{error}");
        }
        // Whoever sets the protocol by a property knows what it does.
        let line = "--kafka-password-file /dev/null --kafka-property security.protocol=ssl";
        client_config(&args(line), "t").unwrap();
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "no certificate").unwrap();
        let path = file.path().display();
        for (option, line) in [
            ("--kafka-ca-file", format!("--kafka-ca-file {path}")),
            (
                "--kafka-cert-file",
                format!("--kafka-cert-file {path} --kafka-key-file {path}"),
            ),
        ] {
            let line = format!("--kafka-auth tls {line}");
            let error = client_config(&args(&line), "t").expect_err(&line);
            let text = error.to_string();
            assert!(matches!(error, ClientError::Unusable { .. }), "{text}");
            assert!(text.contains(option), "{text}");
        }
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
        assert!(
            error.to_string().contains("mean fetch.min.bytes?"),
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
}
