//! Sets the librdkafka properties of all Kafka clients of the program.
//!
//! [`client_config`] converts command-line options to librdkafka properties. [`client_config`] applies the option
//! `--kafka-property` last, so that this option overrides the others. [`set_default`] sets a property to the default of
//! a subcommand, unless the command line sets the property. Secrets come from files or from the environment, and the
//! program never logs or shows them. This module detects unusable certificate, key and password files before the
//! program connects.

use std::path::{Path, PathBuf};

use rdkafka::config::{ClientConfig, FromClientConfig as _, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use crate::failure::Failure;
use crate::kafka::client_errors::{IAM_PREFIX, IAM_PROPERTY};
use crate::kafka::iam::{self, IamError};
use crate::settings::{KafkaArgs, KafkaAuth, nearest, warn_if_others_can_read};
use crate::sys;

/// The reason why a setting of the Kafka client is unusable. The program then exits with code 2.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// The login mechanism needs an option that is not set.
    #[error("--kafka-auth {auth} needs {option}")]
    Missing {
        /// The value of `--kafka-auth`.
        auth: &'static str,
        /// The option that is missing.
        option: &'static str,
    },
    /// The program could not read a file that an option names.
    #[error("failed to read {} ({option})", path.display())]
    File {
        /// The option that names the file.
        option: &'static str,
        /// The path of the unreadable file.
        path: PathBuf,
        /// The error from the operating system.
        source: std::io::Error,
    },
    /// The password file is empty.
    #[error("{} ({option}) holds no password", path.display())]
    Empty {
        /// The option that names the password file.
        option: &'static str,
        /// The path of the password file.
        path: PathBuf,
    },
    /// The command line sets an option that has no effect without TLS.
    #[error("{option} has no effect with --kafka-auth plaintext; {UNENCRYPTED_REMEDY}")]
    Unencrypted {
        /// The option that has no effect.
        option: &'static str,
    },
    /// A TLS certificate or a private key is unusable.
    #[error("{option} cannot be used: {reason}")]
    Unusable {
        /// The name of the command-line option or of the librdkafka property.
        option: String,
        /// The message from librdkafka.
        reason: String,
    },
    /// The login with AWS credentials cannot work.
    #[error("--kafka-auth msk-iam cannot log in: {0}")]
    Iam(IamError),
    /// librdkafka refuses a property that the command line sets.
    #[error(
        "Kafka property {name} cannot be set: {reason}{}",
        nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
    )]
    Property {
        /// The name of the property.
        name: String,
        /// The message from librdkafka.
        reason: String,
        /// The existing property with the most similar name, if the given property does not exist.
        nearest: Option<String>,
    },
}

const UNENCRYPTED_REMEDY: &str = "give --kafka-auth tls, scram or msk-iam";

impl From<&ClientConfigError> for Failure {
    fn from(error: &ClientConfigError) -> Failure {
        match error {
            ClientConfigError::Unencrypted { option } => Failure::new(format!(
                "{option} has no effect with --kafka-auth plaintext"
            ))
            .with_remedy(UNENCRYPTED_REMEDY),
            ClientConfigError::Unusable { option, reason } => {
                Failure::new(format!("{option} cannot be used")).with_why(reason)
            }
            ClientConfigError::Iam(error) => {
                let Failure { what, remedy, .. } = Failure::from(error);
                Failure {
                    what: "--kafka-auth msk-iam cannot log in".to_owned(),
                    why: Some(what),
                    remedy,
                }
            }
            ClientConfigError::Property {
                name,
                reason,
                nearest,
            } => Failure {
                what: format!("Kafka property {name} cannot be set"),
                why: Some(reason.clone()),
                remedy: nearest.as_ref().map(|name| format!("did you mean {name}?")),
            },
            ClientConfigError::Missing { .. }
            | ClientConfigError::File { .. }
            | ClientConfigError::Empty { .. } => Failure::new(error.to_string()),
        }
    }
}

/// Returns the properties of a Kafka client for the subcommand `role`. The properties contain the brokers' addresses,
/// the client's name, the login, the trusted certificate authorities, and the values from `--kafka-property`.
///
/// # Errors
/// For the possible errors, see [`ClientConfigError`].
pub fn client_config(args: &KafkaArgs, role: &str) -> Result<ClientConfig, ClientConfigError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.brokers)
        .set("client.id", format!("citystream-{role}"))
        .set("socket.keepalive.enable", "true");
    // The value "probe" makes librdkafka search for the certificate authorities of this host. Otherwise, the statically
    // linked OpenSSL would look in the folder that was set when OpenSSL was built.
    match &args.kafka_ca_file {
        Some(path) => set_file(&mut config, "ssl.ca.location", "--kafka-ca-file", path)?,
        None => {
            config.set("ssl.ca.location", "probe");
        }
    }
    set_login(&mut config, args)?;
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
    // Without an explicit log level, the rdkafka crate uses the maximum level of the `log` crate. In this program, this
    // level is `Off`, because the program installs no logger for the `log` crate.
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
    check_properties(&config)?;
    if config.get("security.protocol").is_some() {
        assert!(
            sys::openssl_knows_threads(),
            "OpenSSL must be built with threads"
        );
        check_files(&config)?;
    }
    Ok(config)
}

