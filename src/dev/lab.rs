//! The panel that breaks things: what it can do, what is under way, what came of it.
//!
//! | request | |
//! |---|---|
//! | `GET /dev/state` | what runs, what happened, how log and tables compare |
//! | `POST /dev/break/{what}` | `kill` `zombie` `throttle` `cut` `broker` `garbage` |
//!
//! Only the page of this process may ask: both want the token that stands in it, a `Host` that is this
//! machine's, and an `Origin`, where there is one, that is the same. Another site can send neither
//! that header nor read the page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus::core::Collector as _;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::observe::observed;
use crate::api::ops::Probe as _;
use crate::core::murmur2::partition_of;
use crate::dev::broker::Broker;
use crate::dev::consumers::Consumers;
use crate::dev::doors::is_this_machine;
use crate::dev::faults::Faults;
use crate::dev::garbage;
use crate::dev::waits::{Look, Waits, plain};
use crate::kafka::producer::EventProducer;
use crate::produce::credit::Credit;
use crate::shutdown::Shutdown;
use crate::telemetry::{steady_ms, unix_ms};

/// The header that carries the page's token.
const TOKEN: HeaderName = HeaderName::from_static("x-citystream-token");
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(10);
/// How much longer one lasts that has hit nothing yet.
const FAULT_MAX: Duration = Duration::from_secs(60);
/// How often a note is looked at.
const SECOND: Duration = Duration::from_secs(1);
/// Lines of what happened that are kept.
const LINES_MAX: usize = 30;
/// Between two attempts to send while the embedded broker has no room.
const CREDIT_PAUSE: Duration = Duration::from_millis(5);

/// What the panel breaks.
pub(super) struct Parts {
    pub(super) consumers: Consumers,
    pub(super) faults: Faults,
    pub(super) producer: Arc<EventProducer>,
    pub(super) credit: Credit,
    pub(super) partitions: i32,
    pub(super) shutdown: Shutdown,
    /// The last to be dropped: a client that outlived it would say that Kafka is away.
    pub(super) broker: Broker,
}

/// The panel. Clones are the same.
#[derive(Clone)]
pub(super) struct Lab(Arc<Inner>);

struct Inner {
    parts: Parts,
    token: String,
    running: Mutex<BTreeMap<&'static str, String>>,
    lines: Mutex<VecDeque<Line>>,
    difference: Mutex<Option<Difference>>,
    looked: Mutex<Option<Instant>>,
    waits: Mutex<Waits>,
}

#[derive(Clone, Serialize)]
struct Line {
    at_ms: i64,
    text: String,
}

/// How log and tables compare.
#[derive(Clone, Default, Serialize)]
pub(super) struct Difference {
    /// When it was found.
    pub(super) at_ms: i64,
    /// Events of the log in all rows that can be compared.
    pub(super) log: i64,
    /// Events of the tables in the same rows.
    pub(super) tables: i64,
    /// Rows that differ.
    pub(super) difference: u64,
    /// True if rows of counts were compared. Otherwise the sums are those of no row, and equal for that reason alone.
    pub(super) compares_counts: bool,
    /// Rows that were compared.
    pub(super) rows: u64,
    /// Rows that could not be compared.
    pub(super) not_comparable: u64,
    /// Why those could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_comparable_why: Option<String>,
    /// Events of the log that no consumer has stored yet.
    pub(super) waiting: u64,
    /// The first row that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<String>,
}

#[derive(Serialize)]
struct Running {
    what: &'static str,
    says: String,
}

#[derive(Serialize)]
struct Shown {
    running: Vec<Running>,
    log: Vec<Line>,
    difference: Option<Difference>,
    /// What the numbers wait for, if they stand still.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
}

impl Lab {
    /// Returns a panel that listens to whoever knows `token`.
    pub(super) fn new(parts: Parts, token: String) -> Lab {
        Lab(Arc::new(Inner {
            parts,
            token,
            running: Mutex::default(),
            lines: Mutex::default(),
            difference: Mutex::default(),
            looked: Mutex::default(),
            waits: Mutex::default(),
        }))
    }

