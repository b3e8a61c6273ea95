//! Files with secrets: the URLs, tokens and signing keys of receivers.
//!
//! A file with secrets is read before each message, so a renewed secret takes effect without a restart. No error text
//! contains a secret.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use url::Url;

/// Maximum size of a file with secrets, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Maximum number of signing keys in a file: the new key, old keys, and some spare room.
const KEYS_MAX: usize = 10;
/// The prefix of a signing key in the format of Standard Webhooks.
const KEY_PREFIX: &str = "whsec_";
/// The lengths of a signing key that Standard Webhooks allows, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A file that contains one secret per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: PathBuf,
}

impl SecretFile {
    /// Returns a reference to the file at `path` without reading the file.
    pub fn new(path: PathBuf) -> SecretFile {
        SecretFile { path }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lines(&self) -> Result<Vec<String>, String> {
        let at = self.path.display();
        let failed = |error: std::io::Error| format!("failed to read {at}: {error}");
        let metadata = std::fs::metadata(&self.path).map_err(failed)?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(format!("{at} is larger than 64 KiB"));
        }
        let bytes = std::fs::read(&self.path).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{at} is not UTF-8 text"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    /// Reads a token or a key from a file that contains a single line. The line must contain only characters that are
    /// allowed in an HTTP header.
    ///
    /// # Errors
    /// Returns an error message that names the file.
    pub fn line(&self) -> Result<String, String> {
        let mut lines = self.lines()?;
        let at = self.path.display();
        match (lines.pop(), lines.len()) {
            (Some(line), 0) if line.chars().all(|c| c.is_ascii_graphic()) => Ok(line),
            (Some(_), 0) => Err(format!("{at} holds a character that a secret cannot have")),
            (None, _) => Err(format!("{at} is empty")),
            (Some(_), _) => Err(format!("{at} holds more than one line")),
        }
    }

    /// Reads the URL in the file.
    ///
    /// # Errors
    /// Returns an error message that names the file.
    pub fn url(&self, allow_http: bool) -> Result<Url, String> {
        parse_url(&self.line()?, allow_http)
            .map_err(|flaw| format!("{} holds a URL that {flaw}", self.path.display()))
    }

    /// Reads the signing keys in the file. Each key has the form `whsec_<base64>`. The first key in the file is the
    /// newest key.
    ///
    /// # Errors
    /// Returns an error message that names the file.
    pub fn signing_keys(&self) -> Result<Vec<Vec<u8>>, String> {
        let at = self.path.display();
        let lines = self.lines()?;
        if lines.is_empty() || lines.len() > KEYS_MAX {
            return Err(format!(
                "{at} holds {} keys instead of 1 to {KEYS_MAX}",
                lines.len()
            ));
        }
        let keys = lines.iter().enumerate().map(|(n, line)| {
            parse_signing_key(line).ok_or_else(|| {
                let n = n + 1;
                format!("key {n} in {at} is not whsec_ with 24 to 64 bytes in base64")
            })
        });
        keys.collect()
    }
}

/// Decodes a signing key in the format of Standard Webhooks.
pub fn parse_signing_key(text: &str) -> Option<Vec<u8>> {
    let encoded = text.strip_prefix(KEY_PREFIX)?;
    let key = base64::engine::general_purpose::STANDARD.decode(encoded);
    key.ok().filter(|key| KEY_BYTES.contains(&key.len()))
}

/// Parses the URL of a receiver.
///
/// # Errors
/// Returns the end of an error message that begins with "a URL that".
pub fn parse_url(text: &str, allow_http: bool) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("cannot be parsed: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return Err(
                "begins with http://, which is not encrypted and needs allow_private".to_owned(),
            );
        }
        _ => return Err("does not begin with https://".to_owned()),
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &str) -> (tempfile::NamedTempFile, SecretFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let secret = SecretFile::new(file.path().to_owned());
        (file, secret)
    }

    #[test]
    fn a_file_has_one_secret_on_one_line() {
        let (_keep, secret) = file("  token-1\n\n");
        assert_eq!(secret.line().as_deref(), Ok("token-1"));
        for (text, end) in [
            ("", "is empty"),
            ("a\nb\n", "holds more than one line"),
            ("a b\n", "holds a character that a secret cannot have"),
            ("käse\n", "holds a character that a secret cannot have"),
        ] {
            let (_keep, secret) = file(text);
            let error = secret.line().unwrap_err();
            assert!(error.ends_with(end), "{error}");
        }
        let absent = SecretFile::new("/nonexistent/key".into());
        let error = absent.line().unwrap_err();
        assert!(
            error.starts_with("failed to read /nonexistent/key: "),
            "{error}"
        );
        let (_keep, secret) = file(&"x".repeat(70_000));
        assert!(secret.line().unwrap_err().ends_with("larger than 64 KiB"));
    }

    #[test]
    fn signing_keys_have_24_to_64_bytes() {
        let key = |n: usize| {
            let text = base64::engine::general_purpose::STANDARD.encode(vec![7; n]);
            format!("whsec_{text}")
        };
        for (n, is_valid) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(parse_signing_key(&key(n)).is_some(), is_valid, "{n}");
        }
        assert_eq!(parse_signing_key(&key(24)[1..]), None);
        let (_keep, secret) = file(&format!("{}\n{}\n", key(24), key(32)));
        let lengths = secret.signing_keys().unwrap();
        assert_eq!([lengths[0].len(), lengths[1].len()], [24, 32]);
        let (_keep, secret) = file(&format!("{}\nsesame\n", key(24)));
        let error = secret.signing_keys().unwrap_err();
        assert!(error.starts_with("key 2 in ") && !error.contains("sesame"));
    }

    #[test]
    fn urls_are_encrypted_unless_allowed() {
        let url = parse_url("https://a.example/b?c=d#e", false).unwrap();
        assert_eq!(url.as_str(), "https://a.example/b?c=d");
        assert!(parse_url("http://a.example", true).is_ok());
        for (text, allow_http, words) in [
            ("http://a.example", false, "begins with http://"),
            ("ftp://a.example", true, "does not begin with https://"),
            ("a.example", true, "cannot be parsed"),
            ("https://", true, "cannot be parsed"),
        ] {
            let flaw = parse_url(text, allow_http).unwrap_err();
            assert!(flaw.starts_with(words), "{flaw}");
        }
    }
}
