//! Files that hold a token, a key or a password.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Read, write or enter, for everybody.
const OTHERS: u32 = 0o007;

/// Files that were told of.
static TOLD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Logs once that every user of the host may read or change the secret in a file.
pub fn warn_if_others_can_read(option: &str, path: &Path) {
    if is_open_to_others(path) {
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(path.to_owned()) {
            let path = path.display();
            tracing::warn!(option, %path, "every user of this host can read this secret; chmod o= takes that away");
        }
    }
}

fn is_open_to_others(path: &Path) -> bool {
    // One that cannot be read is told of by whatever reads it.
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_everybody_can_read_is_seen() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).expect("it is ours");
            assert_eq!(is_open_to_others(file.path()), is_open, "{mode:o}");
        }
        assert!(!is_open_to_others(Path::new("/nonexistent/tokens")));
    }
}
