//! Tests of `notify` while its processes are killed and its receiver fails: what arrives is what a dry run prints.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::role::{Role, Signal, wait_for};
use crate::world::{World, file_lines};

const KILLS: usize = 50;
const RULES: &str = r#"
[[rule]]
name = "critical"
severity = ["critical"]
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "traffic-surge"
event_type = ["traffic"]
count = 4
window = "5m"
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "silent-city"
silence = "30m"
group_by = ["city"]

[[receiver]]
name = "ops"
type = "webhook"
url = "http://ADDRESS/hook"
allow_private = true
min_interval = "1s"
"#;

/// A message: rule, partition and offset of the incident, and type.
type Told = (String, String, String);

/// The messages that a receiver took, with their ids.
type Taken = Arc<Mutex<Vec<(String, Told)>>>;

fn told(body: &Value) -> Told {
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let incident = text("incident");
    // The topic id of a dry run is not the real one.
    let (_, place) = incident.split_once('#').unwrap();
    (text("rule"), place.to_owned(), text("type"))
}

/// Starts a receiver that fails in turns: of every eight messages it answers one with 503, loses the answer of another,
/// and answers a third after two seconds. Returns its address.
fn receive(taken: &Taken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let taken = Arc::clone(taken);
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let taken = Arc::clone(&taken);
            std::thread::spawn(move || take(stream.unwrap(), n % 8, &taken));
        }
    });
    address
}

