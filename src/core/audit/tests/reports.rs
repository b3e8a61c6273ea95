//! Tests the results of the comparison: the text of each difference, the sums, and the keys that the caller must read
//! again.

use super::super::judge::DIFFERENCES_MAX;
use super::*;

/// Compares a window row with a log of `records` records and the given claim. Returns how the row differs from the log.
fn difference(claim: i64, records: i64, found: Option<FoundRow>) -> Option<(Mismatch, String)> {
    let mut slice = Slice::new(scope(1 << 20), None, &logs(0, claim, None));
    if let Some(found) = found {
        slice.add_row(nyc(), found);
    }
    for offset in 0..records {
        take(&mut slice, "NYC", offset, T0);
    }
    let mut differences = slice.outcome().differences.into_iter();
    let found = differences.find(|d| d.key == nyc());
    found.map(|d| (d.kind, d.detail))
}

#[test]
fn a_difference_says_what_is_wrong_with_a_row() {
    let odd = FoundRow {
        odd: Some("its city is LA".to_owned()),
        ..row(1, 0, 1)
    };
    let distinct = FoundRow {
        distinct: Some([true, false, true, false]),
        ..row(1, 0, 1)
    };
    let lacks_the_record = "event_count is 2, by the log 3; severity_low is 2, by the log 3; the record at partition 0, \
                            offset 2 is not counted";
    let lacks_records = "event_count is 1, by the log 3; severity_low is 1, by the log 3; the record at partition 0, \
                         offset 1 and 1 more is not counted";
    for (claim, records, found, kind, detail) in [
        (1, 1, None, Mismatch::Missing, "the log has 1 event of it"),
        (3, 3, None, Mismatch::Missing, "the log has 3 events of it"),
        (3, 3, Some(row(2, 0, 2)), Mismatch::Wrong, lacks_the_record),
        (3, 3, Some(row(1, 0, 1)), Mismatch::Wrong, lacks_records),
        (1, 1, Some(odd), Mismatch::Wrong, "its city is LA"),
        (
            1,
            1,
            Some(distinct),
            Mismatch::Wrong,
            "the attribute severities differs from the counts by severity",
        ),
        (
            1,
            0,
            Some(row(1, 0, 1)),
            Mismatch::Extra,
            "event_count is 1, by the log 0; severity_low is 1, by the log 0",
        ),
        (
            1,
            0,
            Some(row(0, 0, 1)),
            Mismatch::Extra,
            "the log has no event of it",
        ),
    ] {
        let want = Some((kind, detail.to_owned()));
        assert_eq!(difference(claim, records, found.clone()), want, "{found:?}");
    }
    let unequal = difference(1, 1, Some(row(1, 0, 1)));
    assert_eq!(unequal, None);
}

#[test]
fn a_difference_says_what_is_wrong_with_a_fence() {
    let fence = |partition| Fence {
        partition,
        first: Offset(0),
        next: Offset(1),
    };
    let unknown = FoundRow {
        fences: vec![fence(0), fence(7)],
        ..row(1, 0, 1)
    };
    for (claim, records, found, detail) in [
        (
            1,
            1,
            unknown,
            "a fence names partition 7, which the topic does not have",
        ),
        (
            3,
            3,
            row(3, 1, 3),
            "partition 0 has a record of it before the fence's first, 1",
        ),
        (
            3,
            3,
            row(3, 0, 5),
            "the fence of partition 0 names offsets 0 to 5, where the log has no record of it",
        ),
        (
            3,
            3,
            row(3, 0, 2),
            "its fence leaves out records that are stored",
        ),
    ] {
        let want = Some((Mismatch::Fence, detail.to_owned()));
        assert_eq!(
            difference(claim, records, Some(found.clone())),
            want,
            "{found:?}"
        );
    }
}

#[test]
fn the_sums_of_an_outcome_are_those_of_the_compared_rows() {
    let mut slice = Slice::new(scope(1 << 20), None, &logs(0, 5, None));
    slice.add_row(nyc(), row(7, 0, 5));
    let late = FoundRow {
        counts: Counts {
            event_count: 2,
            late_count: 1,
            severities: [3, 0, 0, 0],
        },
        ..row(3, 0, 5)
    };
    slice.add_row(Key::totals("NYC", "traffic"), late);
    for (offset, time_ms) in [(0, T0), (1, T0 + 3_600_000), (4, T0)] {
        take(&mut slice, "NYC", offset, time_ms);
    }
    let outcome = slice.outcome();
    // The totals have two events in windows and a late event.
    assert_eq!(outcome.totals, Sums { log: 3, tables: 3 });
    assert_eq!(outcome.windows, Sums { log: 2, tables: 7 });
    assert_eq!(outcome.difference_count, 2);
    let compared: Vec<_> = outcome.compared.into_iter().collect();
    assert_eq!(compared, [("totals", 1), ("window", 2)]);
}

