//! Detects partitions that make no progress although they have unread records.
//!
//! A Kafka client can stop delivering the records of a single partition, most often after the leader of the partition
//! or the group's coordinator has moved. Only a new Kafka client can then read the partition again. A partition *waits*
//! while it has unread records but no records in flight. A partition does not wait while the consumer pauses reading
//! for a known reason, such as failed writes or a full memory budget. A partition is stalled if it has waited without
//! interruption for a certain time, called the *patience* of the detector. Some long waits are normal, such as the time
//! for reading past a large aborted transaction. Therefore, the patience for a partition doubles each time that a new
//! Kafka client does not help, up to [`DOUBLINGS_MAX`] times.

use std::collections::BTreeMap;

use crate::clock::SteadyMs;
use crate::event::Offset;

/// The initial patience: the time for which a partition must wait before the consumer replaces its Kafka client, in
/// milliseconds.
pub const PATIENCE_MS: i64 = 60_000;
/// Maximum number of times that the patience for a partition doubles. The patience is therefore at most 16 minutes.
pub const DOUBLINGS_MAX: u32 = 4;

/// The state of a partition at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The number that identifies the assignment of the partition.
    pub assignment: u64,
    /// The offset of the next record to read.
    pub position: Offset,
    /// The offset after the newest record, as the partition's leader reports it.
    pub log_end: Offset,
    /// Number of records of the partition that are not yet durable.
    pub in_flight: usize,
}

#[derive(Clone, Debug)]
struct PartitionWait {
    assignment: u64,
    position: Offset,
    /// The time at which the partition began to wait, or `None` if the partition does not wait.
    since_ms: Option<SteadyMs>,
    /// Number of times that the consumer has replaced its Kafka client because the partition had stalled at `position`.
    tries: u32,
}

/// Detects stalled partitions of one consumer.
#[derive(Clone, Debug)]
pub struct StallDetector {
    patience_ms: i64,
    places: BTreeMap<i32, PartitionWait>,
}

impl StallDetector {
    /// Returns a detector with the initial patience `patience_ms`.
    pub fn new(patience_ms: i64) -> StallDetector {
        StallDetector {
            patience_ms,
            places: BTreeMap::new(),
        }
    }

    /// Compares the current states of the partitions with their earlier states, and returns the stalled partitions.
    /// `held_back` is true while the consumer pauses reading for a known reason. If any partition is stalled, the
    /// caller creates a new Kafka client and calls [`StallDetector::renewed`].
    pub fn look(&mut self, now_ms: SteadyMs, looks: &[Look], held_back: bool) -> Vec<i32> {
        let mut stalled = Vec::new();
        for look in looks {
            let place = self.places.entry(look.partition).or_insert(PartitionWait {
                assignment: look.assignment,
                position: look.position,
                since_ms: None,
                tries: 0,
            });
            if place.position != look.position {
                *place = PartitionWait {
                    assignment: look.assignment,
                    position: look.position,
                    since_ms: None,
                    tries: 0,
                };
            }
            let waits = look.position < look.log_end && look.in_flight == 0 && !held_back;
            if !waits || place.assignment != look.assignment {
                place.assignment = look.assignment;
                place.since_ms = None;
            }
            if !waits {
                continue;
            }
            let since_ms = *place.since_ms.get_or_insert(now_ms);
            let patience_ms = self.patience_ms << place.tries.min(DOUBLINGS_MAX);
            if now_ms - since_ms >= patience_ms {
                stalled.push(look.partition);
            }
        }
        stalled
    }

    /// Notes that the caller has created a new Kafka client because the partitions in `stalled` made no progress.
    pub fn renewed(&mut self, stalled: &[i32]) {
        for place in self.places.values_mut() {
            place.since_ms = None;
        }
        for partition in stalled {
            if let Some(place) = self.places.get_mut(partition) {
                place.tries += 1;
            }
        }
    }

    /// Returns the partitions that still wait at the same position although the consumer has replaced its Kafka client.
    pub fn stuck(&self) -> Vec<i32> {
        let stuck = |p: &&i32| self.places[*p].tries > 0 && self.places[*p].since_ms.is_some();
        self.places.keys().filter(stuck).copied().collect()
    }

