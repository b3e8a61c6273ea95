//! Writes traces. A trace describes a run of a simulated world as steps of the transition system in `proof/`.
//!
//! `proof/refine.py` accepts a trace only if every line is a step of the transition system. `docs/PROOF.md` describes
//! the lines of a trace. The simulation derives the trace from the inputs and outputs of the pipeline, so the core
//! contains no code for traces.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use citystream_core::plan::{PutTable, RowKey, RowUpdate};
use citystream_core::restart::Boundary;
use serde::Serialize;
use serde_json::{Value, json};

use crate::reference::{LATENESS, Logged, Said, WINDOW};

/// A shared buffer for the lines of one trace. The buffer is still readable after a panic of the simulated world.
pub(crate) type Lines = Arc<Mutex<String>>;

/// Returns true if the environment variable `SIM_TRACES` requests traces.
pub(crate) fn are_wanted() -> bool {
    std::env::var_os("SIM_TRACES").is_some()
}

/// Calls the function `run` and returns its result. If the environment variable `SIM_TRACES` names a folder, `run`
/// receives a buffer and writes the lines of a trace into it. After `run` has returned or panicked, `written` writes the content of the buffer
/// to a file in this folder.
pub(crate) fn written<T>(name: &str, run: impl FnOnce(Option<Lines>) -> T) -> T {
    let Some(folder) = std::env::var_os("SIM_TRACES") else {
        return run(None);
    };
    let lines = Lines::default();
    let given = Some(Arc::clone(&lines));
    let result = catch_unwind(AssertUnwindSafe(|| run(given)));
    let path = Path::new(&folder).join(format!("{name}.ndjson"));
    std::fs::write(path, &*lines.lock().expect("no writer panics")).expect("the folder is there");
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// The name of a count row, in the format of the traces.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Row {
    Totals(&'static str, String),
    Window(&'static str, String, i64),
}

impl Row {
    pub(crate) fn new(series: &str, window_start_ms: Option<i64>) -> Row {
        let series = series.to_owned();
        match window_start_ms {
            None => Row::Totals("totals", series),
            Some(start_ms) => Row::Window("window", series, start_ms),
        }
    }
}

impl From<&RowKey> for Row {
    fn from(row: &RowKey) -> Row {
        Row::new(&row.series, row.window_start_ms.map(|ms| ms.0))
    }
}

/// The content of a row update in the format of the traces.
#[derive(Serialize)]
pub(crate) struct Stretch {
    tables: String,
    of: String,
    row: Row,
    first: i64,
    next: i64,
    amount: u64,
}

impl Stretch {
    pub(crate) fn new(tables: String, update: &RowUpdate) -> Stretch {
        Stretch {
            tables,
            of: update.log_key.to_string(),
            row: (&update.row).into(),
            first: update.first.0,
            next: update.next.0,
            amount: update.sum.events(),
        }
    }
}

/// A restart point in the format of the traces. A restart point consists of the tables, the log, the offset, and the
/// largest event time and the number of events below the offset.
#[derive(Serialize)]
pub(crate) struct Point {
    /// The id of the tables, or `None` for a commit that does not name any tables.
    tables: Option<String>,
    of: Option<String>,
    next: i64,
    max: Option<i64>,
    sums: Option<u64>,
}

impl Point {
    pub(crate) fn new(
        tables: impl Into<Option<String>>,
        of: impl Into<Option<String>>,
        at: Boundary,
    ) -> Point {
        Point {
            tables: tables.into(),
            of: of.into(),
            next: at.next.0,
            max: at.max.max_ms().map(|ms| ms.0),
            sums: at.sums.map(|sums| sums.events()),
        }
    }
}

/// The raw item or the alert of a record in the format of the traces.
#[derive(Serialize)]
pub(crate) struct Item {
    pub(crate) tables: String,
    pub(crate) of: String,
    pub(crate) offset: i64,
    pub(crate) into: &'static str,
}

/// The raw item or the alert of a record, together with the worker that handles the item.
#[derive(Serialize)]
pub(crate) struct Held {
    pub(crate) worker: u64,
    pub(crate) offset: i64,
    pub(crate) into: &'static str,
}

/// Returns the name of a log in traces, which is the same as the log key in the core.
pub(crate) fn log_name(topic_id: &str, partition: i32) -> String {
    format!("{topic_id}#{partition}")
}

/// Returns the name that traces use for a table.
pub(crate) fn into(table: PutTable) -> &'static str {
    match table {
        PutTable::Raw => "raw",
        PutTable::Alerts => "alert",
    }
}

/// The steps of the transition system that can occur in a simulated world, with their parameters.
#[derive(Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    // Steps that no consumer causes, such as the deletion of the tables.
    MakeTables {
        tables: String,
    },
    MakeTopic,
    Expire {
        of: String,
        until: usize,
    },
    Delete {
        tables: String,
        of: String,
    },
    Forget(Point),
    ForgetProgress {
        tables: String,
        of: String,
    },
    // Steps that take effect in DynamoDB or in the dead-letter topic.
    Claim {
        tables: String,
        topic: usize,
    },
    ClaimLands {
        tables: String,
        topic: usize,
    },
    Create {
        tables: String,
        of: String,
        next: i64,
    },
    Restore(Point),
    Publish(Point),
    Land(Stretch),
    Refused(Stretch),
    Store(Item),
    Letter {
        of: String,
        offset: i64,
    },
    // Steps that happen only inside a consumer.
    StartAtCommit {
        worker: u64,
        #[serde(flatten)]
        at: Point,
    },
    StartAtProgress {
        worker: u64,
        tables: String,
        of: String,
    },
    Read {
        worker: u64,
    },
    Skip {
        worker: u64,
    },
    Send {
        worker: u64,
        row: Row,
        first: i64,
        next: i64,
    },
    Acknowledged {
        worker: u64,
        row: Row,
        next: i64,
    },
    Learnt {
        worker: u64,
        row: Row,
        fence: i64,
        until: i64,
    },
    Put(Held),
    PutAcknowledged(Held),
    PutGivenUp(Held),
    LetterAcknowledged {
        worker: u64,
        offset: i64,
    },
    Settle {
        worker: u64,
    },
    Offer {
        worker: u64,
        #[serde(flatten)]
        at: Point,
    },
}

