//! Tests the API on tables with more series than a response may read. A fake of DynamoDB replaces the SDK's HTTP client
//! and generates the series page by page. The fake reports the capacity units that items of a typical size would cost.

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

/// Number of bytes of a typical totals row.
const ROW_BYTES: usize = 210;
/// Maximum cost of a response that contains sums over all series, in read units.
const UNITS_MAX: f64 = 750.0;

/// A fake table with `series` totals rows of one event each, and with three progress items.
#[derive(Debug)]
struct Many {
    series: usize,
    /// Number of events that each progress item counts, or `None` if the progress items have no sums.
    kept: Option<usize>,
    /// Number of requests that the fake answers. Later requests never get a response.
    answers_max: usize,
    queries: AtomicUsize,
}

impl Many {
    /// Returns the response to a Query.
    fn query(&self, request: &Value) -> Value {
        let value = |name: &str| request["ExpressionAttributeValues"][name]["S"].as_str();
        let n = |number: usize| json!({ "N": number.to_string() });
        if request["Key"].is_object() {
            return read_by_key(request);
        }
        if value(":pk").is_some() {
            return json!({"Items": [], "ConsumedCapacity": {"CapacityUnits": 0.5}});
        }
        let shard = value(":shard").or(value(":progress")).unwrap();
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
        let key = |at: usize| format!("c{at:08}.{lane}#traffic");
        let number = |series: &str| series[1..9].parse::<usize>().unwrap();
        let start = request["ExclusiveStartKey"]["series"]["S"].as_str();
        let from = match start.or(value(":after")).or(value(":city")) {
            Some(name) if *name < *key(number(name)) => number(name),
            Some(name) => number(name) + 1,
            None => 0,
        };
        let limit = usize::try_from(request["Limit"].as_u64().unwrap()).unwrap();
        let mut to = own.min(from + limit.min((1 << 20) / ROW_BYTES));
        if let Some(city) = value(":city") {
            to = from + usize::from(from < own && key(from).starts_with(city));
        }
        let from = from.min(to);
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
        if to < own && value(":city").is_none() {
            let last = json!({"shard": {"S": shard}, "series": {"S": key(to - 1)}});
            answer["LastEvaluatedKey"] = last;
        }
        answer
    }
}

/// Returns the response to a GetItem request. The fake table has a config item, but no item about rollups.
fn read_by_key(request: &Value) -> Value {
    let text = |text: &str| json!({ "S": text });
    let n = |number: usize| json!({ "N": number.to_string() });
    if request["Key"]["shard"] == text("rollups") {
        return json!({"ConsumedCapacity": {"CapacityUnits": 0.5}});
    }
    let config = json!({
        "shard": text("config"), "series": text("tables"), "rules": n(1), "shards": n(4),
        "window_ms": n(300_000), "lateness_ms": n(600_000), "skew_ms": n(300_000),
        "raw": text("all"), "tables": text("T"), "topic": text("city-events"),
        "topic_id": text("AAAAAAAAAAAAAAAAAAAAAA"),
    });
    json!({"Item": config, "ConsumedCapacity": {"CapacityUnits": 0.5}})
}

