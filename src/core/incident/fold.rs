//! Folds the records of one partition into incidents.
//!
//! The incidents depend only on the rules, the log and the first offset. A new fold can continue at a [`Checkpoint`] of
//! an earlier fold. The new fold loads the open incidents from their rows. Each row contains the offset below which the
//! row includes all changes. Rows contain neither the counts of open windows nor the last event of each group. The new
//! fold restores these counts and events by reading some records before the checkpoint again. These records change no
//! incident.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::rule::{Condition, Rule};
use super::watch::{EventAt, Match, SeenEvent, Watch, Window};
use super::{Group, Incident};
use crate::clock::UnixMs;
use crate::event::{Event, Offset};
use crate::parse::Body;
use crate::watermark::MaxTime;
use crate::window::Rules;

pub use super::change::{Change, IncidentSource, RuleStart, What};

/// Maximum number of groups of one rule in one partition. After a rule has reached the maximum, the fold ignores events
/// of new groups, and counts these events in [`LeftOut`].
pub const GROUPS_MAX: usize = 100_000;

/// A position in the log, with the data that another fold needs to continue there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The position at which the fold begins to read. The records from `start` up to `next` change no incident.
    pub start: RuleStart,
    /// The first offset whose record may change an incident.
    pub next: Offset,
    /// The rule and the id of each incident that was open at the offset `next`.
    pub open: Vec<(Arc<str>, Arc<str>)>,
}

impl Checkpoint {
    /// Returns the checkpoint of a fold that has not read any records.
    pub fn begin(next: Offset) -> Checkpoint {
        Checkpoint {
            start: RuleStart {
                next,
                max: MaxTime::default(),
            },
            next,
            open: Vec::new(),
        }
    }
}

/// The numbers of incidents and events that a fold has ignored because of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of incidents that the fold did not open because their rule had its maximum number of open incidents.
    pub incidents: u64,
    /// Number of events that the fold ignored because their rule already had [`GROUPS_MAX`] other groups.
    pub events: u64,
}

/// The fold of one partition, which turns records into incidents.
#[derive(Clone, Debug)]
pub struct Fold {
    source: IncidentSource,
    watches: Vec<Watch>,
    next: Offset,
    max: MaxTime,
    /// The deadlines of the groups, in event time. The fold checks a group when the watermark reaches the group's
    /// deadline.
    due: BTreeSet<(UnixMs, usize, Group)>,
    /// The first offset whose record may change an incident.
    warm_until: Offset,
    left_out: LeftOut,
}

impl Fold {
    /// Returns a fold that continues at a checkpoint.
    ///
    /// `stored` contains the rows of the incidents in the checkpoint. The rows may be newer than the checkpoint. The
    /// fold ignores incidents of rules that are not among `rules`.
    pub fn new(
        source: IncidentSource,
        rules: &[Rule],
        checkpoint: &Checkpoint,
        stored: &[Incident],
    ) -> Fold {
        let start = checkpoint.start;
        let watches = rules.iter().map(|rule| Watch {
            rule: rule.clone(),
            groups: BTreeMap::new(),
            open_count: 0,
            ending: Vec::new(),
        });
        let mut fold = Fold {
            source,
            watches: watches.collect(),
            next: start.next,
            max: start.max,
            due: BTreeSet::new(),
            warm_until: checkpoint.next,
            left_out: LeftOut::default(),
        };
        for incident in stored {
            fold.take_stored(incident);
        }
        fold
    }

    /// Loads the state of an incident from its row.
    fn take_stored(&mut self, incident: &Incident) {
        let mut watches = self.watches.iter_mut().enumerate();
        let Some((at, watch)) = watches.find(|(_, watch)| watch.rule.name == incident.rule) else {
            return;
        };
        let followed = watch.groups.entry(incident.group.clone()).or_default();
        let incident = Arc::new(incident.clone());
        if incident.is_open() {
            followed.stored = Some(incident.next);
            followed.open = Some(Arc::clone(&incident));
            watch.open_count += 1;
        } else {
            // The record that ended this incident may also open the next incident of the group.
            followed.stored = Some(incident.last_change());
            watch.ending.push(Arc::clone(&incident));
        }
        self.set_due(at, &incident.group);
    }

    /// Processes the next record of the partition, and appends the resulting changes of incidents to `changes`. `body`
    /// is `None` for a rejected record.
    ///
    /// The fold ignores a record below its read position.
    pub fn take(
        &mut self,
        offset: Offset,
        record_ms: Option<UnixMs>,
        body: Option<&Body>,
        changes: &mut Vec<Change>,
    ) {
        if offset < self.next {
            return;
        }
        let at = EventAt {
            start: RuleStart {
                next: offset,
                max: self.max,
            },
            record_ms,
            is_future: body.is_some_and(|body| self.is_future(body, record_ms)),
        };
        self.next = offset.next();
        match body {
            None => {}
            Some(Body::Heartbeat(time_ms)) => self.move_watermark(at, *time_ms, changes),
            Some(Body::Event(event)) => {
                self.move_watermark(at, event.time_ms, changes);
                for index in 0..self.watches.len() {
                    self.take_event(at, index, event, changes);
                }
            }
        }
    }

