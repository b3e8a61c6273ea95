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
    let text = "nothing was deleted: --delete asks for the prefix, and there is no terminal to ask \
                on; give --yes if that is meant";
    Err(SettingsError(text.to_owned()))
}

/// Asks for the prefix, and returns an error unless that is the answer.
pub(super) async fn ask(prefix: &str, names: &TableNames, topics: &[String]) -> anyhow::Result<()> {
    telemetry::print_stderr("This deletes, with all they hold and for good:");
    for topic in topics {
        telemetry::print_stderr(&format!("  topic {topic}"));
    }
    for table in names.all() {
        telemetry::print_stderr(&format!("  table {table}"));
    }
    telemetry::write_stderr(format!("To go on, type the prefix {prefix}: ").as_bytes());
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
    let text =
        format!("nothing was deleted: the answer was not {prefix}; run it again to answer anew");
    Err(SettingsError(text).into())
}
