//! Tests which rows a slice keeps, and which rows it drops for the next slice.

use super::*;

/// Adds the window row of the given city, event type and start to the slice.
fn add(slice: &mut Slice, city: &str, event_type: &str, start_ms: i64) {
    let key = Key::window(city, event_type, UnixMs(start_ms));
    slice.add_row(key, row(1, 0, 1));
}

#[test]
fn a_slice_is_full_when_its_rows_fill_three_quarters_of_its_memory() {
    let max = 64 << 10;
    let mut slice = Slice::new(scope(max), None, &logs(0, 1, None));
    assert!(slice.is_empty() && !slice.is_full());
    // A row that the caller adds again replaces the earlier row, so it needs no further memory.
    for _ in 0..1_000 {
        add(&mut slice, "NYC", "traffic", T0);
    }
    assert_eq!(slice.len(), 1);
    assert!(!slice.is_empty() && !slice.is_full());
    for n in 1..1_000 {
        if slice.is_full() {
            break;
        }
        add(&mut slice, "NYC", "traffic", T0 + n);
        assert_eq!(i64::try_from(slice.len()), Ok(n + 1));
    }
    assert!(slice.is_full() && slice.hi().is_none());
    let bytes = slice.bytes_peak();
    assert!(
        (max * 3 / 4..max * 3 / 4 + 1_000).contains(&bytes),
        "{bytes}"
    );
}

#[test]
fn a_slice_without_room_drops_half_of_its_rows_but_splits_no_place() {
    let max = 64 << 10;
    for case in ["places", "two places", "one place"] {
        let mut slice = Slice::new(scope(max), None, &logs(0, 1, None));
        if case == "two places" {
            add(&mut slice, "NYC", "traffic", T0 + 1);
        }
        let mut before = 0;
        for n in 0..1_000 {
            if slice.hi().is_some() {
                break;
            }
            before = slice.len() + 1;
            match case {
                "places" => add(&mut slice, "NYC", "traffic", T0 + n),
                _ => add(&mut slice, "NYC", &format!("type{n}"), T0),
            }
        }
        let hi = slice.hi().map(|place| place.time_ms);
        let (want_hi, want_len) = match case {
            "places" => (Some(T0 + i64::try_from(before / 2).unwrap()), before / 2),
            "two places" => (Some(T0 + 1), before - 1),
            _ => (None, 1_000),
        };
        assert_eq!(
            (hi, slice.len()),
            (want_hi.map(UnixMs), want_len),
            "{case}, {before} rows"
        );
    }
}

#[test]
fn a_slice_never_grows_beyond_its_end() {
    let mut slice = Slice::new(scope(1 << 20), None, &logs(0, 1, None));
    for city in ["A", "B", "C"] {
        add(&mut slice, city, "traffic", T0);
    }
    for (end, len) in [("C", 2), ("D", 2), ("B", 1)] {
        slice.end_at(RowPlace::new(end, UnixMs(0)));
        assert_eq!(slice.len(), len, "{end}");
    }
    assert_eq!(slice.hi(), Some(&RowPlace::new("B", UnixMs(0))));
    add(&mut slice, "B", "traffic", T0);
    assert_eq!(slice.len(), 1);
}
