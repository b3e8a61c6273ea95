//! What a consumer tells about itself: alive, ready, and what it waits for.
//!
//! Ready and alive are two questions. It is ready while it waits for nothing. It is alive while its
//! thread polls and every partition that has records to read moves; a dependency that is down makes
//! it unready and never dead, since no restart would help.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::api::ops::Probe;
use crate::telemetry::steady_ms;

/// Without a poll for this long the thread hangs, and a restart would help, in milliseconds.
const BEAT_MS_MAX: i64 = 60_000;

/// What a consumer may wait for, each told apart: one that is there again says nothing of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Partitions and the facts of their start.
    Start,
    /// The topic.
    Topic,
    /// The tables.
    Tables,
    /// DynamoDB to take writes.
    Sink,
}

/// Shared between the shell and whoever asks.
#[derive(Debug)]
pub struct Status {
    /// By the order of [`Wait`].
    waiting_for: Mutex<[Option<String>; 4]>,
    beat_ms: AtomicI64,
    stuck: Mutex<Vec<i32>>,
    left: Mutex<Option<u64>>,
    left_at_first: OnceLock<u64>,
}

impl Status {
    /// Returns the status of a role that has just begun.
    pub fn new() -> Status {
        Status {
            waiting_for: Mutex::new([Some("starting".to_owned()), None, None, None]),
            beat_ms: AtomicI64::new(steady_ms()),
            stuck: Mutex::new(Vec::new()),
            left: Mutex::new(None),
            left_at_first: OnceLock::new(),
        }
    }

    /// Says what the role waits for; `None` once it is there.
    pub fn set_waiting(&self, wait: Wait, what: Option<String>) {
        self.waiting_for.lock().expect("no panic holds the lock")[wait as usize] = what;
    }

    /// Says why the role still waits to start, if it does.
    pub fn still_waiting(&self, why: String) {
        let mut waiting = self.waiting_for.lock().expect("no panic holds the lock");
        let start = &mut waiting[Wait::Start as usize];
        if start.is_some() {
            *start = Some(why);
        }
    }

    /// Notes how many records are left until the end of `--stop-at-end`.
    pub fn set_left(&self, records: u64) {
        self.left_at_first.get_or_init(|| records);
        *self.left.lock().expect("no panic holds the lock") = Some(records);
    }

    /// Returns how many records were left when that was noted for the first time.
    pub fn left_at_first(&self) -> Option<u64> {
        self.left_at_first.get().copied()
    }

    /// Returns how many records are left, once that is known.
    pub fn left(&self) -> Option<u64> {
        *self.left.lock().expect("no panic holds the lock")
    }

    /// Notes when the consumer thread polled last.
    pub fn set_beat(&self, beat_ms: i64) {
        self.beat_ms.store(beat_ms, Ordering::Relaxed);
    }

    /// Notes the partitions that stand still although there is something to read.
    pub fn set_stuck(&self, partitions: Vec<i32>) {
        *self.stuck.lock().expect("no panic holds the lock") = partitions;
    }
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}

impl Probe for Status {
    fn live(&self) -> Result<(), String> {
        let silent_ms = steady_ms() - self.beat_ms.load(Ordering::Relaxed);
        if silent_ms > BEAT_MS_MAX {
            return Err(format!(
                "the consumer has not polled for {} s",
                silent_ms / 1_000
            ));
        }
        let stuck = self.stuck.lock().expect("no panic holds the lock");
        if !stuck.is_empty() {
            return Err(format!(
                "partitions {stuck:?} have records to read and do not move, even with a new client"
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
        let status = Status::new();
        status.set_waiting(Wait::Start, None);
        assert_eq!(status.ready(), Ok(()));
        status.set_waiting(Wait::Sink, Some("waiting for DynamoDB".to_owned()));
        status.set_waiting(Wait::Topic, Some("waiting for the topic".to_owned()));
        status.set_waiting(Wait::Topic, None);
        assert_eq!(status.ready(), Err("waiting for DynamoDB".to_owned()));
        assert_eq!(
            status.live(),
            Ok(()),
            "a dependency that is down is not dead"
        );
    }

    #[test]
    fn what_was_left_at_first_stays_while_the_rest_shrinks() {
        let status = Status::new();
        assert_eq!((status.left(), status.left_at_first()), (None, None));
        for left in [9_000, 8_842, 0] {
            status.set_left(left);
            assert_eq!(status.left(), Some(left));
            assert_eq!(status.left_at_first(), Some(9_000));
        }
    }

    #[test]
    fn alive_is_who_polls_and_moves() {
        let status = Status::new();
        status.set_beat(steady_ms() - BEAT_MS_MAX - 5_000);
        assert!(status.live().is_err());
        status.set_beat(steady_ms());
        assert_eq!(status.live(), Ok(()));
        status.set_stuck(vec![3]);
        assert!(status.live().is_err_and(|why| why.contains("[3]")));
        status.set_stuck(Vec::new());
        assert_eq!(status.live(), Ok(()));
    }
}
