//! Publishes incidents that have changed.

use crate::api::error::ApiError;
use crate::api::feed::{Audience, Feed, json};
use crate::api::incidents::ListedIncident;
use crate::api::state::ApiState;
use crate::store::error::StoreErrorKind;
use crate::store::incidents::StoredIncident;
use crate::store::reads::IncidentFollower;

/// Polls the incidents table, and remembers the incidents that it has already seen.
#[derive(Default)]
pub(super) struct IncidentPoller {
    follower: IncidentFollower,
    /// True if the incidents table does not exist, or if the process is not allowed to read it. Only `notify` needs
    /// this table.
    has_no_table: bool,
    /// The number of calls of [`IncidentPoller::poll`]. To halve the cost, only every second call reads the incidents
    /// table.
    polls: u64,
}

impl IncidentPoller {
    /// Reads the incidents table and publishes the incidents that have changed. The first read publishes nothing.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer. A later poll repeats the read.
    pub(super) async fn poll(&mut self, state: &ApiState, feed: &Feed) -> Result<(), ApiError> {
        let is_pause = !self.polls.is_multiple_of(2);
        self.polls += 1;
        if self.has_no_table || is_pause {
            return Ok(());
        }
        let is_first = self.follower.is_new();
        let reading = async {
            let polled = self.follower.poll(state.reads(), state.now_ms());
            match polled.await {
                Ok(changed) => Ok(Some(changed)),
                Err(error) => match error.kind() {
                    StoreErrorKind::NotFound | StoreErrorKind::Denied => Ok(None),
                    _ => Err(error),
                },
            }
        };
        match state.within_deadline(reading).await? {
            None => self.has_no_table = true,
            Some(_) if is_first => {}
            Some(changed) => {
                for one in changed {
                    publish(feed, one, state);
                }
            }
        }
        Ok(())
    }
}

fn publish(feed: &Feed, one: StoredIncident, state: &ApiState) {
    let city = one.incident.group.city.as_deref().map(str::to_owned);
    // If a rule does not group events by city, its incidents are published to all listeners.
    let audience = city.map_or(Audience::Everyone, Audience::OfCity);
    let data = json(&ListedIncident::from(one));
    feed.publish("incident", audience, data, state.now_ms());
}
