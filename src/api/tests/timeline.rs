//! Tests which windows a timeline reads, caches and shows, on the embedded database.

use serde_json::json;

use super::dynamo::{OLD_TOPIC, TOPIC, TestTables};
use super::{NOW_MS, get};
use crate::core::keys;

#[tokio::test]
async fn a_timeline_shows_every_series_and_reads_final_windows_once() {
    let tables = TestTables::new().await;
    let log = keys::log_key(TOPIC, 0);
    let ago = |minutes: i64| NOW_MS - minutes * 60_000;
    tables.total("NYC#traffic", [20, 2, 4, 0, 13, 5]).await;
    tables.total("LA#weather", [1, 0, 1, 0, 0, 0]).await;
    // The test writes two windows in an old hour, one window in the previous hour, and one window in the current hour.
    for minutes in [5 * 60, 5 * 60 - 5, 65, 5] {
        tables
            .window(ago(minutes), std::slice::from_ref(&log))
            .await;
    }
    tables.progress(&log, ago(30)).await;
    let units = |operation: &str| {
        let name = format!(
            "citystream_dynamodb_consumed_capacity_units_total{{operation=\"{operation}\",table=\"citystream-aggregations\"}} "
        );
        let text = tables.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&name));
        line.map_or(0.0, |line| line[name.len()..].parse::<f64>().unwrap())
    };
    let router = tables.router();
    let value = get(&router, "/api/v1/timeline?hours=6").await;
    assert_eq!(value["from"], "2013-01-02T00:05:00Z");
    assert_eq!(value["to"], "2013-01-02T06:05:00Z");
    assert_eq!(value["step_seconds"], 300);
    assert_eq!(value["open"], json!([70]));
    assert_eq!(
        (&value["series_count"], &value["series_total"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        value["series"][0],
        json!({"city": "NYC", "event_type": "traffic", "event_count": 20, "late_count": 2,
               "severity_low": 4, "severity_medium": 0, "severity_high": 13, "severity_critical": 5,
               "steps": [[11, 1, 0, 3, 1], [12, 1, 0, 3, 1], [58, 1, 0, 3, 1], [70, 1, 0, 3, 1]]})
    );
    assert_eq!(value["series"][1]["steps"], json!([]));
    // The second query differs from the first query, so the server does not use the cached response. For the second
    // response, the server reads only the row of the open window, because the other three window rows are cached.
    let rows = units("BatchGetItem");
    let again = get(
        &router,
        "/api/v1/timeline?hours=6&to=2013-01-02T06:00:00.001Z&series_limit=51",
    )
    .await;
    assert_eq!(again["series"], value["series"]);
    let more = units("BatchGetItem") - rows;
    assert!(
        (rows - 4.0).abs() < 0.01 && (more - 1.0).abs() < 0.01,
        "{more} after {rows}"
    );
    // After the open window has become final, the server reads the row of the window once more and then caches the row.
    tables.total("NYC#traffic", [25, 2, 5, 0, 16, 6]).await;
    tables.progress(&log, NOW_MS).await;
    for (limit, read) in [(52, 2.0), (53, 2.0)] {
        let uri = format!("/api/v1/timeline?hours=6&series_limit={limit}");
        let value = get(&router, &uri).await;
        assert_eq!(value["open"], json!([]));
        let more = units("BatchGetItem") - rows;
        assert!((more - read).abs() < 0.01, "{more}");
    }
    assert!(!tables.metrics.render().contains("operation=\"Scan\""));
}

#[tokio::test]
async fn a_series_of_a_partition_that_lags_behind_shows_its_windows_at_once() {
    let tables = TestTables::new().await;
    let (log, lagging) = (keys::log_key(TOPIC, 0), keys::log_key(TOPIC, 1));
    let ago = |minutes: i64| NOW_MS - minutes * 60_000;
    tables.total("NYC#traffic", [20, 2, 4, 0, 13, 5]).await;
    tables.window(ago(5), std::slice::from_ref(&log)).await;
    tables.progress(&log, ago(30)).await;
    tables.progress(&lagging, ago(5 * 60)).await;
    let router = tables.router();
    let value = get(&router, "/api/v1/timeline?hours=6").await;
    assert_eq!(value["totals"]["event_count"], 5);
    // The consumer of the lagging partition counts an event in a window that began three hours ago, in an hour that had
    // no events before.
    tables.window(ago(180), &[lagging]).await;
    let value = get(&router, "/api/v1/timeline?hours=6&series_limit=51").await;
    assert_eq!(value["totals"]["event_count"], 10);
}

#[tokio::test]
async fn a_window_that_a_new_topic_may_still_change_is_not_cached_as_final() {
    let tables = TestTables::new().await;
    let (log, old_log) = (keys::log_key(TOPIC, 0), keys::log_key(OLD_TOPIC, 0));
    let start_ms = NOW_MS - 600_000;
    tables.total("NYC#traffic", [5, 0, 1, 0, 3, 1]).await;
    tables
        .window(start_ms, std::slice::from_ref(&old_log))
        .await;
    tables.progress(&old_log, start_ms).await;
    tables.set_topic_id(OLD_TOPIC).await;
    let router = tables.router();
    // Each query differs from the previous queries, so the server uses no cached response.
    let open = async |n: u8| {
        let uri = format!("/api/v1/timeline?hours=6&to=2013-01-02T06:00:00Z&series_limit={n}");
        get(&router, &uri).await["open"].clone()
    };
    assert_eq!(open(1).await, json!([70]));
    // After the topic was recreated, the window row has no fence of the new topic yet, so the response does not list
    // the window as open.
    tables.set_topic_id(TOPIC).await;
    assert_eq!(open(2).await, json!([]));
    tables.window(start_ms, &[old_log, log.clone()]).await;
    assert_eq!(open(3).await, json!([70]));
    tables.progress(&log, NOW_MS).await;
    assert_eq!(open(4).await, json!([]));
    // The topic is recreated once more, and the window row then gets a fence of the newest topic. The window is
    // therefore open again.
    tables.set_topic_id("CCCCCCCCCCCCCCCCCCCCCC").await;
    tables
        .window(start_ms, &[log, keys::log_key("CCCCCCCCCCCCCCCCCCCCCC", 0)])
        .await;
    assert_eq!(open(5).await, json!([70]));
}

#[tokio::test]
async fn a_timeline_without_recent_events_ends_with_the_newest_window() {
    let tables = TestTables::new().await;
    tables.total("NYC#traffic", [5, 0, 1, 0, 3, 1]).await;
    let days = |n: i64| n * 86_400_000;
    tables.window(NOW_MS - days(9), &[]).await;
    tables.window(NOW_MS - days(8), &[]).await;
    // A window in the future, from a producer with a wrong clock, must not hide all other windows.
    tables.window(NOW_MS + days(400), &[]).await;
    let router = tables.router();
    let value = get(&router, "/api/v1/timeline?hours=1").await;
    assert_eq!(value["to"], "2012-12-25T06:05:00Z");
    assert_eq!(value["series"][0]["steps"], json!([[11, 1, 0, 3, 1]]));
    // If the request has the parameter `to`, the range ends at the time in `to`.
    let value = get(&router, "/api/v1/timeline?to=2013-01-02T06:00:00Z").await;
    assert_eq!(value["to"], "2013-01-02T06:00:00Z");
    assert_eq!(value["series"][0]["steps"], json!([]));
}

#[tokio::test]
async fn a_long_range_of_many_series_is_answered_at_once_and_continues() {
    const CITIES: usize = 40;
    const HOURS: i64 = 24;
    let tables = TestTables::new().await;
    let log = keys::log_key(TOPIC, 0);
    for city in 0..CITIES {
        let series = format!("City {city:02}#traffic");
        for n in 1..=HOURS * 12 {
            let start_ms = NOW_MS - n * 300_000;
            let logs = std::slice::from_ref(&log);
            tables
                .window_of(&series, start_ms, [1, 0, 0, 0], logs)
                .await;
        }
        // A city with a lower number has a larger total, so the response lists the series in the order of the city
        // numbers.
        let total = 1_000 - i64::try_from(city).unwrap();
        tables.total(&series, [total, 0, total, 0, 0, 0]).await;
    }
    tables.progress(&log, NOW_MS).await;
    let router = tables.router();
    let mut read = Vec::new();
    loop {
        // Each query differs from the previous queries, so the server uses no cached response.
        let uri = format!(
            "/api/v1/timeline?hours=24&to=2013-01-02T06:00:00Z&series_limit={}",
            read.len() + 1
        );
        let value = get(&router, &uri).await;
        let covered = value["series_read"].as_u64().unwrap();
        read.push(covered);
        // The response covers only the largest series, and counts all windows of each series that it covers.
        assert_eq!(value["totals"]["event_count"], covered * 288, "{read:?}");
        assert_eq!(value["series_total"], CITIES);
        assert_eq!(value["all_time"]["event_count"], 1_000 * CITIES - 780);
        assert_eq!(value["series"][0]["city"], "City 00");
        if value["partial"].is_null() {
            break;
        }
        assert!(read.len() < 8, "{read:?}");
    }
    // The server reads the windows of seven series at a time, so the first response covers at least seven series. The
    // read ceiling of a request allows at most 28 series, including the reads in flight.
    assert!((7..=28).contains(&read[0]), "{read:?}");
    assert_eq!(*read.last().unwrap(), 40, "{read:?}");
}
