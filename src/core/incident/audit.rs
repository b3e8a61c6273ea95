//! Compares the rows of a partition's incidents with a second fold of the log.
//!
//! The second fold begins at an old checkpoint, which is called the [`Base`]. The second fold loads the incidents that
//! were open at the base from their rows. For these incidents, the comparison checks only whether the row contains the
//! changes after the base. An incident that opened after the base must agree with its row in every field.
//!
//! The comparison is exact even while `notify` runs, if the caller reads the newest checkpoint first, then the rows,
//! and the end of the log last. The offset of the newest checkpoint is called the *claim*. The rows contain all changes
//! by records below the claim. The log contains all records that changed the rows.

use std::collections::{BTreeMap, BTreeSet};

use super::Incident;
use super::fold::{Change, Checkpoint, Fold, IncidentSource, RuleStart};
use super::owner::{IncidentName, name_of};
use super::rule::Rule;
use crate::clock::UnixMs;
use crate::event::Offset;
use crate::parse::Body;

/// Maximum number of differences that an `IncidentAuditOutcome` describes. It only counts further differences.
pub const DESCRIBED_MAX: usize = 100;

/// A position at which a second fold of the log can begin: a checkpoint without its list of open incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The position at which the fold begins to read. The records from `start` up to `next` change no incident.
    pub start: RuleStart,
    /// The first offset whose record may change an incident.
    pub next: Offset,
}

impl Base {
    /// Returns the base of a checkpoint.
    pub fn of(checkpoint: &Checkpoint) -> Base {
        Base {
            start: checkpoint.start,
            next: checkpoint.next,
        }
    }
}

/// A row that does not agree with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentDifference {
    /// The rule and the id of the incident.
    pub name: IncidentName,
    /// A description of the difference.
    pub what: &'static str,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentAuditOutcome {
    /// The number of rows that were compared.
    pub compared: u64,
    /// The number of rows that do not agree with the log.
    pub difference_count: u64,
    /// The first differences, at most [`DESCRIBED_MAX`].
    pub differences: Vec<IncidentDifference>,
}

impl IncidentAuditOutcome {
    /// Adds the outcome `other` of another partition to `self`.
    pub fn merge(&mut self, other: IncidentAuditOutcome) {
        self.compared += other.compared;
        self.difference_count += other.difference_count;
        let room = DESCRIBED_MAX.saturating_sub(self.differences.len());
        self.differences
            .extend(other.differences.into_iter().take(room));
    }

    fn add(&mut self, name: IncidentName, what: &'static str) {
        self.difference_count += 1;
        if self.differences.len() < DESCRIBED_MAX {
            self.differences.push(IncidentDifference { name, what });
        }
    }
}

/// The row of an incident, and the result of comparing it with the second fold so far.
struct IncidentRow {
    incident: Incident,
    /// True if the second fold produced the incident with the same fence and the same fields as the row.
    is_equal: bool,
    /// True if the second fold produced the incident with the same fence as the row.
    is_met: bool,
}

/// A comparison of the incidents of one partition.
pub struct IncidentAudit {
    fold: Fold,
    base: Base,
    claim: Offset,
    rows: BTreeMap<IncidentName, IncidentRow>,
    /// The incidents whose row lacks a change by a record below the claim.
    behind: BTreeSet<IncidentName>,
    /// The incidents that have no row although a record below the claim changed them.
    missing: BTreeSet<IncidentName>,
    changes: Vec<Change>,
}

impl IncidentAudit {
    /// Returns true if a comparison that begins at `base` needs the row of the incident.
    pub fn needs(base: &Base, incident: &Incident) -> bool {
        base.next <= incident.opened || is_open_at(base, incident)
    }

    /// Returns a new comparison. `rows` must contain every change by a record below the offset `claim`.
    pub fn new(
        source: IncidentSource,
        rules: &[Rule],
        base: Base,
        claim: Offset,
        rows: impl IntoIterator<Item = Incident>,
    ) -> IncidentAudit {
        let rows: Vec<Incident> = rows
            .into_iter()
            .filter(|row| IncidentAudit::needs(&base, row))
            .collect();
        let open = rows.iter().filter(|row| is_open_at(&base, row)).cloned();
        let open: Vec<Incident> = open.collect();
        let checkpoint = Checkpoint {
            start: base.start,
            next: base.next,
            open: open.iter().map(name_of).collect(),
        };
        let row = |incident: Incident| {
            let row = IncidentRow {
                is_equal: false,
                is_met: incident.opened < base.next,
                incident,
            };
            (name_of(&row.incident), row)
        };
        IncidentAudit {
            fold: Fold::new(source, rules, &checkpoint, &open),
            base,
            claim,
            rows: rows.into_iter().map(row).collect(),
            behind: BTreeSet::new(),
            missing: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// Processes the next record of the log. `body` is `None` for a rejected record. The function ignores records
    /// before the base.
    pub fn take(&mut self, offset: Offset, record_ms: Option<UnixMs>, body: Option<&Body>) {
        let mut changes = std::mem::take(&mut self.changes);
        self.fold.take(offset, record_ms, body, &mut changes);
        for change in changes.drain(..) {
            self.compare(&change.incident);
        }
        self.changes = changes;
    }

    fn compare(&mut self, incident: &Incident) {
        let name = name_of(incident);
        let is_claimed = incident.last_change() < self.claim;
        match self.rows.get_mut(&name) {
            Some(row) if row.incident.next == incident.next => {
                row.is_met = true;
                row.is_equal = row.incident == *incident;
            }
            Some(row) if row.incident.next < incident.next && is_claimed => {
                self.behind.insert(name);
            }
            None if is_claimed => {
                self.missing.insert(name);
            }
            Some(_) | None => {}
        }
    }

    /// Returns the outcome of the comparison. The caller must first pass every record of the log to `IncidentAudit::take`.
    pub fn outcome(self) -> IncidentAuditOutcome {
        let mut out = IncidentAuditOutcome::default();
        for (name, row) in self.rows {
            if row.incident.opened < self.base.next && !self.behind.contains(&name) {
                continue;
            }
            out.compared += 1;
            if self.behind.contains(&name) {
                out.add(name, "the row lacks a change that the log makes");
            } else if !row.is_met {
                out.add(name, "the log has no such incident");
            } else if !row.is_equal {
                out.add(name, "a field differs from the log");
            }
        }
        for name in self.missing {
            out.compared += 1;
            out.add(name, "the row is missing");
        }
        out
    }
}

/// Returns true if `incident` was open at the checkpoint of `base`. `incident` contains the state in the row, which may
/// be newer.
fn is_open_at(base: &Base, incident: &Incident) -> bool {
    incident.opened < base.next && (incident.is_open() || base.next <= incident.last_change())
}
