//! Defines the changes of incidents that a fold finds, the log that a fold reads, and the position at which it begins.

use std::sync::Arc;

use super::{Incident, incident_id};
use crate::event::Offset;
use crate::watermark::MaxTime;
use crate::window::Rules;

/// The log that a fold reads, and the rules for event times.
#[derive(Clone, Debug)]
pub struct IncidentSource {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The id that Kafka gave the topic.
    pub topic_id: Arc<str>,
    /// The number of the Kafka partition.
    pub partition: i32,
    /// The rules for lateness and skew, which are the same as in the `consume` command.
    pub times: Rules,
}

impl IncidentSource {
    pub(super) fn incident_id(&self, offset: Offset) -> Arc<str> {
        incident_id(&self.topic_id, self.partition, offset).into()
    }
}

/// The position in the log at which a fold begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleStart {
    /// The first offset that the fold reads.
    pub next: Offset,
    /// The largest event time below `next`.
    pub max: MaxTime,
}

/// The ways in which an incident can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The incident was opened.
    Opened,
    /// At least one event was added to the incident.
    Updated,
    /// The incident has ended.
    Resolved,
}

/// A change of an incident, together with the new state of the incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The index of the incident's rule.
    pub rule: usize,
    /// The kind of this change.
    pub what: What,
    /// The incident in its state after the change.
    pub incident: Arc<Incident>,
}
