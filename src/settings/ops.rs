//! Options of the commands that look at settings or print what the binary carries.

use clap::{Args, ValueEnum};

use super::LogArgs;

/// A command that works with Kafka or the tables, so that its settings and rights can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// `citystream produce`
    Produce,
    /// `citystream consume`
    Consume,
    /// `citystream serve`
    Serve,
    /// `citystream init-tables`
    InitTables,
    /// `citystream tail`
    Tail,
    /// `citystream verify`
    Verify,
}

impl Role {
    /// The roles that run as a service.
    pub const SERVICES: [Role; 3] = [Role::Produce, Role::Consume, Role::Serve];

    /// Returns the command's name.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Produce => "produce",
            Role::Consume => "consume",
            Role::Serve => "serve",
            Role::InitTables => "init-tables",
            Role::Tail => "tail",
            Role::Verify => "verify",
        }
    }
}

/// `citystream check`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 the role can run, 1 something is away or missing, 2 a setting is wrong.\n\n\
                  Examples:\n  citystream check --for consume\n  citystream check --for consume --brokers b-1:9092 --group night\n  \
                  systemd-run --pipe -p EnvironmentFile=/etc/citystream/common.env citystream check --for serve"
)]
pub struct Check {
    /// The role to check
    #[arg(long = "for", value_enum, value_name = "ROLE", required = true)]
    pub role: Role,

    /// Options of the role, as it would be given them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    pub options: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// What the binary carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carried {
    /// systemd's units, one file each
    Units,
    /// Environment files of the units, every setting explained and commented out
    Env,
    /// Prometheus' scrape configuration
    Scrape,
    /// Prometheus' alert rules
    Alerts,
    /// Grafana's dashboards
    Dashboards,
    /// IAM policies, one a role
    Iam,
    /// A CloudFormation template of tables and policies
    Cloudformation,
    /// The REST API's description, OpenAPI 3.1
    Openapi,
    /// Manual pages, one a command
    Man,
    /// Completions for --shell; with --into, for each shell
    Completions,
}

/// A shell that completes commands and options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// `citystream print`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream print units --into /etc/systemd/system\n  citystream print alerts\n  citystream print cloudformation --table-prefix city > tables.json\n  source <(citystream print completions --shell bash)"
)]
pub struct Print {
    /// What to print
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Carried,

    /// Write files into this folder instead
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<std::path::PathBuf>,

    /// The shell of completions
    #[arg(long, value_enum, value_name = "SHELL")]
    pub shell: Option<Shell>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub tables: super::TableArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

/// `citystream config`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream config\n  citystream config --for consume --row-interval 1s"
)]
pub struct Config {
    /// The role whose settings to print [default: every role that runs as a service]
    #[arg(long = "for", value_enum, value_name = "ROLE")]
    pub role: Option<Role>,

    /// Options of the role, as it would be given them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS",
        requires = "role"
    )]
    pub options: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArgs,
}

impl Config {
    /// Returns the roles whose settings are shown.
    pub fn roles(&self) -> Vec<Role> {
        self.role.map_or(Role::SERVICES.to_vec(), |role| vec![role])
    }
}
