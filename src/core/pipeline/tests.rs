//! Tests each decision of a pipeline separately. The simulation (`tests/sim`) tests the decisions together.

use super::*;
use crate::clock::UnixMs;
use crate::event::{Event, Offset, Severity};
use crate::parse::Body;
use crate::plan::RawRows;
use crate::restart::{Commit, StartFacts};
use crate::watermark::MaxTime;
use crate::window::Rules;
use crate::worker::{Content, Record};

mod gaps;
mod puts;
mod report;
mod sums;
mod watch;

const DRAIN_MS: i64 = 500;

struct Bench {
    pipeline: Pipeline,
    boot_ms: BootMs,
}

fn options() -> Options {
    Options {
        topic: "city-events".into(),
        row_interval_ms: 0,
        continue_on_loss: false,
        requests_max: 8,
        stall_ms: 60_000,
    }
}

fn tables() -> Tables {
    Tables {
        rules: Rules::default(),
        keep: RawRows::None,
    }
}

fn boundary(next: i64, max_ms: Option<i64>) -> Boundary {
    Boundary {
        next: Offset(next),
        max: MaxTime::new(max_ms.map(UnixMs)),
        sums: None,
    }
}

fn facts(topic_id: &str, commit: Option<(i64, &str)>, progress: Option<i64>) -> StartFacts {
    StartFacts {
        topic_id: topic_id.to_owned(),
        tables_id: "D".to_owned(),
        tables_read_ms: BootMs(0),
        commit: commit.map(|(next, metadata)| Commit {
            next: Offset(next),
            metadata: metadata.to_owned(),
        }),
        progress: progress.map(|next| boundary(next, Some(4))),
        log: (Offset(0), Offset(100)),
        replaced_from: None,
    }
}

fn record(offset: i64, city: &str, time_ms: i64) -> Record {
    Record {
        offset: Offset(offset),
        timestamp_ms: Some(UnixMs(time_ms)),
        bytes: 10,
        content: Content::Valid(Body::Event(Event {
            city: city.into(),
            event_type: "traffic".into(),
            severity: Severity::High,
            time_ms: UnixMs(time_ms),
            description: "".into(),
            event_id: None,
            extra: None,
        })),
    }
}

impl Bench {
    fn new(options: Options) -> Bench {
        Bench {
            pipeline: Pipeline::new(options),
            boot_ms: BootMs(0),
        }
    }

    /// Returns the outputs of the pipeline, and checks that the ledger balances (INV-7).
    fn pump(&mut self, now_ms: i64) -> Vec<Output> {
        self.pipeline.pump(SteadyMs(now_ms), self.boot_ms);
        let mut out = Vec::new();
        while let Some(output) = self.pipeline.poll_output() {
            out.push(output);
        }
        let ledger = self.pipeline.report().ledger;
        assert!(ledger.balances(), "INV-7: {ledger:?}");
        out
    }

    fn locate(&mut self, now_ms: i64, partition: i32, facts: &StartFacts) -> Vec<Output> {
        self.pipeline.assigned(SteadyMs(now_ms), &[partition]);
        let out = self.pump(now_ms);
        let Some(Output::Locate { assignment, .. }) = out.last() else {
            panic!("{out:?}");
        };
        self.pipeline
            .located(SteadyMs(now_ms), partition, *assignment, facts, &tables());
        self.pump(now_ms)
    }

    /// Starts a partition whose progress item is at offset 0. Returns the number of the new assignment.
    fn start(&mut self, partition: i32) -> u64 {
        let out = self.locate(0, partition, &facts("T", None, Some(0)));
        let begun = out.iter().find_map(|o| match o {
            Output::Begin { assignment, .. } => Some(*assignment),
            _ => None,
        });
        begun.expect("it begins")
    }

    fn updates(&mut self, now_ms: i64) -> Vec<RowUpdate> {
        let out = self.pump(now_ms).into_iter();
        out.filter_map(|o| match o {
            Output::Update(update) => Some(update),
            _ => None,
        })
        .collect()
    }

