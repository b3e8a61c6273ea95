//! The question before `--delete`: whoever answers it knows which tables go.

use std::io::IsTerminal as _;

use anyhow::Context as _;

use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::telemetry;

/// Returns an error if nobody can be asked and nobody has agreed already.
pub(crate) fn can_ask(agreed: bool) -> Result<(), SettingsError> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if agreed || terminal {
        return Ok(());
    }
    Err(SettingsError::new("nothing was deleted")
        .with_why("--delete asks for the prefix, and there is no terminal to ask on")
        .with_remedy("give --yes if that is meant"))
}

/// Asks for the prefix, and returns an error unless that is the answer.
pub(super) async fn ask(prefix: &str, names: &TableNames, topics: &[String]) -> anyhow::Result<()> {
    telemetry::say("This deletes, with all they hold and for good:");
    for topic in topics {
        telemetry::say(&format!("  topic {topic}"));
    }
    for table in names.all() {
        telemetry::say(&format!("  table {table}"));
    }
    telemetry::write_line(format!("To go on, type the prefix {prefix}: ").as_bytes());
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read
        .await
        .context("failed to ask")?
        .context("failed to ask")?;
    if line.trim() == prefix {
        return Ok(());
    }
    Err(SettingsError::new("nothing was deleted")
        .with_why(format!("the answer was not {prefix}"))
        .with_remedy("run it again to answer anew")
        .into())
}
