//! The lines of docs/EVENTS.md for other Kafka clients, run as they stand there.

use std::process::Command;

use crate::services::skipped;
use crate::world::World;

const GUIDE: &str = include_str!("../../docs/EVENTS.md");
/// Around the guide's lines of Java.
const PROGRAM: (&str, &str) = (
    "import java.util.Properties;\nimport org.apache.kafka.clients.producer.*;\n\
     class Send { public static void main(String[] given) throws Exception {\nString event = given[0];\n",
    "}}\n",
);

/// Returns the guide's block in a language that contains `text`, for the services and the topic of a world.
fn block(world: &World, language: &str, text: &str) -> String {
    let mut blocks = GUIDE
        .split("\n```")
        .filter_map(|block| block.strip_prefix(language));
    let found = blocks.find(|block| block.contains(text)).unwrap();
    let found = found.replace("localhost:9092", world.services.brokers());
    found.replace("city-events", world.name)
}

/// Returns the event that the guide shows.
fn event(world: &World) -> String {
    block(world, "json\n", "Two lanes closed").trim().to_owned()
}

fn runs(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn has(program: &str) -> bool {
    let look = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    look.is_ok_and(|output| output.status.success())
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_guides_kcat_line_sends_an_event_that_is_counted() {
    if !has("kcat") {
        return skipped("the kcat line of docs/EVENTS.md (needs kcat)");
    }
    let world = World::new("kcat-line");
    world.init();
    let folder = world.services.folder().join(world.name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("event.json"), event(&world)).unwrap();
    let line = block(&world, "\n", "kcat -P");
    runs(
        Command::new("sh")
            .args(["-euc", line.trim()])
            .current_dir(&folder),
    );
    world.consume_to_the_end();
    assert_eq!(world.events_counted(), 1);
    world.tables_are_exact();
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_guides_lines_of_java_send_an_event_that_is_counted() {
    if !has("javac") {
        return skipped("the Java lines of docs/EVENTS.md (needs a JDK)");
    }
    let world = World::new("java-lines");
    world.init();
    let folder = world.services.folder().join(world.name);
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("Send.java");
    let lines = block(&world, "java\n", "KafkaProducer");
    std::fs::write(&source, [PROGRAM.0, &*lines, PROGRAM.1].concat()).unwrap();
    let classpath = world.services.export("KAFKA_TOOLS_CLASSPATH");
    runs(
        Command::new("java")
            .args(["-cp", classpath])
            .arg(&source)
            .arg(event(&world)),
    );
    world.consume_to_the_end();
    assert_eq!(world.events_counted(), 1);
    world.tables_are_exact();
}
