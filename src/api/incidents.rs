//! `GET /api/v1/incidents?state=&city=&rule=&limit=50&from=&to=&cursor=`: incidents, with the most recently opened
//! incident first.
//!
//! Only `notify` writes incidents, so an installation without `notify` has no incidents table. If there is no incidents
//! table, the client gets status 404 with the code `no_incidents_table`.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::budget::ReadCharge;
use crate::api::error::ApiError;
use crate::api::export::{ExportRow, ListAnswer, ListFormat};
use crate::api::params::Params;
use crate::api::schemas::{IncidentState, Level};
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::incident::outbox::{SendOutcome, SentMessages};
use crate::core::incident::{self, Sample};
use crate::core::parse::is_city;
use crate::core::time::format_millis;
use crate::store::error::StoreErrorKind;
use crate::store::incidents::StoredIncident;
use crate::store::reads::{IncidentFilter, Page, PageRequest};

pub(super) const PATH: &str = "/api/v1/incidents";

/// A page of the list of incidents.
#[derive(Serialize, ToSchema)]
struct Incidents {
    /// The number of incidents on this page.
    count: usize,
    /// The parameter `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<IncidentState>,
    /// The parameter `city`, exactly as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    /// The parameter `rule`, exactly as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// The incidents of this page, with the most recently opened incident first.
    incidents: Vec<ListedIncident>,
    /// The cursor of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An incident that a rule of `notify` has found. An incident consists of related events, or of a time without events
/// (a silence). A message to a receiver contains the fields of an incident, except `state` and `deliveries`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedIncident {
    /// The id of the incident, which is unique within its rule. The id consists of the topic id, the partition and the
    /// offset of the record that began the incident.
    incident: String,
    /// The name of the rule that found the incident.
    rule: String,
    /// The state of the incident. A resolved incident gets no more events.
    state: IncidentState,
    /// The city of all events of the incident; absent if the rule does not group events by city.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    /// The event type of all events of the incident; absent if the rule does not group events by event type.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    /// The highest severity among the events of the incident; absent for a silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Level, required = false)]
    severity: Option<&'static str>,
    /// The number of events of the incident; 0 for a silence.
    event_count: u64,
    /// The earliest event time of the incident. For a silence, the field contains the time of the last event before the
    /// silence.
    #[schema(format = DateTime)]
    first_event: String,
    /// The latest event time of the incident. For a silence, the field contains the time of the last event before the
    /// silence.
    #[schema(format = DateTime)]
    last_event: String,
    /// The timestamp of the record that opened the incident.
    #[schema(format = DateTime)]
    opened_at: String,
    /// The timestamp of the record at which the incident ended; absent if the incident is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    resolved_at: Option<String>,
    /// The first events of the incident, at most five.
    samples: Vec<IncidentSample>,
    /// The last message about the incident that was sent to each receiver, sorted by the name of the receiver.
    deliveries: Vec<Delivery>,
}

/// An event of an incident.
#[derive(Serialize, ToSchema)]
struct IncidentSample {
    /// The event's own id, or `<topic>-<partition>-<offset>`.
    event_id: String,
    /// The city, as the producer spells it.
    city: String,
    /// The event type, such as `traffic`.
    event_type: String,
    /// How serious the event is.
    #[schema(value_type = Level)]
    severity: &'static str,
    /// The time at which the event happened, according to the producer of the event.
    #[schema(format = DateTime)]
    timestamp: String,
    /// A description of the event for people, with at most 200 characters.
    description: String,
}

/// The last message about an incident that was sent to a receiver.
#[derive(Serialize, ToSchema)]
struct Delivery {
    /// The name of the receiver.
    receiver: String,
    /// The number of the message, counted from 1 for each incident and receiver.
    n: u32,
    /// What the message says: `opened`, `updated` or `resolved`.
    kind: &'static str,
    /// The outcome of the message: one of `unknown`, `taken`, `refused` and `silenced`. The outcome is `unknown` while
    /// the message is being sent or waits to be sent again.
    outcome: &'static str,
    /// The reason why the receiver refused the message; absent for all other outcomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// When the message was first sent.
    #[schema(format = DateTime)]
    at: String,
}

