//! Tests the router on the embedded database, with the items that docs/TABLES.md describes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Intercept;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use serde_json::{Value, json};

use super::{NOW_MS, ask, get};
use crate::api::state::ApiState;
use crate::core::RULES;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::keys::{self, TableNames};
use crate::core::plan::RawRows;
use crate::core::time::{format_millis, format_seconds};
use crate::core::window::Rules;
use crate::store::config::{ConfigItem, create_config, new_tables_id, read_config, set_topic};
use crate::store::embedded;
use crate::store::reads::DynamoReads;
use crate::store::tables::{create, incidents_spec, specs};
use crate::telemetry::Metrics;

/// A topic id, which has 22 characters.
pub(super) const TOPIC: &str = "AAAAAAAAAAAAAAAAAAAAAA";
pub(super) const OLD_TOPIC: &str = "-_BBBBBBBBBBBBBBBBBBBB";
const SHARDS: u32 = 4;

pub(super) fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn n(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) struct TestTables {
    pub(super) client: Client,
    pub(super) names: TableNames,
    pub(super) metrics: Metrics,
}

impl TestTables {
    /// Creates empty tables with a config item.
    pub(super) async fn new() -> TestTables {
        let tables = TestTables::missing().await;
        tables.make().await;
        tables
    }

    pub(super) async fn make(&self) {
        for spec in specs(&self.names) {
            assert!(create(&self.client, &spec).await.unwrap());
        }
        let config = ConfigItem {
            rules: Rules::default(),
            shards: SHARDS,
            rules_number: RULES,
            raw: RawRows::All,
            tables_id: new_tables_id(),
            topic: Some("city-events".into()),
            topic_id: Some(TOPIC.into()),
        };
        let created = create_config(&self.client, &self.names, &config).await;
        assert!(created.unwrap());
    }

    /// Creates the incidents table, which only some installations have.
    pub(super) async fn make_incidents(&self) {
        let spec = incidents_spec(&self.names);
        assert!(create(&self.client, &spec).await.unwrap());
    }

    pub(super) async fn missing() -> TestTables {
        let client = embedded::client(dynoxide::Database::memory().unwrap())
            .await
            .unwrap();
        TestTables {
            client,
            names: TableNames::new("citystream"),
            metrics: Metrics::new(),
        }
    }

    pub(super) async fn put<const N: usize>(&self, table: &str, item: [(&str, AttributeValue); N]) {
        self.put_map(table, item.map(|(k, v)| (k.to_owned(), v)).into())
            .await;
    }

    pub(super) async fn put_map(&self, table: &str, item: HashMap<String, AttributeValue>) {
        let put = self
            .client
            .put_item()
            .table_name(table)
            .set_item(Some(item));
        put.send().await.unwrap();
    }

