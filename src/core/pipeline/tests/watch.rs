//! Tests how the pipeline reacts to replaced or missing tables, and when it replaces a Kafka client that makes no
//! progress.

use super::*;
use crate::keys::AGGREGATIONS;
use crate::table_identity::{READ_INTERVAL_MS, TRUST_MS};

fn writes(out: &[Output]) -> usize {
    let is_write = |o: &&Output| matches!(o, Output::Put(_) | Output::Update(_));
    out.iter().filter(is_write).count()
}

fn reads(out: &[Output]) -> usize {
    let is_read = |o: &&Output| matches!(o, Output::ReadTables);
    out.iter().filter(is_read).count()
}

fn halts(out: Vec<Output>) -> Vec<Halt> {
    let halt = |o| match o {
        Output::Halt(halt) => Some(halt),
        _ => None,
    };
    out.into_iter().filter_map(halt).collect()
}

#[test]
fn a_consumer_that_slept_reads_the_tables_id_before_it_writes() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    b.boot_ms = BootMs(TRUST_MS + 1);
    let out = b.pump(1);
    assert_eq!((writes(&out), reads(&out)), (0, 1));
    assert!(b.pipeline.holds_writes());
    assert_eq!(reads(&b.pump(2)), 0, "one read is under way");
    b.pipeline.tables_unread(b.boot_ms);
    assert_eq!(reads(&b.pump(3)), 0, "it is repeated after a while");
    b.boot_ms += 1_000;
    assert_eq!(reads(&b.pump(4)), 1);
    b.pipeline.tables_read("D", b.boot_ms);
    assert!(writes(&b.pump(5)) >= 2);
}

#[test]
fn a_drain_ends_although_writes_are_held() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    b.boot_ms = BootMs(TRUST_MS + 1);
    b.pump(1);
    b.pipeline.revoked(SteadyMs(1), &[0], false, DRAIN_MS);
    let out = released(&b.pump(1 + DRAIN_MS));
    assert!(matches!(out[..], [(0, Some(_), None)]), "{out:?}");
}

#[test]
fn the_id_is_read_every_five_seconds_while_partitions_run() {
    let mut b = Bench::new(options());
    b.boot_ms = BootMs(READ_INTERVAL_MS);
    assert_eq!(reads(&b.pump(0)), 0, "no partition runs");
    b.start(0);
    assert_eq!(reads(&b.pump(1)), 0, "the last pump has asked");
    b.pipeline.tables_read("D", b.boot_ms);
    b.boot_ms += READ_INTERVAL_MS;
    assert_eq!(reads(&b.pump(2)), 1);
}

#[test]
fn another_tables_id_stops_the_consumer_before_its_next_write() {
    let mut b = Bench::new(options());
    let (zero, one) = (b.start(0), b.start(1));
    b.pipeline
        .records(SteadyMs(1), 0, zero, vec![record(0, "NYC", 7)]);
    b.pipeline
        .records(SteadyMs(1), 1, one, vec![record(0, "LA", 7)]);
    b.pipeline.tables_read("E", BootMs(1));
    let out = b.pump(1);
    assert_eq!(writes(&out), 0);
    let replaced = Halt::TablesReplaced {
        was: "D".to_owned(),
        is: "E".to_owned(),
    };
    assert_eq!(halts(out), [replaced]);
    b.pipeline.tables_read("E", BootMs(2));
    assert_eq!(halts(b.pump(2)), [], "it says so once");
    // The pipeline no longer writes to replaced tables, so a draining partition does not wait for its unwritten
    // records.
    b.pipeline.revoked(SteadyMs(3), &[0, 1], false, DRAIN_MS);
    let given_up = [(0, None, None), (1, None, None)];
    assert_eq!(released(&b.pump(3)), given_up);
}

#[test]
fn a_partition_that_starts_on_other_tables_stops_the_consumer() {
    let mut b = Bench::new(options());
    b.start(0);
    let new = StartFacts {
        tables_id: "E".to_owned(),
        tables_read_ms: BootMs(1),
        ..facts("T", None, Some(0))
    };
    let out = b.locate(5, 1, &new);
    assert!(!out.iter().any(|o| matches!(o, Output::Begin { .. })));
    assert_eq!(halts(out).len(), 1);
}