/// Sets the librdkafka properties for the login that `--kafka-auth` selects.
fn set_login(config: &mut ClientConfig, args: &KafkaArgs) -> Result<(), ClientConfigError> {
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
            // An operator who sets a certificate authority or a password expects an encrypted connection.
            if let Some((option, _)) = given.into_iter().find(|(_, given)| *given && !by_property) {
                return Err(ClientConfigError::Unencrypted { option });
            }
        }
        KafkaAuth::Tls => {
            config.set("security.protocol", "ssl");
        }
        KafkaAuth::Scram => {
            let missing = |option| ClientConfigError::Missing {
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
                    format!(
                        "{IAM_PREFIX}{}",
                        iam::region().map_err(ClientConfigError::Iam)?
                    ),
                );
        }
    }
    Ok(())
}

/// Makes librdkafka load the certificates and keys, and returns an error if a file is unusable. The function creates a
/// client without brokers, because librdkafka loads the files only when it creates a client.
fn check_files(config: &ClientConfig) -> Result<(), ClientConfigError> {
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
    Err(ClientConfigError::Unusable {
        option: option.to_owned(),
        reason: format!("{hint}{reason}"),
    })
}

/// Sets a property to the default of a subcommand, unless the command line sets the property.
pub fn set_default(config: &mut ClientConfig, args: &KafkaArgs, name: &str, value: &str) {
    if !args.kafka_properties.iter().any(|(given, _)| given == name) {
        config.set(name, value);
    }
}

/// Checks that librdkafka accepts every property.
///
/// # Errors
/// Returns [`ClientConfigError::Property`] with the first property that librdkafka refuses.
pub fn check_properties(config: &ClientConfig) -> Result<(), ClientConfigError> {
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, reason, name, _)) => {
            let nearest = nearest_property(&name, &reason);
            Err(ClientConfigError::Property {
                name,
                reason,
                nearest,
            })
        }
        Err(other) => Err(ClientConfigError::Property {
            name: "set".to_owned(),
            reason: other.to_string(),
            nearest: None,
        }),
    }
}

/// Returns the existing property whose name is most similar to `name`. `reason` is the message from librdkafka. Returns
/// `None` if this message does not report an unknown property.
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
) -> Result<(), ClientConfigError> {
    // librdkafka reports an unreadable file only later, and its message does not name the option.
    std::fs::File::open(path).map_err(|source| ClientConfigError::File {
        option,
        path: path.to_owned(),
        source,
    })?;
    config.set(property, path.to_string_lossy());
    Ok(())
}

fn read_secret(option: &'static str, path: &Path) -> Result<String, ClientConfigError> {
    warn_if_others_can_read(option, path);
    let text = std::fs::read_to_string(path).map_err(|source| ClientConfigError::File {
        option,
        path: path.to_owned(),
        source,
    })?;
    // Editors end a file with a line break, which is not part of the password.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(ClientConfigError::Empty {
            option,
            path: path.to_owned(),
        });
    }
    Ok(password.to_owned())
}

/// Sets the properties of a member of a consumer group. The program, and not librdkafka, chooses the start offsets and
/// the commits of this member. The member skips records of aborted transactions, and gets an event at the end of each
/// partition.
pub(crate) fn configure_member(config: &mut ClientConfig, group: &str) {
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
}

/// Sets the properties of a client that reads assigned partitions and commits no offsets. The client skips records of
/// aborted transactions, and gets an event at the end of each partition. The client joins no group, but librdkafka
/// still requires the name of a group (`group`).
pub(crate) fn configure_scan(config: &mut ClientConfig, group: &str) {
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest");
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
    fn the_hosts_authorities_are_used_unless_a_file_is_given() {
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
    fn tls_options_without_tls_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for option in ["--kafka-ca-file", "--kafka-password-file"] {
            let line = format!("{option} {}", file.path().display());
            let error = client_config(&args(&line), "t").expect_err(&line);
            assert!(
                matches!(error, ClientConfigError::Unencrypted { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(option), "{error}");
        }
        // A `--kafka-property` may set the security protocol instead of `--kafka-auth`.
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
            assert!(
                matches!(error, ClientConfigError::Unusable { .. }),
                "{text}"
            );
            assert!(text.contains(option), "{text}");
        }
    }

    #[test]
    fn scram_uses_tls_and_hides_the_password_from_the_file() {
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
    fn an_unknown_property_is_named_with_a_suggestion() {
        let line = "--kafka-property fetch.min.byte=1";
        let error = client_config(&args(line), "t").expect_err(line);
        assert!(
            matches!(&error, ClientConfigError::Property { name, .. } if name == "fetch.min.byte"),
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
