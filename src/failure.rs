//! Describes a failure for the user: what failed, why it failed, and the remedy.
//!
//! ```text
//! citystream: failed to listen on 127.0.0.1:8080 (--listen)
//!   because: Address already in use (os error 98)
//!   > stop the program that listens there, or choose another address; port 0 picks a free one
//! ```
//!
//! A failure keeps its three parts as separate fields, which are combined only when the failure is printed.
//! [`crate::remedy`] adds remedies to errors of other crates.

use std::error::Error;
use std::fmt;

use crate::output::lines;

/// The description of a failure, divided into what failed, why it failed, and the remedy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The action that the program could not complete.
    pub what: String,
    /// The reason for the failure, if the reason is known.
    pub why: Option<String>,
    /// The action by which the user can repair the cause, if such an action is known.
    pub remedy: Option<String>,
}

impl Failure {
    /// Returns a failure that has no reason and no remedy yet.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            ..Failure::default()
        }
    }

    /// Sets the reason for the failure.
    #[must_use]
    pub fn with_why(self, why: impl Into<String>) -> Failure {
        Failure {
            why: Some(why.into()),
            ..self
        }
    }

    /// Sets the remedy for the failure.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Failure {
        Failure {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// Returns what failed and why in one line, without the remedy.
    pub fn cause(&self) -> String {
        match &self.why {
            Some(why) => format!("{}: {why}", self.what),
            None => self.what.clone(),
        }
    }

    /// Returns the lines to print to standard error. Lines that are longer than `columns` are wrapped between words.
    pub fn to_lines(&self, columns: Option<usize>) -> String {
        let mut out = lines("citystream: ", &self.what, 2, columns);
        if let Some(why) = &self.why {
            // The reason may be a message from another program, with several lines.
            for (at, line) in why.lines().enumerate() {
                let first = if at == 0 { "  because: " } else { "    " };
                out.push_str(&lines(first, line, 4, columns));
            }
        }
        if let Some(remedy) = &self.remedy {
            out.push_str(&lines("  > ", remedy, 4, columns));
        }
        out
    }
}

/// Writes all parts of the failure in one line, for logs and `/readyz`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause())?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {}

/// Returns the messages of an error and its sources in one line.
///
/// The message of a source is omitted if the line already ends with that message.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut out = in_one_line(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let text = in_one_line(&source.to_string());
        if !out.ends_with(&text) {
            out = format!("{out}: {text}");
        }
        next = source.source();
    }
    out
}

/// Replaces line breaks with spaces. If a message of the AWS SDK contains the debug output of a value, the message is
/// cut before the debug output.
fn in_one_line(text: &str) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let starts = ["Request {", "Response {", "SdkBody {"];
    if let Some(at) = starts.iter().filter_map(|start| text.find(start)).min() {
        text.truncate(at);
        text.truncate(text.trim_end_matches([' ', '`', '(', ':']).len());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_in_three_parts_or_in_one_line() {
        let failure = Failure::new("failed to do it")
            .with_why("a message;\nof others")
            .with_remedy("do it again");
        assert_eq!(
            failure.to_lines(None),
            "citystream: failed to do it\n  because: a message;\n    of others\n  > do it again\n"
        );
        let stopped = Failure::new("stopped").with_remedy("run it again");
        assert_eq!(stopped.to_string(), "stopped; run it again");
        assert_eq!(
            stopped.to_lines(Some(14)),
            "citystream: stopped\n  > run it\n    again\n"
        );
    }

    #[test]
    fn a_chain_is_one_line_without_repetitions() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed: no\n route")]
        struct Outer(#[source] Failure);
        assert_eq!(chain(&Outer(Failure::new("no route"))), "failed: no route");
        assert_eq!(
            chain(&Outer(Failure::new("Request { body }"))),
            "failed: no route: …"
        );
    }
}
