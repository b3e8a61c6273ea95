//! Defines the city event, with its fields after validation, its severity and its offset in the log.
//!
//! Events come from [`crate::parse`], so their fields obey the rules of the event format. The city is trimmed, the
//! event type and the severity are in lower case, and the time is in UTC milliseconds.

use std::fmt;

use crate::clock::UnixMs;

/// The severity of an event. Severities are ordered from low to critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The event requires no action.
    Low,
    /// The event is worth knowing about, but raises no alert.
    Medium,
    /// The event raises an alert.
    High,
    /// The event raises an alert, and is more serious than an event of high severity.
    Critical,
}

impl Severity {
    /// All severities from low to critical, indexed by [`Severity::index`].
    pub const ALL: [Severity; 4] = [
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ];

    /// Returns the severity with the lower-case name `name`, or `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Returns the name of the severity, as it appears in records, tables and API responses.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// Returns the index of the severity in [`Severity::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Severity::Low => 0,
            Severity::Medium => 1,
            Severity::High => 2,
            Severity::Critical => 3,
        }
    }

    /// Returns true if events of this severity raise alerts.
    pub const fn is_alert(self) -> bool {
        matches!(self, Severity::High | Severity::Critical)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A valid city event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The trimmed city: 1 to 64 characters, none of which is `#` or a control character.
    pub city: Box<str>,
    /// The event type in lower case, which matches `[a-z][a-z0-9_-]{0,63}`.
    pub event_type: Box<str>,
    /// The severity of the event.
    pub severity: Severity,
    /// The event time, in the years 1970 to 9998 UTC.
    pub time_ms: UnixMs,
    /// The description, with at most 4,096 bytes, or an empty string if the record has no description.
    pub description: Box<str>,
    /// The id that the producer gave the event, with 1 to 128 characters, or `None` if there is no id.
    pub event_id: Option<Box<str>>,
    /// All unknown fields of the record in one JSON object, with their values unchanged.
    pub extra: Option<Box<str>>,
}

/// The position of a record in a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// Returns the offset that follows this offset.
    ///
    /// All other code calls this function instead of adding 1 to an offset.
    #[must_use]
    pub const fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