    fn is_future(&self, body: &Body, record_ms: Option<UnixMs>) -> bool {
        let time_ms = match body {
            Body::Heartbeat(time_ms) => *time_ms,
            Body::Event(event) => event.time_ms,
        };
        self.source.times.is_future(time_ms, record_ms)
    }

    /// Moves the read position to `end`, past a range of offsets without records.
    pub fn skip_gap(&mut self, end: Offset) {
        self.next = self.next.max(end);
    }

    /// Returns the offset of the next record that the fold expects.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Returns the largest event time that the fold has seen so far.
    pub fn max(&self) -> MaxTime {
        self.max
    }

    /// Returns the numbers of incidents and events that the fold has ignored because of a limit.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Returns the incidents that are open.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Incident>> {
        let groups = self.watches.iter().flat_map(|watch| watch.groups.values());
        groups.filter_map(|followed| followed.open.as_ref())
    }

    /// Returns the checkpoint at the current position. The caller may publish the checkpoint once the rows contain all
    /// changes by records before the checkpoint.
    pub fn checkpoint(&self) -> Checkpoint {
        let next = self.next.max(self.warm_until);
        let ending = self.watches.iter().flat_map(|watch| &watch.ending);
        let ending = ending.filter(|incident| next <= incident.last_change());
        let name = |open: &Arc<Incident>| (Arc::clone(&open.rule), Arc::clone(&open.id));
        Checkpoint {
            start: self.restart(),
            next,
            open: self.open().chain(ending).map(name).collect(),
        }
    }

    /// Returns true while the fold rereads records before the checkpoint without changing any incident.
    fn is_warming(&self, at: EventAt) -> bool {
        at.offset() < self.warm_until
    }

    fn restart(&self) -> RuleStart {
        let groups = self.watches.iter().flat_map(|watch| watch.groups.values());
        let needed = groups.flat_map(|followed| {
            let windows = followed.windows.values().map(|window| window.first);
            windows.chain(followed.seen.map(|seen| seen.at))
        });
        let now = RuleStart {
            next: self.next,
            max: self.max,
        };
        needed
            .chain([now])
            .min_by_key(|start| start.next)
            .unwrap_or(now)
    }

    fn watermark_ms(&self) -> Option<UnixMs> {
        self.max.watermark_ms(&self.source.times)
    }

    /// Sets the next deadline of a group, or drops the group if it has no state left.
    fn set_due(&mut self, index: usize, group: &Group) {
        let watch = &mut self.watches[index];
        let Some(followed) = watch.groups.get_mut(group) else {
            return;
        };
        if followed.is_idle() && !followed.is_stored(self.next) {
            if let Some(due_ms) = followed.due_ms {
                self.due.remove(&(due_ms, index, group.clone()));
            }
            watch.groups.remove(group);
            return;
        }
        let Some(deadline_ms) = followed.deadline(watch.rule.condition) else {
            return;
        };
        // An entry that is too early causes one unnecessary check. Moving the entry at every event would cost more.
        if followed.due_ms.is_none_or(|due_ms| deadline_ms < due_ms) {
            if let Some(due_ms) = followed.due_ms.replace(deadline_ms) {
                self.due.remove(&(due_ms, index, group.clone()));
            }
            self.due.insert((deadline_ms, index, group.clone()));
        }
    }

    /// Advances the watermark with the time of an event or a heartbeat. The new watermark may end incidents, and may
    /// open incidents of silence rules.
    fn move_watermark(&mut self, at: EventAt, time_ms: UnixMs, changes: &mut Vec<Change>) {
        if at.is_future {
            return;
        }
        self.max.observe(time_ms);
        let Some(watermark_ms) = self.watermark_ms() else {
            return;
        };
        let mut due = Vec::new();
        while let Some(first) = self.due.first()
            && first.0 <= watermark_ms
        {
            due.extend(self.due.pop_first());
        }
        // The fold ends incidents in a first step, and opens incidents of silence rules in a second step. With a single
        // step, entries that are too early would affect the order of the changes.
        let mut silences = Vec::new();
        for (_, index, group) in &due {
            let watch = &mut self.watches[*index];
            let silence = watch.end_group(*index, group, at, watermark_ms, changes);
            silences.extend(silence.map(|seen| (seen.time_ms, *index, group.clone(), seen)));
        }
        // The fold opens no incident for a silence that began before the checkpoint. The earlier fold has already
        // opened this incident, or had too many open incidents.
        if self.is_warming(at) {
            silences.clear();
        }
        silences.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        for (_, index, group, seen) in silences {
            self.open_silence(at, watermark_ms, index, &group, seen, changes);
        }
        for (_, index, group) in due {
            self.set_due(index, &group);
        }
    }

    fn open_silence(
        &mut self,
        at: EventAt,
        watermark_ms: UnixMs,
        index: usize,
        group: &Group,
        seen: SeenEvent,
        changes: &mut Vec<Change>,
    ) {
        let watch = &mut self.watches[index];
        let incident = Incident {
            id: self.source.incident_id(seen.at.next),
            first_event_ms: seen.time_ms,
            last_event_ms: seen.time_ms,
            opened_at_ms: at.record_ms.unwrap_or(watermark_ms),
            opened: at.offset(),
            next: at.offset().next(),
            ..Incident::begin(&watch.rule, group)
        };
        if !watch.open(index, incident, changes) {
            self.left_out.incidents += 1;
        }
    }

    fn take_event(&mut self, at: EventAt, index: usize, event: &Event, changes: &mut Vec<Change>) {
        let is_warming = self.is_warming(at);
        let watch = &mut self.watches[index];
        if !watch.rule.filter.admits(event) {
            return;
        }
        // The window of an event in the far future would stay open, and no checkpoint could move past the event.
        let is_instant = matches!(watch.rule.condition, Condition::Event { .. });
        if at.is_future && !is_instant {
            return;
        }
        let group = watch.rule.group(event);
        if watch.groups.len() >= GROUPS_MAX && !watch.groups.contains_key(&group) {
            self.left_out.events += 1;
            return;
        }
        let followed = watch.groups.entry(group.clone()).or_default();
        match watch.rule.condition {
            Condition::Event { .. } => {
                if !is_warming && !followed.is_stored(at.offset()) {
                    self.take_match(at, index, &group, event, None, changes);
                }
            }
            Condition::Count {
                count, window_ms, ..
            } => {
                let windows = Rules {
                    window_ms,
                    ..self.source.times
                };
                if !at.start.max.is_late(event.time_ms, &windows) {
                    let start_ms = windows.window_start(event.time_ms);
                    let window = followed.windows.entry(start_ms).or_insert(Window {
                        first: at.start,
                        event_count: 0,
                        first_event_ms: event.time_ms,
                        last_event_ms: event.time_ms,
                    });
                    window.event_count += 1;
                    window.first_event_ms = window.first_event_ms.min(event.time_ms);
                    window.last_event_ms = window.last_event_ms.max(event.time_ms);
                    let window = window.clone();
                    let is_new = !is_warming && !followed.is_stored(at.offset());
                    if is_new && window.event_count >= count {
                        self.take_match(at, index, &group, event, Some(window), changes);
                    }
                }
            }
            Condition::Silence { silence_ms } => {
                self.take_sign_of_life(at, index, &group, event, silence_ms, changes);
            }
        }
        self.set_due(index, &group);
    }

    /// Adds an event to the group's open incident, or opens a new incident. For a count rule, `window` is the window of
    /// the event.
    fn take_match(
        &mut self,
        at: EventAt,
        index: usize,
        group: &Group,
        event: &Event,
        window: Option<Window>,
        changes: &mut Vec<Change>,
    ) {
        // The fold treats a late event as if it happened at the watermark, so that its incident does not end at once.
        // The fold treats a future event in the same way, so that the incident does not stay open until the future
        // event time.
        let watermark_ms = self.watermark_ms();
        let now_ms = if at.is_future {
            watermark_ms.or(at.record_ms).unwrap_or(event.time_ms)
        } else {
            watermark_ms.map_or(event.time_ms, |w| w.max(event.time_ms))
        };
        let found = Match {
            at,
            now_ms,
            event,
            window,
            source: &self.source,
        };
        if !self.watches[index].take_match(index, group, &found, changes) {
            self.left_out.incidents += 1;
        }
    }

    /// Processes an event of a group under a silence rule. The event may end the silence of the group.
    fn take_sign_of_life(
        &mut self,
        at: EventAt,
        index: usize,
        group: &Group,
        event: &Event,
        silence_ms: i64,
        changes: &mut Vec<Change>,
    ) {
        let watermark_ms = self.watermark_ms().unwrap_or(UnixMs::MIN);
        let watch = &mut self.watches[index];
        let followed = watch.groups.get_mut(group).expect("the caller made it");
        // An event that is at least `silence_ms` older than the watermark does not end a silence.
        if event.time_ms.saturating_add(silence_ms) <= watermark_ms {
            return;
        }
        if followed.open.is_some() {
            // The stored row may already contain the change that this record makes to the incident.
            if at.offset() < self.warm_until || followed.is_stored(at.offset()) {
                return;
            }
            followed.seen = None;
            watch.resolve(index, group, at, event.time_ms, changes);
        }
        let followed = watch.groups.entry(group.clone()).or_default();
        if followed
            .seen
            .is_none_or(|last| last.time_ms < event.time_ms)
        {
            followed.seen = Some(SeenEvent {
                at: at.start,
                time_ms: event.time_ms,
            });
        }
    }
}
