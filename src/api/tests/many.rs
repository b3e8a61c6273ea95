//! More series than an answer may read. A stand-in for DynamoDB, below the SDK, generates them page by page and charges
//! the capacity units of items of their size.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use axum::Router;
use serde_json::{Value, json};

use super::{NOW_MS, ask, get};
use crate::api::state::ApiState;
use crate::core::keys::TableNames;
use crate::store::embedded::client_through;
use crate::store::reads::DynamoReads;
use crate::telemetry::Metrics;

/// Size of a typical totals row.
const ROW_BYTES: usize = 210;
/// Maximum number of read units of one answer about sums, for any number of series.
const UNITS_MAX: f64 = 750.0;

/// A table with `series` totals rows of one event each, and with three progress items.
#[derive(Debug)]
struct Many {
    series: usize,
    /// Events that each progress item counts, if it knows its sums.
    kept: Option<usize>,
    slow: Duration,
    queries: AtomicUsize,
}

impl Many {
    /// Returns the answer to a Query.
    fn query(&self, request: &Value) -> Value {
        let shard = request["ExpressionAttributeValues"]
            .as_object()
            .and_then(|values| values.values().next())
            .and_then(|value| value["S"].as_str())
            .unwrap();
        let n = |number: usize| json!({ "N": number.to_string() });
        let Some(lane) = shard.strip_prefix("totals#") else {
            let item = |partition: usize| {
                let mut item = json!({
                    "shard": {"S": shard}, "series": {"S": format!("T#{partition}")},
                    "next": n(9_000), "late_count": n(1), "severity_low": n(1),
                    "severity_medium": n(0), "severity_critical": n(0),
                });
                if let Some(kept) = self.kept {
                    item["sums_next"] = n(9_000);
                    item["event_count"] = n(kept);
                    item["severity_high"] = n(kept);
                }
                item
            };
            let items: Vec<Value> = (0..3).map(item).collect();
            return json!({"Items": items, "ConsumedCapacity": {"CapacityUnits": 1.0}});
        };
        let lane: usize = lane.parse().unwrap();
        let own = (self.series + 15 - lane) / 16;
        let start = request["ExclusiveStartKey"]["series"]["S"].as_str();
        let from = start.map_or(0, |series| series[1..9].parse::<usize>().unwrap() + 1);
        let limit = usize::try_from(request["Limit"].as_u64().unwrap()).unwrap();
        let to = own.min(from + limit.min((1 << 20) / ROW_BYTES));
        let key = |at: usize| format!("c{at:08}.{lane}#traffic");
        let item = |at: usize| {
            json!({
                "shard": {"S": shard}, "series": {"S": key(at)}, "event_count": n(1),
                "late_count": n(0), "severity_low": n(1), "severity_medium": n(0),
                "severity_high": n(0), "severity_critical": n(0),
            })
        };
        let units = ((to - from) * ROW_BYTES).div_ceil(4_096).max(1) as f64 / 2.0;
        let mut answer = json!({
            "Items": (from..to).map(item).collect::<Vec<_>>(),
            "ConsumedCapacity": {"CapacityUnits": units},
        });
        if to < own {
            let last = json!({"shard": {"S": shard}, "series": {"S": key(to - 1)}});
            answer["LastEvaluatedKey"] = last;
        }
        answer
    }
}

#[derive(Debug)]
struct Connector(Arc<Many>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let many = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(many.slow).await;
            many.queries.fetch_add(1, Ordering::Relaxed);
            let body = request.body().bytes().unwrap_or_default();
            let request: Value = serde_json::from_slice(body).unwrap();
            let mut answer = many.query(&request);
            answer["ConsumedCapacity"]["TableName"] = request["TableName"].clone();
            let answer = answer.to_string().into_bytes();
            let mut response =
                HttpResponse::new(StatusCode::try_from(200).unwrap(), SdkBody::from(answer));
            let headers = response.headers_mut();
            headers.insert("content-type", "application/x-amz-json-1.0");
            Ok(response)
        })
    }
}

