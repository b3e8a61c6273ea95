//! Determines the settings that a role would use, each with its value and its origin.
//!
//! The values and their origins come from the same parser that the role uses. A value that may be a secret is shown as
//! `(hidden)`.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _};

use super::parse::{former_variable, matches};
use super::{Cli, Command, KAFKA_SECRET_VARIABLES, Role, command, show_ms};

/// Environment variables of the AWS libraries and of logging that change the behavior of a role.
const FOREIGN_VARIABLES: [&str; 12] = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ENDPOINT_URL_SNS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "RUST_LOG",
];

/// A setting of a role, with its value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The name of an option, such as `--row-interval`, or the name of an environment variable.
    pub name: String,
    /// The value of the setting, or `None` if the setting has no value.
    pub value: Option<String>,
    /// The origin of the value, such as the command line or an environment variable.
    pub origin: String,
}

/// A parsed command, and all settings from which the command was parsed.
#[derive(Debug)]
pub struct Parsed {
    /// The typed settings of the command.
    pub command: Command,
    /// Every option of the command, in the order of `--help`.
    pub settings: Vec<Effective>,
}

/// Parses the settings of a role from the environment and from `options`, in the same way as the role itself.
///
/// # Errors
/// Returns the parser's error, which names the option, the value and the allowed values.
pub fn parse_role(role: Role, options: &[String]) -> Result<Parsed, clap::Error> {
    let mut line: Vec<OsString> = vec!["citystream".into(), role.name().into()];
    line.extend(options.iter().map(OsString::from));
    let matches = matches(command(), &line)?;
    let command = Cli::from_arg_matches(&matches)?.command;
    let (_, own) = matches.subcommand().expect("the line names a role");
    let settings = settings_of(role, own, &command);
    Ok(Parsed { command, settings })
}

fn settings_of(role: Role, matches: &ArgMatches, parsed: &Command) -> Vec<Effective> {
    let cli = command();
    let command = cli
        .find_subcommand(role.name())
        .expect("every role is a subcommand");
    let mut out = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let Some(long) = arg
            .get_long()
            .filter(|long| !matches!(*long, "help" | "version"))
        else {
            continue;
        };
        let source = matches.value_source(id);
        let mut values: Vec<String> = matches.get_raw(id).map_or_else(Vec::new, |raw| {
            raw.map(|v| v.to_string_lossy().into_owned()).collect()
        });
        if id == "kafka_properties" {
            values = values.iter().map(|v| hide_property(v)).collect();
        }
        let variable = arg.get_env().map(|v| v.to_string_lossy().into_owned());
        let unset = source.is_none().then(|| default_of(arg, parsed)).flatten();
        let origin = match source {
            None if unset.is_some() => "default".to_owned(),
            None => "not set".to_owned(),
            Some(ValueSource::CommandLine) => "command line".to_owned(),
            Some(ValueSource::EnvVariable) => variable.unwrap_or_default(),
            Some(_) => former_variable(id)
                .filter(|name| std::env::var_os(name).is_some())
                .unwrap_or("default")
                .to_owned(),
        };
        out.push(Effective {
            name: format!("--{long}"),
            value: source.map(|_| hide_login(&values.join(","))).or(unset),
            origin,
        });
    }
    out
}

/// Returns the default of an option for which clap knows no default. The default of `--heartbeat` is computed in the
/// same way as in the role, and every other default is read from the help text.
fn default_of(arg: &clap::Arg, parsed: &Command) -> Option<String> {
    match (arg.get_id().as_str(), parsed) {
        ("heartbeat", Command::Produce(produce)) => Some(
            produce
                .heartbeat_ms()
                .map_or_else(|| "off".to_owned(), show_ms),
        ),
        _ => {
            let help = arg.get_help()?.to_string();
            let (_, default) = help.split_once("[default: ")?;
            Some(default.split(']').next()?.to_owned())
        }
    }
}

/// Returns all environment variables that are set and change the behavior of a role, except the variables that set
/// options.
pub fn other_variables() -> Vec<Effective> {
    let mut out = Vec::new();
    for name in KAFKA_SECRET_VARIABLES.iter().chain(&FOREIGN_VARIABLES) {
        if let Some(value) = std::env::var_os(name) {
            let value = if is_secret(name) {
                "(hidden)".to_owned()
            } else {
                hide_login(&value.to_string_lossy())
            };
            out.push(Effective {
                name: (*name).to_owned(),
                value: Some(value),
                origin: "environment".to_owned(),
            });
        }
    }
    out
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["password", "secret", "token", "access_key", "oauth", ".pem"];
    words.iter().any(|word| name.contains(word)) && !name.ends_with("_file")
}