impl ExportRow for ListedIncident {
    const COLUMNS: &'static [&'static str] = &[
        "incident",
        "rule",
        "state",
        "city",
        "event_type",
        "severity",
        "event_count",
        "first_event",
        "last_event",
        "opened_at",
        "resolved_at",
    ];
}

impl From<StoredIncident> for ListedIncident {
    fn from(stored: StoredIncident) -> ListedIncident {
        let incident = stored.incident;
        let (state, resolved_at) = match incident.state {
            incident::IncidentPhase::Open => (IncidentState::Open, None),
            incident::IncidentPhase::Resolved { at_ms } => {
                (IncidentState::Resolved, Some(format_millis(at_ms)))
            }
        };
        let owned = |text: &str| text.to_owned();
        let sent = stored.sent.iter();
        let mut deliveries: Vec<Delivery> = sent.map(|(name, sent)| delivery(name, sent)).collect();
        deliveries.sort_by(|a, b| a.receiver.cmp(&b.receiver));
        ListedIncident {
            incident: owned(&incident.id),
            rule: owned(&incident.rule),
            state,
            city: incident.group.city.as_deref().map(owned),
            event_type: incident.group.event_type.as_deref().map(owned),
            severity: incident.severity.map(Severity::name),
            event_count: incident.event_count,
            first_event: format_millis(incident.first_event_ms),
            last_event: format_millis(incident.last_event_ms),
            opened_at: format_millis(incident.opened_at_ms),
            resolved_at,
            samples: incident.samples.iter().map(|one| sample(one)).collect(),
            deliveries,
        }
    }
}

fn sample(sample: &Sample) -> IncidentSample {
    IncidentSample {
        event_id: (*sample.event_id).to_owned(),
        city: (*sample.city).to_owned(),
        event_type: (*sample.event_type).to_owned(),
        severity: sample.severity.name(),
        timestamp: format_millis(sample.time_ms),
        description: (*sample.description).to_owned(),
    }
}

fn delivery(receiver: &str, sent: &SentMessages) -> Delivery {
    let why = match &sent.outcome {
        SendOutcome::Refused(why) => Some((**why).to_owned()),
        SendOutcome::Unknown | SendOutcome::Taken | SendOutcome::Silenced => None,
    };
    Delivery {
        receiver: receiver.to_owned(),
        n: sent.n,
        kind: sent.kind.name(),
        outcome: sent.outcome.name(),
        why,
        at: format_millis(sent.begun_ms),
    }
}