    fn count(&mut self, now_ms: i64, updates: &[RowUpdate]) {
        for update in updates {
            self.pipeline
                .update_answered(SteadyMs(now_ms), update, UpdateOutcome::Counted, 0);
        }
    }

    /// Passes the first `n` records of a partition to the pipeline, and reports that their row updates took effect.
    fn counted(&mut self, now_ms: i64, partition: i32, assignment: u64, n: i64) -> Vec<Output> {
        let records = (0..n).map(|o| record(o, "NYC", 1_000 + o)).collect();
        self.pipeline
            .records(SteadyMs(now_ms), partition, assignment, records);
        let (updates, others): (Vec<_>, Vec<_>) = self
            .pump(now_ms)
            .into_iter()
            .partition(|o| matches!(o, Output::Update(_)));
        for update in updates {
            if let Output::Update(update) = update {
                self.count(now_ms, &[update]);
            }
        }
        others
    }
}

fn released(out: &[Output]) -> Vec<(i32, Option<Boundary>, Option<Boundary>)> {
    out.iter()
        .filter_map(|o| match o {
            Output::Released {
                partition,
                commit,
                publish,
            } => Some((
                *partition,
                commit.as_ref().map(|c| c.boundary),
                publish.as_ref().map(|p| p.boundary),
            )),
            _ => None,
        })
        .collect()
}

