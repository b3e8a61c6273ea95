//! Tests the comparison with complete logs, and with logs that have lost their oldest records.

use std::collections::BTreeMap;

use super::*;
use crate::parse::parse_record;
use crate::rollup::Grain;
use crate::time::format_millis;

mod counts;
mod items;
mod memory;
mod names;
mod reports;
mod rollups;

const T0: i64 = 1_357_020_000_000; // 2013-01-01T06:00:00Z

fn scope(bytes_max: usize) -> Scope {
    Scope {
        topic: "t".to_owned(),
        rules: Rules::default(),
        raw_rows: RawRows::Alerts,
        range: (UnixMs(0), UnixMs(i64::MAX)),
        remade: false,
        rolled_until_ms: UnixMs(0),
        raw_ttl_ms: 1_000_000,
        alert_ttl_ms: None,
        made_ms: UnixMs(T0),
        now_ms: UnixMs(T0),
        bytes_max,
    }
}

fn logs(start: i64, claim: i64, before_max_ms: Option<i64>) -> BTreeMap<i32, Log> {
    let log = Log {
        start: Offset(start),
        claim: Offset(claim),
        before_max_ms: before_max_ms.map(UnixMs),
        published: None,
    };
    BTreeMap::from([(0, log)])
}

fn row(event_count: i64, first: i64, next: i64) -> FoundRow {
    FoundRow {
        counts: Counts {
            event_count,
            late_count: 0,
            severities: [event_count, 0, 0, 0],
        },
        distinct: Some([event_count > 0, false, false, false]),
        fences: vec![Fence {
            partition: 0,
            first: Offset(first),
            next: Offset(next),
        }],
        ..FoundRow::default()
    }
}

/// Passes an event of low severity to the slice.
fn take(slice: &mut Slice, city: &str, offset: i64, time_ms: i64) {
    let value = format!(
        r#"{{"city":"{city}","event_type":"traffic","severity":"low","timestamp":"{}"}}"#,
        format_millis(UnixMs(time_ms))
    );
    let body = parse_record(Some(value.as_bytes()), None);
    assert!(body.is_ok(), "{value}");
    let stamp = Stamp {
        ms: Some(UnixMs(time_ms)),
        by_broker: false,
    };
    slice.take(0, Offset(offset), stamp, &body);
}

fn nyc() -> Key {
    Key::window("NYC", "traffic", UnixMs(T0))
}

/// Returns how the window row of NYC differs from the log, or `None` if the row agrees with the log.
fn kind(slice: &Slice) -> Option<Mismatch> {
    let outcome = slice.outcome();
    let mut found = outcome.differences.iter().filter(|d| d.key == nyc());
    found.next().map(|d| d.kind)
}

#[test]
fn a_row_holds_what_its_fence_says_and_at_least_what_is_claimed() {
    // Each case lists the claim, the row in the table, and the expected difference. The row in the table has a
    // count and the two offsets of its fence. The log contains three records, at the offsets 0, 1 and 2.
    for (claim, found, want) in [
        (0, None, None),
        (0, Some((2, 0, 2)), None),
        (2, Some((2, 0, 2)), None),
        (3, Some((3, 0, 3)), None),
        (3, Some((2, 0, 2)), Some(Mismatch::Wrong)),
        (0, Some((3, 0, 2)), Some(Mismatch::Wrong)),
        (0, Some((2, 0, 3)), Some(Mismatch::Wrong)),
        (1, None, Some(Mismatch::Missing)),
        // The row counts one record twice and omits another record, so only the fence shows the error.
        (3, Some((3, 0, 2)), Some(Mismatch::Fence)),
        (3, Some((3, 0, 5)), Some(Mismatch::Fence)),
        (3, Some((3, 1, 3)), Some(Mismatch::Fence)),
    ] {
        let mut slice = Slice::new(scope(1 << 20), None, &logs(0, claim, None));
        if let Some((count, first, next)) = found {
            slice.add_row(nyc(), row(count, first, next));
        }
        for offset in 0..3 {
            take(&mut slice, "NYC", offset, T0 + offset);
        }
        assert_eq!(kind(&slice), want, "claim {claim}, {found:?}");
    }
}

