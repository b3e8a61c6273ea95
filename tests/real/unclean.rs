//! Tests of a topic that allows unclean leader elections: the new leader lacks records that the consumer has read.

use crate::log::{self, Record};
use crate::role::{Role, Signal, last_words, wait_for};
use crate::services::three_brokers;
use crate::world::{World, file_lines};

/// The broker that leads the partition first, and the one that follows it.
const NODES: [i32; 2] = [1, 2];
const TOPIC: [(&str, &str); 2] = [
    ("unclean.leader.election.enable", "true"),
    ("min.insync.replicas", "1"),
];
/// Events that both brokers have.
const BOTH: usize = 1_000;
/// Events that only the first leader has.
const LOST: usize = 300;

/// A world whose topic has one partition on two brokers.
fn world(name: &'static str) -> World {
    let world = World::on(three_brokers(), name, true);
    log::make_topic_on(world.services, name, &NODES, &TOPIC);
    world.init();
    world
}

/// Waits until all events of the log are counted and committed.
fn is_committed(world: &World, consume: &mut Role) {
    let end = log::range(world.services, world.name, 0).1;
    wait_for("the end of the log to be committed", || {
        assert!(!consume.has_ended(), "{}", consume.err());
        let (next, _) = log::committed(world.services, world.name, world.name, 0);
        (next == Some(end)).then_some(())
    });
}

/// Sends events, of which the last ones reach the leader alone. Returns the log.
fn only_the_leader_has_the_last(
    world: &World,
    lines: &[String],
    consume: &mut Role,
) -> Vec<Record> {
    let [first, second] = NODES.map(|node| node.to_string());
    world.produce(&lines[..BOTH]);
    log::in_sync(world.services, world.name, 0, &NODES);
    world.services.broker("kill-broker", &second);
    log::in_sync(world.services, world.name, 0, &NODES[..1]);
    world.produce(&lines[BOTH..BOTH + LOST]);
    is_committed(world, consume);
    let before = world.log();
    assert_eq!(before.len(), BOTH + LOST);
    world.services.broker("kill-broker", &first);
    before
}

/// Lets the follower return, which becomes the leader.
fn the_follower_leads(world: &World) {
    world.services.broker("start-broker", &NODES[1].to_string());
    log::in_sync(world.services, world.name, 0, &NODES[1..]);
}

fn names_the_lost_range(consume: &mut Role, why: &str) {
    consume.ends_with(2);
    let err = consume.err();
    let told = last_words(&err);
    for words in [
        "partition 0".to_owned(),
        why.to_owned(),
        format!("records {BOTH} to {} (exclusive)", BOTH + LOST),
        "--on-data-loss continue".to_owned(),
    ] {
        assert!(told.contains(&words), "{words} is not in {told}");
    }
}

/// Starts a consumer that continues after the loss, sends it `lines`, and compares the tables with what it must count:
/// the records of `before`, and the log's records from the committed offset on.
fn continues_after_the_loss(world: &World, before: Vec<Record>, lines: &[String]) {
    let mut consume = world.consume(&["--on-data-loss", "continue"]);
    wait_for("the line about the loss", || {
        let err = consume.err();
        let mut lines = err.lines();
        lines
            .any(|l| l.contains("records are lost") && l.contains("ERROR"))
            .then_some(())
    });
    world.produce(lines);
    is_committed(world, &mut consume);
    let lost = consume.metrics()["citystream_records_lost_total"];
    assert_eq!(lost, LOST as f64);
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    let end = i64::try_from(BOTH + LOST).unwrap();
    let after = world.log().into_iter().filter(|r| r.offset >= end);
    let counted: Vec<Record> = before.into_iter().chain(after).collect();
    world.tables_hold(&[&counted]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_unclean_leader_that_lacks_counted_records_stops_the_consumer_with_the_lost_range() {
    let (world, lines) = (world("unclean"), file_lines());
    let mut consume = world.consume(&[]);
    let before = only_the_leader_has_the_last(&world, &lines, &mut consume);
    the_follower_leads(&world);
    let why = format!("the log ends at {BOTH}");
    names_the_lost_range(&mut consume, &why);
    // A consumer that starts then says the same.
    names_the_lost_range(&mut world.consume(&[]), &why);
    world.tables_hold(&[&before]);
    let mut verify = world.start("verify", &[]);
    assert_ne!(verify.end(), Some(0), "{}", verify.out());

    world.services.broker("start-broker", &NODES[0].to_string());
    log::in_sync(world.services, world.name, 0, &NODES);
    // The lost range is counted as lost, and new records after it are counted exactly.
    continues_after_the_loss(&world, before, &lines[BOTH + LOST..2 * (BOTH + LOST)]);
}

/// Lets the follower lead, and sends so many events that the log is longer than what the consumer has committed.
fn the_log_grows_past_the_commit(world: &World, lines: &[String]) {
    the_follower_leads(world);
    world.produce(&lines[BOTH + LOST..BOTH + 3 * LOST]);
    let (_, end) = log::range(world.services, world.name, 0);
    assert_eq!(end, i64::try_from(BOTH + 2 * LOST).unwrap());
}

const REPLACED: &str = "gave their offsets to other records";

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_that_starts_notices_other_records_below_its_commit() {
    let (world, lines) = (world("replaced"), file_lines());
    let mut consume = world.consume(&[]);
    let before = only_the_leader_has_the_last(&world, &lines, &mut consume);
    consume.signal(Signal::Term);
    the_log_grows_past_the_commit(&world, &lines);
    consume.ends_with(0);
    names_the_lost_range(&mut world.consume(&[]), REPLACED);
    world.tables_hold(&[&before]);
    continues_after_the_loss(&world, before, &lines[BOTH + 3 * LOST..2 * BOTH]);
    // The commits of the new records have the new leader's epoch, so the next start finds nothing.
    world.consume_to_the_end();
    world.services.broker("start-broker", &NODES[0].to_string());
    log::in_sync(world.services, world.name, 0, &NODES);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_running_consumer_notices_other_records_below_its_position() {
    let (world, lines) = (world("replaced-live"), file_lines());
    let mut consume = world.consume(&[]);
    let before = only_the_leader_has_the_last(&world, &lines, &mut consume);
    // While the consumer is frozen, it cannot see that the log is shorter for a while.
    consume.signal(Signal::Stop);
    the_log_grows_past_the_commit(&world, &lines);
    consume.signal(Signal::Cont);
    names_the_lost_range(&mut consume, REPLACED);
    world.tables_hold(&[&before]);
    world.services.broker("start-broker", &NODES[0].to_string());
    log::in_sync(world.services, world.name, 0, &NODES);
}