fn commits(out: &[Output]) -> Vec<CommitPart> {
    out.iter()
        .filter_map(|o| match o {
            Output::Commit(parts) => Some(parts.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn checks(out: &[Output]) -> usize {
    out.iter()
        .filter(|o| matches!(o, Output::CheckTopic))
        .count()
}

const OURS: &str = "v1;topic=T;tables=D;max=50";

#[test]
fn a_start_outside_the_log_stops_with_the_range() {
    let cut = |start, end| StartFacts {
        log: (Offset(start), Offset(end)),
        ..facts("T", Some((5, OURS)), None)
    };
    let unreadable = Halt::Unreadable {
        partition: 3,
        next: Offset(5),
        progress: Some(boundary(2, Some(4))),
    };
    let expired = Halt::Expired {
        partition: 3,
        from: Offset(5),
        to: Offset(8),
    };
    let truncated = Halt::Truncated {
        partition: 3,
        from: Offset(5),
        end: Offset(4),
    };
    let grown = StartFacts {
        replaced_from: Some(Offset(3)),
        ..facts("T", Some((5, OURS)), None)
    };
    let replaced = Halt::Replaced {
        partition: 3,
        from: Offset(5),
        since: Offset(3),
    };
    for (facts, want) in [
        (facts("T", Some((5, "")), Some(2)), unreadable),
        (cut(8, 20), expired),
        (cut(0, 4), truncated),
        (grown, replaced),
    ] {
        let out = Bench::new(options()).locate(0, 3, &facts);
        let [Output::Halt(halt)] = &out[..] else {
            panic!("{out:?}");
        };
        assert_eq!(*halt, want);
    }
}

#[test]
fn with_continue_an_expired_range_is_told_and_skipped() {
    let mut b = Bench::new(Options {
        continue_on_loss: true,
        ..options()
    });
    let expired = StartFacts {
        log: (Offset(8), Offset(20)),
        ..facts("T", Some((5, OURS)), None)
    };
    let out = b.locate(0, 3, &expired);
    assert!(
        matches!(
            out[..],
            [
                Output::Lost {
                    partition: 3,
                    from: Offset(5),
                    to: Offset(8)
                },
                Output::Begin {
                    next: Offset(8),
                    ..
                },
                Output::CheckTopic,
            ]
        ),
        "{out:?}"
    );
    // The watermark is still the same as before the gap.
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!(worker.watermark_ms(), Some(UnixMs(50 - 600_000)));
}

#[test]
fn with_continue_replaced_records_are_told_and_skipped() {
    let mut b = Bench::new(Options {
        continue_on_loss: true,
        ..options()
    });
    let metadata = "v1;topic=T;tables=D;max=50;sums=5,0,5,0,0,0";
    let grown = StartFacts {
        replaced_from: Some(Offset(3)),
        ..facts("T", Some((5, metadata)), None)
    };
    let out = b.locate(0, 3, &grown);
    assert!(
        matches!(
            out[..],
            [
                Output::Lost {
                    partition: 3,
                    from: Offset(3),
                    to: Offset(5)
                },
                Output::Begin {
                    next: Offset(5),
                    ..
                },
            ]
        ),
        "{out:?}"
    );
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!(worker.durable().sums, None);
}

#[test]
fn with_continue_a_cut_log_is_waited_for_and_told_once() {
    let mut b = Bench::new(Options {
        continue_on_loss: true,
        ..options()
    });
    let cut = |end| StartFacts {
        log: (Offset(0), Offset(end)),
        ..facts("T", Some((5, OURS)), None)
    };
    let out = b.locate(0, 3, &cut(3));
    let [
        Output::Lost {
            from: Offset(3),
            to: Offset(5),
            ..
        },
        Output::Locate {
            assignment,
            not_before_ms: SteadyMs(LOCATE_AGAIN_MS),
            ..
        },
    ] = out[..]
    else {
        panic!("{out:?}");
    };
    b.pipeline
        .located(SteadyMs(1_000), 3, assignment, &cut(4), &tables());
    let out = b.pump(1_000);
    assert!(matches!(out[..], [Output::Locate { .. }]), "{out:?}");
    // The log has reached the committed offset again, but its records are not the counted ones.
    let grown = StartFacts {
        replaced_from: Some(Offset(3)),
        ..cut(5)
    };
    b.pipeline
        .located(SteadyMs(2_000), 3, assignment, &grown, &tables());
    let out = b.pump(2_000);
    assert!(
        matches!(
            out[..],
            [Output::Begin {
                next: Offset(5),
                ..
            }]
        ),
        "{out:?}"
    );
}

#[test]
fn a_new_partition_starts_at_its_beginning() {
    // The topic has grown from 3 to 6 partitions. Partition 5 has records, but no commit and no progress item.
    let mut b = Bench::new(options());
    for log_start in [0, 7] {
        let new = StartFacts {
            log: (Offset(log_start), Offset(100)),
            ..facts("T", None, None)
        };
        let out = b.locate(0, 5, &new);
        let [Output::CreateProgress(publish)] = &out[..] else {
            panic!("{out:?}");
        };
        assert_eq!(publish.boundary, Boundary::begin(Offset(log_start)));
        assert_eq!(&*publish.log_key, "T#5");
        // The pipeline must not count any record before the progress item exists. After the shell has created the
        // progress item, it passes the facts about the start to the pipeline again.
        let again = StartFacts {
            progress: Some(publish.boundary),
            ..new
        };
        let assignment = publish.assignment;
        b.pipeline
            .located(SteadyMs(5), 5, assignment, &again, &tables());
        let out = b.pump(5);
        assert!(
            matches!(out[0], Output::Begin { next, .. } if next == Offset(log_start)),
            "{out:?}"
        );
    }
}

#[test]
fn a_second_group_starts_at_the_progress_item_and_commits_its_start() {
    let mut b = Bench::new(options());
    let out = b.locate(5_000, 0, &facts("T", None, Some(9)));
    assert!(
        matches!(
            out[..],
            [
                Output::Begin {
                    next: Offset(9),
                    ..
                },
                Output::CheckTopic
            ]
        ),
        "{out:?}"
    );
    b.pipeline.topic_checked(SteadyMs(5_001), Some("T"));
    let parts = commits(&b.pump(5_001));
    assert_eq!(parts[0].boundary, boundary(9, Some(4)));
    assert_eq!(parts[0].metadata, "v1;topic=T;tables=D;max=4");
    b.pipeline.commit_done(SteadyMs(5_002), true);
    assert_eq!(checks(&b.pump(99_000)), 0, "once is enough");
}

#[test]
fn an_own_commit_is_not_committed_again() {
    let mut b = Bench::new(options());
    let out = b.locate(5_000, 0, &facts("T", Some((5, OURS)), Some(2)));
    assert!(
        matches!(
            out[..],
            [Output::Begin {
                next: Offset(5),
                ..
            }]
        ),
        "{out:?}"
    );
}

#[test]
fn a_commit_waits_for_the_topics_id() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    // The first commit attempt fails, because Kafka does not return the topic's id.
    b.pipeline.topic_checked(SteadyMs(10), None);
    b.counted(20, 0, a, 3);
    assert_eq!(checks(&b.pump(999)), 0, "not before the interval is over");
    assert_eq!(checks(&b.pump(1_000)), 1);
    assert_eq!(checks(&b.pump(9_000)), 0, "one question at a time");
    b.pipeline.topic_checked(SteadyMs(9_001), Some("T"));
    let parts = commits(&b.pump(9_001));
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].boundary, boundary(3, Some(1_002)));
    assert_eq!(parts[0].metadata, "v1;topic=T;tables=D;max=1002");
}

#[test]
fn a_refused_commit_is_tried_again_with_what_is_durable_then() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.counted(20, 0, a, 3);
    b.pipeline.topic_checked(SteadyMs(30), Some("T"));
    let first = commits(&b.pump(30));
    assert_eq!(first[0].boundary.next, Offset(0), "as it was when asked");
    b.pipeline.commit_done(SteadyMs(40), false);
    assert_eq!(checks(&b.pump(1_040)), 1);
    b.pipeline.topic_checked(SteadyMs(1_050), Some("T"));
    assert_eq!(commits(&b.pump(1_050))[0].boundary.next, Offset(3));
    b.pipeline.commit_done(SteadyMs(1_060), false);
    assert_eq!(checks(&b.pump(2_060)), 1, "the same restart point again");
    b.pipeline.topic_checked(SteadyMs(2_070), Some("T"));
    assert_eq!(commits(&b.pump(2_070))[0].boundary.next, Offset(3));
    b.pipeline.commit_done(SteadyMs(2_080), true);
    assert_eq!(checks(&b.pump(60_000)), 0);
}

