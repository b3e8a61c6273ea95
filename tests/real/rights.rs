//! Tests of a broker that gives rights by name. `check` names the rights that a role lacks, and the commands that it
//! prints give exactly what the role needs.

use crate::log::Record;
use crate::role::Role;
use crate::services::kafka_version;
use crate::world::{World, file_lines};

/// A user without any right in `scripts/real-services --secure`.
const GUEST: &str = "--kafka-auth scram --kafka-username guest";

struct Guest<'a> {
    world: &'a World,
    way: Vec<String>,
}

impl Guest<'_> {
    fn of(world: &World) -> Guest<'_> {
        let credentials = world.services.export("KAFKA_CREDENTIALS");
        let way = format!(
            "{GUEST} --brokers {} --kafka-ca-file {credentials}/root.pem \
             --kafka-password-file {credentials}/scram-password",
            world.services.export("KAFKA_SERVERS_SCRAM")
        );
        Guest {
            world,
            way: way.split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn start(&self, command: &[&str], options: &[&str], topic: &str) -> Role {
        let mut line = [command, options, &["--topic", topic]].concat();
        let own: &[&str] = match command.last() {
            Some(&"consume") => &["--group", "--table-prefix"],
            Some(&"init-tables") => &["--table-prefix"],
            _ => &[],
        };
        line.extend(own.iter().flat_map(|option| [option, self.world.name]));
        if matches!(command.last(), Some(&"consume" | &"produce")) {
            line.extend(["--listen", "127.0.0.1:0"]);
        }
        line.extend(self.way.iter().map(String::as_str));
        Role::start(self.world.services, &line, &[])
    }

    /// Returns the table of `check` for a role, which must end with `code`.
    fn check(&self, role: &str, options: &[&str], topic: &str, code: i32) -> String {
        let mut check = self.start(&["check", "--for", role], options, topic);
        check.ends_with(code);
        let table = check.out();
        eprintln!("{role} {options:?}\n{table}");
        table
    }

    /// Runs all commands that the table suggests about rights.
    fn follow(&self, table: &str) {
        let given = "kafka-acls.sh --bootstrap-server ";
        std::thread::scope(|scope| {
            for line in table.lines() {
                let Some((_, command)) = line.split_once(given) else {
                    continue;
                };
                let (_, rights) = command.split_once(' ').unwrap();
                // The test gives no right that the role can work without.
                if !line.contains("to have them checked") {
                    scope.spawn(move || give(self.world, rights));
                }
            }
        });
    }
}

/// Gives rights with Kafka's own tool, as an administrator.
fn give(world: &World, rights: &str) {
    let class = if kafka_version().starts_with("3.") {
        "kafka.admin.AclCommand"
    } else {
        "org.apache.kafka.tools.AclCommand"
    };
    let args: Vec<&str> = rights.split_whitespace().collect();
    world.services.tool(class, &args);
}

/// Asserts that the table has this row about rights.
fn has(table: &str, outcome: &str, resource: &str, found: &str) {
    let begin = format!("{outcome:<5}  rights on {resource} ");
    let row = table.lines().find_map(|line| line.strip_prefix(&begin));
    let row = row.unwrap_or_else(|| panic!("no {begin:?} in\n{table}"));
    assert_eq!(row.trim(), found, "{begin}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_missing_rights_that_check_names_are_exactly_those_a_role_needs() {
    let world = World::new("rights");
    world.init();
    let guest = Guest::of(&world);
    let table = guest.check("consume", &[], "rights", 2);
    for (resource, right) in [
        ("topic rights", "Read"),
        ("topic rights-dlq", "Write"),
        ("group rights", "Read"),
    ] {
        let found = format!("lacks {right}, and the right to describe it");
        has(&table, "wrong", resource, &found);
    }
    guest.follow(&table);
    let table = guest.check("consume", &[], "rights", 0);
    has(&table, "ok", "topic rights", "Read");
    has(&table, "ok", "topic rights-dlq", "Write");
    has(&table, "ok", "group rights", "Read");

    // The right to read includes the right to describe. The others are missing.
    let first = guest.check("produce", &[], "rights", 2);
    has(&first, "wrong", "topic rights", "lacks Write");
    let second = guest.check("produce", &["--from-dlq"], "rights", 2);
    has(&second, "wrong", "topic rights-dlq", "lacks Read");
    guest.follow(&second);
    let table = guest.check("produce", &["--from-dlq"], "rights", 0);
    has(&table, "ok", "group citystream-from-dlq", "Read");

    // The roles now work with these rights.
    let path = world.services.folder().join("rights.ndjson");
    let lines = file_lines()[..300].join("\n");
    std::fs::write(&path, &lines).unwrap();
    let input = ["--input", path.to_str().unwrap()];
    guest.start(&["produce"], &input, "rights").ends_with(0);
    let spoilt = lines
        .lines()
        .next()
        .unwrap()
        .replacen("\"low\"", "\" low\"", 1);
    assert!(spoilt.contains("\" low\""), "{spoilt}");
    world.send(&[Record {
        value: Some(spoilt.into_bytes()),
        ..Record::default()
    }]);
    let count = ["--stop-at-end"];
    guest.start(&["consume"], &count, "rights").ends_with(0);
    let mut letters = guest.start(&["produce"], &["--from-dlq"], "rights");
    letters.ends_with(0);
    let said = letters.err();
    assert!(said.contains("sent 1 again"), "{said}");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_right_to_create_topics_is_tested_without_creating_one() {
    let world = World::new("unmade");
    let brokers = world.services.brokers();
    let owner = Guest {
        world: &world,
        way: vec!["--brokers".to_owned(), brokers.to_owned()],
    };
    for _ in 0..2 {
        let table = owner.check("init-tables", &[], "unmade", 0);
        has(&table, "ok", "topic unmade", "Create");
        let there = "ok     topic unmade                      does not exist yet\n";
        assert!(table.contains(there), "{table}");
    }
    give(
        &world,
        "--add --allow-principal User:guest --operation Describe --topic unmade --topic unmade-dlq",
    );
    let guest = Guest::of(&world);
    let table = guest.check("init-tables", &[], "unmade", 2);
    has(&table, "wrong", "topic unmade-dlq", "lacks Create");
}
