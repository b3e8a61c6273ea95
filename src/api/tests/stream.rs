//! Tests the event stream of the API on the embedded database.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::dynamo::{TOPIC, TestTables};
use super::incidents::{incident, tables_with};
use super::{NOW_MS, ask};
use crate::core::event::{Offset, Severity};
use crate::core::incident::Incident;
use crate::core::keys;

/// A timeout that is long enough for a busy test host.
const PATIENCE: Duration = Duration::from_secs(20);

/// An event that the client received.
#[derive(Clone, Debug, Default)]
struct ReceivedEvent {
    name: String,
    id: String,
    data: Value,
}

struct SseClient {
    body: Body,
    text: String,
    last_id: String,
}

impl SseClient {
    async fn open(router: &Router, query: &str, last_id: Option<&str>) -> SseClient {
        let mut request = Request::get(format!("/api/v1/stream{query}"));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        SseClient {
            body: response.into_body(),
            text: String::new(),
            last_id: String::new(),
        }
    }

    /// Returns the next event, skipping heartbeats. If an id arrives without an event, the client only stores the id in
    /// `last_id`.
    async fn next(&mut self) -> ReceivedEvent {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut event = ReceivedEvent::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => self.last_id = id.to_owned(),
                        Some(("event", name)) => event.name = name.to_owned(),
                        Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                        _ => {}
                    }
                }
                self.text = rest.to_owned();
                if event.name.is_empty() {
                    continue;
                }
                event.id.clone_from(&self.last_id);
                return event;
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let bytes = frame.expect("something comes").unwrap().unwrap();
            let bytes = bytes.into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Returns the next event with the given name.
    async fn next_of(&mut self, name: &str) -> ReceivedEvent {
        let finding = async {
            loop {
                let event = self.next().await;
                if event.name == name {
                    return event;
                }
            }
        };
        let found = tokio::time::timeout(3 * PATIENCE, finding).await;
        found.unwrap_or_else(|_| panic!("no {name} came"))
    }
}

#[tokio::test]
async fn listeners_receive_new_alerts_windows_and_stats_by_their_filters() {
    let tables = TestTables::new().await;
    let log = keys::log_key(TOPIC, 0);
    tables.total("NYC#traffic", [5, 0, 4, 0, 1, 0]).await;
    tables.total("LA#incident", [2, 0, 1, 0, 0, 1]).await;
    tables
        .alert("NYC", "old", NOW_MS - 199_000, Severity::High)
        .await;
    tables.progress(&log, NOW_MS - 600_000).await;
    let router = tables.router();
    let mut all = SseClient::open(&router, "", None).await;
    let mut la = SseClient::open(&router, "?city=LA&severity=critical", None).await;
    let status = all.next().await;
    assert_eq!(
        (status.name.as_str(), status.data["status"].as_str()),
        ("status", Some("UP"))
    );
    let stats = all.next_of("stats").await;
    assert_eq!(stats.data["total_events_processed"], 7);

    tables
        .alert("NYC", "new", NOW_MS - 99_000, Severity::High)
        .await;
    tables
        .window(NOW_MS - 300_000, std::slice::from_ref(&log))
        .await;
    tables.total("NYC#traffic", [6, 0, 4, 0, 2, 0]).await;
    // One poll publishes the stats first, then alerts, then windows.
    let stats = all.next_of("stats").await;
    assert_eq!(stats.data["total_events_processed"], 8);
    let alert = all.next_of("alert").await;
    let window = all.next_of("window").await;
    assert_eq!(alert.data["event_id"], "new");
    assert_eq!(
        window.data["partition_key"],
        "NYC#traffic#2013-01-02T05:55:00Z"
    );
    assert_eq!(window.data["final"], false);

    // The listener `la` receives only events of its own city. The listener `back` resumes after the alert that the
    // listener `all` has received.
    tables
        .alert("LA", "crash", NOW_MS, Severity::Critical)
        .await;
    tables.total("LA#incident", [3, 0, 1, 0, 0, 2]).await;
    assert_eq!(la.next_of("alert").await.data["event_id"], "crash");
    drop(all);
    let mut back = SseClient::open(&router, "", Some(&alert.id)).await;
    assert_eq!(back.next_of("alert").await.data["event_id"], "crash");

    // The counts stay the same, but the watermark passes the end of the window.
    tables.progress(&log, NOW_MS).await;
    let event = back.next_of("window").await;
    assert_eq!(
        (&event.data["partition_key"], &event.data["final"]),
        (&window.data["partition_key"], &true.into())
    );
    assert!(!tables.rendered().contains("operation=\"Scan\""));
}

