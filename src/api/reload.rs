//! Files that are read again when they change: tokens, certificates.
//!
//! The content is compared every few seconds, not the file's time or a notice of the kernel's: that
//! also sees files that are swapped behind a link, and costs nothing at a few kilobytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shutdown::Shutdown;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// Why, for people.
    pub reason: String,
}

impl FileError {
    pub(super) fn new(path: &Path, reason: impl Into<String>) -> FileError {
        FileError {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Reads a file that is not larger than such files are.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error: std::io::Error| FileError::new(path, error.to_string());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(FileError::new(path, "it is larger than 1 MiB"));
    }
    std::fs::read(path).map_err(failed)
}

/// Calls `apply` with the files' contents each time they differ from `known`, until `shutdown`. What
/// cannot be read or applied is logged once, and what was in use stays in use.
pub(super) async fn watch(
    what: &'static str,
    paths: Vec<PathBuf>,
    mut known: Vec<Vec<u8>>,
    shutdown: Shutdown,
    apply: impl Fn(&[Vec<u8>]) -> Result<(), FileError> + Send,
) {
    let mut complaint: Option<FileError> = None;
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let wanted = paths.clone();
        let reading = tokio::task::spawn_blocking(move || {
            wanted
                .iter()
                .map(|path| read(path))
                .collect::<Result<Vec<_>, _>>()
        });
        let result = match reading.await.expect("reading files does not panic") {
            Ok(read) if read == known => Ok(false),
            Ok(read) => apply(&read).map(|()| {
                known = read;
                true
            }),
            Err(error) => Err(error),
        };
        match result {
            Ok(true) => {
                complaint = None;
                tracing::info!(what, "read changed files");
            }
            Ok(false) => complaint = None,
            Err(error) if complaint.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!(what, %error, "failed to use changed files; the former ones stay in use");
                complaint = Some(error);
            }
        }
    }
}
