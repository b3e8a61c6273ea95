//! Tests timelines of long ranges, which consist of rolled-up hours and days, followed by windows.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use serde_json::Value;

use super::dynamo::{TOPIC, TestTables, n, s};
use super::exports::export;
use super::{NOW_MS, ask, get};
use crate::core::clock::UnixMs;
use crate::core::rollup::{DAY_MS, DayHours, HOUR_MS, SeverityCounts, add_counts, pack};
use crate::core::time::{format_millis, format_seconds};

/// The instant 2012-11-23T00:00:00Z, about forty days before [`NOW_MS`].
const BEGIN: UnixMs = UnixMs(1_353_628_800_000);
/// The instant 2013-01-02T04:00:00Z.
const UNTIL: UnixMs = UnixMs(NOW_MS.0 - 2 * HOUR_MS);
const SERIES: [&str; 3] = ["NYC#traffic", "LA#traffic", "NYC#weather"];

impl TestTables {
    /// Writes the rollup row of an hour. The series name of an event type in all cities is `*#<event_type>`.
    pub(super) async fn hour(&self, series: &str, start_ms: UnixMs, counts: [u64; 4]) {
        let item = rollup_row(format!("hour#{series}"), start_ms, counts);
        self.put_map(&self.names.totals, item).await;
    }

    /// Writes the rollup row of a UTC day.
    pub(super) async fn day(&self, series: &str, start_ms: UnixMs, hours: &DayHours) {
        let mut item = rollup_row(format!("day#{series}"), start_ms, [0; 4]);
        let hours = AttributeValue::B(Blob::new(pack(hours)));
        item.insert("hours".to_owned(), hours);
        self.put_map(&self.names.totals, item).await;
    }

    /// Writes the item that marks all hours before `until_ms` as rolled up.
    pub(super) async fn mark(&self, until_ms: UnixMs) {
        let config = [("shard", s("config")), ("series", s("tables"))];
        let config = self
            .client
            .get_item()
            .table_name(&self.names.totals)
            .set_key(Some(config.map(|(k, v)| (k.to_owned(), v)).into()))
            .send()
            .await
            .unwrap();
        let tables = config.item.unwrap()["tables"].clone();
        self.put(
            &self.names.totals,
            [
                ("shard", s("rollups")),
                ("series", s("hours")),
                ("topic_id", s(TOPIC)),
                ("tables", tables),
                ("until", n(until_ms.0)),
                ("idle", AttributeValue::M(HashMap::new())),
                ("version", n(1)),
                ("last_updated", s("2013-01-02T00:00:00.000Z")),
            ],
        )
        .await;
    }
}

fn rollup_row(
    shard: String,
    start_ms: UnixMs,
    counts: [u64; 4],
) -> HashMap<String, AttributeValue> {
    let names = [
        "severity_low",
        "severity_medium",
        "severity_high",
        "severity_critical",
    ];
    let counts = names.into_iter().zip(counts);
    let mut item: HashMap<String, AttributeValue> = counts
        .map(|(name, count)| (name.to_owned(), AttributeValue::N(count.to_string())))
        .collect();
    item.insert("shard".to_owned(), s(shard));
    item.insert("series".to_owned(), s(format_seconds(start_ms)));
    item
}