#[test]
fn facts_that_name_former_tables_are_asked_for_again() {
    let mut b = Bench::new(options());
    b.pipeline.assigned(SteadyMs(0), &[0]);
    let out = b.pump(0);
    let [Output::Locate { assignment, .. }] = out[..] else {
        panic!("{out:?}");
    };
    b.pipeline.tables_read("E", BootMs(9));
    let former = facts("T", None, Some(0));
    b.pipeline
        .located(SteadyMs(1), 0, assignment, &former, &tables());
    let out = b.pump(1);
    assert!(
        matches!(out[..], [Output::Locate { partition: 0, .. }]),
        "{out:?}"
    );
}

#[test]
fn a_missing_table_stops_a_consumer_that_counts_into_it_and_no_other() {
    let mut b = Bench::new(options());
    b.pipeline.table_missing(AGGREGATIONS);
    assert_eq!(halts(b.pump(0)), [], "before its partitions run, it waits");
    let a = b.start(0);
    b.pipeline.table_missing(AGGREGATIONS);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    let out = b.pump(1);
    assert_eq!(writes(&out), 0);
    let table = AGGREGATIONS;
    assert_eq!(halts(out), [Halt::TableMissing { table }]);
}

#[test]
fn a_deleted_progress_item_is_restored_once_the_tables_are_known_to_be_the_same() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    let publish = Publish {
        partition: 0,
        assignment: a,
        log_key: "T#0".into(),
        tables_id: "D".to_owned(),
        boundary: boundary(3, Some(7)),
        watermark_ms: None,
    };
    b.pipeline.progress_missing(BootMs(100), publish.clone());
    b.boot_ms = BootMs(100);
    assert_eq!(reads(&b.pump(1)), 1);
    b.pipeline.tables_read("D", BootMs(99));
    assert!(b.pump(2).is_empty(), "this read began too early");
    b.pipeline.tables_read("D", BootMs(100));
    let out = b.pump(3);
    assert!(
        matches!(&out[..], [Output::RestoreProgress(p)] if *p == publish),
        "{out:?}"
    );
    b.pipeline.tables_read("D", BootMs(101));
    assert!(b.pump(4).is_empty(), "once");
}

#[test]
fn partitions_that_stand_still_have_the_client_replaced_and_all_partitions_given_up() {
    let mut b = Bench::new(options());
    b.start(0);
    b.start(1);
    let ends = [(0, Offset(9)), (1, Offset(0))];
    b.pipeline.log_ends(SteadyMs(0), &ends, false);
    b.pipeline.log_ends(SteadyMs(59_999), &ends, false);
    assert!(b.pump(59_999).is_empty());
    b.pipeline.log_ends(SteadyMs(60_000), &ends, false);
    let out = b.pump(60_000);
    let given_up = [(0, None, None), (1, None, None)];
    assert_eq!(released(&out), given_up);
    assert!(
        matches!(&out[..], [.., Output::ReplaceClient { stalled }] if stalled[..] == [0]),
        "{out:?}"
    );
    assert!(
        b.pipeline.stuck().is_empty(),
        "the new client has not been tried"
    );
}

#[test]
fn nothing_stalls_while_memory_is_short_or_writes_fail_or_wait() {
    let ends = [(0, Offset(9)), (1, Offset(0))];
    for (paused, fails, held) in [
        (true, false, false),
        (false, true, false),
        (false, false, true),
    ] {
        let mut b = Bench::new(options());
        b.start(0);
        let one = b.start(1);
        b.pipeline
            .records(SteadyMs(1), 1, one, vec![record(0, "LA", 7)]);
        let updates = b.updates(1);
        if fails {
            b.pipeline
                .update_answered(SteadyMs(2), &updates[0], UpdateOutcome::Unknown, 0);
        }
        if held {
            b.boot_ms = BootMs(TRUST_MS + 1);
        }
        b.pump(3);
        b.pipeline.log_ends(SteadyMs(3), &ends, paused);
        b.pipeline.log_ends(SteadyMs(600_000), &ends, paused);
        let replaces = |o: &Output| matches!(o, Output::ReplaceClient { .. });
        assert!(!b.pump(600_000).iter().any(replaces));
    }
}
