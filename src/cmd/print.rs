//! `citystream print WHAT`: what the binary carries, for those who install or watch it.
//!
//! Units, alert rules, dashboards and the scrape configuration are the files of the source tree; the
//! environment files are made from the options, the policies and the template from the same tables
//! and rights that `init-tables` makes and the roles use. So none of it can be older than the binary.

mod cloudformation;
pub mod env;
mod terminal;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::output;
use crate::settings::{Carried, Print, Role, Shell};
use crate::store::rights::{self, User};
use crate::telemetry;

/// A file: its name and what is in it.
type File = (String, String);

macro_rules! carried {
    ($($path:literal)*) => {
        [$(($path, include_str!(concat!("../../", $path)))),*]
    };
}

const UNITS: [(&str, &str); 5] = carried!(
    "systemd/citystream-produce.service"
    "systemd/citystream-consume.service"
    "systemd/citystream-consume@.service"
    "systemd/citystream-serve.service"
    "systemd/kafka.service"
);
const SCRAPE: [(&str, &str); 1] = carried!("deploy/prometheus/prometheus.yml");
const ALERTS: [(&str, &str); 1] = carried!("deploy/prometheus/rules.yml");
const DASHBOARDS: [(&str, &str); 1] = carried!("deploy/grafana/citystream.json");

/// Prints it, or writes its files into a folder.
///
/// # Errors
/// If standard output or a file cannot be written, or completions are asked for of no shell (exit 2).
pub fn run(args: &Print) -> anyhow::Result<Exit> {
    let mut files = files(args.what, &args.tables.table_prefix);
    if args.what == Carried::Completions && (args.into.is_none() || args.shell.is_some()) {
        let shell = args.shell.ok_or_else(|| {
            SettingsError("completions of no shell; give --shell bash, zsh or fish".to_owned())
        })?;
        files = vec![terminal::completion(shell)];
    }
    match &args.into {
        Some(folder) => write(folder, &files)?,
        None => print(&files)?,
    }
    Ok(Exit::Done)
}

/// Returns the files of one kind.
pub fn files(what: Carried, prefix: &str) -> Vec<File> {
    match what {
        Carried::Units => embedded(&UNITS),
        Carried::Scrape => embedded(&SCRAPE),
        Carried::Alerts => embedded(&ALERTS),
        Carried::Dashboards => embedded(&DASHBOARDS),
        Carried::Env => env::files(),
        Carried::Iam => User::ALL
            .into_iter()
            .map(|user| (format!("{}.json", user.name()), policy_text(user, prefix)))
            .collect(),
        Carried::Cloudformation => vec![(
            "citystream.json".to_owned(),
            pretty(&cloudformation::template(&TableNames::new(prefix))),
        )],
        Carried::Openapi => vec![("openapi.json".to_owned(), terminal::openapi())],
        Carried::Man => terminal::man(),
        Carried::Completions => [Shell::Bash, Shell::Zsh, Shell::Fish]
            .map(terminal::completion)
            .to_vec(),
    }
}

fn embedded(files: &[(&str, &str)]) -> Vec<File> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    files
        .iter()
        .map(|(path, text)| (name(path), (*text).to_owned()))
        .collect()
}

/// Prints the policy of one role.
///
/// # Errors
/// If the role does not use the tables (exit 2), or standard output cannot be written.
pub fn policy(role: Role, prefix: &str) -> anyhow::Result<Exit> {
    let user = match role {
        Role::InitTables => User::InitTables,
        Role::Consume => User::Consume,
        Role::Serve => User::Serve,
        Role::Verify => User::Verify,
        Role::Produce | Role::Tail => {
            let text = format!(
                "{role} needs no policy: it does not use DynamoDB; ask for consume, serve, verify or init-tables, or \
                 for what Amazon MSK needs, citystream check --for {role}",
                role = role.name()
            );
            return Err(SettingsError(text).into());
        }
    };
    print(&[(String::new(), policy_text(user, prefix))])?;
    Ok(Exit::Done)
}

