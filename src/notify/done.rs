//! What the tasks of the role report to its loop.

use std::time::Duration;

use crate::core::incident::owner::Name;
use crate::core::incident::silence::Silence;
use crate::notify::start::Started;
use crate::store::error::StoreError;
use crate::store::incidents::StoredIncident;

/// What a task of the role reports.
pub(super) enum Done {
    Started {
        partition: i32,
        assignment: u64,
        started: Started,
    },
    Written {
        partition: i32,
        assignment: u64,
        name: Name,
        result: Result<StoredIncident, StoreError>,
    },
    Published {
        partition: i32,
        assignment: u64,
        result: Result<(), StoreError>,
    },
    Attempt(Attempt),
    Silences(Result<Vec<Silence>, StoreError>),
    TopicId(Option<String>),
}

/// What became of an attempt to send a message.
pub(super) struct Attempt {
    pub(super) name: Name,
    pub(super) receiver: usize,
    /// The row as it is stored now, if it is known.
    pub(super) row: Option<StoredIncident>,
    /// If the attempt failed: why, and the pause that the receiver asks for.
    pub(super) failure: Option<(String, Option<Duration>)>,
}
