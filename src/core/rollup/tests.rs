//! Tests the keys of rollup rows, the packed days, the costs, and the decision which hours are due.

mod passes;
mod steps;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::Offset;
use crate::restart::Commit;

/// 2013-01-01T00:00:00Z
const BASE_MS: UnixMs = UnixMs(1_356_998_400_000);
const WINDOW_MS: i64 = 300_000;

fn rollups(city: Option<&str>, event_type: &str) -> RollupSeries {
    RollupSeries {
        city: city.map(str::to_owned),
        event_type: event_type.to_owned(),
    }
}

#[test]
fn a_city_of_asterisks_is_not_all_cities() {
    for (city, shard) in [
        (None, "hour#*#traffic"),
        (Some("NYC"), "hour#NYC#traffic"),
        (Some("*"), "hour#**#traffic"),
        (Some("**"), "hour#***#traffic"),
        (Some("* *"), "hour#* *#traffic"),
        (Some("*a"), "hour#*a#traffic"),
    ] {
        let series = rollups(city, "traffic");
        assert_eq!(series.shard(Grain::Hour), shard);
        assert_eq!(
            RollupSeries::parse(shard),
            Some((Grain::Hour, series.clone()))
        );
        let day = series.shard(Grain::Day);
        assert_eq!(RollupSeries::parse(&day), Some((Grain::Day, series)));
    }
    for other in [
        "totals#3",
        "progress",
        "hour",
        "hour#NYC",
        "week#NYC#traffic",
    ] {
        assert_eq!(RollupSeries::parse(other), None, "{other}");
    }
}

#[test]
fn only_windows_that_divide_an_hour_are_rolled_up() {
    for (window_ms, count) in [
        (1_000, Some(3_600)),
        (300_000, Some(12)),
        (3_600_000, Some(1)),
        (420_000, None),
        (7_200_000, None),
        (0, None),
        (-300_000, None),
    ] {
        assert_eq!(windows_per_hour(window_ms), count, "{window_ms}");
    }
}

#[test]
fn a_row_has_the_key_of_its_hour_or_day() {
    let hour = RollupRow::hour(rollups(Some("NYC"), "traffic"), BASE_MS, [1, 0, 2, 0]);
    let key = ("hour#NYC#traffic".to_owned(), "2013-01-01T00:00:00Z".into());
    assert_eq!((hour.key(), hour.counts()), (key, [1, 0, 2, 0]));
    let mut hours = Box::<DayHours>::default();
    (hours[0], hours[23]) = ([1, 0, 2, 0], [0, 5, 0, 1]);
    let day = RollupRow {
        cells: Cells::Day(hours),
        ..hour
    };
    assert_eq!(day.key().0, "day#NYC#traffic");
    assert_eq!(day.counts(), [1, 5, 2, 1]);
    assert_eq!(parse_start(Grain::Day, &day.key().1), Some(BASE_MS));
    assert_eq!(parse_start(Grain::Day, "2013-01-01T01:00:00Z"), None);
    assert_eq!(parse_start(Grain::Hour, "2013-01-01T01:05:00Z"), None);
    assert_eq!(parse_start(Grain::Hour, "hours"), None);
}

#[test]
fn a_usual_day_takes_99_bytes() {
    assert_eq!(pack(&[[127; 4]; 24]).len(), 99);
    assert_eq!(pack(&DayHours::default()), [0, 0, 0]);
    let mut hours = DayHours::default();
    hours[9] = [1, 0, 300, 0];
    assert_eq!(pack(&hours), [0, 2, 0, 1, 0, 0xac, 2, 0]);
    for wrong in [
        &[][..],
        &[0, 0],
        &[0, 0, 0, 0],
        // The next four inputs encode hour 9 incorrectly. The four faults are a missing number, an extra number, only
        // zeros, and an incomplete last number.
        &[0, 2, 0, 1, 0, 0],
        &[0, 2, 0, 1, 0, 0, 0, 0],
        &[0, 2, 0, 0, 0, 0, 0],
        &[0, 2, 0, 0, 0, 0, 0x80],
        // The next input encodes the number 1 with two bytes instead of one.
        &[0, 2, 0, 0x81, 0, 0, 0, 0],
        &[
            0, 2, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 127, 0, 0, 0,
        ],
    ] {
        assert_eq!(unpack(wrong), None, "{wrong:?}");
    }
}