#[test]
fn the_outcomes_of_all_slices_are_added_up() {
    let outcome = |n: u64, listed: usize| {
        let sum = i64::try_from(n).unwrap();
        let differences = (0..listed).map(|_| Difference {
            key: nyc(),
            kind: Mismatch::Wrong,
            detail: String::new(),
        });
        AuditOutcome {
            differences: differences.collect(),
            wrong_sums: vec![WrongSums {
                partition: 0,
                detail: String::new(),
            }],
            difference_count: n,
            differing: BTreeMap::from([(("window", Mismatch::Wrong), n)]),
            incomparable: BTreeMap::from([(Incomparable::Older, 2 * n)]),
            compared: BTreeMap::from([("window", 3 * n)]),
            windows: Sums {
                log: sum,
                tables: 2 * sum,
            },
            totals: Sums {
                log: 3 * sum,
                tables: 4 * sum,
            },
        }
    };
    let mut all = outcome(5, 5);
    all.merge(outcome(7, 7));
    let want = AuditOutcome {
        wrong_sums: vec![all.wrong_sums[0].clone(); 2],
        ..outcome(12, 12)
    };
    assert_eq!(all, want);
    all.merge(outcome(5_000, DIFFERENCES_MAX));
    assert_eq!(all.difference_count, 5_012);
    assert_eq!(all.differences.len(), DIFFERENCES_MAX);
}

#[test]
fn an_outcome_lists_only_the_first_differences() {
    let mut slice = Slice::new(scope(64 << 20), None, &logs(0, 0, None));
    for n in 0..1_200 {
        slice.add_row(Key::totals(&format!("city {n}"), "traffic"), row(1, 0, 1));
    }
    let outcome = slice.outcome();
    assert_eq!(outcome.difference_count, 1_200);
    assert_eq!(outcome.differing[&("totals", Mismatch::Extra)], 1_200);
    assert_eq!(outcome.differences.len(), DIFFERENCES_MAX);
}

#[test]
fn missing_rows_and_suspect_items_are_read_again_a_few_at_a_time() {
    let scope = Scope {
        raw_rows: RawRows::All,
        ..scope(1 << 20)
    };
    let mut slice = Slice::new(scope, None, &logs(0, 3, None));
    for (offset, city) in [(0, "A"), (1, "B"), (2, "C")] {
        take(&mut slice, city, offset, T0);
    }
    let all = slice.missing_rows(None, 99);
    let rows: Vec<String> = all.iter().map(Key::to_string).collect();
    let want = ["A", "B", "C"].map(|city| {
        [
            format!("totals {city}#traffic"),
            format!("window {city}#traffic#2013-01-01T06:00:00Z"),
        ]
    });
    assert_eq!(rows, want.as_flattened());
    assert_eq!(slice.missing_rows(None, 2), all[..2]);
    assert_eq!(slice.missing_rows(Some(&all[1]), 3), all[2..5]);
    assert_eq!(slice.missing_rows(Some(&all[5]), 9), []);
    let raws = [(0, "A"), (1, "B"), (2, "C")]
        .map(|(offset, city)| Key::raw(city, UnixMs(T0), &format!("t-0-{offset}")));
    assert_eq!(slice.suspects(None, 9), raws);
    assert_eq!(slice.suspects(Some(&raws[0]), 1), raws[1..2]);
}

#[test]
fn only_rows_of_counts_that_the_table_lacks_are_missing() {
    let scope = Scope {
        rolled_until_ms: UnixMs(i64::MAX),
        ..scope(1 << 20)
    };
    let mut slice = Slice::new(scope, None, &logs(0, 1, None));
    // The slice has the window row of NYC and the totals row of LA, so neither row is missing.
    slice.add_row(nyc(), row(9, 0, 1));
    slice.add_row(Key::totals("LA", "traffic"), row(1, 0, 1));
    take(&mut slice, "NYC", 0, T0);
    // The hour row and the day row of the event are also missing, but `missing_rows` does not return such rows.
    assert_eq!(
        slice.missing_rows(None, 99),
        [Key::totals("NYC", "traffic")]
    );
}