#[test]
fn sums_of_a_progress_item_are_those_of_the_log_below_its_next() {
    let sums = |event_count, late_count| Counts {
        event_count,
        late_count,
        severities: [event_count + late_count, 0, 0, 0],
    };
    // The log contains four records at the offsets 0 to 3, and the record at offset 2 is late.
    for (next, found, start, whole, want) in [
        (0, Some(sums(0, 0)), 0, true, Ok(true)),
        (2, Some(sums(2, 0)), 0, true, Ok(true)),
        (3, Some(sums(2, 1)), 0, true, Ok(true)),
        (3, Some(sums(3, 0)), 0, true, Ok(false)),
        (3, Some(sums(2, 0)), 0, true, Ok(false)),
        (4, Some(sums(3, 1)), 0, true, Ok(true)),
        (4, None, 0, true, Err(Incomparable::NoSums)),
        (4, Some(sums(9, 9)), 1, true, Err(Incomparable::Older)),
        (4, Some(sums(9, 9)), 0, false, Err(Incomparable::Older)),
    ] {
        let mut logs = logs(start, 4, None);
        logs.get_mut(&0).unwrap().published = Some(Published {
            next: Offset(next),
            sums: found,
            whole,
        });
        let mut slice = Slice::new(scope(1 << 20), None, &logs);
        for (offset, time_ms) in (0..).zip([T0, T0 + 3_600_000, T0, T0 + 3_600_000]) {
            if offset >= start {
                take(&mut slice, "NYC", offset, time_ms);
            }
        }
        let outcome = slice.outcome();
        let case = format!("{next} {found:?}: {outcome:?}");
        match want {
            Ok(right) => {
                assert_eq!(outcome.compared[PROGRESS_ITEM], 1, "{case}");
                assert_eq!(outcome.wrong_sums.is_empty(), right, "{case}");
                let wrong = outcome.differing.get(&(PROGRESS_ITEM, Mismatch::Wrong));
                assert_eq!(wrong.is_none(), right, "{case}");
            }
            Err(reason) => {
                assert!(!outcome.compared.contains_key(PROGRESS_ITEM), "{case}");
                assert!(outcome.incomparable[&reason] > 0, "{case}");
            }
        }
        // Only the first slice compares progress items, so the second slice reports nothing about them.
        let lo = Some(RowPlace::new("ZZZ", UnixMs(0)));
        let rest = Slice::new(scope(1 << 20), lo, &logs).outcome();
        assert!(!rest.compared.contains_key(PROGRESS_ITEM), "{rest:?}");
        assert_eq!(rest.incomparable.len(), 0, "{rest:?}");
    }
}

#[test]
fn a_row_counted_from_lost_records_is_not_compared() {
    // Each case lists the first offset of the log, the first offset of the row's fence, an upper bound for the event
    // times of lost records, the expected number of compared windows, and the expected reason.
    for (start, first, before_max_ms, compared, reason) in [
        (5, 5, Some(T0), 1, None),
        (5, 4, Some(T0), 0, Some(Incomparable::Older)),
        // A lost record may have made the window final before the event arrived.
        (5, 5, Some(T0 + 900_000), 0, Some(Incomparable::Unclear)),
        (5, 5, None, 0, Some(Incomparable::Unclear)),
        (0, 5, None, 1, None),
    ] {
        let mut slice = Slice::new(scope(1 << 20), None, &logs(start, 6, before_max_ms));
        slice.add_row(nyc(), row(1, first, 6));
        take(&mut slice, "NYC", 5, T0);
        let outcome = slice.outcome();
        let windows = outcome.compared.get("window").copied().unwrap_or(0);
        let reasons: Vec<Incomparable> = outcome.incomparable.keys().copied().collect();
        let case = format!("start {start}, first {first}, {before_max_ms:?}");
        assert_eq!(windows, compared, "{case}: {outcome:?}");
        assert_eq!(reasons, reason.into_iter().collect::<Vec<_>>(), "{case}");
        assert_eq!(kind(&slice), None, "{case}");
    }
}

