//! SIGTERM while there is work, with DynamoDB there and not.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::role::{Signal, binary, last_words};
use crate::world::{SOME, World, file_lines};

/// 10 s by the contract's section 5; the rest is a busy machine's.
const STOP_MAX: Duration = Duration::from_secs(12);

#[test]
#[ignore = "needs scripts/test-real"]
fn sigterm_under_load_ends_in_time_and_the_next_start_finishes_the_work() {
    let world = World::new("stopped");
    world.init();
    let lines = file_lines();
    // What was fetched is drained, which can be all there is: so each round has records of its own, and
    // no more than a busy machine's table takes within the drain's seven seconds.
    for part in lines.chunks(5_000).take(3) {
        world.produce(part);
        let mut consume = world.consume(&[]);
        consume.has_settled(SOME);
        let (code, took) = consume.terminate();
        assert_eq!(code, Some(0), "{}", consume.err());
        assert!(took < STOP_MAX, "took {took:?}");
    }
    world.consume_to_the_end();
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn sigterm_with_a_dead_sink_reports_how_many_records_are_not_durable() {
    let world = World::alone("dead-sink");
    world.init();
    world.produce_file();
    let mut consume = world.consume(&[]);
    consume.has_settled(SOME);
    let paused = world.services.pause_dynamodb();
    let (code, took) = consume.terminate();
    assert_eq!(code, Some(1), "{}", consume.err());
    assert!(took < STOP_MAX, "took {took:?}");
    let err = consume.err();
    let told = last_words(&err);
    let count = told.split(' ').find_map(|word| word.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count > 0), "{told}");
    assert!(told.contains("not yet durable"), "{told}");
    drop(paused);

    // One that is killed while its sink is dead, and one that outlives that.
    let mut consume = world.consume(&[]);
    consume.has_settled(SOME);
    let paused = world.services.pause_dynamodb();
    consume.signal(Signal::Kill);
    assert_eq!(consume.end(), None);
    drop(paused);
    world.consume_to_the_end();
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_finite_run_on_a_terminal_reports_the_number_of_records() {
    let world = World::new("finite");
    world.init();
    world.produce(&file_lines()[..3_000]);
    let line = format!(
        "{} consume --stop-at-end --listen 127.0.0.1:0 --topic finite --table-prefix finite --group finite",
        binary().display()
    );
    // It gives the program a terminal of its own.
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .envs(world.services.exports())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains("citystream: read 3,000 records to the end in "),
        "{shown}"
    );
    assert_eq!(world.events_counted(), 3_000);
}
