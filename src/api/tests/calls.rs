//! Tests which requests the API sends to DynamoDB, and how many. An interceptor in the SDK counts the requests. Also
//! tests that the API still answers the requests of older clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::dynamo::{TOPIC, TestTables};
use super::{NOW_MS, ask, get};
use crate::core::event::Severity;
use crate::core::keys;

/// A recorder that counts the requests to DynamoDB by operation.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<BTreeMap<String, usize>>>);

impl Recorder {
    fn taken(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Intercept for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target").unwrap();
        let operation = target.rsplit('.').next().unwrap().to_owned();
        *self.0.lock().unwrap().entry(operation).or_default() += 1;
        Ok(())
    }
}

/// Returns tables with every kind of item, and a router whose DynamoDB requests are recorded.
async fn recorded() -> (TestTables, Router, Recorder) {
    let tables = TestTables::new().await;
    for n in 0..8 {
        let at = NOW_MS - n * 1_800_000;
        tables.event("NYC", &format!("e{n}"), at, &[]).await;
        tables
            .alert("NYC", &format!("e{n}"), at, Severity::High)
            .await;
    }
    tables
        .window(NOW_MS - 300_000, &[keys::log_key(TOPIC, 0)])
        .await;
    tables.progress(&keys::log_key(TOPIC, 0), NOW_MS).await;
    tables.total("NYC#traffic", [8, 0, 0, 0, 8, 0]).await;
    tables.make_incidents().await;
    let recorder = Recorder::default();
    let router = tables.router_recorded(recorder.clone());
    (tables, router, recorder)
}

#[tokio::test]
async fn no_request_scans() {
    let (_tables, router, recorder) = recorded().await;
    let mut seen = BTreeSet::new();
    for path in [
        "/api/v1/health",
        "/api/v1/stats",
        "/api/v1/cities",
        "/api/v1/summary/NYC",
        "/api/v1/events/NYC?limit=3",
        "/api/v1/alerts?limit=3",
        "/api/v1/alerts?city=NYC&severity=high",
        "/api/v1/incidents?city=NYC&rule=critical",
        "/api/v1/silences",
        "/api/v1/aggregations?city=NYC&event_type=traffic",
        "/api/v1/aggregations?city=NYC&event_type=traffic&step=day",
        "/api/v1/timeline",
    ] {
        get(&router, path).await;
        let taken = recorder.taken();
        assert!(
            !taken.is_empty() || path.contains("cities"),
            "{path} asked nothing"
        );
        seen.extend(taken.into_keys());
    }
    let request = Request::get("/api/v1/stream").body(Body::empty()).unwrap();
    let mut stream = router.clone().oneshot(request).await.unwrap().into_body();
    stream.frame().await.unwrap().unwrap();
    stream.frame().await.unwrap().unwrap();
    seen.extend(recorder.taken().into_keys());
    let allowed = ["BatchGetItem", "GetItem", "Query"].map(ToOwned::to_owned);
    assert_eq!(seen, BTreeSet::from(allowed));
}

#[tokio::test]
async fn a_thousand_clients_cost_dynamodb_no_more_than_one() {
    let (_tables, router, recorder) = recorded().await;
    let mut crowd = tokio::task::JoinSet::new();
    let begun = std::time::Instant::now();
    for n in 0..1_000 {
        let router = router.clone();
        let path = ["/api/v1/stats", "/api/v1/cities"][n % 2];
        crowd.spawn(async move { get(&router, path).await });
    }
    crowd.join_all().await;
    let reads = recorder.taken()["Query"] / 16;
    // The server may read the sixteen shards at most once in each second of the test.
    let most = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&reads), "{reads} reads in {most} s");
}

#[tokio::test]
async fn resuming_listeners_share_one_read_whatever_their_last_id() {
    let (_tables, router, recorder) = recorded().await;
    let begun = std::time::Instant::now();
    let mut streams = Vec::new();
    for n in 0..60 {
        let request = Request::get("/api/v1/stream")
            .header("last-event-id", format!("13571064000{n:02}.0000000a.1"))
            .body(Body::empty())
            .unwrap();
        let mut body = router.clone().oneshot(request).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(String::from_utf8_lossy(&first).contains("event: reset"));
        streams.push(body);
    }
    // In each second, the poller may send one Query for each of the 16 shards of the totals table. The listeners
    // together may send 8 Queries, which read the newest alerts of two severities in four shards.
    let most = 24 * (2 + usize::try_from(begun.elapsed().as_secs()).unwrap());
    let queries = recorder.taken()["Query"];
    assert!(queries <= most, "{queries} Queries, at most {most}");
}

