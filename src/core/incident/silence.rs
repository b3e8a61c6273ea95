//! Defines silences, which hold back the messages about certain incidents for a limited time.

use super::Incident;
use crate::clock::UnixMs;

/// A silence holds back the messages about the incidents that it covers. A field that is `None` covers every value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The id of the silence, which is unique among all silences in the tables.
    pub id: Box<str>,
    /// The name of the rule whose incidents the silence covers.
    pub rule: Option<Box<str>>,
    /// The city whose incidents the silence covers.
    pub city: Option<Box<str>>,
    /// The event type whose incidents the silence covers.
    pub event_type: Option<Box<str>>,
    /// The time at which the silence begins.
    pub from_ms: UnixMs,
    /// The time at which the silence ends.
    pub until_ms: UnixMs,
    /// The reason for the silence, as entered by its author.
    pub why: Box<str>,
}

impl Silence {
    /// Returns true if the silence covers the incident at the time `now_ms`.
    ///
    /// A silence of a city covers only incidents whose rule groups by city. A silence of an event type covers only
    /// incidents whose rule groups by event type.
    pub fn covers(&self, incident: &Incident, now_ms: UnixMs) -> bool {
        let is = |wanted: &Option<Box<str>>, name: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| Some(&**wanted) == name)
        };
        self.from_ms <= now_ms
            && now_ms < self.until_ms
            && is(&self.rule, Some(&incident.rule))
            && is(&self.city, incident.group.city.as_deref())
            && is(&self.event_type, incident.group.event_type.as_deref())
    }
}
