//! What only time shows: watermarks, lag, positions outside the log, and the stop condition of
//! `--stop-at-end`.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaResult;

use crate::blocking::run_blocking;
use crate::consume::locate::{Trouble, kafka};
use crate::consume::shell::{ANSWER_TIMEOUT, Answer, Done, LOOK_INTERVAL, Shell, TopicNow, send};
use crate::consume::status::Wait;
use crate::core::event::Offset;
use crate::core::stall::Look;
use crate::core::worker::Worker;
use crate::kafka::inquiry::Inquiry;
use crate::sys;

/// Time between two looks at the config item: half a read unit each, and shorter than it takes AWS to
/// make four tables.
const TABLES_INTERVAL: Duration = Duration::from_secs(5);
/// How long the leader of a partition may take to say where its log ends: the others wait for it.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A partition, its assignment, and its position.
pub(super) type Standing = (i32, u64, Offset);

impl Shell {
    /// Looks at what only time shows: watermarks, lag, the stop condition.
    pub(super) fn look(&mut self) {
        if self.p.pipeline.in_flight() == 0 {
            self.nothing_waits();
        }
        self.p.host.status.set_beat(self.p.consumer.beat_ms());
        let idle = self.p.pipeline.workers().next().is_none();
        if idle && let Some(refusal) = self.p.consumer.chatter().refusal() {
            self.p.host.status.still_waiting(refusal.to_string());
        }
        for worker in self.p.pipeline.workers() {
            if let Some(ms) = worker.watermark_ms() {
                #[allow(clippy::cast_precision_loss)] // far below 2^53
                let seconds = ms as f64 / 1_000.0;
                let label = worker.place().partition.to_string();
                self.p
                    .host
                    .metrics
                    .watermark_seconds
                    .with_label_values(&[&label])
                    .set(seconds);
            }
        }
        self.check_tables();
        if self.looking {
            return;
        }
        self.looking = true;
        // The topic's id at every look; one question per partition, and one for the group, less often.
        let whole = self.looked_at.elapsed() >= LOOK_INTERVAL;
        if whole {
            self.looked_at = Instant::now();
        }
        let (locator, done) = (self.p.locator.clone(), self.done_in.clone());
        let partitions: Vec<i32> = self.places().iter().map(|(p, _, _)| *p).collect();
        let (stop_ends, generation) = (self.stop_ends.clone().filter(|_| whole), self.generation);
        tokio::spawn(async move {
            let inquiry = locator.inquiry();
            let asked = inquiry.clone();
            let topic = match run_blocking(move || asked.topic(ANSWER_TIMEOUT)).await {
                Ok(Some(topic)) => TopicNow::Is(topic.id.to_string()),
                Ok(None) => TopicNow::Missing,
                Err(_) => TopicNow::Unknown,
            };
            let ends = if !matches!(topic, TopicNow::Is(_)) {
                // Nothing else would be answered.
                Some(Vec::new())
            } else if whole {
                let ranges = locator.ranges(partitions, END_TIMEOUT).await;
                let end = |(partition, range): (i32, KafkaResult<(Offset, Offset)>)| {
                    Some((partition, range.ok()?.1))
                };
                Some(ranges.into_iter().filter_map(end).collect())
            } else {
                None
            };
            send(&done, Done::Answer(generation, Answer::Looked(topic, ends)));
            let left = match stop_ends {
                None => None,
                Some(ends) => run_blocking(move || left(&inquiry, &ends)).await,
            };
            send(&done, Done::Answer(generation, Answer::AtEnd(left)));
        });
    }

    /// Asks now and then whether the tables are the same still. A write that misses its table tells
    /// too, but only where one was under way while they were made anew.
    fn check_tables(&mut self) {
        let due = self.tables_asked_at.elapsed() >= TABLES_INTERVAL;
        if !due || self.doubt.is_open() || self.p.pipeline.workers().next().is_none() {
            return;
        }
        self.tables_asked_at = Instant::now();
        let (tables, done) = (self.p.locator.tables(), self.done_in.clone());
        tokio::spawn(async move {
            let asked_ms = sys::boot_ms();
            match tables.id().await {
                Ok(Some(id)) => send(&done, Done::Tables(id, asked_ms)),
                // Of tables that are being made, the config item is the last part.
                Ok(None) => send(&done, Done::NoTables),
                // It is in doubt soon whether they are the same still.
                Err(_) => {}
            }
        });
    }