#[test]
fn retention_that_moves_on_while_the_log_is_read_makes_rows_incomparable() {
    let mut slice = Slice::new(scope(1 << 20), None, &logs(0, 6, None));
    slice.add_row(nyc(), row(3, 0, 6));
    take(&mut slice, "NYC", 5, T0);
    assert_eq!(kind(&slice), Some(Mismatch::Wrong));
    slice.begin_at(&BTreeMap::from([(0, Offset(4))]));
    let outcome = slice.outcome();
    assert_eq!(outcome.difference_count, 0, "{outcome:?}");
    // The two incomparable rows are the window row that the test added, and the totals row that the log requires.
    assert_eq!(outcome.incomparable[&Incomparable::Older], 2);
}

#[test]
fn a_slice_keeps_its_memory_whatever_the_log_holds() {
    let max = 64 << 10;
    let mut lo: Option<RowPlace> = None;
    let (mut found, mut slices) = (0, 0);
    loop {
        let mut slice = Slice::new(scope(max), lo.clone(), &logs(0, 10_000, None));
        for offset in 0..2_000 {
            take(
                &mut slice,
                &format!("City {}", offset % 97),
                offset,
                T0 + offset * 10_000,
            );
        }
        assert!(slice.bytes_peak() < max + 1_000, "{}", slice.bytes_peak());
        found += slice.outcome().difference_count;
        slices += 1;
        lo = slice.hi().cloned();
        if lo.is_none() {
            break;
        }
    }
    // There are 97 totals rows, and one window row for each event, because no city has two events within five minutes.
    assert_eq!(found, 2_000 + 97);
    assert!(slices > 5, "{slices}");
}

#[test]
fn cities_stand_in_the_order_of_their_series() {
    let mut cities = ["A", "A!", "A b", "AB", "B"].map(|city| RowPlace::new(city, UnixMs(0)));
    cities.sort();
    let mut series = ["A#x", "A!#x", "A b#x", "AB#x", "B#x"];
    series.sort_unstable();
    let cities = cities.each_ref().map(|place| format!("{}#x", place.city()));
    assert_eq!(cities, series);
}

#[test]
fn alerts_that_may_have_expired_are_not_missing_and_those_kept_for_ever_are() {
    let day_ms = 86_400_000;
    let alert = Key::alert("NYC", UnixMs(T0), "t-0-0");
    for (alert_ttl_ms, is_missing) in [
        (None, true),
        (Some(3 * day_ms), true),
        (Some(day_ms), false),
    ] {
        let scope = Scope {
            alert_ttl_ms,
            now_ms: UnixMs(T0 + 2 * day_ms),
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(0, 1, None));
        let value = format!(
            r#"{{"city":"NYC","event_type":"traffic","severity":"high","timestamp":"{}"}}"#,
            format_millis(UnixMs(T0))
        );
        let body = parse_record(Some(value.as_bytes()), None);
        let stamp = Stamp {
            ms: Some(UnixMs(T0)),
            by_broker: false,
        };
        slice.take(0, Offset(0), stamp, &body);
        let outcome = slice.outcome();
        let mut missing = outcome.differences.iter();
        let found = missing.any(|d| d.key == alert && d.kind == Mismatch::Missing);
        assert_eq!(found, is_missing, "{alert_ttl_ms:?}: {outcome:?}");
        // The raw event is always counted as expired. The alert is counted as expired only if it is not reported as
        // missing.
        let expired = outcome.incomparable[&Incomparable::Expired];
        assert_eq!(expired, if is_missing { 1 } else { 2 });
    }
}

/// Returns a day row with `events` events of low severity in the hour `day_hour`. If `day_hour` is `None`, the function
/// returns an hour row.
fn rollup(events: i64, day_hour: Option<usize>) -> FoundRow {
    let mut hours = Box::<HourCounts>::default();
    if let Some(hour) = day_hour {
        hours[hour][0] = events;
    }
    FoundRow {
        hours: day_hour.map(|_| hours),
        distinct: None,
        fences: Vec::new(),
        ..row(events, 0, 1)
    }
}

