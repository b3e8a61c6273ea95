//! Tests with the whole file of real events through separate roles, undisturbed and killed.

use serde_json::{Value, json};

use crate::log;
use crate::role::Role;
use crate::tables;
use crate::world::{FILE_EVENTS, SOME, World, file_lines};

fn stats(serve: &mut Role) -> Value {
    let (status, body) = serve.get("/api/v1/stats").unwrap();
    assert_eq!(status, 200, "{body}");
    let mut stats: Value = serde_json::from_str(&body).unwrap();
    stats
        .as_object_mut()
        .unwrap()
        .remove("generated_at")
        .unwrap();
    stats
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_whole_file_gives_the_rows_of_the_fold_however_often_it_is_counted() {
    let world = World::new("whole-file");
    world.init();
    world.produce_file();
    world.consume_to_the_end();
    let expected = world.tables_are_exact();
    assert_eq!((expected.valid, expected.late), (FILE_EVENTS, 609));
    assert_eq!(expected.sum("totals", "severity_high"), 2_025);
    assert_eq!(expected.sum("totals", "severity_critical"), 780);
    assert_eq!(world.count("aggregations"), 11_824);
    assert_eq!(world.count("raw-events"), 33_960);
    assert_eq!(world.count("alerts"), 2_805);
    let mut verify = world.start("verify", &[]);
    verify.ends_with(0);
    let agreed = "compared 33,960 raw events, 2,805 alerts, 11,824 windows, ";
    assert!(verify.out().contains(agreed), "{}", verify.out());
    let last = "\nlog 33,960 = tables 33,960, difference 0\n";
    assert!(verify.out().ends_with(last), "{}", verify.out());

    let mut serve = world.start("serve", &[]);
    serve.is_ready(200, "");
    let told = json!({
        "total_events_processed": 33_960, "high_severity_alerts": 2_025,
        "critical_alerts": 780, "late_events": 609,
    });
    assert_eq!(stats(&mut serve), told);
    let (_, body) = serve.get("/api/v1/cities").unwrap();
    let cities: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        cities["cities"][0],
        json!({"city": "NYC", "total_events": 29_230})
    );
    assert_eq!(serve.terminate().0, Some(0));

    // A second group continues at the progress items of the tables.
    world
        .consume(&["--group", "whole-file-second", "--stop-at-end"])
        .ends_with(0);
    world.tables_are_exact();

    // Without offsets and progress items, the consumer reads everything again, and the rows refuse all of it.
    log::delete_group(world.services, world.name);
    tables::delete_progress(world.services, world.name);
    let mut again = world.consume(&[]);
    again.has_settled(FILE_EVENTS as f64);
    let metrics = again.metrics();
    assert_eq!(
        metrics["citystream_events_already_counted_total"],
        FILE_EVENTS as f64
    );
    assert_eq!(again.terminate().0, Some(0), "{}", again.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_killed_half_way_again_and_again_counts_each_event_once() {
    let world = World::new("killed");
    world.init();
    let lines = file_lines();
    let members = [
        &["--group-instance-id", "a"][..],
        &["--group-instance-id", "a"],
        &[],
        &[],
    ];
    let (mut sent, mut killed_half_way) = (0, 0);
    // Each consumer finds its own records and those that its predecessors left. A member with a fixed name returns at
    // once; the others wait until the group has removed the dead one.
    for (part, args) in lines.chunks(lines.len() / members.len()).zip(members) {
        world.produce(part);
        sent += part.len();
        let mut consume = world.consume(args);
        consume.has_settled(SOME / 2.0);
        consume.kill();
        killed_half_way += usize::from(world.events_counted() < sent);
    }
    assert!(
        killed_half_way > 0,
        "each had counted all when it was killed"
    );
    world.consume_to_the_end();
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_file_is_partitioned_as_by_java_clients_and_tail_shows_all_of_it() {
    let world = World::new("partitions");
    world.init();
    world.produce_file();
    let mut tail = world.start(
        "tail",
        &["--from", "beginning", "--exit-at-end", "--output", "json"],
    );
    tail.ends_with(0);
    let out = tail.out();
    assert_eq!(out.lines().count(), 33_960);
    assert_eq!(tail.err(), "");
    let mut counts = [0; 6];
    for line in out.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        counts[usize::try_from(event["partition"].as_u64().unwrap()).unwrap()] += 1;
    }
    assert_eq!(counts, [29_230, 1_404, 0, 0, 885, 2_441]);
}
