//! Tests of SIGTERM under load, with and without DynamoDB.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::role::{Signal, binary, last_words};
use crate::world::{SOME, World, file_lines};

/// A role ends within 10 s (docs/OPERATIONS.md). The rest is for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(12);

#[test]
#[ignore = "needs scripts/test-real"]
fn sigterm_under_load_ends_in_time_and_the_next_start_finishes_the_work() {
    let world = World::new("stopped");
    world.init();
    let lines = file_lines();
    // The drain writes everything that was fetched, which may be everything there is. So each round has its own
    // records, and no more than the tables of a busy machine take in the seven seconds of the drain.
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
    let world = World::disturbing("dead-sink");
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

    // One consumer is killed while its sink is dead. The other one survives that.
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
    // `script` gives the program a terminal.
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
