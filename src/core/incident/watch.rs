//! Defines the state that the fold of a partition keeps for one rule and its groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{Change, IncidentSource, RuleStart, What};
use super::rule::{Condition, Rule};
use super::{Group, Incident, IncidentPhase};
use crate::clock::UnixMs;
use crate::event::{Event, Offset};
use crate::keys;

/// The events of one window of a count rule.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The position of the window's first event. A new fold must read the log from this position to count the window
    /// again.
    pub(super) first: RuleStart,
    pub(super) event_count: u64,
    pub(super) first_event_ms: UnixMs,
    pub(super) last_event_ms: UnixMs,
}

/// The latest event of a group under a silence rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenEvent {
    /// The position at which the event can be read again.
    pub(super) at: RuleStart,
    pub(super) time_ms: UnixMs,
}

/// The state that a fold keeps for one group of one rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    pub(super) open: Option<Arc<Incident>>,
    /// The offset below which the stored row of the group's incident contains all changes, or `None` if the fold has
    /// loaded no row.
    pub(super) stored: Option<Offset>,
    pub(super) windows: BTreeMap<UnixMs, Window>,
    pub(super) seen: Option<SeenEvent>,
    /// The time of the group's entry in `Fold::due`. This time is never later than the group's deadline
    /// ([`Followed::deadline`]).
    pub(super) due_ms: Option<UnixMs>,
}

impl Followed {
    pub(super) fn is_stored(&self, offset: Offset) -> bool {
        self.stored.is_some_and(|stored| offset < stored)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.windows.is_empty() && self.seen.is_none()
    }

    /// Returns the watermark at which the state of the group changes if the group gets no further event.
    pub(super) fn deadline(&self, condition: Condition) -> Option<UnixMs> {
        let quiet_ms = self.open.as_ref().and_then(|open| open.quiet_at_ms);
        let window_end = |window_ms| Some(*self.windows.keys().next()? + window_ms);
        let other_ms = match condition {
            Condition::Event { .. } => None,
            Condition::Count { window_ms, .. } => window_end(window_ms),
            Condition::Silence { silence_ms } => self
                .seen
                .map(|seen| seen.time_ms.saturating_add(silence_ms)),
        };
        quiet_ms.into_iter().chain(other_ms).min()
    }
}

/// A rule, with the state of its groups.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) rule: Rule,
    pub(super) groups: BTreeMap<Group, Followed>,
    pub(super) open_count: usize,
    /// Incidents that were open at the checkpoint, but that are resolved in their stored rows. The fold may not yet
    /// have read the records that ended these incidents.
    pub(super) ending: Vec<Arc<Incident>>,
}

/// The record that the fold is processing.
#[derive(Clone, Copy)]
pub(super) struct EventAt {
    /// The offset of the record, and the largest event time of all earlier records.
    pub(super) start: RuleStart,
    pub(super) record_ms: Option<UnixMs>,
    pub(super) is_future: bool,
}

impl EventAt {
    pub(super) fn offset(self) -> Offset {
        self.start.next
    }
}

/// An event that meets the condition of a rule.
pub(super) struct Match<'a> {
    pub(super) at: EventAt,
    /// The event time. For a late event or a future event, the field contains the watermark instead.
    pub(super) now_ms: UnixMs,
    pub(super) event: &'a Event,
    /// The window of the event if the rule counts events, or `None` for other rules.
    pub(super) window: Option<Window>,
    pub(super) source: &'a IncidentSource,
}

impl Match<'_> {
    fn add_to(&self, incident: &mut Incident) {
        let IncidentSource {
            topic, partition, ..
        } = self.source;
        let id = || keys::event_id(self.event, topic, *partition, self.at.offset());
        incident.add(self.event, id);
        incident.next = self.at.offset().next();
    }
}

