//! Tests of group membership: endless rebalances, members with a fixed name, groups that the broker leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::Offset;

use crate::role::{Role, Signal, wait_for};
use crate::services::{kafka_version, knows_new_protocol};
use crate::world::{World, file_lines};

const PARTITIONS: i32 = 6;
/// Each visit is a join and a leave. `REBALANCES=200` is the long form.
const VISITS: usize = 8;

fn visits() -> usize {
    let rebalances = std::env::var("REBALANCES").ok();
    rebalances.map_or(VISITS, |text| text.parse::<usize>().unwrap().div_ceil(2))
}

fn group_client(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", world.services.brokers())
        .set("group.id", world.name)
        .set("enable.auto.commit", "false");
    config
}

/// Returns the group's committed offset of each partition, and 0 where it has none.
fn committed(asker: &BaseConsumer, topic: &str) -> Vec<i64> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition(topic, partition);
    }
    let list = wait_for("the group's offsets", || {
        asker
            .committed_offsets(list.clone(), Duration::from_secs(10))
            .ok()
    });
    let offset = |e: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match e.offset() {
        Offset::Offset(offset) => offset,
        _ => 0,
    };
    list.elements().into_iter().map(offset).collect()
}

/// Joins the group, gets partitions, reads nothing, and leaves.
fn visit(world: &World, protocol: &[(&str, &str)]) {
    let mut config = group_client(world);
    for (name, value) in protocol {
        config.set(*name, *value);
    }
    let visitor: BaseConsumer = config.create().unwrap();
    visitor.subscribe(&[world.name]).unwrap();
    wait_for("a visitor to own partitions", || {
        let _record = visitor.poll(Duration::from_millis(50));
        (visitor.assignment().unwrap().count() > 0).then_some(())
    });
}

/// Two members work under load while visitors come and go. After each visit, every partition must move.
fn every_partition_keeps_moving(world: &World, more: &[&str], protocol: &[(&str, &str)]) {
    world.init();
    let members = [world.start("consume", more), world.start("consume", more)];
    // DynamoDB Local keeps up with this rate on a busy machine. Heartbeats reach every partition, whatever the
    // cities.
    let rate = ["--rate", "50/s", "--heartbeat", "500ms"];
    let mut produce = world.start("produce", &rate);
    let asker: BaseConsumer = group_client(world).create().unwrap();
    let begin = Instant::now();
    for n in 0..visits() {
        let before = committed(&asker, world.name);
        visit(world, protocol);
        let mut now = Vec::new();
        wait_for("every partition to move", || {
            now = committed(&asker, world.name);
            let moved = now.iter().zip(&before).all(|(now, before)| now > before);
            moved.then_some(())
        });
        if n % 25 == 24 {
            eprintln!("{} rebalances, {:.0?}", 2 * (n + 1), begin.elapsed());
        }
    }
    assert_eq!(produce.terminate().0, Some(0), "{}", produce.err());
    for mut member in members {
        assert!(!member.has_ended(), "{}", member.err());
        assert_eq!(member.terminate().0, Some(0), "{}", member.err());
    }
    let stop = [more, &["--stop-at-end"]].concat();
    world.start("consume", &stop).ends_with(0);
    world.tables_are_exact();
    eprintln!("{}: {} rebalances", world.name, 2 * visits());
}

#[test]
#[ignore = "needs scripts/test-real"]
fn endless_rebalances_under_load_stop_no_partition_and_lose_no_event() {
    let world = World::new("rebalances");
    let classic = [
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", "10000"),
    ];
    every_partition_keeps_moving(&world, &[], &classic);
}

/// Returns the lists of partitions in a member's log, as `(event, partitions)`.
pub(crate) fn assignments(member: &Role) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for line in member.err().lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let message = line["message"].as_str().unwrap_or_default();
        if let Some(what) = message.strip_prefix("partitions ") {
            let partitions = line["partitions"].as_str().unwrap_or_default();
            out.push((what.to_owned(), partitions.to_owned()));
        }
    }
    out
}

