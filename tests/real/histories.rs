//! What clients of the API see while consumers die, requests get lost and the topic is recreated.
//!
//! Clients ask all the time, and write down each answer. Afterwards the whole history is judged: counts never fall, a final
//! window never changes, a walk over pages sees each item once and none vanishes, and each alert comes in the stream
//! unless a `reset` says that some were missed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::chaos::Feed;
use crate::faults::Faults;
use crate::log::{self, Record};
use crate::oracle::Expected;
use crate::proxy::Proxy;
use crate::role::{Role, Signal, wait_for};
use crate::world::{World, file_lines};

/// Kills of the consumer.
const KILLS: usize = 8;
/// The cities and event types whose windows are watched.
const WATCHED: [(&str, &str); 3] = [("NYC", "traffic"), ("LA", "traffic"), ("NYC", "incident")];
const RANGE: &str = "from=2013-01-01T00:00:00Z&to=2013-02-02T00:00:00Z";

/// Sends a request over HTTP/1.0, so that the body is not cut into chunks, and returns the connection.
fn request(address: &str, path: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").ok()?;
    Some(stream)
}

/// Returns a JSON answer.
fn get(address: &str, path: &str) -> Value {
    wait_for("an answer", || {
        let mut answer = String::new();
        request(address, path)?.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.contains(" 200 "), "{path}: {answer}");
        serde_json::from_str(body).ok()
    })
}

/// Returns what identifies an event or alert.
fn identity(item: &Value) -> String {
    let names = ["city", "timestamp", "event_id"];
    names.map(|name| item[name].as_str().unwrap()).join(" ")
}

/// Returns the ids of all items of a list, walking over its pages. No page repeats an item of another.
fn walk(address: &str, path: &str, list: &str, limit: usize) -> BTreeSet<String> {
    let (mut ids, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = get(address, &format!("{path}&limit={limit}{cursor}"));
        for item in page[list].as_array().unwrap() {
            let id = identity(item);
            assert!(ids.insert(id.clone()), "{path}: {id} comes twice in a walk");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// What the clients have seen so far.
#[derive(Default)]
struct Seen {
    answers: usize,
    /// The latest counts of `/api/v1/stats`, by name.
    stats: BTreeMap<String, u64>,
    /// The latest of each window, by key.
    windows: BTreeMap<String, Value>,
    /// The items of the latest walk over each list.
    lists: BTreeMap<String, BTreeSet<String>>,
}

impl Seen {
    fn stats(&mut self, stats: &Value) {
        self.answers += 1;
        for (name, count) in stats.as_object().unwrap() {
            let Some(count) = count.as_u64() else {
                continue;
            };
            let before = self.stats.insert(name.clone(), count).unwrap_or(0);
            assert!(before <= count, "{name} fell from {before} to {count}");
        }
    }

    fn window(&mut self, window: &Value) {
        let key = window["partition_key"].as_str().unwrap().to_owned();
        let count = |window: &Value| window["event_count"].as_u64().unwrap();
        if let Some(before) = self.windows.get(&key) {
            assert!(count(before) <= count(window), "{before} became {window}");
            if before["final"] == true {
                assert_eq!(before, window, "a final window changed");
            }
        }
        self.windows.insert(key, window.clone());
    }

    fn list(&mut self, path: &str, ids: BTreeSet<String>) {
        self.answers += 1;
        let before = self.lists.entry(path.to_owned()).or_default();
        let lost: Vec<&String> = before.difference(&ids).collect();
        assert!(lost.is_empty(), "{path}: {lost:?} vanished");
        *before = ids;
    }

    /// Asks each question once.
    fn look(&mut self, address: &str, limit: usize) {
        self.stats(&get(address, "/api/v1/stats"));
        for (city, kind) in WATCHED {
            let path = format!("/api/v1/aggregations?city={city}&event_type={kind}&limit=1000");
            let page = get(address, &path);
            self.answers += 1;
            for window in page["aggregations"].as_array().unwrap() {
                self.window(window);
            }
        }
        let events = format!("/api/v1/events/LA?{RANGE}");
        self.list(&events, walk(address, &events, "events", limit));
        let alerts = format!("/api/v1/alerts?{RANGE}");
        self.list(&alerts, walk(address, &alerts, "alerts", limit));
    }
}

/// Asks until `stop`, and returns what was seen.
fn watch(address: String, stop: Arc<AtomicBool>) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        let mut limits = [97, 500, 233].into_iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            seen.look(&address, limits.next().unwrap());
            std::thread::sleep(Duration::from_millis(500));
        }
        seen
    })
}

/// What a listener of the stream has received.
#[derive(Default)]
struct Heard {
    alerts: BTreeSet<String>,
    resets: usize,
    seen: Seen,
}