#[test]
fn another_topic_id_starts_the_partition_over() {
    let mut b = Bench::new(options());
    let old = b.start(0);
    b.pipeline
        .records(SteadyMs(5), 0, old, vec![record(0, "NYC", 7)]);
    let updates = b.updates(5);
    b.pipeline.topic_checked(SteadyMs(10), Some("U"));
    let out = b.pump(10);
    let [
        Output::Hold { partition: 0 },
        Output::Locate {
            partition: 0,
            assignment,
            ..
        },
    ] = out[..]
    else {
        panic!("no commit of the old log: {out:?}");
    };
    assert_ne!(assignment, old);
    assert_eq!(b.pipeline.report().ledger.given_up, 1);
    // The pipeline ignores the answer to a request that it sent for the old log.
    b.count(20, &updates);
    b.pipeline
        .records(SteadyMs(20), 0, old, vec![record(1, "NYC", 7)]);
    b.pipeline.located(
        SteadyMs(30),
        0,
        assignment,
        &facts("U", None, Some(0)),
        &tables(),
    );
    b.pump(30);
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!(&*worker.place().log_key, "U#0");
    assert_eq!(
        (worker.position(), worker.in_flight()),
        (Offset(0), 0),
        "fewer records than before are no trouble, nor are more"
    );
}

