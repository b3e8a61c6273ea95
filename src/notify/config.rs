//! The rules file of `notify`: a TOML file with rules and receivers.
//!
//! [`NotifyConfig::load`] reports up to [`SHOWN_MAX`] mistakes at once, each with line, column and a correction. In the
//! rules file, the path of a file with secrets is relative to the folder of the rules file. If systemd provides a
//! credential with the same name (`LoadCredential=`), the credential is used instead of the file.

mod receivers;
mod rules;
mod section;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::core::incident::rule::Rule;
use crate::failure::Failure;

use receivers::{Folders, read_receivers};
use rules::read_rules;
use section::{Notes, Section, remedy_for};

pub use receivers::SecretReading;
pub use section::Mistake;
pub use target::{Location, ReceiverConfig, Target, TopicArn};

/// Maximum size of the rules file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Maximum number of mistakes that are shown. In a longer list, the first mistakes would be hard to find.
pub const SHOWN_MAX: usize = 20;
/// The section names that the rules file may contain.
const SECTIONS: [&str; 2] = ["rule", "receiver"];

/// The rules and receivers from the rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyConfig {
    /// The rules, in the order of the rules file.
    pub rules: Vec<Rule>,
    /// The receivers, in the order of the rules file.
    pub receivers: Vec<ReceiverConfig>,
}

/// The mistakes in a rules file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// The path of the rules file.
    pub path: PathBuf,
    /// The mistakes, in the order of the rules file.
    pub all: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (n, mistake) in self.all.iter().take(SHOWN_MAX).enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{path}:{mistake}")?;
        }
        match self.all.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Failure {
        let path = mistakes.path.display();
        let what = match mistakes.all.len() {
            1 => format!("there is a mistake in {path}"),
            n => format!("there are {n} mistakes in {path}"),
        };
        Failure::new(what)
            .with_why(mistakes.to_string())
            .with_remedy("correct the file")
    }
}

impl NotifyConfig {
    /// Reads the rules file at `path`.
    ///
    /// # Errors
    /// Returns a failure that lists the mistakes, or says why the rules file cannot be read.
    pub fn load(path: &Path, secrets: SecretReading) -> Result<NotifyConfig, Failure> {
        let failed = |why: String| {
            Failure::new(format!("failed to read {}", path.display()))
                .with_why(why)
                .with_remedy("name a TOML file of rules and receivers that this user can read")
        };
        let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(failed("it is larger than 1 MiB".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Ok(NotifyConfig::parse(
            path,
            &text,
            credentials.as_deref(),
            secrets,
        )?)
    }

    /// Parses the text of the rules file at `path`. `credentials` is the folder of systemd's credentials.
    ///
    /// # Errors
    /// Returns all mistakes. If the text is not valid TOML, returns only the syntax error.
    pub fn parse(
        path: &Path,
        text: &str,
        credentials: Option<&Path>,
        secrets: SecretReading,
    ) -> Result<NotifyConfig, Mistakes> {
        let mut notes = Notes::new(text);
        let config = match toml_edit::Document::parse(text) {
            Ok(document) => {
                let root = document.as_table();
                for (key, _) in root {
                    if !SECTIONS.contains(&key) {
                        let span = root.key(key).and_then(toml_edit::Key::span);
                        let what = format!("the file has no section {key:?}");
                        let remedy = remedy_for(key, SECTIONS.into_iter(), "the sections are");
                        notes.note(span.as_ref(), what, remedy);
                    }
                }
                read(&mut notes, root, path, credentials, secrets)
            }
            Err(error) => {
                let what = error.message().lines().collect::<Vec<_>>().join(", ");
                let remedy = "correct the syntax, which https://toml.io describes";
                notes.note(error.span().as_ref(), what, remedy);
                NotifyConfig {
                    rules: Vec::new(),
                    receivers: Vec::new(),
                }
            }
        };
        let all = notes.into_mistakes();
        if all.is_empty() {
            Ok(config)
        } else {
            let path = path.to_owned();
            Err(Mistakes { path, all })
        }
    }
}

fn read(
    notes: &mut Notes<'_>,
    root: &toml_edit::Table,
    path: &Path,
    credentials: Option<&Path>,
    secrets: SecretReading,
) -> NotifyConfig {
    let rule_sections = sections(notes, root, SECTIONS[0]);
    let rules = read_rules(notes, &rule_sections);
    // `names` also contains the names of invalid rules, so that a receiver that refers to an invalid rule is not
    // reported as a further mistake.
    let names = rule_sections.iter().filter_map(|section| {
        let name = section.table.get("name");
        name.and_then(toml_edit::Item::as_str)
    });
    let names: Vec<&str> = names.collect();
    let folders = Folders {
        config: path.parent().unwrap_or(Path::new("")),
        credentials,
        secrets,
    };
    let receiver_sections = sections(notes, root, SECTIONS[1]);
    let receivers = read_receivers(notes, &receiver_sections, &names, &folders);
    NotifyConfig { rules, receivers }
}

/// Returns the sections of the rules file that have the name `kind`.
fn sections<'a>(
    notes: &mut Notes<'_>,
    root: &'a toml_edit::Table,
    kind: &'static str,
) -> Vec<Section<'a>> {
    let Some(item) = root.get(kind) else {
        return Vec::new();
    };
    let Some(tables) = item.as_array_of_tables() else {
        let span = root.key(kind).and_then(toml_edit::Key::span);
        let what = format!("{kind} is not a list of sections");
        notes.note(span.as_ref(), what, format!("begin each with [[{kind}]]"));
        return Vec::new();
    };
    let sections = tables.iter().map(|table| Section { table, kind });
    sections.collect()
}
