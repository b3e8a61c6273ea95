//! Tests of hours and days that are rolled up, with the events of January 2013.

use std::collections::BTreeMap;

use citystream::core::clock::UnixMs;
use citystream::core::keys::TableNames;
use citystream::core::rollup::RollupSeries;
use citystream::store::reads::{DynamoReads, Range, Reads as _, metered};
use citystream::telemetry::{Metrics, unix_ms};

use crate::faults::Faults;
use crate::oracle::Expected;
use crate::proxy::{Point, Proxy, When};
use crate::role::{last_words, wait_for};
use crate::tables::{self, Row};
use crate::world::{FILE_EVENTS, World, file_lines};

/// Events of the file that are counted in a window. The others are late.
const COUNTED: u64 = 33_351;
const HOUR_MS: i64 = 3_600_000;
/// The time before which the first consumer has counted everything.
const FIRST_UNTIL: &str = "2013-01-31T12:00:00Z";

fn mark(world: &World) -> Option<Row> {
    let mut rows = tables::scan(world.services, world.name, "totals");
    rows.remove(&("rollups".to_owned(), "hours".to_owned()))
}

fn until_ms(world: &World) -> i64 {
    mark(world).map_or(0, |mark| mark["until"].parse().unwrap())
}

fn number(row: &Row, name: &str) -> u64 {
    row[name].parse().unwrap()
}

fn time_ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// Compares the rows of hours and days with a fold of the oracle's windows. Returns the events of all cities' hours, and
/// of the windows after them.
fn rollups_are_exact(world: &World, expected: &Expected) -> (u64, u64) {
    const COUNTS: [&str; 5] = [
        "event_count",
        "severity_low",
        "severity_medium",
        "severity_high",
        "severity_critical",
    ];
    let until_ms = until_ms(world);
    let mut want: BTreeMap<(String, String), [u64; 5]> = BTreeMap::new();
    let mut later = 0;
    for window in expected.tables["aggregations"].values() {
        let start_ms = time_ms(&window["window_start"]);
        for (grain, length_ms) in [("hour", HOUR_MS), ("day", 24 * HOUR_MS)] {
            let from_ms = start_ms - start_ms % length_ms;
            if from_ms + length_ms > until_ms {
                later += u64::from(grain == "hour") * number(window, "event_count");
                continue;
            }
            for city in [&*window["city"], "*"] {
                let shard = format!("{grain}#{city}#{}", window["event_type"]);
                let start = jiff::Timestamp::from_millisecond(from_ms)
                    .unwrap()
                    .to_string();
                let row = want.entry((shard, start)).or_default();
                for (sum, name) in row.iter_mut().zip(COUNTS) {
                    *sum += number(window, name);
                }
            }
        }
    }
    let mut hours = 0;
    let mut found = BTreeMap::new();
    for (key, row) in tables::scan(world.services, world.name, "totals") {
        if key.0.starts_with("hour#*#") {
            hours += number(&row, "event_count");
        }
        if key.0.starts_with("hour#") || key.0.starts_with("day#") {
            found.insert(key, COUNTS.map(|name| number(&row, name)));
        }
    }
    // Hours after the mark may have been written by a writer that was killed.
    found.retain(|(shard, start), _| {
        let length_ms = if shard.starts_with("day#") { 24 } else { 1 } * HOUR_MS;
        time_ms(start) + length_ms <= until_ms
    });
    assert_eq!(found.len(), want.len());
    for (key, row) in want {
        assert_eq!(found.get(&key), Some(&row), "{key:?}");
    }
    (hours, later)
}

/// Verifies, and expects hours among what was compared.
fn verify_agrees(world: &World) {
    let mut verify = world.start("verify", &[]);
    verify.ends_with(0);
    let out = verify.out();
    assert!(
        out.contains(" hours, ") && out.contains("difference 0"),
        "{out}"
    );
}

/// Reads January by hours and by days, and checks what that costs.
fn reads_are_cheap(world: &World, counted: u64) {
    let names = TableNames::new(world.name);
    let reads = DynamoReads::new(world.services.dynamodb(), names, Metrics::new());
    world.services.block_on(async {
        // A minute after the last move, reads cost half as much.
        let rolled_up = reads.rolled_up(unix_ms() + 61_000).await.unwrap();
        let range = Range {
            from_ms: UnixMs(0),
            to_ms: UnixMs(i64::MAX),
        };
        let kinds = ["traffic", "weather", "incident"];
        let series: Vec<RollupSeries> = kinds.map(RollupSeries::all_cities).to_vec();
        let (hours, by_hours) = metered(reads.hours(series.clone(), range, rolled_up)).await;
        let hours = hours.unwrap();
        let sum: u64 = hours.iter().flat_map(|hour| hour.counts).sum();
        assert_eq!(sum, counted);
        let (days, by_days) = metered(reads.days(series, range, rolled_up)).await;
        let days = days.unwrap();
        eprintln!(
            "{} hours for {} read units, {} days for {}",
            hours.len(),
            by_hours.units,
            days.len(),
            by_days.units
        );
        assert!(by_hours.units < 55.0, "{by_hours:?}");
        assert!(by_days.units < 5.0, "{by_days:?}");
    });
}