fn policy_text(user: User, prefix: &str) -> String {
    // IAM takes no wildcard for the partition. Region and account may be any: tables have names.
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].map(std::env::var);
    let region = region
        .into_iter()
        .flatten()
        .find(|region| !region.is_empty());
    let partition = rights::partition(&region.unwrap_or_default());
    let arn = format!("arn:{partition}:dynamodb:*:*:table/");
    pretty(&rights::policy(user, &TableNames::new(prefix), &arn))
}

fn pretty(value: &serde_json::Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a value is always JSON");
    text.push('\n');
    text
}

/// Prints the files, each with its name before it if there are more than one.
fn print(files: &[File]) -> std::io::Result<()> {
    let mut text = String::new();
    for (at, (name, content)) in files.iter().enumerate() {
        if files.len() > 1 {
            let gap = if at == 0 { "" } else { "\n" };
            let _infallible = writeln!(text, "{gap}==> {name} <==");
        }
        text.push_str(content);
    }
    output::print(&text)
}

fn write(folder: &Path, files: &[File]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("failed to make {} (--into)", folder.display()))?;
    for (name, content) in files {
        let path = folder.join(name);
        // A file that somebody has filled in is not ours to overwrite.
        if path.exists() && std::fs::read_to_string(&path).ok().as_ref() != Some(content) {
            anyhow::bail!("{} exists and differs; move it away first", path.display());
        }
        std::fs::write(&path, content)
            .with_context(|| format!("failed to write {}", path.display()))?;
        telemetry::print_stdout(&format!("{}\n", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Carried; 10] = [
        Carried::Units,
        Carried::Env,
        Carried::Scrape,
        Carried::Alerts,
        Carried::Dashboards,
        Carried::Iam,
        Carried::Cloudformation,
        Carried::Openapi,
        Carried::Man,
        Carried::Completions,
    ];

    #[test]
    fn everything_carried_has_a_name_and_content() {
        for what in ALL {
            let files = files(what, "citystream");
            assert!(!files.is_empty(), "{what:?}");
            for (name, content) in files {
                assert!(name.contains(['.', '_']) && !name.contains('/'), "{name}");
                assert!(content.ends_with('\n') && content.len() > 100, "{name}");
            }
        }
    }

    #[test]
    fn a_file_that_was_filled_in_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = [("a.env".to_owned(), "#A=1\n".to_owned())];
        write(folder.path(), &file).unwrap();
        write(folder.path(), &file).unwrap();
        std::fs::write(folder.path().join("a.env"), "A=2\n").unwrap();
        assert!(write(folder.path(), &file).is_err());
        let kept = std::fs::read_to_string(folder.path().join("a.env")).unwrap();
        assert_eq!(kept, "A=2\n");
    }

    #[test]
    fn h4_units_wait_longer_than_a_stop_may_take_and_are_sandboxed_alike() {
        let drain = crate::exit::DRAIN_MAX.as_secs();
        let sandbox = |text: &str| {
            let at = text.find("# The sandbox").unwrap();
            let end = text.find("[Install]").unwrap();
            text[at..end].to_owned()
        };
        let mut sandboxes = Vec::new();
        for (name, text) in files(Carried::Units, "") {
            if !name.starts_with("citystream") {
                continue;
            }
            let stop = text.lines().find_map(|l| l.strip_prefix("TimeoutStopSec="));
            let stop: u64 = stop.unwrap().parse().unwrap();
            assert!(stop > drain, "{name}");
            for line in [
                "Type=notify",
                "Restart=always",
                "StartLimitIntervalSec=0",
                "RestartPreventExitStatus=2",
            ] {
                assert!(text.lines().any(|l| l == line), "{name}: {line}");
            }
            sandboxes.push(sandbox(&text));
        }
        assert_eq!(sandboxes.len(), 4);
        assert!(sandboxes.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(sandboxes[0].contains("AF_NETLINK"), "H3");
    }
}
