//! Tumbling windows of event time, and the fixed rules that place an event in or outside of them.
//!
//! Windows are half-open, `[start, end)`, aligned to the Unix epoch, whatever the time of the first
//! event or of the start of the program.

/// The rules every consumer of one set of tables shares; they stand in the config item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Length of a window.
    pub window_ms: i64,
    /// How far the watermark stays behind the largest event time.
    pub lateness_ms: i64,
    /// How far an event may lie ahead of its record's timestamp before it counts as future.
    pub skew_ms: i64,
}

impl Default for Rules {
    /// Five, ten and five minutes.
    fn default() -> Rules {
        Rules {
            window_ms: 5 * 60_000,
            lateness_ms: 10 * 60_000,
            skew_ms: 5 * 60_000,
        }
    }
}

impl Rules {
    /// Returns the start of the window that holds `time_ms`.
    pub fn window_start(&self, time_ms: i64) -> i64 {
        time_ms - time_ms.rem_euclid(self.window_ms)
    }

    /// Returns the first instant after the window that starts at `start_ms`.
    pub fn window_end(&self, start_ms: i64) -> i64 {
        start_ms + self.window_ms
    }

    /// Tells whether an event is too far ahead of its record to be believed about time.
    ///
    /// A record without a timestamp counts as future, so that it never moves the watermark.
    pub fn is_future(&self, time_ms: i64, record_ms: Option<i64>) -> bool {
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
            let start = rules.window_start(time_ms);
            proptest::prop_assert!(start <= time_ms && time_ms < rules.window_end(start));
            proptest::prop_assert_eq!(start.rem_euclid(window_ms), 0);
        }
    }

    #[test]
    fn future_begins_one_millisecond_past_the_skew() {
        let rules = Rules::default();
        assert!(!rules.is_future(300_000, Some(0)));
        assert!(rules.is_future(300_001, Some(0)));
        assert!(!rules.is_future(-5, Some(0)));
        assert!(rules.is_future(0, None));
    }
}