    /// Takes what a look brought: the topic, which may be another one than a moment ago, and the
    /// ends of the logs where they were asked for.
    pub(super) fn looked(&mut self, now_ms: i64, topic: &TopicNow, ends: Option<&[(i32, Offset)]>) {
        match topic {
            TopicNow::Is(id) => {
                self.p.host.status.set_waiting(Wait::Topic, None);
                self.p.pipeline.topic_seen(now_ms, id);
            }
            TopicNow::Missing => self.topic_missing(),
            TopicNow::Unknown => {}
        }
        if let Some(ends) = ends {
            self.took_ends(ends);
            self.mind_stalls(now_ms, ends);
        }
    }

    fn mind_stalls(&mut self, now_ms: i64, ends: &[(i32, Offset)]) {
        let look = |worker: &Worker| {
            let partition = worker.place().partition;
            let (_, log_end) = ends.iter().find(|(p, _)| *p == partition)?;
            Some(Look {
                partition,
                assignment: worker.place().assignment,
                position: worker.position(),
                log_end: *log_end,
                in_flight: worker.in_flight(),
            })
        };
        let looks: Vec<Look> = self.p.pipeline.workers().filter_map(look).collect();
        let held_back =
            !self.failing.is_empty() || self.doubt.is_open() || self.p.budget.is_tight();
        let stalled = self.stalls.look(now_ms, &looks, held_back);
        self.p.host.status.set_stuck(self.stalls.stuck());
        if !stalled.is_empty() {
            self.renew_consumer(&stalled);
        }
    }

    fn took_ends(&mut self, ends: &[(i32, Offset)]) {
        let places = self.places();
        for (partition, end) in ends {
            let place = places.iter().find(|(p, _, _)| p == partition);
            let Some((_, _, position)) = place else {
                continue;
            };
            let lag = (end.0 - position.0).max(0);
            self.p
                .host
                .metrics
                .lag_records
                .with_label_values(&[&self.p.topic, &partition.to_string()])
                .set(lag);
        }
    }

    /// Kafka had no record at one of these positions and does not say which: asks for the log's ends of
    /// all. It says so once only and then reads that partition no more, so whoever cannot answer now is
    /// asked again, as long as the partition stands there.
    pub(super) fn check_ranges(&self, mut places: Vec<Standing>) {
        let now = self.places();
        places.retain(|place| now.contains(place));
        if places.is_empty() {
            return;
        }
        let (inquiry, done) = (self.p.locator.inquiry(), self.done_in.clone());
        let generation = self.generation;
        tokio::spawn(async move {
            let range = move |partition| inquiry.log_range(partition, END_TIMEOUT).ok();
            let (outside, unknown) = run_blocking(move || judge(places, range)).await;
            if !outside.is_empty() {
                send(&done, Done::Answer(generation, Answer::Outside(outside)));
            }
            if !unknown.is_empty() {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let answer = Answer::RangesUnknown(unknown);
                send(&done, Done::Answer(generation, answer));
            }
        });
    }

    /// Takes the positions that lie outside their logs.
    pub(super) fn took_outside(&mut self, outside: &[Standing]) {
        let now = self.places();
        for place in outside.iter().filter(|place| now.contains(place)) {
            let (partition, assignment, position) = place;
            tracing::warn!(partition, %position, "the log has no record at the position");
            self.p.pipeline.out_of_range(*partition, *assignment);
        }
    }

    /// Returns partition, assignment and position of each running partition.
    pub(super) fn places(&self) -> Vec<Standing> {
        let place = |w: &Worker| (w.place().partition, w.place().assignment, w.position());
        self.p.pipeline.workers().map(place).collect()
    }

