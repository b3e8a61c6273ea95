//! Tests the counts that a pipeline reports.

use super::puts::{puts, rejected, start, stored};
use super::*;
use crate::parse::Reason;

const HOUR_MS: i64 = 3_600_000;

/// Passes five records of a new partition to the pipeline, and then acknowledges all writes of these records. Returns
/// the pipeline's reports from before and after the acknowledgements.
fn work(b: &mut Bench, partition: i32) -> [Report; 2] {
    let assignment = start(b, partition);
    let city = |n| format!("city {partition} {n}");
    let mut late = record(1, &city(1), 0);
    if let Content::Valid(Body::Event(event)) = &mut late.content {
        event.severity = Severity::Critical;
    }
    let heartbeat = Record {
        content: Content::Valid(Body::Heartbeat(UnixMs(HOUR_MS))),
        ..record(2, "", HOUR_MS)
    };
    let future = Record {
        timestamp_ms: Some(UnixMs(0)),
        ..record(3, &city(3), 9 * HOUR_MS)
    };
    let counted = record(0, &city(0), HOUR_MS);
    let records = vec![counted, late, heartbeat, future, rejected(4)];
    b.pipeline
        .records(SteadyMs(1), partition, assignment, records);
    let before = b.pipeline.report();
    let bytes: u64 = b.pipeline.workers().map(Worker::bytes).sum();
    assert_eq!(before.tally.bytes_taken + 5 * 10, bytes);
    for output in b.pump(9) {
        let now_ms = SteadyMs(10);
        match output {
            // The fences show that another consumer has already counted the future event.
            Output::Update(update) if update.first == Offset(3) => {
                let fenced = UpdateOutcome::Fenced(Offset(4));
                b.pipeline.update_answered(now_ms, &update, fenced, 0);
            }
            Output::Update(update) => b.count(10, &[update]),
            Output::Put(batch) => b.pipeline.batch_answered(now_ms, batch, &stored(), 0),
            Output::Reject(ticket, _) => b.pipeline.reject_done(ticket),
            _ => {}
        }
    }
    let after = b.pipeline.report();
    assert_eq!(puts(&b.pump(99)).len(), 0);
    [before, after]
}

#[test]
fn a_report_has_the_counts_of_all_partitions() {
    let mut b = Bench::new(options());
    for n in 1..3 {
        let [before, after] = work(&mut b, i32::try_from(n).unwrap());
        assert_eq!(
            (before.ledger.consumed, before.ledger.in_flight),
            (5 * n, 5)
        );
        assert_eq!((before.tally.future, before.tally.alerts), (1, [2, 1]));
        let mut rejected = [0; Reason::ALL.len()];
        rejected[3] = n;
        let want = Ledger {
            consumed: 5 * n,
            counted: n,
            late: n,
            rejected,
            already_counted: n,
            heartbeats: n,
            given_up: 0,
            in_flight: 0,
        };
        assert_eq!(after.ledger, want);
        assert_eq!(after.tally.fence_conflicts, 2);
        let stamps = [HOUR_MS, 0, HOUR_MS, 0, 7].map(UnixMs);
        assert_eq!(after.tally.durable_ms, stamps);
        let taken = before.tally.bytes_taken + 5 * 10;
        assert_eq!(after.tally.bytes_freed, taken);
    }
}
