//! Slices on logs that are whole, and on logs that lost their beginning.

use std::collections::BTreeMap;

use super::*;
use crate::parse::parse_record;
use crate::time::format_millis;

const T0: i64 = 1_357_020_000_000; // 2013-01-01T06:00:00Z

fn scope(bytes_max: usize) -> Scope {
    Scope {
        topic: "t".to_owned(),
        rules: Rules::default(),
        stored: Stored::Alerts,
        range: (0, i64::MAX),
        remade: false,
        raw_ttl_ms: 1_000_000,
        alert_ttl_ms: None,
        made_ms: T0,
        now_ms: T0,
        bytes_max,
    }
}

fn logs(start: i64, claim: i64, before_max_ms: Option<i64>) -> BTreeMap<i32, Log> {
    let log = Log {
        start: Offset(start),
        claim: Offset(claim),
        before_max_ms,
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

/// Takes an event of low severity.
fn take(slice: &mut Slice, city: &str, offset: i64, time_ms: i64) {
    let value = format!(
        r#"{{"city":"{city}","event_type":"traffic","severity":"low","timestamp":"{}"}}"#,
        format_millis(time_ms)
    );
    let body = parse_record(Some(value.as_bytes()), None);
    assert!(body.is_ok(), "{value}");
    let stamp = Stamp {
        ms: Some(time_ms),
        by_broker: false,
    };
    slice.take(0, Offset(offset), stamp, &body);
}

fn nyc() -> Key {
    Key::window("NYC", "traffic", T0)
}

/// What comes of the window `nyc`.
fn kind(slice: &Slice) -> Option<Kind> {
    let outcome = slice.judge();
    let mut found = outcome.differences.iter().filter(|d| d.key == nyc());
    found.next().map(|d| d.kind)
}

#[test]
fn a_row_holds_what_its_fence_says_and_at_least_what_is_claimed() {
    // claim; count, first and next in the row; what comes of it. The log has offsets 0, 1 and 2.
    for (claim, found, want) in [
        (0, None, None),
        (0, Some((2, 0, 2)), None),
        (2, Some((2, 0, 2)), None),
        (3, Some((3, 0, 3)), None),
        (3, Some((2, 0, 2)), Some(Kind::Wrong)),
        (0, Some((3, 0, 2)), Some(Kind::Wrong)),
        (0, Some((2, 0, 3)), Some(Kind::Wrong)),
        (1, None, Some(Kind::Missing)),
        // Counted once too often and once left out: only the fence shows it.
        (3, Some((3, 0, 2)), Some(Kind::Fence)),
        (3, Some((3, 0, 5)), Some(Kind::Fence)),
        (3, Some((3, 1, 3)), Some(Kind::Fence)),
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
    // The log has offsets 0 to 3, of which 2 is late.
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
        let outcome = slice.judge();
        let case = format!("{next} {found:?}: {outcome:?}");
        match want {
            Ok(right) => {
                assert_eq!(outcome.compared[PROGRESS_ITEM], 1, "{case}");
                assert_eq!(outcome.wrong_sums.is_empty(), right, "{case}");
                let wrong = outcome.differing.get(&(PROGRESS_ITEM, Kind::Wrong));
                assert_eq!(wrong.is_none(), right, "{case}");
            }
            Err(reason) => {
                assert!(!outcome.compared.contains_key(PROGRESS_ITEM), "{case}");
                assert!(outcome.incomparable[&reason] > 0, "{case}");
            }
        }
        // Another slice leaves them to the first.
        let lo = Some(Place::new("ZZZ", 0));
        let rest = Slice::new(scope(1 << 20), lo, &logs).judge();
        assert!(!rest.compared.contains_key(PROGRESS_ITEM), "{rest:?}");
        assert_eq!(rest.incomparable.len(), 0, "{rest:?}");
    }
}

#[test]
fn a_row_counted_from_lost_records_is_not_compared() {
    // Where the log begins, the row's first record, what is known of the lost ones.
    for (start, first, before_max_ms, compared, reason) in [
        (5, 5, Some(T0), 1, None),
        (5, 4, Some(T0), 0, Some(Incomparable::Older)),
        // The window may have been closed by a lost record.
        (5, 5, Some(T0 + 900_000), 0, Some(Incomparable::Unclear)),
        (5, 5, None, 0, Some(Incomparable::Unclear)),
        (0, 5, None, 1, None),
    ] {
        let mut slice = Slice::new(scope(1 << 20), None, &logs(start, 6, before_max_ms));
        slice.add_row(nyc(), row(1, first, 6));
        take(&mut slice, "NYC", 5, T0);
        let outcome = slice.judge();
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
    assert_eq!(kind(&slice), Some(Kind::Wrong));
    slice.begin_at(&BTreeMap::from([(0, Offset(4))]));
    let outcome = slice.judge();
    assert_eq!(outcome.difference_count, 0, "{outcome:?}");
    // The window, and the totals that the log wants.
    assert_eq!(outcome.incomparable[&Incomparable::Older], 2);
}

#[test]
fn a_slice_keeps_its_memory_whatever_the_log_holds() {
    let max = 64 << 10;
    let mut lo: Option<Place> = None;
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
        found += slice.judge().difference_count;
        slices += 1;
        lo = slice.hi().cloned();
        if lo.is_none() {
            break;
        }
    }
    // 97 totals, and a window for nearly every event: two come of one city in five minutes never.
    assert_eq!(found, 2_000 + 97);
    assert!(slices > 5, "{slices}");
}

#[test]
fn cities_stand_in_the_order_of_their_series() {
    let mut cities = ["A", "A!", "A b", "AB", "B"].map(|city| Place::new(city, 0));
    cities.sort();
    let mut series = ["A#x", "A!#x", "A b#x", "AB#x", "B#x"];
    series.sort_unstable();
    let cities = cities.each_ref().map(|place| format!("{}#x", place.city()));
    assert_eq!(cities, series);
}

#[test]
fn alerts_that_may_have_expired_are_not_missing_and_those_kept_for_ever_are() {
    let day_ms = 86_400_000;
    let alert = Key::alert("NYC", T0, "t-0-0");
    for (alert_ttl_ms, is_missing) in [
        (None, true),
        (Some(3 * day_ms), true),
        (Some(day_ms), false),
    ] {
        let scope = Scope {
            alert_ttl_ms,
            now_ms: T0 + 2 * day_ms,
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(0, 1, None));
        let value = format!(
            r#"{{"city":"NYC","event_type":"traffic","severity":"high","timestamp":"{}"}}"#,
            format_millis(T0)
        );
        let body = parse_record(Some(value.as_bytes()), None);
        let stamp = Stamp {
            ms: Some(T0),
            by_broker: false,
        };
        slice.take(0, Offset(0), stamp, &body);
        let outcome = slice.judge();
        let mut missing = outcome.differences.iter();
        let found = missing.any(|d| d.key == alert && d.kind == Kind::Missing);
        assert_eq!(found, is_missing, "{alert_ttl_ms:?}: {outcome:?}");
        // The raw row has expired in any case.
        let expired = outcome.incomparable[&Incomparable::Expired];
        assert_eq!(expired, if is_missing { 1 } else { 2 });
    }
}