    /// Notes the end of every partition; the stop condition is that the group commits them.
    pub(super) async fn note_stop_ends(&mut self) -> anyhow::Result<()> {
        let mut attempt = 0;
        loop {
            self.p.host.status.set_beat(self.p.consumer.beat_ms());
            let found = match self.p.locator.topic().await {
                Err(Trouble::Settings(error)) => return Err(error.into()),
                Err(Trouble::Wait(what)) => Err(what),
                Ok((_, partitions)) => {
                    let ranges = self.p.locator.ranges(0..partitions, ANSWER_TIMEOUT).await;
                    let known = |(p, range): (i32, KafkaResult<_>)| Ok((p, range?));
                    let ranges: KafkaResult<Vec<_>> = ranges.into_iter().map(known).collect();
                    ranges.map_err(|e| kafka(&e))
                }
            };
            match found {
                Ok(ranges) => {
                    let some = |(p, (start, end)): (i32, (Offset, Offset))| {
                        (end > start).then_some((p, start, end))
                    };
                    let ends: Vec<_> = ranges.into_iter().filter_map(some).collect();
                    let (inquiry, asked) = (self.p.locator.inquiry(), ends.clone());
                    // This question comes before the first record, so the answer holds all records that are not committed yet.
                    if let Some(left) = run_blocking(move || left(&inquiry, &asked)).await {
                        self.p.host.status.set_left(left);
                    }
                    self.stop_ends = Some(ends);
                    return Ok(());
                }
                Err(what) => {
                    if attempt % 10 == 0 {
                        tracing::warn!("waiting for {what}");
                    }
                    let what = Some(format!("waiting for {what}"));
                    self.p.host.status.set_waiting(Wait::Start, what);
                    attempt += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Returns the places outside their logs, and those of which `range` does not know.
fn judge(
    places: Vec<Standing>,
    range: impl Fn(i32) -> Option<(Offset, Offset)>,
) -> (Vec<Standing>, Vec<Standing>) {
    let (mut outside, mut unknown) = (Vec::new(), Vec::new());
    for place in places {
        match range(place.0) {
            None => unknown.push(place),
            Some((start, end)) if (start..=end).contains(&place.2) => {}
            Some(_) => outside.push(place),
        }
    }
    (outside, unknown)
}

/// Returns how many records lie between the group's commits and the ends, whoever owns the partitions:
/// none once all have reached them.
fn left(inquiry: &Inquiry, ends: &[(i32, Offset, Offset)]) -> Option<u64> {
    let partitions: Vec<i32> = ends.iter().map(|(p, _, _)| *p).collect();
    let commits = inquiry.commits(&partitions, ANSWER_TIMEOUT).ok()?;
    let next = |p| commits.get(&p).map(|commit| commit.next);
    Some(records_left(ends, next))
}

/// A partition without a commit is counted from its start.
fn records_left(ends: &[(i32, Offset, Offset)], next: impl Fn(i32) -> Option<Offset>) -> u64 {
    let left = |(p, start, end): &(i32, Offset, Offset)| {
        let at = next(*p).unwrap_or(*start).max(*start);
        u64::try_from(end.0 - at.0).unwrap_or(0)
    };
    ends.iter().map(left).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_runs_from_the_commits_to_the_noted_ends() {
        let ends = [(0, 0, 100), (1, 40, 50), (2, 0, 7)];
        let ends = ends.map(|(p, start, end)| (p, Offset(start), Offset(end)));
        let next = |partition| match partition {
            0 => Some(Offset(30)),
            2 => Some(Offset(9)),
            _ => None,
        };
        assert_eq!(records_left(&ends, next), 70 + 10);
        assert_eq!(records_left(&ends, |_| Some(Offset(100))), 0);
    }

    #[test]
    fn c7_a_position_of_which_no_broker_answers_is_asked_for_again() {
        let places = [(0, 1, 4), (1, 2, 5), (2, 3, 10), (3, 4, 11), (4, 5, 7)];
        let places = places.map(|(p, a, at)| (p, a, Offset(at)));
        let range = |partition| (partition != 4).then_some((Offset(5), Offset(10)));
        let (outside, unknown) = judge(places.to_vec(), range);
        assert_eq!(outside, [places[0], places[3]]);
        assert_eq!(unknown, [places[4]]);
    }
}
