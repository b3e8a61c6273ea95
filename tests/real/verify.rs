//! Tests of `verify` and `scripts/rebuild` on real services: agreement, damage, retention, watching, and new tables.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::log;
use crate::role::wait_for;
use crate::tables;
use crate::world::{World, file_lines};

const AGREED: &str = "log 9,000 = tables 9,000, difference 0";

/// Runs `verify`. Returns its exit code and what it printed.
fn verify(world: &World, args: &[&str]) -> (Option<i32>, String) {
    let mut role = world.start("verify", args);
    let code = role.end();
    let out = role.out();
    assert!(code != Some(2), "{}", role.err());
    (code, out)
}

fn last(out: &str) -> &str {
    out.lines().last().unwrap_or_default()
}

fn json(out: &str) -> Value {
    serde_json::from_str(last(out)).unwrap()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn verify_agrees_names_each_damage_watches_and_leaves_out_what_retention_took() {
    let world = World::new("verified");
    world.init();
    world.produce(&file_lines()[..9_000]);
    agrees_before_and_after_counting(&world);
    explains_a_window_and_compares_a_range(&world);
    names_damage_once_and_while_watching(&world);
    leaves_out_what_retention_took(&world);
    reports_wrong_settings(&world);
}

/// Events that no consumer has stored yet are not missing.
fn agrees_before_and_after_counting(world: &World) {
    let (code, out) = verify(world, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("not stored yet, according to the consumers: 9,000 events"),
        "{out}"
    );
    world.consume_to_the_end();
    let (code, out) = verify(world, &[]);
    assert_eq!((code, last(&out)), (Some(0), AGREED), "{out}");
    assert!(out.contains("compared 9,000 raw events, "), "{out}");
}

/// The explanation of a window has the same sums, and a range of a quarter of an hour agrees as JSON.
fn explains_a_window_and_compares_a_range(world: &World) {
    let (code, out) = verify(world, &["--explain", "NYC#traffic#2013-01-01T19:30:00Z"]);
    assert_eq!(
        (code, last(&out)),
        (Some(0), "log and tables agree"),
        "{out}"
    );
    // A quarter of an hour, as JSON.
    let range = [
        "--from",
        "2013-01-01T06:00:00Z",
        "--until",
        "2013-01-01T06:15:00Z",
    ];
    let (code, out) = verify(world, &[&range[..], &["--output", "json"]].concat());
    let report = json(&out);
    assert_eq!(
        (code, &report["agree"]),
        (Some(0), &Value::Bool(true)),
        "{out}"
    );
    let few = report["compared"]["raw_events"].as_u64().unwrap();
    assert!(few > 0 && few < 1_000, "{report}");
}

/// With `--watch`, `verify` reports damage when it comes and when it goes.
fn names_damage_once_and_while_watching(world: &World) {
    let mut watching = world.start("verify", &["--watch=100ms", "--listen", "127.0.0.1:0"]);
    watching.is_ready(200, "");
    let lost = tables::take_one(world.services, world.name, "raw-events");
    wait_for("the damage to be reported", || {
        (watching.metrics()["citystream_verify_difference_rows"] == 1.0).then_some(())
    });
    let (code, out) = verify(world, &[]);
    assert_eq!(code, Some(1), "{out}");
    let id = lost["event_id"].as_s().unwrap();
    let first = out.lines().next().unwrap();
    assert!(
        first.starts_with(&format!("missing raw event {id} ")),
        "{out}"
    );
    let differs = "log 9,000 ≠ tables 9,000, difference 1 row: 1 raw event missing; the sums are equal, the rows are not";
    assert_eq!(last(&out), differs);
    tables::put(world.services, world.name, "raw-events", lost.clone());
    let metrics = wait_for("the repair to be reported", || {
        let metrics = watching.metrics();
        (metrics["citystream_verify_difference_rows"] == 0.0).then_some(metrics)
    });
    assert_eq!(metrics["citystream_verify_events"], 18_000.0);
    assert!(metrics["citystream_verify_last_success_timestamp_seconds"] > 0.0);
    assert_eq!(watching.terminate().0, Some(0), "{}", watching.err());
}

/// After retention, the remaining records agree. Rows that were counted from lost records are left out.
fn leaves_out_what_retention_took(world: &World) {
    log::cut(world.services, world.name, 0, 3_000);
    let (code, out) = verify(world, &["--output", "json"]);
    let report = json(&out);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["compared"]["totals"], 0, "{report}");
    assert!(
        report["compared"]["windows"].as_u64().unwrap() > 100,
        "{report}"
    );
    let older = report["not_comparable"]["older_than_the_log"].as_u64();
    assert!(older.unwrap() > 1_000, "{report}");
}