/// The counts of each series in each hour, both for rolled-up hours and for later hours.
type History = BTreeMap<(&'static str, UnixMs), SeverityCounts>;

/// Writes forty days of rollups, followed by windows after [`UNTIL`]. Returns the counts by series and hour.
async fn history() -> (TestTables, History) {
    let tables = TestTables::new().await;
    let mut history = History::new();
    let hours = (NOW_MS - BEGIN) / HOUR_MS;
    for (n, series) in SERIES.into_iter().enumerate() {
        for hour in 0..hours {
            // The test data leaves some hours without events.
            let n = i64::try_from(n).unwrap();
            if (hour + n) % 5 != 0 {
                let counts = [hour % 3, n, 1, (hour * (n + 1)) % 7];
                let counts = counts.map(|count| u64::try_from(count).unwrap());
                history.insert((series, BEGIN + hour * HOUR_MS), counts);
            }
        }
    }
    let mut rows = BTreeMap::<(String, UnixMs), SeverityCounts>::new();
    for ((series, start_ms), counts) in &history {
        if *start_ms < UNTIL {
            let kind = series.split_once('#').unwrap().1;
            for name in [(*series).to_owned(), format!("*#{kind}")] {
                add_counts(rows.entry((name, *start_ms)).or_default(), counts);
            }
        } else {
            let counts = counts.map(|count| i64::try_from(count).unwrap());
            tables.window_of(series, *start_ms, counts, &[]).await;
        }
    }
    let mut days = BTreeMap::<(String, UnixMs), DayHours>::new();
    for ((name, start_ms), counts) in rows {
        tables.hour(&name, start_ms, counts).await;
        let day_ms = start_ms - start_ms.0 % DAY_MS;
        let hour = usize::try_from((start_ms - day_ms) / HOUR_MS).unwrap();
        days.entry((name, day_ms)).or_default()[hour] = counts;
    }
    for ((name, day_ms), hours) in days {
        if day_ms + DAY_MS <= UNTIL {
            tables.day(&name, day_ms, &hours).await;
        }
    }
    tables.mark(UNTIL).await;
    for series in SERIES {
        let mut sums = SeverityCounts::default();
        let own = history.iter().filter(|((name, _), _)| *name == series);
        own.for_each(|(_, counts)| add_counts(&mut sums, counts));
        let sums = sums.map(|count| i64::try_from(count).unwrap());
        let late = 7;
        let total = [
            sums.iter().sum(),
            late,
            sums[0] + late,
            sums[1],
            sums[2],
            sums[3],
        ];
        tables.total(series, total).await;
    }
    (tables, history)
}

/// Sums the counts of a range without using the code under test.
fn fold(
    history: &History,
    from: UnixMs,
    to: UnixMs,
    wanted: impl Fn(&str) -> bool,
) -> SeverityCounts {
    let mut sums = SeverityCounts::default();
    let inside = history
        .iter()
        .filter(|((series, start_ms), _)| (from..to).contains(start_ms) && wanted(series));
    inside.for_each(|(_, counts)| add_counts(&mut sums, counts));
    sums
}

fn counts(value: &Value) -> SeverityCounts {
    ["low", "medium", "high", "critical"]
        .map(|level| value[format!("severity_{level}")].as_u64().unwrap())
}

/// Returns the sum of the counts in all steps of the fields `series` and `others`.
fn sum_of_steps(timeline: &Value) -> SeverityCounts {
    let mut sums = SeverityCounts::default();
    let listed = timeline["series"].as_array().unwrap().iter();
    for one in listed.chain([&timeline["others"]]) {
        for step in one["steps"].as_array().unwrap() {
            let step: Vec<u64> = serde_json::from_value(step.clone()).unwrap();
            add_counts(&mut sums, &step[1..].try_into().unwrap());
        }
    }
    sums
}

#[tokio::test]
async fn a_timeline_of_any_range_is_exact_in_any_step() {
    let (tables, history) = history().await;
    let router = tables.router();
    for (from, to) in [
        (BEGIN, NOW_MS),
        (BEGIN - 5 * DAY_MS, NOW_MS),
        (BEGIN + 7 * HOUR_MS, BEGIN + 34 * DAY_MS),
        (UNTIL - 26 * HOUR_MS, UNTIL + HOUR_MS),
        (UNTIL, NOW_MS),
        (BEGIN + DAY_MS, BEGIN + 2 * DAY_MS),
    ] {
        for (step, length_ms) in [("hour", HOUR_MS), ("day", DAY_MS)] {
            let (first, end) = (
                from - from.0 % length_ms,
                to + (length_ms - to.0 % length_ms) % length_ms,
            );
            for (filter, wanted) in [
                ("", None),
                ("&city=NYC", Some("NYC#")),
                ("&event_type=traffic", Some("#traffic")),
            ] {
                let uri = format!(
                    "/api/v1/timeline?from={}&to={}&step={step}{filter}&series_limit=1",
                    format_seconds(from),
                    format_seconds(to),
                );
                let got = get(&router, &uri).await;
                let want = fold(&history, first, end, |series| {
                    wanted.is_none_or(|part| series.contains(part))
                });
                assert_eq!(counts(&got["totals"]), want, "{uri}");
                assert_eq!(sum_of_steps(&got), want, "{uri}");
                assert_eq!(got["step"], step, "{uri}");
                assert_eq!(got["series"].as_array().unwrap().len(), 1, "{uri}");
            }
        }
    }
}

#[tokio::test]
async fn everything_is_shown_from_its_first_event_on_and_with_its_late_events() {
    let (tables, history) = history().await;
    let router = tables.router();
    let got = get(&router, "/api/v1/timeline?from=first").await;
    let want = fold(&history, BEGIN, NOW_MS, |_| true);
    assert_eq!((counts(&got["totals"]), sum_of_steps(&got)), (want, want));
    assert_eq!(got["totals"]["late_count"], 21);
    assert_eq!(got["from"], "2012-11-23T00:00:00Z");
    // A range of forty days has steps of six hours.
    assert_eq!(got["step_seconds"], 6 * 3_600);
    let part = get(&router, "/api/v1/timeline?from=2012-12-01&to=2012-12-02").await;
    assert_eq!(part["totals"]["late_count"], Value::Null);
}

/// Reads all pages of a list of windows, hours or days. Returns the start, the counts and the field `final` of each
/// item.
async fn steps(router: &Router, query: &str, limit: usize) -> Vec<(String, SeverityCounts, bool)> {
    let uri = format!("/api/v1/aggregations?city=NYC&event_type=traffic&{query}&limit={limit}");
    let (mut steps, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(router, &format!("{uri}{cursor}")).await;
        let items = page["aggregations"].as_array().unwrap();
        assert!(
            items.len() <= limit && items.len() == page["count"],
            "{page}"
        );
        for item in items {
            let start = item["window_start"].as_str().unwrap().to_owned();
            let sum: u64 = counts(item).iter().sum();
            assert_eq!(item["event_count"], sum);
            steps.push((start, counts(item), item["final"].as_bool().unwrap()));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return steps,
        }
    }
}

#[tokio::test]
async fn hours_and_days_of_a_series_are_listed_newest_first_over_all_pages() {
    let (tables, history) = history().await;
    let router = tables.router();
    for (name, length_ms) in [("hour", HOUR_MS), ("day", DAY_MS)] {
        for (from, to) in [
            (BEGIN, NOW_MS),
            (BEGIN + 7 * HOUR_MS + 1, UNTIL - DAY_MS),
            (UNTIL - 30 * HOUR_MS, UNTIL + HOUR_MS),
        ] {
            let mut want = BTreeMap::<UnixMs, SeverityCounts>::new();
            for ((series, start_ms), counts) in &history {
                let step_ms = *start_ms - start_ms.0 % length_ms;
                if *series == "NYC#traffic" && (from..to).contains(&step_ms) {
                    add_counts(want.entry(step_ms).or_default(), counts);
                }
            }
            let want: Vec<_> = want
                .into_iter()
                .rev()
                .map(|(ms, counts)| (format_seconds(ms), counts, ms + length_ms <= UNTIL))
                .collect();
            let range = format!("from={}&to={}", format_millis(from), format_millis(to));
            for limit in [1, 7, 1_000] {
                let got = steps(&router, &format!("step={name}&{range}"), limit).await;
                assert_eq!(got, want, "{name} {range} {limit}");
            }
        }
    }
    let uri = "/api/v1/aggregations?city=NYC&event_type=traffic&step=day&format=csv";
    let (_, csv) = export(&router, uri, "*/*").await;
    let days = steps(&router, "step=day", 1_000).await;
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(rows.len(), days.len());
    assert!(rows[1].starts_with(",2013-01-01T00:00:00Z,2013-01-02T00:00:00Z,NYC,traffic,"));
}

#[tokio::test]
async fn a_page_of_hours_costs_the_same_however_long_the_history_is() {
    let (tables, _) = history().await;
    let router = tables.router();
    let uri = "/api/v1/aggregations?city=LA&event_type=traffic&step=hour&limit=10";
    let (_, _, headers) = ask(&router, "GET", uri).await;
    let units = headers.split(" read units").next().unwrap();
    let units: f64 = units.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1.0..20.0).contains(&units), "{headers}");
}

