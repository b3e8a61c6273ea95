//! Changes of incidents, and the log in which they happen.

use std::sync::Arc;

use super::{Incident, incident_id};
use crate::event::Offset;
use crate::watermark::MaxTime;
use crate::window::Rules;

/// The log that a fold reads.
#[derive(Clone, Debug)]
pub struct Source {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Kafka's id of the topic.
    pub topic_id: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The lateness and the skew that `consume` uses, too.
    pub times: Rules,
}

impl Source {
    pub(super) fn incident_id(&self, offset: Offset) -> Arc<str> {
        incident_id(&self.topic_id, self.partition, offset).into()
    }
}

/// Where a fold begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first offset to read.
    pub next: Offset,
    /// The largest event time below `next`.
    pub max: MaxTime,
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was opened.
    Opened,
    /// It has one more event.
    Updated,
    /// It has ended.
    Resolved,
}

/// A change of an incident, with the incident as it stands afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The index of the rule.
    pub rule: usize,
    /// What happened.
    pub what: What,
    /// The incident afterwards.
    pub incident: Arc<Incident>,
}
