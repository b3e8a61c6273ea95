//! The stream over the embedded database.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::dynamo::{TOPIC, Tables};
use super::{NOW_MS, ask};
use crate::core::event::Severity;
use crate::core::keys;

/// Long enough for a loaded test host.
const PATIENCE: Duration = Duration::from_secs(20);

/// An event that came.
#[derive(Clone, Debug, Default)]
struct Told {
    event: String,
    id: String,
    data: Value,
}

struct Ear {
    body: Body,
    text: String,
    last_id: String,
}

impl Ear {
    async fn open(router: &Router, query: &str, last_id: Option<&str>) -> Ear {
        let mut request = Request::get(format!("/api/v1/stream{query}"));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ear {
            body: response.into_body(),
            text: String::new(),
            last_id: String::new(),
        }
    }

    /// Returns the next event; heartbeats and lone ids are taken in passing.
    async fn next(&mut self) -> Told {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut told = Told::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => self.last_id = id.to_owned(),
                        Some(("event", event)) => told.event = event.to_owned(),
                        Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
                        _ => {}
                    }
                }
                self.text = rest.to_owned();
                if told.event.is_empty() {
                    continue;
                }
                told.id.clone_from(&self.last_id);
                return told;
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let bytes = frame.expect("something comes").unwrap().unwrap();
            let bytes = bytes.into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Returns the next event of this kind.
    async fn next_of(&mut self, event: &str) -> Told {
        let finding = async {
            loop {
                let told = self.next().await;
                if told.event == event {
                    return told;
                }
            }
        };
        let found = tokio::time::timeout(3 * PATIENCE, finding).await;
        found.unwrap_or_else(|_| panic!("no {event} came"))
    }
}

#[tokio::test]
async fn new_alerts_windows_and_sums_are_told_to_those_who_asked() {
    let tables = Tables::new().await;
    let log = keys::log_key(TOPIC, 0);
    tables.total("NYC#traffic", [5, 0, 4, 0, 1, 0]).await;
    tables.total("LA#incident", [2, 0, 1, 0, 0, 1]).await;
    tables
        .alert("NYC", "old", NOW_MS - 199_000, Severity::High)
        .await;
    tables.progress(&log, NOW_MS - 600_000).await;
    let router = tables.router();
    let mut all = Ear::open(&router, "", None).await;
    let mut la = Ear::open(&router, "?city=LA&severity=critical", None).await;
    let status = all.next().await;
    assert_eq!(
        (status.event.as_str(), status.data["status"].as_str()),
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
    // In one look: the sums, then alerts, then windows.
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

    // The other listener hears of its city only; who comes back goes on where it was.
    tables
        .alert("LA", "crash", NOW_MS, Severity::Critical)
        .await;
    tables.total("LA#incident", [3, 0, 1, 0, 0, 2]).await;
    assert_eq!(la.next_of("alert").await.data["event_id"], "crash");
    drop(all);
    let mut back = Ear::open(&router, "", Some(&alert.id)).await;
    assert_eq!(back.next_of("alert").await.data["event_id"], "crash");

    // Nothing grows, but the watermark passes the window.
    tables.progress(&log, NOW_MS).await;
    let told = back.next_of("window").await;
    assert_eq!(
        (&told.data["partition_key"], &told.data["final"]),
        (&window.data["partition_key"], &true.into())
    );
    assert!(!tables.rendered().contains("operation=\"Scan\""));
}

#[tokio::test]
async fn another_process_finds_missed_alerts_in_the_table_and_says_what_may_be_missing() {
    let tables = Tables::new().await;
    tables
        .alert("NYC", "missed", NOW_MS - 5, Severity::High)
        .await;
    tables
        .alert("LA", "elsewhere", NOW_MS - 5, Severity::High)
        .await;
    let router = tables.router();
    // Alerts of these tables are stored at NOW_MS.
    let before = format!("{}.00000001.5", NOW_MS - 1_000);
    let mut ear = Ear::open(&router, "?city=NYC", Some(&before)).await;
    let told = ear.next_of("reset").await;
    assert_eq!(told.data["missed"], serde_json::json!(["windows"]));
    let told = ear.next().await;
    assert_eq!(
        (told.event.as_str(), told.data["event_id"].as_str()),
        ("alert", Some("missed"))
    );
    let after = format!("{}.00000001.5", NOW_MS + 60_000);
    let mut ear = Ear::open(&router, "", Some(&after)).await;
    ear.next_of("reset").await;
    assert!(!ear.text.contains("alert"), "{}", ear.text);
    // It ends with a place of this process.
    assert!(
        ear.text.starts_with("id: ") && !ear.text.contains(".00000001."),
        "{}",
        ear.text
    );
}

#[tokio::test]
async fn a_stream_is_as_strict_as_everything_else() {
    let router = Tables::new().await.router();
    for query in ["?severity=bad", "?x=1", "?city=a&city=b"] {
        let (status, _, _) = ask(&router, "GET", &format!("/api/v1/stream{query}")).await;
        assert_eq!(status, 400, "{query}");
    }
    let request = Request::get("/api/v1/stream").header("last-event-id", "garbage");
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
}
