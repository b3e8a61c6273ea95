//! Reads the incident table repeatedly, and returns the incidents that have changed.

use super::{IncidentFilter, PageRequest, Range, Reads};
use crate::core::clock::UnixMs;
use crate::core::incident::follow::Follower;
use crate::core::incident::owner::name_of;
use crate::core::time::TIME_MS_END;
use crate::store::error::StoreError;
use crate::store::incidents::StoredIncident;

/// Maximum number of open incidents in one poll. The list of open incidents on the web page has the same limit.
const OPEN_MAX: usize = 50;
/// Maximum number of resolved incidents in one poll.
const RESOLVED_MAX: usize = 20;
/// Maximum number of incidents that one poll looks up individually because they are no longer in either list.
const MISSING_MAX: usize = 10;

/// Finds the incidents that have changed since the last poll. A poll is one read of the incident table.
#[derive(Default)]
pub struct IncidentFollower {
    follower: Follower<StoredIncident>,
}

impl IncidentFollower {
    /// Returns true until the first successful poll.
    pub fn is_new(&self) -> bool {
        self.follower.is_new()
    }

    /// Reads the table once. Returns the incidents that have changed since the last poll. The first poll returns the
    /// newest open incidents, at most 50.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer. The next poll then returns the changes that this poll missed.
    pub async fn poll(
        &mut self,
        reads: &dyn Reads,
        now_ms: UnixMs,
    ) -> Result<Vec<StoredIncident>, StoreError> {
        let named = |one: StoredIncident| (name_of(&one.incident), one);
        let mut lists: Vec<Vec<_>> = Vec::new();
        for (is_open, max) in [(true, OPEN_MAX), (false, RESOLVED_MAX)] {
            let wanted = IncidentFilter {
                is_open: Some(is_open),
                ..IncidentFilter::default()
            };
            let range = Range {
                from_ms: UnixMs(0),
                to_ms: TIME_MS_END,
            };
            let page = reads.incidents(wanted, request(range, max, now_ms)).await?;
            lists.push(page.items.into_iter().map(named).collect());
        }
        let mut resolved = lists.pop().expect("there are two lists");
        let mut open = lists.pop().expect("there are two lists");
        // All reads come before the comparison, so that the next poll finds the same changes if the caller gives up
        // this poll.
        let missing = self.follower.missing(&open, &resolved, MISSING_MAX);
        for (name, was) in missing.asked {
            // If the read fails, a later poll reads the incident again.
            match find_resolved(reads, &was, now_ms).await.unwrap_or_default() {
                Some(now) => resolved.push((name, now)),
                None => open.push((name, was)),
            }
        }
        open.extend(missing.later);
        Ok(self.follower.take(open, resolved))
    }
}

fn request(range: Range, limit: usize, now_ms: UnixMs) -> PageRequest {
    PageRequest {
        range,
        limit,
        after: None,
        now_ms,
    }
}

/// Looks up an incident that was open, and returns it if it is resolved now. The function reads the index by opening
/// time, because the reader has no right to read the table itself.
async fn find_resolved(
    reads: &dyn Reads,
    was: &StoredIncident,
    now_ms: UnixMs,
) -> Result<Option<StoredIncident>, StoreError> {
    let incident = &was.incident;
    let wanted = IncidentFilter {
        is_open: Some(false),
        rule: Some(incident.rule.to_string()),
        city: incident.group.city.as_deref().map(str::to_owned),
    };
    let range = Range {
        from_ms: incident.opened_at_ms,
        to_ms: incident.opened_at_ms + 1,
    };
    let page = reads.incidents(wanted, request(range, RESOLVED_MAX, now_ms));
    let mut items = page.await?.items.into_iter();
    Ok(items.find(|one| one.incident.id == incident.id))
}
