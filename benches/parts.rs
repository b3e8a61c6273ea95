//! Measures the cost of an event in each part of the consumer, without Kafka, DynamoDB or threads: `cargo bench
//! --bench parts`. `scripts/bench` measures the whole.
#![allow(clippy::expect_used, missing_docs)]

// Only the end-to-end benchmark writes files of events.
#[allow(dead_code)]
#[path = "end_to_end/text.rs"]
mod text;

use std::hint::black_box;

use citystream::core::batch::BatchOutcome;
use citystream::core::clock::{BootMs, SteadyMs, UnixMs};
use citystream::core::event::{Event, Offset, Severity};
use citystream::core::keys::{self, TableNames};
use citystream::core::parse::{Body, parse_event};
use citystream::core::pipeline::{Options, Output, Pipeline, Tables};
use citystream::core::plan::{PutTable, RawRows, RowKey, RowUpdate, StoredEvent, UpdateOutcome};
use citystream::core::restart::{Boundary, StartFacts};
use citystream::core::stall::PATIENCE_MS;
use citystream::core::stretch::{Entry, Stretch};
use citystream::core::window::Rules;
use citystream::core::worker::{Content, Record};
use citystream::store::items::{self, ItemOptions};
use divan::Bencher;
use divan::counter::ItemsCount;
use text::Events;

/// The topic of all events here.
const TOPIC: &str = "city-events";
/// The topic's id.
const TOPIC_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// The time of all events, in Unix milliseconds.
const NOW_MS: i64 = 1_357_020_000_000;
/// Items of one BatchWriteItem.
const BATCH: usize = 25;
/// Records of one pass through the pipeline.
const RECORDS: usize = 2_000;

fn main() {
    divan::main();
}

/// The events of the end-to-end benchmark.
fn values(count: usize) -> Vec<String> {
    let mut events = Events::new(6, 163, NOW_MS, 1_000);
    let mut next = || {
        let mut value = String::new();
        events.next(&mut value);
        value
    };
    (0..count).map(|_| next()).collect()
}

/// Events with their offsets.
fn events(count: usize) -> impl Iterator<Item = (Offset, Event)> {
    let parsed = |value: String| parse_event(value.as_bytes()).expect("a valid event");
    let values = values(count).into_iter().map(parsed);
    (0..).map(Offset).zip(values)
}

fn entries(count: i64) -> Vec<Entry> {
    let one = |n: i64| Entry {
        offset: Offset(n),
        seq: u32::try_from(n).expect("few"),
        severity: Severity::ALL[usize::try_from(n % 4).expect("below 4")],
        late: false,
    };
    (0..count).map(one).collect()
}

fn options() -> ItemOptions {
    ItemOptions {
        shards: 4,
        raw_ttl_ms: 30 * 86_400_000,
        alert_ttl_ms: None,
        window_ms: 300_000,
    }
}

#[divan::bench]
fn parse(bencher: Bencher) {
    let value = values(1).remove(0).into_bytes();
    bencher
        .counter(ItemsCount::new(1usize))
        .bench(|| parse_event(black_box(&value)));
}

/// A row's records from one interval, summed once, and summed again after a fence.
#[divan::bench(args = [1, 40, 1_000])]
fn stretch(bencher: Bencher, records: i64) {
    bencher
        .counter(ItemsCount::new(records.cast_unsigned()))
        .with_inputs(|| entries(records))
        .bench_values(|entries| {
            let stretch = Stretch::new(entries).expect("not empty");
            let sum = stretch.sum();
            (sum, stretch.split_at_fence(Offset(records / 2)))
        });
}

#[divan::bench(args = [PutTable::Raw, PutTable::Alerts])]
fn items(bencher: Bencher, table: PutTable) {
    let names = TableNames::new("citystream");
    let stored = |(offset, event)| StoredEvent::new(event, TOPIC.into(), 3, offset, false, false);
    let events: Vec<StoredEvent> = events(BATCH).map(stored).collect();
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        items::batch_body(
            &names,
            table,
            events.iter(),
            &options(),
            black_box(UnixMs(NOW_MS)),
        )
    });
}

