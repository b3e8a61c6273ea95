//! Tests which records of the log a slice counts, and in which rows.

use super::*;

/// Passes three events and two other records to the slice. The last event is late. The third record is a heartbeat, and
/// the fourth record is rejected.
fn take_all(slice: &mut Slice) {
    take(slice, "NYC", 0, T0);
    take(slice, "NYC", 1, T0 + 3_600_000);
    let stamp = Stamp {
        ms: Some(UnixMs(T0)),
        by_broker: false,
    };
    let heartbeat = Ok(Body::Heartbeat(UnixMs(T0)));
    slice.take(0, Offset(2), stamp, &heartbeat);
    slice.take(0, Offset(3), stamp, &parse_record(Some(b"{"), None));
    take(slice, "NYC", 4, T0);
}

#[test]
fn the_records_of_a_log_are_counted_by_kind() {
    for (claim, unclaimed) in [(5, 0), (4, 1), (1, 2), (0, 3)] {
        let mut slice = Slice::new(scope(1 << 20), None, &logs(0, claim, None));
        take_all(&mut slice);
        let want = LogCounts {
            records: 5,
            events: 3,
            late: 1,
            rejected: 1,
            unclaimed,
        };
        assert_eq!(slice.seen(), want, "claim {claim}");
    }
}

#[test]
fn only_windows_in_the_range_are_compared_and_without_late_events() {
    const HOUR_MS: i64 = 3_600_000;
    let window = |start_ms: i64| Key::window("NYC", "traffic", UnixMs(start_ms));
    for (from_ms, until_ms, starts) in [
        (0, i64::MAX, &[T0, T0 + HOUR_MS][..]),
        (T0, T0 + HOUR_MS + 1, &[T0, T0 + HOUR_MS]),
        (T0, T0 + HOUR_MS, &[T0]),
        (T0 + 1, i64::MAX, &[T0 + HOUR_MS]),
        (T0 + HOUR_MS + 1, i64::MAX, &[]),
    ] {
        let scope = Scope {
            range: (UnixMs(from_ms), UnixMs(until_ms)),
            ..scope(1 << 20)
        };
        let mut slice = Slice::new(scope, None, &logs(0, 5, None));
        take_all(&mut slice);
        let outcome = slice.outcome();
        let found: Vec<_> = outcome
            .differences
            .iter()
            .map(|d| (d.key.clone(), d.kind, &*d.detail))
            .collect();
        let totals = Key::totals("NYC", "traffic");
        let mut want = vec![(totals, Mismatch::Missing, "the log has 3 events of it")];
        let windows = starts.iter().map(|start_ms| {
            let one = "the log has 1 event of it";
            (window(*start_ms), Mismatch::Missing, one)
        });
        want.extend(windows);
        assert_eq!(found, want, "{from_ms} to {until_ms}");
    }
}
