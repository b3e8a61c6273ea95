//! Tests the list of incidents on the embedded database, with rows that are written by the code of `notify`.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use super::dynamo::{TOPIC, TestTables, each, s, walk};
use super::exports::export;
use super::{NOW_MS, ask, get};
use crate::core::clock::UnixMs;
use crate::core::event::{Offset, Severity};
use crate::core::incident::outbox::{MessageKind, SendOutcome, SentMessages};
use crate::core::incident::silence::Silence;
use crate::core::incident::{Group, Incident, IncidentPhase, Sample, incident_id};
use crate::store::incidents::IncidentTable;

/// Returns an incident in `city` that began with the record at `offset`. The incident is open if `offset` is even, and
/// resolved if `offset` is odd.
pub(super) fn incident(rule: &str, city: &str, offset: i64, opened_at_ms: UnixMs) -> Incident {
    let state = if offset % 2 == 0 {
        IncidentPhase::Open
    } else {
        IncidentPhase::Resolved {
            at_ms: opened_at_ms + 60_000,
        }
    };
    Incident {
        rule: rule.into(),
        id: incident_id(TOPIC, 0, Offset(offset)).into(),
        group: Group {
            city: Some(city.into()),
            event_type: None,
        },
        state,
        severity: Some(Severity::Critical),
        event_count: 2,
        first_event_ms: opened_at_ms - 2_000,
        last_event_ms: opened_at_ms - 1_000,
        opened_at_ms,
        samples: vec![Arc::new(Sample {
            event_id: format!("city-events-0-{offset}").into(),
            city: city.into(),
            event_type: "traffic".into(),
            severity: Severity::Critical,
            time_ms: opened_at_ms - 2_000,
            description: "jam".into(),
        })],
        quiet_at_ms: Some(opened_at_ms + 60_000),
        opened: Offset(offset),
        next: Offset(offset + 1),
    }
}

fn sent(kind: MessageKind, outcome: SendOutcome) -> SentMessages {
    SentMessages {
        n: 2,
        kind,
        event_count: 2,
        begun_ms: NOW_MS,
        outcome,
    }
}

/// Returns tables that contain the given incidents, and the writer of the incidents table.
pub(super) async fn tables_with(incidents: &[Incident]) -> (TestTables, IncidentTable) {
    let tables = TestTables::new().await;
    tables.make_incidents().await;
    let table = IncidentTable::new(tables.client.clone(), &tables.names.incidents);
    for incident in incidents {
        table.write(incident).await.unwrap();
    }
    (tables, table)
}

#[tokio::test]
async fn an_incident_shows_its_state_and_what_its_receivers_were_told() {
    let one = incident("critical", "NYC", 7, NOW_MS - 120_000);
    let (tables, table) = tables_with(std::slice::from_ref(&one)).await;
    let refused = SendOutcome::Refused("status 410".into());
    for (receiver, sent) in [
        ("ops", sent(MessageKind::Resolved, SendOutcome::Taken)),
        ("night", sent(MessageKind::Opened, refused)),
        ("wall", sent(MessageKind::Updated, SendOutcome::Unknown)),
    ] {
        let row = (&*one.rule, &*one.id);
        table.write_sent(row, receiver, None, &sent).await.unwrap();
    }
    let value = get(&tables.router(), "/api/v1/incidents").await;
    let at = "2013-01-02T06:00:00.000Z";
    let want = json!({"count": 1, "incidents": [{
        "incident": format!("{TOPIC}#0#000000000000007"), "rule": "critical", "state": "resolved", "city": "NYC",
        "severity": "critical", "event_count": 2, "first_event": "2013-01-02T05:57:58.000Z",
        "last_event": "2013-01-02T05:57:59.000Z", "opened_at": "2013-01-02T05:58:00.000Z",
        "resolved_at": "2013-01-02T05:59:00.000Z",
        "samples": [{"event_id": "city-events-0-7", "city": "NYC", "event_type": "traffic", "severity": "critical",
                     "timestamp": "2013-01-02T05:57:58.000Z", "description": "jam"}],
        "deliveries": [
            {"receiver": "night", "n": 2, "kind": "opened", "outcome": "refused", "why": "status 410", "at": at},
            {"receiver": "ops", "n": 2, "kind": "resolved", "outcome": "taken", "at": at},
            {"receiver": "wall", "n": 2, "kind": "updated", "outcome": "unknown", "at": at},
        ],
    }]});
    assert_eq!(value, want);
}

