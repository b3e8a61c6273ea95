//! Tests windows on the embedded database: when windows become final, and how the list of windows is paged.

use serde_json::json;

use super::dynamo::{OLD_TOPIC, TOPIC, TestTables, each, walk};
use super::{NOW_MS, ask, get};
use crate::core::clock::UnixMs;
use crate::core::keys;

#[tokio::test]
async fn windows_are_final_once_every_watermark_has_passed() {
    let tables = TestTables::new().await;
    let start = |k: i64| NOW_MS - k * 300_000;
    let log = |topic: &str, partition: i32| keys::log_key(topic, partition);
    tables.progress(&log(TOPIC, 0), start(1)).await;
    tables.progress(&log(TOPIC, 1), start(3)).await;
    tables.progress(&log(OLD_TOPIC, 0), UnixMs(0)).await;
    // The following window ends at start(0), and no watermark has reached its end.
    tables.window(start(1), &[log(TOPIC, 0)]).await;
    // The following window ends at start(1), and only the watermark of partition 0 has reached its end.
    tables.window(start(2), &[log(TOPIC, 0)]).await;
    tables
        .window(start(3), &[log(TOPIC, 0), log(TOPIC, 1)])
        .await;
    tables
        .window(start(4), &[log(TOPIC, 0), log(TOPIC, 1)])
        .await;
    tables
        .window(start(5), &[log(OLD_TOPIC, 0), log(TOPIC, 1)])
        .await;
    tables.window(start(6), &[log(TOPIC, 2)]).await;
    let router = tables.router();
    let uri = "/api/v1/aggregations?city=NYC&event_type=traffic";
    let value = get(&router, uri).await;
    let finals: Vec<bool> = value["aggregations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["final"].as_bool().unwrap())
        .collect();
    assert_eq!(finals, [false, true, false, true, true, false]);
    assert_eq!(
        value["aggregations"][0],
        json!({"partition_key": "NYC#traffic#2013-01-02T05:55:00Z", "city": "NYC",
               "event_type": "traffic", "window_start": "2013-01-02T05:55:00Z",
               "window_end": "2013-01-02T06:00:00Z", "event_count": 5,
               "severities": ["low", "high", "critical"], "severity_low": 1,
               "severity_medium": 0, "severity_high": 3, "severity_critical": 1,
               "last_updated": "2013-01-02T06:00:00.000Z", "final": false})
    );
    let value = get(
        &router,
        &format!("{uri}&from=2013-01-02T05:45:00Z&to=2013-01-02T05:55:00Z"),
    )
    .await;
    let starts = each(&value, "aggregations", "window_start");
    assert_eq!(starts, ["2013-01-02T05:50:00Z", "2013-01-02T05:45:00Z"]);
    // All watermarks have passed 05:45, so windows that end at or before 05:45 no longer change.
    for (range, age) in [
        (
            "to=2013-01-02T05:45:00Z&limit=2&from=2013-01-02T05:40:00Z",
            "max-age=3600",
        ),
        ("to=2013-01-02T05:50:00Z&limit=2", "no-cache"),
        ("limit=2", "no-cache"),
    ] {
        let (_, value, headers) = ask(&router, "GET", &format!("{uri}&{range}")).await;
        assert!(headers.contains(age), "{range}: {value} {headers}");
        assert_eq!(value["watermark"], "2013-01-02T05:45:00.000Z");
    }
}

#[tokio::test]
async fn windows_are_read_over_many_batches_and_pages() {
    let tables = TestTables::new().await;
    for k in 1..=230 {
        tables
            .window(NOW_MS - k * 300_000, &[keys::log_key(TOPIC, 0)])
            .await;
    }
    let router = tables.router();
    let uri = "/api/v1/aggregations?city=NYC&eventType=TRAFFIC&";
    let whole = walk(&router, uri, "aggregations", "window_start", 1_000).await;
    assert_eq!(whole.len(), 230);
    assert!(whole.is_sorted_by(|a, b| a > b));
    for limit in [7, 115, 230] {
        let got = walk(&router, uri, "aggregations", "window_start", limit).await;
        assert_eq!(got, whole, "{limit}");
    }
}
