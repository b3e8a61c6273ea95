//! Tests the router without a socket. The tests in this file use a fake implementation of the tables. The tests check
//! the fields of responses and the errors, and that several requests share one response. The tests in [`dynamo`] use
//! the embedded database, with handwritten items as docs/TABLES.md describes them.

#[cfg(feature = "dev")]
mod aggregations;
#[cfg(feature = "dev")]
mod calls;
#[cfg(feature = "dev")]
mod dynamo;
#[cfg(feature = "dev")]
mod exports;
mod fake;
#[cfg(feature = "dev")]
mod history;
mod hostile;
#[cfg(feature = "dev")]
mod incidents;
#[cfg(feature = "dev")]
mod many;
#[cfg(feature = "dev")]
mod pages;
mod secure;
#[cfg(feature = "dev")]
mod series;
#[cfg(feature = "dev")]
mod stream;
#[cfg(feature = "dev")]
mod timeline;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use self::fake::Fake;
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::store::error::StoreErrorKind;
use crate::telemetry::Metrics;

/// The instant 2013-01-02T06:00:00Z.
pub(super) const NOW_MS: UnixMs = UnixMs(1_357_106_400_000);

pub(super) async fn ask(router: &Router, method: &str, uri: &str) -> (StatusCode, Value, String) {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::empty())
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let headers = format!("{:?}", response.headers());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    // The body ends with a line break, so that a terminal shows its prompt on a new line.
    let is_json = headers.contains("\"application/json\"");
    assert!(
        !is_json || body.is_empty() || body.ends_with(b"\n"),
        "{method} {uri}"
    );
    (status, value, headers)
}

pub(super) async fn get(router: &Router, uri: &str) -> Value {
    let (status, value, _) = ask(router, "GET", uri).await;
    assert_eq!(status, 200, "{uri}: {value}");
    value
}

fn routed(fake: Fake) -> (Router, Arc<Fake>, Metrics) {
    let (fake, metrics) = (Arc::new(fake), Metrics::new());
    let state = ApiState::new(fake.clone(), metrics.clone())
        .with_clock(|| NOW_MS)
        .with_deadline(Duration::from_millis(250));
    (super::router(state), fake, metrics)
}

#[tokio::test]
async fn totals_have_the_documented_shapes() {
    let (router, _, _) = routed(Fake::default());
    let now = "2013-01-02T06:00:00.000Z";
    for (uri, want) in [
        (
            "/api/v1/stats",
            json!({"total_events_processed": 12, "high_severity_alerts": 4,
                   "critical_alerts": 3, "late_events": 2, "generated_at": now}),
        ),
        (
            "/api/v1/cities",
            json!({"count": 3, "order": "events", "city_count": 3, "total_events": 12, "generated_at": now,
                "cities": [
                {"city": "NYC", "total_events": 10},
                {"city": "Austin", "total_events": 1},
                {"city": "LA", "total_events": 1}],
                "others": {"city_count": 0, "total_events": 0}}),
        ),
        (
            "/api/v1/summary/NYC",
            json!({"city": "NYC", "total_events": 10, "generated_at": now,
                   "event_type_breakdown": {"traffic": 7, "weather": 3},
                   "by_severity": {"low": 1, "medium": 2, "high": 4, "critical": 3}}),
        ),
        (
            "/api/v1/summary/Nowhere",
            json!({"city": "Nowhere", "total_events": 0, "generated_at": now,
                   "event_type_breakdown": {},
                   "by_severity": {"low": 0, "medium": 0, "high": 0, "critical": 0}}),
        ),
        (
            "/api/v1/health",
            json!({"status": "UP", "timestamp": now, "service": "CityStream API"}),
        ),
        (
            "/api/v1/events/S%C3%A3o%20Paulo%2FX",
            json!({"city": "São Paulo/X", "count": 0, "events": []}),
        ),
        (
            "/api/v1/alerts",
            json!({"count": 0, "time_range_hours": 24, "alerts": []}),
        ),
        (
            "/api/v1/alerts?city=&hours=720",
            json!({"count": 0, "time_range_hours": 720, "city": "", "alerts": []}),
        ),
        (
            "/api/v1/alerts?from=2013-01-02T00:00:00Z",
            json!({"count": 0, "time_range_hours": null, "alerts": []}),
        ),
        (
            "/api/v1/alerts?city=NYC&severity=HIGH&from=2013-01-02T00:00:00Z&to=2013-01-02T05:59:59Z",
            json!({"count": 0, "time_range_hours": 6, "city": "NYC", "severity": "high", "alerts": []}),
        ),
        (
            "/api/v1/aggregations?city=NYC&eventType=traffic",
            json!({"city": "NYC", "event_type": "traffic", "count": 0, "aggregations": []}),
        ),
    ] {
        assert_eq!(get(&router, uri).await, want, "{uri}");
    }
}

