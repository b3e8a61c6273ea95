//! Parses a line, and says of a wrong value which variable it comes from.
//!
//! clap names the option a value belongs to, also where a variable set it, and then nobody finds the
//! option on the command line. A tip below the error names the variable.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, Error, FromArgMatches as _};

use super::{Cli, command};

/// Parses the process's own line.
///
/// # Errors
/// The parser's own, which names the option or variable, the value and what is allowed; or what
/// `--help` and `--version` print.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Error> {
    let matches = matches(command(), &line.into_iter().collect::<Vec<_>>())?;
    Cli::from_arg_matches(&matches)
}

pub(super) fn matches(mut command: Command, line: &[OsString]) -> Result<ArgMatches, Error> {
    command.try_get_matches_from_mut(line).map_err(|mut error| {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        if let Some(variable) = variable_behind(&error, &command, line, is_set) {
            let tip = format!("the value is that of the variable {variable}");
            let tips = ContextValue::StyledStrs(vec![tip.into()]);
            error.insert(ContextKind::Suggested, tips);
        }
        if let Some(tip) = choices(&error, &command, line) {
            let tips = ContextValue::StyledStrs(vec![tip.into()]);
            error.insert(ContextKind::Suggested, tips);
        }
        error
    })
}

/// Returns what the first missing argument may be, where there is a choice.
fn choices(error: &Error, command: &Command, line: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let role = command.find_subcommand(line.get(1)?)?;
    let first = missing.first()?;
    let arg = role.get_arguments().find(|arg| arg.to_string() == *first)?;
    let names = arg.get_possible_values();
    let names: Vec<&str> = names.iter().map(|value| value.get_name()).collect();
    (!names.is_empty()).then(|| format!("{first} is one of {}", names.join(", ")))
}

/// Returns the variable that the refused value comes from, if it is not from the line.
fn variable_behind(
    error: &Error,
    command: &Command,
    line: &[OsString],
    is_set: impl Fn(&str) -> bool,
) -> Option<String> {
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        return None;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    // It is shown as "--row-interval <DURATION>", or "--watch[=<PAUSE>]".
    let name = shown.strip_prefix("--")?;
    let long = name.split([' ', '[', '=']).next()?;
    let role = command.find_subcommand(line.get(1)?)?;
    let arg = role
        .get_arguments()
        .find(|arg| arg.get_long() == Some(long))?;
    let given = line.iter().skip(2).any(|word| {
        let word = word.to_string_lossy();
        let short = arg.get_short().map(|short| format!("-{short}"));
        let is_long = word.strip_prefix("--").is_some_and(|word| {
            let rest = word.strip_prefix(long);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        });
        is_long || short.is_some_and(|short| word.starts_with(&short))
    });
    if given {
        return None;
    }
    let own = arg
        .get_env()
        .map(|name| name.to_string_lossy().into_owned());
    let old = old_variable(arg.get_id().as_str()).map(str::to_owned);
    [own, old].into_iter().flatten().find(|name| is_set(name))
}

/// Two defaults stand in variables that the system this one replaces had already.
pub(super) fn old_variable(id: &str) -> Option<&'static str> {
    match id {
        "brokers" => Some("KAFKA_BOOTSTRAP_SERVERS"),
        "topic" => Some("KAFKA_TOPIC"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the variable that is named if all of these are set.
    fn named(line: &str, set: &[&str]) -> Option<String> {
        let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = command();
        let error = command.try_get_matches_from_mut(&line).expect_err("wrong");
        variable_behind(&error, &command, &line, |name| set.contains(&name))
    }

    #[test]
    fn a_missing_choice_lists_what_there_is() {
        let tip = |line: &str| {
            let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let mut command = command();
            let error = command.try_get_matches_from_mut(&line).expect_err("wrong");
            choices(&error, &command, &line)
        };
        let print = tip("citystream print").expect("a choice");
        assert!(
            print.starts_with("<WHAT> is one of units, env, scrape"),
            "{print}"
        );
        let check = tip("citystream check").expect("a choice");
        assert!(
            check.starts_with("--for <ROLE> is one of produce, consume"),
            "{check}"
        );
        assert_eq!(tip("citystream print nothing"), None);
    }

    #[test]
    fn a_value_of_the_line_is_no_variables() {
        let set = [
            "CITYSTREAM_ROW_INTERVAL",
            "CITYSTREAM_EVENTS",
            "KAFKA_TOPIC",
        ];
        for line in [
            "citystream consume --row-interval 5",
            "citystream consume --row-interval=5",
            "citystream tail -n5x",
            "citystream tail -n x",
            "citystream consume --topic a/b",
            "citystream consume --unknown 5",
        ] {
            assert_eq!(named(line, &set), None, "{line}");
        }
    }
}