#[tokio::test]
async fn incidents_are_filtered_by_state_city_rule_and_time() {
    let hour = 3_600_000;
    let (tables, _) = tables_with(&[
        incident("critical", "NYC", 0, NOW_MS),
        incident("critical", "LA", 1, NOW_MS - hour),
        incident("surge", "NYC", 2, NOW_MS - 2 * hour),
        incident("surge", "NYC", 3, NOW_MS - 3 * hour),
    ])
    .await;
    // The incidents table also contains checkpoints and silences, which the list must not show.
    let item = [("rule", s("#silence")), ("incident", s("7QK2M9"))];
    tables.put(&tables.names.incidents, item).await;
    let router = tables.router();
    for (query, want) in [
        ("", vec![0, 1, 2, 3]),
        ("?city=&rule=", vec![0, 1, 2, 3]),
        ("?state=open", vec![0, 2]),
        ("?state=resolved", vec![1, 3]),
        ("?city=NYC", vec![0, 2, 3]),
        ("?city=nyc", vec![]),
        ("?rule=surge", vec![2, 3]),
        ("?rule=surge&city=NYC&state=open", vec![2]),
        (
            "?from=2013-01-02T04:00:00Z&to=2013-01-02T06:00:00Z",
            vec![1, 2],
        ),
        ("?from=2013-01-02T06:00:00Z", vec![0]),
    ] {
        let value = get(&router, &format!("/api/v1/incidents{query}")).await;
        let want: Vec<String> = want
            .into_iter()
            .map(|offset| incident_id(TOPIC, 0, Offset(offset)))
            .collect();
        assert_eq!(each(&value, "incidents", "incident"), want, "{query}");
        assert_eq!(value["count"], want.len(), "{query}");
    }
    let value = get(&router, "/api/v1/incidents?state=open&rule=surge").await;
    assert_eq!(
        (&value["state"], &value["rule"]),
        (&json!("open"), &json!("surge"))
    );
}

#[tokio::test]
async fn pages_hold_each_incident_once_even_at_one_instant() {
    // Ten incidents begin at each of three instants. The incidents cover two rules and both states.
    let all: Vec<Incident> = (0..30)
        .map(|n| {
            let rule = ["critical", "surge"][usize::try_from(n / 2 % 2).unwrap()];
            incident(rule, "NYC", n, NOW_MS - n / 10)
        })
        .collect();
    let (tables, _) = tables_with(&all).await;
    let router = tables.router();
    for uri in ["/api/v1/incidents?", "/api/v1/incidents?state=resolved&"] {
        let whole = walk(&router, uri, "incidents", "incident", 1_000).await;
        let is_wanted = |one: &&Incident| uri.ends_with("incidents?") || !one.is_open();
        let want: BTreeSet<String> = all
            .iter()
            .filter(is_wanted)
            .map(|one| one.id.to_string())
            .collect();
        assert_eq!(whole.iter().cloned().collect::<BTreeSet<_>>(), want);
        assert_eq!(whole.len(), want.len());
        for limit in [1, 2, 3, 7, 10, 29] {
            let got = walk(&router, uri, "incidents", "incident", limit).await;
            assert_eq!(got, whole, "{uri} {limit}");
        }
    }
    let first = get(&router, "/api/v1/incidents?limit=1").await;
    let next = first["next"].as_str().unwrap();
    let uri = format!("/api/v1/incidents?state=open&cursor={next}");
    let (status, value, _) = ask(&router, "GET", &uri).await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (400, Some("bad_cursor"))
    );
}