/// Returns what a member owns according to its log.
fn owned(member: &Role) -> Vec<i32> {
    let mut owned: BTreeMap<i32, ()> = BTreeMap::new();
    for (what, partitions) in assignments(member) {
        for partition in partitions.split(',').filter(|text| !text.is_empty()) {
            let partition: i32 = partition.trim().parse().unwrap();
            if what == "assigned" {
                owned.insert(partition, ());
            } else {
                owned.remove(&partition);
            }
        }
    }
    owned.into_keys().collect()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_member_with_a_fixed_name_returns_to_its_partitions_and_ends_when_its_name_is_taken() {
    let world = World::new("fixed-names");
    world.init();
    let member = |id: &str| {
        let slow = "session.timeout.ms=30000";
        world.start(
            "consume",
            &["--group-instance-id", id, "--kafka-property", slow],
        )
    };
    let (mut a, mut b) = (member("host-a"), member("host-b"));
    wait_for("both to own three partitions", || {
        (owned(&a).len() == 3 && owned(&b).len() == 3).then_some(())
    });
    a.is_ready(200, "");
    b.is_ready(200, "");
    let lines = &file_lines()[..2_000];
    world.produce(&lines[..1_000]);
    let (of_a, told_b) = (owned(&a), assignments(&b));
    // A clean stop, then a kill. The member returns within the session in both cases.
    for signal in [Signal::Term, Signal::Kill] {
        a.signal(signal);
        a.end();
        a = member("host-a");
        wait_for("the partitions to be back", || {
            (owned(&a) == of_a).then_some(())
        });
        a.is_ready(200, "");
    }
    assert_eq!(assignments(&b), told_b, "a restart moves no partition");
    world.produce(&lines[1_000..]);
    // A second member with the same name starts. The first one ends with one message, and systemd does not restart
    // it.
    let mut double = member("host-a");
    a.ends_with(2);
    let err = a.err();
    let told: Vec<&str> = err
        .lines()
        .filter(|l| l.contains("--group-instance-id"))
        .collect();
    assert_eq!(told.len(), 1, "{err}");
    assert!(told[0].starts_with("citystream: "), "{err}");
    double.is_ready(200, "");
    for role in [&mut double, &mut b] {
        assert_eq!(role.terminate().0, Some(0), "{}", role.err());
    }
    world
        .start(
            "consume",
            &["--stop-at-end", "--group-instance-id", "host-a"],
        )
        .ends_with(0);
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn kip_848_the_broker_leads_the_group() {
    if !knows_new_protocol() {
        return;
    }
    let world = World::new("kip-848");
    let new = ["--group-protocol", "consumer"];
    every_partition_keeps_moving(&world, &new, &[("group.protocol", "consumer")]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn kip_848_the_work_of_a_killed_member_is_taken_over_exactly() {
    if !knows_new_protocol() {
        return;
    }
    let world = World::new("kip-848-killed");
    world.init();
    let start = || world.start("consume", &["--group-protocol", "consumer"]);
    let (mut a, mut b) = (start(), start());
    wait_for("both to own three partitions", || {
        (owned(&a).len() == 3 && owned(&b).len() == 3).then_some(())
    });
    a.is_ready(200, "");
    b.is_ready(200, "");
    world.produce(&file_lines()[..6_000]);
    wait_for("one to settle records", || {
        (a.settled() + b.settled() >= 500.0).then_some(())
    });
    a.kill();
    wait_for("the other to own all", || {
        (owned(&b).len() == 6).then_some(())
    });
    world.is_caught_up(std::slice::from_mut(&mut b));
    assert_eq!(b.terminate().0, Some(0), "{}", b.err());
    world.tables_are_exact();
}

/// Starts a consumer whose group settings the brokers refuse. It must end within ten seconds with the reason.
fn is_refused(world: &World, settings: &[&str], why: &str) {
    let begin = Instant::now();
    let mut member = world.start("consume", settings);
    member.ends_with(2);
    assert!(begin.elapsed() < Duration::from_secs(10), "{settings:?}");
    let err = member.err();
    assert!(
        err.contains("citystream: Kafka refuses this member"),
        "{err}"
    );
    assert!(err.contains(why), "{err}");
    assert!(err.lines().count() < 50, "{err}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn group_settings_that_the_brokers_refuse_end_members_within_ten_seconds() {
    let world = World::new("refused-members");
    world.init();
    let short = [
        "--kafka-property",
        "session.timeout.ms=500",
        "--kafka-property",
        "heartbeat.interval.ms=100",
    ];
    is_refused(&world, &short, "group.min.session.timeout.ms");
    is_refused(
        &world,
        &[&short[..], &["--stop-at-end"]].concat(),
        "group.min.session.timeout.ms",
    );
    // A member with another assignment strategy holds the group.
    let mut config = group_client(&world);
    config.set("partition.assignment.strategy", "range");
    let visitor: BaseConsumer = config.create().unwrap();
    visitor.subscribe(&[world.name]).unwrap();
    wait_for("a visitor to own partitions", || {
        let _record = visitor.poll(Duration::from_millis(50));
        (visitor.assignment().unwrap().count() > 0).then_some(())
    });
    is_refused(&world, &[], "another --group");
    drop(visitor);
    let new = ["--group-protocol", "consumer"];
    if kafka_version().starts_with('3') {
        is_refused(&world, &new, "--group-protocol classic");
        return;
    }
    let unknown = ["--kafka-property", "group.remote.assignor=nobody-knows-it"];
    let settings = [&new[..], &unknown, &["--group", "refused-assignor"]].concat();
    is_refused(&world, &settings, "group.remote.assignor");
}
