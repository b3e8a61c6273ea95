//! The questions that `init-tables` asks before `--delete` and `--rollups`. Before `init-tables --delete` deletes
//! tables, the operator must type the common prefix of the table names.

use std::io::IsTerminal as _;

use anyhow::Context as _;

use crate::exit::SettingsError;
use crate::store::tables::TableSpec;
use crate::telemetry;

/// Returns an error if the command has to ask the operator a question but no terminal is available. If `agreed` is
/// true, the operator has already agreed, and the command asks no question.
pub(crate) fn can_ask(agreed: bool) -> Result<(), SettingsError> {
    if agreed || has_terminal() {
        return Ok(());
    }
    Err(SettingsError::new("nothing was deleted")
        .with_why("--delete asks for the prefix, and there is no terminal to ask on")
        .with_remedy("add --yes to delete without being asked"))
}

fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks the operator whether the command should roll up hours. Returns an error if the answer is not "yes", or if there
/// is no terminal.
pub(super) async fn ask_rollups() -> anyhow::Result<()> {
    let nothing = || SettingsError::new("nothing was rolled up");
    if !has_terminal() {
        return Err(nothing()
            .with_why("--rollups asks before it reads, and there is no terminal to ask on")
            .with_remedy("add --yes to agree to the cost")
            .into());
    }
    match read_answer("To continue, type yes: ").await?.as_str() {
        "yes" => Ok(()),
        _ => Err(nothing().with_why("the answer was not yes").into()),
    }
}

async fn read_answer(question: &str) -> anyhow::Result<String> {
    telemetry::write_stderr(question.as_bytes());
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read
        .await
        .context("failed to ask")?
        .context("failed to ask")?;
    Ok(line.trim().to_owned())
}

/// Asks the operator to type the common prefix of the table names. Returns an error if the operator's answer differs
/// from the table prefix.
pub(super) async fn ask(
    prefix: &str,
    tables: &[TableSpec],
    topics: &[String],
) -> anyhow::Result<()> {
    telemetry::print_stderr("This deletes the following, with everything they hold, for good:");
    for topic in topics {
        telemetry::print_stderr(&format!("  topic {topic}"));
    }
    for table in tables {
        telemetry::print_stderr(&format!("  table {}", table.name));
    }
    let question = format!("To continue, type the prefix {prefix}: ");
    if read_answer(&question).await? == prefix {
        return Ok(());
    }
    Err(SettingsError::new("nothing was deleted")
        .with_why(format!("the answer was not {prefix}"))
        .with_remedy("run the command again to give another answer")
        .into())
}
