//! The kind of records that the screen shows.

/// The kind of records that the screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// The screen shows events, in rows by city and event type.
    Events,
    /// The screen shows dead letters, in rows by reject reason.
    DeadLetters,
}

impl RecordKind {
    /// Returns the name that the screen shows for this kind of records.
    pub(super) const fn name(self) -> &'static str {
        match self {
            RecordKind::Events => "events",
            RecordKind::DeadLetters => "rejected records",
        }
    }
}