/// A wrong setting is reported with its reason.
fn reports_wrong_settings(world: &World) {
    let mut wrong = world.start("verify", &["--topic", "another"]);
    wrong.ends_with(2);
    assert!(
        wrong.err().contains("count topic verified, not another"),
        "{}",
        wrong.err()
    );
    let mut missing = world.start("verify", &["--table-prefix", "nowhere"]);
    missing.ends_with(1);
    assert!(
        missing.err().contains("citystream init-tables creates it"),
        "{}",
        missing.err()
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn verify_shows_no_difference_while_consumers_come_and_go() {
    let world = World::new("verified-live");
    world.init();
    let one = world.consume(&[]);
    let mut two = world.consume(&[]);
    let lines = file_lines();
    let (mut behind, mut one) = (0, Some(one));
    for (round, part) in lines[..9_000].chunks(1_500).enumerate() {
        world.produce(part);
        let (code, out) = verify(&world, &[]);
        assert_eq!(code, Some(0), "round {round}\n{out}");
        behind += usize::from(out.contains("not stored yet"));
        if round == 3 {
            // Other members take over its partitions at its last commit, while its rows are further.
            one.take().unwrap().kill();
        }
    }
    assert!(behind > 0, "the consumers were never behind");
    world.consume_to_the_end();
    let (code, out) = verify(&world, &[]);
    assert_eq!((code, last(&out)), (Some(0), AGREED), "{out}");
    assert_eq!(two.terminate().0, Some(0), "{}", two.err());
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn rebuild_counts_the_log_into_new_tables_and_proves_them() {
    let world = World::new("rebuilt");
    world.init();
    let lines = file_lines();
    world.produce(&lines[..6_000]);
    world.consume_to_the_end();
    tables::take_one(world.services, world.name, "aggregations");
    assert_eq!(verify(&world, &[]).0, Some(1));

    let binary = crate::role::binary();
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rebuild");
    let rebuild = |prefix: &str| {
        let output = Command::new(&script)
            .args([prefix, "--shards", "2"])
            .env_clear()
            .envs(world.services.exports())
            .env("PATH", &path)
            .env("KAFKA_TOPIC", world.name)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, out, err) = rebuild("rebuilt-2");
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(
        out.contains("log 6,000 = tables 6,000, difference 0"),
        "{out}"
    );
    assert!(out.contains("CITYSTREAM_TABLE_PREFIX=rebuilt-2"), "{out}");
    let mut serve = world.start("serve", &["--table-prefix", "rebuilt-2"]);
    serve.is_ready(200, "");
    let (_, body) = serve.get("/api/v1/stats").unwrap();
    let stats: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(stats["total_events_processed"], 6_000, "{body}");
    assert_eq!(serve.terminate().0, Some(0));

    // A second run continues where the first stopped. Damage stops it before anything is switched.
    world.produce(&lines[6_000..7_000]);
    let (code, out, _) = rebuild("rebuilt-2");
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("log 7,000 = tables 7,000, difference 0"),
        "{out}"
    );
    tables::take_one(world.services, "rebuilt-2", "alerts");
    let (code, out, err) = rebuild("rebuilt-2");
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("missing alert") && err.contains("switch nothing"),
        "{out}{err}"
    );
}
