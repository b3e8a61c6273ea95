//! What the numbers of the page wait for: decided from what is broken and from what moves.

/// How long nothing may be counted before the page says so, in milliseconds.
const STILL_MS: i64 = 3_000;

/// What is known at one look.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// The clock, in milliseconds.
    pub(super) now_ms: i64,
    /// The broker is stopped.
    pub(super) broker_stopped: bool,
    /// What the consumer waits for.
    pub(super) consumer: Option<String>,
    /// DynamoDB refuses writes, or their answers are lost.
    pub(super) writes_fail: bool,
    /// Records that are settled: counted, late, or rejected.
    pub(super) settled: u64,
    /// Records that are not: sent and not acknowledged, or not read yet.
    pub(super) behind: u64,
}

/// When something was settled last.
#[derive(Debug, Default)]
pub(super) struct Waits {
    settled: u64,
    since_ms: Option<i64>,
}

impl Waits {
    /// Returns what the numbers wait for; nothing while they move or are complete.
    pub(super) fn look(&mut self, look: &Look) -> Option<String> {
        if look.settled != self.settled || look.behind == 0 {
            self.settled = look.settled;
            self.since_ms = Some(look.now_ms);
        }
        let still_ms = look.now_ms - *self.since_ms.get_or_insert(look.now_ms);
        let still = still_ms >= STILL_MS;
        let mut causes = Vec::new();
        if look.broker_stopped {
            causes.push("Kafka (its broker is stopped)".to_owned());
        }
        if let Some(why) = &look.consumer {
            causes.push(format!("the consumer ({})", plain(why)));
        }
        if look.writes_fail && still {
            causes.push("DynamoDB (its writes fail)".to_owned());
        }
        if causes.is_empty() && still {
            causes.push("Kafka's clients to connect again".to_owned());
        }
        if causes.is_empty() {
            return None;
        }
        let mut text = format!("The numbers wait for {}.", causes.join(" and "));
        if still {
            let (seconds, behind) = (still_ms / 1_000, look.behind);
            text.push_str(&format!(
                " Nothing was counted for {seconds} s; {behind} records are on the way."
            ));
        }
        Some(text)
    }
}

/// Returns what a consumer waits for without the client's error, which the log of the process holds.
pub(super) fn plain(why: &str) -> String {
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
    fn what_a_consumer_waits_for_is_shown_without_the_error_of_the_client() {
        let long = "waiting for DynamoDB to take writes: BatchWriteItem on raw-events failed with \
                    Dispatch: dispatch failure: io error; waiting for Query on totals failed with \
                    Timeout; waiting for Query on alerts failed with Timeout";
        assert_eq!(
            plain(long),
            "waiting for DynamoDB to take writes; waiting for DynamoDB to answer"
        );
        let short = "waiting for Kafka to assign partitions";
        assert_eq!(plain(short), short);
    }

    #[test]
    fn numbers_that_stand_still_say_what_they_wait_for() {
        let mut waits = Waits::default();
        let mut at = |now_ms, settled, behind, broker_stopped, consumer: Option<&str>| {
            waits.look(&Look {
                now_ms,
                settled,
                behind,
                broker_stopped,
                consumer: consumer.map(str::to_owned),
                writes_fail: false,
            })
        };
        assert_eq!(at(0, 5, 2, false, None), None, "they moved");
        assert_eq!(at(2_000, 5, 2, false, None), None, "not for long");
        let told = at(4_000, 5, 2, false, None).expect("they stand still");
        assert!(told.contains("clients to connect again"), "{told}");
        assert!(told.contains("for 4 s; 2 records"), "{told}");
        let told = at(5_000, 6, 2, true, Some("killed")).expect("it is stopped");
        assert_eq!(
            told,
            "The numbers wait for Kafka (its broker is stopped) and the consumer (killed)."
        );
        assert_eq!(at(60_000, 6, 0, false, None), None, "all is counted");
    }

    #[test]
    fn failing_writes_are_named_only_while_they_hold_the_numbers_up() {
        let mut waits = Waits::default();
        let mut look = Look {
            writes_fail: true,
            behind: 9,
            settled: 1,
            ..Look::default()
        };
        assert_eq!(waits.look(&look), None);
        look.now_ms = STILL_MS;
        let told = waits.look(&look).expect("they stand still");
        assert!(told.starts_with("The numbers wait for DynamoDB"), "{told}");
    }
}
