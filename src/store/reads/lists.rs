//! Reads pages of events, alerts and incidents, newest first. Also reads the list of silences.

use super::db::{Db, KeyNames};
use super::items::{AlertItem, EventItem, incident_from_table};
use super::newest_first::{KeyedSource, ListPartition, read_page};
use super::{IncidentFilter, Page, PageRequest};
use crate::core::event::Severity;
use crate::core::incident::silence::Silence;
use crate::core::keys::{CITY_INDEX, SEVERITY_INDEX, SILENCE_PK, STATE_INDEX};
use crate::core::time::{format_millis, parse_timestamp};
use crate::store::attributes::{
    CITY, CITY_SHARD, EVENT_ID, INCIDENT, OPENED_AT, RULE, SEVERITY, SEVERITY_SHARD, STATE,
    TIMESTAMP,
};
use crate::store::error::StoreError;
use crate::store::incident_items::{STATES, silence_of};
use crate::store::incidents::StoredIncident;

/// Reads a page of the events of a city.
pub(super) async fn events(
    db: &Db,
    shards: u32,
    city: &str,
    request: PageRequest,
) -> Result<Page<EventItem>, StoreError> {
    let table = db.names.raw.clone();
    let source = KeyedSource {
        keys: KeyNames {
            table: table.clone(),
            index: Some(CITY_INDEX),
            pk: CITY_SHARD,
            sk: TIMESTAMP,
        },
        other_keys: &[EVENT_ID],
    };
    let (lower, upper) = time_bounds(&request);
    let shards = (0..shards)
        .map(|n| ListPartition::new(format!("{city}#{n}"), &lower, &upper))
        .collect();
    let page = read_page(db, source, shards, &request, earlier).await?;
    Ok(page.map(|item| EventItem::from_table(&table, &item)))
}

/// Returns the smallest and the largest sort key in the time range of `request`. Sort keys are times in whole
/// milliseconds, so the largest sort key is one millisecond before the end of the range.
fn time_bounds(request: &PageRequest) -> (String, String) {
    (
        format_millis(request.range.from_ms),
        format_millis(request.range.to_ms - 1),
    )
}

/// Returns the sort key for the time one millisecond before `time`. A Query that begins at this sort key skips all rows
/// of the time `time`, of which there may be many.
fn earlier(time: &str) -> Option<String> {
    parse_timestamp(time).map(|ms| format_millis(ms - 1))
}

/// Reads a page of the alerts of a city.
pub(super) async fn alerts_of(
    db: &Db,
    city: String,
    severity: Option<Severity>,
    request: PageRequest,
) -> Result<Page<AlertItem>, StoreError> {
    let (lower, upper) = alert_bounds(&request);
    let partition =
        ListPartition::new(city, &lower, &upper).only(SEVERITY, severity.map(Severity::name));
    alerts_page(db, None, CITY, &[], vec![partition], request).await
}

/// Reads a page of the alerts of all cities.
pub(super) async fn alerts(
    db: &Db,
    shards: u32,
    severity: Option<Severity>,
    request: PageRequest,
) -> Result<Page<AlertItem>, StoreError> {
    let (lower, upper) = alert_bounds(&request);
    let raising: Vec<Severity> = Severity::ALL
        .into_iter()
        .filter(|s| s.is_alert() && severity.is_none_or(|wanted| wanted == *s))
        .collect();
    // The shards are the outer loop, so that new shards do not change the numbers of the existing partitions.
    let partitions = (0..shards)
        .flat_map(|n| raising.iter().map(move |s| format!("{s}#{n}")))
        .map(|pk| ListPartition::new(pk, &lower, &upper))
        .collect();
    let index = Some(SEVERITY_INDEX);
    alerts_page(db, index, SEVERITY_SHARD, &[CITY], partitions, request).await
}

/// Returns the bounds of the sort keys for alerts in the time range of `request`. The sort key of an alert has the form
/// `<time>#<id>`, so it is between its time and the next millisecond in the sort order.
fn alert_bounds(request: &PageRequest) -> (String, String) {
    (
        format_millis(request.range.from_ms),
        format_millis(request.range.to_ms),
    )
}

async fn alerts_page(
    db: &Db,
    index: Option<&'static str>,
    pk: &'static str,
    other_keys: &'static [&'static str],
    partitions: Vec<ListPartition>,
    request: PageRequest,
) -> Result<Page<AlertItem>, StoreError> {
    let source = KeyedSource {
        keys: KeyNames {
            table: db.names.alerts.clone(),
            index,
            pk,
            sk: TIMESTAMP,
        },
        other_keys,
    };
    let page = read_page(db, source, partitions, &request, |_| None).await?;
    Ok(page.map(|item| AlertItem::from_item(&item)))
}

/// Reads all silences, except damaged ones.
pub(super) async fn silences(db: &Db) -> Result<Vec<Silence>, StoreError> {
    let keys = KeyNames {
        table: db.names.incidents.clone(),
        index: None,
        pk: RULE,
        sk: INCIDENT,
    };
    let items = db.query_all(db.query_keys(&keys, SILENCE_PK, " ", None));
    Ok(items.await?.iter().filter_map(silence_of).collect())
}

/// Reads a page of incidents, sorted by opening time.
pub(super) async fn incidents(
    db: &Db,
    wanted: IncidentFilter,
    request: PageRequest,
) -> Result<Page<StoredIncident>, StoreError> {
    let table = db.names.incidents.clone();
    let source = KeyedSource {
        keys: KeyNames {
            table: table.clone(),
            index: Some(STATE_INDEX),
            pk: STATE,
            sk: OPENED_AT,
        },
        other_keys: &[RULE, INCIDENT],
    };
    let (lower, upper) = time_bounds(&request);
    // At the same opening time, open incidents come before resolved incidents. Therefore, an incident that ends while a
    // client reads the pages may appear twice, but is never missing.
    let partitions = STATES
        .into_iter()
        .filter(|(is_open, _)| wanted.is_open.is_none_or(|wanted| wanted == *is_open))
        .map(|(_, state)| {
            ListPartition::new(state.to_owned(), &lower, &upper)
                .only(CITY, wanted.city.as_deref())
                .only(RULE, wanted.rule.as_deref())
        })
        .collect();
    let page = read_page(db, source, partitions, &request, earlier).await?;
    let rows = page.items.iter();
    Ok(Page {
        items: rows
            .filter_map(|item| incident_from_table(&table, item))
            .collect(),
        next: page.next,
    })
}
