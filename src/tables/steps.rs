//! The output of `init-tables`: the command shows its steps while it works, and prints its findings at the end.
//!
//! On a terminal, a running step is shown as a spinner. When the step ends, a line of text replaces the spinner. Each
//! step is printed as one plain line if standard error is not a terminal, or if `TERM=dumb` or `NO_COLOR` is set. Lines
//! about steps go to standard error. The findings go to standard output, with one line for each finding:
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

/// Maximum time that a step waits without printing a line about the wait.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// The outcome of `init-tables` for one table or topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingOutcome {
    /// The table or topic was missing and was created.
    Made,
    /// The table or topic existed and was left unchanged.
    Kept,
    /// The table or topic existed and was changed.
    Changed,
    /// The table or topic is missing, and nothing was changed.
    Missing,
    /// The table or topic differs from the settings, and nothing was changed.
    Differs,
    /// The table or topic existed and was deleted.
    Deleted,
    /// The table or topic did not exist, so there was nothing to delete.
    Absent,
}

impl FindingOutcome {
    /// Returns the word with which the line of a finding begins, such as `made`.
    pub const fn name(self) -> &'static str {
        match self {
            FindingOutcome::Made => "made",
            FindingOutcome::Kept => "kept",
            FindingOutcome::Changed => "changed",
            FindingOutcome::Missing => "missing",
            FindingOutcome::Differs => "differs",
            FindingOutcome::Deleted => "deleted",
            FindingOutcome::Absent => "absent",
        }
    }

    /// Returns true if `--check` fails because of this outcome.
    pub const fn is_difference(self) -> bool {
        matches!(self, FindingOutcome::Missing | FindingOutcome::Differs)
    }
}

/// A finding. `init-tables` prints each finding as one line at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The outcome for the table or topic that the finding describes.
    pub outcome: FindingOutcome,
    /// The subject of the finding, such as `table citystream-totals`.
    pub what: String,
    /// Notes about the finding, such as one sentence for each difference.
    pub notes: Vec<String>,
}

impl Finding {
    /// Returns a finding that has no notes.
    pub fn new(outcome: FindingOutcome, what: String) -> Finding {
        Finding::with_notes(outcome, what, Vec::new())
    }

    /// Returns a finding that has notes.
    pub fn with_notes(outcome: FindingOutcome, what: String, notes: Vec<String>) -> Finding {
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

/// Prints the findings to standard output. If standard output is a closed pipe, the function returns no error.
///
/// # Errors
/// Returns an error if writing fails for a reason other than a closed pipe.
pub fn print_findings(findings: &[Finding]) -> std::io::Result<()> {
    let lines = findings.iter().map(|finding| format!("{finding}\n"));
    output::print(&lines.collect::<String>())
}

/// Shows the steps of `init-tables` while the command works.
#[derive(Clone, Copy, Debug)]
pub struct StepDisplay {
    show: Show,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Spinners,
    Lines,
    Nothing,
}

impl StepDisplay {
    /// Returns a display that shows spinners on a terminal, and plain lines otherwise.
    pub fn new() -> StepDisplay {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb")
            || std::env::var_os("NO_COLOR").is_some();
        let show = if std::io::stderr().is_terminal() && !dumb {
            Show::Spinners
        } else {
            Show::Lines
        };
        StepDisplay { show }
    }

    /// Returns a display that shows nothing, for callers that have their own display.
    pub fn silent() -> StepDisplay {
        StepDisplay {
            show: Show::Nothing,
        }
    }

    /// Begins and displays a step. `what` is the name of the step, such as `creating table x`.
    pub fn begin(&self, what: String) -> TableStep {
        let bar = (self.show == Show::Spinners).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                .expect("the template is constant");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        TableStep {
            what,
            begin: Instant::now(),
            bar,
            line: self.show != Show::Nothing,
        }
    }
}

impl Default for StepDisplay {
    fn default() -> StepDisplay {
        StepDisplay::new()
    }
}

/// A running step of `init-tables`. If an error ends the step before a call of `end`, no line is printed for the step.
#[derive(Debug)]
pub struct TableStep {
    what: String,
    begin: Instant,
    bar: Option<ProgressBar>,
    line: bool,
}

impl TableStep {
    /// Waits until `future` completes. If the wait takes longer than [`QUIET_MAX`], the function prints the name of the
    /// step and the maximum wait.
    pub async fn announce_wait<T>(&self, limit: Duration, future: impl Future<Output = T>) -> T {
        let announce = || {
            let (what, seconds) = (&self.what, limit.as_secs());
            let text = format!("{what}: no answer yet, waiting up to {seconds} s");
            match &self.bar {
                Some(bar) => bar.suspend(|| telemetry::print_stderr(&text)),
                None if self.line => telemetry::print_stderr(&text),
                None => {}
            }
        };
        after(QUIET_MAX, announce, future).await
    }

    /// Ends the step, and prints a line with the outcome and the duration of the step.
    pub fn end(self, outcome: FindingOutcome) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.line {
            let result = match outcome {
                FindingOutcome::Kept => "ok",
                other => other.name(),
            };
            let seconds = self.begin.elapsed().as_secs_f64();
            telemetry::print_stderr(&format!("{}: {result} ({seconds:.1} s)", self.what));
        }
    }
}

/// Waits until `future` completes. If `future` takes longer than `quiet`, the function calls `announce` once.
async fn after<T>(quiet: Duration, announce: impl FnOnce(), future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    tokio::select! {
        biased;
        done = &mut future => return done,
        () = tokio::time::sleep(quiet) => announce(),
    }
    future.await
}

impl Drop for TableStep {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_long_wait_is_announced() {
        let announced = std::cell::Cell::new(0);
        let announce = || announced.set(announced.get() + 1);
        let short = after(Duration::from_secs(60), announce, async { 7 });
        assert_eq!((short.await, announced.get()), (7, 0));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let announce = || {
            announced.set(announced.get() + 1);
            sender.send(8).expect("the wait goes on");
        };
        let long = after(Duration::ZERO, announce, receiver);
        assert_eq!((long.await, announced.get()), (Ok(8), 1));
    }

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::with_notes(
            FindingOutcome::Kept,
            "topic a".to_owned(),
            vec!["has b".to_owned(), "has c".to_owned()],
        );
        assert_eq!(finding.to_string(), "kept     topic a: has b; has c");
        assert!(!finding.outcome.is_difference());
        assert!(FindingOutcome::Missing.is_difference() && FindingOutcome::Differs.is_difference());
    }
}
