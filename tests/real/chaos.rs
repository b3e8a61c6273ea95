//! Tests of accidents under load: frozen members, members that come and go, a silent DynamoDB, a dead broker, and a
//! broker that runs for a tenth of the time.
//!
//! Each test feeds the log while it disturbs the consumers, lets them read to the end of the log, and compares the
//! tables row by row with the oracle. `CHAOS=long` repeats each accident many times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::faults::Faults;
use crate::log::Record;
use crate::membership::assignments;
use crate::proxy::Proxy;
use crate::role::{Signal, wait_for};
use crate::world::{World, file_lines};

/// Returns whether the long form is requested.
pub(crate) fn is_long() -> bool {
    std::env::var_os("CHAOS").is_some_and(|form| form == "long")
}

pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if is_long() { long } else { short }
}

/// The real events in parts, with bad records between them.
pub(crate) struct Feed<'a> {
    world: &'a World,
    lines: Vec<String>,
    part: usize,
    sent: usize,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(world: &'a World, parts: usize) -> Feed<'a> {
        let lines = file_lines();
        // The parts are small, so that a test can disturb the consumers often. They stay small, so that the rest of a
        // test is not mere counting.
        let part = (lines.len() / parts).min(1500);
        Feed {
            world,
            lines,
            part,
            sent: 0,
        }
    }

    /// Sends the next part, and nothing after the last one.
    pub(crate) fn more(&mut self) {
        let to = (self.sent + self.part).min(self.lines.len());
        if self.sent < to {
            self.world.produce(&self.lines[self.sent..to]);
            self.world.send(&[Record {
                partition: 3,
                value: Some(b"not an event".to_vec()),
                headers: vec![("expect".to_owned(), Some(b"not_json".to_vec()))],
                ..Record::default()
            }]);
        }
        self.sent = to;
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn frozen_members_that_wake_up_next_to_their_successors_change_nothing() {
    let world = World::new("chaos-frozen");
    world.init();
    // Many requests of a zombie land late, next to those of its successor.
    let faults = Faults::new(23, 15);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    let rounds = rounds(2, 12);
    let mut feed = Feed::new(&world, rounds * 2);
    let mut members = [
        world.consume_through(&proxy, &[]),
        world.consume_through(&proxy, &[]),
    ];
    for member in &mut members {
        member.is_ready(200, "");
    }
    for round in 0..rounds {
        let before = [members[0].settled(), members[1].settled()];
        feed.more();
        let busy = wait_for("a member to settle records", || {
            (0..2).find(|n| members[*n].settled() > before[*n] + 50.0)
        });
        members[busy].signal(Signal::Stop);
        let other = 1 - busy;
        let had = members[other].settled();
        feed.more();
        // The other member gets the partitions of the frozen one when its session has ended.
        wait_for("a takeover", || {
            (members[other].settled() > had + 200.0).then_some(())
        });
        members[busy].signal(Signal::Cont);
        members[busy].is_ready(200, "");
        eprintln!("chaos-frozen: round {round}, member {busy} froze and woke up");
    }
    world.consume_to_the_end_through(&proxy);
    for member in &mut members {
        assert_eq!(member.terminate().0, Some(0), "{}", member.err());
    }
    world.tables_are_exact_behind(&proxy);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn members_that_come_and_go_every_five_seconds_under_load_change_nothing() {
    let world = World::new("chaos-scaling");
    world.init();
    let faults = Faults::new(31, 5);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    let rounds = rounds(2, 15);
    let mut feed = Feed::new(&world, rounds * 10);
    let mut first = world.consume_through(&proxy, &[]);
    let five_seconds = |feed: &mut Feed<'_>| {
        for _ in 0..5 {
            feed.more();
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    let (mut read, mut cut_short) = (0.0, 0);
    for _ in 0..rounds {
        let mut others = [
            world.consume_through(&proxy, &[]),
            world.consume_through(&proxy, &[]),
        ];
        five_seconds(&mut feed);
        for other in &mut others {
            read += other.settled();
            let (code, took) = other.terminate();
            assert!(took < Duration::from_secs(14), "took {took:?}");
            // With slow writes, a member may end before everything is durable, and reports that.
            if code != Some(0) {
                assert_eq!(code, Some(1), "{}", other.err());
                assert!(other.err().contains("not yet durable"), "{}", other.err());
                cut_short += 1;
            }
        }
        five_seconds(&mut feed);
    }
    world.consume_to_the_end_through(&proxy);
    let metrics = first.metrics();
    assert_eq!(first.terminate().0, Some(0), "{}", first.err());
    let expected = world.tables_are_exact_behind(&proxy);
    eprintln!(
        "chaos-scaling: {rounds} × 1→3→1, {} events; the first read {} ({} of them again), the others {read}, {cut_short} of them left before all was durable; 0 differences",
        expected.valid,
        metrics["citystream_events_consumed_total"],
        metrics["citystream_events_already_counted_total"],
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_silent_dynamodb_costs_no_membership_and_no_event() {
    let world = World::new("chaos-silent");
    world.init();
    let faults = Faults::new(47, 2);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    let rounds = rounds(1, 6);
    let mut feed = Feed::new(&world, rounds * 2);
    let poll = ["--kafka-property", "max.poll.interval.ms=6000"];
    let mut consume = world.consume_through(&proxy, &poll);
    consume.is_ready(200, "");
    for _ in 0..rounds {
        let before = consume.settled();
        feed.more();
        wait_for("it to settle records", || {
            (consume.settled() > before + 50.0).then_some(())
        });
        faults.hold(true);
        feed.more();
        std::thread::sleep(Duration::from_secs(12));
        assert!(!consume.has_ended(), "{}", consume.err());
        assert_eq!(consume.get("/livez").unwrap().0, 200);
        faults.hold(false);
        consume.is_ready(200, "");
    }
    let (was_in, gave_up) = (consume.err(), consume.metrics());
    assert!(!was_in.contains("max.poll"), "{was_in}");
    assert_eq!(gave_up["citystream_events_given_up_total"], 0.0, "{was_in}");
    world.consume_to_the_end_through(&proxy);
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact_behind(&proxy);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_broker_killed_and_restarted_under_load_changes_nothing() {
    let world = World::disturbing("chaos-broker");
    world.init();
    let faults = Faults::new(59, 5);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    let rounds = rounds(1, 6);
    let mut feed = Feed::new(&world, rounds * 2);
    let mut members = [
        world.consume_through(&proxy, &[]),
        world.consume_through(&proxy, &[]),
    ];
    for member in &mut members {
        member.is_ready(200, "");
    }
    for _ in 0..rounds {
        feed.more();
        world.services.broker("kill-broker", "1");
        std::thread::sleep(Duration::from_secs(3));
        world.services.broker("start-broker", "1");
        feed.more();
        for member in &mut members {
            assert!(!member.has_ended(), "{}", member.err());
        }
    }
    world.consume_to_the_end_through(&proxy);
    for member in &mut members {
        assert_eq!(member.terminate().0, Some(0), "{}", member.err());
    }
    world.tables_are_exact_behind(&proxy);
}

/// Keeps every processor busy until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn new() -> Busy {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Busy(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn members_that_join_and_leave_on_a_slow_broker_and_busy_processors_skip_nothing() {
    let world = World::alone("chaos-overload");
    world.init();
    let proxy = Proxy::start(world.services.dynamodb_url(), &Faults::new(71, 0));
    let wanted = rounds(8, 500);
    let mut feed = Feed::new(&world, wanted.div_ceil(2) + 2);
    let mut first = world.consume_through(&proxy, &[]);
    first.is_ready(200, "");
    let assigned = |member: &crate::role::Role| {
        let of_member = assignments(member).into_iter();
        of_member
            .filter(|(what, partitions)| what == "assigned" && partitions != "[]")
            .count()
    };
    let mut of_others = 0;
    let (slowed, busy) = (world.services.slow_broker("1"), Busy::new());
    while of_others + assigned(&first) < wanted {
        let mut other = world.consume_through(&proxy, &[]);
        feed.more();
        wait_for("the other to own partitions", || {
            (assigned(&other) > 0).then_some(())
        });
        feed.more();
        let (code, _) = other.terminate();
        assert!(matches!(code, Some(0 | 1)), "{}", other.err());
        of_others += assigned(&other);
    }
    drop((slowed, busy));
    world.consume_to_the_end_through(&proxy);
    let total = of_others + assigned(&first);
    let metrics = first.metrics();
    assert_eq!(first.terminate().0, Some(0), "{}", first.err());
    let expected = world.tables_are_exact_behind(&proxy);
    let gaps = metrics.get("citystream_read_gaps_total").unwrap_or(&0.0);
    eprintln!(
        "chaos-overload: {total} assignments, {} events, {gaps} gaps of the first member; 0 differences",
        expected.valid
    );
}