#[tokio::test]
async fn impossible_queries_are_answered_without_reading_the_tables() {
    let (router, fake, _) = routed(Fake::default());
    let long = "a".repeat(65);
    for uri in [
        "/api/v1/events/NYC%230",
        "/api/v1/events/a%00b",
        &format!("/api/v1/events/{long}"),
        &format!("/api/v1/summary/{long}"),
        "/api/v1/events/NYC?from=2013-01-02T00:00:00Z&to=2013-01-02T00:00:00Z",
        "/api/v1/events/NYC?from=2013-01-02T00:00:00Z&to=2013-01-01T00:00:00Z",
        "/api/v1/alerts?city=NYC%231",
        "/api/v1/alerts?severity=low",
        "/api/v1/incidents?city=NYC%231",
        "/api/v1/aggregations?city=NYC&event_type=9",
    ] {
        get(&router, uri).await;
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 0);
}

/// Each line contains the path of a request, and the status, the code and a word of the expected error.
const INVALID: &str = "
    /api/v1/events/NYC?limit=0 400 bad_parameter limit
    /api/v1/events/NYC?limit=1001 400 bad_parameter limit
    /api/v1/events/NYC?limit=-1 400 bad_parameter limit
    /api/v1/events/NYC?limit=%2B5 400 bad_parameter limit
    /api/v1/events/NYC?limit=1e2 400 bad_parameter limit
    /api/v1/events/NYC?limit= 400 bad_parameter limit
    /api/v1/events/NYC?limit=99999999999 400 bad_parameter limit
    /api/v1/events/NYC?limit=5&limit=5 400 bad_parameter limit
    /api/v1/events/NYC?Limit=5 400 bad_parameter Limit
    /api/v1/events/NYC?hours=5 400 bad_parameter hours
    /api/v1/events/NYC?from=yesterday 400 bad_parameter from
    /api/v1/events/NYC?to=2013-01-01 400 bad_parameter to
    /api/v1/events/NYC?to=9999-01-01T00:00:00Z 400 bad_parameter to
    /api/v1/events/NYC?cursor= 400 bad_cursor cursor
    /api/v1/events/NYC?cursor=x 400 bad_cursor cursor
    /api/v1/events/%FF 400 bad_path UTF-8
    /api/v1/alerts?hours=0 400 bad_parameter hours
    /api/v1/alerts?hours=721 400 bad_parameter hours
    /api/v1/alerts?hours=1.5 400 bad_parameter hours
    /api/v1/alerts?severity=awful 400 bad_parameter severity
    /api/v1/alerts?event_type=traffic 400 bad_parameter event_type
    /api/v1/incidents?state=closed 400 bad_parameter state
    /api/v1/incidents?state= 400 bad_parameter state
    /api/v1/incidents?hours=5 400 bad_parameter hours
    /api/v1/aggregations 400 bad_parameter city
    /api/v1/aggregations?city=NYC 400 bad_parameter event_type
    /api/v1/aggregations?city=&event_type=a 400 bad_parameter city
    /api/v1/aggregations?city=a&event_type=a&eventType=a 400 bad_parameter eventType
    /api/v1/stats?x=1 400 bad_parameter x
    /api/v1/health?x 400 bad_parameter x
    /api/v1/events/ 404 not_found
    /api/v1/stats/ 404 not_found
    /api/v1/events/NYC/more 404 not_found
    /api/v2/stats 404 not_found
";

