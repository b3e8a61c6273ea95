//! Logs, metrics and clocks.

mod log_limit;
mod logs;
mod metrics;

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::clock::{SteadyMs, UnixMs};

pub use log_limit::{LogLimit, LogLimits};
pub use logs::{
    hold_log_lines, print_stderr, print_stdout, release_log_lines, start_logging, write_stderr,
};
pub use metrics::Metrics;

/// Returns the current time of the wall clock, in milliseconds since the Unix epoch.
pub fn unix_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
}

/// Returns the time of a monotonic clock in milliseconds, for measuring durations.
///
/// The first call of this function sets the monotonic clock to the time of the wall clock. The monotonic clock never
/// goes back, even if an operator sets the wall clock back.
pub fn steady_ms() -> SteadyMs {
    static BEGAN: OnceLock<(Instant, SteadyMs)> = OnceLock::new();
    let (began, began_ms) = BEGAN.get_or_init(|| (Instant::now(), SteadyMs(unix_ms().0)));
    let since_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    began_ms.saturating_add(since_ms)
}

/// Joins the items of a list with commas, for a log field or a message.
pub fn join_list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}

/// Returns true if a stream is a terminal that supports escape codes.
///
/// A role draws progress bars and screens only on a terminal that supports escape codes. If escape codes are not
/// supported, a role prints a plain progress line from time to time. If `NO_COLOR` is set, the drawing libraries omit
/// colors.
pub fn can_draw(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
