//! Watches the files of tokens and certificates, and reads a file again when the file changes.
//!
//! Every few seconds, the watcher reads the files and compares their contents with the contents in use. The watcher
//! uses neither modification times nor kernel notifications, so that it also notices a file that is replaced through a
//! symbolic link. Reading the files costs little, because each file has only a few kilobytes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shutdown::Shutdown;

/// Interval at which the watcher checks whether the files have changed.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Maximum size of a token or certificate file in bytes. The server rejects larger files.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The error for a file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    /// The path of the file.
    pub path: PathBuf,
    /// A sentence for the operator that explains why the file cannot be used.
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

/// Calls `apply` with the contents of the files each time the files change, until `shutdown` is triggered. `known`
/// holds the file contents that are in use at the beginning.
///
/// If new contents cannot be read or applied, the watcher logs the error once, and the previous contents stay in
/// use.
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
