//! Tests of consumers whose Kafka, topic or tables do not exist yet.

use std::net::TcpListener;
use std::time::Duration;

use crate::role::Role;
use crate::world::{World, file_lines};

/// A role ends within 10 s of SIGTERM (docs/OPERATIONS.md). The rest is for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(12);

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_waits_for_its_topic_and_tables_and_reports_it() {
    let world = World::new("not-yet");
    for (args, ends_with) in [(&[][..], 0), (&["--stop-at-end"], 1)] {
        let mut consume = world.consume(args);
        consume.is_ready(503, "waiting for");
        assert_eq!(consume.get("/livez").unwrap().0, 200);
        let (code, took) = consume.terminate();
        assert_eq!(code, Some(ends_with), "{args:?}\n{}", consume.err());
        assert!(took < STOP_MAX, "{args:?} took {took:?}");
    }
    let mut consume = world.consume(&[]);
    consume.is_ready(503, "waiting for");
    world.init();
    consume.is_ready(200, "");
    let lines = &file_lines()[..1_000];
    world.produce(lines);
    consume.has_settled(1_000.0);
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_waits_for_missing_tables_when_the_topic_exists() {
    let world = World::new("no-tables");
    // The topic exists, but only the tables of another prefix.
    world
        .start("init-tables", &["--table-prefix", "no-tables-other"])
        .ends_with(0);
    world.produce(&file_lines()[..100]);
    let mut consume = world.consume(&[]);
    consume.is_ready(503, "table no-tables-totals to exist");
    assert_eq!(consume.get("/livez").unwrap().0, 200);
    world.init();
    consume.has_settled(100.0);
    consume.is_ready(200, "");
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_without_kafka_stays_up_and_ends_on_sigterm() {
    let world = World::new("no-kafka");
    // This port was free a moment ago, so nothing listens there now.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nowhere = format!("{port}");
    let cases: [&[&str]; 2] = [&[], &["--stop-at-end"]];
    let start = |more: &&[&str]| {
        let args = [&["--brokers", &nowhere][..], more].concat();
        world.start("consume", &args)
    };
    let mut roles: Vec<Role> = cases.iter().map(start).collect();
    for (role, ends_with) in roles.iter_mut().zip([0, 1]) {
        role.is_ready(503, "");
        assert_eq!(role.get("/livez").unwrap().0, 200);
        assert!(!role.has_ended());
        let (code, took) = role.terminate();
        assert_eq!(code, Some(ends_with), "{}", role.err());
        assert!(took < STOP_MAX, "took {took:?}");
    }
}
