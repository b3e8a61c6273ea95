//! Computes how fast a task with a known amount of work proceeds, and how long it will still take.

use crate::clock::SteadyMs;

/// Weight of the newest measured rate in the average rate. The previous average has the remaining weight, 0.7.
const NEWEST_WEIGHT: f64 = 0.3;
/// Time between two measurements of the rate, in milliseconds.
const MEASURE_MS: i64 = 1_000;

/// Tracks how many pieces of a task are complete, and how many pieces are completed per second.
#[derive(Clone, Debug)]
pub struct TaskProgress {
    measured_ms: SteadyMs,
    measured: u64,
    per_second: Option<f64>,
}

impl TaskProgress {
    /// Returns the progress of a task that begins at `now_ms`, when `done` pieces of work are already complete.
    pub fn new(now_ms: SteadyMs, done: u64) -> TaskProgress {
        TaskProgress {
            measured_ms: now_ms,
            measured: done,
            per_second: None,
        }
    }

    /// Notes that `done` pieces of work are complete at `now_ms`.
    #[allow(clippy::cast_precision_loss)]
    pub fn look(&mut self, now_ms: SteadyMs, done: u64) {
        let ms = now_ms - self.measured_ms;
        if ms < MEASURE_MS {
            return;
        }
        let newest = done.saturating_sub(self.measured) as f64 * 1_000.0 / ms as f64;
        // Tasks often begin with a wait, so an average rate of zero has no weight.
        self.per_second = match self.per_second {
            Some(rate) if rate > 0.0 => Some(rate * (1.0 - NEWEST_WEIGHT) + newest * NEWEST_WEIGHT),
            _ => Some(newest),
        };
        (self.measured_ms, self.measured) = (now_ms, done);
    }

    /// Returns the recent rate in pieces per second. The rate is 0 before the first measurement.
    pub fn per_second(&self) -> f64 {
        self.per_second.unwrap_or(0.0)
    }

    /// Returns the remaining time of the task in seconds, at the recent rate. `left` is the number of remaining pieces.
    /// Returns `None` while the rate is zero.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss
    )]
    pub fn seconds_left(&self, left: u64) -> Option<u64> {
        if left == 0 {
            return Some(0);
        }
        let rate = self.per_second.filter(|rate| *rate > 0.0)?;
        // The conversion to `u64` saturates at the largest `u64`, but no task takes that many seconds.
        Some((left as f64 / rate).ceil() as u64)
    }
}

/// Formats a remaining time as human-readable text, such as `eta 45s`, `eta 3m 05s`, `eta 2h 07m` or `eta unknown`.
pub fn show_eta(seconds: Option<u64>) -> String {
    match seconds {
        None => "eta unknown".to_owned(),
        Some(s) if s < 60 => format!("eta {s}s"),
        Some(s) if s < 3_600 => format!("eta {}m {:02}s", s / 60, s % 60),
        Some(s) => format!("eta {}h {:02}m", s / 3_600, s % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_rate() {
        let mut progress = TaskProgress::new(SteadyMs(0), 0);
        assert_eq!(progress.seconds_left(6_000), None, "nothing is measured");
        progress.look(SteadyMs(500), 300);
        assert_eq!(progress.seconds_left(5_700), None, "too soon to tell");
        progress.look(SteadyMs(1_000), 0);
        assert_eq!(progress.seconds_left(6_000), None, "nothing moves");
        progress.look(SteadyMs(2_000), 1_000);
        assert_eq!(progress.seconds_left(5_000), Some(5));
        progress.look(SteadyMs(3_000), 3_000);
        assert!((progress.per_second() - 1_300.0).abs() < 1e-6);
        assert_eq!(progress.seconds_left(3_000), Some(3));
        assert_eq!(progress.seconds_left(0), Some(0));
    }

    #[test]
    fn a_rate_that_falls_to_nothing_is_forgotten_slowly() {
        let mut progress = TaskProgress::new(SteadyMs(0), 0);
        progress.look(SteadyMs(1_000), 100);
        progress.look(SteadyMs(2_000), 100);
        assert!((progress.per_second() - 70.0).abs() < 1e-6);
    }

    #[test]
    fn times_left_read_well() {
        for (seconds, text) in [
            (None, "eta unknown"),
            (Some(0), "eta 0s"),
            (Some(59), "eta 59s"),
            (Some(185), "eta 3m 05s"),
            (Some(7_620), "eta 2h 07m"),
        ] {
            assert_eq!(show_eta(seconds), text);
        }
    }
}