    /// Resets the waiting time of a partition that was revoked from the consumer.
    pub fn revoked(&mut self, partition: i32) {
        if let Some(place) = self.places.get_mut(&partition) {
            place.since_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_MS: i64 = 1_000;

    fn at(partition: i32, position: i64, log_end: i64) -> Look {
        Look {
            partition,
            assignment: 1,
            position: Offset(position),
            log_end: Offset(log_end),
            in_flight: 0,
        }
    }

    /// Calls `StallDetector::look` once per simulated second, starting at `from_ms`. Returns the second in which the
    /// detector first reports stalled partitions, and these partitions.
    fn run(
        detector: &mut StallDetector,
        from_ms: i64,
        seconds: i64,
        mut see: impl FnMut(i64) -> (Vec<Look>, bool),
    ) -> Option<(i64, Vec<i32>)> {
        (0..=seconds).find_map(|second| {
            let (looks, held_back) = see(second);
            let stalled = detector.look(SteadyMs(from_ms + second * SECOND_MS), &looks, held_back);
            (!stalled.is_empty()).then_some((second, stalled))
        })
    }

    #[test]
    fn a_partition_that_waits_for_a_minute_has_stalled_and_its_neighbours_have_not() {
        let mut detector = StallDetector::new(PATIENCE_MS);
        let stalled = run(&mut detector, 0, 600, |second| {
            // Partition 0 is stuck, partition 1 makes progress, and partition 2 is at the end of its log.
            (vec![at(0, 5, 9), at(1, second, 1_000), at(2, 7, 7)], false)
        });
        assert_eq!(stalled, Some((60, vec![0])));
    }

    #[test]
    fn whatever_holds_reading_back_is_no_stall() {
        for case in ["sink", "in flight", "no lag", "slow"] {
            let mut detector = StallDetector::new(PATIENCE_MS);
            let stalled = run(&mut detector, 0, 3_600, |second| {
                let look = match case {
                    "in flight" => Look {
                        in_flight: 1,
                        ..at(0, 5, 9)
                    },
                    "no lag" => at(0, 9, 9),
                    "slow" => at(0, second / 59, 1_000),
                    _ => at(0, 5, 9),
                };
                (vec![look], case == "sink")
            });
            assert_eq!(stalled, None, "{case}");
        }
    }

    #[test]
    fn the_time_counts_from_the_last_moment_that_something_held_it_back() {
        let mut detector = StallDetector::new(PATIENCE_MS);
        let stalled = run(&mut detector, 0, 600, |s| (vec![at(0, 5, 9)], s == 59));
        assert_eq!(stalled, Some((120, vec![0])));
    }

    #[test]
    fn a_new_assignment_waits_anew() {
        let mut detector = StallDetector::new(PATIENCE_MS);
        let stalled = run(&mut detector, 0, 600, |second| {
            let assignment = u64::from(second >= 40);
            let look = Look {
                assignment,
                ..at(0, 5, 9)
            };
            (vec![look], false)
        });
        assert_eq!(stalled, Some((100, vec![0])));
    }

    #[test]
    fn a_client_that_does_not_help_is_replaced_less_and_less_often() {
        let mut detector = StallDetector::new(PATIENCE_MS);
        let (mut now_ms, mut waits) = (0, Vec::new());
        for _ in 0..6 {
            let see = |_| (vec![at(0, 5, 9), at(1, 1, 1)], false);
            let (seconds, stalled) = run(&mut detector, now_ms, 3_600, see).expect("it stalls");
            now_ms += seconds * SECOND_MS;
            waits.push(seconds);
            detector.renewed(&stalled);
            assert!(
                detector.stuck().is_empty(),
                "nothing is known of the new client"
            );
            detector.look(SteadyMs(now_ms), &[at(0, 5, 9)], false);
            assert_eq!(detector.stuck(), [0], "alive is who moves");
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 960]);
        detector.look(SteadyMs(now_ms), &[at(0, 6, 9)], false);
        assert!(detector.stuck().is_empty());
        let stalled = run(&mut detector, now_ms, 600, |_| (vec![at(0, 6, 9)], false));
        assert_eq!(
            stalled,
            Some((60, vec![0])),
            "one that moved has all patience"
        );
    }

    #[test]
    fn a_partition_of_another_member_is_not_stuck_here() {
        let mut detector = StallDetector::new(PATIENCE_MS);
        let (_, stalled) =
            run(&mut detector, 0, 60, |_| (vec![at(0, 5, 9)], false)).expect("stalls");
        detector.renewed(&stalled);
        detector.look(SteadyMs(61 * SECOND_MS), &[at(0, 5, 9)], false);
        detector.revoked(0);
        assert!(detector.stuck().is_empty());
    }
}