    /// Returns the routes.
    pub(super) fn router(&self) -> Router {
        let metrics = self.0.parts.consumers.metrics.clone();
        let router = Router::new()
            .route("/dev/state", get(state))
            .route("/dev/break/{what}", post(broken))
            .layer(from_fn_with_state(self.clone(), guard))
            .with_state(self.clone());
        observed(router, metrics)
    }

    /// Tells whether a page asked within this time.
    pub(super) fn is_watched(&self, within: Duration) -> bool {
        lock(&self.0.looked).is_some_and(|at| at.elapsed() < within)
    }

    /// Notes how log and tables compare.
    pub(super) fn compared(&self, difference: Difference) {
        *lock(&self.0.difference) = Some(difference);
    }

    fn say(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(text, "the panel");
        let mut lines = lock(&self.0.lines);
        lines.push_front(Line {
            at_ms: unix_ms(),
            text,
        });
        lines.truncate(LINES_MAX);
    }

    fn shown(&self) -> Response {
        *lock(&self.0.looked) = Some(Instant::now());
        let running = lock(&self.0.running).clone();
        let shown = Shown {
            running: running
                .into_iter()
                .map(|(what, says)| Running { what, says })
                .collect(),
            log: lock(&self.0.lines).iter().cloned().collect(),
            difference: lock(&self.0.difference).clone(),
            waiting: self.waiting(),
        };
        ([(CACHE_CONTROL, "no-store")], Json(shown)).into_response()
    }

    /// Returns what the numbers wait for.
    fn waiting(&self) -> Option<String> {
        let parts = &self.0.parts;
        let ledger = parts.consumers.ledger();
        let lag = parts.consumers.metrics.lag().map_or(0, |(_, lag)| lag);
        let undelivered = parts.producer.tally().counts().undelivered();
        let look = Look {
            now_ms: steady_ms(),
            broker_stopped: self.runs("broker"),
            consumer: parts.consumers.status.ready().err(),
            writes_fail: self.runs("throttle") || self.runs("cut"),
            settled: ledger.consumed.saturating_sub(ledger.in_flight),
            behind: undelivered + ledger.in_flight + u64::try_from(lag).unwrap_or(0),
        };
        lock(&self.0.waits).look(&look)
    }

    fn runs(&self, what: &str) -> bool {
        lock(&self.0.running).contains_key(what)
    }

    /// Begins something unless it is under way already; tells whether there is such a thing.
    fn begin(&self, what: &str) -> bool {
        let Some((what, says)) = [
            ("kill", "waiting for its successor"),
            ("zombie", "it reads, and sends nothing yet"),
            ("throttle", "refusing writes"),
            ("cut", "cutting replies"),
            ("broker", "Kafka is gone"),
            ("garbage", "sending"),
        ]
        .into_iter()
        .find(|(name, _)| *name == what) else {
            return false;
        };
        let mut running = lock(&self.0.running);
        if running.contains_key(what) {
            return true;
        }
        running.insert(what, says.to_owned());
        drop(running);
        let lab = self.clone();
        tokio::spawn(async move {
            match what {
                "kill" => lab.kill().await,
                "zombie" => lab.zombie().await,
                "throttle" => lab.throttle().await,
                "cut" => lab.cut().await,
                "broker" => lab.broker().await,
                _ => lab.garbage().await,
            }
            lock(&lab.0.running).remove(what);
        });
        true
    }

    async fn kill(&self) {
        self.say("killed the consumer: nothing drained, nothing committed");
        let told = async {
            loop {
                if let Err(why) = self.0.parts.consumers.status.ready() {
                    self.note("kill", format!("its successor: {}", plain(&why)));
                }
                tokio::time::sleep(SECOND).await;
            }
        };
        tokio::select! {
            () = self.0.parts.consumers.kill() => {}
            () = told => {}
        }
        self.say("a new consumer goes on from the last commit");
    }

