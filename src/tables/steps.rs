//! The output of `init-tables`: steps while it works, findings at its end.
//!
//! On a terminal a step is a spinner that becomes a line at its end. Elsewhere, and if `TERM=dumb` or
//! `NO_COLOR` is set, a step is one plain line at its end, without escape codes. StepDisplay go to standard
//! error. The findings go to standard output, one line each:
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

/// Longest wait without a line that announces it.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// What `init-tables` found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingOutcome {
    /// It was missing and was created.
    Made,
    /// It existed and was left as it is.
    Kept,
    /// It existed and was changed.
    Changed,
    /// It is missing, and nothing was changed.
    Missing,
    /// It differs, and nothing was changed.
    Differs,
    /// It existed and was deleted.
    Deleted,
    /// It did not exist, so there was nothing to delete.
    Absent,
}

impl FindingOutcome {
    /// Returns the first word of a finding's line.
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

    /// Returns whether `--check` fails because of it.
    pub const fn is_difference(self) -> bool {
        matches!(self, FindingOutcome::Missing | FindingOutcome::Differs)
    }
}

/// A line of the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found or done.
    pub outcome: FindingOutcome,
    /// The subject, such as `table citystream-totals`.
    pub what: String,
    /// One sentence per difference.
    pub notes: Vec<String>,
}

impl Finding {
    /// Returns a finding without notes.
    pub fn new(outcome: FindingOutcome, what: String) -> Finding {
        Finding::with_notes(outcome, what, Vec::new())
    }

    /// Returns a finding with notes.
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

/// Prints the findings to standard output. A closed pipe is not an error.
///
/// # Errors
/// If writing fails for another reason.
pub fn print(findings: &[Finding]) -> std::io::Result<()> {
    let lines = findings.iter().map(|finding| format!("{finding}\n"));
    output::print(&lines.collect::<String>())
}

/// How steps are shown.
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
    /// Returns the display that standard error supports.
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

    /// Returns a display that shows nothing, for callers that have their own.
    pub fn silent() -> StepDisplay {
        StepDisplay {
            show: Show::Nothing,
        }
    }

    /// Begins a step with a name such as `creating table x`.
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

impl Default for StepDisplay {
    fn default() -> StepDisplay {
        StepDisplay::new()
    }
}

/// A step that has begun. If it is dropped without an end, as after an error, it leaves no line.
#[derive(Debug)]
pub struct Step {
    what: String,
    begin: Instant,
    bar: Option<ProgressBar>,
    line: bool,
}

impl Step {
    /// Waits for `future`, and prints a line if that takes longer than [`QUIET_MAX`]. The line says what
    /// the program waits for, and for how long at most.
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

    /// Ends the step and prints a line with the time it took.
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

/// Waits for `future`, and calls `announce` once if that takes longer than `quiet`.
async fn after<T>(quiet: Duration, announce: impl FnOnce(), future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    tokio::select! {
        biased;
        done = &mut future => return done,
        () = tokio::time::sleep(quiet) => announce(),
    }
    future.await
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
