//! Tests each decision of a worker separately. The simulation in `tests/sim` tests the decisions of a worker together.

use super::rows::ROW_BYTES;
use super::*;
use crate::plan::{RowUpdate, UpdateOutcome};

const WINDOW_MS: i64 = 300_000;
const INTERVAL_MS: i64 = 250;

fn place(keep: RawRows) -> Place {
    Place {
        topic: "city-events".into(),
        partition: 2,
        assignment: 7,
        log_key: "T#2".into(),
        rules: Rules::default(),
        keep,
        row_interval_ms: INTERVAL_MS,
    }
}

fn event(city: &str, severity: Severity, time_ms: i64) -> Content {
    Content::Valid(Body::Event(Event {
        city: city.into(),
        event_type: "traffic".into(),
        severity,
        time_ms: UnixMs(time_ms),
        description: "".into(),
        event_id: None,
        extra: None,
    }))
}

fn rejected(offset: i64) -> Content {
    Content::Rejected(Box::new(Rejected {
        reason: Reason::NotJson,
        detail: String::new(),
        key: None,
        value: None,
        headers: Vec::new(),
        partition: 2,
        offset: Offset(offset),
        timestamp_ms: None,
    }))
}

/// A worker, together with all writes that it has returned so far.
struct Bench {
    worker: Worker,
    writes: Vec<Write>,
}

impl Bench {
    fn new(keep: RawRows) -> Bench {
        let start = Boundary {
            next: Offset(0),
            max: MaxTime::default(),
            sums: None,
        };
        Bench {
            worker: Worker::new(place(keep), start),
            writes: Vec::new(),
        }
    }

    fn record(&mut self, now_ms: i64, offset: i64, stamp: Option<i64>, content: Content) {
        let record = Record {
            offset: Offset(offset),
            timestamp_ms: stamp.map(UnixMs),
            bytes: 100,
            content,
        };
        self.worker.take(SteadyMs(now_ms), record, &mut self.writes);
    }

    /// Passes a low-severity event of the city NYC to the worker. The record's timestamp equals the event time, so the
    /// event is not a future event.
    fn low(&mut self, now_ms: i64, offset: i64, time_ms: i64) {
        let content = event("NYC", Severity::Low, time_ms);
        self.record(now_ms, offset, Some(time_ms), content);
    }

    /// Returns all row updates that are due, with the updates of totals rows first.
    fn updates(&mut self, now_ms: i64) -> Vec<RowUpdate> {
        let mut out = Vec::new();
        while let Some(update) = self.worker.next_update(SteadyMs(now_ms), SteadyMs(now_ms)) {
            assert_eq!((update.partition, update.assignment), (2, 7));
            out.push(update);
        }
        out.sort_by_key(|u| u.row.window_start_ms);
        out
    }

    fn done(&mut self, now_ms: i64, update: &RowUpdate, outcome: UpdateOutcome) {
        self.worker
            .update_done(SteadyMs(now_ms), update.row_id, outcome, |attempts| {
                i64::from(attempts) * 1_000
            });
    }

    /// Drains the worker, and reports that all of its writes have succeeded.
    fn finish(&mut self, now_ms: i64) {
        self.worker.drain(SteadyMs(now_ms));
        loop {
            let updates = self.updates(now_ms);
            if updates.is_empty() {
                break;
            }
            for update in updates {
                self.done(now_ms, &update, UpdateOutcome::Counted);
            }
        }
        for write in std::mem::take(&mut self.writes) {
            match write {
                Write::Put(table, put) => self.worker.put_done(table, put.ticket.seq),
                Write::Reject(ticket, _) => self.worker.reject_done(ticket.seq),
            }
        }
        assert_eq!(self.worker.in_flight(), 0);
    }

    fn ledger(&mut self) -> Ledger {
        self.worker.take_tally().ledger
    }

    /// Returns the offset, the late flag and the future flag of each put of a raw item so far.
    fn raw(&self) -> Vec<(i64, bool, bool)> {
        let raw = self.writes.iter().filter_map(|w| match w {
            Write::Put(PutTable::Raw, p) => Some((p.event.offset.0, p.event.late, p.event.future)),
            Write::Put(PutTable::Alerts, _) | Write::Reject(..) => None,
        });
        raw.collect()
    }

