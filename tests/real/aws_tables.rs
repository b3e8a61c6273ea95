//! Tests of `init-tables` in front of a DynamoDB that behaves like AWS: table states take time, and rights are given
//! by action and resource.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::aws_behaviour::Behaviour;
use crate::aws_front::Front;
use crate::role::binary;
use crate::tables;
use crate::world::{World, file_lines};

const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/abc";
/// The operations that `init-tables` needs after the template has created the tables. The first two and Query roll up
/// hours.
const AFTER_TEMPLATE: [&str; 9] = [
    "BatchGetItem",
    "BatchWriteItem",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "UpdateItem",
];

fn slow() -> Behaviour {
    Behaviour {
        creating: Duration::from_millis(700),
        updating: Duration::from_millis(700),
        deleting: Duration::from_millis(700),
        pitr_after: Duration::from_millis(1_500),
        ..Behaviour::default()
    }
}

/// Returns what the program prints for these arguments.
fn printed(args: &[&str]) -> Value {
    let output = Command::new(binary()).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the policy of a role for the tables of a world.
pub(crate) fn policy(role: &str, world: &World) -> Value {
    printed(&[
        "init-tables",
        "--print-iam-policy",
        role,
        "--table-prefix",
        world.name,
    ])
}

fn with_policy(world: &World, how: Behaviour) -> Behaviour {
    Behaviour {
        policies: [("init".to_owned(), policy("init-tables", world))].into(),
        ..how
    }
}

fn lines<'a>(out: &'a str, what: &str) -> Vec<&'a str> {
    out.lines().filter(|line| line.contains(what)).collect()
}

const EVERYTHING: [&str; 9] = [
    "init-tables",
    "--deletion-protection",
    "--pitr",
    "--kms-key",
    KEY,
    "--tag",
    "project=city",
    "--warm-writes",
    "20000",
];

