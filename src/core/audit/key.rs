//! Defines the keys of rows and their order in the comparison: by city, then by time, then by the kind of row.
//!
//! This file builds the keys of rows with its own code, and shares no code with the consumer.

use std::fmt;

use crate::clock::UnixMs;
use crate::time::{format_millis, format_seconds};

/// The time in the keys of totals rows. This time sorts totals rows before all other rows of the same city.
pub const TOTALS_TIME_MS: UnixMs = UnixMs::MIN;

/// The place of a row, which consists of a city and a time. The comparison sorts rows by place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowPlace {
    /// The city followed by `#`, so that cities sort in the same order as their series.
    city: Box<str>,
    /// The event time of a raw event or alert, the start of a window, hour or day, or [`TOTALS_TIME_MS`] for a totals
    /// row.
    pub time_ms: UnixMs,
}

impl RowPlace {
    /// Returns the place that consists of `city` and `time_ms`.
    pub fn new(city: &str, time_ms: UnixMs) -> RowPlace {
        RowPlace {
            city: format!("{city}#").into(),
            time_ms,
        }
    }

    /// Returns the city of the place.
    pub fn city(&self) -> &str {
        self.city.strip_suffix('#').unwrap_or(&self.city)
    }
}

/// The kind of a row, with the event type or the event id of the row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditName {
    /// A totals row, which counts the events of the given event type over all time.
    Totals(Box<str>),
    /// A window row, which counts the events of the given event type in one window.
    Window(Box<str>),
    /// The raw event with this id.
    Raw(Box<str>),
    /// The alert with this event id.
    Alert(Box<str>),
    /// An hour row, which counts the events of the given event type in one hour.
    Hour(Box<str>),
    /// A day row, which counts the events of the given event type in one day.
    Day(Box<str>),
}

/// The key of one row of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The city and the time of the row.
    pub place: RowPlace,
    /// The kind of the row, and its event type or event id.
    pub name: AuditName,
}

impl Key {
    /// Returns the key of the totals row of a series.
    pub fn totals(city: &str, event_type: &str) -> Key {
        Key {
            place: RowPlace::new(city, TOTALS_TIME_MS),
            name: AuditName::Totals(event_type.into()),
        }
    }

    /// Returns the key of a window row.
    pub fn window(city: &str, event_type: &str, start_ms: UnixMs) -> Key {
        Key {
            place: RowPlace::new(city, start_ms),
            name: AuditName::Window(event_type.into()),
        }
    }

    /// Returns the key of a raw event.
    pub fn raw(city: &str, time_ms: UnixMs, event_id: &str) -> Key {
        Key {
            place: RowPlace::new(city, time_ms),
            name: AuditName::Raw(event_id.into()),
        }
    }

    /// Returns the key of an alert.
    pub fn alert(city: &str, time_ms: UnixMs, event_id: &str) -> Key {
        Key {
            place: RowPlace::new(city, time_ms),
            name: AuditName::Alert(event_id.into()),
        }
    }

    /// Returns the series (`city#event_type`) of a row of counts, or `None` for other rows.
    pub fn series(&self) -> Option<String> {
        match &self.name {
            AuditName::Totals(kind) | AuditName::Window(kind) => {
                Some(format!("{}{kind}", self.place.city))
            }
            AuditName::Raw(_) | AuditName::Alert(_) | AuditName::Hour(_) | AuditName::Day(_) => {
                None
            }
        }
    }

    /// Returns the name of the kind of row, which is `totals`, `window`, `raw event`, `alert`, `hour` or `day`.
    pub const fn kind(&self) -> &'static str {
        match self.name {
            AuditName::Totals(_) => "totals",
            AuditName::Window(_) => "window",
            AuditName::Raw(_) => "raw event",
            AuditName::Alert(_) => "alert",
            AuditName::Hour(_) => "hour",
            AuditName::Day(_) => "day",
        }
    }

    /// Returns the text of the row's key in the table.
    pub fn in_table(&self) -> String {
        let (city, time_ms) = (&self.place.city, self.place.time_ms);
        match &self.name {
            AuditName::Totals(kind) => format!("{city}{kind}"),
            AuditName::Window(kind) => format!("{city}{kind}#{}", format_seconds(time_ms)),
            AuditName::Raw(id) => format!("{id} {}", format_millis(time_ms)),
            AuditName::Alert(id) => {
                format!("{} {}#{id}", self.place.city(), format_millis(time_ms))
            }
            AuditName::Hour(kind) => format!(
                "hour#{}#{kind} {}",
                self.in_shard(),
                format_seconds(time_ms)
            ),
            AuditName::Day(kind) => {
                format!("day#{}#{kind} {}", self.in_shard(), format_seconds(time_ms))
            }
        }
    }

    /// Returns the city in the form that the keys of hour rows and day rows contain. All cities together have the form
    /// `*`. A city name that consists only of asterisks gets one more asterisk, so that it differs from `*`.
    fn in_shard(&self) -> String {
        let city = self.place.city();
        let more = if city.trim_start_matches('*').is_empty() {
            "*"
        } else {
            ""
        };
        format!("{city}{more}")
    }

    /// Returns the total length of the strings in the key, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let name = match &self.name {
            AuditName::Totals(text)
            | AuditName::Window(text)
            | AuditName::Raw(text)
            | AuditName::Alert(text)
            | AuditName::Hour(text)
            | AuditName::Day(text) => text,
        };
        self.place.city.len() + name.len()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.in_table())
    }
}