fn take(stream: TcpStream, turn: usize, taken: &Taken) {
    let mut reader = BufReader::new(&stream);
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("webhook-id: ") {
            value.clone_into(&mut id);
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let answer = |status: &str| {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        drop((&stream).write_all(text.as_bytes()));
    };
    if turn == 1 {
        return answer("503 Service Unavailable");
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    taken.lock().unwrap().push((id, told(&body)));
    match turn {
        3 => {}
        5 => {
            std::thread::sleep(Duration::from_secs(2));
            answer("204 No Content");
        }
        _ => answer("204 No Content"),
    }
}

fn without_updates(all: impl IntoIterator<Item = Told>) -> BTreeSet<Told> {
    let all = all.into_iter();
    all.filter(|(_, _, kind)| kind != "incident.updated")
        .collect()
}

#[test]
#[ignore = "needs scripts/test-real"]
fn receivers_get_what_a_dry_run_prints_when_processes_are_killed() {
    let world = World::new("notify");
    world.init();
    world.start("init-tables", &["--incidents"]).ends_with(0);
    let taken = Taken::default();
    let rules = RULES.replace("ADDRESS", &receive(&taken));
    let path = world.services.folder().join("notify.toml");
    std::fs::write(&path, rules).unwrap();
    let path = path.to_str().unwrap();
    let mut roles: Vec<Role> = (0..2).map(|_| notify(&world, path)).collect();
    world.produce_in_pieces(&file_lines(), KILLS, |_| {
        std::thread::sleep(Duration::from_millis(500));
        let mut killed = roles.remove(0);
        killed.signal(Signal::Kill);
        assert_eq!(killed.end(), None, "{}", killed.err());
        roles.push(notify(&world, path));
    });
    let dry = [
        "--config",
        path,
        "--dry-run",
        "--exit-at-end",
        "--output",
        "json",
    ];
    let mut dry = world.start("notify", &[&dry[..], &["--from", "beginning"]].concat());
    dry.ends_with(0);
    let wanted = dry.out();
    let wanted = wanted
        .lines()
        .map(|line| told(&serde_json::from_str(line).unwrap()));
    let wanted: BTreeSet<Told> = wanted.collect();
    assert!(wanted.len() > 1_000, "{}", wanted.len());
    wait_for("all messages", || {
        let taken = taken.lock().unwrap().clone();
        let count = without_updates(taken.into_iter().map(|(_, told)| told)).len();
        (count >= wanted.len()).then_some(())
    });
    for role in &mut roles {
        role.signal(Signal::Term);
        role.ends_with(0);
    }
    let taken = taken.lock().unwrap().clone();
    let mut by_id: BTreeMap<String, BTreeSet<Told>> = BTreeMap::new();
    for (id, told) in &taken {
        by_id.entry(id.clone()).or_default().insert(told.clone());
    }
    for (id, meanings) in &by_id {
        assert_eq!(meanings.len(), 1, "{id} means {meanings:?}");
    }
    let found = without_updates(taken.iter().map(|(_, told)| told.clone()));
    let diff: Vec<_> = found.symmetric_difference(&wanted).collect();
    assert!(diff.is_empty(), "{diff:?}");
    the_rows_agree_with_the_log(&world, path, &wanted);
    eprintln!(
        "notify: {} messages wanted, {} taken with updates and repetitions, {KILLS} kills",
        wanted.len(),
        taken.len()
    );
}

/// Starts `notify` at the beginning of the log.
fn notify(world: &World, path: &str) -> Role {
    let args = ["--config", path, "--from", "beginning"];
    let quick = ["--kafka-property", "session.timeout.ms=6000"];
    let listen = ["--listen", "127.0.0.1:0"];
    world.start("notify", &[&args[..], &quick, &listen].concat())
}

/// How long a silence may take to be seen by every process.
const SILENCE_SEEN_MAX: Duration = Duration::from_secs(10);

/// Returns a critical event of a city.
fn critical(city: &str) -> String {
    format!(
        r#"{{"timestamp":"2013-01-01T06:00:00Z","city":"{city}","event_type":"incident","severity":"critical","description":"a test"}}"#
    )
}

/// Runs `silence` and returns its output.
fn silence(world: &World, args: &[&str]) -> String {
    let mut role = world.start("silence", args);
    role.ends_with(0);
    role.out()
}

/// Returns the partition and offset at which the incident of a city began, once its row is in the table.
fn place_of(world: &World, city: &str) -> String {
    let all = ["--incidents", "--from", "beginning", "--exit-at-end"];
    let of_city = [
        "--output",
        "json",
        "--city",
        city,
        "--table-prefix",
        world.name,
    ];
    let all = [&all[..], &of_city].concat();
    wait_for("the row of an incident", || {
        let mut tail = world.start("tail", &all);
        tail.ends_with(0);
        let out = tail.out();
        let row: Value = serde_json::from_str(out.lines().next()?).unwrap();
        let (_, place) = row["incident"].as_str().unwrap().split_once('#').unwrap();
        Some(place.to_owned())
    })
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_silence_that_begins_while_notify_runs_holds_messages_back_until_it_ends() {
    let world = World::new("silenced");
    world.init();
    world.start("init-tables", &["--incidents"]).ends_with(0);
    let taken = Taken::default();
    let rules = RULES.replace("ADDRESS", &receive(&taken));
    let path = world.services.folder().join("silenced.toml");
    std::fs::write(&path, rules).unwrap();
    let mut role = notify(&world, path.to_str().unwrap());
    let is_told = |city: &str| {
        let place = place_of(&world, city);
        let taken = taken.lock().unwrap();
        taken.iter().any(|(_, (_, known, _))| *known == place)
    };
    world.produce(&[critical("Before")]);
    wait_for("a message", || is_told("Before").then_some(()));

    let added = ["add", "--city", "Silent", "--for", "1h", "--why", "a test"];
    let added = silence(&world, &added);
    let id = added.split_whitespace().next().unwrap();
    std::thread::sleep(SILENCE_SEEN_MAX);
    world.produce(&[critical("Silent"), critical("Loud")]);
    wait_for("a message", || is_told("Loud").then_some(()));
    assert!(!is_told("Silent"), "a silenced incident is kept, not sent");

    silence(&world, &["end", id]);
    wait_for("the message after the silence", || {
        is_told("Silent").then_some(())
    });
    role.signal(Signal::Term);
    role.ends_with(0);
}

/// Compares the rows with the log, lists them with `tail`, and expects `verify` to find a damaged row.
fn the_rows_agree_with_the_log(world: &World, path: &str, wanted: &BTreeSet<Told>) {
    let compare = || world.start("verify", &["--incidents", path, "--output", "json"]);
    let mut verify = compare();
    verify.ends_with(0);
    let report: Value = serde_json::from_str(&verify.out()).unwrap();
    let opened = wanted.iter().filter(|told| told.2 == "incident.opened");
    let opened = opened.count();
    assert_eq!(report["incidents"], opened, "{report}");
    assert_eq!(report["incomparable"], serde_json::json!({}), "{report}");
    let all = ["--incidents", "--from", "beginning", "--exit-at-end"];
    let all = [
        &all[..],
        &["--output", "json", "--table-prefix", world.name],
    ]
    .concat();
    let mut tail = world.start("tail", &all);
    tail.ends_with(0);
    let listed = tail.out();
    let listed: BTreeSet<&str> = listed.lines().collect();
    assert_eq!(listed.len(), opened);
    let one: Value = serde_json::from_str(listed.first().unwrap()).unwrap();
    let key = |name: &str| AttributeValue::S(one[name].as_str().unwrap().to_owned());
    let set = world
        .services
        .dynamodb()
        .update_item()
        .table_name(format!("{}-incidents", world.name))
        .key("rule", key("rule"))
        .key("incident", key("incident"))
        .update_expression("SET event_count = :more")
        .expression_attribute_values(":more", AttributeValue::N("1000000".to_owned()));
    world.services.block_on(set.send()).unwrap();
    let mut verify = compare();
    verify.ends_with(1);
    let report: Value = serde_json::from_str(&verify.out()).unwrap();
    assert_eq!(report["difference_count"], 1, "{report}");
    assert_eq!(report["differences"][0]["incident"], one["incident"]);
}