    fn tables(&self) -> Vec<PutTable> {
        let table = |w: &Write| match w {
            Write::Put(table, _) => Some(*table),
            Write::Reject(..) => None,
        };
        self.writes.iter().filter_map(table).collect()
    }
}

fn span(update: &RowUpdate) -> (i64, i64, u64) {
    let sum = update.sum;
    (
        update.first.0,
        update.next.0,
        sum.event_count + sum.late_count,
    )
}

fn at(next: i64, max_ms: i64) -> Boundary {
    Boundary {
        next: Offset(next),
        max: MaxTime::new(Some(UnixMs(max_ms))),
        sums: None,
    }
}

#[test]
fn an_idle_row_is_updated_at_once_and_the_next_stretch_gathers() {
    let mut b = Bench::new(RawRows::None);
    b.low(1_000, 0, 5);
    let first = b.updates(1_000);
    assert_eq!(first.iter().map(span).collect::<Vec<_>>(), [(0, 1, 1); 2]);
    assert_eq!(first[0].row.window_start_ms, None);
    assert_eq!(first[1].row.window_start_ms, Some(UnixMs(0)));
    b.low(1_010, 1, 6);
    b.low(1_020, 2, 7);
    // The second update of a row is not sent until the outcome of the first update is known.
    assert_eq!(b.updates(9_000), []);
    for update in &first {
        b.done(1_030, update, UpdateOutcome::Counted);
    }
    // The second update of a row is not sent until the row interval is over.
    assert_eq!(b.updates(1_249), []);
    assert_eq!(b.worker.next_ms(), Some(SteadyMs(1_250)));
    let second = b.updates(1_250);
    assert_eq!(second.iter().map(span).collect::<Vec<_>>(), [(1, 3, 2); 2]);
}

#[test]
fn a_slow_outcome_lets_the_next_stretch_go_at_once() {
    let mut b = Bench::new(RawRows::None);
    b.low(1_000, 0, 5);
    let first = b.updates(1_000);
    b.low(1_010, 1, 6);
    for update in &first {
        b.done(5_000, update, UpdateOutcome::Counted);
    }
    assert_eq!(b.updates(5_000).len(), 2);
}

#[test]
fn a_row_that_rests_is_forgotten() {
    let mut b = Bench::new(RawRows::None);
    for n in 0..50 {
        b.low(n * 1_000, n, n * WINDOW_MS);
        for update in b.updates(n * 1_000) {
            b.done(n * 1_000 + 5, &update, UpdateOutcome::Counted);
        }
    }
    assert_eq!(b.updates(60_000), []);
    assert!(b.worker.series.is_empty(), "rows stay in memory");
    assert!(b.worker.rows.len() < 6, "numbers of rows are used again");
}

#[test]
fn an_update_without_a_clear_outcome_is_sent_again_as_it_was() {
    for outcome in [UpdateOutcome::Unknown, UpdateOutcome::Refused] {
        let mut b = Bench::new(RawRows::None);
        b.low(1_000, 0, 5);
        let first = b.updates(1_000);
        b.low(1_010, 1, 6);
        for attempt in 1..4 {
            let now_ms = attempt * 10_000;
            for update in &first {
                b.done(now_ms, update, outcome);
            }
            // The wait before an update is sent again grows with each attempt.
            assert_eq!(b.updates(now_ms + attempt * 1_000 - 1), []);
            assert_eq!(b.updates(now_ms + attempt * 1_000), first, "{outcome:?}");
        }
        assert_eq!(b.ledger().counted, 0);
    }
}

