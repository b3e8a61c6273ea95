//! Shows the progress line of `consume --stop-at-end` on a terminal. The line contains the share of the initial records
//! that the group has committed, the rate, and the remaining time.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::consume::ConsumeStatus;
use crate::core::clock::SteadyMs;
use crate::core::progress::{TaskProgress, show_eta};
use crate::telemetry::{print_stderr, steady_ms};

/// Time between two updates of the progress line.
const TICK: Duration = Duration::from_millis(200);
/// Number of terminal columns that the whole progress line needs. On a narrower terminal, the line omits the bar.
const COLUMNS_MIN: u16 = 80;

/// A progress line on the terminal. The progress line disappears when the `ProgressLine` is dropped.
pub(crate) struct ProgressLine {
    task: tokio::task::JoinHandle<()>,
    bar: ProgressBar,
    begun_ms: SteadyMs,
    status: Arc<ConsumeStatus>,
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
        if let (Some(total), Some(0)) = (self.status.left_at_first(), self.status.left()) {
            let seconds = seconds(steady_ms() - self.begun_ms);
            print_stderr(&format!(
                "citystream: read {} records to the end in {seconds:.1} s",
                HumanCount(total)
            ));
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// Begins to print the progress line to standard error.
pub(crate) fn show(status: Arc<ConsumeStatus>) -> ProgressLine {
    let bar = ProgressBar::no_length();
    bar.set_style(style("{spinner} {msg}"));
    bar.set_message("waiting for Kafka");
    let (drawn, looked) = (bar.clone(), Arc::clone(&status));
    let task = tokio::spawn(async move {
        let mut progress = None;
        loop {
            if let (Some(left), Some(total)) = (looked.left(), looked.left_at_first()) {
                draw(&drawn, (left, total), &mut progress);
            }
            drawn.tick();
            tokio::time::sleep(TICK).await;
        }
    });
    ProgressLine {
        task,
        bar,
        begun_ms: steady_ms(),
        status,
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a constant template is right")
}

fn draw(bar: &ProgressBar, (left, total): (u64, u64), progress: &mut Option<TaskProgress>) {
    if bar.length().is_none() {
        let is_wide = crossterm::terminal::size().is_ok_and(|(columns, _)| columns >= COLUMNS_MIN);
        bar.set_style(style(if is_wide {
            "{bar:24} {human_pos}/{human_len} records  {msg}"
        } else {
            "{human_pos}/{human_len} {msg}"
        }));
        bar.set_length(total);
    }
    let done = total.saturating_sub(left);
    let progress = progress.get_or_insert_with(|| TaskProgress::new(steady_ms(), done));
    progress.look(steady_ms(), done);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rate = HumanCount(progress.per_second().round() as u64);
    // The function sets the message before the position of the bar. With the reverse order, the line could briefly show
    // a remaining time although all records are committed.
    bar.set_message(format!(
        "{rate}/s, {}",
        show_eta(progress.seconds_left(left))
    ));
    bar.set_position(done);
}
