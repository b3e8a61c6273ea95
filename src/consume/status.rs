//! The status of a consumer. The status shows whether the consumer is alive and ready, and for which conditions it
//! waits.
//!
//! A consumer is ready if it waits for no condition in [`ConsumeWait`]. A consumer is alive as long as its thread polls Kafka
//! and no partition is stuck. While Kafka or DynamoDB is down, a consumer is not ready, but it is alive, because a
//! restart would not help.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::api::ops::Probe;
use crate::core::clock::SteadyMs;
use crate::telemetry::{join_list, steady_ms};

/// Maximum time between two polls of the consumer thread, in milliseconds. A consumer thread that has not polled Kafka
/// for a minute is stuck, and a restart of the process would help.
const BEAT_MS_MAX: i64 = 60_000;

/// The conditions that a consumer can wait for. The status stores each condition separately, because one wait can end
/// while other waits continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeWait {
    /// The consumer waits until the group assigns partitions, or until it has the facts for starting to read them.
    Start,
    /// The consumer waits until the topic exists.
    Topic,
    /// The consumer waits until the tables exist.
    Tables,
    /// The consumer waits until DynamoDB accepts writes.
    Sink,
}

/// The status that the shell updates and the HTTP server reads.
#[derive(Debug)]
pub struct ConsumeStatus {
    /// The reasons why the consumer waits, indexed by [`ConsumeWait`].
    waiting_for: Mutex<[Option<String>; 4]>,
    beat_ms: AtomicI64,
    stuck: Mutex<Vec<i32>>,
    left: Mutex<Option<u64>>,
    left_at_first: OnceLock<u64>,
}

impl ConsumeStatus {
    /// Sets the reason why the consumer waits for the condition `wait`. If `what` is `None`, the consumer no longer
    /// waits for the condition.
    pub fn set_waiting(&self, wait: ConsumeWait, what: Option<String>) {
        self.waiting_for.lock().expect("no panic holds the lock")[wait as usize] = what;
    }

    /// Replaces the reason why the consumer has not started yet. After the start, the function changes nothing.
    pub fn still_waiting(&self, why: String) {
        let mut waiting = self.waiting_for.lock().expect("no panic holds the lock");
        let start = &mut waiting[ConsumeWait::Start as usize];
        if start.is_some() {
            *start = Some(why);
        }
    }

    /// Sets the number of records that the group must still commit before `consume --stop-at-end` exits.
    pub fn set_left(&self, records: u64) {
        self.left_at_first.get_or_init(|| records);
        *self.left.lock().expect("no panic holds the lock") = Some(records);
    }

    /// Returns the number of records from the first call of [`ConsumeStatus::set_left`].
    pub fn left_at_first(&self) -> Option<u64> {
        self.left_at_first.get().copied()
    }

    /// Returns the number of records for which `consume --stop-at-end` still waits, or `None` if this number is
    /// unknown.
    pub fn left(&self) -> Option<u64> {
        *self.left.lock().expect("no panic holds the lock")
    }

    /// Sets the time at which the consumer thread last polled Kafka.
    pub fn set_beat(&self, beat_ms: SteadyMs) {
        self.beat_ms.store(beat_ms.0, Ordering::Relaxed);
    }

    /// Sets the list of partitions that stay stalled even with a new Kafka client.
    pub fn set_stuck(&self, partitions: Vec<i32>) {
        *self.stuck.lock().expect("no panic holds the lock") = partitions;
    }
}

impl Default for ConsumeStatus {
    /// Returns the status of a consumer that has just started.
    fn default() -> ConsumeStatus {
        ConsumeStatus {
            waiting_for: Mutex::new([Some("starting".to_owned()), None, None, None]),
            beat_ms: AtomicI64::new(steady_ms().0),
            stuck: Mutex::new(Vec::new()),
            left: Mutex::new(None),
            left_at_first: OnceLock::new(),
        }
    }
}

impl Probe for ConsumeStatus {
    fn live(&self) -> Result<(), String> {
        let silent_ms = steady_ms() - SteadyMs(self.beat_ms.load(Ordering::Relaxed));
        if silent_ms > BEAT_MS_MAX {
            return Err(format!(
                "the consumer has not polled for {} s",
                silent_ms / 1_000
            ));
        }
        let stuck = self.stuck.lock().expect("no panic holds the lock");
        if !stuck.is_empty() {
            return Err(format!(
                "partitions {} have records to read but make no progress, even with a new client",
                join_list(stuck.iter())
            ));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        let waiting = self.waiting_for.lock().expect("no panic holds the lock");
        let all: Vec<&str> = waiting.iter().flatten().map(String::as_str).collect();
        if all.is_empty() {
            return Ok(());
        }
        Err(all.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_again_says_nothing_of_the_rest() {
        let status = ConsumeStatus::default();
        status.set_waiting(ConsumeWait::Start, None);
        assert_eq!(status.ready(), Ok(()));
        status.set_waiting(ConsumeWait::Sink, Some("waiting for DynamoDB".to_owned()));
        status.set_waiting(ConsumeWait::Topic, Some("waiting for the topic".to_owned()));
        status.set_waiting(ConsumeWait::Topic, None);
        assert_eq!(status.ready(), Err("waiting for DynamoDB".to_owned()));
        assert_eq!(
            status.live(),
            Ok(()),
            "a dependency that is down is not dead"
        );
    }

    #[test]
    fn the_total_of_a_finite_run_stays_while_the_remaining_count_falls() {
        let status = ConsumeStatus::default();
        assert_eq!((status.left(), status.left_at_first()), (None, None));
        for left in [9_000, 8_842, 0] {
            status.set_left(left);
            assert_eq!(status.left(), Some(left));
            assert_eq!(status.left_at_first(), Some(9_000));
        }
    }

    #[test]
    fn a_partition_is_alive_while_its_thread_polls_and_its_offset_moves() {
        let status = ConsumeStatus::default();
        status.set_beat(steady_ms() - BEAT_MS_MAX - 5_000);
        assert!(status.live().is_err());
        status.set_beat(steady_ms());
        assert_eq!(status.live(), Ok(()));
        status.set_stuck(vec![3]);
        assert!(
            status
                .live()
                .is_err_and(|why| why.contains("partitions 3 have"))
        );
        status.set_stuck(Vec::new());
        assert_eq!(status.live(), Ok(()));
    }
}