#[test]
fn ones_own_lost_reply_is_counted_and_anothers_work_is_not() {
    // Each test case lists the outcome of an earlier attempt, the fence that refuses the update, the expected number of
    // counted events, and the expected number of already counted events.
    for (before, fence, counted, already) in [
        (Some(UpdateOutcome::Unknown), 3, 3, 0),
        (Some(UpdateOutcome::Unknown), 9, 0, 3),
        (Some(UpdateOutcome::Refused), 3, 0, 3),
        (None, 3, 0, 3),
        (None, 9, 0, 3),
    ] {
        let mut b = Bench::new(RawRows::None);
        for n in 0..3 {
            b.low(1_000, n, n);
        }
        let mut updates = b.updates(1_000);
        if let Some(before) = before {
            for update in &updates {
                b.done(1_010, update, before);
            }
            updates = b.updates(5_000);
        }
        for update in &updates {
            b.done(5_010, update, UpdateOutcome::Fenced(Offset(fence)));
        }
        let ledger = b.ledger();
        let got = (ledger.counted, ledger.already_counted);
        assert_eq!(got, (counted, already), "{before:?}, fence {fence}");
        assert_eq!(b.worker.durable(), at(3, 2));
    }
}

#[test]
fn a_conflict_drops_what_is_counted_and_sums_the_rest_again() {
    let mut b = Bench::new(RawRows::None);
    for n in 0..5 {
        b.low(1_000, n, n);
    }
    let updates = b.updates(1_000);
    assert_eq!(span(&updates[0]), (0, 5, 5));
    b.low(1_010, 5, 5);
    b.done(1_020, &updates[0], UpdateOutcome::Fenced(Offset(3)));
    b.done(1_020, &updates[1], UpdateOutcome::Fenced(Offset(5)));
    assert_eq!(b.worker.durable(), at(3, 2), "below both fences");
    // The worker sends the records at or above the fence at once, together with the records that it gathered during the
    // update.
    let rest = b.updates(1_020);
    assert_eq!(rest.iter().map(span).collect::<Vec<_>>(), [(3, 6, 3)]);
    b.done(1_030, &rest[0], UpdateOutcome::Counted);
    let window = b.updates(2_000);
    assert_eq!(window.iter().map(span).collect::<Vec<_>>(), [(5, 6, 1)]);
    b.done(2_010, &window[0], UpdateOutcome::Counted);
    let tally = b.worker.take_tally();
    assert_eq!(tally.fence_conflicts, 2);
    // The fence of the totals row decides which events were already counted.
    assert_eq!((tally.ledger.already_counted, tally.ledger.counted), (3, 3));
    assert_eq!(b.worker.durable(), at(6, 5));
}

#[test]
fn a_fence_below_the_stretch_is_a_plain_repetition() {
    // A fence below the first offset of a stretch means that the row counts no record of the stretch.
    let mut b = Bench::new(RawRows::None);
    b.low(1_000, 4, 5);
    let updates = b.updates(1_000);
    b.done(1_010, &updates[0], UpdateOutcome::Fenced(Offset(2)));
    let again = b.updates(1_010);
    assert_eq!(again.iter().map(span).collect::<Vec<_>>(), [(4, 5, 1)]);
}

#[test]
fn only_the_contiguous_prefix_is_durable() {
    let mut b = Bench::new(RawRows::All);
    for (n, time_ms) in [(0, 100), (1, 50), (2, 200), (3, 150)] {
        b.low(1_000, n, time_ms);
    }
    for update in b.updates(1_000) {
        b.done(1_010, &update, UpdateOutcome::Counted);
    }
    let none = Boundary {
        next: Offset(0),
        max: MaxTime::default(),
        sums: None,
    };
    for (seq, durable) in [(2, none), (1, none), (0, at(3, 200)), (3, at(4, 200))] {
        b.worker.put_done(PutTable::Raw, seq);
        assert_eq!(b.worker.durable(), durable, "after {seq}");
    }
}

