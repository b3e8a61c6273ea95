//! Files that are read again when they change: tokens and certificates.
//!
//! The contents are compared every few seconds instead of modification times or kernel notifications. This also
//! notices files that are swapped through a symbolic link, and costs little for a few kilobytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shutdown::Shutdown;

/// Time between two checks.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Largest file accepted.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be used, for people.
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

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error: std::io::Error| FileError::new(path, error.to_string());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(FileError::new(path, "it is larger than 1 MiB"));
    }
    std::fs::read(path).map_err(failed)
}

/// Calls `apply` with the contents of the files each time they change, until `shutdown`. `known` are the contents
/// in use.
///
/// If new contents cannot be read or applied, the error is logged once and the previous contents stay in use.
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
            () = tokio::time::sleep(CHECK_EVERY) => {}
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
                tracing::error!(what, %error, "failed to use changed files; the previous ones stay in use");
                complaint = Some(error);
            }
        }
    }
}
