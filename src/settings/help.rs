//! The command line as people see it: groups, versions, and one way to say where else values come from.
//!
//! [`command`] is what `main` parses, and what completions and man pages are made from.

use std::sync::LazyLock;

use clap::{Command, CommandFactory as _};

use super::Cli;

/// The commands by what somebody wants; what is in none of them is a bug that a test finds.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Try it", &["dev"]),
    (
        "The pipeline",
        &["init-tables", "produce", "consume", "serve"],
    ),
    ("Look at it", &["tail", "verify"]),
    ("On a host", &["check", "config", "print", "help"]),
];
const HELP_OF_HELP: &str = "Print this, or the help of a command";
const VARIABLES: &str = "Each option is a variable, too: --log-format is CITYSTREAM_LOG_FORMAT.";

/// What `--version` tells behind the name: version, commit and librdkafka's version, a line each.
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

/// Returns the command line with its help in groups.
pub fn command() -> Command {
    let mut command = Cli::command().mut_subcommands(|command| {
        let examples = command.get_after_help().map(ToString::to_string);
        let has_variables = command.get_arguments().any(|arg| arg.get_env().is_some());
        let after: Vec<String> = examples
            .into_iter()
            .chain(has_variables.then(|| VARIABLES.to_owned()))
            .collect();
        command
            // A negative number is a wrong value, with what is allowed, and no unknown option.
            .mut_args(|arg| {
                let takes_values = arg.get_action().takes_values();
                arg.hide_env(true).allow_negative_numbers(takes_values)
            })
            .after_help(after.join("\n\n"))
    });
    let groups = groups(&command);
    command = command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n{groups}\nOptions:\n{{options}}\n\n\
         citystream COMMAND --help shows a command's options and examples.\n{VARIABLES}\n"
    ));
    command
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
                // A build without `dev`.
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
    fn every_command_is_in_a_group_and_every_option_has_a_word_for_its_value() {
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
                // The parser's own choice is the option's name with underscores.
                let names = arg.get_value_names().unwrap_or_default();
                let chosen = !arg.get_action().takes_values()
                    || names.iter().all(|name| !name.contains('_'));
                assert!(chosen, "{what} has no word for its value");
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
