//! The results that background tasks send to the main loop of `notify`.

use std::time::Duration;

use crate::core::incident::owner::IncidentName;
use crate::core::incident::silence::Silence;
use crate::notify::start::Started;
use crate::store::error::StoreError;
use crate::store::incidents::StoredIncident;

/// The result of a background task that the main loop of `notify` has started.
pub(super) enum TaskResult {
    Started {
        partition: i32,
        assignment: u64,
        /// The state from which the partition continues, or the reason why the state is unknown.
        started: Result<Started, String>,
    },
    Written {
        partition: i32,
        assignment: u64,
        name: IncidentName,
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

/// The result of an attempt to send a message.
pub(super) struct Attempt {
    pub(super) name: IncidentName,
    pub(super) receiver: usize,
    /// The stored row after the attempt, or `None` if the row is unknown.
    pub(super) row: Option<StoredIncident>,
    /// If the attempt failed: the reason, and the pause that the receiver requested.
    pub(super) failure: Option<(String, Option<Duration>)>,
}