#[test]
fn waits_grow_and_units_are_paid_by_rest() {
    assert_eq!(
        [0, 1, 4, 5, 99].map(|failures| next_look_ms(LOOK_INTERVAL_MS, failures)),
        [30_000, 60_000, 480_000, 600_000, 600_000]
    );
    assert_eq!([0.0, 0.5, 288.0, -1.0].map(rest_ms), [0, 5, 2_880, 0]);
}

#[test]
fn a_month_of_24_series_costs_216_000_read_units_and_21_000_rows() {
    let month = RollupCost::of(BASE_MS, BASE_MS + 31 * DAY_MS, 24, 4, 12);
    let want = RollupCost {
        hours: 744,
        read_units: 744 * 288 + 32 * 50 + 31 * 56,
        write_units: 775 * 28 + 32,
    };
    assert_eq!(month, want);
    assert_eq!((month.read_units, month.write_units), (217_608, 21_732));
    assert_eq!(RollupCost::of(BASE_MS, BASE_MS, 24, 4, 12).hours, 0);
}

fn log(watermark_ms: Option<UnixMs>, next: i64, counted: Option<u64>, end: i64) -> LogState {
    LogState {
        watermark_ms,
        next: Offset(next),
        counted,
        end: Some(Offset(end)),
    }
}

fn facts(logs: &[LogState]) -> RollupFacts {
    RollupFacts {
        topic_id: "T".to_owned(),
        tables_id: "D".to_owned(),
        partition_count: i32::try_from(logs.len()).unwrap(),
        logs: (0..).zip(logs.iter().copied()).collect(),
    }
}

fn mark(until_ms: UnixMs, idle: &[(i32, UnixMs)]) -> RollupMark {
    RollupMark {
        topic_id: "T".to_owned(),
        tables_id: "D".to_owned(),
        until_ms,
        idle: idle.iter().copied().collect(),
        version: 7,
    }
}

#[test]
fn an_hour_is_due_when_each_partition_is_past_it_or_idle() {
    let hours = |n: i64| BASE_MS + n * HOUR_MS;
    let past = |ms: UnixMs| log(Some(ms), 9, Some(9), 9);
    let idle = log(None, 3, Some(0), 3);
    let check = |stored: Option<&RollupMark>, logs: &[LogState]| {
        plan(stored, &facts(logs)).map(|plan| (plan.mark.until_ms, plan.target_ms, plan.idle))
    };
    let no_idle = BTreeMap::new();
    let at = Some(mark(hours(3), &[]));
    let at = at.as_ref();
    let due = |from: UnixMs, to: UnixMs, idle: &[(i32, UnixMs)]| {
        Ok((from, to, idle.iter().copied().collect()))
    };
    // Only whole hours that end at or before the smallest watermark of all partitions are due.
    assert_eq!(
        check(at, &[past(hours(9)), past(hours(5) - 1)]),
        Ok((hours(3), hours(4), no_idle))
    );
    assert_eq!(
        check(at, &[past(hours(9)), past(hours(5))]),
        due(hours(3), hours(5), &[])
    );
    assert_eq!(check(at, &[past(hours(4) - 1)]), Err(RollupWait::AllDone));
    assert_eq!(check(at, &[past(hours(1))]), Err(RollupWait::AllDone));
    assert_eq!(
        check(None, &[past(hours(1))]),
        due(UnixMs(0), hours(1), &[])
    );
    assert_eq!(check(None, &[past(UnixMs(-1))]), Err(RollupWait::AllDone));
    // No hour is due while a partition has no progress item, because that partition may have events in any hour.
    let mut missing = facts(&[past(hours(9)), idle]);
    missing.logs.remove(&1);
    assert_eq!(plan(at, &missing), Err(RollupWait::NotBegun(1)));
    for waiting in [
        log(None, 3, Some(0), 4),
        log(None, 3, Some(1), 3),
        log(None, 3, None, 3),
        LogState { end: None, ..idle },
    ] {
        assert_eq!(
            check(at, &[past(hours(9)), waiting]),
            Err(RollupWait::NoWatermark(1))
        );
    }
    // An idle partition does not keep hours from becoming due, but the plan lists the partition as idle.
    assert_eq!(
        check(at, &[past(hours(4)), idle]),
        due(hours(3), hours(4), &[(1, hours(3))])
    );
    assert_eq!(check(at, &[idle, idle]), Err(RollupWait::AllDone));
    let known = mark(hours(3), &[(1, hours(1))]);
    assert_eq!(
        check(Some(&known), &[past(hours(4)), idle]),
        due(hours(3), hours(4), &[(1, hours(1))])
    );
    assert_eq!(
        check(Some(&known), &[past(hours(3)), idle]),
        Err(RollupWait::AllDone)
    );
}

