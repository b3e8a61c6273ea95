//! The files for installation and monitoring that are part of the binary. `citystream print WHAT` prints them.
//!
//! The systemd units, alert rules, dashboards and scrape configuration are copies of files in the source tree. The
//! environment files are generated from the command-line options. The policies and the CloudFormation template are
//! generated from the tables and rights that `init-tables` and the roles use. All printed files match the version of
//! the binary.

mod cloudformation;
mod command_line;
mod env;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::api;
use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::failure::Failure;
use crate::settings::{Carried, CompletionShell, Role};
use crate::store::rights::{self, TableUser};
use crate::telemetry;

pub(crate) use command_line::completion;

/// The name and the content of a file.
pub(crate) type NamedFile = (String, String);

macro_rules! carried {
    ($($path:literal)*) => {
        [$(($path, include_str!(concat!("../../", $path)))),*]
    };
}

const UNITS: [(&str, &str); 7] = carried!(
    "systemd/citystream-produce.service"
    "systemd/citystream-accept.service"
    "systemd/citystream-consume.service"
    "systemd/citystream-consume@.service"
    "systemd/citystream-serve.service"
    "systemd/citystream-notify.service"
    "systemd/kafka.service"
);
const SCRAPE: [(&str, &str); 1] = carried!("deploy/prometheus/prometheus.yml");
const ALERTS: [(&str, &str); 1] = carried!("deploy/prometheus/rules.yml");
const DASHBOARDS: [(&str, &str); 2] =
    carried!("deploy/grafana/citystream.json" "deploy/grafana/city-events.json");

/// Returns all files of one kind. `prefix` is the prefix of the table names in the files.
pub(crate) fn files(what: Carried, prefix: &str) -> Vec<NamedFile> {
    match what {
        Carried::Units => embedded(&UNITS),
        Carried::Scrape => embedded(&SCRAPE),
        Carried::Alerts => embedded(&ALERTS),
        Carried::Dashboards => embedded(&DASHBOARDS),
        Carried::Env => env::files(),
        Carried::Iam => TableUser::ALL
            .into_iter()
            .map(|user| (format!("{}.json", user.name()), policy_text(user, prefix)))
            .collect(),
        Carried::Cloudformation => vec![(
            "citystream.json".to_owned(),
            pretty(&cloudformation::template(&TableNames::new(prefix))),
        )],
        Carried::Openapi => {
            let text = format!("{}\n", api::openapi::json().trim_end());
            vec![("openapi.json".to_owned(), text)]
        }
        Carried::Man => command_line::man(),
        Carried::Completions => [
            CompletionShell::Bash,
            CompletionShell::Zsh,
            CompletionShell::Fish,
        ]
        .map(completion)
        .to_vec(),
    }
}

fn embedded(files: &[(&str, &str)]) -> Vec<NamedFile> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    files
        .iter()
        .map(|(path, text)| (name(path), (*text).to_owned()))
        .collect()
}

/// Returns the IAM policy of one role. `prefix` is the prefix of the table names in the policy.
///
/// # Errors
/// Returns an error if the role does not use the tables.
pub(crate) fn policy(role: Role, prefix: &str) -> Result<String, SettingsError> {
    let user = match role {
        Role::InitTables => TableUser::InitTables,
        Role::Consume => TableUser::Consume,
        Role::Serve => TableUser::Serve,
        Role::Verify => TableUser::Verify,
        Role::Notify => TableUser::Notify,
        Role::Tail => TableUser::Tail,
        Role::Produce => {
            return Err(SettingsError::new("produce needs no policy")
                .with_why("it does not use DynamoDB")
                .with_remedy(
                    "choose consume, serve, notify, tail, verify or init-tables; for its rights in Amazon MSK, run \
                     citystream check --for produce",
                ));
        }
    };
    Ok(policy_text(user, prefix))
}

fn policy_text(user: TableUser, prefix: &str) -> String {
    // IAM does not allow a wildcard for the AWS partition, so the function derives the partition from the Region. The
    // Region and the account can be wildcards, because the policy lists the tables by name.
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

/// Returns the contents of the files as one string. If there are several files, the name of each file precedes its
/// content.
pub(crate) fn to_text(files: &[NamedFile]) -> String {
    let mut text = String::new();
    for (at, (name, content)) in files.iter().enumerate() {
        if files.len() > 1 {
            let gap = if at == 0 { "" } else { "\n" };
            let _infallible = writeln!(text, "{gap}==> {name} <==");
        }
        text.push_str(content);
    }
    text
}

/// Writes the files into a folder, and prints the path of each file.
///
/// # Errors
/// Returns an error if a file cannot be written. Also returns an error if a file already exists with other content,
/// because the operator may have edited the file.
pub(crate) fn write_files(folder: &Path, files: &[NamedFile]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("failed to create {} (--into)", folder.display()))?;
    for (name, content) in files {
        let path = folder.join(name);
        if path.exists() && std::fs::read_to_string(&path).ok().as_ref() != Some(content) {
            anyhow::bail!(
                Failure::new(format!("{} exists with other content", path.display()))
                    .with_remedy("move it away first")
            );
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
    fn every_file_has_a_name_and_content() {
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
    fn an_edited_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = [("a.env".to_owned(), "#A=1\n".to_owned())];
        write_files(folder.path(), &file).unwrap();
        write_files(folder.path(), &file).unwrap();
        std::fs::write(folder.path().join("a.env"), "A=2\n").unwrap();
        assert!(write_files(folder.path(), &file).is_err());
        let kept = std::fs::read_to_string(folder.path().join("a.env")).unwrap();
        assert_eq!(kept, "A=2\n");
    }

    #[test]
    fn units_wait_longer_than_a_stop_may_take_and_share_one_sandbox() {
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
        assert_eq!(sandboxes.len(), 6);
        assert!(sandboxes.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(sandboxes[0].contains("AF_NETLINK"));
    }
}