    async fn zombie(&self) {
        let parts = &self.0.parts;
        while self.runs("broker") {
            self.note(
                "zombie",
                "it waits for the broker, to have something to read",
            );
            tokio::time::sleep(SECOND).await;
        }
        self.note("zombie", "it reads, and sends nothing yet");
        self.say(
            "a second consumer reads everything since the last restart point, beside the first",
        );
        let woken = || {
            self.note("zombie", "it writes what it read");
            self.say("the zombie wakes up and writes, as if it were alone");
        };
        let ended = parts.consumers.zombie(&parts.shutdown, &woken).await;
        self.say(match ended {
            Ok(ledger) => format!(
                "the zombie is gone: of {} records it found {} counted already, and counted {} itself",
                ledger.consumed,
                ledger.already_counted,
                ledger.counted + ledger.late,
            ),
            Err(error) => format!("the zombie did not get up: {error:#}"),
        });
    }

    async fn throttle(&self) {
        let faults = &self.0.parts.faults;
        let before = faults.refused();
        self.say("DynamoDB refuses four of five writes");
        faults.throttle(true);
        let refused = || faults.refused() - before;
        self.hold("throttle", "four of five writes are refused", &refused)
            .await;
        faults.throttle(false);
        self.say(match refused() {
            0 => "DynamoDB takes writes again; no write came meanwhile, so none was refused"
                .to_owned(),
            count => format!("DynamoDB takes writes again; {count} were refused"),
        });
    }

    async fn cut(&self) {
        let faults = &self.0.parts.faults;
        let before = faults.answers_lost();
        self.say("every write takes effect, and every answer to one is lost");
        faults.cut_replies(true);
        let lost = || faults.answers_lost() - before;
        self.hold("cut", "answers are lost", &lost).await;
        faults.cut_replies(false);
        self.say(match lost() {
            0 => {
                "answers arrive again; no write took effect meanwhile, so none was lost".to_owned()
            }
            count => format!("answers arrive again; {count} were lost"),
        });
    }

    async fn broker(&self) {
        let broker = &self.0.parts.broker;
        self.say("the broker is down");
        broker.set_reachable(false);
        self.count_down("broker", "Kafka is gone").await;
        broker.set_reachable(true);
        self.say("the broker is back");
    }

    async fn garbage(&self) {
        let garbage = {
            let marks = self.watermarks();
            let partitions = self.0.parts.partitions;
            garbage::garbage(|city| {
                marks
                    .get(&partition_of(city.as_bytes(), partitions))
                    .copied()
            })
        };
        let (lab, late) = (self.clone(), garbage.late);
        let sent = tokio::task::spawn_blocking(move || lab.send(&garbage.events)).await;
        self.say(match sent {
            Ok(Ok(count)) => format!(
                "sent {late} late events and {} broken ones",
                count.saturating_sub(late)
            ),
            Ok(Err(error)) => format!("could not send: {error:#}"),
            Err(error) => format!("could not send: {error}"),
        });
    }

    /// Sends events beside the source's; returns how many. Blocks.
    fn send(&self, events: &[(String, Vec<u8>)]) -> anyhow::Result<usize> {
        let parts = &self.0.parts;
        for (sent, (city, value)) in events.iter().enumerate() {
            let partition = partition_of(city.as_bytes(), parts.partitions);
            // The source may send between these two lines: then two neighbours have each other's
            // size on the account, and their sum is right.
            while !parts.credit.try_take(partition, city.len() + value.len()) {
                if parts.shutdown.is_triggered() {
                    return Ok(sent);
                }
                std::thread::sleep(CREDIT_PAUSE);
            }
            if !parts.producer.send(city, value, &parts.shutdown)? {
                return Ok(sent);
            }
        }
        Ok(events.len())
    }

