//! Warns about files with secrets that other users can read.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The permission bits of a file for all other users: read, write and execute.
const OTHERS: u32 = 0o007;

/// The files for which a warning has already been logged.
static WARNED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Logs a warning if every user of the host can read or change the file. At most one warning is logged for each file.
pub fn warn_if_others_can_read(option: &str, path: &Path) {
    if is_open_to_others(path) {
        let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(path.to_owned()) {
            let path = path.display();
            tracing::warn!(option, %path, "every user of this host can read this secret; run chmod o= on the file");
        }
    }
}

fn is_open_to_others(path: &Path) -> bool {
    // If the metadata of the file cannot be read, no warning is logged, because the code that opens the file reports
    // the error.
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_every_user_can_read_is_noticed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).expect("it is ours");
            assert_eq!(is_open_to_others(file.path()), is_open, "{mode:o}");
        }
        assert!(!is_open_to_others(Path::new("/nonexistent/tokens")));
    }
}