#[test]
fn a_commit_and_the_end_of_the_log_tell_whether_a_partition_is_idle() {
    let unknown = LogState {
        end: None,
        ..log(None, 3, Some(0), 0)
    };
    let mut facts = facts(&[log(Some(BASE_MS), 9, Some(9), 9), unknown]);
    assert_eq!(facts.unclear(), [1]);
    facts.set_end(1, Offset(5));
    assert_eq!(plan(None, &facts), Err(RollupWait::NoWatermark(1)));
    // The progress item is at offset 3. Since then, the consumer has read two rejected records.
    let commit = |next: i64, topic: &str, tables: &str, events: u64| Commit {
        next: Offset(next),
        metadata: format!("v1;topic={topic};tables={tables};max=-;sums={events},0,{events},0,0,0"),
    };
    for other in [
        commit(5, "U", "D", 0),
        commit(5, "T", "E", 0),
        commit(2, "T", "D", 0),
    ] {
        facts.add_commit(1, &other);
        assert_eq!(
            plan(None, &facts),
            Err(RollupWait::NoWatermark(1)),
            "{other:?}"
        );
    }
    let mut counted = facts.clone();
    counted.add_commit(1, &commit(5, "T", "D", 1));
    assert_eq!(plan(None, &counted), Err(RollupWait::NoWatermark(1)));
    facts.add_commit(1, &commit(5, "T", "D", 0));
    assert_eq!(
        plan(None, &facts).unwrap().idle,
        BTreeMap::from([(1, UnixMs(0))])
    );
}

#[test]
fn an_idle_partition_that_counts_an_event_takes_back_its_hours() {
    let hours = |n: i64| BASE_MS + n * HOUR_MS;
    let stored = mark(hours(5), &[(1, hours(2)), (2, hours(3))]);
    let past = |ms: UnixMs, counted: u64| log(Some(ms), 9, Some(counted), 9);
    let idle = log(None, 3, Some(0), 3);
    let check = |logs: &[LogState]| plan(Some(&stored), &facts(logs));
    let first = past(hours(6), 9);

    let again = check(&[first, past(hours(6), 1), idle]).unwrap();
    assert_eq!(
        (again.is_new, again.mark.until_ms, again.target_ms),
        (true, hours(2), hours(6))
    );
    assert_eq!(again.mark.idle, BTreeMap::from([(2, hours(3))]));
    assert_eq!(
        again.idle,
        BTreeMap::from([(2, hours(2))]),
        "its hours are left out again"
    );
    // The rollup mark also moves back if a consumer has counted events of the formerly idle partition while the
    // partition has no watermark. A partition with only future events is an example.
    let again = check(&[first, log(None, 4, Some(1), 4), idle]).unwrap();
    assert_eq!(
        (again.is_new, again.mark.until_ms, again.target_ms),
        (true, hours(2), hours(2))
    );
    // A heartbeat has given partition 1 a watermark, so the plan no longer lists partition 1 as idle.
    let closed = check(&[past(hours(5), 9), past(hours(5), 0), idle]).unwrap();
    assert_eq!(
        (closed.is_new, closed.mark.until_ms, closed.target_ms),
        (true, hours(5), hours(5))
    );
    assert_eq!(closed.idle, BTreeMap::from([(2, hours(3))]));
    assert_eq!(
        check(&[first, past(hours(4), 0), idle]),
        Err(RollupWait::AllDone)
    );
}

