//! Tests what happens to raw events, alerts and dead letters: when a record is durable, and which puts are sent again.

use super::*;
use crate::parse::Reason;
use crate::worker::Rejected;

/// Starts a partition whose events have raw items and alerts. Returns the number of the new assignment.
pub(super) fn start(b: &mut Bench, partition: i32) -> u64 {
    b.pipeline.assigned(SteadyMs(0), &[partition]);
    let out = b.pump(0);
    let Some(Output::Locate { assignment, .. }) = out.last() else {
        panic!("{out:?}");
    };
    let tables = Tables {
        keep: RawRows::All,
        ..tables()
    };
    let facts = facts("T", None, Some(0));
    b.pipeline
        .located(SteadyMs(0), partition, *assignment, &facts, &tables);
    b.pump(0);
    *assignment
}

pub(super) fn puts(out: &[Output]) -> Vec<Batch> {
    let batch = |o: &Output| match o {
        Output::Put(batch) => Some(batch.clone()),
        _ => None,
    };
    out.iter().filter_map(batch).collect()
}

pub(super) fn stored() -> BatchOutcome {
    BatchOutcome::Stored {
        unprocessed: Vec::new(),
    }
}

/// Returns a record that goes to the dead-letter topic.
pub(super) fn rejected(offset: i64) -> Record {
    let rejected = Rejected {
        reason: Reason::NotJson,
        detail: String::new(),
        key: None,
        value: None,
        headers: Vec::new(),
        partition: 0,
        offset: Offset(offset),
        timestamp_ms: None,
    };
    Record {
        content: Content::Rejected(Box::new(rejected)),
        ..record(offset, "", 7)
    }
}

#[test]
fn a_record_is_durable_once_all_of_its_writes_are_done() {
    let mut b = Bench::new(options());
    let a = start(&mut b, 0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7), rejected(1)]);
    let out = b.pump(9);
    let batches = puts(&out);
    let [raw, alert] = &batches[..] else {
        panic!("{out:?}");
    };
    assert_eq!((raw.table, alert.table), (PutTable::Raw, PutTable::Alerts));
    for output in &out {
        if let Output::Update(update) = output {
            b.count(10, std::slice::from_ref(update));
        }
    }
    b.pipeline
        .batch_answered(SteadyMs(11), raw.clone(), &stored(), 0);
    assert_eq!(b.pipeline.in_flight(), 2, "the alert is not stored yet");
    // The table refuses the alert twice, so the pipeline sends its record to the dead-letter topic.
    b.pipeline
        .batch_answered(SteadyMs(12), alert.clone(), &BatchOutcome::Invalid, 0);
    let again = puts(&b.pump(16));
    b.pipeline
        .batch_answered(SteadyMs(17), again[0].clone(), &BatchOutcome::Invalid, 0);
    let refused = b.pump(17);
    let [Output::Refused(table, put)] = &refused[..] else {
        panic!("{refused:?}");
    };
    assert_eq!(b.pipeline.in_flight(), 2);
    b.pipeline.refused_done(*table, put.ticket);
    assert_eq!(b.pipeline.in_flight(), 1, "the rejected record remains");
    let ticket = out.iter().find_map(|o| match o {
        Output::Reject(ticket, _) => Some(*ticket),
        _ => None,
    });
    b.pipeline.reject_done(ticket.expect("it is rejected"));
    assert_eq!(b.pipeline.in_flight(), 0);
}

#[test]
fn only_the_puts_of_a_lost_partition_are_dropped() {
    let mut b = Bench::new(options());
    let (zero, one) = (start(&mut b, 0), start(&mut b, 1));
    for (partition, assignment) in [(0, zero), (1, one)] {
        let records = vec![record(0, "NYC", 7)];
        b.pipeline
            .records(SteadyMs(1), partition, assignment, records);
    }
    b.pipeline.revoked(SteadyMs(2), &[0], true, 0);
    let batches = puts(&b.pump(9));
    assert_eq!(batches.len(), 2, "a raw event and an alert");
    for batch in batches {
        assert_eq!(batch.puts.len(), 1);
        assert_eq!(batch.puts[0].ticket.partition, 1);
        // The consumer loses the partition while a put is in flight, so the pipeline does not repeat the put.
        let failed = BatchOutcome::Failed { throttled: false };
        b.pipeline.batch_answered(SteadyMs(10), batch, &failed, 0);
    }
    let again = puts(&b.pump(11));
    assert_eq!(again.len(), 2);
    b.pipeline.revoked(SteadyMs(12), &[1], true, 0);
    for batch in again {
        let failed = BatchOutcome::Failed { throttled: false };
        b.pipeline.batch_answered(SteadyMs(12), batch, &failed, 0);
    }
    assert_eq!(puts(&b.pump(99)).len(), 0);
}

#[test]
fn a_client_is_not_replaced_while_puts_fail() {
    for (outcome, is_replaced) in [
        (stored(), true),
        (BatchOutcome::Invalid, true),
        (BatchOutcome::Failed { throttled: true }, false),
        (BatchOutcome::Failed { throttled: false }, false),
    ] {
        let mut b = Bench::new(options());
        start(&mut b, 0);
        let one = start(&mut b, 1);
        b.pipeline
            .records(SteadyMs(1), 1, one, vec![record(0, "LA", 7)]);
        let raw = puts(&b.pump(9)).remove(0);
        b.pipeline.batch_answered(SteadyMs(10), raw, &outcome, 0);
        // Partition 0 makes no progress, and partition 1 waits for its other writes.
        let ends = [(0, Offset(9)), (1, Offset(0))];
        for now_ms in [10, 60_010] {
            b.pipeline.log_ends(SteadyMs(now_ms), &ends, false);
        }
        let replaces = |o: &Output| matches!(o, Output::ReplaceClient { .. });
        assert_eq!(
            b.pump(60_010).iter().any(replaces),
            is_replaced,
            "{outcome:?}"
        );
    }
}
