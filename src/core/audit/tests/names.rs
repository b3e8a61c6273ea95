//! Tests the names that reports use for rows, differences and reasons.

use super::*;

#[test]
fn a_key_has_the_text_that_the_table_has() {
    const HOUR_MS: UnixMs = UnixMs(T0);
    let rollup = |grain| Key::rollup("NYC", "traffic", grain, HOUR_MS);
    for (key, text, series) in [
        (
            Key::totals("NYC", "traffic"),
            "totals NYC#traffic",
            Some("NYC#traffic"),
        ),
        (
            Key::window("NYC", "traffic", HOUR_MS),
            "window NYC#traffic#2013-01-01T06:00:00Z",
            Some("NYC#traffic"),
        ),
        (
            Key::raw("NYC", HOUR_MS, "t-0-0"),
            "raw event t-0-0 2013-01-01T06:00:00.000Z",
            None,
        ),
        (
            Key::alert("NYC", HOUR_MS, "t-0-0"),
            "alert NYC 2013-01-01T06:00:00.000Z#t-0-0",
            None,
        ),
        (
            rollup(Grain::Hour),
            "hour hour#NYC#traffic 2013-01-01T06:00:00Z",
            None,
        ),
        (
            rollup(Grain::Day),
            "day day#NYC#traffic 2013-01-01T06:00:00Z",
            None,
        ),
    ] {
        assert_eq!(key.to_string(), text);
        assert_eq!(key.series().as_deref(), series, "{text}");
        assert_eq!(key.place.city(), "NYC");
        let grain = match key.kind() {
            "hour" => Some((Grain::Hour, "traffic")),
            "day" => Some((Grain::Day, "traffic")),
            _ => None,
        };
        assert_eq!(key.grain(), grain, "{text}");
        let windows = key.windows(300_000);
        let count = grain.map_or(0, |(grain, _)| grain.length_ms() / 300_000);
        assert_eq!(i64::try_from(windows.len()), Ok(count), "{text}");
    }
}

#[test]
fn each_difference_and_reason_has_its_own_name() {
    let kinds = [
        Mismatch::Missing,
        Mismatch::Wrong,
        Mismatch::Extra,
        Mismatch::Fence,
    ]
    .map(Mismatch::name);
    assert_eq!(kinds, ["missing", "wrong", "extra", "fence"]);
    let names = Incomparable::ALL.map(Incomparable::name);
    let want = [
        "topic_made_again",
        "older_than_the_log",
        "lateness_unclear",
        "may_have_expired",
        "progress_without_sums",
    ];
    assert_eq!(names, want);
    let reasons = Incomparable::ALL.map(Incomparable::reason);
    for (reason, words) in reasons.into_iter().zip([
        "topic that was recreated",
        "no longer has",
        "late or not",
        "expired",
        "without sums",
    ]) {
        assert!(reason.contains(words), "{reason}");
    }
}
