//! Refuses `CITYSTREAM_…` environment variables that do not set an option, and suggests the variable that the user
//! probably meant.

use std::collections::BTreeSet;

use super::{Command, KAFKA_SECRET_VARIABLES, Role, command};
use crate::failure::Failure;

/// The prefix of all environment variables of this program.
const PREFIX: &str = "CITYSTREAM_";
/// Minimum Jaro-Winkler similarity at which a name counts as a misspelling of another name.
const SIMILARITY_MIN: f64 = 0.8;

/// Checks that every `CITYSTREAM_…` variable sets an option of some command.
///
/// Variables for options of other commands are accepted, because all services share one environment file. A suggested
/// variable always sets an option of `command`.
///
/// # Errors
/// Returns a failure that names each unknown variable, and suggests a similar variable if there is one.
pub fn check_environment(command: &Command) -> Result<(), Failure> {
    let given = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = unknown_variables(given, command);
    if unknown.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = unknown
        .into_iter()
        .map(|(name, nearest)| match nearest {
            Some(nearest) => format!("{name} (did you mean {nearest}?)"),
            None => name,
        })
        .collect();
    Err(
        Failure::new(format!("unknown variable {}", names.join(" and ")))
            .with_remedy("remove it or correct its name"),
    )
}

/// Returns each `CITYSTREAM_…` variable that no command recognizes. The function pairs each variable with the most
/// similar variable of `command`, if there is one.
fn unknown_variables(
    given: impl Iterator<Item = String>,
    command: &Command,
) -> Vec<(String, Option<String>)> {
    let known = known_variables();
    let own = variables_of(|name| runs_with(command, name));
    // Variable names are compared without the prefix `CITYSTREAM_`, because the common prefix makes all names similar.
    let suffixes = || own.iter().filter_map(|name| name.strip_prefix(PREFIX));
    given
        .filter(|name| !known.contains(name))
        .filter_map(|name| {
            let suggestion = nearest(name.strip_prefix(PREFIX)?, suffixes());
            let suggestion = suggestion.map(|suffix| format!("{PREFIX}{suffix}"));
            Some((name, suggestion))
        })
        .collect()
}

/// Returns true if `command` reads the options of the subcommand `name`. Each command reads its own options. The
/// commands `check` and `config` also read the options of the role that they inspect.
fn runs_with(command: &Command, name: &str) -> bool {
    let is_role = |role: Role| role.name() == name;
    name == command.name()
        || match command {
            Command::Check(args) => is_role(args.role),
            Command::Config(args) => args.roles().into_iter().any(is_role),
            _ => false,
        }
}

/// Returns the environment variables that any command recognizes.
pub fn known_variables() -> BTreeSet<String> {
    variables_of(|_| true)
}

/// Returns the environment variables that set options of the subcommands for which `is_chosen` returns true.
fn variables_of(is_chosen: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let cli = command();
    let chosen = cli
        .get_subcommands()
        .filter(|sub| is_chosen(sub.get_name()));
    let mut names = BTreeSet::new();
    for arg in chosen.flat_map(clap::Command::get_arguments) {
        names.extend(
            arg.get_env()
                .map(|name| name.to_string_lossy().into_owned()),
        );
        // No option sets a password, because every user of a host can read command lines.
        if arg.get_id() == "kafka_auth" {
            names.extend(KAFKA_SECRET_VARIABLES.map(str::to_owned));
        }
    }
    names
}

/// Returns the name in `names` that is most similar to `wrong`, or `None` if no name is similar enough. The comparison is
/// not case-sensitive.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&wrong, &name.to_lowercase()), name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::Cli;

    fn unknown(line: &str, name: &str) -> Vec<(String, Option<String>)> {
        let command = Cli::try_parse_from(line.split(' ')).expect(line).command;
        unknown_variables([name.to_owned(), "PATH".to_owned()].into_iter(), &command)
    }

    #[test]
    fn a_misspelt_variable_is_found_with_what_was_meant() {
        for (name, meant) in [
            ("CITYSTREAM_ROW_INTERVALL", "CITYSTREAM_ROW_INTERVAL"),
            ("CITYSTREAM_BROKER", "CITYSTREAM_BROKERS"),
            ("CITYSTREAM_MEMORY_BUGDET", "CITYSTREAM_MEMORY_BUDGET"),
            ("CITYSTREAM_KAFKA_PASWORD", "CITYSTREAM_KAFKA_PASSWORD"),
        ] {
            assert_eq!(
                unknown("citystream consume", name),
                [(name.to_owned(), Some(meant.to_owned()))]
            );
        }
        for name in ["CITYSTREAM_PORT", "CITYSTREAM_KAFKA_PASSWORD", "PATH"] {
            assert_eq!(unknown("citystream consume", name), []);
        }
        assert_eq!(nearest("zzz", ["fetch.min.bytes"].into_iter()), None);
        let series = ["SF#traffic", "NYC#traffic"].into_iter();
        assert_eq!(nearest("nyc#traffic", series), Some("NYC#traffic"));
    }

    #[test]
    fn a_suggestion_names_an_option_of_the_command_that_runs() {
        let suggestion = |line: &str| unknown(line, "CITYSTREAM_READ_BUGDET").remove(0).1;
        let read_budget = Some("CITYSTREAM_READ_BUDGET".to_owned());
        assert_eq!(suggestion("citystream serve"), read_budget);
        assert_eq!(suggestion("citystream check --for serve"), read_budget);
        assert_eq!(suggestion("citystream config"), read_budget);
        for line in ["citystream tail", "citystream config --for tail"] {
            assert_eq!(suggestion(line), None, "{line}");
        }
    }
}
