//! Tests which hour rows and day rows the slice compares, and which ones it excludes from the comparison.

use super::*;

const HOUR_MS: i64 = 3_600_000;
const DAY_START_MS: i64 = T0 - 6 * HOUR_MS;
const DAY_END_MS: i64 = T0 + 18 * HOUR_MS;

fn hour(city: &str) -> Key {
    Key::rollup(city, "traffic", Grain::Hour, UnixMs(T0))
}

fn day(city: &str) -> Key {
    Key::rollup(city, "traffic", Grain::Day, UnixMs(DAY_START_MS))
}

/// Returns a slice in which all hours and days are rolled up.
fn rolled(range: (i64, i64), logs: &BTreeMap<i32, Log>) -> Slice {
    let scope = Scope {
        rolled_until_ms: UnixMs(i64::MAX),
        range: (UnixMs(range.0), UnixMs(range.1)),
        ..scope(1 << 20)
    };
    Slice::new(scope, None, logs)
}

fn difference(slice: &Slice, key: &Key) -> Option<(Mismatch, String)> {
    let mut differences = slice.outcome().differences.into_iter();
    let found = differences.find(|d| d.key == *key);
    found.map(|d| (d.kind, d.detail))
}

#[test]
fn only_hours_and_days_within_the_range_are_compared() {
    for (range, has_hour, has_day) in [
        ((0, i64::MAX), true, true),
        ((DAY_START_MS, DAY_END_MS), true, true),
        ((DAY_START_MS + 1, DAY_END_MS), true, false),
        ((DAY_START_MS, DAY_END_MS - 1), true, false),
        ((T0, T0 + HOUR_MS), true, false),
        ((T0 + 1, T0 + HOUR_MS), false, false),
        ((T0, T0 + HOUR_MS - 1), false, false),
    ] {
        let mut slice = rolled(range, &logs(0, 9, None));
        // The second event is in a later hour and moves the watermark, so that the third event is late.
        take(&mut slice, "NYC", 0, T0);
        take(&mut slice, "NYC", 1, DAY_END_MS);
        take(&mut slice, "NYC", 2, T0);
        for city in ["NYC", ""] {
            let missing = Some((Mismatch::Missing, "the log has 1 events of it".to_owned()));
            let found = [hour(city), day(city)].map(|key| difference(&slice, &key));
            let want = [has_hour, has_day].map(|has| missing.clone().filter(|_| has));
            assert_eq!(found, want, "{city:?} {range:?}");
        }
    }
}

#[test]
fn a_rollup_row_without_events_or_with_a_flaw_differs() {
    let mut slice = rolled((0, i64::MAX), &logs(0, 9, None));
    take(&mut slice, "LA", 0, T0);
    let odd = FoundRow {
        odd: Some("its city is LA".to_owned()),
        ..rollup(1, None)
    };
    slice.add_row(hour("NYC"), rollup(1, None));
    slice.add_row(hour("LA"), odd);
    let extra = "event_count is 1, by the log 0; severity_low is 1, by the log 0";
    let want = Some((Mismatch::Extra, extra.to_owned()));
    assert_eq!(difference(&slice, &hour("NYC")), want);
    let want = Some((Mismatch::Wrong, "its city is LA".to_owned()));
    assert_eq!(difference(&slice, &hour("LA")), want);
    let suspects = slice.suspect_rollups(None, 99);
    let want = [day(""), hour(""), day("LA"), hour("LA"), hour("NYC")];
    assert_eq!(suspects, want);
    assert_eq!(slice.suspect_rollups(None, 2), suspects[..2]);
    assert_eq!(slice.suspect_rollups(Some(&suspects[1]), 9), suspects[2..]);
    // A row outside the slice never seems to differ from the log.
    assert!(!slice.look_at_rollup(&hour("SF"), Some(rollup(1, None))));
}

#[test]
fn a_row_of_all_cities_is_the_sum_of_its_series() {
    let odd = FoundRow {
        odd: Some("its city is LA".to_owned()),
        ..rollup(6, Some(7))
    };
    for (found, parts, is_sum) in [
        (rollup(6, Some(7)), [(2, 7), (4, 7)], true),
        (rollup(6, Some(7)), [(2, 7), (4, 8)], false),
        (rollup(6, Some(7)), [(2, 7), (3, 7)], false),
        (odd, [(2, 7), (4, 7)], false),
    ] {
        let mut slice = rolled((0, i64::MAX), &logs(0, 9, None));
        slice.add_row(day(""), found);
        take(&mut slice, "NYC", 0, T0);
        let parts = parts.map(|(events, hour)| rollup(events, Some(hour)));
        slice.look_at_series(&day(""), parts.iter());
        slice.look_at_series(&day("SF"), parts.iter());
        assert_eq!(difference(&slice, &day("")).is_none(), is_sum, "{parts:?}");
    }
}

#[test]
fn a_window_excuses_only_its_own_hour_and_day() {
    let foreign = FoundRow {
        foreign: true,
        ..row(1, 0, 1)
    };
    let next_hour = Key::rollup("NYC", "traffic", Grain::Hour, UnixMs(T0 + HOUR_MS));
    let keys = [hour("NYC"), day("NYC"), next_hour, hour("LA")];
    let window = |city, start_ms| Key::window(city, "traffic", UnixMs(start_ms));
    // Each case lists a window that cannot be compared, and for each hour row or day row whether it is still reported
    // as different.
    for (key, differ) in [
        (window("NYC", T0), [false, false, true, true]),
        (window("NYC", T0 + HOUR_MS - 1), [false, false, true, true]),
        (window("NYC", T0 + HOUR_MS), [true, false, false, true]),
        (window("NYC", DAY_START_MS), [true, false, true, true]),
        (window("NYC", DAY_START_MS - 1), [true; 4]),
        (window("SF", T0), [true; 4]),
        (Key::totals("NYC", "traffic"), [true; 4]),
    ] {
        let mut slice = rolled((0, i64::MAX), &logs(0, 9, None));
        for key in keys.clone() {
            slice.add_row(key, rollup(9, None));
        }
        slice.add_row(key.clone(), foreign.clone());
        let found = keys.each_ref().map(|key| difference(&slice, key).is_some());
        assert_eq!(found, differ, "{key}");
        let excused = found.iter().filter(|differs| !**differs).count() as u64;
        // The window itself cannot be compared either.
        let outcome = slice.outcome();
        assert_eq!(outcome.incomparable[&Incomparable::Remade], excused + 1);
    }
}

#[test]
fn an_hour_is_unclear_if_the_lateness_of_its_events_is() {
    let mut slice = rolled((0, i64::MAX), &logs(3, 9, None));
    slice.add_row(hour("NYC"), rollup(1, None));
    take(&mut slice, "NYC", 3, T0);
    assert_eq!(difference(&slice, &hour("NYC")), None);
    let outcome = slice.outcome();
    assert_eq!(outcome.incomparable[&Incomparable::Unclear], 1);
}
