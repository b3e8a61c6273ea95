//! Reads the `[[receiver]]` sections of the rules file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use crate::core::incident::outbox::Timing;
use crate::notify::config::section::{Notes, Placed, Section, remedy_for};
use crate::notify::config::target::{Location, ReceiverConfig, Target, TopicArn};
use crate::notify::secret::{SecretFile, parse_url};
use crate::settings::warn_if_others_can_read;

/// Maximum number of receivers.
const RECEIVERS_MAX: usize = 100;
/// Keys that every type of receiver accepts.
const COMMON_KEYS: [&str; 5] = ["name", "type", "rules", "repeat", "min_interval"];
/// Default minimum time between two messages about an open incident.
const INTERVAL_MS: i64 = 60_000;
/// Default time between two messages to Alertmanager about an open incident. Alertmanager loses its alerts when it
/// restarts, so `notify` must repeat its messages. Alertmanager notifies people about a repeated alert only after its
/// own `repeat_interval`.
const ALERTMANAGER_REPEAT_MS: i64 = 5 * 60_000;
/// The URL to which PagerDuty's Events API accepts events.
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// Defines whether the files with secrets are read together with the rules file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretReading {
    /// Reads each file with secrets, and reports an invalid file as a mistake.
    Check,
    /// Does not read the files with secrets, which are needed only for sending messages.
    Skip,
}

/// The folders that are searched for the files that the rules file names.
pub(super) struct Folders<'a> {
    /// The folder of the rules file.
    pub(super) config: &'a Path,
    /// The folder of systemd's credentials.
    pub(super) credentials: Option<&'a Path>,
    pub(super) secrets: SecretReading,
}

impl Folders<'_> {
    /// Returns the path of the file whose name in the rules file is `name`. A systemd credential with the same name
    /// takes precedence over a file next to the rules file.
    fn file(&self, name: &str) -> PathBuf {
        // If `name` is an absolute path, `join` returns `name` unchanged.
        let credential = self.credentials.map(|folder| folder.join(name));
        credential
            .filter(|path| path.is_file())
            .unwrap_or_else(|| self.config.join(name))
    }
}

/// The types of receivers. Each entry contains a type, and the keys that the type accepts in addition to `COMMON_KEYS`.
const TYPES: [(&str, &[&str]); 6] = [
    (
        "webhook",
        &[
            "url",
            "url_file",
            "secret_file",
            "token_file",
            "allow_private",
            "ca_file",
        ],
    ),
    ("slack", &["url_file", "allow_private", "ca_file"]),
    (
        "pagerduty",
        &["routing_key_file", "url", "allow_private", "ca_file"],
    ),
    ("sns", &["topic_arn", "ca_file"]),
    (
        "ntfy",
        &[
            "url",
            "url_file",
            "topic",
            "token_file",
            "allow_private",
            "ca_file",
        ],
    ),
    (
        "alertmanager",
        &["url", "url_file", "token_file", "allow_private", "ca_file"],
    ),
];

/// Returns the valid receivers, and notes the mistakes in the invalid receivers. `rules` contains the names of all
/// rules.
pub(super) fn read_receivers<'a>(
    notes: &mut Notes<'_>,
    sections: &[Section<'a>],
    rules: &[&str],
    folders: &Folders<'_>,
) -> Vec<ReceiverConfig> {
    if let Some(beyond) = sections.get(RECEIVERS_MAX) {
        let what = format!("there are {} receivers", sections.len());
        let remedy = format!("write at most {RECEIVERS_MAX} receivers");
        notes.note(beyond.table.span().as_ref(), what, remedy);
    }
    let mut names = Vec::new();
    let mut receivers = Vec::new();
    for section in sections {
        let name = notes.name(*section);
        let reader = Reader {
            section: *section,
            folders,
            allow_private: notes.flag(*section, "allow_private").unwrap_or(false),
        };
        receivers.extend(reader.read(notes, rules, name.as_ref()));
        names.extend(name);
    }
    notes.repeated_names("receiver", &names);
    receivers
}

/// Reads one `[[receiver]]` section.
struct Reader<'a, 'f> {
    section: Section<'a>,
    folders: &'f Folders<'f>,
    allow_private: bool,
}

