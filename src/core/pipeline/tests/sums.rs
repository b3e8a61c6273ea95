//! Tests that the sums of restart points are unknown after a loss of records, and that known sums are published in
//! time.

use super::*;
use crate::stretch::Sum;

#[test]
fn sums_are_unknown_after_a_loss_and_known_where_nothing_is_lost() {
    let ours = format!("{OURS};sums=3,1,1,1,1,1");
    for (log_start, known) in [(5, true), (8, false)] {
        let mut b = Bench::new(Options {
            continue_on_loss: true,
            ..options()
        });
        let facts = StartFacts {
            log: (Offset(log_start), Offset(20)),
            ..facts("T", Some((5, &ours)), None)
        };
        b.locate(0, 3, &facts);
        let worker = b.pipeline.workers().next().expect("running");
        let sums = Sum::checked([3, 1, 1, 1, 1, 1]).filter(|_| known);
        assert_eq!(worker.durable().sums, sums, "{log_start}");
    }
    let mut b = Bench::new(Options {
        continue_on_loss: true,
        ..options()
    });
    let cut = |end| StartFacts {
        log: (Offset(0), Offset(end)),
        ..facts("T", Some((5, &ours)), None)
    };
    let out = b.locate(0, 3, &cut(3));
    let Some(Output::Locate { assignment, .. }) = out.last() else {
        panic!("{out:?}");
    };
    b.pipeline
        .located(SteadyMs(1_000), 3, *assignment, &cut(5), &tables());
    let worker = b.pipeline.workers().next().expect("running");
    assert_eq!(worker.durable().sums, None);
}

#[test]
fn sums_are_published_though_traffic_stops() {
    let mut b = Bench::new(options());
    let begin = StartFacts {
        commit: Some(Commit {
            next: Offset(0),
            metadata: "v1;topic=T;tables=D;max=4;sums=0,0,0,0,0,0".to_owned(),
        }),
        progress: Some(Boundary {
            max: MaxTime::new(Some(UnixMs(4))),
            ..Boundary::begin(Offset(0))
        }),
        ..facts("T", None, None)
    };
    let out = b.locate(0, 0, &begin);
    let [Output::Begin { assignment, .. }] = out[..] else {
        panic!("{out:?}");
    };
    let published = |out: Vec<Output>| {
        let publish = |o| match o {
            Output::Publish(publish) => Some(publish),
            _ => None,
        };
        out.into_iter().filter_map(publish).collect::<Vec<_>>()
    };
    b.counted(1, 0, assignment, 3);
    b.pump(1_100);
    b.pipeline.topic_checked(SteadyMs(1_101), Some("T"));
    assert_eq!(commits(&b.pump(1_101))[0].boundary.next, Offset(3));
    b.pipeline.commit_done(SteadyMs(1_102), true);
    assert_eq!(published(b.pump(1_102)), [], "three events can wait");
    assert_eq!(published(b.pump(299_999)), []);
    assert_eq!(b.pipeline.next_ms(), Some(SteadyMs(300_000)));
    let due = published(b.pump(300_000));
    let sums = Sum::checked([3, 0, 0, 0, 3, 0]);
    assert_eq!(due.len(), 1);
    assert_eq!(
        (due[0].boundary.next, due[0].boundary.sums),
        (Offset(3), sums)
    );
    // The pipeline repeats the failed publication after another wait of the same length. The pipeline does not repeat
    // the successful publication.
    assert_eq!(published(b.pump(599_999)), []);
    assert_eq!(published(b.pump(600_000)), due);
    b.pipeline.published(SteadyMs(600_001), &due[0]);
    assert_eq!(published(b.pump(9_000_000)), []);
    assert_eq!(b.pipeline.next_ms(), None);
}
