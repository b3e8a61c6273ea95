//! Tests of group offsets that another tool changed or deleted.

use crate::faults::Faults;
use crate::log;
use crate::proxy::Proxy;
use crate::role::last_words;
use crate::tables;
use crate::world::{World, file_lines};

#[test]
#[ignore = "needs scripts/test-real"]
fn a_rewound_group_is_refused_with_the_remedy_and_goes_on_exactly_after_it() {
    let world = World::new("rewound");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..2_000]);
    world.consume_to_the_end();
    let (end, metadata) = log::committed(world.services, world.name, world.name, 0);
    let end = end.unwrap();
    let topic_id = tables::config(world.services, world.name)["topic_id"].clone();
    assert!(
        metadata.starts_with(&format!("v1;topic={topic_id};")),
        "{metadata}"
    );
    world.produce(&lines[2_000..4_000]);

    let foreign = [
        "",
        "NO_METADATA",
        "v1;topic",
        "v2;\u{fffd}\u{fffd}ü;max=",
        "{\"a\":1}",
    ];
    for (metadata, offset) in foreign.into_iter().zip([0, 5, 10, 10, 15].map(|n| end - n)) {
        log::reset(
            world.services,
            world.name,
            world.name,
            (0, offset),
            metadata,
        );
        let mut consume = world.consume(&[]);
        consume.ends_with(2);
        let err = consume.err();
        let told = last_words(&err);
        for words in [
            "partition 0",
            &format!("offset {offset} "),
            "--delete-offsets",
            &format!("progress item {topic_id}#0"),
        ] {
            assert!(
                told.contains(words),
                "{metadata:?}: {words} is not in {told}"
            );
        }
    }
    log::delete_group(world.services, world.name);
    world.consume_to_the_end();
    world.tables_are_exact();

    // Offset 0 of a log that begins at 0 is the same as none.
    log::delete_group(world.services, world.name);
    log::reset(world.services, world.name, world.name, (0, 0), "");
    world.consume_to_the_end();
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_group_that_lost_its_offsets_goes_on_at_its_progress_items() {
    let world = World::new("lost-offsets");
    let proxy = Proxy::start(world.services.dynamodb_url(), &Faults::new(101, 0));
    world.init();
    let lines = file_lines();
    for part in lines[..6_000].chunks(2_000) {
        world.produce(part);
        world.consume_to_the_end_through(&proxy);
        let progress = tables::progress(world.services, world.name);
        assert!(
            progress.values().any(|item| item.contains_key("max")),
            "{progress:?}"
        );
        log::delete_group(world.services, world.name);
    }
    let expected = world.tables_are_exact_behind(&proxy);
    assert!(expected.late > 0, "without late events this proves little");
}
