//! Computes the watermark of one partition.
//!
//! The watermark is the largest event time so far in the partition's log, minus the allowed lateness. The watermark
//! starts at −∞ and never goes back. Every restart point contains the largest event time, so that all consumers compute
//! the same watermark at the same offset (INV-4).

use crate::clock::UnixMs;
use crate::window::Rules;

/// The largest event time of a partition's records below a certain offset. There is no largest event time if none of
/// these records is an event or a heartbeat.
///
/// A `MaxTime` takes only eight bytes, because the worker stores one for each record in flight. The value [`NEVER`]
/// means that there is no largest event time yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MaxTime(UnixMs);

/// An instant that no event time can equal, because event times begin in 1970.
const NEVER: UnixMs = UnixMs::MIN;

impl MaxTime {
    /// Returns a `MaxTime` with the largest event time `max_ms`, or without a largest event time if `max_ms` is `None`.
    pub const fn new(max_ms: Option<UnixMs>) -> MaxTime {
        match max_ms {
            Some(max_ms) => MaxTime(max_ms),
            None => MaxTime(NEVER),
        }
    }

    /// Returns the largest event time, or `None` if there is none yet.
    pub const fn max_ms(self) -> Option<UnixMs> {
        if self.0.0 == NEVER.0 {
            None
        } else {
            Some(self.0)
        }
    }

    /// Updates the largest event time with the time of an event or a heartbeat. The caller must not pass the time of an
    /// event or heartbeat that is too far ahead of its record's timestamp.
    pub fn observe(&mut self, time_ms: UnixMs) {
        self.0 = self.0.max(time_ms);
    }

    /// Returns the watermark. Windows that end at or before the watermark get no more events.
    pub fn watermark_ms(self, rules: &Rules) -> Option<UnixMs> {
        self.max_ms()
            .map(|max| max.saturating_sub(rules.lateness_ms))
    }

    /// Returns true if an event with the time `time_ms` is late. `self` must contain the largest event time of all
    /// records before the event.
    pub fn is_late(self, time_ms: UnixMs, rules: &Rules) -> bool {
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
        // The window [0, 300_000) becomes final when the largest event time reaches the end of the window plus the
        // allowed lateness.
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
            let max = MaxTime::new(Some(UnixMs(max_ms)));
            assert_eq!(
                max.is_late(UnixMs(time_ms), &rules),
                late,
                "{max_ms} {time_ms}"
            );
        }
        assert!(!MaxTime::default().is_late(UnixMs(0), &rules));
    }

    #[test]
    fn it_never_goes_back() {
        let mut max = MaxTime::default();
        for (time_ms, want) in [(5, 5), (3, 5), (9, 9), (-1, 9)] {
            max.observe(UnixMs(time_ms));
            assert_eq!(max.max_ms(), Some(UnixMs(want)));
        }
    }

    #[test]
    fn a_time_that_was_never_seen_is_shown_as_absent() {
        let text = |max_ms: Option<UnixMs>| format!("{:?}", MaxTime::new(max_ms));
        assert_eq!(text(None), "MaxTime(None)");
        assert_eq!(text(Some(UnixMs(5))), "MaxTime(Some(UnixMs(5)))");
    }
}
