//! Computes the watermark for the comparison with its own code. Also tracks whether the watermark is uncertain because
//! the log has lost records.
//!
//! If the log still begins at offset 0, the watermark is exact. If retention has removed the beginning of the log, the
//! largest event time of the lost records is unknown, but there are two upper bounds for it. One upper bound is the
//! largest event time in a published restart point. If the broker sets the timestamps, the timestamp of the oldest
//! remaining record plus the allowed skew is another upper bound. Until an event time in the log reaches the upper
//! bound, it may be unknown whether an event is late. If producers send current events, this affects only events near
//! the beginning of the log.

use crate::clock::UnixMs;
use crate::window::Rules;

/// Says whether an event arrived too late for its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// The event arrived before its window was final.
    InTime,
    /// The event arrived after its window was final.
    Late,
    /// Whether the event is late depends on records that are no longer in the log.
    Unknown,
}

impl Lateness {
    /// Returns true if `late` can be the correct flag of an event with this lateness.
    pub const fn may_be(self, late: bool) -> bool {
        match self {
            Lateness::InTime => !late,
            Lateness::Late => late,
            Lateness::Unknown => true,
        }
    }
}

/// The Kafka timestamp of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The Kafka timestamp, or `None` if the record has no timestamp.
    pub ms: Option<UnixMs>,
    /// True if the broker set the timestamp when it received the record, and false if the producer set it.
    pub by_broker: bool,
}

/// The largest event time of one partition so far.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    /// The largest event time of the records that were passed to the watermark.
    seen_ms: Option<UnixMs>,
    /// True if a lost record may have a larger event time than `seen_ms`.
    lost: bool,
    /// An upper bound for the event times of lost records, or `None` if no bound is known.
    lost_max_ms: Option<UnixMs>,
    /// True until the first record is passed to the watermark.
    fresh: bool,
}

impl Watermark {
    /// Returns the watermark at the start of a log. `lost` is true if the log has lost the records before its current
    /// start. `lost_max_ms` is an upper bound for the event times of the missing records, if a bound is known.
    pub const fn new(lost: bool, lost_max_ms: Option<UnixMs>) -> Watermark {
        Watermark {
            seen_ms: None,
            lost,
            lost_max_ms,
            fresh: true,
        }
    }

    /// Returns the largest event time of the records that were passed to the watermark.
    pub const fn seen_ms(&self) -> Option<UnixMs> {
        self.seen_ms
    }

    /// Decides whether an event or heartbeat is late, and then moves the watermark. An event or heartbeat that is too
    /// far ahead of its record's timestamp does not move the watermark.
    pub fn pass(&mut self, time_ms: UnixMs, stamp: Stamp, rules: &Rules) -> Lateness {
        if let (true, true, Some(ms)) = (self.fresh, stamp.by_broker, stamp.ms) {
            // The broker sets the timestamps, so no lost record has a later timestamp than this record. An event time
            // moves the watermark only if it is ahead of the timestamp of its record by at most the skew.
            let bound = ms.saturating_add(rules.skew_ms);
            self.lost_max_ms = Some(self.lost_max_ms.map_or(bound, |known| known.min(bound)));
        }
        self.fresh = false;
        let late = self.lateness_of(time_ms, rules);
        if !rules.is_future(time_ms, stamp.ms) {
            let seen = self.seen_ms.map_or(time_ms, |seen| seen.max(time_ms));
            self.seen_ms = Some(seen);
            self.lost &= self.lost_max_ms.is_none_or(|bound| seen < bound);
        }
        late
    }

    /// Decides whether an event with the time `time_ms` is late, based on the records so far.
    pub fn lateness_of(&self, time_ms: UnixMs, rules: &Rules) -> Lateness {
        let end_ms = rules.window_end(rules.window_start(time_ms));
        let closed_by = |max_ms: UnixMs| end_ms <= max_ms.saturating_sub(rules.lateness_ms);
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
            ms: Some(UnixMs(ms)),
            by_broker: false,
        }
    }

    #[test]
    fn a_brokers_stamp_bounds_what_was_lost() {
        let rules = Rules::default();
        let stamp = |ms: i64| Stamp {
            ms: Some(UnixMs(ms)),
            by_broker: true,
        };
        // The broker received the first remaining record at 1,000,000 ms. The skew is 300,000 ms, so no lost event time
        // above 1,300,000 ms has moved the watermark. The lateness is 600,000 ms, so the watermark before the first
        // remaining record was at most 700,000 ms.
        let mut watermark = Watermark::new(true, Some(UnixMs(i64::MAX)));
        assert_eq!(
            watermark.pass(UnixMs(600_000), stamp(1_000_000), &rules),
            Lateness::InTime
        );
        assert_eq!(
            watermark.lateness_of(UnixMs(300_000), &rules),
            Lateness::Unknown
        );
        assert_eq!(
            watermark.lateness_of(UnixMs(400_000), &rules),
            Lateness::Unknown
        );
        // The timestamps of later records do not change the upper bound for lost event times.
        watermark.pass(UnixMs(600_000), stamp(2_000_000), &rules);
        assert_eq!(
            watermark.lateness_of(UnixMs(600_000), &rules),
            Lateness::InTime
        );
        watermark.pass(UnixMs(1_300_000), stamp(2_000_000), &rules);
        assert_eq!(
            watermark.lateness_of(UnixMs(400_000), &rules),
            Lateness::Late
        );
        assert_eq!(
            watermark.lateness_of(UnixMs(700_000), &rules),
            Lateness::InTime
        );
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
            watermark.pass(UnixMs(before), by_producer(before), &rules);
            assert_eq!(
                watermark.lateness_of(UnixMs(time_ms), &rules),
                want,
                "{before} {time_ms}"
            );
        }
    }

    #[test]
    fn a_future_event_moves_nothing() {
        let rules = Rules::default();
        let mut watermark = Watermark::new(false, None);
        watermark.pass(UnixMs(10_000_000), by_producer(0), &rules);
        let none = Stamp {
            ms: None,
            by_broker: true,
        };
        watermark.pass(UnixMs(10_000_000), none, &rules);
        assert_eq!(watermark.seen_ms(), None);
        for (time_ms, seen_ms) in [(5, 5), (9, 9), (7, 9)] {
            watermark.pass(UnixMs(time_ms), by_producer(time_ms), &rules);
            assert_eq!(watermark.seen_ms(), Some(UnixMs(seen_ms)));
        }
    }

    #[test]
    fn after_a_lost_beginning_it_says_what_it_cannot_know() {
        let rules = Rules::default();
        let pass = |w: &mut Watermark, t: i64| w.pass(UnixMs(t), by_producer(t), &rules);
        // Without an upper bound for the event times of the lost records, every event is either `Late` or `Unknown`.
        let mut watermark = Watermark::new(true, None);
        assert_eq!(pass(&mut watermark, 900_000), Lateness::Unknown);
        assert_eq!(pass(&mut watermark, 0), Lateness::Late);
        assert_eq!(pass(&mut watermark, 300_000), Lateness::Unknown);
        // No lost record has an event time after 900,000 ms. Before the log contains an event at 900,000 ms, an event
        // is `Unknown` if a lost event at 900,000 ms would make it late.
        let mut watermark = Watermark::new(true, Some(UnixMs(900_000)));
        assert_eq!(pass(&mut watermark, 300_000), Lateness::InTime);
        assert_eq!(pass(&mut watermark, 0), Lateness::Unknown);
        assert_eq!(pass(&mut watermark, 900_000), Lateness::InTime);
        assert_eq!(pass(&mut watermark, 0), Lateness::Late);
    }
}