/// Compares hour rows and day rows with a log. Between 6:00 and 7:00, the log has four events of NYC and one event of
/// LA. All events except the last event of NYC are below the claim. `found` contains the numbers of events in four
/// rows: the hour row and the day row of NYC, and the hour row and the day row of all cities. Returns how each of these
/// four rows differs from the log.
fn compare_rollups(until_ms: i64, found: [Option<i64>; 4]) -> [Option<Mismatch>; 4] {
    const HOUR: i64 = 3_600_000;
    let scope = Scope {
        rolled_until_ms: UnixMs(until_ms),
        ..scope(1 << 20)
    };
    let mut slice = Slice::new(scope, None, &logs(0, 4, None));
    let hour = |city: &str| Key::rollup(city, "traffic", Grain::Hour, UnixMs(T0));
    let day = |city: &str| Key::rollup(city, "traffic", Grain::Day, UnixMs(T0 - 6 * HOUR));
    let keys = [hour("NYC"), day("NYC"), hour(""), day("")];
    let rows = keys.iter().cloned().zip(found);
    for (key, events) in rows.chain([(hour("LA"), Some(1)), (day("LA"), Some(1))]) {
        let is_day = matches!(key.name, AuditName::Day(_));
        if let Some(events) = events {
            slice.add_row(key, rollup(events, is_day.then_some(6)));
        }
    }
    let last_ms = T0 + HOUR - 1;
    for (offset, city, time_ms) in [
        (0, "NYC", T0),
        (1, "NYC", T0 + HOUR / 2),
        (2, "LA", last_ms),
        (3, "NYC", last_ms),
        (4, "NYC", last_ms),
    ] {
        take(&mut slice, city, offset, time_ms);
    }
    let outcome = slice.outcome();
    keys.map(|key| {
        let found = outcome.differences.iter().find(|d| d.key == key);
        found.map(|d| d.kind)
    })
}

#[test]
fn an_hour_holds_what_is_claimed_of_it_and_a_day_its_hours() {
    const MISSING: Option<Mismatch> = Some(Mismatch::Missing);
    const WRONG: Option<Mismatch> = Some(Mismatch::Wrong);
    let (hour_ms, day_ms) = (T0 + 3_600_000, T0 + 18 * 3_600_000);
    let some = |counts: [i64; 4]| counts.map(|n| (n > 0).then_some(n));
    for (until_ms, found, want) in [
        (day_ms, [3, 3, 4, 4], [None; 4]),
        (day_ms, [0, 3, 4, 4], [MISSING, None, None, None]),
        (day_ms, [3, 0, 4, 4], [None, MISSING, None, None]),
        (day_ms, [2, 4, 4, 4], [WRONG, WRONG, None, None]),
        (day_ms, [3, 3, 3, 5], [None, None, WRONG, WRONG]),
        (day_ms, [3, 3, 0, 0], [None, None, MISSING, MISSING]),
        // The comparison reports a missing row only if its hour or day ends at or before `until_ms`.
        (hour_ms, [0; 4], [MISSING, None, MISSING, None]),
        (hour_ms - 1, [0; 4], [None; 4]),
        (0, [0; 4], [None; 4]),
    ] {
        assert_eq!(
            compare_rollups(until_ms, some(found)),
            want,
            "{found:?} until {until_ms}"
        );
    }
}

#[test]
fn a_day_with_its_events_in_other_hours_differs() {
    let until_ms = T0 + 18 * 3_600_000;
    let scope = Scope {
        rolled_until_ms: UnixMs(until_ms),
        ..scope(1 << 20)
    };
    let mut slice = Slice::new(scope, None, &logs(0, 1, None));
    let day = Key::rollup("NYC", "traffic", Grain::Day, UnixMs(T0 - 6 * 3_600_000));
    slice.add_row(day.clone(), rollup(1, Some(7)));
    take(&mut slice, "NYC", 0, T0);
    let outcome = slice.outcome();
    let found = outcome.differences.iter().find(|d| d.key == day).unwrap();
    assert_eq!(
        (found.kind, &*found.detail),
        (Mismatch::Wrong, "its hours are not those of the log")
    );
}