#[tokio::test]
async fn invalid_parameters_are_rejected_with_an_error_body() {
    let (router, fake, _) = routed(Fake::default());
    for case in INVALID.lines().filter(|line| !line.is_empty()) {
        let mut words = case.split_whitespace();
        let (uri, status) = (words.next().unwrap(), words.next().unwrap());
        let (code, names) = (words.next().unwrap(), words.next().unwrap_or_default());
        let (got, value, headers) = ask(&router, "GET", uri).await;
        assert_eq!(got.as_str(), status, "{uri}: {value}");
        assert_eq!(value["code"], code, "{uri}: {value}");
        assert!(
            value["error"].as_str().unwrap().contains(names),
            "{uri}: {value}"
        );
        assert!(
            headers.contains(value["request_id"].as_str().unwrap()),
            "{uri}: {headers}"
        );
        assert_eq!(value.as_object().unwrap().len(), 3, "{uri}: {value}");
    }
    let (status, value, headers) = ask(&router, "POST", "/api/v1/stats").await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (405, Some("method_not_allowed"))
    );
    assert!(headers.contains("\"allow\": \"GET,HEAD\""), "{headers}");
    assert_eq!(fake.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_failed_read_is_reported_in_public_words() {
    for (kind, aws_code, status, code) in [
        (
            StoreErrorKind::Transient,
            "Dispatch",
            503,
            "store_unavailable",
        ),
        (
            StoreErrorKind::Throttled,
            "ThrottlingException",
            503,
            "store_unavailable",
        ),
        (
            StoreErrorKind::NotFound,
            "ResourceNotFoundException",
            503,
            "store_unavailable",
        ),
        (
            StoreErrorKind::Denied,
            "AccessDeniedException",
            503,
            "store_unavailable",
        ),
        (
            StoreErrorKind::Unknown,
            "InternalServerError",
            503,
            "store_unavailable",
        ),
        (StoreErrorKind::Unknown, "Timeout", 504, "store_timeout"),
    ] {
        let fake = Fake {
            error: Some((kind, aws_code)),
            ..Fake::default()
        };
        let (router, _, _) = routed(fake);
        for uri in ["/api/v1/stats", "/api/v1/events/NYC", "/api/v1/alerts"] {
            let (got, value, headers) = ask(&router, "GET", uri).await;
            assert_eq!(
                (got.as_u16(), value["code"].as_str()),
                (status, Some(code)),
                "{uri}"
            );
            assert!(headers.contains("retry-after"), "{headers}");
            for private in [aws_code, "secret-table", "private", "AWSID"] {
                assert!(!value.to_string().contains(private), "{value}");
            }
        }
        let (got, value, _) = ask(&router, "GET", "/api/v1/health").await;
        assert_eq!(got.as_u16(), status);
        assert_eq!(value["status"], "DOWN");
        assert_eq!(value["service"], "CityStream API");
        assert!(!value["reason"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_store_that_never_answers_gives_504() {
    let (router, _, _) = routed(Fake {
        hangs: true,
        ..Fake::default()
    });
    let (status, value, headers) = ask(&router, "GET", "/api/v1/stats").await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (504, Some("store_timeout"))
    );
    assert!(headers.contains("retry-after"), "{headers}");
}

#[tokio::test]
async fn concurrent_requests_share_one_read() {
    let (router, fake, metrics) = routed(Fake::default());
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let router = router.clone();
        crowd.spawn(async move { get(&router, "/api/v1/stats").await });
    }
    let answers = crowd.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    let text = metrics.render();
    let counted = "citystream_http_requests_total{route=\"/api/v1/stats\",status=\"200\"} 100";
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn totals_that_outlast_their_request_are_ready_for_the_next_one() {
    let (router, fake, _) = routed(Fake {
        slow: Some(Duration::from_millis(600)),
        ..Fake::default()
    });
    let (status, value, _) = ask(&router, "GET", "/api/v1/stats").await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (504, Some("store_timeout"))
    );
    let mut asked_again = 0;
    while ask(&router, "GET", "/api/v1/stats").await.0 != 200 {
        asked_again += 1;
        assert!(asked_again < 100, "the totals never come");
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let (router, _, metrics) = routed(Fake::default());
    for uri in ["/api/v1/events/NYC", "/api/v1/events/LA", "/wp-login.php"] {
        ask(&router, "GET", uri).await;
    }
    let text = metrics.render();
    for line in [
        "citystream_http_requests_total{route=\"/api/v1/events/{city}\",status=\"200\"} 2",
        "citystream_http_requests_total{route=\"unmatched\",status=\"404\"} 1",
        "citystream_http_request_seconds_count{route=\"/api/v1/events/{city}\"} 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("NYC") && !text.contains("wp-login"));
}

#[tokio::test]
async fn the_page_is_cached_until_it_changes_and_runs_nothing_foreign() {
    let (router, _, _) = routed(Fake::default());
    let ask = async |path: &str, etag: &str| {
        let request = Request::get(path).header("if-none-match", etag);
        let request = request.body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let response = ask("/", "none").await;
    assert_eq!(response.status(), 200);
    let policy = response.headers()["content-security-policy"].to_str();
    assert!(policy.unwrap().starts_with("default-src 'none';"));
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let html = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(ask("/", &etag).await.status(), 304);
    let script = html.split("<script type=\"module\" src=\"").nth(1).unwrap();
    let script = script.split('"').next().unwrap();
    let response = ask(script, "none").await;
    assert_eq!(response.status(), 200);
    let cached = response.headers()["cache-control"].to_str().unwrap();
    assert!(cached.contains("immutable"), "{cached}");
    // During an upgrade, a page of another version requests files under a path that contains another hash.
    let response = ask("/assets/0123456789abcdef/app.js", "none").await;
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(ask("/assets/x/nothing.js", "none").await.status(), 404);
}
