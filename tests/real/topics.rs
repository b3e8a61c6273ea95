//! Tests of topics that change under the consumers: recreated, grown, cut by retention, written by others.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::log::{self, Record, Transaction};
use crate::role::{Role, Signal, last_words, wait_for};
use crate::tables;
use crate::world::{SOME, World, file_lines};

const GROUP_TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// Returns the same events under their own ids, so that two logs with the same offsets have distinct events in the
/// same windows.
fn named(lines: &[String], prefix: &str) -> Vec<String> {
    let name = |(n, line): (usize, &String)| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        event["event_id"] = json!(format!("{prefix}-{n}"));
        event.to_string()
    };
    lines.iter().enumerate().map(name).collect()
}

/// Returns records of partition 0.
fn records(lines: &[String]) -> Vec<Record> {
    let record = |line: &String| Record {
        value: Some(line.clone().into_bytes()),
        ..Record::default()
    };
    lines.iter().map(record).collect()
}

/// Deletes the topic and recreates it at once.
fn make_again(world: &World) {
    log::delete_topic(world.services, world.name);
    log::make_topic(world.services, world.name, (6, 1), &[]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_topic_recreated_while_no_consumer_ran_is_counted_from_its_beginning() {
    let world = World::new("made-again");
    world.init();
    let lines = file_lines();
    // The second log is shorter than the first, and the third is longer.
    let mut logs = Vec::new();
    for (round, count) in [2_000, 700, 3_000].into_iter().enumerate() {
        if round > 0 {
            make_again(&world);
        }
        world.produce(&named(&lines[..count], &format!("log-{round}")));
        world.consume_to_the_end();
        logs.push(world.log());
        let logs: Vec<&[Record]> = logs.iter().map(Vec::as_slice).collect();
        world.tables_hold(&logs);
    }
    assert_eq!(logs.iter().map(Vec::len).sum::<usize>(), 5_700);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_running_consumer_switches_to_a_recreated_topic() {
    let world = World::new("made-again-running");
    world.init();
    let lines = file_lines();
    let mut consume = world.consume(&[]);
    let begun = |consume: &Role, count: usize| {
        wait_for("partitions to begin", || {
            (consume.err().matches("partition begins").count() >= count).then_some(())
        });
    };
    let (mut logs, mut all) = (Vec::new(), 0);
    for (round, count) in [2_000, 700, 3_000].into_iter().enumerate() {
        if round > 0 {
            make_again(&world);
        }
        // Nothing is promised about records that are sent before the consumer has switched.
        let made = Instant::now();
        begun(&consume, 6 * (round + 1));
        eprintln!("went over in {:?}", made.elapsed());
        world.produce(&named(&lines[..count], &format!("log-{round}")));
        all += count;
        world.has_counted(&mut consume, all);
        logs.push(world.log());
    }
    // The topic is deleted, absent for a while, and recreated.
    log::delete_topic(world.services, world.name);
    consume.is_ready(503, "topic made-again-running");
    log::make_topic(world.services, world.name, (6, 1), &[]);
    begun(&consume, 24);
    world.produce(&named(&lines[..400], "log-3"));
    world.has_counted(&mut consume, all + 400);
    consume.is_ready(200, "");
    logs.push(world.log());
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    let logs: Vec<&[Record]> = logs.iter().map(Vec::as_slice).collect();
    world.tables_hold(&logs);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_consumer_recognizes_a_recreated_topic_of_the_same_length() {
    let world = World::new("made-again-alike");
    world.init();
    let lines = file_lines();
    let mut consume = world.consume(&[]);
    world.produce(&named(&lines[..1_500], "log-0"));
    world.has_counted(&mut consume, 1_500);
    let first = world.log();
    // Every offset is the same as before, so only the topic's id distinguishes the logs.
    consume.signal(Signal::Stop);
    make_again(&world);
    world.produce(&named(&lines[..1_500], "log-1"));
    let second = world.log();
    consume.signal(Signal::Cont);
    let woken = Instant::now();
    let noticed = wait_for("the new log to begin", || {
        (consume.err().matches("partition begins").count() >= 12).then(|| woken.elapsed())
    });
    world.has_counted(&mut consume, 3_000);
    eprintln!("noticed in {noticed:?}, counted in {:?}", woken.elapsed());
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_hold(&[&first, &second]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn partitions_added_under_load_lose_no_event() {
    let world = World::new("grown");
    world
        .start("init-tables", &["--partitions", "3"])
        .ends_with(0);
    let mut members = [world.consume(&[]), world.consume(&[])];
    let produced = world.produce_in_pieces(&file_lines()[..12_000], 40, |piece| {
        if piece == 15 {
            log::grow(world.services, world.name, 6);
        }
    });
    assert_eq!(produced, 12_000);
    world.consume_to_the_end();
    for member in &mut members {
        assert_eq!(member.terminate().0, Some(0), "{}", member.err());
    }
    world.tables_are_exact();
    let ends = (3..6).map(|p| log::range(world.services, world.name, p).1);
    assert!(ends.sum::<i64>() > 0, "the new partitions were never used");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn retention_past_the_committed_offset_stops_with_the_lost_range_or_counts_it() {
    let world = World::new("expired");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..2_000]);
    world.consume_to_the_end();
    let (committed, _) = log::committed(world.services, world.name, world.name, 0);
    let committed = committed.unwrap();
    world.produce(&lines[2_000..6_000]);
    let records = world.log();
    let first = committed + 150;
    log::cut(world.services, world.name, 0, first);

    let mut consume = world.consume(&[]);
    consume.ends_with(2);
    let err = consume.err();
    let told = last_words(&err);
    for words in [
        "partition 0",
        &format!("records {committed} to {first} (exclusive)"),
        "150 records",
        "--on-data-loss continue",
    ] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    let mut consume = world.consume(&["--on-data-loss", "continue"]);
    let metrics = wait_for("the remaining events to be counted", || {
        (world.events_counted() == 6_000 - 150).then(|| consume.metrics())
    });
    assert_eq!(metrics["citystream_records_lost_total"], 150.0);
    let line = wait_for("the line about the loss", || {
        let err = consume.err();
        err.lines()
            .find(|l| l.contains("records are lost"))
            .map(str::to_owned)
    });
    assert!(line.contains("150") && line.contains("ERROR"), "{line}");
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    let kept: Vec<Record> = records
        .into_iter()
        .filter(|r| r.partition != 0 || !(committed..first).contains(&r.offset))
        .collect();
    world.tables_hold(&[&kept]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn retention_past_a_running_consumer_stops_it_with_the_lost_range() {
    let world = World::new("expired-running");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..2_000]);
    let mut consume = world.consume(&[]);
    wait_for("all to be counted", || {
        (world.events_counted() == 2_000).then_some(())
    });
    let position = log::range(world.services, world.name, 0).1;
    wait_for("all to be committed", || {
        let (next, _) = log::committed(world.services, world.name, world.name, 0);
        (next == Some(position)).then_some(())
    });
    // This is what a member finds that was frozen for a day.
    consume.signal(Signal::Stop);
    world.produce(&lines[2_000..4_000]);
    log::cut(world.services, world.name, 0, position + 100);
    consume.signal(Signal::Cont);
    consume.ends_with(2);
    let err = consume.err();
    let told = last_words(&err);
    let words = format!("records {position} to {} (exclusive)", position + 100);
    assert!(told.contains(&words), "{words} is not in {told}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn kafkas_reset_tool_is_detected_and_the_remedy_works() {
    let world = World::new("reset-tool");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..3_000]);
    world.consume_to_the_end();
    let group = ["--group", world.name, "--topic", world.name];
    let reset = ["--reset-offsets", "--shift-by", "-100", "--execute"];
    world
        .services
        .tool(GROUP_TOOL, &[&group[..], &reset].concat());
    world.produce(&lines[3_000..4_000]);
    let mut consume = world.consume(&[]);
    consume.ends_with(2);
    let err = consume.err();
    let told = last_words(&err);
    let remedy = format!(
        "kafka-consumer-groups --delete-offsets --group {} --topic {}",
        world.name, world.name
    );
    assert!(told.contains(&remedy), "{told}");
    // Runs the command that the message gives.
    world
        .services
        .tool(GROUP_TOOL, &[&["--delete-offsets"][..], &group].concat());
    let mut consume = world.consume(&[]);
    wait_for("all to be counted", || {
        (world.events_counted() == 4_000).then_some(())
    });
    let err = consume.err();
    let progress = tables::progress(world.services, world.name);
    assert!(err.contains("partition begins"), "{err}");
    assert_eq!(progress.len(), 6);
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn records_read_again_after_a_crash_are_counted_as_already_counted() {
    let world = World::new("read-again");
    world.init();
    world.produce_file();
    let mut consume = world.consume(&[]);
    consume.has_settled(SOME);
    consume.kill();
    let mut consume = world.consume(&[]);
    let already = wait_for("all to be counted, some of it before", || {
        let metrics = consume.metrics();
        let done = metrics.get("citystream_consumer_lag_records") == Some(&0.0)
            && metrics["citystream_events_in_flight"] == 0.0
            && metrics["citystream_events_consumed_total"] > 0.0;
        done.then(|| metrics["citystream_events_already_counted_total"])
    });
    assert!(
        already > 0.0,
        "a killed consumer has counted more than it committed"
    );
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn control_records_at_the_end_of_a_log_are_no_lag() {
    let world = World::new("control-records");
    world.init();
    let records = records(&file_lines()[..50]);
    Transaction::begin(world.services, world.name, world.name, &records).commit();
    assert_eq!(log::range(world.services, world.name, 0), (0, 51));
    let mut consume = world.consume(&[]);
    wait_for("the lag to be 0 and the end committed", || {
        let lag = consume.metrics().get("citystream_consumer_lag_records") == Some(&0.0);
        let (next, _) = log::committed(world.services, world.name, world.name, 0);
        (lag && next == Some(51)).then_some(())
    });
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    log::delete_group(world.services, world.name);
    world.consume_to_the_end();
    world.tables_are_exact();
}

/// Overlapping transactions make the log longer than its readable part. The consumer must not pass over a record that
/// is committed later.
#[test]
#[ignore = "needs scripts/test-real"]
fn records_of_open_transactions_are_waited_for() {
    let world = World::new("open-transactions");
    world.init();
    let lines = file_lines();
    let begin = |id: usize, from: usize| {
        let id = format!("{}-{id}", world.name);
        let records = records(&lines[from..from + 10]);
        Transaction::begin(world.services, &id, world.name, &records)
    };
    let send = |from: usize| {
        log::send(
            world.services,
            world.name,
            &records(&lines[from..from + 10]),
        );
    };
    send(0);
    let first = begin(1, 10);
    let second = begin(2, 20);
    send(30);
    second.commit();
    let third = begin(3, 40);
    let mut consume = world.consume(&[]);
    consume.has_settled(10.0);
    // The consumer looks at the ends of the log every second.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(consume.metrics()["citystream_events_consumed_total"], 10.0);
    first.commit();
    consume.has_settled(40.0);
    third.abort();
    let (_, end) = log::range(world.services, world.name, 0);
    assert_eq!(end, 53);
    wait_for("the lag to be 0 and the end committed", || {
        let lag = consume.metrics().get("citystream_consumer_lag_records") == Some(&0.0);
        let (next, _) = log::committed(world.services, world.name, world.name, 0);
        (lag && next == Some(end)).then_some(())
    });
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_topic_with_the_producers_time_is_named_once_and_its_records_counted() {
    let world = World::new("producer-time");
    let config = [("message.timestamp.type", "CreateTime")];
    log::make_topic(world.services, world.name, (6, 1), &config);
    world.init();
    world.produce(&file_lines()[..500]);
    let mut consume = world.consume(&[]);
    consume.has_settled(500.0);
    world.produce(&named(&file_lines()[500..700], "more"));
    consume.has_settled(700.0);
    let metrics = consume.metrics();
    assert_eq!(metrics["citystream_events_producer_time_total"], 700.0);
    let err = consume.err();
    assert_eq!(
        err.matches("message.timestamp.type=LogAppendTime").count(),
        1,
        "{err}"
    );
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn gaps_left_by_transactions_are_confirmed_and_passed() {
    let world = World::new("transaction-gaps");
    world.init();
    let lines = file_lines();
    let mut consume = world.consume(&[]);
    consume.is_ready(200, "");
    // Each transaction leaves a control record. Every second one is rolled back.
    for n in 0..20 {
        let records = records(&lines[n * 10..n * 10 + 10]);
        let transaction = Transaction::begin(world.services, world.name, world.name, &records);
        if n % 2 == 0 {
            transaction.commit();
        } else {
            transaction.abort();
        }
    }
    world.has_counted(&mut consume, 100);
    let gaps = consume.metrics()["citystream_read_gaps_total"];
    assert!(gaps >= 9.0, "{gaps}");
    assert!(!consume.err().contains("skipped"), "{}", consume.err());
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world.consume_to_the_end();
    world.tables_are_exact();
    world.start("verify", &[]).ends_with(0);
    let mut tail = world.start(
        "tail",
        &["--from", "beginning", "--exit-at-end", "--output", "json"],
    );
    tail.ends_with(0);
    assert_eq!(tail.out().lines().count(), 100);
}