#[test]
fn an_hour_with_a_window_that_cannot_be_compared_is_left_out() {
    const HOUR: i64 = 3_600_000;
    let hour = |city: &str| Key::rollup(city, "traffic", Grain::Hour, UnixMs(T0));
    let rolled = || Scope {
        rolled_until_ms: UnixMs(T0 + HOUR),
        ..scope(1 << 20)
    };
    let remade = FoundRow {
        foreign: true,
        ..row(5, 0, 1)
    };
    // The log has one event. The hour row counts five more events, whose records are no longer in the log.
    for (start, older) in [(3, row(6, 1, 4)), (0, remade)] {
        let logs = logs(start, 4, Some(T0));
        // The slice gets the window row either from the beginning, or only when the caller checks the hour row a second
        // time.
        for early in [true, false] {
            let mut slice = Slice::new(rolled(), None, &logs);
            slice.add_row(hour("NYC"), rollup(6, None));
            if early {
                slice.add_row(Key::window("NYC", "traffic", UnixMs(T0)), older.clone());
            }
            take(&mut slice, "NYC", 3, T0);
            let suspects = slice.suspect_rollups(None, 9);
            assert_eq!(suspects.contains(&hour("NYC")), !early, "{suspects:?}");
            if !early {
                slice.look_at_windows(&hour("NYC"), [row(1, 3, 4), older.clone()].iter());
            }
            assert!(
                slice
                    .outcome()
                    .differences
                    .iter()
                    .all(|d| d.key != hour("NYC"))
            );
        }
    }
    // The rows of the individual cities add up to six events, so the row of all cities must also count six events.
    for (events, want) in [(6, None), (7, Some(Mismatch::Wrong))] {
        let mut slice = Slice::new(rolled(), None, &logs(0, 4, None));
        slice.add_row(hour(""), rollup(events, None));
        take(&mut slice, "NYC", 3, T0);
        assert!(slice.suspect_rollups(None, 9).contains(&hour("")));
        slice.look_at_series(&hour(""), [rollup(2, None), rollup(4, None)].iter());
        let outcome = slice.outcome();
        let found = outcome.differences.iter().find(|d| d.key == hour(""));
        assert_eq!(found.map(|d| d.kind), want);
        slice.forget_rollups();
        assert!(
            slice
                .outcome()
                .differences
                .iter()
                .all(|d| d.key.grain().is_none())
        );
    }
}

#[test]
fn an_hour_that_no_list_shows_is_found_by_its_key() {
    let hour = Key::rollup("NYC", "traffic", Grain::Hour, UnixMs(T0));
    for (found, differs) in [
        (None, true),
        (Some(rollup(1, None)), false),
        (Some(rollup(2, None)), true),
    ] {
        let scope = Scope {
            rolled_until_ms: UnixMs(T0 + 3_600_000),
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(0, 1, None));
        take(&mut slice, "NYC", 0, T0);
        assert!(slice.suspect_rollups(None, 9).contains(&hour));
        assert_eq!(slice.look_at_rollup(&hour, found), differs);
        let outcome = slice.outcome();
        assert_eq!(outcome.differences.iter().any(|d| d.key == hour), differs);
    }
}

#[test]
fn a_difference_names_the_row_as_the_table_has_it() {
    for (city, grain, want) in [
        (
            "NYC",
            Grain::Hour,
            "hour hour#NYC#traffic 2013-01-01T06:00:00Z",
        ),
        ("", Grain::Day, "day day#*#traffic 2013-01-01T06:00:00Z"),
        (
            "**",
            Grain::Hour,
            "hour hour#***#traffic 2013-01-01T06:00:00Z",
        ),
    ] {
        let key = Key::rollup(city, "traffic", grain, UnixMs(T0));
        assert_eq!(key.to_string(), want);
    }
    let hour = Key::rollup("NYC", "traffic", Grain::Hour, UnixMs(T0));
    let windows = hour.windows(300_000);
    assert_eq!(
        (windows.len(), &windows[1]),
        (12, &Key::window("NYC", "traffic", UnixMs(T0 + 300_000)))
    );
}
