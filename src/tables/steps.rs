//! What `init-tables` tells: progress while it works, findings at its end.
//!
//! On a terminal a step is a spinner that ends as a line; elsewhere, and where `TERM=dumb` or
//! `NO_COLOR` is set, it is one plain line at its end, without escape codes. Both go to standard
//! error; the findings go to standard output, one line each:
//!
//! ```text
//! made     table citystream-raw-events
//! kept     topic city-events: has 12 partitions instead of 6
//! ```

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;
use crate::telemetry;

/// What was found or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was missing and is there now.
    Made,
    /// It was there.
    Kept,
    /// It was there and was changed.
    Changed,
    /// It is missing, and nothing was changed.
    Missing,
    /// It differs, and nothing was changed.
    Differs,
    /// It was there and is gone.
    Deleted,
    /// There was none to delete.
    Absent,
}

impl Outcome {
    /// Returns the first word of a finding's line.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Made => "made",
            Outcome::Kept => "kept",
            Outcome::Changed => "changed",
            Outcome::Missing => "missing",
            Outcome::Differs => "differs",
            Outcome::Deleted => "deleted",
            Outcome::Absent => "absent",
        }
    }

    /// Tells whether `--check` fails for it.
    pub const fn is_difference(self) -> bool {
        matches!(self, Outcome::Missing | Outcome::Differs)
    }
}

/// A line of the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found or done.
    pub outcome: Outcome,
    /// About what: `table citystream-totals`.
    pub what: String,
    /// What differs, a sentence each.
    pub notes: Vec<String>,
}

impl Finding {
    /// Returns a finding without notes.
    pub fn new(outcome: Outcome, what: String) -> Finding {
        Finding::with_notes(outcome, what, Vec::new())
    }

    /// Returns a finding.
    pub fn with_notes(outcome: Outcome, what: String, notes: Vec<String>) -> Finding {
        Finding {
            outcome,
            what,
            notes,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<8} {}", self.outcome.name(), self.what)?;
        if !self.notes.is_empty() {
            write!(f, ": {}", self.notes.join("; "))?;
        }
        Ok(())
    }
}

/// Prints the findings to standard output; a reader that is gone is no error.
///
/// # Errors
/// If standard output cannot be written for another reason.
pub fn print(findings: &[Finding]) -> std::io::Result<()> {
    let lines = findings.iter().map(|finding| format!("{finding}\n"));
    output::print(&lines.collect::<String>())
}

/// Returns an error and its sources in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        out = format!("{out}: {source}");
        next = source.source();
    }
    out
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    show: Show,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Spinners,
    Lines,
    Nothing,
}

impl Steps {
    /// Returns what suits standard error.
    pub fn new() -> Steps {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb")
            || std::env::var_os("NO_COLOR").is_some();
        let show = if std::io::stderr().is_terminal() && !dumb {
            Show::Spinners
        } else {
            Show::Lines
        };
        Steps { show }
    }

    /// Returns one that shows nothing, for callers with a display of their own.
    pub fn silent() -> Steps {
        Steps {
            show: Show::Nothing,
        }
    }

    /// Begins a step, named by what is being done: `creating table x`.
    pub fn begin(&self, what: String) -> Step {
        let bar = (self.show == Show::Spinners).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                .expect("the template is constant");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step {
            what,
            begin: Instant::now(),
            bar,
            line: self.show != Show::Nothing,
        }
    }
}

impl Default for Steps {
    fn default() -> Steps {
        Steps::new()
    }
}

/// A step under way. Dropped without an end, as after an error, it leaves nothing on the screen.
#[derive(Debug)]
pub struct Step {
    what: String,
    begin: Instant,
    bar: Option<ProgressBar>,
    line: bool,
}

impl Step {
    /// Ends the step and leaves a line with the time it took.
    pub fn end(self, outcome: Outcome) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.line {
            let result = match outcome {
                Outcome::Kept => "ok",
                other => other.name(),
            };
            let seconds = self.begin.elapsed().as_secs_f64();
            telemetry::print_stderr(&format!("{}: {result} ({seconds:.1} s)", self.what));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::with_notes(
            Outcome::Kept,
            "topic a".to_owned(),
            vec!["has b".to_owned(), "has c".to_owned()],
        );
        assert_eq!(finding.to_string(), "kept     topic a: has b; has c");
        assert!(!finding.outcome.is_difference());
        assert!(Outcome::Missing.is_difference() && Outcome::Differs.is_difference());
    }
}