/// Returns the incidents that the rules of `notify` have found, newest first
#[utoipa::path(
    get,
    path = "/api/v1/incidents",
    operation_id = "list_incidents",
    tag = "events",
    summary = "Incidents that the rules of `notify` have found, newest first, with what their receivers were told. 404 `no_incidents_table` without `notify`",
    params(
        ("state" = Option<IncidentState>, Query, description = "Only open or only resolved incidents", example = "open"),
        ("city" = Option<String>, Query, description = "Only incidents of this city, of rules that group by city", example = "NYC"),
        ("rule" = Option<String>, Query, description = "Only incidents of this rule", example = "critical"),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page; of `csv` and `ndjson`, maximum number of all items, up to 100,000", minimum = 1, maximum = 100000, example = 50),
        ("from" = Option<String>, Query, description = "Start of the range of `opened_at` (inclusive), RFC 3339", format = DateTime, example = "2013-01-01T06:00:00Z"),
        ("to" = Option<String>, Query, description = "End of the range of `opened_at` (exclusive), RFC 3339", format = DateTime, example = "2013-01-02T06:00:00Z"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page. Except for `limit` and `format`, the other parameters must be the same", pattern = "^[A-Za-z0-9_-]+$", min_length = 1),
        ("format" = Option<ListFormat>, Query, description = "Form of the answer. `csv` and `ndjson` hold all pages, up to 100,000 items; `limit` may then be as large. An `Accept` header works, too. `csv` has neither `samples` nor `deliveries`", example = "json"),
    ),
    responses(
        (status = 200, description = "Incidents, newest first", body = Incidents, example = json!({"count": 1, "state": "open", "incidents": [{"incident": "rArJKfFlTHmPDCoXxCF6UA#0#000000000000811", "rule": "critical", "state": "open", "city": "NYC", "severity": "critical", "event_count": 1, "first_event": "2013-01-02T05:59:58.000Z", "last_event": "2013-01-02T05:59:58.000Z", "opened_at": "2013-01-02T06:00:00.250Z", "samples": [{"event_id": "city-events-0-811", "city": "NYC", "event_type": "incident", "severity": "critical", "timestamp": "2013-01-02T05:59:58.000Z", "description": "water main break"}], "deliveries": [{"receiver": "ops", "n": 1, "kind": "opened", "outcome": "taken", "at": "2013-01-02T06:00:00.300Z"}]}]})),
    ),
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    charge: Option<Extension<ReadCharge>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let allowed = "state city rule limit from to cursor format";
    let params = Params::parse(PATH, None, &uri, allowed)?;
    let format = ListFormat::of(&params, &headers)?;
    let slice = params.slice(format.page_limit(50), UnixMs(0), state.now_ms())?;
    let incident_state = IncidentState::parse(&params)?;
    let wanted = IncidentFilter {
        is_open: incident_state.map(|state| state == IncidentState::Open),
        city: params.text("city").map(ToOwned::to_owned),
        rule: params.text("rule").map(ToOwned::to_owned),
    };
    let of_page = params.clone();
    let read = move |state, slice| read_page(state, of_page.clone(), wanted.clone(), slice);
    let body = |incidents: Vec<ListedIncident>, next| Incidents {
        count: incidents.len(),
        state: incident_state,
        city: params.given("city").map(ToOwned::to_owned),
        rule: params.given("rule").map(ToOwned::to_owned),
        incidents,
        next,
    };
    ListAnswer::new("incidents", format, slice, read)
        .respond(state, charge, &params, body)
        .await
}

async fn read_page(
    state: ApiState,
    params: Params,
    wanted: IncidentFilter,
    slice: PageRequest,
) -> Result<Page<ListedIncident>, ApiError> {
    let city = wanted.city.as_deref();
    if slice.range.is_empty() || city.is_some_and(|city| !is_city(city)) {
        return Ok(Page::empty());
    }
    let page = state.reads().incidents(wanted, slice).await;
    let page = page.map_err(|error| match error.kind() {
        StoreErrorKind::NotFound => ApiError::no_incidents_table(),
        _ => params.read_error(error),
    })?;
    Ok(page.map(ListedIncident::from))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::event::Offset;
    use crate::core::incident::{Group, Incident};

    #[test]
    fn an_incident_has_the_fields_of_messages_with_its_state_and_deliveries() {
        let sample = Sample {
            event_id: "e1".into(),
            city: "NYC".into(),
            event_type: "traffic".into(),
            severity: Severity::High,
            time_ms: UnixMs(1),
            description: "jam".into(),
        };
        let incident = Incident {
            rule: "critical".into(),
            id: "t#0#000000000000007".into(),
            group: Group {
                city: Some("NYC".into()),
                event_type: Some("traffic".into()),
            },
            state: incident::IncidentPhase::Resolved { at_ms: UnixMs(9) },
            severity: Some(Severity::High),
            event_count: 1,
            first_event_ms: UnixMs(1),
            last_event_ms: UnixMs(2),
            opened_at_ms: UnixMs(3),
            samples: vec![Arc::new(sample)],
            quiet_at_ms: Some(UnixMs(4)),
            opened: Offset(7),
            next: Offset(8),
        };
        let mut fields = incident.fields();
        fields.insert("state".to_owned(), "resolved".into());
        fields.insert("deliveries".to_owned(), serde_json::json!([]));
        let listed = ListedIncident::from(StoredIncident {
            incident,
            sent: Vec::new(),
        });
        let listed = serde_json::to_value(listed).unwrap();
        assert_eq!(listed, serde_json::Value::Object(fields));
    }
}
