//! The panel on the page of `dev`, which lets a user inject faults. This file holds the state of the panel and the
//! handlers of its HTTP requests.
//!
//! | request | answer |
//! |---|---|
//! | `GET /dev/state` | running actions, past events, and the comparison of log and tables |
//! | `POST /dev/break/{what}` | the state, after starting `kill`, `zombie`, `throttle`, `cut`, `broker`, `receiver` or `garbage` |
//!
//! Only the page of this process may send requests to the panel. A request needs the token from the page and a `Host`
//! header that names this machine. If a request has an `Origin` header, the header must be `http://` followed by the
//! value of `Host`. A page of another site cannot read the token, and cannot send the header that carries the token.

mod actions;

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
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::observe::observed;
use crate::api::ops::Probe as _;
use crate::dev::broker::Broker;
use crate::dev::consumers::Consumers;
use crate::dev::faults::WriteFaults;
use crate::dev::incidents::PageReceiver;
use crate::dev::ports::is_this_machine;
use crate::dev::waiting::{Snapshot, WaitTracker};
use crate::produce::credit::Credit;
use crate::produce::producer::EventProducer;
use crate::shutdown::Shutdown;
use crate::telemetry::{steady_ms, unix_ms};

/// The header that carries the token of the page.
const TOKEN: HeaderName = HeaderName::from_static("x-citystream-token");
/// Maximum number of messages that the panel keeps in its log.
const LOG_LINES_MAX: usize = 30;

/// The parts of `dev` that the panel needs to inject faults.
pub(crate) struct PanelParts {
    /// The active consumer and the zombies.
    pub(crate) consumers: Consumers,
    /// The fault switches of the active consumer's database client.
    pub(crate) faults: WriteFaults,
    /// The receiver of messages about incidents.
    pub(crate) receiver: PageReceiver,
    /// The producer that sends late and invalid events.
    pub(crate) producer: Arc<EventProducer>,
    /// The credit, which limits the number of unsettled records in the embedded broker.
    pub(crate) credit: Credit,
    /// The number of partitions of the topic.
    pub(crate) partitions: i32,
    /// A signal that makes all running actions end.
    pub(crate) shutdown: Shutdown,
    /// The embedded broker, which is dropped last, so that its clients do not log that Kafka is down.
    pub(crate) broker: Broker,
}

/// The panel on the page of `dev`. All clones share the same state.
#[derive(Clone)]
pub(crate) struct Panel(Arc<Inner>);

struct Inner {
    parts: PanelParts,
    token: String,
    /// The current state of each running action, as the panel shows it.
    running: Mutex<BTreeMap<&'static str, String>>,
    log: Mutex<VecDeque<LogLine>>,
    comparison: Mutex<Option<Comparison>>,
    last_request: Mutex<Option<Instant>>,
    waits: Mutex<WaitTracker>,
}

#[derive(Clone, Serialize)]
struct LogLine {
    at_ms: i64,
    text: String,
}

/// The result of a comparison of the log with the tables.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Comparison {
    /// The time of the comparison, in Unix milliseconds.
    pub(crate) at_ms: i64,
    /// Number of events in the log that belong to comparable rows.
    pub(crate) log: i64,
    /// Total number of events that the tables count in all comparable rows.
    pub(crate) tables: i64,
    /// Number of rows in which the tables differ from the log.
    pub(crate) difference: u64,
    /// True if at least one row of counts was compared. If no row of counts was compared, the fields `log` and `tables`
    /// are both 0, and this equality says nothing about the tables.
    pub(crate) compares_counts: bool,
    /// Number of rows that were compared.
    pub(crate) rows: u64,
    /// Number of rows that could not be compared.
    pub(crate) not_comparable: u64,
    /// The reason why some rows could not be compared, or `None` if all rows were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_comparable_why: Option<String>,
    /// Number of events in the log that no consumer has stored yet.
    pub(crate) waiting: u64,
    /// A description of the first row in which the tables differ from the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<String>,
}

#[derive(Serialize)]
struct RunningAction {
    what: &'static str,
    says: String,
}

/// The JSON response to every request to the panel.
#[derive(Serialize)]
struct PanelState {
    running: Vec<RunningAction>,
    log: Vec<LogLine>,
    difference: Option<Comparison>,
    /// The reason why the numbers on the page do not change, or `None` while the numbers change.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
}

