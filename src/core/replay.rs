//! A file of old events sent again: when each is due, and which time it gets.
//!
//! | | without a speed | at a speed |
//! |---|---|---|
//! | times are kept | at once | as far apart as the events, divided by the speed |
//! | times are moved | the newest event of the file lies at most five minutes before the start; all are moved by the same whole windows, so each window holds the same events | the time at which an event is due |

use crate::window::Rules;

/// When and as of when the events of an input are sent. Times in Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Replay {
    speed: Option<f64>,
    moved: Moved,
    first_ms: Option<i64>,
    largest_ms: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Moved {
    /// Not at all.
    #[default]
    Not,
    /// All by as much.
    By(i64),
    /// To when they are due, counted from this instant.
    Due(i64),
}

impl Replay {
    /// Returns a replay that begins at `now_ms`, at so many times the events' own speed if given.
    pub fn at_speed(speed: Option<f64>) -> Replay {
        Replay {
            speed,
            ..Replay::default()
        }
    }

    /// Moves the times to now. `newest_ms` is the largest event time of the input; it matters without
    /// a speed only.
    pub fn restamped(mut self, now_ms: i64, newest_ms: Option<i64>) -> Replay {
        self.moved = match (self.speed, newest_ms) {
            (Some(_), _) => Moved::Due(now_ms),
            (None, Some(newest_ms)) => {
                let window_ms = Rules::default().window_ms;
                Moved::By((now_ms - newest_ms).div_euclid(window_ms) * window_ms)
            }
            (None, None) => Moved::Not,
        };
        self
    }

    /// Returns how many milliseconds after the first event one of `time_ms` is due. One that is older
    /// than others before it is due with them.
    pub fn due_ms(&mut self, time_ms: i64) -> i64 {
        let first_ms = *self.first_ms.get_or_insert(time_ms);
        self.largest_ms = self.largest_ms.max(time_ms).max(first_ms);
        self.scaled(self.largest_ms - first_ms)
    }

    /// Returns the time that an event of `time_ms` gets; `None` if it keeps its own. Call
    /// [`Replay::due_ms`] first.
    pub fn moved_ms(&self, time_ms: i64) -> Option<i64> {
        match self.moved {
            Moved::Not => None,
            Moved::By(shift_ms) => Some(time_ms + shift_ms),
            Moved::Due(start_ms) => {
                let first_ms = self.first_ms.unwrap_or(time_ms);
                Some(start_ms + self.scaled(time_ms - first_ms))
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn scaled(&self, ms: i64) -> i64 {
        // Event times span less than 2^53 ms, and the speed is at least a thousandth.
        self.speed.map_or(0, |speed| (ms as f64 / speed) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_speed_events_are_due_as_far_apart_as_they_lie() {
        let mut replay = Replay::at_speed(Some(60.0));
        let dues = [0, 60_000, 30_000, -60_000, 3_600_000].map(|ms| replay.due_ms(1_000_000 + ms));
        assert_eq!(dues, [0, 1_000, 1_000, 1_000, 60_000]);
        assert_eq!(replay.moved_ms(5), None);
        let mut replay = Replay::at_speed(None);
        assert_eq!([5, 500_000].map(|ms| replay.due_ms(ms)), [0, 0]);
    }

    #[test]
    fn moved_at_a_speed_times_are_those_of_sending() {
        let mut replay = Replay::at_speed(Some(2.0)).restamped(1_700_000_000_000, None);
        for (time_ms, moved_ms) in [(0, 0), (10_000, 5_000), (-2_000, -1_000)] {
            replay.due_ms(time_ms);
            assert_eq!(replay.moved_ms(time_ms), Some(1_700_000_000_000 + moved_ms));
        }
    }

    #[test]
    fn moved_at_once_windows_hold_the_same_events() {
        let (now_ms, newest_ms) = (1_700_000_123_456, 1_359_000_000_007);
        let replay = Replay::default().restamped(now_ms, Some(newest_ms));
        let window_ms = Rules::default().window_ms;
        let moved_ms = replay.moved_ms(newest_ms).unwrap();
        assert!((now_ms - window_ms..=now_ms).contains(&moved_ms));
        for time_ms in [newest_ms, newest_ms - window_ms + 1, 0] {
            let moved_ms = replay.moved_ms(time_ms).unwrap();
            assert_eq!(
                moved_ms.rem_euclid(window_ms),
                time_ms.rem_euclid(window_ms)
            );
        }
    }
}
