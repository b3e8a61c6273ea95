//! Tests lists in the formats CSV and NDJSON.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::dynamo::TestTables;
use super::{NOW_MS, ask, get};
use crate::core::event::Severity;

/// Sends a request with the header `Accept: <accept>`. Returns the headers and the text of the response.
pub(super) async fn export(router: &Router, uri: &str, accept: &str) -> (HeaderMap, String) {
    let request = Request::get(uri).header("accept", accept);
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "{uri}");
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_export_can_be_compressed() {
    let tables = TestTables::new().await;
    tables.event("NYC", "e0", NOW_MS, &[]).await;
    let request = Request::get("/api/v1/events/NYC?format=csv").header("accept-encoding", "gzip");
    let request = request.body(Body::empty()).unwrap();
    let response = tables.router().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() > 20, "{} bytes", body.len());
}

#[tokio::test]
async fn an_export_holds_every_page_of_events() {
    let tables = TestTables::new().await;
    for at in 0..2_345 {
        let id = format!("e{at:04}");
        tables.event("NYC", &id, NOW_MS - at, &[]).await;
    }
    let router = tables.router();
    let (headers, text) = export(&router, "/api/v1/events/NYC?format=csv", "*/*").await;
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/csv")
    );
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"events.csv\""
    );
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("event_id,timestamp,city,event_type,severity,description"));
    let ids: Vec<&str> = lines[1..].iter().map(|line| &line[..5]).collect();
    let want: Vec<String> = (0..2_345).map(|at| format!("e{at:04}")).collect();
    assert_eq!(ids, want);

    // The lines of an NDJSON export are the same objects as the items of a JSON page.
    let (_, text) = export(
        &router,
        "/api/v1/events/NYC?limit=1500",
        "application/x-ndjson",
    )
    .await;
    let rows: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(rows.len(), 1_500);
    let page = get(&router, "/api/v1/events/NYC?limit=1000").await;
    assert_eq!(page["events"].as_array().unwrap()[..], rows[..1_000]);

    // An export can continue at the cursor of a JSON page.
    let next = page["next"].as_str().unwrap();
    let uri = format!("/api/v1/events/NYC?format=csv&cursor={next}");
    let (_, text) = export(&router, &uri, "*/*").await;
    assert_eq!(text.lines().count(), 1 + 1_345);
}

#[tokio::test]
async fn every_list_has_an_export() {
    let tables = TestTables::new().await;
    tables.window(NOW_MS - 300_000, &[]).await;
    tables
        .alert("NYC", "a1", NOW_MS - 1_000, Severity::Critical)
        .await;
    tables.total("NYC#traffic", [5, 0, 1, 0, 4, 0]).await;
    let router = tables.router();
    let (_, text) = export(&router, "/api/v1/alerts?format=csv", "*/*").await;
    assert!(
        text.contains("\na1,2013-01-02T05:59:59.000Z,NYC,"),
        "{text}"
    );
    let (_, text) = export(&router, "/api/v1/cities?format=csv", "*/*").await;
    assert_eq!(text, "city,total_events\nNYC,5\n");
    let uri = "/api/v1/aggregations?city=NYC&event_type=traffic";
    let (_, text) = export(&router, uri, "text/csv").await;
    assert!(
        text.contains("\nNYC#traffic#2013-01-02T05:55:00Z,"),
        "{text}"
    );
    // The CSV export of an empty list still contains the line with the column names.
    let (_, text) = export(&router, "/api/v1/alerts?format=csv&city=nowhere", "*/*").await;
    assert_eq!(text.lines().count(), 1);
    let (_, text) = export(&router, "/api/v1/alerts?format=ndjson&city=nowhere", "*/*").await;
    assert_eq!(text, "");
}

#[tokio::test]
async fn a_format_or_a_number_of_rows_that_does_not_exist_is_refused() {
    let router = TestTables::new().await.router();
    for (query, word) in [
        ("format=xml", "format must be json, csv or ndjson"),
        ("format=", "format must be json, csv or ndjson"),
        ("format=csv&limit=100001", "from 1 to 100000"),
        ("limit=1001", "from 1 to 1000"),
    ] {
        let (status, value, _) = ask(&router, "GET", &format!("/api/v1/alerts?{query}")).await;
        assert_eq!(status, 400, "{query}");
        assert!(value["error"].as_str().unwrap().contains(word), "{value}");
    }
}

#[tokio::test]
async fn an_export_that_cannot_start_is_an_error() {
    let router = TestTables::missing().await.router();
    let (status, value, _) = ask(&router, "GET", "/api/v1/events/NYC?format=csv").await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (503, Some("store_unavailable"))
    );
}
