//! Tests the fields of incidents, the windows of count rules, and the events that a fold ignores because of a limit.

use super::*;
use crate::incident::fold::GROUPS_MAX;

/// Returns the times of an incident's first event, of its last event and of its opening, in minutes after [`BASE_MS`].
fn minutes(incident: &Incident) -> [i64; 3] {
    let times = [
        incident.first_event_ms,
        incident.last_event_ms,
        incident.opened_at_ms,
    ];
    times.map(|ms| (ms - UnixMs(BASE_MS)) / MINUTE_MS)
}

#[test]
fn an_incident_has_the_times_and_offsets_of_its_events() {
    use Severity::{Critical, Low};
    let log = [
        event("SF", Low, 1),
        event("NYC", Critical, 3),
        event("NYC", Critical, 2),
        event("NYC", Critical, 5),
        event("SF", Low, 100),
    ];
    // Each case lists the number of changes, and the times and the first offset of the incident in NYC.
    for (rule, count, times, opened) in [
        (critical(), 4, [2, 5, 3], 1),
        (surge(2), 2, [2, 3, 2], 2),
        // The silence of NYC begins at minute 35. The watermark reaches this minute with the last record.
        (silent(), 1, [5, 5, 100], 4),
    ] {
        let (_, changes) = fold_all(&[rule], &log);
        let mut changes = changes.into_iter();
        let of_nyc = |c: &Change| c.incident.group.city.as_deref() == Some("NYC");
        let changes: Vec<Change> = changes.by_ref().filter(of_nyc).collect();
        assert_eq!(changes.len(), count, "{changes:?}");
        let incident = &changes[count - 1].incident;
        assert_eq!(minutes(incident), times);
        assert_eq!(incident.opened, Offset(opened));
        assert_eq!(changes[0].incident.last_change(), Offset(opened));
    }
}

#[test]
fn a_count_rule_has_windows_of_its_own_length() {
    let condition = Condition::Count {
        count: 3,
        window_ms: 20 * MINUTE_MS,
        quiet_ms: 5 * MINUTE_MS,
    };
    let log = [0, 7, 14].map(|minute| event("NYC", Severity::Low, minute));
    let (_, changes) = fold_all(&[rule("long", condition)], &log);
    assert_eq!(said(&changes), [(What::Opened, 2, "NYC".to_owned(), 3)]);
}

#[test]
fn a_window_keeps_its_count_when_an_earlier_window_ends() {
    use Severity::Low;
    let log = [
        event("NYC", Low, 4),
        event("NYC", Low, 6),
        event("NYC", Low, 7),
        // With this event, the watermark passes the end of the first window, at minute 5.
        event("SF", Low, 16),
        event("NYC", Low, 8),
    ];
    let (_, changes) = fold_all(&[surge(3)], &log);
    assert_eq!(said(&changes), [(What::Opened, 4, "NYC".to_owned(), 3)]);
}

#[test]
fn a_rule_without_room_counts_the_incidents_that_it_leaves_out() {
    let log: Vec<Logged> = ["A", "B", "C"]
        .map(|city| event(city, Severity::Low, 0))
        .into_iter()
        .chain([event("SF", Severity::Low, 100)])
        .collect();
    let rule = Rule {
        open_max: 1,
        ..silent()
    };
    let (fold, changes) = fold_all(&[rule], &log);
    assert_eq!(said(&changes), [(What::Opened, 0, "A".to_owned(), 0)]);
    assert_eq!((fold.left_out().incidents, fold.left_out().events), (2, 0));
}

#[test]
fn a_rule_follows_a_limited_number_of_groups() {
    let mut fold = Fold::new(source(), &[surge(2)], &Checkpoint::begin(Offset(0)), &[]);
    let mut changes = Vec::new();
    for n in 0..GROUPS_MAX + 5 {
        let logged = event(&format!("C{n}"), Severity::Low, 0);
        take(&mut fold, n, &logged, &mut changes);
    }
    assert_eq!(fold.left_out().events, 5);
    // The fold still counts the events of a group that it already has.
    let mut offset = GROUPS_MAX + 5;
    let mut next = |fold: &mut Fold, city: &str, minute| {
        let logged = event(city, Severity::Low, minute);
        take(fold, offset, &logged, &mut changes);
        offset += 1;
        changes.len()
    };
    assert_eq!(next(&mut fold, "C0", 0), 1);
    // When the window of a group is over, the fold drops the group and accepts a new one.
    assert_eq!(next(&mut fold, "new", 100), 2, "the incident of C0 ends");
    assert_eq!(next(&mut fold, "new", 100), 3);
    assert_eq!(fold.left_out().events, 5);
}