/// Returns a router on `series` series, with its metrics.
async fn over(many: Many) -> (Router, Metrics, Arc<Many>) {
    let many = Arc::new(many);
    let connector = SharedHttpConnector::new(Connector(Arc::clone(&many)));
    let client = client_through(http_client_fn(move |_, _| connector.clone())).await;
    let metrics = Metrics::new();
    let names = TableNames::new("citystream");
    let reads = DynamoReads::new(client.unwrap(), names, metrics.clone());
    let state = ApiState::new(Arc::new(reads), metrics.clone()).with_clock(|| NOW_MS);
    (super::super::router(state), metrics, many)
}

fn many(series: usize, kept: Option<usize>) -> Many {
    Many {
        series,
        kept,
        slow: Duration::ZERO,
        queries: AtomicUsize::new(0),
    }
}

/// Returns the read units spent so far.
fn units(metrics: &Metrics) -> f64 {
    let rendered = metrics.render();
    let name = "citystream_dynamodb_consumed_capacity_units_total{";
    let lines = rendered.lines().filter(|line| line.starts_with(name));
    let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    values.sum()
}

#[tokio::test]
async fn stats_over_any_number_of_series_cost_a_bounded_number_of_read_units() {
    // A million and 300,000 series cost no more than the most that is read completely.
    for (series, kept) in [(20_000, false), (300_000, true), (1_000_000, true)] {
        let (router, metrics, many) = over(many(series, Some(99_999))).await;
        let stats = get(&router, "/api/v1/stats").await;
        let events = if kept { 300_000 } else { 20_000 };
        assert_eq!(stats["total_events_processed"], events, "{series}: {stats}");
        let over = kept.then_some("partitions");
        assert_eq!(stats["summed_over"].as_str(), over, "{series}: {stats}");
        let late = if kept { 3 } else { 0 };
        assert_eq!(stats["late_events"], late, "{series}: {stats}");
        let first = units(&metrics);
        assert!((400.0..=UNITS_MAX).contains(&first), "{series}: {first}");
        if kept {
            // The cache remembers that there are too many, so the next answer costs one Query on the progress items.
            let queries = many.queries.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            get(&router, "/api/v1/stats").await;
            assert_eq!(units(&metrics) - first, 1.0, "{series}");
            assert_eq!(many.queries.load(Ordering::Relaxed), queries + 1);
            // The metric shows them, so the alert on the number of series can fire.
            let rendered = metrics.render();
            let gauge = rendered
                .lines()
                .find(|line| line.starts_with("citystream_table_series "))
                .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            assert!(gauge.unwrap() > 10_000.0, "{gauge:?}");
        }
    }
}

#[tokio::test]
async fn series_are_read_if_a_progress_item_does_not_know_its_sums() {
    let (router, metrics, _) = over(many(40_000, None)).await;
    // A read continues after its request has given up.
    let mut answer = ask(&router, "GET", "/api/v1/stats").await;
    for _ in 0..20 {
        if answer.0.as_u16() != 504 {
            break;
        }
        answer = ask(&router, "GET", "/api/v1/stats").await;
    }
    let stats = answer.1;
    assert_eq!(stats["total_events_processed"], 40_000, "{stats}");
    assert_eq!(stats["summed_over"], Value::Null, "{stats}");
    assert!(units(&metrics) > 1_000.0);
}

#[tokio::test]
async fn all_time_comes_from_progress_items_however_slowly_series_are_read() {
    let (router, _, _) = over(Many {
        // Each lane has 75 pages to read, which takes longer than any answer may.
        slow: Duration::from_millis(60),
        ..many(300_000, Some(99_999))
    })
    .await;
    let timeline = get(&router, "/api/v1/timeline?hours=1").await;
    assert_eq!(timeline["all_time"]["event_count"], 299_997, "{timeline}");
    assert_eq!(timeline["all_time"]["late_count"], 3, "{timeline}");
}
