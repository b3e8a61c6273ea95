//! The partitions that the group has assigned to this process. This module writes the rows and publishes the
//! checkpoints of each partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::core::clock::UnixMs;
use crate::core::incident::audit::Base;
use crate::core::incident::fold::{Checkpoint, Fold};
use crate::core::incident::owner::{Name, Owner, name_of};
use crate::notify::done::Done;
use crate::store::incidents::{IncidentTable, StoredBase, StoredCheckpoint};
use crate::telemetry::unix_ms;

/// Minimum time between two checkpoints of a partition, in ticks of the role.
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
    table: IncidentTable,
    done: UnboundedSender<Done>,
    /// The fingerprint of the rules.
    rules: Arc<str>,
}

impl Partitions {
    pub(super) fn new(
        table: IncidentTable,
        done: UnboundedSender<Done>,
        rules: Arc<str>,
    ) -> Partitions {
        Partitions {
            assigned: BTreeMap::new(),
            assignments: 0,
            writes: 0,
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

    /// Starts writing the rows that do not contain the latest changes of their incidents.
    pub(super) fn write_rows(&mut self) {
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
                    drop(done.send(Done::Written {
                        partition,
                        assignment,
                        name: name_of(&incident),
                        result,
                    }));
                });
            }
        }
    }

    /// Processes the end of a row write, which may have failed. Returns `false` if the assignment has ended.
    pub(super) fn written(
        &mut self,
        partition: i32,
        assignment: u64,
        name: &Name,
        is_known: bool,
    ) -> bool {
        self.writes -= 1;
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

    /// Creates the checkpoints that are due, and publishes each checkpoint whose rows have been written. `owed` returns
    /// the names of a partition's ended incidents for which a message may not have reached a receiver yet.
    pub(super) fn publish(&mut self, topic_id: &Arc<str>, owed: impl Fn(i32) -> Vec<Name>) {
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
                drop(done.send(Done::Published {
                    partition,
                    assignment,
                    result,
                }));
            });
        }
    }

    /// Processes the end of an attempt to publish a checkpoint, whether the attempt succeeded or failed. After a failed
    /// attempt, a later checkpoint is published instead.
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
