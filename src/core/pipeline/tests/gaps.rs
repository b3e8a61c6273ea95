//! Tests what happens to records after a gap in the offsets: they wait, are processed, or are read again.

use super::*;
use crate::gap::{Gap, SecondRead};

/// Returns the gaps for which the pipeline requests a second read, each with the earliest time at which this read may
/// begin.
fn gaps(outputs: &[Output]) -> Vec<(Gap, i64)> {
    let gap = |output: &Output| match output {
        Output::CheckGap {
            gap, not_before_ms, ..
        } => Some((*gap, not_before_ms.0)),
        _ => None,
    };
    outputs.iter().filter_map(gap).collect()
}

fn gap(from: i64, to: i64) -> Gap {
    Gap {
        from: Offset(from),
        to: Offset(to),
    }
}

#[test]
fn records_after_a_gap_wait_until_a_second_read_confirms_it() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    let records = [0, 2, 3, 6].map(|at| record(at, "NYC", 7)).to_vec();
    b.pipeline.records(SteadyMs(1), 0, a, records);
    let out = b.pump(1);
    assert_eq!(gaps(&out), [(gap(1, 2), 1)]);
    b.pipeline.reached_end(SteadyMs(2), 0, a, Offset(8));
    assert_eq!(gaps(&b.pump(2)), [], "one question at a time");
    let in_flight = |b: &Bench| b.pipeline.workers().next().expect("running").in_flight();
    assert_eq!(in_flight(&b), 1, "only the record before the gap");
    let next = |at| SecondRead::Next(Offset(at));
    b.pipeline
        .gap_checked(SteadyMs(3), 0, a, gap(1, 2), next(2));
    assert_eq!(gaps(&b.pump(3)), [(gap(4, 6), 3)]);
    assert_eq!(in_flight(&b), 3);
    // If the second read gets no answer, the pipeline requests the read again after a wait.
    b.pipeline
        .gap_checked(SteadyMs(4), 0, a, gap(4, 6), SecondRead::NoAnswer);
    assert_eq!(gaps(&b.pump(4)), [(gap(4, 6), 4 + LOCATE_AGAIN_MS)]);
    b.pipeline
        .gap_checked(SteadyMs(5), 0, a, gap(4, 6), next(6));
    // Control records at the end of the log leave another gap.
    assert_eq!(gaps(&b.pump(5)), [(gap(7, 8), 5)]);
    b.pipeline
        .gap_checked(SteadyMs(6), 0, a, gap(7, 8), next(8));
    assert_eq!(b.pipeline.report().tally.gaps_real, 1);
    b.pump(6);
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!((worker.in_flight(), worker.position()), (4, Offset(8)));
}

#[test]
fn a_partition_starts_over_before_records_that_the_client_skipped() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline.topic_checked(SteadyMs(0), None);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    let updates = b.updates(1);
    b.pipeline
        .records(SteadyMs(2), 0, a, vec![record(5, "NYC", 8)]);
    assert_eq!(gaps(&b.pump(2)), [(gap(1, 5), 2)]);
    let found = SecondRead::Next(Offset(3));
    b.pipeline.gap_checked(SteadyMs(3), 0, a, gap(1, 5), found);
    // The pipeline drops further records after the gap, and returns the memory of these records to the budget.
    b.pipeline
        .records(SteadyMs(3), 0, a, vec![record(6, "NYC", 8)]);
    let report = b.pipeline.report();
    assert_eq!(report.tally.gaps_skipped, 1);
    assert_eq!(report.ledger.consumed, 1);
    assert_eq!(report.tally.bytes_freed, 2 * 10);
    let out = b.pump(3);
    assert!(matches!(out[..], [Output::Skipped { .. }]), "{out:?}");
    b.count(4, &updates);
    b.pump(2_000);
    b.pipeline.topic_checked(SteadyMs(2_001), Some("T"));
    let parts = commits(&b.pump(2_001));
    assert_eq!(parts[0].boundary.next, Offset(1), "not past the gap");
    b.pipeline.commit_done(SteadyMs(2_002), true);
    let out = b.pump(2_003);
    assert!(
        matches!(out[..], [Output::Hold { .. }, Output::Locate { .. }]),
        "{out:?}"
    );
}

#[test]
fn answers_about_another_gap_or_assignment_change_nothing() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(4, "NYC", 7)]);
    b.pump(1);
    let next = SecondRead::Next(Offset(9));
    b.pipeline.gap_checked(SteadyMs(2), 0, a, gap(0, 3), next);
    b.pipeline
        .gap_checked(SteadyMs(2), 0, a + 1, gap(0, 4), next);
    b.pipeline.gap_checked(SteadyMs(2), 1, a, gap(0, 4), next);
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!(worker.position(), Offset(0));
    // A draining partition does not wait for records after a gap.
    b.pipeline.revoked(SteadyMs(3), &[0], false, DRAIN_MS);
    assert_eq!(released(&b.pump(3)).len(), 1);
    b.pipeline.gap_checked(SteadyMs(4), 0, a, gap(0, 4), next);
    assert!(b.pump(4).is_empty());
}