    /// Returns the watermarks of the partitions that have one, in Unix milliseconds.
    #[allow(clippy::cast_possible_truncation)]
    fn watermarks(&self) -> BTreeMap<i32, i64> {
        let families = self.0.parts.consumers.metrics.watermark_seconds.collect();
        let samples = families.iter().flat_map(|family| family.get_metric());
        samples
            .filter_map(|sample| {
                let partition = sample.get_label().first()?.value().parse().ok()?;
                let seconds = sample.get_gauge().get_value();
                (seconds > 0.0).then_some((partition, (seconds * 1_000.0) as i64))
            })
            .collect()
    }

    fn note(&self, what: &'static str, says: impl Into<String>) {
        if let Some(line) = lock(&self.0.running).get_mut(what) {
            *line = says.into();
        }
    }

    /// Waits for [`FAULT`] and until the fault has hit something: with the broker stopped there is
    /// nothing to write at first. Gives up after [`FAULT_MAX`].
    async fn hold(&self, what: &'static str, says: &str, hits: &(dyn Fn() -> u64 + Sync)) {
        self.count_down(what, says).await;
        let begun = Instant::now();
        while hits() == 0 && begun.elapsed() < FAULT_MAX {
            self.note(what, "it waits for a write");
            tokio::time::sleep(SECOND).await;
        }
    }

    async fn count_down(&self, what: &'static str, says: &str) {
        for left in (1..=FAULT.as_secs()).rev() {
            self.note(what, format!("{says}, {left} s to go"));
            tokio::time::sleep(SECOND).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic holds the lock")
}

async fn state(State(lab): State<Lab>) -> Response {
    lab.shown()
}

async fn broken(State(lab): State<Lab>, Path(what): Path<String>) -> Result<Response, ApiError> {
    if lab.begin(&what) {
        Ok(lab.shown())
    } else {
        Err(ApiError::not_found())
    }
}

async fn guard(State(lab): State<Lab>, request: Request, next: Next) -> Response {
    match check(request.headers(), &lab.0.token) {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::forbidden(why).into_response(),
    }
}

/// Tells whether a request is the page's own.
fn check(headers: &HeaderMap, token: &str) -> Result<(), &'static str> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text(HOST).unwrap_or_default();
    if !is_this_machine(host) {
        return Err("only this machine may break things");
    }
    if text(ORIGIN).is_some_and(|origin| origin != format!("http://{host}")) {
        return Err("another site may not break things");
    }
    if text(TOKEN) != Some(token) {
        return Err("the token is not this page's; load the page again");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_page_may_break_things() {
        let own = [
            ("host", "127.0.0.1:8082"),
            ("origin", "http://127.0.0.1:8082"),
            ("x-citystream-token", "abc"),
        ];
        let ask = |changes: &[(&str, Option<&str>)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in own {
                headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            }
            for (name, value) in changes {
                let name: HeaderName = name.parse().unwrap();
                match value {
                    Some(value) => drop(headers.insert(name, value.parse().unwrap())),
                    None => drop(headers.remove(name)),
                }
            }
            check(&headers, "abc").is_ok()
        };
        assert!(ask(&[]));
        assert!(ask(&[("origin", None)]), "a GET of the page has none");
        let local = [
            ("host", Some("localhost:9")),
            ("origin", Some("http://localhost:9")),
        ];
        assert!(ask(&local));
        for changes in [
            [("origin", Some("http://evil.example"))],
            [("origin", Some("null"))],
            [("origin", Some("https://127.0.0.1:8082"))],
            [("origin", Some("http://127.0.0.1:9"))],
            [("host", Some("rebound.example:8082"))],
            [("host", None)],
            [("x-citystream-token", Some("abd"))],
            [("x-citystream-token", None)],
        ] {
            assert!(!ask(&changes), "{changes:?}");
        }
    }
}
