//! Publishes incidents that have changed.

use crate::api::error::ApiError;
use crate::api::feed::{Audience, Feed};
use crate::api::incidents::ListedIncident;
use crate::api::state::ApiState;
use crate::store::error::StoreErrorKind;
use crate::store::incidents::StoredIncident;
use crate::store::reads::IncidentFollower;

use super::poller::json;

/// Remembers the incidents that the listeners know.
#[derive(Default)]
pub(super) struct IncidentPoller {
    follower: IncidentFollower,
    /// True if the table cannot be read: only `notify` needs it, so it may be missing.
    has_no_table: bool,
    /// The number of calls of [`IncidentPoller::poll`]. Every second call reads the table, which halves the cost.
    polls: u64,
}

impl IncidentPoller {
    /// Reads the table and publishes what has changed. The first read publishes nothing.
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
    // A rule that does not group by city concerns every city.
    let audience = city.map_or(Audience::Everyone, Audience::OfCity);
    let data = json(&ListedIncident::from(one));
    feed.publish("incident", audience, data, state.now_ms());
}
