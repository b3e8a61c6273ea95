//! The question before `--delete`. The operator types the prefix, and so knows which tables are deleted.

use std::io::IsTerminal as _;

use anyhow::Context as _;

use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::telemetry;

/// Returns an error if there is no terminal to ask on, unless `agreed`.
pub(crate) fn can_ask(agreed: bool) -> Result<(), SettingsError> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if agreed || terminal {
        return Ok(());
    }
    Err(SettingsError::new("nothing was deleted")
        .with_why("--delete asks for the prefix, and there is no terminal to ask on")
        .with_remedy("give --yes if that is meant"))
}

/// Asks for the prefix. Returns an error if the answer is anything else.
pub(super) async fn ask(prefix: &str, names: &TableNames, topics: &[String]) -> anyhow::Result<()> {
    telemetry::print_stderr("This deletes the following, with everything they hold, for good:");
    for topic in topics {
        telemetry::print_stderr(&format!("  topic {topic}"));
    }
    for table in names.all() {
        telemetry::print_stderr(&format!("  table {table}"));
    }
    telemetry::write_stderr(format!("To continue, type the prefix {prefix}: ").as_bytes());
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
