//! Tests of two consumers in one group, one of which dies or freezes.

use crate::faults::Faults;
use crate::proxy::Proxy;
use crate::role::{Role, Signal, wait_for};
use crate::world::{FILE_EVENTS, World};

/// Only the owner of partition 0 settles this many. The others hold 4,730 of the file's events.
const WITH_PARTITION_0: f64 = 5_000.0;

/// Returns a proxy that breaks nothing and keeps an account of all requests.
fn witness(world: &World) -> Proxy {
    Proxy::start(world.services.dynamodb_url(), &Faults::new(97, 0))
}

/// Starts two members, waits until both are ready, and sends the file. Returns both, the owner of partition 0 first.
fn two_at_work(world: &World, proxy: &Proxy) -> (Role, Role) {
    world.init();
    let mut members = [
        world.consume_through(proxy, &[]),
        world.consume_through(proxy, &[]),
    ];
    for member in &mut members {
        member.is_ready(200, "");
    }
    world.produce_file();
    let busy = wait_for("a member to be well into partition 0", || {
        (0..2).find(|n| members[*n].settled() >= WITH_PARTITION_0)
    });
    let [a, b] = members;
    if busy == 0 { (a, b) } else { (b, a) }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_work_of_a_killed_member_is_taken_over_exactly() {
    let world = World::new("taken-over");
    let proxy = witness(&world);
    let (mut busy, mut other) = two_at_work(&world, &proxy);
    assert!(busy.settled() < FILE_EVENTS as f64);
    busy.kill();
    world.consume_to_the_end_through(&proxy);
    assert_eq!(other.terminate().0, Some(0), "{}", other.err());
    world.tables_are_exact_behind(&proxy);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_member_that_freezes_and_wakes_up_next_to_its_successor_changes_nothing() {
    let world = World::new("zombie");
    let proxy = witness(&world);
    let (mut busy, mut other) = two_at_work(&world, &proxy);
    busy.signal(Signal::Stop);
    // The other member gets its partitions when its session has ended.
    other.has_settled(WITH_PARTITION_0);
    busy.signal(Signal::Cont);
    world.consume_to_the_end_through(&proxy);
    for role in [&mut busy, &mut other] {
        role.is_ready(200, "");
        wait_for("nothing to be in flight", || {
            (role.metrics()["citystream_events_in_flight"] == 0.0).then_some(())
        });
        assert_eq!(role.terminate().0, Some(0), "{}", role.err());
    }
    world.tables_are_exact_behind(&proxy);
}
