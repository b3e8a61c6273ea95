//! The watermark of one partition.
//!
//! It is the largest event time seen in the partition's log so far, less the allowed lateness; it
//! starts at −∞ and never goes back. Only the largest time is kept: it is what restart points carry,
//! so that the watermark at an offset is the same for whoever gets there (invariant C4).

use crate::core::window::Rules;

/// The largest event time of a partition below some offset, if any moved it yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxTime(Option<i64>);

impl MaxTime {
    /// Returns the state that a restart point carries.
    pub const fn new(max_ms: Option<i64>) -> MaxTime {
        MaxTime(max_ms)
    }

    /// Returns the largest event time in Unix milliseconds.
    pub const fn max_ms(self) -> Option<i64> {
        self.0
    }

    /// Takes one event time or heartbeat that is not future.
    pub fn observe(&mut self, time_ms: i64) {
        self.0 = self.0.max(Some(time_ms));
    }

    /// Returns the watermark: windows that end at or before it take no more events.
    pub fn watermark_ms(self, rules: &Rules) -> Option<i64> {
        self.0.map(|max| max.saturating_sub(rules.lateness_ms))
    }

    /// Tells whether an event is late, by the watermark as it stood before that event.
    pub fn is_late(self, time_ms: i64, rules: &Rules) -> bool {
        let end = rules.window_end(rules.window_start(time_ms));
        self.watermark_ms(rules).is_some_and(|w| end <= w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_lateness_is_exact_at_both_edges() {
        let rules = Rules::default();
        // The window [0, 300_000) closes when the largest time reaches its end plus the lateness.
        for (max_ms, time_ms, late) in [
            (899_999, 0, false),
            (900_000, 0, true),
            (900_001, 0, true),
            (899_999, 299_999, false),
            (900_000, 299_999, true),
            (900_001, 299_999, true),
            (900_000, 300_000, false),
            (1_199_999, 300_000, false),
            (1_200_000, 300_000, true),
            (900_000, -1, true),
        ] {
            let max = MaxTime::new(Some(max_ms));
            assert_eq!(max.is_late(time_ms, &rules), late, "{max_ms} {time_ms}");
        }
        assert!(!MaxTime::default().is_late(0, &rules));
    }

    #[test]
    fn it_never_goes_back() {
        let mut max = MaxTime::default();
        for (time_ms, want) in [(5, 5), (3, 5), (9, 9), (-1, 9)] {
            max.observe(time_ms);
            assert_eq!(max.max_ms(), Some(want));
        }
    }
}