#[test]
fn a_leaving_partition_of_an_old_topic_is_released() {
    // The pipeline must release the partition, because the shell waits for the end of the drain.
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(5), 0, a, vec![record(0, "NYC", 7)]);
    b.pump(5);
    b.pipeline.revoked(SteadyMs(6), &[0], false, DRAIN_MS);
    assert_eq!(released(&b.pump(6)), []);
    b.pipeline.topic_checked(SteadyMs(10), Some("U"));
    assert_eq!(released(&b.pump(10)), [(0, None, None)]);
    assert_eq!(b.pipeline.partitions().count(), 0);
}

#[test]
fn a_revoke_drains_then_releases_with_commit_and_publish() {
    let mut b = Bench::new(options());
    let (zero, one) = (b.start(0), b.start(1));
    b.pipeline.records(
        SteadyMs(5),
        0,
        zero,
        vec![record(0, "NYC", 7), record(1, "NYC", 8)],
    );
    b.pipeline
        .records(SteadyMs(5), 1, one, vec![record(0, "LA", 7)]);
    let updates = b.updates(5);
    assert_eq!(updates.len(), 4);
    b.pipeline.revoked(SteadyMs(6), &[0], false, DRAIN_MS);
    // The pipeline drops new records of a draining partition.
    b.pipeline
        .records(SteadyMs(7), 0, zero, vec![record(2, "NYC", 9)]);
    assert_eq!(released(&b.pump(7)), [], "it waits for its updates");
    b.count(8, &updates);
    let end = boundary(2, Some(8));
    assert_eq!(released(&b.pump(8)), [(0, Some(end), Some(end))]);
    // The drain does not affect the other partition.
    let worker = b.pipeline.workers().next().expect("one is left");
    assert_eq!(worker.place().partition, 1);
    assert_eq!(worker.durable(), boundary(1, Some(7)));
    assert_eq!(b.pipeline.report().ledger.given_up, 0);
    assert_eq!(b.pipeline.report().ledger.counted, 3);
}

#[test]
fn a_drain_ends_at_its_deadline_with_the_durable_prefix() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    let first = b.updates(1);
    b.count(2, &first);
    b.pipeline.records(
        SteadyMs(3),
        0,
        a,
        vec![record(1, "NYC", 8), record(2, "NYC", 9)],
    );
    let second = b.updates(3);
    b.pipeline.revoked(SteadyMs(10), &[0], false, DRAIN_MS);
    assert_eq!(released(&b.pump(10 + DRAIN_MS - 1)), []);
    assert_eq!(b.pipeline.next_ms(), Some(SteadyMs(10 + DRAIN_MS)));
    let end = boundary(1, Some(7));
    let out = b.pump(10 + DRAIN_MS);
    assert_eq!(released(&out), [(0, Some(end), Some(end))]);
    assert_eq!(b.pipeline.report().ledger.given_up, 2);
    b.count(999, &second);
    let report = b.pipeline.report();
    assert_eq!((report.ledger.counted, report.ledger.given_up), (1, 2));
}

#[test]
fn a_lost_partition_is_dropped_at_once_without_a_commit() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    b.pump(1);
    b.pipeline.revoked(SteadyMs(2), &[0], true, DRAIN_MS);
    assert_eq!(released(&b.pump(2)), [(0, None, None)]);
    let report = b.pipeline.report();
    assert_eq!(report.ledger.given_up, 1);
    // The pipeline also releases a partition that has not started yet, and a partition that was never assigned.
    b.pipeline.assigned(SteadyMs(3), &[4]);
    b.pump(3);
    b.pipeline.revoked(SteadyMs(3), &[4, 5], false, DRAIN_MS);
    assert_eq!(released(&b.pump(3)), [(4, None, None), (5, None, None)]);
}

#[test]
fn a_partition_that_comes_back_while_it_drains_is_released_first() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    b.pump(1);
    b.pipeline.revoked(SteadyMs(2), &[0], false, DRAIN_MS);
    b.pipeline.assigned(SteadyMs(3), &[0]);
    let out = b.pump(3);
    assert_eq!(released(&out), [(0, None, None)]);
    assert!(matches!(out[..], [_, Output::Locate { .. }]), "{out:?}");
}