    pub(super) async fn event(
        &self,
        city: &str,
        id: &str,
        time_ms: UnixMs,
        more: &[(&str, AttributeValue)],
    ) {
        let mut item: HashMap<String, AttributeValue> = [
            ("event_id", s(id)),
            ("timestamp", s(format_millis(time_ms))),
            ("city", s(city)),
            ("event_type", s("traffic")),
            ("severity", s("high")),
            ("description", s("jam")),
            ("processing_time", s("2013-01-02T06:00:00.000Z")),
            ("ttl", n(NOW_MS.0 / 1_000 + 60)),
            ("source", s("city-events/0/0")),
            ("city_shard", s(keys::city_shard(city, id, SHARDS))),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        item.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.put_map(&self.names.raw, item).await;
    }

    pub(super) async fn alert(&self, city: &str, id: &str, time_ms: UnixMs, severity: Severity) {
        self.put(
            &self.names.alerts,
            [
                ("city", s(city)),
                ("timestamp", s(keys::alert_sk(time_ms, id))),
                ("event_id", s(id)),
                ("event_time", s(format_millis(time_ms))),
                ("event_type", s("incident")),
                ("severity", s(severity.name())),
                ("description", s("")),
                ("processing_time", s("2013-01-02T06:00:00.000Z")),
                (
                    "severity_shard",
                    s(keys::severity_shard(severity, id, SHARDS)),
                ),
                ("late", AttributeValue::Bool(id.starts_with("late"))),
            ],
        )
        .await;
    }

    /// Writes a window row of the series NYC#traffic with the given fences.
    pub(super) async fn window(&self, start_ms: UnixMs, fences: &[String]) {
        self.window_of("NYC#traffic", start_ms, [1, 0, 3, 1], fences)
            .await;
    }

    /// Writes a window row of a series with the given counts and fences.
    pub(super) async fn window_of(
        &self,
        series: &str,
        start_ms: UnixMs,
        counts: [i64; 4],
        fences: &[String],
    ) {
        let (city, event_type) = series.split_once('#').unwrap();
        let mut item: HashMap<String, AttributeValue> = [
            ("partition_key", s(keys::window_key(series, start_ms))),
            ("series", s(series)),
            ("city", s(city)),
            ("event_type", s(event_type)),
            ("window_start", s(format_seconds(start_ms))),
            ("window_end", s(format_seconds(start_ms + 300_000))),
            ("event_count", n(counts.iter().sum())),
            (
                "severities",
                AttributeValue::Ss(["critical", "low", "high"].map(String::from).into()),
            ),
            ("severity_low", n(counts[0])),
            ("severity_medium", n(counts[1])),
            ("severity_high", n(counts[2])),
            ("severity_critical", n(counts[3])),
            ("last_updated", s("2013-01-02T06:00:00.000Z")),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        for fence in fences {
            item.insert(format!("next#{fence}"), n(9));
            item.insert(format!("first#{fence}"), n(1));
        }
        self.put_map(&self.names.aggregations, item).await;
    }

    pub(super) async fn progress(&self, log_key: &str, watermark_ms: UnixMs) {
        self.put(
            &self.names.totals,
            [
                ("shard", s(keys::PROGRESS_PK)),
                ("series", s(log_key)),
                ("next", n(10)),
                ("max", n(watermark_ms.0 + 600_000)),
                ("watermark", n(watermark_ms.0)),
            ],
        )
        .await;
    }

    /// Changes the current topic id in the config item.
    pub(super) async fn set_topic_id(&self, topic_id: &str) {
        let config = read_config(&self.client, &self.names).await.unwrap();
        let known = config.unwrap().topic_id;
        let topic = "city-events";
        let set = set_topic(&self.client, &self.names, topic, topic_id, known.as_deref()).await;
        set.unwrap();
    }

    pub(super) async fn total(&self, series: &str, counts: [i64; 6]) {
        let mut item: HashMap<String, AttributeValue> = [
            ("shard", s(keys::totals_shard(series))),
            ("series", s(series)),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        for (name, count) in keys::SUMS.into_iter().zip(counts) {
            item.insert(name.to_owned(), n(count));
        }
        item.insert(format!("next#{TOPIC}#0"), n(1));
        self.put_map(&self.names.totals, item).await;
    }

    pub(super) fn rendered(&self) -> String {
        self.metrics.render()
    }

    pub(super) fn router(&self) -> Router {
        self.router_on(self.client.clone())
    }

    /// Returns a router whose DynamoDB requests go through `recorder`.
    pub(super) fn router_recorded(&self, recorder: impl Intercept + 'static) -> Router {
        let config = self.client.config().to_builder().interceptor(recorder);
        self.router_on(Client::from_conf(config.build()))
    }

    fn router_on(&self, client: Client) -> Router {
        let reads = DynamoReads::new(client, self.names.clone(), self.metrics.clone());
        let state = ApiState::new(Arc::new(reads), self.metrics.clone());
        // The deadline of a response is long enough for a busy test host.
        let state = state.with_deadline(Duration::from_secs(300));
        super::super::router(state.with_clock(|| NOW_MS))
    }
}

/// Returns the value of one field for each item of a list.
pub(super) fn each<'a>(value: &'a Value, list: &str, field: &str) -> Vec<&'a str> {
    let items = value[list].as_array().unwrap();
    items
        .iter()
        .map(|item| item[field].as_str().unwrap())
        .collect()
}

/// Reads all pages of a list, starting with the page at `uri`. Returns the value of `field` for each item.
pub(super) async fn walk(
    router: &Router,
    uri: &str,
    list: &str,
    field: &str,
    limit: usize,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut cursor = String::new();
    for _page in 0..10_000 {
        let value = get(router, &format!("{uri}limit={limit}{cursor}")).await;
        let page = each(&value, list, field);
        assert_eq!(value["count"], page.len());
        assert!(page.len() <= limit);
        out.extend(page.iter().map(|id| (*id).to_owned()));
        match value["next"].as_str() {
            Some(next) => {
                assert_eq!(page.len(), limit, "only the last page is short");
                cursor = format!("&cursor={next}");
            }
            None => return out,
        }
    }
    panic!("no end");
}

#[tokio::test]
async fn events_of_a_city_come_newest_first_from_all_shards() {
    let tables = TestTables::new().await;
    for n in 0..20 {
        tables
            .event("NYC", &format!("e{n}"), NOW_MS - n * 1_000, &[])
            .await;
    }
    tables.event("NYC 2", "other", NOW_MS, &[]).await;
    let flags = [
        ("late", AttributeValue::Bool(true)),
        ("future", AttributeValue::Bool(true)),
        ("extra", s(r#"{"b":1.50,"a":[1e3]}"#)),
        ("source", s("city-events/3/811")),
    ];
    tables.event("NYC", "flagged", NOW_MS + 1, &flags).await;
    // DynamoDB may delete an expired row up to two days after it has expired.
    tables
        .event(
            "NYC",
            "expired",
            NOW_MS + 2,
            &[("ttl", n(NOW_MS.0 / 1_000))],
        )
        .await;
    let router = tables.router();
    let value = get(&router, "/api/v1/events/NYC").await;
    let mut want = vec!["flagged".to_owned()];
    want.extend((0..19).map(|n| format!("e{n}")));
    assert_eq!(each(&value, "events", "event_id"), want);
    assert_eq!(value["count"], 20);
    assert!(value["next"].is_string());
    assert_eq!(
        value["events"][1],
        json!({"event_id": "e0", "timestamp": "2013-01-02T06:00:00.000Z", "city": "NYC",
               "event_type": "traffic", "severity": "high", "description": "jam",
               "processing_time": "2013-01-02T06:00:00.000Z", "ttl": NOW_MS.0 / 1_000 + 60,
               "source": "city-events/0/0"})
    );
    let flagged = &value["events"][0];
    assert_eq!(
        (&flagged["late"], &flagged["future"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(flagged["extra"], json!({"b": 1.5, "a": [1000.0]}));
    assert_eq!(flagged["source"], "city-events/3/811");
    // The parameter `from` is inclusive, `to` is exclusive, and a plus sign need not be escaped.
    let uri = "/api/v1/events/NYC?from=2013-01-02T05:59:58Z&to=2013-01-02T06:00:00.000+00:00";
    let value = get(&router, uri).await;
    assert_eq!(each(&value, "events", "event_id"), ["e1", "e2"]);
    assert!(value.get("next").is_none());
    let value = get(&router, "/api/v1/events/LA").await;
    assert_eq!(value, json!({"city": "LA", "count": 0, "events": []}));
}

#[tokio::test]
async fn paging_lists_every_event_exactly_once_even_at_one_instant() {
    let tables = TestTables::new().await;
    let mut want = BTreeSet::new();
    for n in 0..60 {
        // The test writes twenty events at each of three instants, spread over four shards. One third of the events has
        // expired.
        let ttl = if n % 3 == 0 { -1 } else { 60 };
        let id = format!("e{n}");
        let more = [("ttl", self::n(NOW_MS.0 / 1_000 + ttl))];
        tables
            .event("NYC", &id, NOW_MS - (n / 20) * 1_000, &more)
            .await;
        if ttl > 0 {
            want.insert(id);
        }
    }
    let router = tables.router();
    let whole = walk(&router, "/api/v1/events/NYC?", "events", "event_id", 1_000).await;
    assert_eq!(whole.iter().cloned().collect::<BTreeSet<_>>(), want);
    for limit in [1, 2, 3, 7, 20, 39, 40, 41] {
        let got = walk(&router, "/api/v1/events/NYC?", "events", "event_id", limit).await;
        assert_eq!(got, whole, "{limit}");
    }
    let first = get(&router, "/api/v1/events/NYC?limit=1").await;
    let next = first["next"].as_str().unwrap();
    for uri in [
        format!("/api/v1/events/LA?cursor={next}"),
        format!("/api/v1/events/NYC?from=2013-01-01T00:00:00Z&cursor={next}"),
        format!("/api/v1/alerts?cursor={next}"),
        format!("/api/v1/events/NYC?cursor=A{next}"),
    ] {
        let (status, value, _) = ask(&router, "GET", &uri).await;
        assert_eq!(
            (status.as_u16(), value["code"].as_str()),
            (400, Some("bad_cursor"))
        );
    }
    assert!(!tables.metrics.render().contains("operation=\"Scan\""));
}

#[tokio::test]
async fn alerts_are_listed_for_one_city_and_for_all() {
    let tables = TestTables::new().await;
    let hour = 3_600_000;
    for (city, id, ago_h, severity) in [
        ("NYC", "a", 0, Severity::High),
        ("LA", "b", 1, Severity::Critical),
        ("NYC", "late#c", 2, Severity::Critical),
        ("NYC", "d", 24, Severity::High),
        ("NYC", "e", 25, Severity::High),
        ("LA", "f", 30, Severity::High),
    ] {
        tables
            .alert(city, id, NOW_MS - ago_h * hour, severity)
            .await;
    }
    // The second alert has the same id and event time as the first alert, but another city.
    tables.alert("SF", "a", NOW_MS, Severity::High).await;
    let router = tables.router();
    for (query, want) in [
        ("", vec!["a", "a", "b", "late#c", "d"]),
        ("?city=", vec!["a", "a", "b", "late#c", "d"]),
        ("?hours=25", vec!["a", "a", "b", "late#c", "d", "e"]),
        ("?city=NYC", vec!["a", "late#c", "d"]),
        ("?city=NYC&severity=critical", vec!["late#c"]),
        ("?severity=critical", vec!["b", "late#c"]),
        ("?hours=720&limit=2", vec!["a", "a"]),
        (
            "?from=2013-01-01T00:00:00Z&to=2013-01-01T06:00:00.001Z",
            vec!["d", "e", "f"],
        ),
        (
            "?from=2013-01-01T00:00:00Z&to=2013-01-01T06:00:00Z",
            vec!["e", "f"],
        ),
        ("?to=2013-01-01T06:00:00Z", vec!["e", "f"]),
    ] {
        let value = get(&router, &format!("/api/v1/alerts{query}")).await;
        assert_eq!(each(&value, "alerts", "event_id"), want, "{query}");
    }
    let value = get(&router, "/api/v1/alerts?city=NYC&severity=critical").await;
    assert_eq!(
        value["alerts"][0],
        json!({"event_id": "late#c", "timestamp": "2013-01-02T04:00:00.000Z", "city": "NYC",
               "event_type": "incident", "severity": "critical", "description": "",
               "processing_time": "2013-01-02T06:00:00.000Z", "late": true})
    );
    for uri in [
        "/api/v1/alerts?hours=720&",
        "/api/v1/alerts?hours=720&city=NYC&",
    ] {
        let whole = walk(&router, uri, "alerts", "event_id", 1_000).await;
        for limit in [1, 2, 3] {
            let got = walk(&router, uri, "alerts", "event_id", limit).await;
            assert_eq!(got, whole, "{uri} {limit}");
        }
    }
}

#[tokio::test]
async fn totals_are_summed_over_all_shards() {
    let tables = TestTables::new().await;
    tables.total("NYC#traffic", [10, 2, 3, 3, 4, 2]).await;
    tables.total("NYC#weather", [5, 0, 5, 0, 0, 0]).await;
    tables.total("NYC 2#weather", [1, 0, 1, 0, 0, 0]).await;
    tables
        .total("São Paulo#incident", [20, 1, 0, 0, 0, 21])
        .await;
    let router = tables.router();
    let value = get(&router, "/api/v1/stats").await;
    assert_eq!(value["total_events_processed"], 39);
    assert_eq!(value["high_severity_alerts"], 4);
    assert_eq!(value["critical_alerts"], 23);
    assert_eq!(value["late_events"], 3);
    let value = get(&router, "/api/v1/summary/NYC").await;
    assert_eq!(
        value["event_type_breakdown"],
        json!({"traffic": 12, "weather": 5})
    );
    let value = get(&router, "/api/v1/cities").await;
    assert_eq!(
        each(&value, "cities", "city"),
        ["São Paulo", "NYC", "NYC 2"]
    );
}

#[tokio::test]
async fn missing_tables_are_reported_without_details() {
    let router = TestTables::missing().await.router();
    for uri in [
        "/api/v1/stats",
        "/api/v1/events/NYC",
        "/api/v1/alerts",
        "/api/v1/aggregations?city=NYC&event_type=traffic",
        "/api/v1/health",
    ] {
        let (status, value, _) = ask(&router, "GET", uri).await;
        assert_eq!(
            (status.as_u16(), value["code"].as_str()),
            (503, Some("store_unavailable"))
        );
        assert!(
            value["error"].as_str().unwrap().contains("init-tables"),
            "{value}"
        );
    }
}
