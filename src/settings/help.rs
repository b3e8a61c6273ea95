//! Defines the help texts of the command line: groups of commands, versions, and a note about environment variables.
//!
//! `main` parses the command line with [`command`]. Shell completions and manual pages are also generated from
//! [`command`].

use std::sync::LazyLock;

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

/// The commands, grouped by their purpose. A test checks that every command is in a group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Try it", &["dev"]),
    (
        "The pipeline",
        &["init-tables", "produce", "consume", "serve"],
    ),
    ("Notify people", &["notify", "silence"]),
    ("Look at it", &["tail", "verify"]),
    ("On a host", &["check", "config", "print", "help"]),
];
/// Options of `check`, `config` and `print` that cannot be set by an environment variable, because such a variable
/// would not be useful.
const WITHOUT_VARIABLE: [&str; 3] = ["for", "into", "shell"];
const HELP_OF_HELP: &str = "Print this help, or the help of a command";
const VARIABLES: &str =
    "Each option is also an environment variable: --log-format is CITYSTREAM_LOG_FORMAT.";

/// Returns the text that `--version` prints after the program's name. The text contains the version, the commit and the
/// version of librdkafka, each on its own line.
pub(super) fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        format!(
            "{}\ncommit {}\nlibrdkafka {librdkafka}",
            env!("CARGO_PKG_VERSION"),
            env!("BUILT_FROM"),
        )
    });
    &TEXT
}

/// Returns the definition of the command line, including the environment variable of each option and the grouped help.
pub fn command() -> Command {
    let mut command = Cli::command().mut_subcommands(|command| {
        let examples = command.get_after_help().map(ToString::to_string);
        let examples = examples.unwrap_or_default();
        command
            .mut_args(with_variable)
            // Without `allow_negative_numbers`, clap would report a negative number as an unknown option, and not as an
            // invalid value.
            .mut_args(|arg| {
                let takes_values = arg.get_action().takes_values();
                arg.allow_negative_numbers(takes_values)
            })
            .after_help(format!("{examples}\n\n{VARIABLES}"))
    });
    let groups = groups(&command);
    command = command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n{groups}\nOptions:\n{{options}}\n\n\
         citystream COMMAND --help shows a command's options and examples.\n{VARIABLES}\n"
    ));
    command
}

/// Lets an environment variable set the option `arg`. For example, `CITYSTREAM_LOG_FORMAT` sets `--log-format`.
fn with_variable(arg: Arg) -> Arg {
    match arg.get_long() {
        Some(long) if !WITHOUT_VARIABLE.contains(&long) => {
            let variable = format!("CITYSTREAM_{}", long.to_uppercase().replace('-', "_"));
            arg.env(variable).hide_env(true)
        }
        _ => arg,
    }
}

fn groups(command: &Command) -> String {
    let mut out = String::new();
    for (title, names) in GROUPS {
        let mut lines = String::new();
        for name in names {
            let found = command.find_subcommand(name);
            let about = match (found, *name) {
                (Some(found), _) => found.get_about().map(ToString::to_string),
                (None, "help") => Some(HELP_OF_HELP.to_owned()),
                // This build of the program does not contain the command `dev`.
                (None, _) => None,
            };
            if let Some(about) = about {
                lines.push_str(&format!("  {name:<11}  {about}\n"));
            }
        }
        if !lines.is_empty() {
            out.push_str(&format!("\n{title}:\n{lines}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_a_group_and_every_value_has_a_name() {
        let command = command();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name));
            assert_eq!(groups.count(), 1, "{name}");
            assert!(
                sub.get_after_help()
                    .is_some_and(|text| text.to_string().contains("Examples:\n")),
                "{name} has no examples"
            );
            for arg in sub.get_arguments() {
                let what = format!("{name} {}", arg.get_id());
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.ends_with('.'), "{what}: {help}");
                // Without an explicit value name, clap uses the name of the field, which contains underscores.
                let names = arg.get_value_names().unwrap_or_default();
                let chosen = !arg.get_action().takes_values()
                    || names.iter().all(|name| !name.contains('_'));
                assert!(chosen, "the value of {what} has no name");
            }
        }
    }

    #[test]
    fn the_version_names_commit_and_librdkafka() {
        let lines: Vec<&str> = long_version().lines().collect();
        assert_eq!(lines[0], env!("CARGO_PKG_VERSION"));
        assert!(lines[1].starts_with("commit "), "{lines:?}");
        assert!(lines[2].starts_with("librdkafka 2."), "{lines:?}");
        assert_eq!(lines.len(), 3);
    }
}