#[test]
fn refused_items_are_not_missing() {
    let scope = Scope {
        raw_rows: RawRows::All,
        ..scope(1 << 20)
    };
    let mut slice = Slice::new(scope, None, &logs(0, 2, None));
    take(&mut slice, "A", 0, T0);
    assert!(slice.misses_puts());
    slice.excuse(&[(0, Offset(1)), (1, Offset(0))].into());
    assert!(slice.misses_puts(), "other records were refused");
    slice.excuse(&[(0, Offset(0))].into());
    assert!(!slice.misses_puts());
    let missing = |d: &Difference| d.key.kind() == "raw event";
    assert!(!slice.outcome().differences.iter().any(missing));
    // The comparison still expects the rows of counts of the refused event.
    assert_eq!(slice.missing_rows(None, 9).len(), 2);
}

#[test]
fn an_alert_gets_its_record_from_its_raw_event() {
    let alert = Key::alert("NYC", UnixMs(T0), "e1");
    let item = FoundPut {
        content: 7,
        late: false,
        source: None,
        elsewhere: false,
        expired: false,
    };
    // The log begins at offset 3, so an alert of an earlier record cannot be compared.
    for (source, extra) in [((0, Offset(2)), false), ((0, Offset(3)), true)] {
        let mut slice = Slice::new(scope(1 << 20), None, &logs(3, 9, None));
        slice.add_put(alert.clone(), item.clone());
        slice.add_put(Key::raw("NYC", UnixMs(T0), "e1"), item.clone());
        assert_eq!(slice.unknown_alerts(None, 9), std::slice::from_ref(&alert));
        assert_eq!(slice.unknown_alerts(Some(&alert), 9), []);
        slice.trace(&alert, source);
        let outcome = slice.outcome();
        let found = outcome.differences.iter().find(|d| d.key == alert);
        let want = "the log has no such event at partition 0, offset 3";
        let want = extra.then_some((Mismatch::Extra, want));
        assert_eq!(found.map(|d| (d.kind, &*d.detail)), want, "{source:?}");
    }
}

#[test]
fn a_missing_item_may_have_expired() {
    // Each case lists the creation time of the tables, the current time, and whether the item is reported as missing.
    // The tables keep raw events for 1,000,000 ms.
    for (made_ms, now_ms, is_missing) in [
        (0, T0 + 999_999, true),
        (0, T0 + 1_000_000, false),
        (T0 + 5, T0 + 1_000_004, true),
        (T0 + 5, T0 + 1_000_005, false),
    ] {
        let scope = Scope {
            raw_rows: RawRows::All,
            made_ms: UnixMs(made_ms),
            now_ms: UnixMs(now_ms),
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(0, 1, None));
        take(&mut slice, "NYC", 0, T0);
        let outcome = slice.outcome();
        let raw = outcome
            .differences
            .iter()
            .find(|d| d.key.kind() == "raw event");
        let want = is_missing.then_some("the log has it at partition 0, offset 0");
        assert_eq!(raw.map(|d| &*d.detail), want, "{made_ms}, {now_ms}");
        let expired = outcome.incomparable.get(&Incomparable::Expired);
        assert_eq!(expired.copied(), (!is_missing).then_some(1));
    }
}

#[test]
fn a_wrong_progress_item_is_reported_with_both_sums() {
    let mut logs = logs(0, 4, None);
    logs.get_mut(&0).unwrap().published = Some(Published {
        next: Offset(3),
        sums: Some(Counts {
            event_count: 3,
            late_count: 4,
            severities: [1, 2, 3, 1],
        }),
        whole: true,
    });
    let mut slice = Slice::new(scope(1 << 20), None, &logs);
    for (offset, time_ms) in (0..).zip([T0, T0 + 3_600_000, T0, T0 + 3_600_000]) {
        take(&mut slice, "NYC", offset, time_ms);
    }
    let outcome = slice.outcome();
    let want = WrongSums {
        partition: 0,
        detail: "below offset 3 the log has 2 events in windows and 1 late ones (3 low, 0 medium, 0 high, \
                 0 critical), the item says 3 events in windows and 4 late ones (1 low, 2 medium, 3 high, 1 critical)"
            .to_owned(),
    };
    assert_eq!(outcome.wrong_sums, [want]);
    // The window row and the totals row are also missing.
    let missing: u64 = outcome.differing.values().sum();
    assert_eq!(outcome.difference_count, missing);
    assert_eq!(outcome.differing[&(PROGRESS_ITEM, Mismatch::Wrong)], 1);
}
