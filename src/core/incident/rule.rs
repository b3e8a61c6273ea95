//! Defines the rules that decide which events form an incident, and when the incident ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Group;
use crate::event::{Event, Severity};
use crate::keys::hash;
use crate::window::Rules;

/// Maximum number of rules that a configuration of `notify` may have.
pub const RULES_MAX: usize = 100;
/// Default value of [`Rule::open_max`], the maximum number of open incidents of a rule in one partition.
pub const OPEN_MAX: u32 = 1_000;

/// Selects the events to which a rule applies. A list that is `None` admits every value.
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

/// The condition on which a rule opens an incident, and on which the incident ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An incident begins with the first event that the filter admits.
    Event {
        /// The quiet period, in milliseconds. The incident ends once the watermark is `quiet_ms` past the incident's
        /// last event.
        quiet_ms: i64,
    },
    /// An incident begins when a window reaches `count` events.
    Count {
        /// The number of events that a window needs to open an incident.
        count: u64,
        /// Length of a window, in milliseconds.
        window_ms: i64,
        /// The quiet period, in milliseconds. The incident ends once the watermark is `quiet_ms` past the last event in
        /// a window with at least `count` events.
        quiet_ms: i64,
    },
    /// An incident begins when the watermark is `silence_ms` past the last event of a group. The incident ends at the
    /// next event of the same group.
    Silence {
        /// The length of the silence, in milliseconds.
        silence_ms: i64,
    },
}

/// A rule by which the `notify` command finds incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name of the rule, which is part of the name of each incident.
    pub name: Arc<str>,
    /// The filter that selects the events to which the rule applies.
    pub filter: Filter,
    /// True if events of different cities belong to different incidents.
    pub by_city: bool,
    /// True if events of different types belong to different incidents.
    pub by_event_type: bool,
    /// The condition that opens and ends incidents.
    pub condition: Condition,
    /// Maximum number of open incidents of the rule in one partition. A rule that already has the maximum number of
    /// open incidents does not open further incidents.
    pub open_max: u32,
}

/// Returns a fingerprint of `rules` and `times`, which is different after a change of any rule.
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
