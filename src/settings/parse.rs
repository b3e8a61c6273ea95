//! Parses a command line, and adds tips to the error messages of clap.
//!
//! If a value is invalid, the error message of clap names the option. If an invalid value comes from an environment
//! variable, a tip also names the variable, because the option is not on the command line.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, Error, FromArgMatches as _, ValueEnum as _};

use super::{Cli, CompletionShell, command};

/// Parses the command line of the process.
///
/// # Errors
/// Returns the parser's error, which names the option or the variable, the value and the allowed values. The help text
/// and the version text are also returned as errors.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Error> {
    let matches = matches(command(), &line.into_iter().collect::<Vec<_>>())?;
    Cli::from_arg_matches(&matches)
}

pub(super) fn matches(mut command: Command, line: &[OsString]) -> Result<ArgMatches, Error> {
    command.try_get_matches_from_mut(line).map_err(|mut error| {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        let variable = source_variable(&error, &command, line, is_set);
        let tip = variable
            .map(|variable| format!("the value comes from the variable {variable}"))
            .or_else(|| list_choices(&error, &command, line))
            .or_else(|| suggest_shell(&error, line));
        if let Some(tip) = tip {
            let tips = ContextValue::StyledStrs(vec![tip.into()]);
            error.insert(ContextKind::Suggested, tips);
        }
        error
    })
}

/// Returns a tip with the allowed values of the first missing argument, or `None` if that argument has no fixed set of
/// values.
fn list_choices(error: &Error, command: &Command, line: &[OsString]) -> Option<String> {
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

/// Returns a tip with the correct command if the user has typed `print completions bash` or a similar command.
fn suggest_shell(error: &Error, line: &[OsString]) -> Option<String> {
    let asks_completions = line.get(1)? == "print" && line.iter().any(|w| w == "completions");
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let shell = CompletionShell::from_str(word, false).ok()?;
    let shell = shell.to_possible_value()?.get_name().to_owned();
    (asks_completions && error.kind() == ErrorKind::UnknownArgument).then(|| {
        format!("citystream print completions --shell {shell} prints them, and how to install them")
    })
}

/// Returns the name of the environment variable that contains the refused value, or `None` if the value comes from the
/// command line.
fn source_variable(
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
    // In error messages, clap writes an option as "--row-interval <DURATION>" or "--watch[=<PAUSE>]".
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
    let former = former_variable(arg.get_id().as_str()).map(str::to_owned);
    [own, former]
        .into_iter()
        .flatten()
        .find(|name| is_set(name))
}

/// Returns the name of the environment variable that provides the default of an option. The system that citystream
/// replaces uses a variable with the same name.
pub(super) fn former_variable(id: &str) -> Option<&'static str> {
    match id {
        "brokers" => Some("KAFKA_BOOTSTRAP_SERVERS"),
        "topic" => Some("KAFKA_TOPIC"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses the command line in `line` as if only the variables in `set` were set. Returns the environment variable
    /// that a tip in the error message would name.
    fn named(line: &str, set: &[&str]) -> Option<String> {
        let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = command();
        let error = command.try_get_matches_from_mut(&line).expect_err("wrong");
        source_variable(&error, &command, &line, |name| set.contains(&name))
    }

    #[test]
    fn a_missing_argument_lists_its_values() {
        let tip = |line: &str| {
            let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let mut command = command();
            let error = command.try_get_matches_from_mut(&line).expect_err("wrong");
            list_choices(&error, &command, &line)
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
    fn a_shell_without_its_option_gets_the_right_command() {
        let tip = |line: &str| {
            let line: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let mut command = command();
            let error = command.try_get_matches_from_mut(&line).expect_err("wrong");
            suggest_shell(&error, &line)
        };
        let zsh = tip("citystream print completions zsh").expect("a tip");
        assert!(zsh.contains("print completions --shell zsh"), "{zsh}");
        assert_eq!(tip("citystream print completions --zsh"), None);
        assert_eq!(tip("citystream print man zsh"), None);
    }

    #[test]
    fn a_value_on_the_line_comes_from_no_variable() {
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
