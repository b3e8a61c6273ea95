//! Tests of `produce --accept` while it and its broker are killed: an event that was answered as accepted is in the log.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::log;
use crate::role::{Role, Signal, wait_for};
use crate::world::World;

/// Clients that send at the same time.
const CLIENTS: usize = 2;
/// Events of a request.
const BATCH: usize = 50;
/// Accepted events after which the role is killed.
const SOME: usize = 2_000;
/// Kills of the role.
const ROUNDS: usize = 3;

/// An event that was answered as accepted: its id, partition and offset.
type Accepted = (String, i64, i64);

/// Sends a request, and returns its status and its answer. Returns `None` if the role does not answer.
fn post(address: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let head = format!(
        "POST /api/v1/events?verbose HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\
         content-type: application/x-ndjson\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

fn batch(client: &str, number: usize) -> String {
    let event = |n: usize| {
        let (city, id) = (n % 7, format!("{client}-{number}-{n}"));
        format!(
            r#"{{"city":"city {city}","event_type":"traffic","severity":"low","timestamp":"now","event_id":"{id}"}}"#
        )
    };
    let lines: Vec<String> = (0..BATCH).map(event).collect();
    lines.join("\n")
}

/// Sends batches until `stop`, and returns the events that were answered as accepted.
fn send_until(
    address: &str,
    client: &str,
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Some((status, answer)) = post(address, &batch(client, number)) else {
            // The role is dead, and another one gets the next requests.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        assert!(status == 200 || status == 503, "{status} {answer}");
        // The tests share a broker. While it is away, a client waits longer.
        let pause_ms = if status == 503 { 100 } else { 5 };
        std::thread::sleep(Duration::from_millis(pause_ms));
        for result in answer["results"].as_array().into_iter().flatten() {
            if result["status"] == "accepted" {
                let number = |field: &str| result[field].as_i64().unwrap_or(-1);
                let id = result["event_id"].as_str().unwrap().to_owned();
                accepted.push((id, number("partition"), number("offset")));
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    accepted
}

/// Sends events from several clients, and meanwhile does `disturb`. Returns the accepted events.
fn send_during(role: &mut Role, round: usize, disturb: impl FnOnce(&AtomicUsize)) -> Vec<Accepted> {
    role.is_ready(200, "");
    let address = role.url();
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, stop, count) = (&address, &stop, &count);
                let name = format!("{round}-{client}");
                scope.spawn(move || send_until(address, &name, stop, count))
            })
            .collect();
        disturb(&count);
        stop.store(true, Ordering::SeqCst);
        let sent = clients.into_iter().map(|client| client.join().unwrap());
        sent.flatten().collect()
    })
}

fn wait_for_more(count: &AtomicUsize) {
    let wanted = count.load(Ordering::SeqCst) + SOME;
    let enough = || (count.load(Ordering::SeqCst) >= wanted).then_some(());
    wait_for("events to be accepted", enough);
}

#[test]
#[ignore = "needs scripts/test-real"]
fn every_accepted_event_is_in_the_log_whenever_the_role_or_the_broker_is_killed() {
    let world = World::disturbing("accept");
    world.init();
    let mut accepted = Vec::new();
    for round in 0..ROUNDS {
        let mut role = world.start("produce", &["--accept"]);
        let pid = role.id();
        accepted.extend(send_during(&mut role, round, |count| {
            wait_for_more(count);
            let killed = std::process::Command::new("kill")
                .args(["-s", "KILL", &pid.to_string()])
                .status();
            assert!(killed.unwrap().success());
        }));
        assert_eq!(role.end(), None, "{}", role.err());
    }
    // The broker goes and returns under load. The role stays, and ends without a loss.
    let mut role = world.start("produce", &["--accept"]);
    accepted.extend(send_during(&mut role, ROUNDS, |count| {
        wait_for_more(count);
        world.services.broker("kill-broker", "1");
        std::thread::sleep(Duration::from_secs(2));
        world.services.broker("start-broker", "1");
        wait_for_more(count);
    }));
    role.signal(Signal::Term);
    role.ends_with(0);

    let records = log::read(world.services, world.name);
    let mut places: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    for record in &records {
        let value: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        let id = value["event_id"].as_str().unwrap().to_owned();
        let place = (i64::from(record.partition), record.offset);
        places.entry(id).or_default().push(place);
    }
    for (id, partition, offset) in &accepted {
        let found = places.get(id).map_or(&[][..], Vec::as_slice);
        let is_there = |(p, o): &(i64, i64)| p == partition && (o == offset || *offset < 0);
        assert!(found.iter().any(is_there), "{id} is at {found:?}");
    }
    let repeated = places.values().filter(|places| places.len() > 1).count();
    assert_eq!(repeated, 0, "no client sent an event twice");
    eprintln!(
        "accept: {} accepted, {} in the log, {ROUNDS} kills",
        accepted.len(),
        records.len()
    );
    world.consume_to_the_end();
    world.tables_are_exact();
}