#[test]
fn answers_of_an_earlier_assignment_change_nothing() {
    let mut b = Bench::new(Options {
        row_interval_ms: 1_000,
        ..options()
    });
    let old = b.start(0);
    b.pipeline.topic_checked(SteadyMs(0), Some("T"));
    assert_eq!(commits(&b.pump(0)).len(), 1);
    b.pipeline
        .records(SteadyMs(1), 0, old, vec![record(0, "NYC", 7)]);
    let late = b.updates(1);
    b.pipeline.revoked(SteadyMs(2), &[0], true, DRAIN_MS);
    b.pump(2);
    let new = b.start(0);
    assert_ne!(old, new);
    // The new assignment reads the same record again, so the old updates and the new updates have the same rows.
    b.pipeline
        .records(SteadyMs(3), 0, new, vec![record(0, "NYC", 7)]);
    let own = b.updates(3);
    assert_eq!(own.len(), 2);
    b.count(4, &late);
    for update in &late {
        b.pipeline
            .update_answered(SteadyMs(4), update, UpdateOutcome::Fenced(Offset(1)), 0);
    }
    let stale = Ticket {
        partition: 0,
        assignment: old,
        seq: 0,
    };
    b.pipeline.reject_done(stale);
    b.pipeline.refused_done(PutTable::Raw, stale);
    b.pipeline.reached_end(SteadyMs(4), 0, old, Offset(50));
    b.pipeline.out_of_range(0, old);
    // The answer to an earlier commit has no effect on the new assignment.
    b.pipeline.commit_done(SteadyMs(4), true);
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!((worker.in_flight(), worker.position()), (1, Offset(1)));
    assert_eq!(worker.durable().next, Offset(0));
    b.count(5, &own);
    assert_eq!(checks(&b.pump(5_000)), 1);
    b.pipeline.topic_checked(SteadyMs(5_001), Some("T"));
    let parts = commits(&b.pump(5_001));
    assert_eq!(
        (parts[0].assignment, parts[0].boundary.next),
        (new, Offset(1))
    );
}

#[test]
fn a_commit_names_only_partitions_that_are_still_ours() {
    let mut b = Bench::new(options());
    b.start(0);
    b.pipeline.topic_checked(SteadyMs(0), None);
    b.start(1);
    assert_eq!(checks(&b.pump(2_000)), 1);
    b.pipeline.revoked(SteadyMs(2_001), &[0], true, DRAIN_MS);
    b.pipeline.topic_checked(SteadyMs(2_002), Some("T"));
    let parts: Vec<i32> = commits(&b.pump(2_002))
        .iter()
        .map(|p| p.partition)
        .collect();
    assert_eq!(parts, [1]);
}

#[test]
fn progress_is_published_after_a_commit_that_passed_a_window() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline.topic_checked(SteadyMs(0), None);
    let commit = |b: &mut Bench, now_ms| {
        assert_eq!(checks(&b.pump(now_ms)), 1);
        b.pipeline.topic_checked(SteadyMs(now_ms), Some("T"));
        b.pump(now_ms);
        b.pipeline.commit_done(SteadyMs(now_ms), true);
        let out = b.pump(now_ms).into_iter();
        let publish = |o| match o {
            Output::Publish(publish) => Some(publish),
            _ => None,
        };
        out.filter_map(publish).collect::<Vec<_>>()
    };
    // After the first record, the watermark is still in the same window, so the progress item does not advance.
    b.counted(1, 0, a, 1);
    assert_eq!(commit(&mut b, 2_000), []);
    b.pipeline
        .records(SteadyMs(2_001), 0, a, vec![record(1, "NYC", 600_000)]);
    let updates = b.updates(2_001);
    b.count(2_002, &updates);
    let published = commit(&mut b, 4_000);
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].boundary, boundary(2, Some(600_000)));
    assert_eq!(published[0].watermark_ms, Some(UnixMs(0)));
}

