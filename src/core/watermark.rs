//! The watermark of one partition.
//!
//! It is the largest event time seen in the partition's log so far, less the allowed lateness; it
//! starts at −∞ and never goes back. Only the largest time is kept: it is what restart points carry,
//! so that the watermark at an offset is the same for whoever gets there (INV-4).

use crate::window::Rules;

/// The largest event time of a partition below some offset, if any moved it yet.
///
/// Eight bytes, since each record in flight has one: [`NEVER`] stands for "none yet".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MaxTime(i64);

/// Before all event times, which have four digits of year.
const NEVER: i64 = i64::MIN;

impl MaxTime {
    /// Returns the state that a restart point carries.
    pub const fn new(max_ms: Option<i64>) -> MaxTime {
        match max_ms {
            Some(max_ms) => MaxTime(max_ms),
            None => MaxTime(NEVER),
        }
    }

    /// Returns the largest event time in Unix milliseconds.
    pub const fn max_ms(self) -> Option<i64> {
        if self.0 == NEVER { None } else { Some(self.0) }
    }

    /// Takes one event time or heartbeat that is not future.
    pub fn observe(&mut self, time_ms: i64) {
        self.0 = self.0.max(time_ms);
    }

    /// Returns the watermark: windows that end at or before it take no more events.
    pub fn watermark_ms(self, rules: &Rules) -> Option<i64> {
        self.max_ms()
            .map(|max| max.saturating_sub(rules.lateness_ms))
    }

    /// Tells whether an event is late, by the watermark as it stood before that event.
    pub fn is_late(self, time_ms: i64, rules: &Rules) -> bool {
        let end = rules.window_end(rules.window_start(time_ms));
        self.watermark_ms(rules).is_some_and(|w| end <= w)
    }
}

impl Default for MaxTime {
    fn default() -> MaxTime {
        MaxTime(NEVER)
    }
}

impl std::fmt::Debug for MaxTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MaxTime").field(&self.max_ms()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_exact_at_both_edges() {
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
