//! Decides when a consumer publishes the restart point of a partition in the progress item of the tables.
//!
//! A progress item contains a restart point, which the consumers use if the group's offsets are lost
//! ([`restart`](crate::restart)).

use crate::clock::SteadyMs;
use crate::restart::Boundary;
use crate::window::Rules;

/// Maximum time between two publications of a progress item while the consumer commits new offsets, in milliseconds.
pub const PROGRESS_INTERVAL_MS: i64 = 3_600_000;

/// Number of unpublished events after which a publication is due, if the last publication was at least
/// [`PROGRESS_EVENTS_MS`] ago.
pub const PROGRESS_EVENTS: u64 = 20;
/// Minimum time before [`PROGRESS_EVENTS`] new events cause another publication, in milliseconds.
pub const PROGRESS_EVENTS_MS: i64 = 5_000;
/// Maximum time between the commit of an event and its inclusion in the sums of the progress item, in milliseconds.
pub const PROGRESS_SUMS_MS: i64 = 300_000;

/// Time until a failed publication is repeated, in milliseconds.
pub const PROGRESS_RETRY_MS: i64 = 10_000;

/// Decides when a consumer advances the progress item of a partition. The item never moves back.
///
/// Publishing the sums costs little. A publication after [`PROGRESS_EVENTS`] new events costs at most 0.05 write units
/// per event. A publication after [`PROGRESS_SUMS_MS`] happens only if the watermark has not passed the end of a window
/// in the meantime. At one event every 15 s, such a publication also covers 20 events. Each event is new in only one
/// publication, because a publication covers all unpublished events.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    published: Boundary,
    published_ms: SteadyMs,
    /// The time at which the last publication was requested.
    asked_ms: SteadyMs,
    /// The time at which a failed publication is repeated, or `None` if no publication has failed.
    retry_ms: Option<SteadyMs>,
}

impl Progress {
    /// Returns the state for a progress item that currently contains the boundary `published`.
    pub fn new(published: Boundary, now_ms: SteadyMs) -> Progress {
        Progress {
            published,
            published_ms: now_ms,
            asked_ms: now_ms,
            retry_ms: None,
        }
    }

    /// Returns true if the boundary `committed` should be published now. A publication is due in four cases: the
    /// watermark has passed the end of a window, the last publication was an hour ago, the consumer gives up the
    /// partition, or the published sums are out of date.
    pub fn is_due(
        &self,
        committed: Boundary,
        rules: &Rules,
        leaving: bool,
        now_ms: SteadyMs,
    ) -> bool {
        if committed.next <= self.published.next {
            return false;
        }
        let windows = |b: Boundary| b.max.watermark_ms(rules).map(|w| rules.window_start(w));
        leaving
            || windows(committed) > windows(self.published)
            || now_ms - self.published_ms >= PROGRESS_INTERVAL_MS
            || self.sums_are_due(committed, now_ms)
    }

    /// Returns the number of events that are in the committed sums but not in the published sums.
    fn unpublished(&self, committed: Boundary) -> u64 {
        match (committed.sums, self.published.sums) {
            (Some(sums), Some(published)) => sums.events().saturating_sub(published.events()),
            // The progress item contains no sums yet.
            (Some(_), None) => PROGRESS_EVENTS,
            (None, _) => 0,
        }
    }

    /// Returns the time at which the boundary `committed` must be published if no further commit follows. Returns
    /// `None` if the progress item already contains the sums of `committed` and no publication has failed.
    pub fn idle_ms(&self, committed: Boundary) -> Option<SteadyMs> {
        if committed.next <= self.published.next {
            return None;
        }
        let has_sums = self.unpublished(committed) > 0;
        let sums_ms = has_sums.then_some(self.published_ms.max(self.asked_ms) + PROGRESS_SUMS_MS);
        self.retry_ms.or(sums_ms)
    }

    /// Notes that a publication was requested. The publication may still fail.
    pub fn asked(&mut self, now_ms: SteadyMs) {
        self.asked_ms = now_ms;
        self.retry_ms = None;
    }

