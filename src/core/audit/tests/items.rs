//! Tests the comparison of raw events and alerts with the log.

use super::*;

/// The event of the record at offset 0.
const VALUE: &str = r#"{"city":"NYC","event_type":"traffic","severity":"high","description":"queue",
    "timestamp":"2013-01-01T06:00:00Z","lane":2}"#;
const EXTRA: &str = r#"{"lane":2}"#;

fn keys() -> [Key; 2] {
    let of = |key: fn(&str, UnixMs, &str) -> Key| key("NYC", UnixMs(T0), "t-0-0");
    [of(Key::raw), of(Key::alert)]
}

fn item(content: u64) -> FoundPut {
    FoundPut {
        content,
        late: false,
        source: None,
        elsewhere: false,
        expired: false,
    }
}

/// Returns the raw event and the alert that the record requires.
fn items() -> [FoundPut; 2] {
    [Some(EXTRA), None].map(|extra| item(content("NYC", "traffic", "high", "queue", false, extra)))
}

/// Compares the log, which contains one record at offset 0, with a raw event and an alert in the tables. Returns how
/// each of the two items differs from the log.
fn compare(
    scope: Scope,
    logs: &BTreeMap<i32, Log>,
    found: [Option<FoundPut>; 2],
) -> [Option<Mismatch>; 2] {
    let mut slice = Slice::new(scope, None, logs);
    for (key, found) in keys().into_iter().zip(found) {
        if let Some(found) = found {
            slice.add_put(key, found);
        }
    }
    let body = parse_record(Some(VALUE.as_bytes()), None);
    let stamp = Stamp {
        ms: Some(UnixMs(T0)),
        by_broker: true,
    };
    slice.take(0, Offset(0), stamp, &body);
    let outcome = slice.outcome();
    keys().map(|key| {
        let found = outcome.differences.iter().find(|d| d.key == key);
        found.map(|d| d.kind)
    })
}

#[test]
fn an_item_has_the_content_of_its_record() {
    const MISSING: Option<Mismatch> = Some(Mismatch::Missing);
    const WRONG: Option<Mismatch> = Some(Mismatch::Wrong);
    let [raw, alert] = items();
    let late = |item: &FoundPut| FoundPut {
        late: true,
        ..item.clone()
    };
    let expired = |item: &FoundPut| FoundPut {
        expired: true,
        ..item.clone()
    };
    let other = item(content("NYC", "traffic", "low", "queue", false, None));
    let future = item(content(
        "NYC",
        "traffic",
        "high",
        "queue",
        true,
        Some(EXTRA),
    ));
    let plain = item(content("NYC", "traffic", "high", "queue", false, None));
    for (claim, found, want) in [
        (1, [Some(&raw), Some(&alert)], [None, None]),
        (1, [None, Some(&alert)], [MISSING, None]),
        (1, [Some(&raw), None], [None, MISSING]),
        (1, [Some(&other), Some(&alert)], [WRONG, None]),
        (1, [Some(&raw), Some(&other)], [None, WRONG]),
        // A raw event also contains the unknown fields of its event, and the flag for a future event.
        (1, [Some(&plain), Some(&alert)], [WRONG, None]),
        (1, [Some(&future), Some(&alert)], [WRONG, None]),
        (1, [Some(&raw), Some(&raw)], [None, WRONG]),
        (1, [Some(&late(&raw)), Some(&alert)], [WRONG, None]),
        (1, [Some(&raw), Some(&late(&alert))], [None, WRONG]),
        // DynamoDB may delete an expired item at any time, so its content does not matter.
        (1, [Some(&expired(&other)), Some(&alert)], [None, None]),
        // The record is above the claim, so a consumer may still store its items.
        (0, [None, None], [None, None]),
        (0, [Some(&other), Some(&other)], [None, None]),
    ] {
        let scope = Scope {
            raw_rows: RawRows::All,
            ..scope(1 << 20)
        };
        let differs = compare(
            scope,
            &logs(0, claim, None),
            found.map(Option::<&_>::cloned),
        );
        assert_eq!(differs, want, "claim {claim}, {found:?}");
    }
}

#[test]
fn only_the_items_that_the_tables_store_are_required() {
    const MISSING: Option<Mismatch> = Some(Mismatch::Missing);
    for (raw_rows, range_end_ms, want) in [
        (RawRows::All, i64::MAX, [MISSING, MISSING]),
        (RawRows::Alerts, i64::MAX, [MISSING, MISSING]),
        (RawRows::None, i64::MAX, [None, None]),
        (RawRows::All, T0 + 1, [MISSING, MISSING]),
        (RawRows::All, T0, [None, None]),
    ] {
        let scope = Scope {
            raw_rows,
            range: (UnixMs(0), UnixMs(range_end_ms)),
            ..scope(1 << 20)
        };
        let differs = compare(scope, &logs(0, 1, None), [None, None]);
        assert_eq!(differs, want, "{raw_rows:?} until {range_end_ms}");
    }
}

#[test]
fn an_item_without_a_record_is_extra_if_the_log_should_have_its_record() {
    let raw = Key::raw("NYC", UnixMs(T0), "other");
    // Each case lists the first offset of the log, the source in the item, whether the topic was recreated, and the
    // expected result.
    for (start, source, remade, want) in [
        (0, None, false, Ok(Mismatch::Extra)),
        (3, None, false, Err(Incomparable::Older)),
        (3, Some((0, 3)), false, Ok(Mismatch::Extra)),
        (3, Some((0, 2)), false, Err(Incomparable::Older)),
        (3, Some((7, 2)), false, Ok(Mismatch::Extra)),
        (0, Some((0, 0)), true, Err(Incomparable::Remade)),
    ] {
        let scope = Scope {
            remade,
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(start, 9, None));
        let found = FoundPut {
            source: source.map(|(partition, offset)| (partition, Offset(offset))),
            ..item(1)
        };
        slice.add_put(raw.clone(), found);
        let outcome = slice.outcome();
        let case = format!("start {start}, {source:?}: {outcome:?}");
        match want {
            Ok(kind) => assert_eq!(outcome.differences[0].kind, kind, "{case}"),
            Err(reason) => assert_eq!(outcome.incomparable[&reason], 1, "{case}"),
        }
        assert_eq!(outcome.difference_count, u64::from(want.is_ok()), "{case}");
    }
}

#[test]
fn an_item_that_is_read_again_replaces_the_earlier_one() {
    let [raw, _] = items();
    let [key, _] = keys();
    let of = |partition, offset| FoundPut {
        source: Some((partition, Offset(offset))),
        elsewhere: true,
        ..item(7)
    };
    // The raw event of another city with the same id and time may have replaced the raw event.
    for (now, differs) in [
        (Some(raw.clone()), false),
        (Some(item(7)), true),
        (Some(of(0, 1)), false),
        (Some(of(1, 0)), false),
        (Some(of(0, 0)), true),
        (None, true),
    ] {
        let scope = Scope {
            raw_rows: RawRows::All,
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(0, 1, None));
        slice.add_put(key.clone(), item(7));
        let body = parse_record(Some(VALUE.as_bytes()), None);
        slice.take(
            0,
            Offset(0),
            Stamp {
                ms: Some(UnixMs(T0)),
                by_broker: true,
            },
            &body,
        );
        assert!(slice.suspects(None, 9).contains(&key));
        slice.look_again(&key, now.clone());
        assert_eq!(slice.suspects(None, 9).contains(&key), differs, "{now:?}");
        let outcome = slice.outcome();
        assert_eq!(
            outcome.differences.iter().any(|d| d.key == key),
            differs,
            "{now:?}"
        );
    }
}