#[test]
fn the_mark_of_another_topic_or_of_other_tables_counts_as_absent() {
    let hours = |n: i64| BASE_MS + n * HOUR_MS;
    let now = facts(&[log(Some(hours(6)), 9, Some(9), 9)]);
    let own = mark(hours(5), &[]);
    for other in [
        RollupMark {
            topic_id: "U".to_owned(),
            ..own.clone()
        },
        RollupMark {
            tables_id: "E".to_owned(),
            ..own.clone()
        },
    ] {
        assert!(!other.is_of(Some("T"), "D"));
        let plan = plan(Some(&other), &now).unwrap();
        assert_eq!(
            (plan.is_new, plan.mark.until_ms, plan.mark.version),
            (true, UnixMs(0), 7)
        );
        assert_eq!(plan.mark.topic_id, "T");
    }
    assert!(own.is_of(Some("T"), "D") && !own.is_of(None, "D"));
    assert!(!plan(Some(&own), &now).unwrap().is_new);
    assert_eq!(
        plan(None, &facts(&[log(None, 0, Some(0), 0)])),
        Err(RollupWait::AllDone)
    );
}

/// A record of a log, with its event time. The record is either an event or a heartbeat.
#[derive(Clone, Copy, Debug)]
struct Logged {
    time_ms: UnixMs,
    is_event: bool,
    is_future: bool,
}

/// Returns the state of a log that contains `records`, and the number of events in the windows of each hour.
fn counted(records: &[Logged], end: usize) -> (LogState, BTreeMap<i64, u64>) {
    let mut hours = BTreeMap::<i64, u64>::new();
    let (mut max_ms, mut events) = (None, 0);
    for record in records {
        let window_end = record.time_ms - record.time_ms.0 % WINDOW_MS + WINDOW_MS;
        let is_late = max_ms.is_some_and(|max| window_end <= max - 600_000);
        events += u64::from(record.is_event);
        if record.is_event && !is_late {
            *hours.entry(record.time_ms.0 / HOUR_MS).or_default() += 1;
        }
        if !record.is_future {
            max_ms = Some(max_ms.map_or(record.time_ms, |max: UnixMs| max.max(record.time_ms)));
        }
    }
    let next = i64::try_from(records.len()).unwrap();
    let watermark_ms = max_ms.map(|max| max - 600_000);
    let state = log(
        watermark_ms,
        next,
        Some(events),
        i64::try_from(end).unwrap(),
    );
    (state, hours)
}

fn record() -> impl Strategy<Value = Logged> {
    let record = (0i64..72, 0i64..60, 0u8..10);
    record.prop_map(|(hour, minute, kind)| Logged {
        time_ms: BASE_MS + hour * HOUR_MS + minute * 60_000,
        is_event: kind != 0,
        is_future: kind == 1,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_hour_that_is_due_gets_no_more_events_but_from_partitions_that_were_idle(
        logs in prop::collection::vec((prop::collection::vec(record(), 0..12), 0usize..12, 0usize..4), 1..4),
        until in 0i64..48,
    ) {
        let until_ms = BASE_MS + until * HOUR_MS;
        let stored = mark(until_ms, &[]);
        // At first, a consumer has read each log up to a restart point, and at most three records are unread.
        let at = |records: &Vec<Logged>, read: usize| read.min(records.len());
        let then = logs.iter().map(|(records, read, more)| {
            let read = at(records, *read);
            counted(&records[..read], at(records, read + more))
        });
        let (then, hours_then): (Vec<_>, Vec<_>) = then.unzip();
        let Ok(first) = plan(Some(&stored), &facts(&then)) else {
            return Ok(());
        };
        let now = logs.iter().map(|(records, ..)| counted(records, records.len()));
        let (now, hours_now): (Vec<_>, Vec<_>) = now.unzip();
        let due = until_ms.0 / HOUR_MS..first.target_ms.0 / HOUR_MS;
        for (partition, (then, now)) in (0..).zip(hours_then.iter().zip(&hours_now)) {
            if !first.idle.contains_key(&partition) {
                let of = |hours: &BTreeMap<i64, u64>| -> Vec<(i64, u64)> {
                    hours.range(due.clone()).map(|(hour, n)| (*hour, *n)).collect()
                };
                prop_assert_eq!(of(then), of(now));
            }
        }
        // A consumer may have counted events of a formerly idle partition in hours that are already rolled up. The next
        // check then moves the rollup mark back.
        let after = RollupMark { until_ms: first.target_ms, idle: first.idle.clone(), ..stored.clone() };
        let is_added = first.idle.keys().any(|partition| {
            let hours = &hours_now[usize::try_from(*partition).unwrap()];
            hours.range(due.clone()).next().is_some()
        });
        if is_added {
            let again = plan(Some(&after), &facts(&now)).expect("the mark is corrected");
            prop_assert_eq!(again.mark.until_ms, until_ms);
        }
    }
}