#[tokio::test]
async fn a_summary_names_the_first_and_the_last_event_even_if_they_expired() {
    let tables = TestTables::new().await;
    let router = tables.router();
    let ends = async |city: &str| {
        let summary = get(&router, &format!("/api/v1/summary/{city}")).await;
        ["first_event", "last_event"].map(|name| summary[name].as_str().map(str::to_owned))
    };
    tables.total("NYC#traffic", [3, 1, 1, 1, 1, 1]).await;
    tables.total("LA#weather", [2, 0, 2, 0, 0, 0]).await;
    tables
        .window_of("NYC#traffic", NOW_MS - HOUR_MS, [1, 0, 0, 0], &[])
        .await;
    tables
        .window_of("NYC#traffic", NOW_MS - DAY_MS, [1, 0, 0, 0], &[])
        .await;
    tables.event("NYC", "late", NOW_MS - HOUR_MS - 7, &[]).await;
    tables.event("NYC", "last", NOW_MS - HOUR_MS + 5, &[]).await;
    // The raw row of the first event has expired, so the response shows the start of the event's window.
    let last = "2013-01-02T05:00:00.005Z".to_owned();
    let want = [
        Some("2013-01-01T06:00:00.000Z".to_owned()),
        Some(last.clone()),
    ];
    assert_eq!(ends("NYC").await, want);
    tables.event("NYC", "first", NOW_MS - DAY_MS + 9, &[]).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await; // the answer is cached for a second
    let want = [Some("2013-01-01T06:00:00.009Z".to_owned()), Some(last)];
    assert_eq!(ends("NYC").await, want);
    tables
        .window_of("LA#weather", NOW_MS - HOUR_MS, [2, 0, 0, 0], &[])
        .await;
    let window = Some("2013-01-02T05:00:00.000Z".to_owned());
    assert_eq!(ends("LA").await, [window.clone(), window]);
    assert_eq!(ends("Nowhere").await, [None, None]);
}

