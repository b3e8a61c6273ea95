//! Tests with three brokers, which are stopped or killed one after another and come back.

use crate::services::three_brokers;
use crate::world::{World, file_lines};

#[test]
#[ignore = "needs scripts/test-real"]
fn brokers_that_stop_die_and_return_one_after_another_lose_no_event() {
    let services = three_brokers();
    let world = World::on(services, "three-brokers", true);
    world
        .start("init-tables", &["--replication", "3"])
        .ends_with(0);
    let mut members = [world.consume(&[]), world.consume(&[])];
    let lines = file_lines();
    let mut pieces = lines[..9_000].chunks(1_000);
    let mut send = || world.produce(pieces.next().unwrap());
    send();
    world.is_caught_up(&mut members);
    // Each broker goes once, so that each leader and the group's coordinator move at least once. Two brokers stop,
    // one is killed.
    for (node, how) in [
        ("1", "stop-broker"),
        ("2", "kill-broker"),
        ("3", "stop-broker"),
    ] {
        services.broker(how, node);
        send();
        world.is_caught_up(&mut members);
        services.broker("start-broker", node);
        send();
        world.is_caught_up(&mut members);
    }
    for member in &mut members {
        member.is_ready(200, "");
        assert_eq!(member.get("/livez").unwrap().0, 200);
        let metrics = member.metrics();
        assert_eq!(metrics["citystream_consumer_stalls_total"], 0.0);
        assert_eq!(member.terminate().0, Some(0), "{}", member.err());
    }
    world.tables_are_exact();
}
