//! Decides when `consume --stop-at-end` exits. The command exits when the group has committed all records that were in
//! the topic at the start.

use std::time::Duration;

use rdkafka::error::KafkaResult;

use crate::blocking::run_blocking;
use crate::consume::client::Client;
use crate::consume::locate::ANSWER_TIMEOUT;
use crate::consume::locate::Locator;
use crate::consume::status::{ConsumeStatus, ConsumeWait};
use crate::consume::trouble::{Trouble, kafka};
use crate::core::event::Offset;
use crate::kafka::consumer::Inquiry;

/// The partitions that contained records at the start of the consumer. Each has its first offset and the offset after
/// its last record.
#[derive(Clone)]
pub(super) struct StopEnds(Vec<(i32, Offset, Offset)>);

impl StopEnds {
    /// Requests the log ends of all partitions, and repeats the request until Kafka answers.
    ///
    /// # Errors
    /// Returns an error if this program cannot read the topic.
    pub(super) async fn find(
        locator: &Locator,
        client: &Client,
        status: &ConsumeStatus,
    ) -> anyhow::Result<StopEnds> {
        let mut attempt = 0;
        loop {
            status.set_beat(client.beat_ms());
            let found = match locator.topic().await {
                Err(Trouble::Settings(error)) => return Err(error.into()),
                Err(Trouble::Wait(what)) => Err(what),
                Ok((_, partitions)) => {
                    let ranges = locator.ranges(0..partitions, ANSWER_TIMEOUT).await;
                    let known = |(p, range): (i32, KafkaResult<_>)| Ok((p, range?));
                    let ranges: KafkaResult<Vec<_>> = ranges.into_iter().map(known).collect();
                    ranges.map_err(|e| kafka(&e))
                }
            };
            match found {
                Ok(ranges) => {
                    let ends = StopEnds::of(ranges);
                    // The consumer has read no record yet, so the number of uncommitted records is the initial value of
                    // the progress line.
                    let (inquiry, asked) = (locator.inquiry(), ends.clone());
                    if let Some(left) = run_blocking(move || asked.left(&inquiry)).await {
                        status.set_left(left);
                    }
                    return Ok(ends);
                }
                Err(what) => {
                    if attempt % 10 == 0 {
                        tracing::warn!("waiting for {what}");
                    }
                    status.set_waiting(ConsumeWait::Start, Some(format!("waiting for {what}")));
                    attempt += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Returns the offset ranges of the partitions that contain at least one record. A range consists of the first
    /// offset and the offset after the last record.
    fn of(ranges: Vec<(i32, (Offset, Offset))>) -> StopEnds {
        let some = |(p, (start, end))| (end > start).then_some((p, start, end));
        StopEnds(ranges.into_iter().filter_map(some).collect())
    }

    /// Returns the number of records between the group's committed offsets and the log ends at the start of the
    /// consumer. The number includes the records of partitions that other members of the group own. Returns `None` if
    /// Kafka does not answer. The call blocks the current thread.
    pub(super) fn left(&self, inquiry: &Inquiry) -> Option<u64> {
        let partitions: Vec<i32> = self.0.iter().map(|(p, _, _)| *p).collect();
        let commits = inquiry.commits(&partitions, ANSWER_TIMEOUT).ok()?;
        Some(self.count_left(|p| commits.get(&p).map(|commit| commit.next)))
    }

    /// Returns the number of records that the group has not committed yet. Without a committed offset, all records of a
    /// partition are uncommitted.
    fn count_left(&self, committed: impl Fn(i32) -> Option<Offset>) -> u64 {
        let left = |(p, start, end): &(i32, Offset, Offset)| {
            let at = committed(*p).unwrap_or(*start).max(*start);
            u64::try_from(end.0 - at.0).unwrap_or(0)
        };
        self.0.iter().map(left).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_runs_from_the_commits_to_the_noted_ends() {
        let ranges = [(0, (0, 100)), (1, (40, 50)), (2, (0, 7)), (3, (9, 9))];
        let ranges = ranges.map(|(p, (start, end))| (p, (Offset(start), Offset(end))));
        let ends = StopEnds::of(ranges.to_vec());
        let committed = |partition| match partition {
            0 => Some(Offset(30)),
            2 => Some(Offset(9)),
            _ => None,
        };
        assert_eq!(ends.count_left(committed), 70 + 10);
        assert_eq!(ends.count_left(|_| Some(Offset(100))), 0);
    }
}