/// Returns a pipeline that may send two updates at a time. The pipeline has a busy partition with records of six
/// cities, and a quiet partition with records of two cities.
fn busy_and_quiet() -> (Bench, u64) {
    let mut b = Bench::new(Options {
        requests_max: 2,
        ..options()
    });
    let (quiet, busy) = (b.start(0), b.start(1));
    let many = |cities: &[&str]| {
        let records = (0..).zip(cities).map(|(o, c)| record(o, c, 7));
        records.collect::<Vec<_>>()
    };
    b.pipeline
        .records(SteadyMs(1), 1, busy, many(&["A", "B", "C", "D", "E", "F"]));
    b.pipeline.records(SteadyMs(1), 0, quiet, many(&["A", "B"]));
    (b, busy)
}

#[test]
fn a_partition_has_its_turn_of_updates_and_starves_nobody() {
    let (mut b, busy) = busy_and_quiet();
    let mut order = Vec::new();
    for now_ms in 1..100 {
        let updates = b.updates(now_ms);
        assert!(updates.len() <= 2);
        order.extend(updates.iter().map(|u| u.partition));
        b.count(now_ms, &updates);
        // In every step, another row of the busy partition becomes due. The turn of a partition includes only rows that
        // were due when the turn started.
        let offset = 5 + now_ms;
        let city = format!("more-{now_ms}");
        b.pipeline
            .records(SteadyMs(now_ms), 1, busy, vec![record(offset, &city, 7)]);
    }
    let of_quiet = |n: usize| order.iter().take(n).filter(|p| **p == 0).count();
    assert_eq!((of_quiet(14), of_quiet(18)), (0, 4), "{order:?}");
}

#[test]
fn who_is_leaving_updates_its_rows_first() {
    let (mut b, _) = busy_and_quiet();
    let first = b.updates(1);
    assert!(first.iter().all(|u| u.partition == 1));
    b.pipeline.revoked(SteadyMs(2), &[0], false, DRAIN_MS);
    b.count(2, &first);
    let mut order = Vec::new();
    for now_ms in 2..5 {
        let updates = b.updates(now_ms);
        order.extend(updates.iter().map(|u| u.partition));
        b.count(now_ms, &updates);
    }
    assert_eq!(order, [0, 0, 0, 0, 1, 1]);
}

#[test]
fn out_of_range_waits_until_all_is_durable_and_committed() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline.topic_checked(SteadyMs(0), None);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    let updates = b.updates(1);
    b.pipeline.out_of_range(0, a);
    assert!(b.pump(2).is_empty());
    b.count(3, &updates);
    assert!(b.pump(3).is_empty(), "not committed yet");
    assert_eq!(checks(&b.pump(2_000)), 1);
    b.pipeline.topic_checked(SteadyMs(2_001), Some("T"));
    b.pump(2_001);
    b.pipeline.commit_done(SteadyMs(2_002), true);
    let out = b.pump(2_003);
    assert!(
        matches!(out[..], [Output::Hold { .. }, Output::Locate { .. }]),
        "{out:?}"
    );
}

#[test]
fn the_end_of_a_log_skips_nothing_of_what_a_drain_has_dropped() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    let updates = b.updates(1);
    b.pipeline.revoked(SteadyMs(2), &[0], false, DRAIN_MS);
    // The client had read the next record and the end of the log before the drain began.
    b.pipeline
        .records(SteadyMs(3), 0, a, vec![record(1, "NYC", 8)]);
    b.pipeline.reached_end(SteadyMs(3), 0, a, Offset(2));
    b.count(4, &updates);
    let end = boundary(1, Some(7));
    assert_eq!(released(&b.pump(4)), [(0, Some(end), Some(end))]);
}

