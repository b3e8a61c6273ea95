//! Rules: which events make an incident, and when it ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Group;
use crate::event::{Event, Severity};
use crate::keys::hash;
use crate::window::Rules;

/// Maximum number of rules.
pub const RULES_MAX: usize = 100;
/// Number of open incidents that a rule may have in a partition unless it says otherwise.
pub const OPEN_MAX: u32 = 1_000;

/// The events that a rule looks at. An absent list admits every value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The cities.
    pub cities: Option<BTreeSet<Box<str>>>,
    /// The event types.
    pub event_types: Option<BTreeSet<Box<str>>>,
    /// The severities.
    pub severities: Option<Vec<Severity>>,
}

impl Filter {
    /// Returns true if the filter admits the event.
    pub fn admits(&self, event: &Event) -> bool {
        let severities = self.severities.as_ref();
        let cities = self.cities.as_ref();
        let event_types = self.event_types.as_ref();
        severities.is_none_or(|all| all.contains(&event.severity))
            && cities.is_none_or(|all| all.contains(&event.city))
            && event_types.is_none_or(|all| all.contains(&event.event_type))
    }
}

/// What a rule waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An incident begins at the first event.
    Event {
        /// The incident ends once the watermark is this many milliseconds past the last event.
        quiet_ms: i64,
    },
    /// An incident begins at the record with which a window has `count` events.
    Count {
        /// The number of events.
        count: u64,
        /// Length of a window, in milliseconds.
        window_ms: i64,
        /// The incident ends once the watermark is this many milliseconds past the last event that found `count` events
        /// in its window.
        quiet_ms: i64,
    },
    /// An incident begins when the watermark is `silence_ms` past the last event of a group. It ends with the group's
    /// next event.
    Silence {
        /// The length of the silence, in milliseconds.
        silence_ms: i64,
    },
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, which is part of the name of each incident.
    pub name: Arc<str>,
    /// The events that the rule looks at.
    pub filter: Filter,
    /// True if events of different cities belong to different incidents.
    pub by_city: bool,
    /// True if events of different types belong to different incidents.
    pub by_event_type: bool,
    /// What the rule waits for.
    pub condition: Condition,
    /// Maximum number of incidents that are open in one partition. No further incident is opened.
    pub open_max: u32,
}

/// Returns a short text that changes if the rules or the rules of event time change.
pub fn fingerprint(rules: &[Rule], times: &Rules) -> String {
    format!("{:08x}", hash(&format!("{rules:?} {times:?}")))
}

impl Rule {
    /// Returns the group of an event.
    pub fn group(&self, event: &Event) -> Group {
        Group {
            city: self.by_city.then(|| Arc::from(&*event.city)),
            event_type: self.by_event_type.then(|| Arc::from(&*event.event_type)),
        }
    }
}