    /// Notes that a publication has failed, or that its outcome is unknown. The pipeline retries the publication even
    /// without a new commit, because windows become final only after the publication.
    pub fn failed(&mut self, boundary: Boundary, now_ms: SteadyMs) {
        if boundary.next > self.published.next {
            self.retry_ms = Some(now_ms + PROGRESS_RETRY_MS);
        }
    }

    fn sums_are_due(&self, committed: Boundary, now_ms: SteadyMs) -> bool {
        let least_ms = match self.unpublished(committed) {
            0 => return false,
            PROGRESS_EVENTS.. => PROGRESS_EVENTS_MS,
            _ => PROGRESS_SUMS_MS,
        };
        now_ms - self.published_ms >= least_ms
    }

    /// Notes that the progress item now contains `boundary`.
    pub fn published(&mut self, boundary: Boundary, now_ms: SteadyMs) {
        self.published_ms = now_ms;
        if boundary.next > self.published.next {
            self.published = boundary;
            self.retry_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::event::{Offset, Severity};
    use crate::stretch::Sum;
    use crate::watermark::MaxTime;

    fn boundary(next: i64, max: Option<i64>) -> Boundary {
        Boundary {
            next: Offset(next),
            max: MaxTime::new(max.map(UnixMs)),
            sums: None,
        }
    }

    #[test]
    fn sums_are_published_after_twenty_events_or_five_minutes() {
        let at = |next: i64, events: Option<u64>| Boundary {
            sums: events.and_then(|n| Sum::checked([n, 0, n, 0, 0, 0])),
            ..boundary(next, Some(900_000))
        };
        let due = |known: Option<u64>, events: Option<u64>, after_ms: i64| {
            let p = Progress::new(at(10, known), SteadyMs(0));
            p.is_due(at(99, events), &Rules::default(), false, SteadyMs(after_ms))
        };
        for (known, events, least_ms) in [
            (Some(5), Some(25), PROGRESS_EVENTS_MS),
            (Some(5), Some(24), PROGRESS_SUMS_MS),
            (Some(5), Some(6), PROGRESS_SUMS_MS),
            // Neither heartbeats nor unknown sums trigger additional publications.
            (Some(5), Some(5), PROGRESS_INTERVAL_MS),
            (Some(5), None, PROGRESS_INTERVAL_MS),
            (None, None, PROGRESS_INTERVAL_MS),
            (None, Some(0), PROGRESS_EVENTS_MS),
        ] {
            assert!(!due(known, events, least_ms - 1), "{known:?} {events:?}");
            assert!(due(known, events, least_ms), "{known:?} {events:?}");
        }
        let p = Progress::new(at(10, Some(5)), SteadyMs(0));
        let back = p.is_due(
            at(10, Some(99)),
            &Rules::default(),
            false,
            SteadyMs(400_000),
        );
        assert!(!back, "forward only");
    }

    #[test]
    fn a_failed_publication_is_repeated_after_ten_seconds() {
        let sums = |next, events| Boundary {
            sums: Sum::checked([events, 0, events, 0, 0, 0]),
            ..boundary(next, Some(0))
        };
        let mut progress = Progress::new(sums(0, 0), SteadyMs(0));
        progress.asked(SteadyMs(1_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), Some(SteadyMs(301_000)));
        progress.failed(sums(5, 5), SteadyMs(2_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), Some(SteadyMs(12_000)));
        // After a new attempt has begun, the earlier failure no longer counts.
        progress.asked(SteadyMs(12_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), Some(SteadyMs(312_000)));
        progress.published(sums(5, 5), SteadyMs(13_000));
        assert_eq!(progress.idle_ms(sums(5, 5)), None);
        // The pipeline learns late that two older publications have failed.
        progress.failed(sums(4, 4), SteadyMs(14_000));
        progress.failed(sums(5, 5), SteadyMs(14_000));
        assert_eq!(progress.idle_ms(sums(6, 6)), Some(SteadyMs(313_000)));
        // Without sums, only a failure leads to another attempt.
        let rejected = Boundary {
            sums: None,
            ..sums(7, 7)
        };
        assert_eq!(progress.idle_ms(rejected), None);
        progress.failed(rejected, SteadyMs(20_000));
        assert_eq!(progress.idle_ms(rejected), Some(SteadyMs(30_000)));
    }

    /// Returns the numbers of events and publications in a simulated day with three partitions. The events of the topic
    /// are `gap_ms` apart on average, and each partition gets a heartbeat every minute. `known` is true if the restart
    /// points contain sums.
    fn a_day(gap_ms: i64, known: bool) -> (u64, u64) {
        let rules = Rules::default();
        let (mut events, mut published) = (0, 0);
        for partition in 0..3 {
            let start = Boundary {
                sums: known.then_some(Sum::ZERO),
                ..boundary(0, None)
            };
            let (mut at, mut progress) = (start, Progress::new(start, SteadyMs(0)));
            // The times between events vary from 0.5 to 1.5 times the average, and are the same in every run.
            let mut chance = 7 + partition;
            let mut next_ms = 0;
            for now_ms in (0..86_400_000).step_by(1_000) {
                if now_ms >= next_ms {
                    chance = (chance * 1_103_515_245 + 12_345) % (1 << 31);
                    next_ms += 3 * gap_ms / 2 + 3 * gap_ms * (chance % 1_000) / 1_000;
                    events += 1;
                    at.max.observe(UnixMs(now_ms));
                    at.next = at.next.next();
                    if let Some(sums) = &mut at.sums {
                        sums.add_event(Severity::Low, false);
                    }
                } else if now_ms % 60_000 == 0 {
                    at.max.observe(UnixMs(now_ms));
                    at.next = at.next.next();
                }
                if progress.is_due(at, &rules, false, SteadyMs(now_ms)) {
                    progress.published(at, SteadyMs(now_ms));
                    published += 1;
                }
            }
        }
        (events, published)
    }

    #[test]
    fn sums_cost_less_than_a_tenth_of_a_write_unit_an_event() {
        // The test uses average times of 5 s, 60 s, 1 s and about 0.3 s between two events.
        for gap_ms in [5_000, 60_000, 1_000, 334] {
            let (events, without) = a_day(gap_ms, false);
            let (same, with) = a_day(gap_ms, true);
            assert_eq!(events, same);
            #[allow(clippy::cast_precision_loss)] // The number of publications in a day is small.
            let more = (with as f64 - without as f64) / events as f64;
            assert!((0.0..0.1).contains(&more), "{gap_ms}: {more} an event");
            assert!(gap_ms > 5_000 || with > without, "{gap_ms}: {with}");
        }
    }

    #[test]
    fn progress_is_published_once_a_window_and_never_back() {
        let rules = Rules::default();
        let mut p = Progress::new(boundary(10, None), SteadyMs(0));
        assert!(!p.is_due(
            boundary(10, Some(1)),
            &rules,
            true,
            SteadyMs(9 * PROGRESS_INTERVAL_MS)
        ));
        assert!(!p.is_due(boundary(9, Some(9_000_000)), &rules, true, SteadyMs(0)));
        assert!(
            p.is_due(boundary(11, Some(0)), &rules, false, SteadyMs(0)),
            "a first watermark"
        );
        p.published(boundary(11, Some(900_000)), SteadyMs(0));
        assert!(!p.is_due(boundary(12, Some(1_199_999)), &rules, false, SteadyMs(0)));
        assert!(p.is_due(boundary(12, Some(1_200_000)), &rules, false, SteadyMs(0)));
        assert!(p.is_due(boundary(12, Some(900_000)), &rules, true, SteadyMs(0)));
        assert!(p.is_due(
            boundary(12, Some(900_000)),
            &rules,
            false,
            SteadyMs(PROGRESS_INTERVAL_MS)
        ));
        p.published(boundary(5, None), SteadyMs(7));
        assert!(!p.is_due(boundary(11, Some(900_000)), &rules, true, SteadyMs(7)));
    }
}