/// Tables of an older version have windows and no rollups. `init-tables` makes these, even if it is killed.
fn old_tables_get_rollups(world: &World) {
    let mut asking = world.start("init-tables", &["--rollups"]);
    asking.ends_with(2);
    let err = asking.err();
    assert!(last_words(&err).contains("add --yes"), "{err}");
    assert!(
        err.contains("hours of 8 series") && err.contains("at most"),
        "{err}"
    );
    let killed = world.start("init-tables", &["--rollups", "--yes"]);
    wait_for("the first hours to be rolled up", || {
        (until_ms(world) > 0).then_some(())
    });
    killed.kill();
    let at = until_ms(world);
    let mut rolling = world.start("init-tables", &["--rollups", "--yes"]);
    rolling.ends_with(0);
    let out = rolling.out();
    assert!(
        out.contains("rollups of all hours before 2013-01-31T"),
        "{out}"
    );
    assert!(until_ms(world) >= at);
    rollups_are_exact(world, &world.tables_are_exact());
    verify_agrees(world);
}

/// A writer that is killed at any step leaves the mark, and what `verify` accepts.
fn killed_writers_lose_nothing(world: &World, before: i64) {
    let faults = Faults::new(3, 0);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    for (name, operation, says, when) in [
        (
            "before the rows of an hour are put",
            "BatchWriteItem",
            "-totals\"",
            When::Before,
        ),
        (
            "after rows of an hour were put",
            "BatchWriteItem",
            "-totals\"",
            When::Applied,
        ),
        (
            "before the mark moves",
            "UpdateItem",
            "\"rollups\"",
            When::Before,
        ),
    ] {
        let consumer = world.consume_through(&proxy, &["--group-instance-id", "a"]);
        let point = Point {
            name,
            operation,
            says,
            says_not: "",
            when,
        };
        proxy.arm(point, consumer.id());
        wait_for(name, || proxy.sprung().then_some(()));
        let mut consumer = consumer;
        assert_eq!(
            consumer.end(),
            None,
            "it ended by itself\n{}",
            consumer.err()
        );
        assert_eq!(until_ms(world), before, "{name}");
        verify_agrees(world);
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_month_is_rolled_up_and_a_writer_killed_before_its_rows_or_its_mark_loses_nothing() {
    let world = World::new("rollups");
    world.init();
    let lines = file_lines();
    let first = lines.iter().position(|line| line.contains(FIRST_UNTIL));
    let (first, rest) = lines.split_at(first.unwrap());
    world.produce(first);
    world.consume_to_the_end();

    old_tables_get_rollups(&world);

    // All other hours are counted, and the consumer dies before it rolls them up.
    world.produce(rest);
    let before = until_ms(&world);
    killed_writers_lose_nothing(&world, before);
    let mut consumer = world.consume(&["--group-instance-id", "a"]);
    world.is_caught_up(std::slice::from_mut(&mut consumer));
    let due = wait_for("the last hours to be rolled up", || {
        let items = tables::progress(world.services, world.name).into_values();
        let watermarks = items.filter_map(|item| item.get("watermark")?.parse::<i64>().ok());
        let least = watermarks.min()?;
        Some(until_ms(&world)).filter(|ms| *ms == least - least % HOUR_MS)
    });
    assert!(due > before + 12 * HOUR_MS, "{due} {before}");
    let seconds = f64::from(u32::try_from(due / 1_000).unwrap());
    wait_for("the metric to say so", || {
        let shown = consumer.metrics()["citystream_rollups_until_seconds"];
        (shown >= seconds).then_some(())
    });
    assert_eq!(consumer.terminate().0, Some(0), "{}", consumer.err());
    let expected = world.tables_are_exact();
    let (hours, later) = rollups_are_exact(&world, &expected);
    eprintln!("{hours} events in hours, {later} in later windows");
    assert_eq!(hours + later, COUNTED);
    assert_eq!(expected.late, FILE_EVENTS - COUNTED);
    assert!(hours > 33_000, "{hours}");
    reads_are_cheap(&world, hours);
    verify_agrees(&world);
}
