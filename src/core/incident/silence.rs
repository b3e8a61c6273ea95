//! Silences: no messages about certain incidents for a while.

use super::Incident;
use crate::clock::UnixMs;

/// A silence. An absent name covers every value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The id, which is unique among the silences of the tables.
    pub id: Box<str>,
    /// The name of the rule.
    pub rule: Option<Box<str>>,
    /// The city.
    pub city: Option<Box<str>>,
    /// The event type.
    pub event_type: Option<Box<str>>,
    /// When the silence begins.
    pub from_ms: UnixMs,
    /// When the silence ends.
    pub until_ms: UnixMs,
    /// The reason for the silence, as a person wrote it.
    pub why: Box<str>,
}

impl Silence {
    /// Returns true if the silence covers an incident at an instant.
    ///
    /// A silence of a city covers only incidents whose rule groups by city. The same holds for the type.
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