/// Writes the steps of a simulated world to the lines of a trace. A trace ignores all steps before the call of
/// `Trace::begin`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Lines>,
    /// The pairs of tables and topic for which the topic id was written into the config item.
    claimed: BTreeSet<(String, usize)>,
    workers: u64,
}

impl Trace {
    /// Begins a trace that is written to `lines`.
    pub(crate) fn begin(&mut self, lines: Lines) {
        self.lines = Some(lines);
        self.line(&json!({"rules": {"window_ms": WINDOW, "lateness_ms": LATENESS}}));
    }

    pub(crate) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Returns an unused number for a new worker in the trace.
    pub(crate) fn new_worker(&mut self) -> u64 {
        self.workers += 1;
        self.workers
    }

    /// Writes one step to the trace.
    pub(crate) fn step(&self, step: impl FnOnce() -> Step) {
        if self.is_on() {
            self.line(&step());
        }
    }

    /// Writes all records in the logs of a topic to the trace. `items` is true if raw items and alerts are stored.
    pub(crate) fn logs<'a>(
        &self,
        topic: usize,
        logs: impl Iterator<Item = (String, &'a [Logged])>,
        items: bool,
    ) {
        for (name, records) in logs.filter(|_| self.is_on()) {
            self.line(&json!({"log": name, "topic": topic}));
            for logged in records {
                self.line(&record(&name, logged, items));
            }
        }
    }

    /// Notes that a consumer begins to read a topic. The first consumer of a topic writes the topic's id into the
    /// config item of the tables, which is a step of the trace.
    pub(crate) fn claim(&mut self, tables: &str, topic: usize) {
        if self.is_on() && self.claimed.insert((tables.to_owned(), topic)) {
            let tables = tables.to_owned();
            self.line(&Step::Claim {
                tables: tables.clone(),
                topic,
            });
            self.line(&Step::ClaimLands { tables, topic });
        }
    }

    /// Writes the content of the tables to the trace: fences by row and log, events by row, and progress items.
    pub(crate) fn state(&self, tables: &str, fences: &Value, counts: &Value, progress: &Value) {
        let state =
            json!({"tables": tables, "fences": fences, "counts": counts, "progress": progress});
        self.line(&json!({ "state": state }));
    }

    fn line(&self, line: &impl Serialize) {
        let line = serde_json::to_string(line).expect("text and numbers");
        if let Some(lines) = &self.lines {
            let mut lines = lines.lock().expect("no writer panics");
            lines.push_str(&line);
            lines.push('\n');
        }
    }
}

/// Returns the trace line that describes a record of a log.
fn record(log: &str, logged: &Logged, items: bool) -> Value {
    match &logged.said {
        Said::Control => json!({"record": "blank", "log": log}),
        Said::Bad => json!({"record": "rejected", "log": log}),
        Said::Heartbeat(time_ms) => json!({
            "record": "heartbeat", "log": log, "time_ms": time_ms, "future": logged.is_future(*time_ms),
        }),
        Said::Event(city, kind, severity, time_ms, _) => {
            let items = items.then_some(["raw", "alert"]);
            let puts = items.map(|items| items[..1 + usize::from(*severity >= 2)].to_vec());
            json!({
                "record": "event", "log": log, "time_ms": time_ms, "series": format!("{city}#{kind}"),
                "future": logged.is_future(*time_ms), "puts": puts.unwrap_or_default(),
            })
        }
    }
}
