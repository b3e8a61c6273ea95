//! Tests of the roles in front of a DynamoDB that behaves like AWS: rights by action and resource, lagging indexes,
//! small pages, throttling, and a wrong clock.

use std::time::Duration;

use serde_json::Value;

use crate::aws_behaviour::Behaviour;
use crate::aws_front::Front;
use crate::aws_tables::policy;
use crate::role::wait_for;
use crate::world::{World, file_lines};

const LINES: usize = 1_500;

fn count_to_the_end(world: &World, front: &Front, key: &str) -> String {
    let options = ["--stop-at-end", "--row-interval", "20ms"];
    let line = [&["consume"][..], &options].concat();
    front.run(world, key, &line, 0).1
}

/// Compares log and tables with `verify`.
fn verify(world: &World, front: &Front, key: &str) {
    let (out, _) = front.run(world, key, &["verify"], 0);
    assert!(out.contains("difference 0"), "{out}");
}

/// Requests a path of `serve` until the status is 200.
fn ask(world: &World, front: &Front, key: &str, paths: &[&str]) -> Vec<Value> {
    let mut serve = world.start_with("serve", &[], &front.env(key));
    serve.is_ready(200, "");
    let answers = paths.iter().map(|path| {
        wait_for(path, || {
            let (status, body) = serve.get(path)?;
            (status == 200).then(|| serde_json::from_str(&body).unwrap())
        })
    });
    let answers = answers.collect();
    assert_eq!(serve.terminate().0, Some(0), "{}", serve.err());
    answers
}

#[test]
#[ignore = "needs scripts/test-real"]
fn every_role_works_under_its_own_policy_and_under_no_other() {
    let world = World::new("aws-rights");
    let roles = ["init-tables", "consume", "serve", "verify"];
    // DynamoDB Local accepts no access key with a dash.
    let policies = roles.map(|role| (role.replace('-', ""), policy(role, &world)));
    let how = Behaviour {
        policies: policies.into(),
        ..Behaviour::default()
    };
    let front = Front::start(world.services, how);
    front.run(&world, "inittables", &["init-tables", "--incidents"], 0);
    world.produce(&file_lines()[..LINES]);
    count_to_the_end(&world, &front, "consume");
    let paths = [
        "/api/v1/stats",
        "/api/v1/events/NYC",
        "/api/v1/alerts",
        "/api/v1/cities",
        "/api/v1/incidents",
        "/api/v1/silences",
    ];
    ask(&world, &front, "serve", &paths);
    verify(&world, &front, "verify");
    world.tables_are_exact();
    for (who, operation, code) in front.sent() {
        // `verify` tests by itself what it may describe.
        assert!(code != "AccessDeniedException", "{who} may not {operation}");
    }
    let prefix = ["--table-prefix", world.name];
    for (role, other) in [("consume", "serve"), ("serve", "consume")] {
        let line = [&["check", "--for", role][..], &prefix].concat();
        let output = std::process::Command::new(crate::role::binary())
            .args(line)
            .args(["--topic", world.name].iter().filter(|_| role == "consume"))
            .envs(world.services.exports())
            .envs(front.env(other))
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{out}");
        assert!(out.contains("AccessDeniedException"), "{out}");
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn indexes_that_lag_small_pages_and_throttling_change_no_count() {
    let world = World::new("aws-slow-reads");
    let how = Behaviour {
        index_lag: Duration::from_secs(1),
        page_items_max: Some(7),
        throttled_per_cent: 8,
        ..Behaviour::default()
    };
    let front = Front::start(world.services, how);
    front.run(&world, "any", &["init-tables"], 0);
    world.produce(&file_lines()[..LINES]);
    let err = count_to_the_end(&world, &front, "any");
    assert!(!err.contains("ERROR"), "{err}");
    let expected = world.tables_are_exact();
    let stats = ask(&world, &front, "any", &["/api/v1/stats"]).remove(0);
    let counted = stats["total_events_processed"].as_u64().unwrap();
    assert_eq!(counted, LINES as u64, "{expected:?}");
    verify(&world, &front, "any");
    let codes = [
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "InternalServerError",
    ];
    let sent = front.sent();
    for code in codes {
        assert!(
            sent.iter().any(|(.., found)| found == code),
            "{code} never came"
        );
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_clock_ten_minutes_off_is_corrected_by_the_responses() {
    let world = World::new("aws-clock");
    for (ahead, lines) in [(600, 0..100), (-600, 100..200)] {
        let how = Behaviour {
            clock_ahead_s: ahead,
            ..Behaviour::default()
        };
        let front = Front::start(world.services, how);
        front.run(&world, "any", &["init-tables"], 0);
        world.produce(&file_lines()[lines]);
        count_to_the_end(&world, &front, "any");
        let sent = front.sent();
        let refused = sent
            .iter()
            .filter(|(.., code)| code == "InvalidSignatureException");
        let refused = refused.count();
        assert!(
            refused > 0 && sent.len() > refused,
            "{refused} of {}",
            sent.len()
        );
    }
    world.tables_are_exact();
}