#[tokio::test]
async fn listeners_receive_incidents_that_change_by_their_city() {
    let old = incident("critical", "NYC", 2, NOW_MS - 60_000);
    let (tables, table) = tables_with(std::slice::from_ref(&old)).await;
    tables.total("NYC#traffic", [5, 0, 4, 0, 1, 0]).await;
    let router = tables.router();
    let mut all = SseClient::open(&router, "", None).await;
    let mut la = SseClient::open(&router, "?city=LA", None).await;
    all.next_of("stats").await;
    // A poll publishes stats before it reads incidents, so the first read of incidents has finished when the stats of a
    // second poll arrive.
    tables.total("NYC#traffic", [6, 0, 4, 0, 2, 0]).await;
    all.next_of("stats").await;
    let more = Incident {
        event_count: 3,
        next: Offset(9),
        ..old
    };
    table.write(&more).await.unwrap();
    let event = all.next_of("incident").await;
    assert_eq!(
        (&event.data["incident"], &event.data["event_count"]),
        (&(*more.id).into(), &3.into())
    );
    // The stream also sends an incident that ended before the poller first read the incident.
    let short = incident("critical", "LA", 11, NOW_MS);
    table.write(&short).await.unwrap();
    for listener in [&mut la, &mut all] {
        let event = listener.next_of("incident").await;
        assert_eq!(
            (&event.data["incident"], &event.data["state"]),
            (&(*short.id).into(), &"resolved".into())
        );
    }
}

#[tokio::test]
async fn another_process_resumes_with_missed_alerts_from_the_table_and_a_reset() {
    let tables = TestTables::new().await;
    tables
        .alert("NYC", "missed", NOW_MS - 5, Severity::High)
        .await;
    tables
        .alert("LA", "elsewhere", NOW_MS - 5, Severity::High)
        .await;
    let router = tables.router();
    // The alerts in the test's tables were stored at NOW_MS.
    let before = format!("{}.00000001.5", (NOW_MS - 1_000).0);
    let mut client = SseClient::open(&router, "?city=NYC", Some(&before)).await;
    let event = client.next_of("reset").await;
    assert_eq!(event.data["missed"], serde_json::json!(["windows"]));
    let event = client.next().await;
    assert_eq!(
        (event.name.as_str(), event.data["event_id"].as_str()),
        ("alert", Some("missed"))
    );
    let after = format!("{}.00000001.5", (NOW_MS + 60_000).0);
    let mut client = SseClient::open(&router, "", Some(&after)).await;
    client.next_of("reset").await;
    assert!(!client.text.contains("alert"), "{}", client.text);
    // The id after the event `reset` is a position in the feed of this process.
    assert!(
        client.text.starts_with("id: ") && !client.text.contains(".00000001."),
        "{}",
        client.text
    );
}

#[tokio::test]
async fn stream_parameters_are_checked_strictly() {
    let router = TestTables::new().await.router();
    for query in ["?severity=bad", "?x=1", "?city=a&city=b"] {
        let (status, _, _) = ask(&router, "GET", &format!("/api/v1/stream{query}")).await;
        assert_eq!(status, 400, "{query}");
    }
    let request = Request::get("/api/v1/stream").header("last-event-id", "garbage");
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
}