#[test]
fn a_boundary_carries_the_sums_below_it_whoever_counted_them() {
    let mut b = Bench::new(RawRows::None);
    b.worker = Worker::new(place(RawRows::None), Boundary::begin(Offset(0)));
    let hour = 3_600_000;
    let events = [
        (0, Severity::Low),
        (hour, Severity::High),
        (0, Severity::Critical), // This event is late.
        (hour, Severity::Low),
    ];
    for (n, (time_ms, severity)) in (0..).zip(events) {
        let content = event("NYC", severity, time_ms);
        b.record(1_000, n, Some(time_ms), content);
    }
    b.record(
        1_000,
        4,
        Some(hour),
        Content::Valid(Body::Heartbeat(UnixMs(hour))),
    );
    b.record(1_000, 5, None, rejected(5));
    let sums = |b: &Bench| b.worker.durable().sums.map(|sums| sums.numbers());
    assert_eq!(sums(&b), Some([0; 6]), "nothing is durable yet");
    // A fence at offset 3 shows that the first three of the four events were counted before.
    b.worker.drain(SteadyMs(1_000));
    for update in b.updates(1_000) {
        b.done(1_001, &update, UpdateOutcome::Fenced(Offset(3)));
    }
    b.finish(9_000);
    assert_eq!(sums(&b), Some([3, 1, 2, 0, 1, 1]));
    assert_eq!(b.ledger().already_counted, 3);
    b.worker.skip_gap(Offset(9));
    assert_eq!(sums(&b), Some([3, 1, 2, 0, 1, 1]));
    // Unknown sums stay unknown.
    let mut unknown = Bench::new(RawRows::None);
    unknown.low(1_000, 0, 5);
    unknown.finish(1_000);
    assert_eq!(unknown.worker.durable(), at(1, 5));
}

#[test]
fn a_boundary_carries_the_largest_time_below_it() {
    let mut b = Bench::new(RawRows::All);
    let times = [100, 50, 200, 150];
    for (n, time_ms) in (0..).zip(times) {
        b.low(1_000, n, time_ms);
    }
    for update in b.updates(1_000) {
        b.done(1_010, &update, UpdateOutcome::Counted);
    }
    for (seq, max_ms) in (0..).zip([100, 100, 200, 200]) {
        b.worker.put_done(PutTable::Raw, seq);
        let next = i64::try_from(seq).unwrap() + 1;
        assert_eq!(b.worker.durable(), at(next, max_ms));
    }
}

#[test]
fn a_restart_at_a_boundary_judges_as_no_restart_would() {
    // A worker that starts at a boundary must mark the same records as late or future as a worker that starts at the
    // beginning of the log.
    let times: [i64; 7] = [0, 950_000, 10, 400_000, 1_600_000, 950_000, 300_000];
    let take = |b: &mut Bench, from: usize| {
        for (n, time_ms) in times.iter().enumerate().skip(from) {
            b.low(1_000, i64::try_from(n).unwrap(), *time_ms);
        }
        b.raw()
    };
    let whole = take(&mut Bench::new(RawRows::All), 0);
    assert_eq!(
        whole.iter().filter(|(_, late, _)| *late).count(),
        2,
        "{whole:?}"
    );
    for from in 0..times.len() {
        let max_ms = times[..from].iter().max().copied();
        let start = Boundary {
            next: Offset(i64::try_from(from).unwrap()),
            max: MaxTime::new(max_ms.map(UnixMs)),
            sums: None,
        };
        let mut b = Bench::new(RawRows::All);
        b.worker = Worker::new(place(RawRows::All), start);
        assert_eq!(take(&mut b, from), whole[from..]);
    }
}

#[test]
fn late_is_judged_record_by_record_and_counted_apart() {
    let mut b = Bench::new(RawRows::All);
    // All events arrive at the same time, but each event is late or not according to the watermark directly before it.
    let times = [0, 899_999, 1, 900_000, 2, 299_999, 300_000];
    for (n, time_ms) in (0..).zip(times) {
        b.low(1_000, n, time_ms);
    }
    let late: Vec<bool> = b.raw().iter().map(|(_, late, _)| *late).collect();
    assert_eq!(late, [false, false, false, false, true, true, false]);
    let updates = b.updates(1_000);
    let (totals, windows) = updates.split_first().unwrap();
    assert_eq!((totals.sum.event_count, totals.sum.late_count), (5, 2));
    assert_eq!(totals.sum.severities, [7, 0, 0, 0]);
    let counted: Vec<_> = windows
        .iter()
        .map(|w| {
            (
                w.row.window_start_ms.unwrap().0,
                span(w).2,
                w.sum.late_count,
            )
        })
        .collect();
    assert_eq!(
        counted,
        [(0, 2, 0), (300_000, 1, 0), (600_000, 1, 0), (900_000, 1, 0)]
    );
}

