//! `citystream print WHAT`: prints files that are part of the binary, or writes them into a folder.

use crate::bundle;
use crate::exit::{Exit, SettingsError};
use crate::output;
use crate::settings::{Carried, Print};

/// Prints the files of one kind, or writes them into a folder.
///
/// # Errors
/// Returns an error if standard output or a file cannot be written. Also returns an error (exit code 2) if
/// completions are printed without `--shell`.
pub fn run(args: &Print) -> anyhow::Result<Exit> {
    let files = match (args.what, args.shell) {
        (Carried::Completions, Some(shell)) => vec![bundle::completion(shell)],
        (Carried::Completions, None) if args.into.is_none() => {
            let error = SettingsError::new("print completions needs --shell").with_remedy(
                "give --shell bash, zsh or fish; the first lines of the output say how to install it",
            );
            return Err(error.into());
        }
        (what, _) => bundle::files(what, &args.tables.table_prefix),
    };
    match &args.into {
        Some(folder) => bundle::write_files(folder, &files)?,
        None => output::print(&bundle::to_text(&files))?,
    }
    Ok(Exit::Done)
}