impl<'a> Reader<'a, '_> {
    fn read(
        &self,
        notes: &mut Notes<'_>,
        rules: &[&str],
        name: Option<&Placed<&'a str>>,
    ) -> Option<ReceiverConfig> {
        let section = self.section;
        let kind = self.kind(notes);
        let rules = self.rules(notes, rules);
        let default = (kind == Some("alertmanager")).then_some(ALERTMANAGER_REPEAT_MS);
        let timing = Timing {
            repeat_ms: notes.duration_ms(section, "repeat").or(default),
            interval_min_ms: notes
                .duration_ms(section, "min_interval")
                .unwrap_or(INTERVAL_MS),
        };
        let ca_file = notes.text(section, "ca_file");
        Some(ReceiverConfig {
            target: self.target(notes, kind?)?,
            name: name?.value.into(),
            rules,
            timing,
            allow_private: self.allow_private || kind == Some("sns"),
            ca_file: ca_file.map(|placed| self.folders.file(placed.value)),
        })
    }

    /// Returns the type of the receiver, and notes a mistake for each key that this type does not accept.
    fn kind(&self, notes: &mut Notes<'_>) -> Option<&'static str> {
        let section = self.section;
        let names = TYPES.iter().map(|(name, _)| *name);
        if !section.has("type") {
            notes.note_missing(section, "type", "\"webhook\"");
        }
        let placed = notes.text(section, "type");
        let found = placed
            .as_ref()
            .and_then(|placed| TYPES.iter().find(|(name, _)| *name == placed.value));
        match (found, placed) {
            (Some((name, own)), _) => {
                let known: Vec<&str> = COMMON_KEYS.iter().chain(*own).copied().collect();
                self.misplaced_keys(notes, name, &known);
                Some(*name)
            }
            (None, Some(placed)) => {
                let what = format!("{:?} is not a type of receiver", placed.value);
                let remedy = remedy_for(placed.value, names, "the types are");
                notes.note(placed.span.as_ref(), what, remedy);
                None
            }
            (None, None) => None,
        }
    }

    /// Notes a mistake for each unknown key. If another type of receiver accepts the key, the error message names the
    /// receiver's type.
    fn misplaced_keys(&self, notes: &mut Notes<'_>, kind: &str, known: &[&str]) {
        let is_elsewhere = |key: &str| TYPES.iter().any(|(_, own)| own.contains(&key));
        let mut known = known.to_vec();
        let is_slack_url = |key: &str| kind == "slack" && key == "url";
        for (key, _) in self.section.table {
            if known.contains(&key) || !is_elsewhere(key) {
                continue;
            }
            let span = self.section.key_span(key);
            let what = format!("a receiver of type {kind} has no {key}");
            let remedy = if is_slack_url(key) {
                "write the URL to a file, because it is a secret, and name the file with url_file"
            } else {
                "remove the key"
            };
            notes.note(span.as_ref(), what, remedy);
            known.push(key);
        }
        notes.unknown_keys(self.section, &known);
    }

    fn rules(&self, notes: &mut Notes<'_>, rules: &[&str]) -> Option<BTreeSet<Arc<str>>> {
        let values = notes.texts(self.section, "rules")?;
        if values.is_empty() {
            let span = self.section.key_span("rules");
            let what = "rules is an empty list, so the receiver gets nothing";
            notes.note(span.as_ref(), what, "remove the key for all rules");
        }
        for value in &values {
            if !rules.contains(&value.value) {
                let what = format!("there is no rule {:?}", value.value);
                let remedy = remedy_for(value.value, rules.iter().copied(), "the rules are");
                notes.note(value.span.as_ref(), what, remedy);
            }
        }
        Some(values.iter().map(|value| value.value.into()).collect())
    }

    fn target(&self, notes: &mut Notes<'_>, kind: &str) -> Option<Target> {
        let token = |notes: &mut Notes<'_>| self.secret(notes, "token_file", read_line);
        match kind {
            "webhook" => Some(Target::Webhook {
                secret: self.secret(notes, "secret_file", |file, _| {
                    file.signing_keys().map(|_| ())
                }),
                token: token(notes),
                url: self.location(notes)?,
            }),
            "slack" => {
                self.require(notes, "url_file", "\"slack-url\"");
                let url = self.secret(notes, "url_file", read_url)?;
                Some(Target::Slack { url })
            }
            "pagerduty" => {
                self.require(notes, "routing_key_file", "\"pagerduty-key\"");
                let routing_key = self.secret(notes, "routing_key_file", read_line);
                let url = if self.section.has("url") {
                    self.url(notes)
                } else {
                    Url::parse(PAGERDUTY_URL).ok()
                };
                Some(Target::PagerDuty {
                    url: url?,
                    routing_key: routing_key?,
                })
            }
            "sns" => self.topic_arn(notes).map(|topic| Target::Sns { topic }),
            "ntfy" => {
                let topic = self.ntfy_topic(notes);
                let token = token(notes);
                Some(Target::Ntfy {
                    url: self.location(notes)?,
                    topic: topic?,
                    token,
                })
            }
            _ => Some(Target::Alertmanager {
                token: token(notes),
                url: self.location(notes)?,
            }),
        }
    }

    fn require(&self, notes: &mut Notes<'_>, key: &str, example: &str) {
        if !self.section.has(key) {
            notes.note_missing(self.section, key, example);
        }
    }

    fn topic_arn(&self, notes: &mut Notes<'_>) -> Option<TopicArn> {
        let example = "\"arn:aws:sns:eu-west-1:123456789012:incidents\"";
        self.require(notes, "topic_arn", example);
        let placed = notes.text(self.section, "topic_arn")?;
        let topic = TopicArn::parse(placed.value);
        if topic.is_none() {
            let what = format!("{:?} is not the ARN of an SNS topic", placed.value);
            let remedy = format!("write an ARN such as {example}");
            notes.note(placed.span.as_ref(), what, remedy);
        }
        topic
    }

    fn ntfy_topic(&self, notes: &mut Notes<'_>) -> Option<String> {
        self.require(notes, "topic", "\"city-incidents\"");
        let placed = notes.text(self.section, "topic")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if placed.value.len() > 64 || !placed.value.chars().all(legal) {
            let what = format!("{:?} is not a topic of ntfy", placed.value);
            let remedy = "write at most 64 letters, digits, - and _";
            notes.note(placed.span.as_ref(), what, remedy);
            return None;
        }
        Some(placed.value.to_owned())
    }

    /// Returns the URL from the key `url` or `url_file`. Notes a mistake if the receiver has both `url` and `url_file`,
    /// or neither `url` nor `url_file`.
    fn location(&self, notes: &mut Notes<'_>) -> Option<Location> {
        match (self.section.has("url"), self.section.has("url_file")) {
            (true, false) => self.url(notes).map(Location::Given),
            (false, true) => self.secret(notes, "url_file", read_url).map(Location::File),
            (true, true) => {
                let span = self.section.key_span("url_file");
                let what = "the receiver has both url and url_file";
                notes.note(span.as_ref(), what, "remove one of them");
                None
            }
            (false, false) => {
                notes.note_missing(self.section, "url", "\"https://…\"");
                None
            }
        }
    }

    fn url(&self, notes: &mut Notes<'_>) -> Option<Url> {
        let placed = notes.text(self.section, "url")?;
        let mut remedy = "write a URL such as https://hooks.example/city";
        let flaw = match parse_url(placed.value, self.allow_private) {
            Ok(url) if url.username().is_empty() && url.password().is_none() => return Some(url),
            Ok(_) => {
                remedy = "write the URL to a file, and name the file with url_file";
                "holds a user name or a password".to_owned()
            }
            Err(flaw) => flaw,
        };
        if flaw.starts_with("begins with http:") {
            remedy = "write https://, or allow_private = true for a service in your own network";
        }
        notes.note(placed.span.as_ref(), format!("url {flaw}"), remedy);
        None
    }

    /// Returns the file that the value of `key` names. With [`SecretReading::Check`], the function also notes a mistake
    /// if `read` rejects the file.
    fn secret(
        &self,
        notes: &mut Notes<'_>,
        key: &str,
        read: fn(&SecretFile, bool) -> Result<(), String>,
    ) -> Option<SecretFile> {
        let placed = notes.text(self.section, key)?;
        let file = SecretFile::new(self.folders.file(placed.value));
        if self.folders.secrets == SecretReading::Check {
            if let Err(flaw) = read(&file, self.allow_private) {
                let remedy = format!("correct the file, or {key}");
                notes.note(placed.span.as_ref(), flaw, remedy);
            }
            warn_if_others_can_read(key, file.path());
        }
        Some(file)
    }
}

fn read_line(file: &SecretFile, _: bool) -> Result<(), String> {
    file.line().map(|_| ())
}

fn read_url(file: &SecretFile, allow_http: bool) -> Result<(), String> {
    file.url(allow_http).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_lists_the_keys_of_every_type() {
        let manual = include_str!("../../../docs/NOTIFY.md");
        for (kind, keys) in TYPES {
            let begin = format!("| `{kind}` |");
            let row = manual.lines().find(|line| line.starts_with(&begin));
            let listed = row.expect(kind).split('`').skip(3).step_by(2);
            let listed: BTreeSet<&str> = listed.collect();
            // The table in the manual omits the keys that almost every type accepts. The text of the manual describes
            // these common keys.
            let own = keys.iter().copied();
            let own = own.filter(|key| !["allow_private", "ca_file"].contains(key));
            assert_eq!(listed, own.collect(), "{kind}");
        }
    }
}
