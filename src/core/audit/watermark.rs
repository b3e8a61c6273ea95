//! The audit's own watermark: it knows what it does not know.
//!
//! Where the log still begins at 0 it is exact. Where retention took its beginning, the largest time
//! of the lost records is unknown, but not larger than what a published restart point says, nor, where
//! the broker stamps records as it takes them, than the stamp of the first record left and the skew
//! that an event may be ahead of its own. Until the log itself has shown as large a time, some events
//! may be late or not, nobody can tell: in a stream of the present those ten minutes old or older at
//! the log's beginning.

use crate::window::Rules;

/// Whether an event came too late for its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// In time.
    InTime,
    /// Too late.
    Late,
    /// That depends on records that the log no longer has.
    Unknown,
}

impl Lateness {
    /// Tells whether a row with this flag can be right.
    pub const fn may_be(self, late: bool) -> bool {
        match self {
            Lateness::InTime => !late,
            Lateness::Late => late,
            Lateness::Unknown => true,
        }
    }
}

/// A record's Kafka timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Unix milliseconds, if it has one.
    pub ms: Option<i64>,
    /// It is the broker's, of when it took the record, and not the producer's.
    pub by_broker: bool,
}

/// The largest event time of one partition so far.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    /// Of the records seen.
    seen_ms: Option<i64>,
    /// Records before were lost.
    lost: bool,
    /// No time among the lost ones is larger, if that is known.
    lost_max_ms: Option<i64>,
    /// No record passed yet.
    fresh: bool,
}

impl Watermark {
    /// Returns the watermark at a log's start. `lost`: records before it are gone, of which none has
    /// a time above `lost_max_ms`, if anybody knows.
    pub const fn new(lost: bool, lost_max_ms: Option<i64>) -> Watermark {
        Watermark {
            seen_ms: None,
            lost,
            lost_max_ms,
            fresh: true,
        }
    }

    /// Returns the largest time seen.
    pub const fn seen_ms(&self) -> Option<i64> {
        self.seen_ms
    }

    /// Judges an event's or heartbeat's time, then lets it move the watermark unless it is future.
    pub fn pass(&mut self, time_ms: i64, stamp: Stamp, rules: &Rules) -> Lateness {
        if let (true, true, Some(ms)) = (self.fresh, stamp.by_broker, stamp.ms) {
            // What came before was stamped no later, and was no further ahead of its stamp.
            let bound = ms.saturating_add(rules.skew_ms);
            self.lost_max_ms = Some(self.lost_max_ms.map_or(bound, |known| known.min(bound)));
        }
        self.fresh = false;
        let late = self.judge(time_ms, rules);
        if !rules.is_future(time_ms, stamp.ms) {
            let seen = self.seen_ms.map_or(time_ms, |seen| seen.max(time_ms));
            self.seen_ms = Some(seen);
            self.lost &= self.lost_max_ms.is_none_or(|bound| seen < bound);
        }
        late
    }

    /// Judges a time by what passed before.
    pub fn judge(&self, time_ms: i64, rules: &Rules) -> Lateness {
        let end_ms = rules.window_end(rules.window_start(time_ms));
        let closed_by = |max_ms: i64| end_ms <= max_ms.saturating_sub(rules.lateness_ms);
        if self.seen_ms.is_some_and(closed_by) {
            return Lateness::Late;
        }
        if self.lost && self.lost_max_ms.is_none_or(closed_by) {
            return Lateness::Unknown;
        }
        Lateness::InTime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_producer(ms: i64) -> Stamp {
        Stamp {
            ms: Some(ms),
            by_broker: false,
        }
    }

    #[test]
    fn a_brokers_stamp_bounds_what_was_lost() {
        let rules = Rules::default();
        let stamp = |ms: i64| Stamp {
            ms: Some(ms),
            by_broker: true,
        };
        // The first record left was taken at 1,000,000: none before can have moved the watermark past
        // 1,000,000 + 300,000 - 600,000.
        let mut watermark = Watermark::new(true, Some(i64::MAX));
        assert_eq!(
            watermark.pass(600_000, stamp(1_000_000), &rules),
            Lateness::InTime
        );
        assert_eq!(watermark.judge(300_000, &rules), Lateness::Unknown);
        assert_eq!(watermark.judge(400_000, &rules), Lateness::Unknown);
        // The stamps of later records say no less.
        watermark.pass(600_000, stamp(2_000_000), &rules);
        assert_eq!(watermark.judge(600_000, &rules), Lateness::InTime);
        watermark.pass(1_300_000, stamp(2_000_000), &rules);
        assert_eq!(watermark.judge(400_000, &rules), Lateness::Late);
        assert_eq!(watermark.judge(700_000, &rules), Lateness::InTime);
    }

    #[test]
    fn lateness_is_exact_at_both_edges() {
        let rules = Rules::default();
        for (before, time_ms, want) in [
            (899_999, 0, Lateness::InTime),
            (900_000, 0, Lateness::Late),
            (900_000, 299_999, Lateness::Late),
            (900_000, 300_000, Lateness::InTime),
        ] {
            let mut watermark = Watermark::new(false, None);
            watermark.pass(before, by_producer(before), &rules);
            assert_eq!(watermark.judge(time_ms, &rules), want, "{before} {time_ms}");
        }
    }

    #[test]
    fn a_future_event_moves_nothing() {
        let rules = Rules::default();
        let mut watermark = Watermark::new(false, None);
        watermark.pass(10_000_000, by_producer(0), &rules);
        let none = Stamp {
            ms: None,
            by_broker: true,
        };
        watermark.pass(10_000_000, none, &rules);
        assert_eq!(watermark.seen_ms(), None);
    }

    #[test]
    fn after_a_lost_beginning_it_says_what_it_cannot_know() {
        let rules = Rules::default();
        let pass = |w: &mut Watermark, t: i64| w.pass(t, by_producer(t), &rules);
        // Nothing is known of the lost records: every event that is not late for sure is unclear.
        let mut watermark = Watermark::new(true, None);
        assert_eq!(pass(&mut watermark, 900_000), Lateness::Unknown);
        assert_eq!(pass(&mut watermark, 0), Lateness::Late);
        assert_eq!(pass(&mut watermark, 300_000), Lateness::Unknown);
        // None of them was after 900,000: only what that would have closed is unclear, until the log
        // itself has come as far.
        let mut watermark = Watermark::new(true, Some(900_000));
        assert_eq!(pass(&mut watermark, 300_000), Lateness::InTime);
        assert_eq!(pass(&mut watermark, 0), Lateness::Unknown);
        assert_eq!(pass(&mut watermark, 900_000), Lateness::InTime);
        assert_eq!(pass(&mut watermark, 0), Lateness::Late);
    }
}