#[tokio::test]
async fn answers_show_their_cost_and_are_not_sent_twice() {
    let (_tables, router, _) = recorded().await;
    let path = "/api/v1/aggregations?city=NYC&event_type=traffic&to=2013-01-02T06:00:00Z";
    let send = async |tag: Option<&str>, path: &str| {
        let mut request = Request::get(path).header("accept-encoding", "gzip");
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        let request = request.body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let first = send(None, path).await;
    let header = |name: &str| first.headers()[name].to_str().unwrap().to_owned();
    assert!(
        header("server-timing").starts_with("dynamodb;dur="),
        "{:?}",
        first.headers()
    );
    assert!(
        !header("server-timing").contains("\"0 requests"),
        "{:?}",
        first.headers()
    );
    assert_eq!(header("cache-control"), "max-age=3600");
    assert_eq!(header("content-encoding"), "gzip");
    let again = send(Some(&header("etag")), path).await;
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()["etag"], header("etag").as_str());
    assert!(
        again
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    assert_eq!(send(Some("\"other\""), path).await.status(), 200);
    // The server sends the events of a stream one by one, and never compresses the stream.
    let events = send(None, "/api/v1/events/NYC").await;
    assert_eq!(events.headers()["cache-control"], "no-cache");
    let stream = send(None, "/api/v1/stream").await;
    assert!(!stream.headers().contains_key("content-encoding"));
}

/// Returns true if `value` has fields with the same names and types as `shape`. Each item of a list in `value` is
/// compared with the first item of the same list in `shape`.
fn has_shape(value: &Value, shape: &Value) -> bool {
    match (value, shape) {
        (Value::Object(value), Value::Object(shape)) => shape
            .iter()
            .all(|(name, shape)| value.get(name).is_some_and(|value| has_shape(value, shape))),
        (Value::Array(values), Value::Array(shapes)) => {
            !values.is_empty() && values.iter().all(|value| has_shape(value, &shapes[0]))
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => true,
        _ => false,
    }
}

#[tokio::test]
async fn requests_of_older_clients_get_the_answers_they_expect() {
    let (_tables, router, _) = recorded().await;
    let event = r#"{"event_id":"","timestamp":"","city":"","event_type":"","severity":"","description":"","processing_time":""}"#;
    let alerts = format!(r#"{{"count":0,"time_range_hours":0,"alerts":[{event}]}}"#);
    let events = format!(r#"{{"city":"","count":0,"events":[{event}]}}"#);
    let aggregations = r#"{"city":"","event_type":"","count":0,"aggregations":[{"partition_key":"",
        "window_start":"","window_end":"","city":"","event_type":"","event_count":0,"severities":[""]}]}"#;
    for (path, shape) in [
        (
            "/api/v1/health",
            r#"{"status":"","timestamp":"","service":""}"#,
        ),
        (
            "/api/v1/stats",
            r#"{"total_events_processed":0,"high_severity_alerts":0,"critical_alerts":0,"generated_at":""}"#,
        ),
        (
            "/api/v1/cities",
            r#"{"count":0,"cities":[{"city":"","total_events":0}]}"#,
        ),
        ("/api/v1/alerts", &alerts),
        ("/api/v1/alerts?city=NYC&hours=2", &alerts),
        ("/api/v1/alerts?city=NYC&hours=12", &alerts),
        ("/api/v1/events/NYC?limit=3", &events),
        ("/api/v1/events/NYC?limit=5", &events),
        (
            "/api/v1/summary/NYC",
            r#"{"city":"","total_events":0,"event_type_breakdown":{"traffic":0},"generated_at":""}"#,
        ),
        (
            "/api/v1/aggregations?city=NYC&eventType=traffic",
            aggregations,
        ),
        (
            "/api/v1/aggregations?city=NYC&eventType=traffic&limit=10",
            aggregations,
        ),
    ] {
        let (status, value, _) = ask(&router, "GET", path).await;
        assert_eq!(status, 200, "{path}");
        let shape = serde_json::from_str(shape).unwrap();
        assert!(has_shape(&value, &shape), "{path}: {value}");
    }
    let count = async |path: &str| get(&router, path).await["count"].clone();
    assert_eq!(count("/api/v1/alerts?city=NYC&hours=2").await, 5);
    assert_eq!(count("/api/v1/alerts?city=NYC&hours=12").await, 8);
    assert_eq!(count("/api/v1/events/NYC?limit=3").await, 3);
}

#[tokio::test]
async fn answers_recover_when_the_tables_do() {
    let tables = TestTables::missing().await;
    let router = tables.router();
    let (status, value, headers) = ask(&router, "GET", "/api/v1/stats").await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (503, Some("store_unavailable"))
    );
    assert!(headers.contains("retry-after"), "{headers}");
    tables.make().await;
    get(&router, "/api/v1/stats").await;
    get(&router, "/api/v1/alerts").await;
}