#[test]
fn the_ledger_knows_late_records() {
    let mut b = Bench::new(RawRows::All);
    for (n, time_ms) in (0..).zip([900_000, 0, 900_001]) {
        b.low(1_000, n, time_ms);
    }
    for update in b.updates(1_000) {
        b.done(1_001, &update, UpdateOutcome::Counted);
    }
    for seq in 0..3 {
        b.worker.put_done(PutTable::Raw, seq);
    }
    let ledger = b.ledger();
    assert_eq!((ledger.consumed, ledger.counted, ledger.late), (3, 2, 1));
    assert!(ledger.balances());
}

#[test]
fn one_event_far_ahead_does_not_move_the_watermark() {
    let mut b = Bench::new(RawRows::All);
    let now = 1_357_020_000_000;
    b.low(1_000, 0, now);
    // The event comes from a producer whose clock is a day ahead.
    let ahead = event("NYC", Severity::Low, now + 86_400_000);
    b.record(1_000, 1, Some(now), ahead);
    for n in 2..12 {
        b.low(1_000, n, now + n);
    }
    assert_eq!(b.worker.watermark_ms(), Some(UnixMs(now + 11 - 600_000)));
    let flags = b.raw();
    assert_eq!(flags[1], (1, false, true));
    assert!(
        flags
            .iter()
            .enumerate()
            .all(|(n, (_, late, future))| !late && *future == (n == 1))
    );
    let windows: Vec<_> = b.updates(1_000).split_off(1).iter().map(span).collect();
    assert_eq!(
        windows,
        [(0, 12, 11), (1, 2, 1)],
        "it counts in its own window"
    );
    assert_eq!(b.worker.take_tally().future, 1);
}

#[test]
fn the_skew_is_exact_for_events_and_heartbeats() {
    for (ahead_ms, moves) in [(300_000, true), (300_001, false)] {
        let mut b = Bench::new(RawRows::None);
        b.record(0, 0, Some(0), event("NYC", Severity::Low, ahead_ms));
        assert_eq!(b.worker.watermark_ms().is_some(), moves);
        let mut b = Bench::new(RawRows::None);
        b.record(
            0,
            0,
            Some(0),
            Content::Valid(Body::Heartbeat(UnixMs(ahead_ms))),
        );
        assert_eq!(b.worker.watermark_ms().is_some(), moves);
    }
}

#[test]
fn a_record_without_a_timestamp_counts_and_moves_nothing() {
    let mut b = Bench::new(RawRows::All);
    b.record(1_000, 0, None, event("NYC", Severity::Low, 5));
    assert_eq!(b.raw(), [(0, false, true)]);
    assert_eq!(b.worker.watermark_ms(), None);
    let updates = b.updates(1_000);
    assert_eq!(updates.len(), 2, "its window and the totals");
    for update in &updates {
        b.done(1_001, update, UpdateOutcome::Counted);
    }
    let none = Boundary {
        next: Offset(1),
        max: MaxTime::default(),
        sums: None,
    };
    b.finish(1_001);
    assert_eq!(b.worker.durable(), none);
}

#[test]
fn a_heartbeat_moves_the_watermark_and_writes_nothing() {
    let mut b = Bench::new(RawRows::All);
    b.record(
        0,
        0,
        Some(900_000),
        Content::Valid(Body::Heartbeat(UnixMs(900_000))),
    );
    assert!(b.writes.is_empty());
    assert_eq!(b.updates(1_000), []);
    assert_eq!(b.worker.durable(), at(1, 900_000));
    b.low(0, 1, 0);
    assert_eq!(b.raw(), [(1, true, false)], "the first window is over");
    // The watermark never goes back.
    b.record(
        0,
        2,
        Some(900_000),
        Content::Valid(Body::Heartbeat(UnixMs(1))),
    );
    assert_eq!(b.worker.watermark_ms(), Some(UnixMs(300_000)));
    let ledger = b.ledger();
    assert_eq!((ledger.consumed, ledger.heartbeats), (3, 1));
    b.finish(1_000);
    assert_eq!(b.ledger().heartbeats, 1);
}