#[tokio::test]
async fn a_timeline_as_a_table_adds_up_to_its_totals() {
    let (tables, history) = history().await;
    let router = tables.router();
    let uri = "/api/v1/timeline?from=2012-12-01&to=2013-01-03&step=day&series_limit=1";
    let (headers, csv) = export(&router, &format!("{uri}&format=csv"), "*/*").await;
    assert!(
        headers["content-disposition"]
            .to_str()
            .unwrap()
            .contains("timeline.csv")
    );
    let mut rows = csv.lines();
    let head = "step_start,step_end,city,event_type,event_count,severity_low,severity_medium,severity_high,severity_critical,final";
    assert_eq!(rows.next(), Some(head));
    let mut sums = BTreeMap::<String, u64>::new();
    for row in rows {
        let cells: Vec<&str> = row.split(',').collect();
        *sums.entry(cells[2..4].join("#")).or_default() += cells[4].parse::<u64>().unwrap();
        assert_eq!(cells[9] == "true", cells[0] < "2013-01-02", "{row}");
    }
    let day = |n: i64| BEGIN + n * DAY_MS;
    let want = |series: &dyn Fn(&str) -> bool| -> u64 {
        fold(&history, day(8), day(41), series).iter().sum()
    };
    let listed = sums.keys().find(|name| *name != "#").unwrap().clone();
    assert_eq!(sums[&listed], want(&|series| series == listed));
    assert_eq!(sums["#"], want(&|series| series != listed));
    let (_, lines) = export(&router, uri, "application/x-ndjson").await;
    let sum: u64 = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["event_count"]
                .as_u64()
                .unwrap()
        })
        .sum();
    assert_eq!(sum, want(&|_| true));
    let (status, _, _) = ask(
        &router,
        "GET",
        &format!("{uri}&format=csv&compare=previous"),
    )
    .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn rolled_up_hours_are_read_once() {
    let (tables, _) = history().await;
    let router = tables.router();
    let units = || {
        let text = tables.rendered();
        let name = "citystream_dynamodb_consumed_capacity_units_total{operation=\"Query\",table=\"citystream-totals\"} ";
        let line = text.lines().find(|line| line.starts_with(name));
        line.map_or(0.0, |line| line[name.len()..].parse::<f64>().unwrap())
    };
    let uri = "/api/v1/timeline?from=2012-11-23&to=2013-01-01&step=hour";
    get(&router, &format!("{uri}&series_limit=10")).await;
    let first = units();
    // The second request has different parameters, but needs the same hours as the first request. For the second
    // request, the server reads no rollups again, but only the totals and the item that marks the end of the rollups.
    let again = get(&router, &format!("{uri}&series_limit=11&severity=high")).await;
    assert!(again["totals"]["severity_high"].as_u64().unwrap() > 0);
    assert!(units() - first <= 8.5, "{} after {first}", units() - first);
}

