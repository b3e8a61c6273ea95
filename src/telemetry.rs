//! Logs, metrics and clocks.

mod logs;
mod metrics;

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use logs::{
    hold_log_lines, print_stderr, print_stdout, release_log_lines, start_logging, write_stderr,
};
pub use metrics::Metrics;

/// Returns the wall clock in Unix milliseconds.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Returns a monotonic time in milliseconds, for measuring durations.
///
/// It starts at the wall clock's value and never goes back, even if an operator sets the clock back.
pub fn steady_ms() -> i64 {
    static BEGAN: OnceLock<(Instant, i64)> = OnceLock::new();
    let (began, began_ms) = BEGAN.get_or_init(|| (Instant::now(), unix_ms()));
    let since_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    began_ms.saturating_add(since_ms)
}

/// Returns whether a stream is a terminal that understands escape codes.
///
/// Progress bars and screens are drawn only there; elsewhere a role prints a plain line now and then. The
/// drawing libraries themselves leave out colors if `NO_COLOR` is set.
pub fn can_draw(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