#[test]
fn a_drain_waits_for_no_interval() {
    let mut b = Bench::new(RawRows::None);
    b.low(1_000, 0, 5);
    let first = b.updates(1_000);
    b.low(1_010, 1, 6);
    for update in &first {
        b.done(1_020, update, UpdateOutcome::Counted);
    }
    assert_eq!(b.updates(1_030), []);
    b.worker.drain(SteadyMs(1_030));
    let last = b.updates(1_030);
    assert_eq!(last.iter().map(span).collect::<Vec<_>>(), [(1, 2, 1); 2]);
    // The worker sends the records that it gathered during an update as soon as it knows the outcome of the update.
    b.low(1_040, 2, 7);
    for update in &last {
        b.done(1_050, update, UpdateOutcome::Counted);
    }
    assert_eq!(b.updates(1_050).len(), 2);
}

#[test]
fn a_drain_still_waits_before_repeating() {
    let mut b = Bench::new(RawRows::None);
    b.low(1_000, 0, 5);
    for update in b.updates(1_000) {
        b.done(1_010, &update, UpdateOutcome::Refused);
    }
    b.worker.drain(SteadyMs(1_020));
    assert_eq!(
        b.updates(1_020),
        [],
        "a table that throttles is not hammered"
    );
    assert_eq!(b.updates(2_010).len(), 2);
}

#[test]
fn a_gap_at_the_end_moves_the_boundary_behind_the_records_before_it() {
    let mut b = Bench::new(RawRows::None);
    b.worker.skip_gap(Offset(3));
    assert_eq!(b.worker.durable().next, Offset(3), "nothing is in flight");
    assert_eq!(b.worker.position(), Offset(3));
    b.low(1_000, 3, 5);
    b.worker.skip_gap(Offset(9));
    b.worker.skip_gap(Offset(4));
    assert_eq!(b.worker.position(), Offset(9));
    assert_eq!(
        b.worker.durable().next,
        Offset(3),
        "its record is not counted"
    );
    b.finish(1_000);
    assert_eq!(b.worker.durable(), at(9, 5));
    // The worker ignores a record below its position.
    b.low(1_000, 8, 6);
    assert_eq!(b.worker.in_flight(), 0);
}

#[test]
fn every_byte_comes_back() {
    let mut b = Bench::new(RawRows::All);
    b.low(0, 0, 1);
    b.record(0, 1, Some(5), Content::Valid(Body::Heartbeat(UnixMs(5))));
    b.record(0, 2, Some(5), rejected(2));
    assert_eq!(b.worker.bytes(), 300 + 2 * ROW_BYTES);
    b.low(0, 0, 1);
    let tally = b.worker.take_tally();
    assert_eq!(tally.bytes_taken, 2 * ROW_BYTES, "a window's and a total's");
    assert_eq!(tally.bytes_freed, 100, "a record taken before is dropped");
    assert_eq!(tally.ledger.consumed, 3);
    b.finish(1_000);
    assert_eq!(b.worker.bytes(), 0);
    let tally = b.worker.take_tally();
    assert_eq!(tally.bytes_freed, 300 + 2 * ROW_BYTES);
    let at = Reason::ALL.iter().position(|r| *r == Reason::NotJson);
    assert_eq!(tally.ledger.rejected[at.unwrap()], 1);
    assert_eq!(tally.durable_ms, [1, 5, 5].map(UnixMs));
}

#[test]
fn a_record_that_waits_for_its_rows_alone_gives_most_of_its_bytes_back() {
    for (keep, severity, puts) in [
        (RawRows::All, Severity::High, 2),
        (RawRows::All, Severity::Low, 1),
        (RawRows::None, Severity::High, 0),
    ] {
        let mut b = Bench::new(keep);
        let record = Record {
            offset: Offset(0),
            timestamp_ms: Some(UnixMs(1)),
            bytes: 1_000,
            content: event("NYC", severity, 1),
        };
        b.worker.take(SteadyMs(0), record, &mut b.writes);
        let tables = b.tables();
        assert_eq!(tables.len(), puts);
        let rows = 2 * ROW_BYTES;
        for table in tables {
            assert_eq!(b.worker.bytes(), 1_000 + rows, "the item holds the event");
            b.worker.put_done(table, 0);
        }
        b.writes.clear();
        let counted = u64::from(COUNTED_BYTES);
        assert_eq!(b.worker.bytes(), counted + rows);
        assert_eq!(b.worker.take_tally().bytes_freed, 1_000 - counted);
        b.finish(1_000);
        assert_eq!(b.worker.bytes(), 0);
        assert_eq!(b.worker.take_tally().bytes_freed, counted + rows);
    }
}

