//! Periodically requests the topic's id and the ends of its logs from Kafka, and finds read positions outside the logs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaResult;

use crate::blocking::run_blocking;
use crate::consume::answers::{Answer, Answers, Looked, ReadPosition, TopicNow};
use crate::consume::locate::{ANSWER_TIMEOUT, Locator};
use crate::consume::stop_ends::StopEnds;
use crate::core::event::Offset;

/// Time between two requests for the topic's id. If a topic is recreated, counts may become wrong until the consumer
/// gets the new id, so this time is short.
pub(super) const TOPIC_INTERVAL: Duration = Duration::from_millis(300);
/// Time between two requests for the end offsets of the logs and the group's committed offsets.
const ENDS_INTERVAL: Duration = Duration::from_millis(1_000);
/// Maximum wait for a partition leader to report the end of its log. The slowest leader delays the end offsets of all
/// partitions.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests the state of the topic, with at most one request in flight.
pub(super) struct TopicWatch {
    looking: bool,
    asked_ends_at: Instant,
    stop_ends: Option<StopEnds>,
}

impl TopicWatch {
    pub(super) fn new() -> TopicWatch {
        TopicWatch {
            looking: false,
            asked_ends_at: Instant::now(),
            stop_ends: None,
        }
    }

    /// Makes the consumer exit after the group has committed every record below the end offsets in `ends`.
    pub(super) fn stop_at(&mut self, ends: StopEnds) {
        self.stop_ends = Some(ends);
    }

    /// Notes that no request is in flight. The shell calls this function after the end of a request, or after it has
    /// replaced the Kafka client.
    pub(super) fn look_ended(&mut self) {
        self.looking = false;
    }

    /// Requests the topic's id. If the last request for log ends was at least [`ENDS_INTERVAL`] ago, also requests the
    /// log ends of `partitions`. The shell gets two results: first [`Answer::Looked`], and then [`Answer::AtEnd`].
    pub(super) fn look(&mut self, locator: &Locator, answers: Answers, partitions: Vec<i32>) {
        if self.looking {
            return;
        }
        self.looking = true;
        let asks_ends = self.asked_ends_at.elapsed() >= ENDS_INTERVAL;
        if asks_ends {
            self.asked_ends_at = Instant::now();
        }
        let locator = locator.clone();
        let stop_ends = self.stop_ends.clone().filter(|_| asks_ends);
        tokio::spawn(async move {
            let inquiry = locator.inquiry();
            let asked = inquiry.clone();
            let topic = match run_blocking(move || asked.topic(ANSWER_TIMEOUT)).await {
                Ok(Some(topic)) => TopicNow::Is(topic.id.to_string()),
                Ok(None) => TopicNow::Missing,
                Err(_) => TopicNow::Unknown,
            };
            let ends = if !matches!(topic, TopicNow::Is(_)) {
                // The topic does not exist, and Kafka would not answer a request for its log ends.
                Some(Vec::new())
            } else if asks_ends {
                let ranges = locator.ranges(partitions, END_TIMEOUT).await;
                let end = |(partition, range): (i32, KafkaResult<(Offset, Offset)>)| {
                    Some((partition, range.ok()?.1))
                };
                Some(ranges.into_iter().filter_map(end).collect())
            } else {
                None
            };
            answers.kafka(Answer::Looked(Looked { topic, ends }));
            let left = match stop_ends {
                None => None,
                Some(ends) => run_blocking(move || ends.left(&inquiry)).await,
            };
            answers.kafka(Answer::AtEnd(left));
        });
    }
}

/// Finds the read positions in `positions` that are outside the log of their partition.
///
/// The shell calls this function after librdkafka has reported that it cannot read at a position. librdkafka reports
/// this only once, does not name the partition, and no longer reads the partition. Therefore, the function always sends
/// an answer to the shell. If every position is inside its log, the records before one of the positions were replaced.
/// The answer then contains all positions, and the start rule finds out which partition is affected
/// ([`crate::core::replaced`]). If no broker reports the range of a log, the answer is [`Answer::RangesUnknown`], and
/// the shell checks the positions again.
pub(super) fn check_ranges(locator: &Locator, answers: Answers, positions: Vec<ReadPosition>) {
    if positions.is_empty() {
        return;
    }
    let inquiry = locator.inquiry();
    tokio::spawn(async move {
        let range = move |partition| inquiry.log_range(partition, END_TIMEOUT).ok();
        let (unreadable, are_known) = run_blocking(move || find_unreadable(positions, range)).await;
        if !unreadable.is_empty() {
            answers.kafka(Answer::Unreadable(unreadable));
        }
        if !are_known {
            tokio::time::sleep(ENDS_INTERVAL).await;
            answers.kafka(Answer::RangesUnknown);
        }
    });
}

/// The positions at which the shell has restarted partitions because librdkafka could not read there. If librdkafka
/// cannot read at the same position a second time, another restart would not help. The partition then stalls, and the
/// shell replaces the Kafka client.
#[derive(Default)]
pub(super) struct Restarts(BTreeMap<i32, Offset>);

impl Restarts {
    /// Returns true unless the shell's last restart of the partition was at the same position.
    pub(super) fn is_first(&mut self, at: ReadPosition) -> bool {
        self.0.insert(at.partition, at.next) != Some(at.next)
    }
}

/// Returns the positions at which librdkafka may have stopped reading, and whether the range of every log is known.
/// These are the positions outside their logs. If no position is outside its log and all ranges are known, the function
/// returns all positions.
fn find_unreadable(
    positions: Vec<ReadPosition>,
    range: impl Fn(i32) -> Option<(Offset, Offset)>,
) -> (Vec<ReadPosition>, bool) {
    let (mut outside, mut are_known) = (Vec::new(), true);
    for position in &positions {
        match range(position.partition) {
            None => are_known = false,
            Some((start, end)) if (start..=end).contains(&position.next) => {}
            Some(_) => outside.push(*position),
        }
    }
    if outside.is_empty() && are_known {
        return (positions, true);
    }
    (outside, are_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(positions: &[(i32, i64)]) -> Vec<ReadPosition> {
        let position = |&(partition, next): &(i32, i64)| ReadPosition {
            partition,
            assignment: 1,
            next: Offset(next),
        };
        positions.iter().map(position).collect()
    }

    #[test]
    fn a_position_that_no_broker_answers_for_is_asked_for_again() {
        let range = |partition| (partition != 4).then_some((Offset(5), Offset(10)));
        let asked = positions(&[(0, 4), (1, 5), (2, 10), (3, 11), (4, 7)]);
        let outside = positions(&[(0, 4), (3, 11)]);
        assert_eq!(find_unreadable(asked, range), (outside, false));
        let inside = positions(&[(1, 5), (4, 7)]);
        assert_eq!(find_unreadable(inside, range), (Vec::new(), false));
    }

    #[test]
    fn a_partition_restarts_once_at_a_position() {
        let mut restarts = Restarts::default();
        let first: Vec<bool> = positions(&[(1, 5), (2, 5), (1, 5), (1, 6), (1, 5)])
            .into_iter()
            .map(|at| restarts.is_first(at))
            .collect();
        assert_eq!(first, [true, true, false, true, true]);
    }

    #[test]
    fn unreadable_positions_are_retried_if_none_is_out_of_range() {
        let range = |_| Some((Offset(5), Offset(10)));
        let asked = positions(&[(1, 5), (2, 10)]);
        assert_eq!(find_unreadable(asked.clone(), range), (asked, true));
    }
}
