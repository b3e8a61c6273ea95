//! The options of `check`, `config` and `print`.

use clap::{Args, ValueEnum};

use super::LogArgs;

/// A command that uses Kafka or the DynamoDB tables. `check` tests the settings of a role, and `config` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// `citystream produce`
    Produce,
    /// `citystream consume`
    Consume,
    /// `citystream serve`
    Serve,
    /// `citystream notify`
    Notify,
    /// `citystream init-tables`
    InitTables,
    /// `citystream tail`
    Tail,
    /// `citystream verify`
    Verify,
}

impl Role {
    /// The roles that run as a service.
    pub const SERVICES: [Role; 4] = [Role::Produce, Role::Consume, Role::Serve, Role::Notify];

    /// Returns the name of the role's command.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Produce => "produce",
            Role::Consume => "consume",
            Role::Serve => "serve",
            Role::Notify => "notify",
            Role::InitTables => "init-tables",
            Role::Tail => "tail",
            Role::Verify => "verify",
        }
    }
}

/// The options of `citystream check`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 the role can run, 1 something is missing or does not answer, 2 a setting is wrong.\n\n\
                  Examples:\n  citystream check --for consume\n  citystream check --for consume --brokers b-1:9092 --group night\n  \
                  systemd-run --pipe -p EnvironmentFile=/etc/citystream/common.env citystream check --for serve"
)]
pub struct Check {
    /// Role to check
    #[arg(long = "for", value_enum, value_name = "ROLE", required = true)]
    pub role: Role,

    /// Options of the role
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    pub options: Vec<String>,

    #[command(flatten)]
    pub log: LogArgs,
}

/// The kinds of files that are embedded in the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carried {
    /// systemd units
    Units,
    /// Environment files for the units, with every setting explained and commented out
    Env,
    /// Scrape configuration for Prometheus
    Scrape,
    /// Alert rules for Prometheus
    Alerts,
    /// Dashboards for Grafana
    Dashboards,
    /// IAM policies, one per role
    Iam,
    /// CloudFormation template with the tables and policies
    Cloudformation,
    /// OpenAPI 3.1 description of the REST API
    Openapi,
    /// Manual pages, one per command
    Man,
    /// Shell completions for --shell; with --into, for every shell
    Completions,
}

/// A shell for which completions can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// The options of `citystream print`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream print units --into /etc/systemd/system\n  citystream print alerts\n  citystream print cloudformation --table-prefix city > tables.json\n  citystream print completions --shell bash > ~/.local/share/bash-completion/completions/citystream"
)]
pub struct Print {
    /// What to print
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Carried,

    /// Write the files into this folder instead of printing them
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<std::path::PathBuf>,

    /// Shell of the completions
    #[arg(long, value_enum, value_name = "SHELL")]
    pub shell: Option<CompletionShell>,

    #[command(flatten)]
    pub tables: super::TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// The options of `citystream config`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream config\n  citystream config --for consume --row-interval 1s"
)]
pub struct Config {
    /// Role whose settings to print [default: produce, consume, serve and notify, which run as services]
    #[arg(long = "for", value_enum, value_name = "ROLE")]
    pub role: Option<Role>,

    /// Options of the role
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS",
        requires = "role"
    )]
    pub options: Vec<String>,

    #[command(flatten)]
    pub log: LogArgs,
}

impl Config {
    /// Returns the roles whose settings `config` prints.
    pub fn roles(&self) -> Vec<Role> {
        self.role.map_or(Role::SERVICES.to_vec(), |role| vec![role])
    }
}
