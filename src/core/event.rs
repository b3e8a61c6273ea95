//! What a city event is: its fields after validation, its severity and its identity.
//!
//! An [`Event`] exists only as the result of [`crate::parse`], so its fields already obey the
//! contract: the city is trimmed, type and severity are lower case, the time is UTC milliseconds.

use std::fmt;

/// How bad an event is, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing to do.
    Low,
    /// Worth knowing.
    Medium,
    /// Raises an alert.
    High,
    /// Raises an alert.
    Critical,
}

impl Severity {
    /// All severities in rising order; the index is [`Severity::index`].
    pub const ALL: [Severity; 4] = [
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ];

    /// Returns the severity of an already lower-cased name.
    pub fn from_name(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Returns the name used on every wire.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// Returns the place in [`Severity::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Severity::Low => 0,
            Severity::Medium => 1,
            Severity::High => 2,
            Severity::Critical => 3,
        }
    }

    /// Tells whether an event of this severity raises an alert.
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
    /// Trimmed; 1–64 characters without control characters or `#`.
    pub city: Box<str>,
    /// Lower case; `[a-z][a-z0-9_-]{0,63}`.
    pub event_type: Box<str>,
    /// How bad it is.
    pub severity: Severity,
    /// Event time in Unix milliseconds, within 1970–9998 UTC.
    pub time_ms: i64,
    /// At most 4,096 bytes; empty if the record has none.
    pub description: Box<str>,
    /// The producer's own identity for it, 1–128 characters.
    pub event_id: Option<Box<str>>,
    /// All other fields of the record as one JSON object, values as they stood.
    pub extra: Option<Box<str>>,
}

/// The position of a record in a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// Returns the offset to read next once the record here has been taken.
    ///
    /// The one place of the program where one is added to an offset.
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
