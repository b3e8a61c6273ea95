//! Explains why the numbers on the page do not change, based on the active faults and the progress.

use crate::core::clock::SteadyMs;

/// If no record has been settled for `STILL_MS` milliseconds, the page shows the reason for the wait.
const STILL_MS: i64 = 3_000;

/// The state of all parts of `dev` at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The time at which the snapshot was taken, as read from the monotonic clock.
    pub(crate) now_ms: SteadyMs,
    /// True if the broker is stopped.
    pub(crate) broker_stopped: bool,
    /// The reason why the consumer waits, or `None` if it does not wait.
    pub(crate) consumer: Option<String>,
    /// True if DynamoDB refuses writes, or if the responses to writes are lost.
    pub(crate) writes_fail: bool,
    /// Number of settled records, which are records that are counted, late or rejected.
    pub(crate) settled: u64,
    /// Number of unsettled records: records that the broker has not acknowledged, that the consumer has not read, or
    /// that are in flight.
    pub(crate) pending: u64,
}

/// Tracks the time at which the number of settled records last changed.
#[derive(Debug, Default)]
pub(crate) struct WaitTracker {
    settled: u64,
    since_ms: Option<SteadyMs>,
}

impl WaitTracker {
    /// Returns the reason why the numbers on the page do not change, or `None` if the numbers change or all records are
    /// settled.
    pub(crate) fn explain(&mut self, now: &Snapshot) -> Option<String> {
        if now.settled != self.settled || now.pending == 0 {
            self.settled = now.settled;
            self.since_ms = Some(now.now_ms);
        }
        let still_ms = now.now_ms - *self.since_ms.get_or_insert(now.now_ms);
        let still = still_ms >= STILL_MS;
        let mut causes = Vec::new();
        if now.broker_stopped {
            causes.push("Kafka (its broker is stopped)".to_owned());
        }
        if let Some(why) = &now.consumer {
            causes.push(format!("the consumer ({})", without_details(why)));
        }
        if now.writes_fail && still {
            causes.push("DynamoDB (its writes fail)".to_owned());
        }
        if causes.is_empty() && still {
            causes.push("the Kafka clients to reconnect".to_owned());
        }
        if causes.is_empty() {
            return None;
        }
        let mut text = format!("The numbers wait for {}.", causes.join(" and "));
        if still {
            let (seconds, pending) = (still_ms / 1_000, now.pending);
            text.push_str(&format!(
                " Nothing was counted for {seconds} s; {pending} records are pending."
            ));
        }
        Some(text)
    }
}

/// Returns the reason why a consumer waits, but omits the error messages of the consumer's clients, which are in the
/// log.
pub(crate) fn without_details(why: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in why.split("; ") {
        let known = part.split_once(": ").map_or(part, |(what, _)| what);
        let short = match known.split_once(" failed with ") {
            Some(_) => "waiting for DynamoDB to answer",
            None => known,
        };
        if !parts.contains(&short) {
            parts.push(short);
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_wait_is_shown_without_client_errors() {
        let long = "waiting for DynamoDB to accept writes: BatchWriteItem on raw-events failed with \
                    Dispatch: dispatch failure: io error; waiting for Query on totals failed with \
                    Timeout; waiting for Query on alerts failed with Timeout";
        assert_eq!(
            without_details(long),
            "waiting for DynamoDB to accept writes; waiting for DynamoDB to answer"
        );
        let short = "waiting for Kafka to assign partitions";
        assert_eq!(without_details(short), short);
    }

    #[test]
    fn numbers_that_stand_still_come_with_a_reason() {
        let mut waits = WaitTracker::default();
        let mut at = |now_ms, settled, pending, broker_stopped, consumer: Option<&str>| {
            waits.explain(&Snapshot {
                now_ms: SteadyMs(now_ms),
                settled,
                pending,
                broker_stopped,
                consumer: consumer.map(str::to_owned),
                writes_fail: false,
            })
        };
        assert_eq!(at(0, 5, 2, false, None), None, "they moved");
        assert_eq!(at(2_000, 5, 2, false, None), None, "not for long");
        let text = at(4_000, 5, 2, false, None).expect("they stand still");
        assert!(text.contains("clients to reconnect"), "{text}");
        assert!(text.contains("for 4 s; 2 records"), "{text}");
        let text = at(5_000, 6, 2, true, Some("killed")).expect("it is stopped");
        assert_eq!(
            text,
            "The numbers wait for Kafka (its broker is stopped) and the consumer (killed)."
        );
        assert_eq!(at(60_000, 6, 0, false, None), None, "all is counted");
    }

    #[test]
    fn failing_writes_are_named_only_while_numbers_stand_still() {
        let mut waits = WaitTracker::default();
        let mut now = Snapshot {
            writes_fail: true,
            pending: 9,
            settled: 1,
            ..Snapshot::default()
        };
        assert_eq!(waits.explain(&now), None);
        now.now_ms = SteadyMs(STILL_MS);
        let text = waits.explain(&now).expect("they stand still");
        assert!(text.starts_with("The numbers wait for DynamoDB"), "{text}");
    }
}