/// Listens to the stream until it ends.
fn listen(address: &str) -> JoinHandle<Heard> {
    let stream = request(address, "/api/v1/stream").unwrap();
    std::thread::spawn(move || {
        let (mut heard, mut name) = (Heard::default(), String::new());
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(event) = line.strip_prefix("event: ").or(line.strip_prefix("event:")) {
                name = event.to_owned();
            }
            let Some(data) = line.strip_prefix("data: ").or(line.strip_prefix("data:")) else {
                continue;
            };
            let data: Value = serde_json::from_str(data).unwrap();
            match &*name {
                "stats" => heard.seen.stats(&data),
                "window" => heard.seen.window(&data),
                "reset" => heard.resets += 1,
                "alert" => {
                    heard.alerts.insert(identity(&data));
                }
                _ => {}
            }
        }
        heard
    })
}

/// The clients of one test: one asks all the time, and one listens to the stream.
struct Clients {
    serve: Role,
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Seen>,
    heard: JoinHandle<Heard>,
}

impl Clients {
    fn start(world: &World) -> Clients {
        let mut serve = world.start("serve", &[]);
        serve.is_ready(200, "");
        let stop = Arc::new(AtomicBool::new(false));
        Clients {
            heard: listen(&serve.url()),
            watching: watch(serve.url(), Arc::clone(&stop)),
            stop,
            serve,
        }
    }

    /// Stops the clients, and judges what they have seen of tables that hold what is `expected`.
    fn agree(mut self, expected: &Expected) -> (Seen, Heard) {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = self.watching.join().unwrap();
        // The answers are at most a second old.
        std::thread::sleep(Duration::from_millis(1_500));
        seen.look(&self.serve.url(), 31);
        let raised = &seen.lists[&format!("/api/v1/alerts?{RANGE}")];
        assert_eq!(raised.len(), expected.tables["alerts"].len());
        assert_eq!(seen.stats["total_events_processed"], expected.valid);
        assert_eq!(seen.stats["late_events"], expected.late);
        // The stream has a second for the last alerts.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(self.serve.terminate().0, Some(0), "{}", self.serve.err());
        let heard = self.heard.join().unwrap();
        let missed: Vec<&String> = raised.difference(&heard.alerts).collect();
        assert!(
            missed.is_empty() || heard.resets > 0,
            "no reset says that these were missed: {missed:?}"
        );
        let strange: Vec<&String> = heard.alerts.difference(raised).collect();
        assert!(strange.is_empty(), "{strange:?}");
        assert!(seen.answers > 50, "{}", seen.answers);
        (seen, heard)
    }
}

#[test]
#[ignore = "needs scripts/test-real"]
fn clients_see_a_history_without_contradiction_while_consumers_die() {
    let world = World::new("histories");
    world.init();
    let clients = Clients::start(&world);
    let faults = Faults::new(31, 5);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    let mut feed = Feed::new(&world, KILLS + 1);
    let mut moments = fastrand::Rng::with_seed(7);
    for _ in 0..KILLS {
        feed.more();
        let mut consumer = world.consume_through(&proxy, &["--group-instance-id", "a"]);
        std::thread::sleep(Duration::from_millis(moments.u64(300..2_500)));
        consumer.signal(Signal::Kill);
        assert_eq!(consumer.end(), None, "{}", consumer.err());
    }
    feed.more();
    world.consume_to_the_end_through(&proxy);
    let expected = world.tables_are_exact_behind(&proxy);
    let (seen, heard) = clients.agree(&expected);
    eprintln!(
        "histories: {} answers, {} windows, {} alerts of {} in the stream, {} resets, {KILLS} kills, {} events, faults {:?}",
        seen.answers + heard.seen.answers,
        seen.windows.len(),
        heard.alerts.len(),
        expected.tables["alerts"].len(),
        heard.resets,
        expected.valid,
        faults.seen(),
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn clients_see_a_history_without_contradiction_while_the_topic_is_recreated() {
    let world = World::new("histories-anew");
    world.init();
    let clients = Clients::start(&world);
    let lines = file_lines();
    let mut consume = world.consume(&[]);
    let mut logs = Vec::new();
    // The events of each log are later than all windows of the log before it. A window of a former log counts as final.
    for (round, from) in [0, 6_000, 12_000].into_iter().enumerate() {
        if round > 0 {
            log::delete_topic(world.services, world.name);
            log::make_topic(world.services, world.name, (6, 1), &[]);
        }
        // Nothing is promised about records that are sent before the consumer has switched.
        wait_for("partitions to begin", || {
            let begun = consume.err().matches("partition begins").count();
            (begun >= 6 * (round + 1)).then_some(())
        });
        for part in lines[from..from + 3_000].chunks(1_000) {
            world.produce(part);
        }
        world.has_counted(&mut consume, 3_000 * (round + 1));
        logs.push(world.log());
    }
    assert_eq!(consume.terminate().0, Some(0), "{}", consume.err());
    let logs: Vec<&[Record]> = logs.iter().map(Vec::as_slice).collect();
    let expected = world.tables_hold(&logs);
    let (seen, heard) = clients.agree(&expected);
    eprintln!(
        "histories-anew: {} answers, {} windows, {} resets, {} logs",
        seen.answers + heard.seen.answers,
        seen.windows.len(),
        heard.resets,
        logs.len(),
    );
}
