//! Decides which incident rows a `notify` process writes, and when the process may publish a checkpoint.
//!
//! An owner is the part of a `notify` process that handles one partition. The owner folds the records of the partition,
//! and keeps the latest state of each incident whose row is out of date. The owner may write the rows in any order,
//! because the table refuses to replace a row with an older state, and all owners write the same states. The owner
//! publishes a checkpoint only after the rows contain all changes below the checkpoint. An owner can safely crash, or
//! continue to run after another owner has replaced it, because the next owner finds the same incidents with the same
//! ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Incident;
use super::fold::{Change, Checkpoint, Fold};
use crate::clock::UnixMs;
use crate::event::Offset;
use crate::parse::Body;

/// The name of an incident, which consists of its rule and its id.
pub type IncidentName = (Arc<str>, Arc<str>);

/// Returns the rule and the id of an incident.
pub fn name_of(incident: &Incident) -> IncidentName {
    (Arc::clone(&incident.rule), Arc::clone(&incident.id))
}

/// An incident whose row is out of date.
#[derive(Clone, Debug)]
struct Unwritten {
    incident: Arc<Incident>,
    /// The offset of the first record whose change is missing from the row.
    since: Offset,
    /// The fence in the pending write of the row, or `None` if no write is pending.
    writing: Option<Offset>,
}

/// One assignment of one partition to a `notify` process.
#[derive(Clone, Debug)]
pub struct Owner {
    fold: Fold,
    unwritten: BTreeMap<IncidentName, Unwritten>,
    /// The names of the incidents whose rows must be written, in the order of the changes.
    waiting: Vec<IncidentName>,
    changes: Vec<Change>,
}

impl Owner {
    /// Returns an owner that continues the given fold.
    pub fn new(fold: Fold) -> Owner {
        Owner {
            fold,
            unwritten: BTreeMap::new(),
            waiting: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Returns the fold of the owner's partition.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Moves the read position to `end`, past a range of offsets without records.
    pub fn skip_gap(&mut self, end: Offset) {
        self.fold.skip_gap(end);
    }

    /// Processes the next record of the partition. `body` is `None` for a rejected record.
    pub fn take(&mut self, offset: Offset, record_ms: Option<UnixMs>, body: Option<&Body>) {
        let mut changes = std::mem::take(&mut self.changes);
        self.fold.take(offset, record_ms, body, &mut changes);
        for change in changes.drain(..) {
            let name = name_of(&change.incident);
            match self.unwritten.get_mut(&name) {
                Some(unwritten) => unwritten.incident = change.incident,
                None => {
                    let unwritten = Unwritten {
                        since: change.incident.last_change(),
                        incident: change.incident,
                        writing: None,
                    };
                    self.unwritten.insert(name.clone(), unwritten);
                    self.waiting.push(name);
                }
            }
        }
        self.changes = changes;
    }

    /// Returns the number of incidents whose row is out of date.
    pub fn unwritten_count(&self) -> usize {
        self.unwritten.len()
    }

    /// Returns the next incidents to write, at most `max`. The caller writes each incident and then calls
    /// [`Owner::written`] or [`Owner::failed`].
    pub fn next_writes(&mut self, max: usize) -> Vec<Arc<Incident>> {
        let names = self.waiting.drain(..max.min(self.waiting.len()));
        let incidents = names.filter_map(|name| {
            let unwritten = self.unwritten.get_mut(&name)?;
            unwritten.writing = Some(unwritten.incident.next);
            Some(Arc::clone(&unwritten.incident))
        });
        incidents.collect()
    }

    /// Notes that the write of an incident's row is complete. The row now contains the state that the owner wrote, or a
    /// newer state.
    pub fn written(&mut self, name: &IncidentName) {
        let Some(unwritten) = self.unwritten.get_mut(name) else {
            return;
        };
        let Some(fence) = unwritten.writing.take() else {
            return;
        };
        if unwritten.incident.next <= fence {
            self.unwritten.remove(name);
        } else {
            unwritten.since = fence;
            self.waiting.push(name.clone());
        }
    }

    /// Notes that the outcome of a write is unknown, so the row must be written again.
    pub fn failed(&mut self, name: &IncidentName) {
        if let Some(unwritten) = self.unwritten.get_mut(name)
            && unwritten.writing.take().is_some()
        {
            self.waiting.push(name.clone());
        }
    }

    /// Returns true if the rows contain all changes below the checkpoint. The checkpoint may then be published.
    pub fn is_complete(&self, checkpoint: &Checkpoint) -> bool {
        let mut behind = self.unwritten.values();
        !behind.any(|unwritten| unwritten.since < checkpoint.next)
    }
}
