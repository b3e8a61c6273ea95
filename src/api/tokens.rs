//! The bearer tokens of a token file. The server reads the token file again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::watch;

use crate::api::reload::{self, FileError};
use crate::shutdown::Shutdown;

/// Minimum number of characters of a token. A shorter token would be too easy to guess.
const TOKEN_CHARS_MIN: usize = 16;

/// The hashes of the valid tokens. All clones share one list.
#[derive(Clone)]
pub struct Tokens {
    path: PathBuf,
    content: Vec<u8>,
    hashes: Arc<watch::Sender<Vec<[u8; 32]>>>,
}

impl Tokens {
    /// Reads a file with one token per line. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, contains no token, or has a line that is not a valid token.
    pub fn load(path: &Path) -> Result<Tokens, FileError> {
        let content = reload::read(path)?;
        let hashes = parse(path, &content)?;
        Ok(Tokens {
            path: path.to_owned(),
            content,
            hashes: Arc::new(watch::Sender::new(hashes)),
        })
    }

    /// Loads the token file again whenever the file changes, until `shutdown` is triggered.
    pub async fn watch(self, shutdown: Shutdown) {
        let apply = |contents: &[Vec<u8>]| {
            self.hashes.send_replace(parse(&self.path, &contents[0])?);
            Ok(())
        };
        let (paths, known) = (vec![self.path.clone()], vec![self.content.clone()]);
        reload::watch("tokens", paths, known, shutdown, apply).await;
    }

    /// Replaces the valid tokens.
    #[cfg(test)]
    pub(super) fn replace_all(&self, tokens: &[&str]) {
        let hashes = tokens.iter().map(|token| Sha256::digest(token).into());
        self.hashes.send_replace(hashes.collect());
    }

    /// Returns the hash of `token`, or `None` if the token is not valid.
    pub(super) fn find(&self, token: &[u8]) -> Option<[u8; 32]> {
        let given: [u8; 32] = Sha256::digest(token).into();
        contains(&self.hashes.borrow(), &given).then_some(given)
    }

    /// Waits until the token with the hash `given` is no longer valid.
    pub(super) async fn wait_until_revoked(self, given: [u8; 32]) {
        let mut hashes = self.hashes.subscribe();
        // `wait_for` fails only if the sender is dropped. `self` owns the sender, so `wait_for` cannot fail here.
        let revoked = hashes.wait_for(|hashes| !contains(hashes, &given)).await;
        debug_assert!(revoked.is_ok(), "the sender is held here");
    }
}

/// Returns true if `hashes` contains `given`.
///
/// The function compares `given` with every hash in constant time, so that the duration reveals nothing about the
/// tokens.
fn contains(hashes: &[[u8; 32]], given: &[u8; 32]) -> bool {
    let mut found = Choice::from(0);
    for hash in hashes {
        found |= hash.ct_eq(given);
    }
    found.into()
}

fn parse(path: &Path, content: &[u8]) -> Result<Vec<[u8; 32]>, FileError> {
    let text =
        std::str::from_utf8(content).map_err(|_| FileError::new(path, "it is not UTF-8 text"))?;
    let mut hashes = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(FileError::new(
                path,
                format!(
                    "line {n} is not a token; use at least {TOKEN_CHARS_MIN} ASCII characters without \
                     spaces, such as the output of openssl rand -hex 32"
                ),
            ));
        }
        hashes.push(Sha256::digest(token).into());
    }
    if hashes.is_empty() {
        return Err(FileError::new(path, "it holds no token"));
    }
    Ok(hashes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) const TOKEN: &str = "0123456789abcdef0123";

    /// Writes `text` to a file, and loads the tokens from that file.
    pub(crate) fn tokens(text: &str) -> Result<Tokens, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        Tokens::load(&path)
    }

    #[test]
    fn token_files_that_would_admit_everyone_are_rejected() {
        for text in [
            "",
            "# nothing\n\n",
            "short\n",
            "0123456789 abcdef 0123456789\n",
            "é123456789abcdef0123\n",
        ] {
            assert!(tokens(text).is_err(), "{text:?}");
        }
        assert!(Tokens::load(Path::new("/nonexistent/tokens")).is_err());
    }

    #[tokio::test]
    async fn a_changed_token_file_is_used_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, TOKEN).unwrap();
        let tokens = Tokens::load(&path).unwrap();
        let shutdown = Shutdown::default();
        let watching = tokio::spawn(tokens.clone().watch(shutdown.clone()));
        std::fs::write(&path, "fedcba9876543210fedc").unwrap();
        while tokens.find(TOKEN.as_bytes()).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(tokens.find(b"fedcba9876543210fedc").is_some());
        std::fs::write(&path, "short").unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(tokens.find(b"fedcba9876543210fedc").is_some());
        shutdown.trigger();
        watching.await.unwrap();
    }
}
