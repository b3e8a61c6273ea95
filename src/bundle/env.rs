//! The units' environment files, made from the options themselves.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::settings::{Cli, Role};

/// Options that a file for a service must not set: they end the role, which is then started again, or belong
/// to those.
const NOT_FOR_SERVICES: [&str; 7] = [
    "stop_at_end",
    "from_dlq",
    "input",
    "count",
    "speed",
    "restamp",
    "skip_bad",
];

/// Returns `common.env` and one file for each role that runs as a service: every setting with what
/// it means, commented out, at its default.
pub fn files() -> Vec<(String, String)> {
    let cli = Cli::command();
    let arguments = |role: Role| {
        let command = cli.find_subcommand(role.name());
        let command = command.expect("every role is a subcommand");
        command.get_arguments().filter(|arg| {
            arg.get_env().is_some() && !NOT_FOR_SERVICES.contains(&arg.get_id().as_str())
        })
    };
    let is_common = |id: &str| {
        let of = |role| arguments(role).any(|arg| arg.get_id().as_str() == id);
        // A port to listen on is each role's own, though two call it alike.
        id != "listen" && Role::SERVICES.into_iter().filter(|r| of(*r)).count() > 1
    };
    let mut common = opening("common.env", "what every role needs");
    common.push_str(
        "# The region of the tables. On EC2 the instance's role gives the credentials; nothing secret of\n\
         # AWS's belongs in this file.\n#AWS_REGION=eu-central-1\n\n\
         # Which log lines: error, warn, info, debug; or by part, as info,aws_config=debug.\n\
         #RUST_LOG=info\n",
    );
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for role in Role::SERVICES {
        let name = format!("{}.env", role.name());
        let mut own = opening(
            &name,
            &format!("what citystream {} needs besides", role.name()),
        );
        for arg in arguments(role) {
            let id = arg.get_id().as_str();
            if !is_common(id) {
                setting(&mut own, arg);
            } else if !seen.contains(&id) {
                seen.push(id);
                setting(&mut common, arg);
            }
        }
        out.push((name, own));
    }
    out.insert(0, ("common.env".to_owned(), common));
    out
}

fn opening(name: &str, what: &str) -> String {
    format!(
        "# /etc/citystream/{name}: {what}. Made by: citystream print env\n\
         # Uncomment what is to differ. systemd reads NAME=value, no shell; see systemd.exec(5).\n\n"
    )
}

fn setting(out: &mut String, arg: &clap::Arg) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // Here the last line of a name would win.
    let help = help.replace("can be repeated", "more than one with commas between");
    let allowed: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    let env = arg.get_env().unwrap_or_default().to_string_lossy();
    let default = match arg.get_id().as_str() {
        // Both may come from another variable where this is printed.
        "brokers" => "localhost:9092".to_owned(),
        "topic" => "city-events".to_owned(),
        _ => {
            let values = arg.get_default_values().iter();
            let values: Vec<_> = values.map(|v| v.to_string_lossy()).collect();
            values.join(",")
        }
    };
    let choice = if allowed.is_empty() {
        String::new()
    } else {
        format!(" ({})", allowed.join(", "))
    };
    let _infallible = writeln!(out, "\n# {help}{choice}\n#{env}={default}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::known_variables;

    /// The files in systemd/ are what a person reads first; they must be these.
    #[test]
    fn the_files_of_the_tree_are_made_from_the_options() {
        for (name, content) in files() {
            let path = format!("{}/systemd/{name}", env!("CARGO_MANIFEST_DIR"));
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(
                found, content,
                "{path} is old: citystream print env --into systemd"
            );
        }
    }

    #[test]
    fn every_setting_of_a_service_is_there_once() {
        let text: String = files().into_iter().map(|(_, content)| content).collect();
        let known = known_variables();
        let mut named: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix('#')?.split_once('='))
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("CITYSTREAM_"))
            .collect();
        for name in [
            "CITYSTREAM_BROKERS",
            "CITYSTREAM_ROW_INTERVAL",
            "CITYSTREAM_BIND",
        ] {
            assert!(named.contains(&name), "{name}");
        }
        assert!(named.iter().all(|name| known.contains(*name)));
        named.retain(|name| *name != "CITYSTREAM_LISTEN");
        let count = named.len();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), count, "twice");
    }
}
