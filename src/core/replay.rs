//! Plans the replay of old events. The plan says when the producer sends each event, and with which event time.
//!
//! | event times | without a speed | at a speed |
//! |---|---|---|
//! | kept | all events are sent at once | the time between two events is divided by the speed |
//! | moved | all events are sent at once; all times move by the same number of whole windows, so that the newest event is at most five minutes old at the start and each window keeps its events | each event gets the time at which it is due |

use crate::clock::UnixMs;
use crate::window::Rules;

/// A plan that says when the producer sends each event of an input, and with which event time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Replay {
    speed: Option<f64>,
    moved: Moved,
    first_ms: Option<UnixMs>,
    largest_ms: UnixMs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Moved {
    /// The event times do not change.
    #[default]
    Not,
    /// Every event time moves by the given number of milliseconds.
    By(i64),
    /// The event time of each event becomes the time at which the event is sent. The field contains the start time of
    /// the replay.
    Due(UnixMs),
}

impl Replay {
    /// Returns a replay that does not change the event times. If `speed` is given, the replay is `speed` times as fast
    /// as the original events. If `speed` is `None`, the producer sends all events at once.
    pub fn at_speed(speed: Option<f64>) -> Replay {
        Replay {
            speed,
            ..Replay::default()
        }
    }

    /// Changes the replay so that the events get current times. `newest_ms` is the largest event time of the input. A
    /// replay with a speed does not need `newest_ms`.
    pub fn restamped(mut self, now_ms: UnixMs, newest_ms: Option<UnixMs>) -> Replay {
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

    /// Returns the time at which an event with the event time `time_ms` must be sent, in milliseconds after the first
    /// event. An event that is older than an earlier event of the input is due at the same time as that earlier event.
    pub fn due_ms(&mut self, time_ms: UnixMs) -> i64 {
        let first_ms = *self.first_ms.get_or_insert(time_ms);
        self.largest_ms = self.largest_ms.max(time_ms).max(first_ms);
        self.scaled(self.largest_ms - first_ms)
    }

    /// Returns the new event time of an event with the event time `time_ms`, or `None` if the event time does not
    /// change. The caller must call [`Replay::due_ms`] first.
    pub fn moved_ms(&self, time_ms: UnixMs) -> Option<UnixMs> {
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
        // The conversions are safe, because event times span less than 2^53 ms and the speed is at least 0.001.
        self.speed.map_or(0, |speed| (ms as f64 / speed) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_speed_events_are_due_as_far_apart_as_they_lie() {
        let mut replay = Replay::at_speed(Some(60.0));
        let dues =
            [0, 60_000, 30_000, -60_000, 3_600_000].map(|ms| replay.due_ms(UnixMs(1_000_000 + ms)));
        assert_eq!(dues, [0, 1_000, 1_000, 1_000, 60_000]);
        assert_eq!(replay.moved_ms(UnixMs(5)), None);
        let mut replay = Replay::at_speed(None);
        assert_eq!([5, 500_000].map(|ms| replay.due_ms(UnixMs(ms))), [0, 0]);
    }

    #[test]
    fn moved_at_a_speed_times_are_those_of_sending() {
        let mut replay = Replay::at_speed(Some(2.0)).restamped(UnixMs(1_700_000_000_000), None);
        for (time_ms, moved_ms) in [(0, 0), (10_000, 5_000), (-2_000, -1_000)] {
            replay.due_ms(UnixMs(time_ms));
            assert_eq!(
                replay.moved_ms(UnixMs(time_ms)),
                Some(UnixMs(1_700_000_000_000 + moved_ms))
            );
        }
    }

    #[test]
    fn moved_at_once_windows_hold_the_same_events() {
        let (now_ms, newest_ms) = (UnixMs(1_700_000_123_456), UnixMs(1_359_000_000_007));
        let replay = Replay::default().restamped(now_ms, Some(newest_ms));
        let window_ms = Rules::default().window_ms;
        let moved_ms = replay.moved_ms(newest_ms).unwrap();
        assert!((now_ms - window_ms..=now_ms).contains(&moved_ms));
        for time_ms in [newest_ms, newest_ms - window_ms + 1, UnixMs(0)] {
            let moved_ms = replay.moved_ms(time_ms).unwrap();
            assert_eq!(
                moved_ms.0.rem_euclid(window_ms),
                time_ms.0.rem_euclid(window_ms)
            );
        }
    }
}
