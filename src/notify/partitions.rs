//! The partitions that the group has assigned to this process. This module writes the rows and publishes the
//! checkpoints of each partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::core::clock::{SteadyMs, UnixMs};
use crate::core::incident::audit::Base;
use crate::core::incident::fold::{Checkpoint, Fold};
use crate::core::incident::owner::{IncidentName, Owner, name_of};
use crate::core::pace::backoff_ms;
use crate::notify::task_result::TaskResult;
use crate::store::incidents::{IncidentTable, StoredBase, StoredCheckpoint};
use crate::telemetry::unix_ms;

/// Minimum time between two checkpoints of a partition, in ticks of the main loop (100 ms each).
const CHECKPOINT_TICKS: u32 = 50;
/// Time between two bases, in milliseconds. A base is a checkpoint that is kept for `verify --incidents`.
const BASE_EVERY_MS: i64 = 86_400_000;
/// Maximum number of bases that are kept for a partition. A base is useful only while the log still contains the
/// records after the base.
const BASES_MAX: usize = 40;
/// Maximum number of rows that are written at the same time.
const WRITES_MAX: usize = 64;

/// An assigned partition.
struct Assigned {
    assignment: u64,
    /// The owner of the partition, or `None` until the partition's start offset is known.
    owner: Option<Owner>,
    /// The reason why the last attempt to find the start offset failed.
    failure: Option<String>,
    /// The next checkpoint, which is published as soon as all rows that belong to the checkpoint have been written.
    checkpoint: Option<StoredCheckpoint>,
    is_publishing: bool,
    /// The number of ticks since the last checkpoint was published.
    ticks: u32,
    /// The offset of the last published checkpoint.
    published: i64,
    /// Earlier checkpoints that were created with the same rules, oldest first.
    bases: Vec<StoredBase>,
}

/// Adds the checkpoint to `bases`, unless the last base was added less than a day ago.
fn keep_base(bases: &mut Vec<StoredBase>, checkpoint: &Checkpoint, now_ms: UnixMs) {
    let last = bases.last();
    if last.is_some_and(|last| now_ms < last.made_ms + BASE_EVERY_MS) {
        return;
    }
    if bases.len() >= BASES_MAX {
        bases.remove(0);
    }
    bases.push(StoredBase {
        base: Base::of(checkpoint),
        made_ms: now_ms,
    });
}

/// All assigned partitions.
pub(super) struct Partitions {
    assigned: BTreeMap<i32, Assigned>,
    assignments: u64,
    /// The number of row writes that are in progress.
    writes: usize,
    /// The number of pauses since a row was last written without a failure.
    pauses: u32,
    /// The time before which no row is written, because a write has failed.
    not_before_ms: SteadyMs,
    table: IncidentTable,
    done: UnboundedSender<TaskResult>,
    /// The fingerprint of the rules.
    rules: Arc<str>,
}

impl Partitions {
    pub(super) fn new(
        table: IncidentTable,
        done: UnboundedSender<TaskResult>,
        rules: Arc<str>,
    ) -> Partitions {
        Partitions {
            assigned: BTreeMap::new(),
            assignments: 0,
            writes: 0,
            pauses: 0,
            not_before_ms: SteadyMs::MIN,
            table,
            done,
            rules,
        }
    }

    /// Adds a partition whose start offset is not known yet. Returns the number that identifies the new assignment.
    pub(super) fn assign(&mut self, partition: i32) -> u64 {
        self.assignments += 1;
        let assigned = Assigned {
            assignment: self.assignments,
            owner: None,
            failure: None,
            checkpoint: None,
            is_publishing: false,
            ticks: 0,
            published: -1,
            bases: Vec::new(),
        };
        self.assigned.insert(partition, assigned);
        self.assignments
    }

    pub(super) fn remove(&mut self, partition: i32) {
        self.assigned.remove(&partition);
    }

    /// Returns the numbers of all assigned partitions.
    pub(super) fn numbers(&self) -> Vec<i32> {
        self.assigned.keys().copied().collect()
    }

