//! The rules that decide which events make an incident, and when the incident ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Group;
use crate::event::{Event, Severity};
use crate::keys::hash;
use crate::window::Rules;

/// Maximum number of rules that a configuration of `notify` may have.
pub const RULES_MAX: usize = 100;
/// Default for the maximum number of open incidents that a rule may have in a partition.
pub const OPEN_MAX: u32 = 1_000;

/// Selects the events that a rule considers. A list that is `None` admits every value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The cities that the filter admits.
    pub cities: Option<BTreeSet<Box<str>>>,
    /// The event types that the filter admits.
    pub event_types: Option<BTreeSet<Box<str>>>,
    /// The severities that the filter admits.
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

/// The condition under which a rule opens an incident, and under which the incident ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An incident begins at the first event that the rule considers.
    Event {
        /// The incident ends once the watermark is this many milliseconds past the last event.
        quiet_ms: i64,
    },
    /// An incident begins at the record that brings a window to `count` events.
    Count {
        /// The number of events in a window that opens an incident.
        count: u64,
        /// Length of a window, in milliseconds.
        window_ms: i64,
        /// The incident ends once the watermark is this many milliseconds past the last event of a window with at least
        /// `count` events.
        quiet_ms: i64,
    },
    /// An incident begins when the watermark is `silence_ms` past the last event of a group. The incident ends with the
    /// group's next event.
    Silence {
        /// The length of the silence, in milliseconds.
        silence_ms: i64,
    },
}

/// A rule that finds incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name of the rule, which is part of the name of each incident.
    pub name: Arc<str>,
    /// The filter that selects the events that the rule considers.
    pub filter: Filter,
    /// True if events of different cities belong to different incidents.
    pub by_city: bool,
    /// True if events of different types belong to different incidents.
    pub by_event_type: bool,
    /// The condition that opens and ends incidents.
    pub condition: Condition,
    /// Maximum number of open incidents of the rule in one partition. At the maximum, the rule opens no further
    /// incident.
    pub open_max: u32,
}

/// Returns a short text that changes if the rules or the rules of event time change.
pub fn fingerprint(rules: &[Rule], times: &Rules) -> String {
    format!("{:08x}", hash(&format!("{rules:?} {times:?}")))
}

impl Rule {
    /// Returns the group that an event belongs to under this rule.
    pub fn group(&self, event: &Event) -> Group {
        Group {
            city: self.by_city.then(|| Arc::from(&*event.city)),
            event_type: self.by_event_type.then(|| Arc::from(&*event.event_type)),
        }
    }
}
