//! Tests of `init-tables` on the real services: repeated runs, and tables that it did not create.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::role::{binary, last_words, wait_for};
use crate::services::knows_new_protocol;
use crate::tables;
use crate::world::World;

#[test]
#[ignore = "needs scripts/test-real"]
fn a_second_run_changes_nothing() {
    let world = World::new("twice");
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
#[ignore = "needs scripts/test-real"]
fn a_table_with_other_keys_is_refused_with_what_differs_and_nothing_is_made() {
    let world = World::new("other-keys");
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

#[test]
#[ignore = "needs scripts/test-real"]
fn the_plan_comes_first_and_differences_are_a_table() {
    let world = World::new("planned");
    let mut check = world.start("init-tables", &["--check"]);
    check.ends_with(1);
    let table = check.out();
    assert!(table.starts_with("state    what"), "{table}");
    assert!(table.contains("missing  topic planned "), "{table}");
    assert!(
        table.ends_with(
            "7 of 7 differ; citystream init-tables creates what is missing, or reports why it cannot\n"
        ),
        "{table}"
    );
    let mut init = world.start("init-tables", &[]);
    init.ends_with(0);
    let err = init.err();
    let plan = err
        .find("plan:\n  make   table planned-raw-events\n")
        .expect(&err);
    assert!(plan < err.find("making table").expect(&err), "{err}");
    assert!(
        err.contains("  make   topic planned: 6 partitions"),
        "{err}"
    );
    let mut check = world.start("init-tables", &["--check"]);
    check.ends_with(0);
    assert!(
        check.out().ends_with("all 7 as they should be\n"),
        "{}",
        check.out()
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn deleting_asks_for_the_prefix_on_a_terminal_and_refuses_without_one() {
    let world = World::new("asked");
    world.init();
    let mut delete = world.start("init-tables", &["--delete"]);
    delete.ends_with(2);
    assert!(delete.err().contains("\n  > add --yes"), "{}", delete.err());
    for (answer, code) in [("citystream", 2), ("asked", 0)] {
        let line = format!(
            "{} init-tables --delete --topic asked --table-prefix asked --group asked",
            binary().display()
        );
        // `script` gives the program a terminal.
        let mut script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .envs(world.services.exports())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut typed = script.stdin.take().unwrap();
        writeln!(typed, "{answer}").unwrap();
        let output = script.wait_with_output().unwrap();
        drop(typed);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{answer}: {shown}");
        assert!(shown.contains("type the prefix asked: "), "{shown}");
        let left = tables::names(world.services, world.name);
        assert_eq!(left.is_empty(), code == 0, "{answer}: {left:?}");
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn protected_tables_keep_their_topics_and_unsupported_options_are_named() {
    let world = World::new("protected");
    world.init();
    for state in ["changed", "kept"] {
        let mut protect = world.start("init-tables", &["--deletion-protection"]);
        protect.ends_with(0);
        let out = protect.out();
        let tables = out
            .lines()
            .filter(|line| line.contains(" table protected-"));
        let words = if state == "changed" {
            ": deletion protection is now on"
        } else {
            ""
        };
        let tables: Vec<&str> = tables.collect();
        assert_eq!(tables.len(), 4, "{out}");
        for line in tables {
            assert!(line.starts_with(state) && line.ends_with(words), "{out}");
        }
    }
    for (option, value) in [
        ("--pitr", None),
        ("--tag", Some("project=city")),
        ("--kms-key", Some("alias/tables")),
    ] {
        let args: Vec<&str> = [option].into_iter().chain(value).collect();
        let mut refused = world.start("init-tables", &args);
        refused.ends_with(2);
        let err = refused.err();
        let last: Vec<&str> = last_words(&err).lines().collect();
        assert!(
            last[0].contains(" on protected-raw-events failed with "),
            "{err}"
        );
        assert!(last[1].starts_with("  because: "), "{err}");
        let todo = format!("  > correct {option}, or leave it out: ");
        assert!(last[2].starts_with(&todo), "{err}");
    }
    let mut delete = world.start("init-tables", &["--delete", "--yes"]);
    delete.ends_with(2);
    let err = delete.err();
    assert!(err.contains("citystream: nothing was deleted\n"), "{err}");
    assert!(err.contains("--no-deletion-protection-enabled"), "{err}");
    world.start("init-tables", &["--check"]).ends_with(0);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn nothing_is_deleted_while_a_consumer_runs() {
    let world = World::new("counting");
    world.init();
    let mut consume = world.start("consume", &[]);
    consume.is_ready(200, "");
    let mut delete = world.start("init-tables", &["--delete", "--yes"]);
    delete.ends_with(1);
    let err = delete.err();
    assert!(err.contains("group counting still has members"), "{err}");
    world.start("init-tables", &["--check"]).ends_with(0);
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    world
        .start("init-tables", &["--delete", "--yes"])
        .ends_with(0);
    assert_eq!(tables::names(world.services, world.name), [""; 0]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_member_of_the_newer_group_protocol_keeps_its_tables() {
    if !knows_new_protocol() {
        return;
    }
    let world = World::new("newer");
    world.init();
    let mut consume = world.start("consume", &["--group-protocol", "consumer"]);
    consume.is_ready(200, "");
    let mut delete = world.start("init-tables", &["--delete", "--yes"]);
    wait_for("a line about the members", || {
        delete.err().contains("waiting up to 47 s").then_some(())
    });
    delete.ends_with(1);
    let err = delete.err();
    assert!(err.contains("group newer still has members"), "{err}");
    world.start("init-tables", &["--check"]).ends_with(0);
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_killed_member_is_waited_for_by_name_until_its_session_is_over() {
    let world = World::new("killed");
    world.init();
    let mut consume = world.start("consume", &[]);
    consume.is_ready(200, "");
    consume.kill();
    let mut delete = world.start("init-tables", &["--delete", "--yes"]);
    delete.ends_with(0);
    let err = delete.err();
    assert!(err.contains("group killed has members: "), "{err}");
    assert!(err.contains("; waiting up to 22 s, because"), "{err}");
    assert_eq!(tables::names(world.services, world.name), [""; 0]);
}