#[tokio::test]
async fn an_incident_that_ends_between_two_pages_is_not_left_out() {
    let all = [0, 2, 4].map(|offset| incident("critical", "NYC", offset, NOW_MS));
    let (tables, table) = tables_with(&all).await;
    let router = tables.router();
    let first = get(&router, "/api/v1/incidents?limit=1").await;
    for incident in &all {
        let ended = Incident {
            state: IncidentPhase::Resolved { at_ms: NOW_MS },
            next: Offset(9),
            ..incident.clone()
        };
        table.write(&ended).await.unwrap();
    }
    let next = first["next"].as_str().unwrap();
    let rest = get(&router, &format!("/api/v1/incidents?cursor={next}")).await;
    let mut seen: BTreeSet<&str> = each(&rest, "incidents", "incident").into_iter().collect();
    seen.extend(each(&first, "incidents", "incident"));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn incidents_have_an_export() {
    let all: Vec<Incident> = (0..1_200)
        .map(|n| incident("critical", "NYC", n, NOW_MS - n))
        .collect();
    let (tables, _) = tables_with(&all).await;
    let router = tables.router();
    let (headers, text) = export(&router, "/api/v1/incidents?format=csv", "*/*").await;
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"incidents.csv\""
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1_201);
    assert_eq!(
        lines[1],
        format!(
            "{TOPIC}#0#000000000000000,critical,open,NYC,,critical,2,2013-01-02T05:59:58.000Z,\
             2013-01-02T05:59:59.000Z,2013-01-02T06:00:00.000Z,"
        )
    );
    let (_, text) = export(&router, "/api/v1/incidents?limit=3", "application/x-ndjson").await;
    let page = get(&router, "/api/v1/incidents?limit=3").await;
    let rows: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(page["incidents"].as_array().unwrap()[..], rows);
}

#[tokio::test]
async fn a_missing_table_of_incidents_is_not_found_and_raises_no_alert() {
    let tables = TestTables::new().await;
    let router = tables.router();
    for path in [
        "incidents",
        "incidents?state=open",
        "incidents?format=csv",
        "silences",
    ] {
        let (status, value, _) = ask(&router, "GET", &format!("/api/v1/{path}")).await;
        assert_eq!(
            (status.as_u16(), value["code"].as_str()),
            (404, Some("no_incidents_table")),
            "{path}: {value}"
        );
        let sentence = value["error"].as_str().unwrap();
        assert!(sentence.contains("init-tables --incidents"), "{sentence}");
    }
    // The metrics must not count a missing table under the outcome `not_found`, because requests with the outcome
    // `not_found` raise an alert for the operator.
    let metrics = tables.rendered();
    assert!(metrics.contains("outcome=\"absent\""), "{metrics}");
    assert!(!metrics.contains("outcome=\"not_found\""), "{metrics}");
    tables.make_incidents().await;
    let value = get(&router, "/api/v1/incidents").await;
    assert_eq!(value, json!({"count": 0, "incidents": []}));
}

#[tokio::test]
async fn silences_are_listed_until_they_end() {
    let (tables, table) = tables_with(&[]).await;
    let silence = |id: &str, city: Option<&str>, until_ms| Silence {
        id: id.into(),
        rule: None,
        city: city.map(Into::into),
        event_type: None,
        from_ms: NOW_MS - 60_000,
        until_ms,
        why: "marathon".into(),
    };
    for one in [
        silence("AAAAAA", None, NOW_MS + 60_000),
        silence("BBBBBB", Some("NYC"), NOW_MS + 1_000),
        silence("CCCCCC", Some("LA"), NOW_MS),
    ] {
        table.put_silence(&one).await.unwrap();
    }
    let value = get(&tables.router(), "/api/v1/silences").await;
    let want = json!({"count": 2, "silences": [
        {"silence": "BBBBBB", "city": "NYC", "from": "2013-01-02T05:59:00.000Z",
         "until": "2013-01-02T06:00:01.000Z", "why": "marathon"},
        {"silence": "AAAAAA", "from": "2013-01-02T05:59:00.000Z",
         "until": "2013-01-02T06:01:00.000Z", "why": "marathon"},
    ]});
    assert_eq!(value, want);
}

#[tokio::test]
async fn a_damaged_row_hides_no_other_incident() {
    let all = [incident("critical", "NYC", 0, NOW_MS)];
    let (tables, _) = tables_with(&all).await;
    let damaged = [
        ("rule", s("critical")),
        ("incident", s("x")),
        ("state", s("open")),
        ("opened_at", s("2013-01-02T06:00:00.001Z")),
        ("event_count", AttributeValue::S("many".to_owned())),
    ];
    tables.put(&tables.names.incidents, damaged).await;
    let value = get(&tables.router(), "/api/v1/incidents").await;
    assert_eq!(each(&value, "incidents", "incident"), [&*all[0].id]);
}
