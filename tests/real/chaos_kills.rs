//! Tests of a consumer that is killed again and again: at named points of its work, and anywhere.
//!
//! The proxy in front of DynamoDB kills the process just before it forwards a request, or when the request has taken
//! effect and before the response, or just after the response. The program therefore needs no code for it. The test
//! kills once at each point and a few times anywhere; `CHAOS=long` kills 200 times.

use std::time::Duration;

use crate::chaos::{Feed, is_long};
use crate::faults::Faults;
use crate::proxy::{Point, Proxy, When};
use crate::role::{Role, Signal, wait_for};
use crate::world::World;

/// Kills at a random moment, in the short form.
const ANYWHERE: usize = 6;
/// All kills of the long form.
const LONG: usize = 200;

const fn point(
    name: &'static str,
    (operation, says, says_not): (&'static str, &'static str, &'static str),
    when: When,
) -> Point {
    Point {
        name,
        operation,
        says,
        says_not,
        when,
    }
}

// Each entry: the operation, a text in the request's body, and a text that must be absent from it.
const RAW: (&str, &str, &str) = ("BatchWriteItem", "-raw-events\"", "");
const ALERT: (&str, &str, &str) = ("BatchWriteItem", "-alerts\"", "");
const WINDOW: (&str, &str, &str) = ("UpdateItem", "-aggregations\"", "");
const TOTALS: (&str, &str, &str) = ("UpdateItem", "\"totals#", "");
const PROGRESS_MADE: (&str, &str, &str) = ("UpdateItem", "attribute_not_exists(#n)", "");
const PROGRESS_MOVED: (&str, &str, &str) = ("UpdateItem", "#n < :next", "");

/// The first progress items are created before the first count. The others move after a commit, so "before it moves"
/// means just after a commit.
const POINTS: [Point; 14] = [
    point(
        "before a progress item is made",
        PROGRESS_MADE,
        When::Before,
    ),
    point(
        "after a progress item was made",
        PROGRESS_MADE,
        When::Applied,
    ),
    point("before raw events are put", RAW, When::Before),
    point("after raw events were put", RAW, When::Applied),
    point("raw events put and known", RAW, When::Answered),
    point("before alerts are put", ALERT, When::Before),
    point("after alerts were put", ALERT, When::Applied),
    point("before a window is updated", WINDOW, When::Before),
    point("after a window was updated", WINDOW, When::Applied),
    point("a window updated and known", WINDOW, When::Answered),
    point("before a total is updated", TOTALS, When::Before),
    point("after a total was updated", TOTALS, When::Applied),
    point(
        "after a commit, before progress moves",
        PROGRESS_MOVED,
        When::Before,
    ),
    point("after progress moved", PROGRESS_MOVED, When::Applied),
];

/// Waits until the proxy or `signal` has ended the process.
fn died(mut role: Role) {
    assert_eq!(role.end(), None, "it ended by itself\n{}", role.err());
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_killed_at_every_named_point_and_anywhere_counts_each_event_once() {
    let world = World::new("chaos-kills");
    world.init();
    let faults = Faults::new(11, 3);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    let rounds = if is_long() {
        LONG
    } else {
        POINTS.len() + ANYWHERE
    };
    let mut feed = Feed::new(&world, rounds + 1);
    let mut anywhere = fastrand::Rng::with_seed(5);
    let (mut at_points, mut at_random) = (vec![0; POINTS.len()], 0);
    for round in 0..rounds {
        feed.more();
        // A member with a fixed name returns at once, without waiting for the session of the dead one.
        let role = world.consume_through(&proxy, &["--group-instance-id", "a"]);
        // Progress items are created only once. Afterwards the other points and random moments alternate.
        let at = if round < 2 {
            round
        } else {
            2 + (round - 2) % (POINTS.len() - 2 + ANYWHERE)
        };
        match POINTS.get(at) {
            Some(point) => {
                proxy.arm(*point, role.id());
                wait_for(point.name, || proxy.sprung().then_some(()));
                at_points[at] += 1;
            }
            None => {
                std::thread::sleep(Duration::from_millis(anywhere.u64(0..1_500)));
                role.signal(Signal::Kill);
                at_random += 1;
            }
        }
        died(role);
    }
    feed.more();
    world.consume_to_the_end_through(&proxy);
    let expected = world.tables_are_exact_behind(&proxy);
    for (point, kills) in POINTS.iter().zip(&at_points) {
        assert!(*kills > 0, "nothing was killed {}", point.name);
        eprintln!("chaos-kills: {kills} × {}", point.name);
    }
    eprintln!(
        "chaos-kills: {at_random} × anywhere; {rounds} kills, {} events, {} late, {} rejected, faults {:?}; 0 differences",
        expected.valid,
        expected.late,
        expected.rejected.len(),
        faults.seen(),
    );
}
