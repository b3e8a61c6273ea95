//! `init-tables` on the real services: again, and beside tables it did not make.

use crate::tables;
use crate::world::World;

#[test]
fn d15_a_second_run_changes_nothing() {
    let Some(world) = World::new("twice") else {
        return;
    };
    world.init();
    let before = tables::config(world.services, world.name);
    let mut second = world.start("init-tables", &[]);
    second.ends_with(0);
    let out = second.out();
    assert_eq!(out.lines().count(), 7, "{out}");
    assert!(out.lines().all(|line| line.starts_with("kept")), "{out}");
    assert_eq!(tables::config(world.services, world.name), before);
    world.start("init-tables", &["--check"]).ends_with(0);
}

#[test]
fn a_table_with_other_keys_is_refused_with_what_differs_and_nothing_is_made() {
    let Some(world) = World::new("other-keys") else {
        return;
    };
    let foreign = "other-keys-raw-events";
    tables::make_foreign(world.services, foreign, "id");
    let mut init = world.start("init-tables", &[]);
    init.ends_with(2);
    let err = init.err();
    for words in [foreign, "event_id", "timestamp", "id"] {
        assert!(err.contains(words), "{words} is not in {err}");
    }
    assert_eq!(tables::names(world.services, world.name), [foreign]);
}