#[divan::bench]
fn update(bencher: Bencher) {
    let names = TableNames::new("citystream");
    let update = RowUpdate {
        partition: 3,
        assignment: 1,
        row_id: 7,
        row: RowKey {
            series: "NYC#traffic".into(),
            window_start_ms: Some(UnixMs(NOW_MS)),
        },
        log_key: keys::log_key(TOPIC_ID, 3).into(),
        first: Offset(1_000),
        next: Offset(2_000),
        sum: Stretch::new(entries(40)).expect("not empty").sum(),
    };
    bencher
        .counter(ItemsCount::new(1usize))
        .bench(|| items::update_body(&names, &update, &options(), black_box(UnixMs(NOW_MS))));
}

/// A pipeline that reads one partition from its start.
fn pipeline(keep: RawRows) -> (Pipeline, u64) {
    let mut pipeline = Pipeline::new(Options {
        topic: TOPIC.into(),
        row_interval_ms: 0,
        continue_on_loss: false,
        requests_max: 64,
        stall_ms: PATIENCE_MS,
    });
    pipeline.assigned(SteadyMs(NOW_MS), &[0]);
    pipeline.pump(SteadyMs(NOW_MS), BootMs(NOW_MS));
    let assignment = loop {
        if let Output::Locate { assignment, .. } = pipeline.poll_output().expect("a question") {
            break assignment;
        }
    };
    let begin = Boundary::begin(Offset(0));
    let facts = StartFacts {
        progress: Some(begin),
        topic_id: TOPIC_ID.to_owned(),
        tables_id: "tables".to_owned(),
        tables_read_ms: BootMs(NOW_MS),
        commit: None,
        log: (Offset(0), Offset(i64::MAX)),
        replaced_from: None,
    };
    let tables = Tables {
        rules: Rules::default(),
        keep,
    };
    pipeline.located(SteadyMs(NOW_MS), 0, assignment, &facts, &tables);
    (pipeline, assignment)
}

fn records() -> Vec<Record> {
    let one = |(offset, event): (Offset, Event)| Record {
        offset,
        timestamp_ms: Some(event.time_ms),
        bytes: 163,
        content: Content::Valid(Body::Event(event)),
    };
    events(RECORDS).map(one).collect()
}

/// Everything between a parsed record and its commit: judging, batching, putting, counting, settling. Responses come
/// at once.
#[divan::bench(args = [RawRows::All, RawRows::None])]
fn whole(bencher: Bencher, keep: RawRows) {
    bencher
        .counter(ItemsCount::new(RECORDS))
        .with_inputs(|| (pipeline(keep), records()))
        .bench_values(|((mut pipeline, assignment), records)| {
            let mut now_ms = SteadyMs(NOW_MS);
            pipeline.records(now_ms, 0, assignment, records);
            while pipeline.in_flight() > 0 {
                now_ms += 10;
                // The tables' identity stays trusted, because its clock stands still.
                pipeline.pump(now_ms, BootMs(NOW_MS));
                while let Some(output) = pipeline.poll_output() {
                    answer(&mut pipeline, now_ms, output);
                }
            }
            pipeline
        });
}

fn answer(pipeline: &mut Pipeline, now_ms: SteadyMs, output: Output) {
    match output {
        Output::Put(batch) => {
            let outcome = BatchOutcome::Stored {
                unprocessed: Vec::new(),
            };
            pipeline.batch_answered(now_ms, batch, &outcome, 0);
        }
        Output::Update(update) => {
            pipeline.update_answered(now_ms, &update, UpdateOutcome::Counted, 0);
        }
        Output::Commit(_) => pipeline.commit_done(now_ms, true),
        Output::CheckTopic => pipeline.topic_checked(now_ms, Some(TOPIC_ID)),
        _ => {}
    }
}
