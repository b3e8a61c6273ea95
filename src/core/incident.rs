//! Incidents: what the rules of `notify` find in the log.
//!
//! An incident begins at a record that a rule calls for, gathers the records that belong to it, and ends when the
//! watermark says that none will follow. Rules, log and start offset alone decide every incident. Its name is the place
//! of the record that began it, so two readers of one log never give one incident two names.
//!
//! - [`rule`]: what a rule looks for
//! - [`fold`]: the records of one partition become incidents
//! - [`owner`]: which rows to write, and when a checkpoint may be published
//! - [`outbox`]: which messages about an incident a receiver still lacks
//! - [`silence`]: no messages about certain incidents for a while
//! - [`message`]: the content of a message to a receiver
//! - [`follow`]: which incidents have changed between two reads of their table
//! - [`audit`]: the rows compared with a second fold of the log

pub mod audit;
mod change;
pub mod fold;
pub mod follow;
pub mod message;
pub mod outbox;
pub mod owner;
pub mod rule;
pub mod silence;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use crate::clock::UnixMs;
use crate::event::{Event, Offset, Severity};

/// Maximum number of events that an incident keeps as examples: the first ones.
pub const SAMPLES_MAX: usize = 5;
/// Maximum number of characters of a description in a sample.
pub const SAMPLE_CHARS_MAX: usize = 200;

/// The names that the events of an incident have in common. A name by which the rule does not group is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The city of all events.
    pub city: Option<Arc<str>>,
    /// The type of all events.
    pub event_type: Option<Arc<str>>,
}

/// Whether an incident may still gather events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The incident may gather events.
    Open,
    /// The incident has ended.
    Resolved {
        /// The timestamp of the record at which the incident ended.
        at_ms: UnixMs,
    },
}

/// An event of an incident, with the fields that help a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The event's own id, or the default id of topic, partition and offset.
    pub event_id: Box<str>,
    /// The city.
    pub city: Box<str>,
    /// The event type.
    pub event_type: Box<str>,
    /// The severity.
    pub severity: Severity,
    /// The event time.
    pub time_ms: UnixMs,
    /// The description, cut to [`SAMPLE_CHARS_MAX`] characters.
    pub description: Box<str>,
}

impl Sample {
    /// Returns the sample of an event with this id.
    pub fn new(event: &Event, event_id: String) -> Sample {
        let description: String = event.description.chars().take(SAMPLE_CHARS_MAX).collect();
        Sample {
            event_id: event_id.into(),
            city: event.city.clone(),
            event_type: event.event_type.clone(),
            severity: event.severity,
            time_ms: event.time_ms,
            description: description.into(),
        }
    }
}

/// An incident as it stands after some record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The name of the rule.
    pub rule: Arc<str>,
    /// The name of the incident, which is unique within the rule: see [`incident_id`].
    pub id: Arc<str>,
    /// The names that the events have in common.
    pub group: Group,
    /// Whether the incident has ended.
    pub state: State,
    /// The highest severity among the events. The incidents of a silence have none.
    pub severity: Option<Severity>,
    /// The number of events that belong to the incident. The incidents of a silence have 0.
    pub event_count: u64,
    /// The earliest event time. For a silence: the time of the last event before it.
    pub first_event_ms: UnixMs,
    /// The latest event time. For a silence: the time of the last event before it.
    pub last_event_ms: UnixMs,
    /// The timestamp of the record that opened the incident, or the event time if that record has no timestamp.
    pub opened_at_ms: UnixMs,
    /// The first events, at most [`SAMPLES_MAX`].
    pub samples: Vec<Arc<Sample>>,
    /// The watermark at which the incident ends if no event follows. A silence ends with an event instead.
    pub quiet_at_ms: Option<UnixMs>,
    /// The offset of the record that opened the incident.
    pub opened: Offset,
    /// The offset after the last record that changed the incident. It is the fence of the incident's row.
    pub next: Offset,
}

/// Returns the id of the incident that began at a record: `<topic id>#<partition>#<offset>`, with 15 digits for the
/// offset. The ids of one partition are therefore in the order of the log.
///
/// For a silence, it is the record of the last event before the silence. Every other incident begins at the record that
/// opened it.
pub fn incident_id(topic_id: &str, partition: i32, offset: Offset) -> String {
    format!("{topic_id}#{partition}#{:015}", offset.0)
}

impl State {
    /// Returns the name that is used in items and answers.
    pub const fn name(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Resolved { .. } => "resolved",
        }
    }
}

impl Incident {
    /// Returns true if the incident may still gather events.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns the offset of the last record that changed the incident.
    pub fn last_change(&self) -> Offset {
        Offset(self.next.0 - 1)
    }

    /// Returns an incident of `rule` without events.
    fn begin(rule: &rule::Rule, group: &Group) -> Incident {
        Incident {
            rule: Arc::clone(&rule.name),
            id: "".into(),
            group: group.clone(),
            state: State::Open,
            severity: None,
            event_count: 0,
            first_event_ms: UnixMs(0),
            last_event_ms: UnixMs(0),
            opened_at_ms: UnixMs(0),
            samples: Vec::new(),
            quiet_at_ms: None,
            opened: Offset(0),
            next: Offset(0),
        }
    }

    fn add(&mut self, event: &Event, event_id: impl FnOnce() -> String) {
        self.event_count += 1;
        self.first_event_ms = self.first_event_ms.min(event.time_ms);
        self.last_event_ms = self.last_event_ms.max(event.time_ms);
        self.severity = self.severity.max(Some(event.severity));
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(Arc::new(Sample::new(event, event_id())));
        }
    }
}