#[test]
fn a_start_whose_facts_cannot_be_had_is_asked_for_again_as_long_as_it_is_wanted() {
    let mut b = Bench::new(options());
    b.pipeline.assigned(SteadyMs(0), &[0, 1]);
    let asked = |out: &[Output]| -> Vec<(i32, u64, i64)> {
        let asked = |o: &Output| match o {
            Output::Locate {
                partition,
                assignment,
                not_before_ms,
            } => Some((*partition, *assignment, not_before_ms.0)),
            _ => None,
        };
        out.iter().filter_map(asked).collect()
    };
    let out = b.pump(0);
    let [(0, zero, 0), (1, one, 0)] = asked(&out)[..] else {
        panic!("{out:?}");
    };
    b.pipeline.not_located(SteadyMs(7), 0, zero);
    b.pipeline.not_located(SteadyMs(7), 1, one);
    let again = [
        (0, zero, 7 + LOCATE_AGAIN_MS),
        (1, one, 7 + LOCATE_AGAIN_MS),
    ];
    assert_eq!(asked(&b.pump(7)), again);
    b.pipeline.revoked(SteadyMs(8), &[1], true, DRAIN_MS);
    b.pipeline.not_located(SteadyMs(9), 1, one);
    b.pipeline
        .located(SteadyMs(9), 0, zero, &facts("T", None, Some(0)), &tables());
    b.pipeline.not_located(SteadyMs(10), 0, zero);
    assert_eq!(asked(&b.pump(10)), [], "one is gone, and the other runs");
}

#[test]
fn a_revoke_during_the_last_drain_makes_it_no_longer() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    b.pump(1);
    b.pipeline.revoked(SteadyMs(2), &[0], false, DRAIN_MS);
    b.pipeline
        .revoked(SteadyMs(1 + DRAIN_MS), &[0], false, DRAIN_MS);
    assert!(released(&b.pump(1 + DRAIN_MS)).is_empty());
    assert_eq!(released(&b.pump(2 + DRAIN_MS)).len(), 1);
}

#[test]
fn rows_that_only_wait_for_their_interval_make_room() {
    let hour_ms = 3_600_000;
    let mut b = Bench::new(Options {
        row_interval_ms: hour_ms,
        ..options()
    });
    let a = b.start(0);
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    b.pipeline.make_room();
    let updates = b.updates(1);
    assert_eq!(updates.len(), 2, "a row with something to write stays");
    b.pipeline.make_room();
    b.count(2, &updates);
    assert!(b.updates(2).is_empty());
    assert_eq!(b.pipeline.in_flight(), 0);
    assert!(b.pipeline.workers().all(|worker| worker.bytes() > 0));
    b.pipeline.make_room();
    assert!(b.pipeline.workers().all(|worker| worker.bytes() == 0));
    b.pipeline
        .records(SteadyMs(3), 0, a, vec![record(1, "NYC", 8)]);
    assert_eq!(b.updates(3).len(), 2, "sooner than its interval");
}

#[test]
fn bytes_of_records_for_nobody_come_back() {
    let mut b = Bench::new(options());
    let a = b.start(0);
    let mut rows = 0;
    let mut freed = |b: &mut Bench| {
        let tally = b.pipeline.report().tally;
        rows += tally.bytes_taken;
        tally.bytes_freed
    };
    b.pipeline
        .records(SteadyMs(1), 0, a + 9, vec![record(0, "NYC", 7)]);
    assert_eq!(freed(&mut b), 10, "another assignment's");
    b.pipeline
        .records(SteadyMs(1), 5, a, vec![record(0, "NYC", 7)]);
    assert_eq!(freed(&mut b), 10, "another partition's");
    b.pipeline
        .records(SteadyMs(1), 0, a, vec![record(0, "NYC", 7)]);
    assert_eq!(freed(&mut b), 0);
    b.pipeline.revoked(SteadyMs(2), &[0], true, DRAIN_MS);
    let last = freed(&mut b);
    assert!(rows > 0);
    assert_eq!(last, 10 + rows, "given up with its partition");
}