    /// Returns the [`Owner`] of each partition whose start offset is known.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.assigned.values().filter_map(|a| a.owner.as_ref())
    }

    fn current(&mut self, partition: i32, assignment: u64) -> Option<&mut Assigned> {
        let assigned = self.assigned.get_mut(&partition)?;
        (assigned.assignment == assignment).then_some(assigned)
    }

    /// Returns the owner of a partition if `assignment` is still the current assignment of the partition.
    pub(super) fn owner(&mut self, partition: i32, assignment: u64) -> Option<&mut Owner> {
        self.current(partition, assignment)?.owner.as_mut()
    }

    /// Starts a partition. Returns `false` if the assignment has ended.
    pub(super) fn start(
        &mut self,
        partition: i32,
        assignment: u64,
        fold: Fold,
        bases: Vec<StoredBase>,
    ) -> bool {
        let Some(current) = self.current(partition, assignment) else {
            return false;
        };
        current.owner = Some(Owner::new(fold));
        current.bases = bases;
        true
    }

    /// Stores the reason why an attempt to start a partition failed. Returns `false` if the assignment has ended.
    pub(super) fn start_failed(&mut self, partition: i32, assignment: u64, why: String) -> bool {
        let Some(current) = self.current(partition, assignment) else {
            return false;
        };
        current.failure = Some(why);
        true
    }

    /// Returns what the role waits for, or `None` if all assigned partitions have started.
    pub(super) fn waiting_for(&self) -> Option<String> {
        let waiting = self.assigned.iter().filter(|(_, a)| a.owner.is_none());
        let (partition, assigned) = waiting.max_by_key(|(_, a)| a.failure.is_some())?;
        let start = format!("waiting for partition {partition} to start");
        Some(match &assigned.failure {
            Some(why) => format!("{start}: {why}"),
            None => start,
        })
    }

    /// Starts writing the rows that do not contain the latest changes of their incidents. After a failed write, the
    /// function does nothing until the pause is over.
    pub(super) fn write_rows(&mut self, now_ms: SteadyMs) {
        if now_ms < self.not_before_ms {
            return;
        }
        for (&partition, assigned) in &mut self.assigned {
            let Some(owner) = &mut assigned.owner else {
                continue;
            };
            let assignment = assigned.assignment;
            for incident in owner.next_writes(WRITES_MAX.saturating_sub(self.writes)) {
                self.writes += 1;
                let (table, done) = (self.table.clone(), self.done.clone());
                tokio::spawn(async move {
                    let result = table.write(&incident).await;
                    drop(done.send(TaskResult::Written {
                        partition,
                        assignment,
                        name: name_of(&incident),
                        result,
                    }));
                });
            }
        }
    }

    /// Processes the result of a row write, which may have failed. Returns `false` if the assignment has ended.
    pub(super) fn written(
        &mut self,
        partition: i32,
        assignment: u64,
        name: &IncidentName,
        is_known: bool,
        now_ms: SteadyMs,
    ) -> bool {
        self.writes -= 1;
        self.pace_writes(is_known, now_ms);
        let Some(owner) = self.owner(partition, assignment) else {
            return false;
        };
        if is_known {
            owner.written(name);
        } else {
            owner.failed(name);
        }
        true
    }

    /// Begins a pause after a failed write. If several writes in progress fail together, only the first failure makes
    /// the pause longer.
    fn pace_writes(&mut self, is_known: bool, now_ms: SteadyMs) {
        if now_ms < self.not_before_ms {
            return;
        }
        if is_known {
            self.pauses = 0;
        } else {
            self.pauses = self.pauses.saturating_add(1);
            self.not_before_ms = now_ms + backoff_ms(self.pauses, fastrand::u32(..));
        }
    }

    /// Creates the checkpoints that are due, and publishes each checkpoint whose rows have been written. `owed` returns
    /// the names of a partition's ended incidents for which a message may not have reached a receiver yet.
    pub(super) fn publish(&mut self, topic_id: &Arc<str>, owed: impl Fn(i32) -> Vec<IncidentName>) {
        for (&partition, assigned) in &mut self.assigned {
            let Some(owner) = &assigned.owner else {
                continue;
            };
            assigned.ticks = assigned.ticks.saturating_add(1);
            if assigned.checkpoint.is_none() && assigned.ticks >= CHECKPOINT_TICKS {
                let checkpoint = owner.fold().checkpoint();
                if checkpoint.next.0 > assigned.published {
                    let owed = owed(partition);
                    keep_base(&mut assigned.bases, &checkpoint, unix_ms());
                    assigned.checkpoint = Some(StoredCheckpoint {
                        checkpoint,
                        owed,
                        rules: self.rules.to_string(),
                        bases: assigned.bases.clone(),
                    });
                }
            }
            let is_ready = |stored: &mut StoredCheckpoint| owner.is_complete(&stored.checkpoint);
            if assigned.is_publishing {
                continue;
            }
            let Some(stored) = assigned.checkpoint.take_if(is_ready) else {
                continue;
            };
            assigned.is_publishing = true;
            assigned.published = stored.checkpoint.next.0;
            let (table, done) = (self.table.clone(), self.done.clone());
            let (topic_id, assignment) = (Arc::clone(topic_id), assigned.assignment);
            tokio::spawn(async move {
                let result = table.publish(&topic_id, partition, &stored).await;
                drop(done.send(TaskResult::Published {
                    partition,
                    assignment,
                    result,
                }));
            });
        }
    }

    /// Processes the result of an attempt to publish a checkpoint, whether the attempt succeeded or failed. After a
    /// failed attempt, a later checkpoint is published instead.
    pub(super) fn published(&mut self, partition: i32, assignment: u64) {
        if let Some(assigned) = self.current(partition, assignment) {
            assigned.is_publishing = false;
            assigned.ticks = 0;
        }
    }

    /// Makes the next checkpoint of each partition due immediately.
    pub(super) fn hurry(&mut self) {
        for assigned in self.assigned.values_mut() {
            assigned.ticks = CHECKPOINT_TICKS;
        }
    }

    /// Returns true if any row write or publication is in progress.
    pub(super) fn is_busy(&self) -> bool {
        let is_publishing = |a: &Assigned| a.is_publishing || a.checkpoint.is_some();
        self.writes > 0 || self.assigned.values().any(is_publishing)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::core::event::{Event, Offset, Severity};
    use crate::core::incident::fold::IncidentSource;
    use crate::core::pace::BACKOFF_MAX_MS;
    use crate::core::parse::Body;
    use crate::core::window::Rules;
    use crate::notify::config::{NotifyConfig, SecretReading};
    use crate::store::client::{ConnectOptions, connect};

    const RULES: &str = r#"
        [[rule]]
        name = "critical"
        severity = ["critical"]
        group_by = ["city"]
        quiet = "15m"

        [[receiver]]
        name = "ops"
        type = "webhook"
        url = "http://127.0.0.1:1/"
        allow_private = true
    "#;

    /// Returns the partition 0, in which incidents of `cities` have no row yet.
    async fn unwritten(cities: &[&str], done: UnboundedSender<TaskResult>) -> (Partitions, u64) {
        let options = ConnectOptions {
            attempts: 1,
            // No program listens on port 1.
            endpoint_url: Some("http://127.0.0.1:1".to_owned()),
            test_credentials: true,
            ..ConnectOptions::default()
        };
        let client = connect(options).await.expect("no request is sent");
        let table = IncidentTable::new(client, "incidents");
        let path = std::path::Path::new("rules.toml");
        let config = NotifyConfig::parse(path, RULES, None, SecretReading::Skip);
        let source = IncidentSource {
            topic: "t".into(),
            topic_id: "T".into(),
            partition: 0,
            times: Rules::default(),
        };
        let rules = config.expect("the rules are fine").rules;
        let fold = Fold::new(source, &rules, &Checkpoint::begin(Offset(0)), &[]);
        let mut partitions = Partitions::new(table, done, "".into());
        let assignment = partitions.assign(0);
        assert!(partitions.start(0, assignment, fold, Vec::new()));
        for (offset, city) in (0..).zip(cities) {
            let event = Event {
                city: (*city).into(),
                event_type: "traffic".into(),
                severity: Severity::Critical,
                time_ms: UnixMs(0),
                description: "d".into(),
                event_id: None,
                extra: None,
            };
            let owner = partitions.owner(0, assignment).expect("it has started");
            owner.take(Offset(offset), Some(UnixMs(0)), Some(&Body::Event(event)));
        }
        (partitions, assignment)
    }

    #[tokio::test]
    async fn failed_rows_are_written_again_after_growing_pauses() {
        let (done_in, mut done) = mpsc::unbounded_channel();
        let (mut partitions, assignment) = unwritten(&["a", "b"], done_in).await;
        let mut now_ms = SteadyMs(0);
        let mut longest_ms = 0;
        for _ in 0..12 {
            partitions.write_rows(now_ms);
            assert_eq!(partitions.writes, 2, "the pause is over");
            for _ in 0..2 {
                let Some(TaskResult::Written { name, result, .. }) = done.recv().await else {
                    panic!("a write has ended");
                };
                assert!(partitions.written(0, assignment, &name, result.is_ok(), now_ms));
                partitions.write_rows(now_ms);
            }
            assert_eq!(partitions.writes, 0, "no write during the pause");
            longest_ms = longest_ms.max(partitions.not_before_ms - now_ms);
            now_ms = partitions.not_before_ms;
        }
        assert!(longest_ms > 100, "{longest_ms}");
        assert!(longest_ms <= BACKOFF_MAX_MS + 1, "{longest_ms}");
        assert_eq!(partitions.pauses, 12, "two failed writes cause one pause");
        partitions.pace_writes(true, now_ms);
        assert_eq!(partitions.pauses, 0);
    }
}
