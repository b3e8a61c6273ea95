//! Tests of `produce --from-dlq` on links that delay, cut and reorder its requests. It stands on Kafka's transactions,
//! whose protocol assumes that requests arrive in the order in which they are sent.

use std::time::Duration;

use crate::links::{Catch, END_TXN, Links, Mode, TXN_OFFSET_COMMIT, links};
use crate::log::{self, Record};
use crate::role::{Role, wait_for};
use crate::services::three_brokers;
use crate::world::World;

/// More than two transactions.
const LETTERS: usize = 1_100;

/// Writes dead letters that can be repaired: only the ids of their events are wrong.
fn world(name: &'static str) -> World {
    let world = World::on(three_brokers(), name, true);
    world.init();
    let value = r#"{"city":"NYC","event_type":"traffic","severity":"low","timestamp":"2013-01-01T06:00:00Z","event_id":""}"#;
    let bad = |n: usize| Record {
        partition: i32::try_from(n % 6).unwrap(),
        value: Some(value.as_bytes().to_vec()),
        ..Record::default()
    };
    world.send(&(0..LETTERS).map(bad).collect::<Vec<_>>());
    world.consume_to_the_end();
    world
}

fn resend(world: &World, links: &Links) -> Role {
    let servers = [("KAFKA_BOOTSTRAP_SERVERS", links.servers())];
    world.start_with("produce", &["--from-dlq"], &servers)
}

/// Runs until a run looks at all letters, and expects each event once.
fn every_letter_is_sent_once(world: &World, links: &Links) {
    let runs = wait_for("a run to end well", || {
        let mut role = resend(world, links);
        (role.end() == Some(0)).then(|| role.err())
    });
    eprintln!("{runs}");
    let mut tail = world.start(
        "tail",
        &["--from", "beginning", "--exit-at-end", "--output", "json"],
    );
    tail.ends_with(0);
    assert_eq!(tail.out().lines().count(), LETTERS);
    world.consume_to_the_end();
    assert_eq!(world.events_counted(), LETTERS);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_commit_that_arrives_late_ends_no_later_transaction() {
    let (links, world) = (links(), world("late-commit"));
    // The request that ends the first transaction is delayed, so the client sends it again.
    let late = links.catch(END_TXN, Catch::Delay);
    let mut role = resend(&world, links);
    late.is_caught();
    // The second transaction has sent its events, but not yet how far it has read.
    let begun = links.catch(TXN_OFFSET_COMMIT, Catch::Hold);
    begun.is_caught();
    // The first transaction ends in the background, and then the events of the second are accepted.
    std::thread::sleep(Duration::from_secs(5));
    let answer = late.deliver();
    // The answer ends with an error code. 0 means that the second transaction is committed now.
    assert_ne!(
        answer[answer.len() - 2..],
        [0, 0],
        "the late commit is accepted"
    );
    assert!(!role.has_ended(), "{}", role.err());
    role.kill();
    links.set_all(Mode::Cut);
    links.set_all(Mode::Open);
    every_letter_is_sent_once(&world, links);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn dead_letters_are_sent_once_over_slow_and_broken_links_and_through_dying_coordinators() {
    let (links, world) = (links(), world("resend-links"));
    let mut chance = fastrand::Rng::with_seed(29);
    links.set_all(Mode::Slow(Duration::from_millis(200)));
    for mode in [Mode::Cut, Mode::NoRequests, Mode::NoAnswers] {
        let mut role = resend(&world, links);
        std::thread::sleep(Duration::from_millis(chance.u64(1_000..3_000)));
        links.set(chance.usize(1..=3), mode);
        std::thread::sleep(Duration::from_secs(3));
        links.set_all(Mode::Slow(Duration::from_millis(200)));
        std::thread::sleep(Duration::from_millis(chance.u64(..1_000)));
        if !role.has_ended() {
            role.kill();
        }
    }
    let mut role = resend(&world, links);
    let dlq = format!("{}-dlq", world.name);
    let node = log::leader(world.services, &dlq, 0).to_string();
    world.services.broker("kill-broker", &node);
    role.end();
    world.services.broker("start-broker", &node);
    links.set_all(Mode::Open);
    every_letter_is_sent_once(&world, links);
}