/// Hides the user name and the password in each address of the form `http://name:password@host`.
pub fn hide_login(text: &str) -> String {
    let ends = |c: char| c == ',' || c.is_whitespace();
    let shown = |word: &str| {
        let begin = word
            .find("://")
            .map(|at| at + "://".len())
            .or_else(|| word.find('=').map(|at| at + 1))
            .unwrap_or(0);
        match word.rfind('@') {
            Some(at) if at > begin && word[begin..at].contains(':') => {
                format!("{}(hidden){}", &word[..begin], &word[at..])
            }
            _ => word.to_owned(),
        }
    };
    text.split_inclusive(ends).map(shown).collect()
}

/// Hides the value of a librdkafka property that may be a secret.
fn hide_property(property: &str) -> String {
    match property.split_once('=') {
        Some((name, _)) if is_secret(name) || name.contains("jaas") => format!("{name}=(hidden)"),
        _ => property.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_its_origin() {
        let options = ["--row-interval", "1s", "--kafka-property"].map(str::to_owned);
        let mut options = options.to_vec();
        options.push("sasl.password=s3cret".to_owned());
        let parsed = parse_role(Role::Consume, &options).unwrap();
        let find = |name: &str| {
            let found = parsed.settings.iter().find(|s| s.name == name);
            let found = found.unwrap_or_else(|| panic!("{name}"));
            (found.value.as_deref(), found.origin.as_str())
        };
        assert_eq!(find("--row-interval"), (Some("1s"), "command line"));
        assert_eq!(find("--raw-ttl"), (Some("30d"), "default"));
        assert_eq!(find("--kafka-username"), (None, "not set"));
        assert_eq!(
            find("--kafka-property"),
            (Some("sasl.password=(hidden)"), "command line")
        );
        assert!(!format!("{:?}", parsed.settings).contains("s3cret"));
    }

    #[test]
    fn an_option_that_is_not_set_is_shown_with_its_default() {
        let find = |role, options: &[&str], name: &str| {
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            let parsed = parse_role(role, &options).unwrap();
            let found = parsed.settings.into_iter().find(|s| s.name == name);
            let found = found.unwrap_or_else(|| panic!("{name}"));
            (found.value, found.origin)
        };
        let default = |value: &str| (Some(value.to_owned()), "default".to_owned());
        let beat = |options| find(Role::Produce, options, "--heartbeat");
        assert_eq!(beat(&[]), default("1m"));
        assert_eq!(beat(&["--input", "x"]), default("off"));
        assert_eq!(beat(&["--from-dlq"]), default("off"));
        assert_eq!(beat(&["--heartbeat", "5s"]).0.as_deref(), Some("5s"));
        assert_eq!(
            find(Role::Serve, &[], "--log-format"),
            default("text on a terminal, json elsewhere")
        );
        assert_eq!(find(Role::InitTables, &[], "--window"), default("5m"));
    }

    #[test]
    fn logins_in_addresses_are_hidden() {
        for (text, shown) in [
            ("http://u:s3cret@host:8000/x", "http://(hidden)@host:8000/x"),
            ("http.proxy=u:s3cret@host:1", "http.proxy=(hidden)@host:1"),
            (
                "https://:s3cret@a,http://v:s3cret@b",
                "https://(hidden)@a,http://(hidden)@b",
            ),
            (
                "DynamoDB at http://u:s3@cr=et@h",
                "DynamoDB at http://(hidden)@h",
            ),
            ("b-1:9092,b-2:9092", "b-1:9092,b-2:9092"),
            ("citystream-consume@1", "citystream-consume@1"),
        ] {
            assert_eq!(hide_login(text), shown);
        }
        let property = ["--kafka-property", "http.proxy=http://u:s3cret@host:1"];
        let parsed = parse_role(Role::Consume, &property.map(str::to_owned)).unwrap();
        assert!(!format!("{:?}", parsed.settings).contains("s3cret"));
    }

    #[test]
    fn possible_secrets_are_hidden() {
        for name in [
            "CITYSTREAM_KAFKA_PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "sasl.password",
            "ssl.key.pem",
            "sasl.oauthbearer.config",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_REGION", "debug"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
