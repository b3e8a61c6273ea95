//! Defines the tumbling windows of event time, and the rules that decide whether a window counts an event.
//!
//! A window includes its start and excludes its end. Windows are aligned to the Unix epoch, so their boundaries depend
//! neither on the first event nor on the start of the program.

use crate::clock::UnixMs;

/// The rules for windows, lateness and future events, which the config item stores for all consumers of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Length of a window, in milliseconds.
    pub window_ms: i64,
    /// The allowed lateness, in milliseconds. The watermark is the largest event time minus this lateness.
    pub lateness_ms: i64,
    /// Maximum time by which an event time may be ahead of the timestamp of its record, in milliseconds. An event
    /// beyond this maximum is a future event.
    pub skew_ms: i64,
}

impl Default for Rules {
    /// Returns rules with windows of five minutes, a lateness of ten minutes and a skew of five minutes.
    fn default() -> Rules {
        Rules {
            window_ms: 5 * 60_000,
            lateness_ms: 10 * 60_000,
            skew_ms: 5 * 60_000,
        }
    }
}

impl Rules {
    /// Returns the start of the window that contains `time_ms`.
    pub fn window_start(&self, time_ms: UnixMs) -> UnixMs {
        time_ms - time_ms.0.rem_euclid(self.window_ms)
    }

    /// Returns the first instant after the window that starts at `start_ms`.
    pub fn window_end(&self, start_ms: UnixMs) -> UnixMs {
        start_ms + self.window_ms
    }

    /// Returns true if an event with the time `time_ms` is a future event. `record_ms` is the timestamp of its record.
    ///
    /// An event in a record without a timestamp is also a future event, so that it does not move the watermark.
    pub fn is_future(&self, time_ms: UnixMs, record_ms: Option<UnixMs>) -> bool {
        record_ms.is_none_or(|record_ms| time_ms > record_ms.saturating_add(self.skew_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_window_contains_its_event(time_ms in -4_000_000_000_000i64..260_000_000_000_000, window_ms in 1i64..100_000_000) {
            let rules = Rules { window_ms, ..Rules::default() };
            let time_ms = UnixMs(time_ms);
            let start = rules.window_start(time_ms);
            proptest::prop_assert!(start <= time_ms && time_ms < rules.window_end(start));
            proptest::prop_assert_eq!(start.0.rem_euclid(window_ms), 0);
        }
    }

    #[test]
    fn future_begins_one_millisecond_past_the_skew() {
        let rules = Rules::default();
        let at_zero = Some(UnixMs(0));
        assert!(!rules.is_future(UnixMs(300_000), at_zero));
        assert!(rules.is_future(UnixMs(300_001), at_zero));
        assert!(!rules.is_future(UnixMs(-5), at_zero));
        assert!(rules.is_future(UnixMs(0), None));
    }
}
