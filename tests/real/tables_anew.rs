//! Tests of tables that are recreated, restored or created under other rules while the group continues.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::log;
use crate::role::{Role, Signal, last_words, wait_for};
use crate::tables;
use crate::world::{World, file_lines};

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_stops_if_its_tables_are_deleted_and_a_new_one_fills_new_tables() {
    let world = World::new("tables-anew");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..500]);
    let mut consume = world.consume(&[]);
    world.has_counted(&mut consume, 500);

    // While the consumer has records to write, it notices the missing table.
    tables::drop_all(world.services, world.name);
    world.produce(&lines[500..750]);
    stops_with(&mut consume, &["is missing", "citystream init-tables"]);
    world.init();
    world.consume_to_the_end();
    world.tables_are_exact();
    assert_eq!(world.events_counted(), 750);

    // While it has none, no request fails. It notices only by the config item, which it reads regularly.
    let mut consume = world.consume(&[]);
    world.produce(&lines[750..760]);
    world.has_counted(&mut consume, 760);
    tables::drop_all(world.services, world.name);
    world.init();
    // It reads the config item before or after `init-tables` has written it.
    stops_with(&mut consume, &["has stopped writing"]);
    assert_eq!(world.events_counted(), 0, "nothing was written");
    world.produce(&lines[760..900]);
    world.consume_to_the_end();
    world.tables_are_exact();
    assert_eq!(world.events_counted(), 900);
}

/// Waits until the consumer has stopped, and checks what it prints.
fn stops_with(consume: &mut Role, words: &[&str]) {
    consume.ends_with(2);
    let err = consume.err();
    let printed = last_words(&err);
    for word in words {
        assert!(printed.contains(word), "{word} is not in {printed}");
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn tables_deleted_at_any_moment_of_writing_are_filled_exactly_by_the_next_consumer() {
    let world = World::new("tables-again");
    world.init();
    let lines = file_lines();
    for (round, lines_of_round) in lines[..2_000].chunks(500).enumerate() {
        let mut consume = world.consume(&[]);
        assert_eq!(consume.get("/livez").unwrap().0, 200);
        world.produce(&lines_of_round[..400]);
        std::thread::sleep(Duration::from_millis([0, 37, 150, 400][round]));
        tables::drop_all(world.services, world.name);
        world.produce(&lines_of_round[400..]);
        // A consumer that counts stops. One that has not read its restart points yet waits for the tables.
        wait_for("the consumer to stop or to wait", || {
            let waits = consume.get("/readyz").is_some_and(|(code, _)| code == 503);
            (waits || consume.has_ended()).then_some(())
        });
        if !consume.has_ended() {
            consume.signal(Signal::Term);
        }
        world.init();
        world.consume_to_the_end();
        world.tables_are_exact();
        assert_eq!(world.events_counted(), 500 * (round + 1));
    }
}

/// A consumer that slept while tables were recreated must not write its old sums into them.
#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_that_slept_while_tables_were_recreated_writes_nothing_into_them() {
    let world = World::new("tables-slept");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..500]);
    let mut consume = world.consume(&["--row-interval", "20s"]);
    world.has_counted(&mut consume, 500);
    // These sums wait for their rows' interval.
    world.produce(&lines[500..600]);
    wait_for("records to wait", || {
        (consume.metrics()["citystream_events_in_flight"] > 0.0).then_some(())
    });
    consume.signal(Signal::Stop);
    tables::drop_all(world.services, world.name);
    world.init();
    // Sleeps until the rows are due, and long enough that the consumer must read the config item first.
    std::thread::sleep(Duration::from_secs(21));
    consume.signal(Signal::Cont);
    // If Kafka took its partitions first, it begins them again with the new tables. Otherwise it stops.
    wait_for("the consumer to stop or to begin again", || {
        (consume.has_ended() || world.events_counted() == 600).then_some(())
    });
    if consume.has_ended() {
        stops_with(&mut consume, &["has stopped writing"]);
        world.consume_to_the_end();
    }
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn one_missing_table_stops_the_consumer_and_makes_serve_wait() {
    let world = World::new("one-table");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..500]);
    let mut consume = world.consume(&[]);
    let mut serve = world.start("serve", &[]);
    world.has_counted(&mut consume, 500);
    serve.is_ready(200, "");

    tables::drop_one(world.services, "one-table-aggregations");
    world.produce(&lines[500..600]);
    stops_with(&mut consume, &["one-table-aggregations", "is missing"]);
    serve.is_ready(503, "");
    for _ in 0..30 {
        assert_eq!(serve.get("/readyz").unwrap().0, 503, "{}", serve.err());
        assert_eq!(serve.get("/livez").unwrap().0, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    tables::drop_all(world.services, world.name);
    world.init();
    world.consume_to_the_end();
    assert_eq!(world.events_counted(), 600);
    serve.is_ready(200, "");
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn restored_tables_go_on_at_their_progress_items_once_the_groups_offsets_are_deleted() {
    let world = World::new("tables-restored");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..500]);
    world.consume_to_the_end();
    let backup = tables::backup(world.services, world.name);
    world.produce(&lines[500..1_000]);
    world.consume_to_the_end();
    tables::drop_all(world.services, world.name);
    world.init();
    tables::restore(world.services, backup);
    assert_eq!(world.events_counted(), 500);
    log::delete_group(world.services, world.name);
    world.consume_to_the_end();
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn tables_of_other_rules_are_refused_with_both_numbers() {
    let world = World::new("other-rules");
    world.init();
    world.produce(&file_lines()[..100]);
    let other = AttributeValue::N("99".to_owned());
    tables::set_config(world.services, world.name, "rules", other);
    let mut consume = world.consume(&[]);
    consume.ends_with(2);
    let err = consume.err();
    let told = last_words(&err);
    for words in ["version 99 of the rules", "has version 1", "--table-prefix"] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    assert_eq!(world.count("totals"), 0, "nothing was counted");
}