impl Panel {
    /// Returns a panel that accepts only requests with the given token.
    pub(crate) fn new(parts: PanelParts, token: String) -> Panel {
        Panel(Arc::new(Inner {
            parts,
            token,
            running: Mutex::default(),
            log: Mutex::default(),
            comparison: Mutex::default(),
            last_request: Mutex::default(),
            waits: Mutex::default(),
        }))
    }

    /// Returns the routes of the panel.
    pub(crate) fn router(&self) -> Router {
        let metrics = self.0.parts.consumers.metrics.clone();
        let router = Router::new()
            .route("/dev/state", get(answer_state))
            .route("/dev/break/{what}", post(start_action))
            .layer(from_fn_with_state(self.clone(), require_own_page))
            .with_state(self.clone());
        observed(router, metrics)
    }

    /// Returns true if an open page has sent a request within the duration `within`.
    pub(crate) fn is_watched(&self, within: Duration) -> bool {
        lock(&self.0.last_request).is_some_and(|at| at.elapsed() < within)
    }

    /// Stores the result of a comparison.
    pub(crate) fn set_comparison(&self, comparison: Comparison) {
        *lock(&self.0.comparison) = Some(comparison);
    }

    fn log(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(text, "the panel");
        let mut lines = lock(&self.0.log);
        lines.push_front(LogLine {
            at_ms: unix_ms().0,
            text,
        });
        lines.truncate(LOG_LINES_MAX);
    }

    fn state(&self) -> Response {
        *lock(&self.0.last_request) = Some(Instant::now());
        let running = lock(&self.0.running).clone();
        let state = PanelState {
            running: running
                .into_iter()
                .map(|(what, says)| RunningAction { what, says })
                .collect(),
            log: lock(&self.0.log).iter().cloned().collect(),
            difference: lock(&self.0.comparison).clone(),
            waiting: self.explain_wait(),
        };
        ([(CACHE_CONTROL, "no-store")], Json(state)).into_response()
    }

    /// Returns the reason why the numbers on the page do not change, or `None` while the numbers change.
    fn explain_wait(&self) -> Option<String> {
        let parts = &self.0.parts;
        let ledger = parts.consumers.ledger();
        let lag = parts.consumers.metrics.lag().map_or(0, |(_, lag)| lag);
        let undelivered = parts.producer.deliveries().counts().undelivered();
        let now = Snapshot {
            now_ms: steady_ms(),
            broker_stopped: self.is_running("broker"),
            consumer: parts.consumers.status.ready().err(),
            writes_fail: self.is_running("throttle") || self.is_running("cut"),
            settled: ledger.consumed.saturating_sub(ledger.in_flight),
            pending: undelivered + ledger.in_flight + u64::try_from(lag).unwrap_or(0),
        };
        lock(&self.0.waits).explain(&now)
    }

    fn is_running(&self, what: &str) -> bool {
        lock(&self.0.running).contains_key(what)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic holds the lock")
}

async fn answer_state(State(panel): State<Panel>) -> Response {
    panel.state()
}

async fn start_action(
    State(panel): State<Panel>,
    Path(what): Path<String>,
) -> Result<Response, ApiError> {
    if panel.start(&what) {
        Ok(panel.state())
    } else {
        Err(ApiError::not_found())
    }
}

async fn require_own_page(State(panel): State<Panel>, request: Request, next: Next) -> Response {
    match check_request(request.headers(), &panel.0.token) {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::forbidden(why).into_response(),
    }
}

/// Returns an error unless the page of this process has sent the request.
fn check_request(headers: &HeaderMap, token: &str) -> Result<(), &'static str> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text(HOST).unwrap_or_default();
    if !is_this_machine(host) {
        return Err("only a page of this machine may inject faults");
    }
    if text(ORIGIN).is_some_and(|origin| origin != format!("http://{host}")) {
        return Err("a page of another site may not inject faults");
    }
    if text(TOKEN) != Some(token) {
        return Err("the token belongs to another process; load the page again");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_of_this_process_may_break_things() {
        let valid = [
            ("host", "127.0.0.1:8082"),
            ("origin", "http://127.0.0.1:8082"),
            ("x-citystream-token", "abc"),
        ];
        let ask = |changes: &[(&str, Option<&str>)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in valid {
                headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            }
            for (name, value) in changes {
                let name: HeaderName = name.parse().unwrap();
                match value {
                    Some(value) => drop(headers.insert(name, value.parse().unwrap())),
                    None => drop(headers.remove(name)),
                }
            }
            check_request(&headers, "abc").is_ok()
        };
        assert!(ask(&[]));
        assert!(ask(&[("origin", None)]), "a GET request has no origin");
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