#[derive(Debug)]
struct Connector(Arc<Many>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let many = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            if many.queries.fetch_add(1, Ordering::Relaxed) >= many.answers_max {
                std::future::pending::<()>().await;
            }
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

/// Returns a router that reads from the fake table `many`, and the metrics of the router. The deadline of a response is
/// long enough for a busy test host.
async fn over(many: Many) -> (Router, Metrics, Arc<Many>) {
    over_within(many, Duration::from_secs(300)).await
}

async fn over_within(many: Many, deadline: Duration) -> (Router, Metrics, Arc<Many>) {
    let many = Arc::new(many);
    let connector = SharedHttpConnector::new(Connector(Arc::clone(&many)));
    let client = client_through(http_client_fn(move |_, _| connector.clone())).await;
    let metrics = Metrics::new();
    let names = TableNames::new("citystream");
    let reads = DynamoReads::new(client.unwrap(), names, metrics.clone());
    let state = ApiState::new(Arc::new(reads), metrics.clone())
        .with_clock(|| NOW_MS)
        .with_deadline(deadline);
    (super::super::router(state), metrics, many)
}

fn many(series: usize, kept: Option<usize>) -> Many {
    Many {
        series,
        kept,
        answers_max: usize::MAX,
        queries: AtomicUsize::new(0),
    }
}

/// Returns the number of read units that the router has spent so far.
fn units(metrics: &Metrics) -> f64 {
    let rendered = metrics.render();
    let name = "citystream_dynamodb_consumed_capacity_units_total{";
    let lines = rendered.lines().filter(|line| line.starts_with(name));
    let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    values.sum()
}

#[tokio::test]
async fn stats_over_any_number_of_series_cost_a_bounded_number_of_read_units() {
    // The maximum cost does not depend on the number of series. The server reads all series if there are 20,000 of
    // them, but not if there are 300,000 or a million.
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
            // The server remembers that there are too many series to read. The next request does not try again, and
            // costs only one Query for the progress items.
            let queries = many.queries.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            get(&router, "/api/v1/stats").await;
            assert_eq!(units(&metrics) - first, 1.0, "{series}");
            assert_eq!(many.queries.load(Ordering::Relaxed), queries + 1);
            // The metric `citystream_table_series` shows that there are many series, so that an alert on the metric can
            // warn the operator.
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
    let stats = get(&router, "/api/v1/stats").await;
    assert_eq!(stats["total_events_processed"], 40_000, "{stats}");
    assert_eq!(stats["summed_over"], Value::Null, "{stats}");
    assert!(units(&metrics) > 1_000.0);
}

#[tokio::test]
async fn all_time_comes_from_progress_items_while_series_cannot_be_listed() {
    let many = Many {
        // Reading the sums takes about a hundred requests, and reading all series would take more than 200 requests.
        answers_max: 200,
        ..many(300_000, Some(99_999))
    };
    let (router, _, _) = over_within(many, Duration::from_secs(20)).await;
    let timeline = get(&router, "/api/v1/timeline?hours=1").await;
    assert_eq!(timeline["all_time"]["event_count"], 299_997, "{timeline}");
    assert_eq!(timeline["all_time"]["late_count"], 3, "{timeline}");
}

#[tokio::test]
async fn cities_beyond_the_bound_are_paged_by_name_at_a_bounded_cost() {
    for series in [25_000, 210_000, 1_000_000] {
        let (router, metrics, many) = over(many(series, Some(99_999))).await;
        let first = get(&router, "/api/v1/cities").await;
        // The response costs as much as one attempt to read all series and one read of a page of series.
        assert!(
            units(&metrics) < UNITS_MAX + 200.0,
            "{series}: {}",
            units(&metrics)
        );
        assert_eq!(first["order"], "name", "{series}");
        assert_eq!(
            first["total_events"],
            300_000.max(first["count"].as_u64().unwrap())
        );
        assert_eq!(first["city_count"], Value::Null);
        let sum =
            first["others"]["total_events"].as_u64().unwrap() + first["count"].as_u64().unwrap();
        assert_eq!(sum, 300_000);
        let mut last = String::new();
        let (mut count, mut page, mut pages) = (0, first, 0);
        loop {
            for city in page["cities"].as_array().unwrap() {
                let name = city["city"].as_str().unwrap();
                assert!(name > last.as_str(), "{name} after {last}");
                name.clone_into(&mut last);
                assert_eq!(city["total_events"], 1);
                count += 1;
            }
            pages += 1;
            let Some(next) = page["next"].as_str() else {
                assert_eq!(count, series);
                break;
            };
            if pages == 30 {
                break;
            }
            let (before, queries) = (units(&metrics), many.queries.load(Ordering::Relaxed));
            page = get(&router, &format!("/api/v1/cities?cursor={next}")).await;
            let (cost, queries) = (
                units(&metrics) - before,
                many.queries.load(Ordering::Relaxed) - queries,
            );
            assert!(
                cost < 200.0 && queries < 60,
                "{series}: {cost} units, {queries} queries"
            );
        }
        let few = get(&router, "/api/v1/cities?limit=3").await;
        assert_eq!(few["count"], 3);
        let next = few["next"].as_str().unwrap();
        let more = get(&router, &format!("/api/v1/cities?limit=2&cursor={next}")).await;
        assert_eq!(more["count"], 2);
    }
}

#[tokio::test]
async fn a_timeline_of_one_event_type_or_city_is_answered_at_any_number_of_series() {
    let (router, metrics, _) = over(many(210_000, Some(99_999))).await;
    let city = get(&router, "/api/v1/timeline?hours=1&city=c00000005.3").await;
    assert_eq!(city["all_time"]["event_count"], 1, "{city}");
    assert_eq!(city["series"][0]["city"], "c00000005.3");
    assert!(units(&metrics) < UNITS_MAX, "{}", units(&metrics));
    let traffic = get(&router, "/api/v1/timeline?hours=1&event_type=traffic").await;
    assert_eq!(traffic["series_total"], 210_000);
    assert_eq!(traffic["all_time"]["event_count"], 210_000);
    assert_eq!(traffic["series_read"], 400);
    assert_eq!(traffic["others"]["event_count"], 209_950);
    let flood = get(&router, "/api/v1/timeline?hours=1&event_type=flood").await;
    assert_eq!(flood["series_total"], 0);
}

#[tokio::test]
async fn a_list_of_series_costs_a_bounded_number_of_read_units() {
    let (router, metrics, _) = over(many(1_000_000, Some(99_999))).await;
    let all = get(&router, "/api/v1/timeline?hours=1").await;
    assert_eq!(all["all_time"]["event_count"], 299_997, "{all}");
    let (status, refusal, _) = ask(
        &router,
        "GET",
        "/api/v1/timeline?hours=1&event_type=traffic",
    )
    .await;
    assert_eq!(
        (status.as_u16(), &refusal["code"]),
        (503, &json!("too_many_series"))
    );
    let spent = units(&metrics);
    assert!((6_000.0..7_500.0).contains(&spent), "{spent}");
}

#[tokio::test]
async fn sums_of_too_many_series_are_refused_if_progress_items_do_not_know_them() {
    let (router, metrics, _) = over(many(1_000_000, None)).await;
    let (status, refusal, _) = ask(&router, "GET", "/api/v1/stats").await;
    assert_eq!(
        (status.as_u16(), &refusal["code"]),
        (503, &json!("read_ceiling"))
    );
    assert!(units(&metrics) < 7_500.0, "{}", units(&metrics));
}