#[test]
#[ignore = "needs scripts/test-real"]
fn init_tables_with_every_option_waits_for_creations_and_updates() {
    let world = World::new("aws-options");
    let front = Front::start(world.services, with_policy(&world, slow()));
    let (out, err) = front.run(&world, "init", &EVERYTHING, 0);
    assert_eq!(lines(&out, "made     table ").len(), 4, "{out}");
    // The command logs that it waits, and for what.
    assert!(err.contains("still waiting"), "{err}");
    assert!(
        err.contains("ContinuousBackupsUnavailableException"),
        "{err}"
    );
    let (out, _) = front.run(&world, "init", &EVERYTHING, 0);
    assert_eq!(lines(&out, "kept     table ").len(), 4, "{out}");
    let check = [&EVERYTHING[..], &["--check"]].concat();
    front.run(&world, "init", &check, 0);

    // Each changed option of an existing table makes the table UPDATING.
    let mut more = EVERYTHING;
    (more[4], more[6], more[8]) = ("alias/other", "stage=test", "30000");
    let (out, _) = front.run(&world, "init", &more, 0);
    assert_eq!(lines(&out, "changed  table ").len(), 4, "{out}");
    assert_eq!(lines(&out, "warm throughput of 30000").len(), 2, "{out}");
    let refused = front
        .sent()
        .into_iter()
        .filter(|(_, _, code)| !code.is_empty());
    for (_, operation, code) in refused {
        let expected = [
            // The config item exists already.
            "ConditionalCheckFailedException",
            "ContinuousBackupsUnavailableException",
            "ResourceInUseException",
            "ResourceNotFoundException",
        ];
        assert!(expected.contains(&&*code), "{operation}: {code}");
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn deletion_waits_for_updates_and_deletes_the_topics_last() {
    let world = World::new("aws-delete");
    let front = Front::start(world.services, with_policy(&world, slow()));
    front.run(&world, "init", &["init-tables", "--deletion-protection"], 0);
    let delete = ["init-tables", "--delete", "--yes"];
    let (_, err) = front.run(&world, "init", &delete, 2);
    assert!(err.contains("--no-deletion-protection-enabled"), "{err}");

    front.behave(|how| how.updating = Duration::from_secs(4));
    let client = front.client(world.services);
    for name in tables::names(world.services, world.name) {
        let off = client.update_table().table_name(name);
        let off = off.deletion_protection_enabled(false).send();
        world.services.block_on(off).unwrap();
    }
    let begin = Instant::now();
    let (out, err) = front.run(&world, "init", &delete, 0);
    assert!(begin.elapsed() < Duration::from_secs(60), "{err}");
    let done: Vec<&str> = out.lines().map(|line| &line[..14]).collect();
    let (table, topic) = ("deleted  table", "deleted  topic");
    assert_eq!(done, [table, table, table, table, topic, topic], "{out}");
    assert!(err.contains("Table is being updated"), "{err}");
    assert_eq!(tables::names(world.services, world.name), [""; 0]);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn tables_that_are_being_deleted_are_recreated_once_they_are_gone() {
    let world = World::new("aws-again");
    let front = Front::start(world.services, with_policy(&world, slow()));
    front.run(&world, "init", &["init-tables"], 0);
    front.behave(|how| how.deleting = Duration::from_secs(3));
    let client = front.client(world.services);
    for name in tables::names(world.services, world.name) {
        let delete = client.delete_table().table_name(name).send();
        world.services.block_on(delete).unwrap();
    }
    let (out, _) = front.run(&world, "init", &["init-tables"], 0);
    assert_eq!(lines(&out, "made     table ").len(), 4, "{out}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn without_the_right_to_delete_tables_and_topics_stay() {
    let world = World::new("aws-stays");
    let mut policy = policy("init-tables", &world);
    for statement in policy["Statement"].as_array_mut().unwrap() {
        let actions = statement["Action"].as_array_mut().unwrap();
        actions.retain(|action| action != "dynamodb:DeleteTable");
    }
    let how = Behaviour {
        policies: [("init".to_owned(), policy)].into(),
        ..Behaviour::default()
    };
    let front = Front::start(world.services, how);
    front.run(&world, "init", &["init-tables"], 0);
    let (_, err) = front.run(&world, "init", &["init-tables", "--delete", "--yes"], 1);
    assert!(err.contains("AccessDeniedException"), "{err}");
    let check = ["init-tables", "--check"];
    let (out, _) = front.run(&world, "init", &check, 0);
    assert!(out.contains("all 7 as they should be"), "{out}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn after_the_template_init_tables_needs_nine_actions_and_is_granted_no_more() {
    let world = World::new("aws-template");
    let template = printed(&["print", "cloudformation", "--table-prefix", world.name]);
    let document = &template["Resources"]["InitTablesPolicy"]["Properties"]["PolicyDocument"];
    let text = document.to_string().replace("${AWS::Partition}", "aws");
    let text = text
        .replace("${AWS::Region}", "*")
        .replace("${AWS::AccountId}", "*");
    let mut policy: Value = serde_json::from_str(&text).unwrap();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Resource"] = statement["Resource"]["Fn::Sub"].take();
    }
    let how = Behaviour {
        policies: [("after".to_owned(), policy.clone())].into(),
        ..Behaviour::default()
    };
    // Creates the tables as the template does, without the config item.
    let front = Front::start(world.services, how);
    let expiring = ["init-tables", "--alert-ttl", "90d", "--incidents"];
    front.run(&world, "maker", &expiring, 0);
    tables::take_one(world.services, world.name, "totals");
    let by_maker = front.used();

    let (out, _) = front.run(&world, "after", &expiring, 0);
    assert!(out.contains("made     config item"), "{out}");
    assert!(!out.contains("TTL on"), "{out}");
    world.produce(&file_lines()[..3_000]);
    world.consume_to_the_end();
    front.run(&world, "after", &["init-tables", "--rollups", "--yes"], 0);
    front.run(&world, "after", &["init-tables", "--shards", "8"], 0);
    front.run(
        &world,
        "after",
        &["init-tables", "--check", "--incidents"],
        0,
    );
    let mut operations: Vec<String> = front
        .sent()
        .into_iter()
        .filter(|(who, ..)| who == "after")
        .map(|(_, operation, _)| operation)
        .collect();
    operations.sort_unstable();
    operations.dedup();
    assert_eq!(operations, AFTER_TEMPLATE);
    // The command uses each action that the policy grants on a table.
    let used = front.used();
    assert!(used.is_superset(&by_maker));
    for statement in policy["Statement"].as_array().unwrap() {
        let table = statement["Resource"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        for action in statement["Action"].as_array().unwrap() {
            let is_used = used.iter().any(|(used, resource)| {
                used == action.as_str().unwrap() && resource.ends_with(&format!("/{table}"))
            });
            assert!(is_used, "{action} on {table} is never used");
        }
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn topics_are_created_without_the_settings_that_msk_serverless_refuses() {
    let world = World::new("serverless-topic");
    let mut check = world.start("init-tables", &["--check"]);
    check.ends_with(1);
    let refused =
        "without unclean.leader.election.enable, which these brokers do not allow for topics";
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat(&check.out()).contains(refused), "{}", check.out());
    let mut init = world.start("init-tables", &[]);
    init.ends_with(0);
    assert_eq!(lines(&init.out(), refused).len(), 2, "{}", init.out());
    world.start("init-tables", &["--check"]).ends_with(0);
    let mut before_start = Command::new(binary());
    let options = [
        "check",
        "--for",
        "init-tables",
        "--topic",
        "serverless-other",
    ];
    let output = before_start
        .args(options)
        .envs(world.services.exports())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("ok     topic serverless-other"), "{out}");
    assert!(!out.contains("wrong  "), "{out}");
}
