//! Decides which hours are final, and which hours the consumer rolls up next.
//!
//! An hour is final if every partition of the topic has published a watermark at or after the hour's end. All events
//! below a published restart point are already counted (INV-1). An event after the restart point is late if its window
//! ends at or before the watermark. Windows do not count late events (INV-4).
//!
//! | state of a partition | effect on the hours |
//! |---|---|
//! | It has published a watermark. | The hours are final up to the watermark. |
//! | It has counted no event, and has nothing to read (idle). | Hours become final without waiting for the partition. |
//! | Its consumer has not begun, or has not published a watermark yet. | Hours do not become final yet. |
//!
//! A topic with fewer cities than partitions has idle partitions, unless its producers send heartbeats. The rollup mark
//! lists the idle partitions, because the first event of an idle partition may belong to an hour that is already rolled
//! up. When a consumer has counted the first event of an idle partition, the rollup starts again at the first hour that
//! was rolled up without this partition.
//!
//! # Assumption
//! A partition that is added to the topic has no events in hours that are already rolled up. The definition of a final
//! window makes the same assumption.

use std::collections::BTreeMap;

use super::{RollupMark, hour_start};
use crate::clock::UnixMs;
use crate::event::Offset;
use crate::restart::{Commit, Metadata};

/// The known facts about the log of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The published watermark, or `None` if the partition had no event and no heartbeat below the restart point.
    pub watermark_ms: Option<UnixMs>,
    /// The largest offset among the partition's known restart points.
    pub next: Offset,
    /// The number of counted events below the offset `next`, or `None` if the number is unknown.
    pub counted: Option<u64>,
    /// The offset after the newest record of the log, or `None` if the caller has not looked it up.
    pub end: Option<Offset>,
}

impl LogState {
    fn is_idle(&self) -> bool {
        self.watermark_ms.is_none()
            && self.counted == Some(0)
            && self.end.is_some_and(|end| self.next >= end)
    }
}

/// The known facts about the topic and the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupFacts {
    /// The current topic id, which must be the same in Kafka and in the config item.
    pub topic_id: String,
    /// The id of the tables.
    pub tables_id: String,
    /// The number of partitions that the topic has.
    pub partition_count: i32,
    /// The state of each partition that has a progress item of this topic id.
    pub logs: BTreeMap<i32, LogState>,
}

impl RollupFacts {
    /// Returns the partitions that have a progress item but no published watermark. For each of them, the caller must
    /// set the end of the log ([`RollupFacts::set_end`]), which shows whether the partition is idle. The caller must
    /// also add the group's committed offset ([`RollupFacts::add_commit`]), because the committed offset may be ahead
    /// of the progress item.
    pub fn unclear(&self) -> Vec<i32> {
        let logs = self.logs.iter();
        let unclear = logs.filter(|(_, log)| log.watermark_ms.is_none());
        unclear.map(|(partition, _)| *partition).collect()
    }

    /// Sets the offset after the newest record of a partition.
    pub fn set_end(&mut self, partition: i32, end: Offset) {
        if let Some(log) = self.logs.get_mut(&partition) {
            log.end = Some(end);
        }
    }

    /// Adds the group's committed offset for a partition, if the offset was committed for this topic and these tables.
    pub fn add_commit(&mut self, partition: i32, commit: &Commit) {
        let metadata = Metadata::parse(&commit.metadata)
            .filter(|m| m.topic_id == self.topic_id && m.tables_id == self.tables_id);
        if let Some((metadata, log)) = metadata.zip(self.logs.get_mut(&partition))
            && commit.next > log.next
        {
            log.next = commit.next;
            log.counted = metadata.sums.map(|sums| sums.events());
        }
    }
}

/// The plan for the next hours to roll up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupPlan {
    /// The mark. The rollup begins at the time in the mark.
    pub mark: RollupMark,
    /// True if the mark must be written to the table before the rollup begins.
    pub is_new: bool,
    /// The time up to which all hours are final, in Unix milliseconds.
    pub target_ms: UnixMs,
    /// The idle partitions, each with the start of the first hour that is rolled up without the partition.
    pub idle: BTreeMap<i32, UnixMs>,
}

/// The reason why no hour is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollupWait {
    /// All final hours are rolled up.
    AllDone,
    /// No consumer has begun to read this partition.
    NotBegun(i32),
    /// This partition has records, but its consumer has not published a watermark yet.
    NoWatermark(i32),
}

/// Decides which hours are rolled up next.
///
/// # Errors
/// Returns the reason why no hour is due.
pub fn plan(stored: Option<&RollupMark>, facts: &RollupFacts) -> Result<RollupPlan, RollupWait> {
    let mark = begin(stored, facts);
    let is_new = stored != Some(&mark);
    // A stored mark whose time is too late must be corrected even if no hour is due. The first mark can be written
    // later.
    let must_write = is_new && stored.is_some_and(|stored| stored.is_of_same(&mark));
    let (target_ms, idle) = match final_until(facts) {
        Ok((final_ms, idle)) if final_ms > mark.until_ms => {
            let since = |partition: i32| {
                let known = mark.idle.get(&partition).copied();
                (partition, known.unwrap_or(mark.until_ms).min(mark.until_ms))
            };
            (final_ms, idle.into_iter().map(since).collect())
        }
        Ok(_) if !must_write => return Err(RollupWait::AllDone),
        Err(waiting) if !must_write => return Err(waiting),
        Ok(_) | Err(_) => (mark.until_ms, mark.idle.clone()),
    };
    Ok(RollupPlan {
        mark,
        is_new,
        target_ms,
        idle,
    })
}

/// Returns the time up to which all hours are final, and the idle partitions.
fn final_until(facts: &RollupFacts) -> Result<(UnixMs, Vec<i32>), RollupWait> {
    let mut least_ms = None;
    let mut idle = Vec::new();
    for partition in 0..facts.partition_count {
        let log = facts.logs.get(&partition);
        let log = log.ok_or(RollupWait::NotBegun(partition))?;
        match log.watermark_ms {
            Some(ms) => least_ms = Some(least_ms.map_or(ms, |least: UnixMs| least.min(ms))),
            None if log.is_idle() => idle.push(partition),
            None => return Err(RollupWait::NoWatermark(partition)),
        }
    }
    Ok((least_ms.map_or(UnixMs(0), hour_start), idle))
}

/// Returns the mark from which the rollup continues.
fn begin(stored: Option<&RollupMark>, facts: &RollupFacts) -> RollupMark {
    let Some(stored) = stored else {
        return first_mark(facts, 0);
    };
    let first = first_mark(facts, stored.version);
    if !stored.is_of_same(&first) {
        return first;
    }
    let mut mark = stored.clone();
    // A partition without a progress item has no counted events.
    let counted = |partition: i32| match facts.logs.get(&partition) {
        Some(log) => log.counted,
        None => Some(0),
    };
    mark.until_ms = stored.whole_until_ms(counted);
    mark.idle.retain(|partition, _| {
        // If the watermark of an idle partition has passed the mark, its new events in rolled-up hours are late.
        // Windows do not count late events, so the mark no longer needs to list this partition.
        let watermark_ms = facts.logs.get(partition).and_then(|log| log.watermark_ms);
        counted(*partition) == Some(0) && watermark_ms.is_none_or(|ms| ms < stored.until_ms)
    });
    mark
}

fn first_mark(facts: &RollupFacts, version: i64) -> RollupMark {
    RollupMark {
        topic_id: facts.topic_id.clone(),
        tables_id: facts.tables_id.clone(),
        until_ms: UnixMs(0),
        idle: BTreeMap::new(),
        version,
    }
}
