//! Tests the responses of the API if the tables contain many series. A response must sum exactly the series that it
//! claims to cover, and its cost must be bounded.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::dynamo::{TOPIC, TestTables};
use super::{NOW_MS, ask, get};
use crate::core::keys;

const CITIES: i64 = 75;
const TYPES: [&str; 4] = ["traffic", "weather", "incident", "construction"];

/// Writes 300 series, each with one window within the last hour. Every third series has a late event.
async fn three_hundred_series() -> TestTables {
    let tables = TestTables::new().await;
    let log = keys::log_key(TOPIC, 0);
    for city in 0..CITIES {
        for (kind, event_type) in (0..).zip(TYPES) {
            let series = format!("City {city:02}#{event_type}");
            let n = city * 4 + kind;
            let (low, high, late) = (n + 1, n % 5, i64::from(n % 3 == 0));
            let start_ms = NOW_MS - (1 + n % 11) * 300_000;
            let counts = [low, 0, high, 0];
            tables
                .window_of(&series, start_ms, counts, std::slice::from_ref(&log))
                .await;
            let total = [low + high, late, low, late, high, 0];
            tables.total(&series, total).await;
        }
    }
    tables.progress(&log, NOW_MS - 1_800_000).await;
    tables
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// Sums the counts in all steps of a series or of `others`, separately for each severity.
fn steps(series: &Value) -> [u64; 4] {
    let mut sums = [0; 4];
    for step in series["steps"].as_array().unwrap() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum += number(&step[n + 1]);
        }
    }
    sums
}

/// Checks that the counts of all series in a timeline add up to the totals of the timeline.
fn adds_up(value: &Value, uri: &str) {
    let others = &value["others"];
    let all = value["series"].as_array().unwrap().iter().chain([others]);
    let (mut range, mut all_time) = ([0; 4], BTreeMap::<&str, u64>::new());
    for one in all {
        for (sum, count) in range.iter_mut().zip(steps(one)) {
            *sum += count;
        }
        for name in keys::SUMS {
            *all_time.entry(name).or_default() += number(&one[name]);
        }
    }
    let totals = &value["totals"];
    assert_eq!(
        range.iter().sum::<u64>(),
        number(&totals["event_count"]),
        "{uri}"
    );
    for (name, sum) in keys::SUMS[2..].iter().zip(range) {
        assert_eq!(sum, number(&totals[name]), "{uri}: {name}");
    }
    for name in keys::SUMS {
        assert_eq!(
            all_time[name],
            number(&value["all_time"][name]),
            "{uri}: {name}"
        );
    }
    let listed = value["series"].as_array().unwrap().len() as u64;
    let (total, rest) = (&value["series_total"], &others["series_count"]);
    assert_eq!(listed + number(rest), number(total), "{uri}");
}

#[tokio::test]
async fn timelines_of_300_series_agree_with_stats_and_cities() {
    let router = three_hundred_series().await.router();
    let stats = get(&router, "/api/v1/stats").await;
    let cities = get(&router, "/api/v1/cities").await;
    let events = number(&stats["total_events_processed"]);
    assert_eq!(number(&cities["total_events"]), events);
    assert_eq!(
        (&cities["count"], &cities["city_count"]),
        (&json!(75), &json!(75))
    );
    for query in [
        "",
        "&series_limit=1",
        "&series_limit=7",
        "&series_limit=1000",
    ] {
        for hours in [1, 6, 24, 168] {
            let uri = format!("/api/v1/timeline?hours={hours}{query}");
            let value = get(&router, &uri).await;
            adds_up(&value, &uri);
            let (all, totals) = (&value["all_time"], &value["totals"]);
            assert_eq!(
                number(&all["event_count"]) + number(&all["late_count"]),
                events
            );
            assert_eq!(all["late_count"], stats["late_events"]);
            assert_eq!(all["severity_high"], stats["high_severity_alerts"]);
            // Every tested range contains all windows, so the totals of the range equal the all-time totals.
            assert_eq!(totals["event_count"], all["event_count"], "{uri}");
            assert_eq!(totals["late_count"], all["late_count"], "{uri}");
            assert_eq!(
                (&value["series_read"], &value["series_total"]),
                (&json!(300), &json!(300))
            );
        }
    }
}