#[tokio::test]
async fn the_previous_range_stands_beside_the_range() {
    let (tables, history) = history().await;
    let router = tables.router();
    let uri = "/api/v1/timeline?from=2012-12-10&to=2012-12-13&step=day&compare=previous";
    let got = get(&router, uri).await;
    let day = |n: i64| BEGIN + n * DAY_MS;
    let previous = &got["previous"];
    assert_eq!(
        counts(&got["totals"]),
        fold(&history, day(17), day(20), |_| true)
    );
    assert_eq!(
        counts(&previous["totals"]),
        fold(&history, day(14), day(17), |_| true)
    );
    assert_eq!(previous["to"], got["from"]);
    assert_eq!(previous["previous"], Value::Null);
}

#[tokio::test]
async fn days_begin_at_midnight_of_the_zone() {
    let (tables, history) = history().await;
    let router = tables.router();
    let uri = "/api/v1/timeline?from=2012-12-01&to=2012-12-03&step=day&tz=Europe/Berlin";
    let got = get(&router, uri).await;
    let begin = BEGIN + 8 * DAY_MS - HOUR_MS;
    assert_eq!(
        got["step_starts"],
        serde_json::json!(["2012-11-30T23:00:00Z", "2012-12-01T23:00:00Z"])
    );
    assert_eq!(
        counts(&got["totals"]),
        fold(&history, begin, begin + 2 * DAY_MS, |_| true)
    );
    let (status, value, _) = ask(
        &router,
        "GET",
        "/api/v1/timeline?from=2012-12-01&to=2012-12-03&step=day&tz=Asia/Kolkata",
    )
    .await;
    assert_eq!(
        (status.as_u16(), value["code"].as_str()),
        (400, Some("bad_parameter"))
    );
}

#[tokio::test]
async fn a_range_with_too_many_steps_is_refused() {
    let (tables, _) = history().await;
    let router = tables.router();
    let uri = "/api/v1/timeline?from=2012-01-01&to=2013-01-01&step=window";
    let (status, value, _) = ask(&router, "GET", uri).await;
    assert_eq!(status, 400);
    assert!(
        value["error"].as_str().unwrap().contains("105408 steps"),
        "{value}"
    );
}