impl Watch {
    /// Adds an event to the group's open incident, or opens a new incident. Returns `false` if the rule already has its
    /// maximum number of open incidents.
    pub(super) fn take_match(
        &mut self,
        index: usize,
        group: &Group,
        found: &Match<'_>,
        changes: &mut Vec<Change>,
    ) -> bool {
        let (count, quiet_ms) = match self.rule.condition {
            Condition::Event { quiet_ms } => (1, quiet_ms),
            Condition::Count {
                count, quiet_ms, ..
            } => (count, quiet_ms),
            Condition::Silence { .. } => return true,
        };
        let quiet_at_ms = Some(found.now_ms.saturating_add(quiet_ms));
        let open = self.groups.get_mut(group).and_then(|f| f.open.as_mut());
        let Some(open) = open else {
            let time_ms = found.event.time_ms;
            let mut incident = Incident {
                id: found.source.incident_id(found.at.offset()),
                first_event_ms: time_ms,
                last_event_ms: time_ms,
                opened_at_ms: found.at.record_ms.unwrap_or(time_ms),
                quiet_at_ms,
                opened: found.at.offset(),
                ..Incident::begin(&self.rule, group)
            };
            found.add_to(&mut incident);
            if let Some(window) = &found.window {
                incident.event_count = window.event_count;
                incident.first_event_ms = window.first_event_ms;
                incident.last_event_ms = window.last_event_ms;
            }
            return self.open(index, incident, changes);
        };
        let incident = Arc::make_mut(open);
        found.add_to(incident);
        incident.quiet_at_ms = incident.quiet_at_ms.max(quiet_at_ms);
        // When another window reaches `count`, all events of this window belong to the incident.
        if let Some(window) = found.window.as_ref().filter(|w| w.event_count == count) {
            incident.event_count += count - 1;
            incident.first_event_ms = incident.first_event_ms.min(window.first_event_ms);
            incident.last_event_ms = incident.last_event_ms.max(window.last_event_ms);
        }
        changes.push(Change {
            rule: index,
            what: What::Updated,
            incident: Arc::clone(open),
        });
        true
    }

    /// Returns the number of incidents that are open at the moment at which the record at `offset` may open another
    /// incident.
    pub(super) fn open_count_at(&self, offset: Offset) -> usize {
        // One record can end one incident and open another incident. For a silence rule, the fold opens incidents first
        // and then ends incidents. For all other rules, the fold ends incidents first and then opens incidents.
        let is_silence = matches!(self.rule.condition, Condition::Silence { .. });
        let last = |incident: &Incident| incident.last_change().0 - i64::from(!is_silence);
        let ending = self.ending.iter().filter(|i| offset.0 <= last(i));
        self.open_count + ending.count()
    }

    /// Drops the windows that the watermark has passed, and ends the incident of the group if its quiet period is over.
    /// If the group is now silent, returns the last event of the group.
    pub(super) fn end_group(
        &mut self,
        index: usize,
        group: &Group,
        at: EventAt,
        watermark_ms: UnixMs,
        changes: &mut Vec<Change>,
    ) -> Option<SeenEvent> {
        let followed = self.groups.get_mut(group)?;
        followed.due_ms = None;
        if let Condition::Count { window_ms, .. } = self.rule.condition {
            followed
                .windows
                .retain(|start_ms, _| *start_ms + window_ms > watermark_ms);
        }
        let silent = match self.rule.condition {
            Condition::Silence { silence_ms } => {
                let is_silent =
                    |seen: &mut SeenEvent| seen.time_ms.saturating_add(silence_ms) <= watermark_ms;
                followed.seen.take_if(is_silent)
            }
            _ => None,
        };
        if followed.is_stored(at.offset()) {
            return None;
        }
        let is_quiet = |open: &Arc<Incident>| open.quiet_at_ms.is_some_and(|q| q <= watermark_ms);
        if followed.open.as_ref().is_some_and(is_quiet) {
            self.resolve(index, group, at, watermark_ms, changes);
        }
        silent
    }

    /// Opens a new incident. Returns `false` if the rule already has its maximum number of open incidents.
    pub(super) fn open(
        &mut self,
        index: usize,
        incident: Incident,
        changes: &mut Vec<Change>,
    ) -> bool {
        if self.open_count_at(incident.opened) >= self.rule.open_max as usize {
            return false;
        }
        self.open_count += 1;
        let incident = Arc::new(incident);
        let followed = self.groups.entry(incident.group.clone()).or_default();
        followed.open = Some(Arc::clone(&incident));
        changes.push(Change {
            rule: index,
            what: What::Opened,
            incident,
        });
        true
    }

    /// Ends the group's open incident at the current record. If the record has no timestamp, the incident ends at the
    /// time `now_ms`.
    pub(super) fn resolve(
        &mut self,
        index: usize,
        group: &Group,
        at: EventAt,
        now_ms: UnixMs,
        changes: &mut Vec<Change>,
    ) {
        let followed = self.groups.get_mut(group);
        let Some(mut incident) = followed.and_then(|followed| followed.open.take()) else {
            return;
        };
        self.open_count -= 1;
        let ended = Arc::make_mut(&mut incident);
        ended.state = IncidentPhase::Resolved {
            at_ms: at.record_ms.unwrap_or(now_ms),
        };
        ended.next = at.offset().next();
        changes.push(Change {
            rule: index,
            what: What::Resolved,
            incident,
        });
    }
}