#[tokio::test]
async fn a_filtered_timeline_agrees_with_summary_and_cities() {
    let router = three_hundred_series().await.router();
    let cities = get(&router, "/api/v1/cities").await;
    for city in ["City 07", "City 74"] {
        let summary = get(
            &router,
            &format!("/api/v1/summary/{}", city.replace(' ', "%20")),
        )
        .await;
        let uri = format!(
            "/api/v1/timeline?city={}&series_limit=1",
            city.replace(' ', "+")
        );
        let value = get(&router, &uri).await;
        adds_up(&value, &uri);
        let all = &value["all_time"];
        let sum = number(&all["event_count"]) + number(&all["late_count"]);
        assert_eq!(sum, number(&summary["total_events"]));
        let listed = cities["cities"].as_array().unwrap();
        let listed = listed.iter().find(|one| one["city"] == city).unwrap();
        assert_eq!(listed["total_events"], summary["total_events"]);
    }
    let high = get(
        &router,
        "/api/v1/timeline?severity=high&event_type=weather&series_limit=2",
    )
    .await;
    assert_eq!(
        high["totals"]["event_count"],
        high["totals"]["severity_high"]
    );
    assert_eq!(
        high["totals"]["event_count"],
        high["all_time"]["severity_high"]
    );
    assert_eq!(high["series_total"], 75);
}

#[tokio::test]
async fn an_unknown_city_or_event_type_gives_an_empty_answer() {
    let router = three_hundred_series().await.router();
    for query in ["city=Atlantis", "event_type=flood"] {
        let value = get(&router, &format!("/api/v1/timeline?{query}")).await;
        adds_up(&value, query);
        assert_eq!(
            (&value["series_total"], &value["all_time"]["event_count"]),
            (&json!(0), &json!(0))
        );
        assert_eq!(value["newest_window_start"], Value::Null);
    }
}

#[tokio::test]
async fn pages_of_cities_list_each_city_once_and_sum_the_others() {
    let router = three_hundred_series().await.router();
    let whole = get(&router, "/api/v1/cities").await;
    let (mut cursor, mut found) = (String::new(), Vec::new());
    loop {
        let page = get(&router, &format!("/api/v1/cities?limit=20{cursor}")).await;
        let listed = page["cities"].as_array().unwrap();
        let sum: u64 = listed.iter().map(|one| number(&one["total_events"])).sum();
        assert_eq!(
            sum + number(&page["others"]["total_events"]),
            number(&page["total_events"])
        );
        found.extend(listed.clone());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(json!(found), whole["cities"]);
    let (status, value, _) = ask(&router, "GET", "/api/v1/cities?cursor=AAAA").await;
    assert_eq!(
        (status.as_u16(), &value["code"]),
        (400, &json!("bad_cursor"))
    );
}

/// Requests `uri`, and returns the number of read units that the header `server-timing` of the response reports.
async fn units(router: &axum::Router, uri: &str) -> f64 {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let timing = response.headers()["server-timing"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(response.status(), 200, "{uri}");
    let words = timing.split(", ").nth(1).unwrap();
    words.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn requests_within_one_step_of_to_share_their_cost() {
    let router = three_hundred_series().await.router();
    let first = units(
        &router,
        "/api/v1/timeline?hours=1&to=2013-01-02T05:59:00.001Z",
    )
    .await;
    assert!((300.0..1_000.0).contains(&first), "{first}");
    for ms in 2..20 {
        let uri = format!("/api/v1/timeline?hours=1&to=2013-01-02T05:59:00.{ms:03}Z");
        let more = units(&router, &uri).await;
        assert!(more.abs() < 0.01, "{uri}: {more}");
    }
}

#[tokio::test]
async fn a_filter_without_matches_reads_large_pages() {
    let tables = TestTables::new().await;
    for n in 0..500 {
        let at = NOW_MS - n * 1_000;
        let severity = crate::core::event::Severity::Critical;
        tables.alert("NYC", &format!("e{n}"), at, severity).await;
    }
    let router = tables.router();
    let uri = "/api/v1/alerts?city=NYC&severity=high&limit=1";
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let timing = response.headers()["server-timing"]
        .to_str()
        .unwrap()
        .to_owned();
    let requests = timing.split('"').nth(1).unwrap().split(' ').next().unwrap();
    assert!(requests.parse::<u32>().unwrap() <= 7, "{timing}");
}