#[test]
fn a_rejected_record_holds_the_boundary_until_its_letter_is_acknowledged() {
    let mut b = Bench::new(RawRows::All);
    b.record(0, 0, Some(1), rejected(0));
    b.record(0, 1, Some(5), Content::Valid(Body::Heartbeat(UnixMs(5))));
    assert_eq!(b.worker.durable().next, Offset(0));
    let Write::Reject(ticket, letter) = &b.writes[0] else {
        panic!("{:?}", b.writes);
    };
    assert_eq!(letter.offset, Offset(0));
    let seq = ticket.seq;
    b.worker.reject_done(seq);
    assert_eq!(b.worker.durable(), at(2, 5));
}

#[test]
fn what_is_kept_decides_the_items_and_nothing_else() {
    for (keep, raw, alerts) in [
        (RawRows::All, 4, 2),
        (RawRows::Alerts, 2, 2),
        (RawRows::None, 0, 0),
    ] {
        let mut b = Bench::new(keep);
        for (n, severity) in (0..).zip(Severity::ALL) {
            b.record(0, n, Some(n), event("NYC", severity, n));
        }
        let tables = b.tables();
        let count = |table| tables.iter().filter(|t| **t == table).count();
        assert_eq!(count(PutTable::Raw), raw, "{keep:?}");
        assert_eq!(count(PutTable::Alerts), alerts, "{keep:?}");
        let updates = b.updates(0);
        assert_eq!(
            updates.iter().map(span).collect::<Vec<_>>(),
            [(0, 4, 4); 2],
            "{keep:?} counts all"
        );
        for update in &updates {
            b.done(1, update, UpdateOutcome::Counted);
        }
        let waits = raw > 0;
        assert_eq!(b.worker.in_flight() > 0, waits, "{keep:?}");
        b.finish(1);
        assert_eq!(b.worker.durable(), at(4, 3));
    }
}

#[test]
fn the_room_of_a_large_backlog_is_given_back() {
    let mut b = Bench::new(RawRows::None);
    for n in 0..40_000 {
        let city = format!("city-{}", n % 5_000);
        b.record(0, n, Some(1), event(&city, Severity::Low, 1));
    }
    assert_eq!(
        (b.worker.in_flight(), b.worker.rows.len()),
        (40_000, 10_000)
    );
    b.finish(1_000);
    b.finish(2_000);
    assert_eq!(b.worker.in_flight(), 0);
    assert!(b.worker.tracked.capacity() <= 4 * ROOM_KEPT);
    assert!(b.worker.rows.capacity() <= ROOM_KEPT);
    // The worker has freed the memory of its lists, and still adds later records to the correct rows.
    b.low(2_000, 40_000, 1);
    assert_eq!(b.updates(2_000).len(), 2);
}

#[test]
fn records_of_different_rows_of_one_hand_over_go_apart() {
    let mut b = Bench::new(RawRows::None);
    for (n, (city, time_ms)) in (0..).zip([("NYC", 0), ("LA", 0), ("NYC", 300_000), ("NYC", 1)]) {
        b.record(0, n, Some(time_ms), event(city, Severity::Low, time_ms));
    }
    let mut rows: Vec<_> = b
        .updates(0)
        .iter()
        .map(|u| {
            (
                u.row.series.to_string(),
                u.row.window_start_ms.map(|ms| ms.0),
                span(u),
            )
        })
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            ("LA#traffic".to_owned(), None, (1, 2, 1)),
            ("LA#traffic".to_owned(), Some(0), (1, 2, 1)),
            ("NYC#traffic".to_owned(), None, (0, 4, 3)),
            ("NYC#traffic".to_owned(), Some(0), (0, 4, 2)),
            ("NYC#traffic".to_owned(), Some(300_000), (2, 3, 1)),
        ]
    );
}
