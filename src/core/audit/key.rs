//! Which row is meant, in the audit's own order: by city, then by time, then by what it is.
//!
//! Its keys as the tables have them are made here once more, apart from those that the write path
//! makes.

use std::fmt;

use crate::time::{format_millis, format_seconds};

/// Event time of a series' totals: before every window and event of its city.
pub const TOTALS_TIME_MS: i64 = i64::MIN;

/// A city and a time in it; rows are compared in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The city with a `#` behind it: then cities stand in the order of their series.
    city: Box<str>,
    /// Event time, window start, or [`TOTALS_TIME_MS`].
    pub time_ms: i64,
}

impl Place {
    /// Returns the place of `time_ms` in `city`.
    pub fn new(city: &str, time_ms: i64) -> Place {
        Place {
            city: format!("{city}#").into(),
            time_ms,
        }
    }

    /// Returns the city.
    pub fn city(&self) -> &str {
        self.city.strip_suffix('#').unwrap_or(&self.city)
    }
}

/// What a row is, within its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The totals of this event type.
    Totals(Box<str>),
    /// The window of this event type.
    Window(Box<str>),
    /// The raw event of this id.
    Raw(Box<str>),
    /// The alert of this event id.
    Alert(Box<str>),
}

/// One row of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// City and time.
    pub place: Place,
    /// What it is.
    pub name: Name,
}

impl Key {
    /// Returns the key of a series' totals.
    pub fn totals(city: &str, event_type: &str) -> Key {
        Key {
            place: Place::new(city, TOTALS_TIME_MS),
            name: Name::Totals(event_type.into()),
        }
    }

    /// Returns the key of a window.
    pub fn window(city: &str, event_type: &str, start_ms: i64) -> Key {
        Key {
            place: Place::new(city, start_ms),
            name: Name::Window(event_type.into()),
        }
    }

    /// Returns the key of a raw event.
    pub fn raw(city: &str, time_ms: i64, event_id: &str) -> Key {
        Key {
            place: Place::new(city, time_ms),
            name: Name::Raw(event_id.into()),
        }
    }

    /// Returns the key of an alert.
    pub fn alert(city: &str, time_ms: i64, event_id: &str) -> Key {
        Key {
            place: Place::new(city, time_ms),
            name: Name::Alert(event_id.into()),
        }
    }

    /// Returns `city#event_type` of a row of counts; `None` for the others.
    pub fn series(&self) -> Option<String> {
        match &self.name {
            Name::Totals(kind) | Name::Window(kind) => Some(format!("{}{kind}", self.place.city)),
            Name::Raw(_) | Name::Alert(_) => None,
        }
    }

    /// Returns the name of the kind of row: `totals`, `window`, `raw event` or `alert`.
    pub const fn kind(&self) -> &'static str {
        match self.name {
            Name::Totals(_) => "totals",
            Name::Window(_) => "window",
            Name::Raw(_) => "raw event",
            Name::Alert(_) => "alert",
        }
    }

    /// Returns the row's key as it stands in its table.
    pub fn in_table(&self) -> String {
        let (city, time_ms) = (&self.place.city, self.place.time_ms);
        match &self.name {
            Name::Totals(kind) => format!("{city}{kind}"),
            Name::Window(kind) => format!("{city}{kind}#{}", format_seconds(time_ms)),
            Name::Raw(id) => format!("{id} {}", format_millis(time_ms)),
            Name::Alert(id) => {
                format!("{} {}#{id}", self.place.city(), format_millis(time_ms))
            }
        }
    }

    /// Returns how many bytes its texts take.
    pub(super) fn bytes(&self) -> usize {
        let name = match &self.name {
            Name::Totals(text) | Name::Window(text) | Name::Raw(text) | Name::Alert(text) => text,
        };
        self.place.city.len() + name.len()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.in_table())
    }
}
