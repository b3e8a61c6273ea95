//! Opens the database of `dev`. The database is in memory or in the folder given by `--data-dir`.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use dynoxide::Database;

use crate::exit::SettingsError;
use crate::failure::Failure;
use crate::remedy;

/// The name of the file that holds the tables.
const DATABASE: &str = "dynamodb.sqlite";

/// Returns true if the folder holds the tables of an earlier run.
pub(crate) fn has_tables(dir: Option<&Path>) -> bool {
    dir.is_some_and(|dir| dir.join(DATABASE).exists())
}

/// Opens the database. The returned file holds a lock that prevents other processes from using the folder.
///
/// # Errors
/// Returns an error if the folder cannot be used (exit code 2) or another process uses it (exit code 1).
pub(crate) fn open_database(dir: Option<&Path>) -> anyhow::Result<(Database, Option<File>)> {
    let Some(dir) = dir else {
        let database = Database::memory().map_err(|e| anyhow::anyhow!("{e}"))?;
        return Ok((database, None));
    };
    let what = format!("failed to use {} (--data-dir)", dir.display());
    let failed =
        |error: anyhow::Error| SettingsError(remedy::describe_error(&error.context(what.clone())));
    std::fs::create_dir_all(dir).map_err(|e| failed(e.into()))?;
    // The file must not be a symbolic link, because a link that another user created could make this program open a
    // file outside the folder.
    let path = dir.join(DATABASE);
    if path.is_symlink() {
        let error = Failure::new(format!("{DATABASE} is a symbolic link")).with_remedy("remove it");
        return Err(failed(error.into()).into());
    }
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join("lock"))
        .map_err(|e| failed(anyhow::Error::from(e).context("failed to open lock")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let what = format!(
                "{} (--data-dir) is in use by another citystream dev",
                dir.display()
            );
            anyhow::bail!(Failure::new(what).with_remedy("stop it, or give another folder"));
        }
        Err(TryLockError::Error(e)) => return Err(failed(e.into()).into()),
    }
    let database =
        Database::new(&path.to_string_lossy()).map_err(|e| failed(anyhow::anyhow!("{e}")))?;
    // In bulk mode, the database does not wait for the disk after each request, and is therefore several times as fast.
    // The database file stays consistent if the process is killed, but a power failure may destroy the file.
    database
        .enable_bulk_loading()
        .map_err(|e| failed(anyhow::anyhow!("{e}")))?;
    Ok((database, Some(lock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_links_is_refused_and_their_targets_stay() {
        for name in ["lock", "dynamodb.sqlite"] {
            let dir = tempfile::tempdir().expect("a folder");
            let other = dir.path().join("other");
            std::fs::write(&other, "kept").expect("a file");
            let data = dir.path().join("data");
            std::fs::create_dir(&data).expect("a folder");
            std::os::unix::fs::symlink(&other, data.join(name)).expect("a link");
            let error = open_database(Some(&data)).err().expect("a link");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(std::fs::read(&other).expect("it is there"), b"kept");
        }
    }
}
