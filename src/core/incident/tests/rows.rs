//! Tests which rows of incidents an owner writes, and the comparison of these rows with the log.

use super::*;
use crate::incident::audit::{DESCRIBED_MAX, IncidentDifference};
use crate::incident::incident_id;

const LACKS: &str = "the row lacks a change that the log makes";
const UNKNOWN: &str = "the log has no such incident";
const DIFFERS: &str = "a field differs from the log";
const MISSING: &str = "the row is missing";

/// Returns a log with two incidents. Records 0 and 1 belong to the incident of NYC, record 2 ends the incident of NYC,
/// and record 3 opens the incident of LA.
fn log() -> [Logged; 4] {
    use Severity::{Critical, Low};
    [
        event("NYC", Critical, 0),
        event("NYC", Critical, 1),
        event("SF", Low, 40),
        event("LA", Critical, 41),
    ]
}

#[test]
fn a_row_must_have_the_changes_below_the_claim() {
    let (_, changes) = fold_all(&[critical()], &log());
    let states: Vec<Incident> = changes.iter().map(|c| (*c.incident).clone()).collect();
    let [opened, updated, ended, la] = &states[..] else {
        panic!("{states:?}");
    };
    let damaged = Incident {
        event_count: 9,
        ..ended.clone()
    };
    let unknown = Incident {
        id: incident_id("T", 3, Offset(2)).into(),
        opened: Offset(2),
        ..ended.clone()
    };
    // Each case lists the number of records before the base, the claim, the rows in the table, the number of compared
    // rows, and the differences.
    for (base, claim, rows, compared, differences) in [
        (0, 4, &[ended, la][..], 2, &[][..]),
        (0, 4, &[ended], 2, &[MISSING]),
        (0, 3, &[ended], 1, &[]),
        (0, 4, &[updated, la], 2, &[LACKS]),
        (0, 3, &[opened], 1, &[LACKS]),
        (0, 2, &[updated], 1, &[]),
        (0, 1, &[opened], 1, &[]),
        (0, 1, &[], 1, &[MISSING]),
        (0, 0, &[], 0, &[]),
        (0, 4, &[&damaged, la], 2, &[DIFFERS]),
        (0, 4, &[ended, &unknown, la], 3, &[UNKNOWN]),
        // The incident of NYC was open at the base, so only later changes of its row are checked.
        (2, 4, &[ended, la], 1, &[]),
        (2, 4, &[&damaged, la], 1, &[]),
        (2, 4, &[updated, la], 2, &[LACKS]),
        (2, 2, &[updated], 0, &[]),
        (3, 4, &[&damaged, la], 1, &[]),
        (4, 4, &[ended, la], 0, &[]),
    ] {
        let (fold, _) = fold_all(&[critical()], &log()[..base]);
        let mut tables = Tables::default();
        tables.publish(fold.checkpoint());
        rows.iter().for_each(|row| tables.write(row));
        let outcome = audit(&tables, tables.bases[0], claim, &[critical()], &log());
        let found: Vec<&str> = outcome.differences.iter().map(|d| d.what).collect();
        let case = format!("base {base}, claim {claim}: {outcome:?}");
        assert_eq!(
            (outcome.compared, &found[..]),
            (compared, differences),
            "{case}"
        );
        assert_eq!(outcome.difference_count, differences.len() as u64, "{case}");
    }
}

#[test]
fn the_outcomes_of_all_partitions_are_added_up() {
    let outcome = |count: u64, described: usize| IncidentAuditOutcome {
        compared: 2 * count,
        difference_count: count,
        differences: (0..described)
            .map(|n| IncidentDifference {
                name: ("critical".into(), n.to_string().into()),
                what: MISSING,
            })
            .collect(),
    };
    let mut all = outcome(60, 60);
    all.merge(outcome(30, 30));
    assert_eq!((all.compared, all.difference_count), (180, 90));
    assert_eq!(all.differences.len(), 90);
    all.merge(outcome(500, DESCRIBED_MAX));
    assert_eq!((all.compared, all.difference_count), (1_180, 590));
    assert_eq!(all.differences.len(), DESCRIBED_MAX);
}

#[test]
fn an_audit_describes_only_the_first_differences() {
    let log: Vec<Logged> = (0..150)
        .map(|n| event(&format!("C{n}"), Severity::Critical, 0))
        .collect();
    let base = Base::of(&Checkpoint::begin(Offset(0)));
    let outcome = audit(&Tables::default(), base, 150, &[critical()], &log);
    assert_eq!((outcome.compared, outcome.difference_count), (150, 150));
    assert_eq!(outcome.differences.len(), DESCRIBED_MAX);
}

#[test]
fn an_owner_writes_each_change_and_publishes_what_the_rows_contain() {
    let at = |next| Checkpoint {
        next: Offset(next),
        ..Checkpoint::begin(Offset(0))
    };
    let mut owner = Owner::new(Tables::default().fold(&[critical()]));
    let read = |owner: &mut Owner| {
        let offset = owner.fold().next();
        let (record_ms, body) = &log()[usize::try_from(offset.0).unwrap()];
        owner.take(offset, Some(UnixMs(BASE_MS + record_ms)), body.as_ref());
    };
    read(&mut owner);
    assert_eq!(owner.unwritten_count(), 1);
    assert!(owner.is_complete(&at(0)) && !owner.is_complete(&at(1)));
    assert_eq!(owner.next_writes(0).len(), 0);
    let first = owner.next_writes(9);
    assert_eq!(first.len(), 1);
    let name = name_of(&first[0]);
    assert_eq!(owner.next_writes(9).len(), 0, "one write is under way");
    owner.failed(&name);
    owner.failed(&name);
    assert_eq!(owner.next_writes(9), first, "the failed write is repeated");
    // The incident changes again before the owner knows the outcome of the first write.
    read(&mut owner);
    owner.written(&name);
    assert_eq!(owner.unwritten_count(), 1);
    assert!(owner.is_complete(&at(1)) && !owner.is_complete(&at(2)));
    let second = owner.next_writes(9);
    assert_eq!(second[0].next, Offset(2));
    owner.written(&name);
    owner.written(&name);
    assert_eq!(owner.unwritten_count(), 0);
    assert!(owner.is_complete(&at(2)));
    // The records 2 and 3 were aborted, so the client delivers no record before offset 4.
    owner.skip_gap(Offset(4));
    owner.skip_gap(Offset(3));
    assert_eq!(owner.fold().next(), Offset(4));
}
