//! Days of 300 series, as the API shows them, against a plain fold of the events that were sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chaos::is_long;
use crate::role::{Role, wait_for};
use crate::world::World;

const CITIES: u64 = 100;
const TYPES: [&str; 3] = ["incident", "traffic", "weather"];
const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];
/// Days in the short form, and in the long one.
const DAYS: (u64, u64) = (4, 30);
/// How long rolling up a month may take while other tests run.
const ROLLING_MAX: Duration = Duration::from_secs(400);
const HOUR_S: u64 = 3_600;
/// 2013-03-01T00:00:00Z, in seconds.
const BEGIN_S: u64 = 1_362_096_000;

/// Returns the number of days. `CHAOS=long` takes a month, which keeps DynamoDB Local busy for minutes.
fn days() -> u64 {
    if is_long() { DAYS.1 } else { DAYS.0 }
}

/// Events from low to critical, by series and by hour from the beginning.
type Counts = BTreeMap<(String, u64), [u64; 4]>;

/// Returns a number that looks random and is the same in each run.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap();
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

/// Returns the events in the order of time, and their counts. About every sixth hour of a series has an event. Few
/// events are alerts, because all tests share one DynamoDB Local.
fn events() -> (Vec<String>, Counts) {
    let (mut lines, mut counts) = (Vec::new(), Counts::new());
    for hour in 0..days() * 24 {
        for city in 0..CITIES {
            for (n, kind) in (0..).zip(TYPES) {
                let random = mix((hour * CITIES + city) * 3 + n);
                if !random.is_multiple_of(6) {
                    continue;
                }
                let severity =
                    [0, 0, 0, 0, 0, 1, 1, 2, 3][usize::try_from(random / 6 % 9).unwrap()];
                let at = time(BEGIN_S + hour * HOUR_S + random / 54 % HOUR_S);
                let line = format!(
                    r#"{{"city":"City {city}","event_type":"{kind}","severity":"{}","timestamp":"{at}"}}"#,
                    SEVERITIES[severity]
                );
                lines.push((at, line));
                counts
                    .entry((format!("City {city}#{kind}"), hour))
                    .or_default()[severity] += 1;
            }
        }
    }
    // Out of order, some events would be late.
    lines.sort();
    (lines.into_iter().map(|(_, line)| line).collect(), counts)
}

/// Returns the sums by series and by step of so many hours.
fn by_step(counts: &Counts, hours: u64) -> Counts {
    let mut sums = Counts::new();
    for ((series, hour), counts) in counts {
        let sum = sums.entry((series.clone(), hour / hours)).or_default();
        sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }
    sums
}

fn total(counts: &Counts) -> u64 {
    counts.values().flatten().sum()
}

fn answer(serve: &mut Role, path: &str) -> String {
    // While other tests keep DynamoDB Local busy, an answer may be late.
    wait_for(path, || {
        let (status, body) = serve.get(path)?;
        assert!([200, 503, 504].contains(&status), "{path}: {body}");
        (status == 200).then_some(body)
    })
}

/// Returns the steps of all series that a timeline lists.
fn listed(timeline: &Value) -> Counts {
    let mut counts = Counts::new();
    for one in timeline["series"].as_array().unwrap() {
        let series = format!(
            "{}#{}",
            one["city"].as_str().unwrap(),
            one["event_type"].as_str().unwrap()
        );
        for step in one["steps"].as_array().unwrap() {
            let [step, severities @ ..]: [u64; 5] = serde_json::from_value(step.clone()).unwrap();
            counts.insert((series.clone(), step), severities);
        }
    }
    counts
}

/// Compares days and hours of the timeline with the fold.
fn timelines_are_exact(serve: &mut Role, counts: &Counts) {
    let range = format!(
        "from={}&to={}",
        time(BEGIN_S),
        time(BEGIN_S + days() * 24 * HOUR_S)
    );
    for (step, hours) in [("day", 24), ("hour", 1)] {
        let path = format!("/api/v1/timeline?{range}&step={step}&series_limit=1000");
        // A first reading of many series may take several requests.
        let timeline = wait_for("a whole timeline", || {
            let timeline: Value = serde_json::from_str(&answer(serve, &path)).unwrap();
            timeline["partial"].is_null().then_some(timeline)
        });
        let want = by_step(counts, hours);
        assert_eq!(listed(&timeline), want, "{step}");
        assert_eq!(timeline["totals"]["event_count"], total(&want), "{step}");
        assert_eq!(timeline["others"]["event_count"], 0, "{step}");
        let csv = answer(serve, &format!("{path}&format=csv"));
        assert_eq!(csv.lines().count(), want.len() + 1, "{step}");
        // The largest series, and the rest of them in one sum.
        let path = format!("/api/v1/timeline?{range}&step={step}&series_limit=7");
        let timeline: Value = serde_json::from_str(&answer(serve, &path)).unwrap();
        assert_eq!(timeline["totals"]["event_count"], total(&want), "{step}");
        let others = timeline["others"]["steps"].as_array().unwrap().iter();
        let others = others.flat_map(|step| step.as_array().unwrap()[1..].iter());
        let others: u64 = others.map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(total(&listed(&timeline)) + others, total(&want), "{step}");
    }
}

/// Compares all pages of the hours and days of a series with the fold.
fn lists_are_exact(serve: &mut Role, counts: &Counts, city: &str, kind: &str) {
    for (step, hours) in [("day", 24), ("hour", 1)] {
        let path = format!(
            "/api/v1/aggregations?city={}&event_type={kind}&step={step}&limit=97",
            city.replace(' ', "%20")
        );
        let (mut found, mut cursor) = (Counts::new(), String::new());
        loop {
            let page: Value =
                serde_json::from_str(&answer(serve, &format!("{path}{cursor}"))).unwrap();
            for item in page["aggregations"].as_array().unwrap() {
                let start: jiff::Timestamp =
                    item["window_start"].as_str().unwrap().parse().unwrap();
                let at = u64::try_from(start.as_second()).unwrap() - BEGIN_S;
                let severities =
                    SEVERITIES.map(|name| item[format!("severity_{name}")].as_u64().unwrap());
                found.insert((format!("{city}#{kind}"), at / HOUR_S / hours), severities);
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut want = by_step(counts, hours);
        want.retain(|(series, _), _| *series == format!("{city}#{kind}"));
        assert_eq!(found, want, "{city} {kind} {step}");
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn days_of_300_series_are_shown_exactly_by_hour_and_by_day() {
    let world = World::new("history");
    world.start("init-tables", &["--raw", "none"]).ends_with(0);
    let (lines, counts) = events();
    assert_eq!(total(&counts), u64::try_from(lines.len()).unwrap());
    world.produce(&lines);
    world.consume_to_the_end();
    // This waits a minute for the index, and then reads each window by its key.
    let mut rolling = world.start("init-tables", &["--rollups", "--yes"]);
    let begin = Instant::now();
    while !rolling.has_ended() && begin.elapsed() < ROLLING_MAX {
        std::thread::sleep(Duration::from_millis(200));
    }
    rolling.ends_with(0);
    let mut serve = world.start("serve", &[]);
    serve.is_ready(200, "");
    timelines_are_exact(&mut serve, &counts);
    lists_are_exact(&mut serve, &counts, "City 0", "traffic");
    lists_are_exact(&mut serve, &counts, "City 99", "weather");
    assert_eq!(serve.terminate().0, Some(0), "{}", serve.err());
    let mut verify = world.start("verify", &[]);
    verify.ends_with(0);
    assert!(verify.out().contains("difference 0"), "{}", verify.out());
}
