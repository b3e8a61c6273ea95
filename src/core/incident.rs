//! Finds incidents in a log, according to the rules of the `notify` command.
//!
//! An incident begins when the condition of a rule is met, and then contains the events that match the rule. Most
//! incidents end after a quiet period. The incident of a silence rule ends at the next event of its group. A *fold* is
//! the computation of all incidents from the records of a partition, in log order. The incidents depend only on the
//! rules, the log and the start offset. The id of an incident comes from the position of a record in the log, so every
//! fold of the same log gives an incident the same id.
//!
//! - [`rule`]: the rules and their conditions
//! - [`fold`]: turns the records of one partition into incidents
//! - [`owner`]: decides which rows to write, and when a checkpoint may be published
//! - [`outbox`]: decides which messages about an incident a receiver still needs
//! - [`silence`]: stops the messages about certain incidents for a limited time
//! - [`message`]: builds the content of a message to a receiver
//! - [`follow`]: finds the incidents that changed between two reads of their table
//! - [`audit`]: compares the rows of incidents with a second fold of the log

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

/// Maximum number of sample events of an incident. The samples are the first events of the incident.
pub const SAMPLES_MAX: usize = 5;
/// Maximum length of the description in a sample, in characters.
pub const SAMPLE_CHARS_MAX: usize = 200;

/// The city and the event type that all events of an incident have in common. A field is `None` if the rule does not
/// group events by this field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The city of all events of the incident, if the rule groups by city.
    pub city: Option<Arc<str>>,
    /// The event type of all events of the incident, if the rule groups by event type.
    pub event_type: Option<Arc<str>>,
}

/// The state of an incident: open or resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentPhase {
    /// The incident may still get events.
    Open,
    /// The incident has ended.
    Resolved {
        /// The timestamp of the record at which the incident ended.
        at_ms: UnixMs,
    },
}

/// An event that messages show as an example of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The id that the producer gave the event, or the default id, which consists of topic, partition and offset.
    pub event_id: Box<str>,
    /// The city of the event.
    pub city: Box<str>,
    /// The type of the event.
    pub event_type: Box<str>,
    /// The severity of the event.
    pub severity: Severity,
    /// The time of the event.
    pub time_ms: UnixMs,
    /// The event's description, cut to [`SAMPLE_CHARS_MAX`] characters.
    pub description: Box<str>,
}

impl Sample {
    /// Returns a sample for `event` with the id `event_id`.
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

/// The state of an incident after a certain record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The name of the rule that found the incident.
    pub rule: Arc<str>,
    /// The id of the incident, which is unique within the rule (see [`incident_id`]).
    pub id: Arc<str>,
    /// The city and the event type that all events of the incident have in common.
    pub group: Group,
    /// The state of the incident: open or resolved.
    pub state: IncidentPhase,
    /// The highest severity among the incident's events. An incident of a silence rule has no events, so its severity
    /// is `None`.
    pub severity: Option<Severity>,
    /// The number of events that belong to the incident. An incident of a silence rule has 0 events.
    pub event_count: u64,
    /// The earliest event time of the incident. For a silence rule, this is the time of the last event before the
    /// silence.
    pub first_event_ms: UnixMs,
    /// The latest event time of the incident. For a silence rule, this is the time of the last event before the
    /// silence.
    pub last_event_ms: UnixMs,
    /// The timestamp of the record that opened the incident. If the record has no timestamp, the field contains the
    /// event time, or the watermark for a silence rule.
    pub opened_at_ms: UnixMs,
    /// The first events of the incident, at most [`SAMPLES_MAX`].
    pub samples: Vec<Arc<Sample>>,
    /// The watermark at which the incident ends if it gets no further event. The field is `None` for a silence rule,
    /// whose incidents end at the next event of their group.
    pub quiet_at_ms: Option<UnixMs>,
    /// The offset of the record that opened the incident.
    pub opened: Offset,
    /// The offset after the last record that changed the incident. This offset is also the fence of the incident's row.
    pub next: Offset,
}

/// Returns the id of an incident, which has the form `<topic id>#<partition>#<offset>`. The offset has 15 digits, so
/// the ids of one partition sort in log order.
///
/// For a silence rule, `offset` is the offset of the last event before the silence. For any other rule, `offset` is the
/// offset of the record that opened the incident.
pub fn incident_id(topic_id: &str, partition: i32, offset: Offset) -> String {
    format!("{topic_id}#{partition}#{:015}", offset.0)
}

impl IncidentPhase {
    /// Returns the name of the state, as it appears in items and API responses.
    pub const fn name(self) -> &'static str {
        match self {
            IncidentPhase::Open => "open",
            IncidentPhase::Resolved { .. } => "resolved",
        }
    }
}

impl Incident {
    /// Returns true if the incident may still get events.
    pub fn is_open(&self) -> bool {
        self.state == IncidentPhase::Open
    }

    /// Returns the offset of the last record that changed the incident.
    pub fn last_change(&self) -> Offset {
        Offset(self.next.0 - 1)
    }

    /// Returns a new incident of the rule `rule` without events.
    fn begin(rule: &rule::Rule, group: &Group) -> Incident {
        Incident {
            rule: Arc::clone(&rule.name),
            id: "".into(),
            group: group.clone(),
            state: IncidentPhase::Open,
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
