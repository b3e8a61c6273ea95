//! Traces describe what happens in a simulated world, as steps of the transition system in `proof/`.
//!
//! `proof/refine.py` accepts a trace only if every line is a step of this transition system. `docs/PROOF.md` describes
//! the lines. The simulated world writes the trace from the inputs and outputs of the pipeline, and the core does not
//! know about traces.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use citystream_core::plan::{PutTable, RowKey, RowUpdate};
use citystream_core::restart::Boundary;
use serde::Serialize;
use serde_json::{Value, json};

use crate::reference::{LATENESS, Logged, Said, WINDOW};

/// The lines of one trace, which are kept even if the world panics.
pub(crate) type Lines = Arc<Mutex<String>>;

/// Returns true if traces are requested.
pub(crate) fn are_wanted() -> bool {
    std::env::var_os("SIM_TRACES").is_some()
}

/// Calls `run` and returns its result. If the environment variable `SIM_TRACES` names a folder, `run` gets a buffer for
/// lines. The function writes the lines to a file in the folder, even if `run` panics.
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

/// The name of a row in traces.
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

/// A row update as traces describe it.
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

/// A restart point: tables, log and offset, and the largest event time and the number of events below the offset.
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

/// The item of a record, as traces describe it.
#[derive(Serialize)]
pub(crate) struct Item {
    pub(crate) tables: String,
    pub(crate) of: String,
    pub(crate) offset: i64,
    pub(crate) into: &'static str,
}

/// The item of a record, with the worker that handles the item.
#[derive(Serialize)]
pub(crate) struct Held {
    pub(crate) worker: u64,
    pub(crate) offset: i64,
    pub(crate) into: &'static str,
}

/// Returns the name of a log in traces, which must be the same as in the core.
pub(crate) fn log_name(topic_id: &str, partition: i32) -> String {
    format!("{topic_id}#{partition}")
}

/// Returns the name of a table in traces.
pub(crate) fn into(table: PutTable) -> &'static str {
    match table {
        PutTable::Raw => "raw",
        PutTable::Alerts => "alert",
    }
}

/// The steps of the transition system that a simulated world can take, with their parameters.
#[derive(Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    // These steps are caused from outside the consumers.
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
    // These steps take effect in DynamoDB and in the dead-letter topic.
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
    // These steps happen in a consumer.
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

/// Writes the steps of a world to the lines of a trace. If no trace was begun, the steps are dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Lines>,
    /// Pairs of tables and topic for which the topic id was written into the config item.
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

    /// Returns a number that no earlier worker has had.
    pub(crate) fn new_worker(&mut self) -> u64 {
        self.workers += 1;
        self.workers
    }

    /// Writes a step to the trace.
    pub(crate) fn step(&self, step: impl FnOnce() -> Step) {
        if self.is_on() {
            self.line(&step());
        }
    }

    /// Writes the logs of a topic with all of their records. `items` is true if raw items and alerts are stored.
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

    /// Notes that a consumer begins with a topic id, which was written into the config item.
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

    /// Writes the content of the tables: fences by row and log, events by row, and progress items.
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

/// Returns the line of a trace for a record.
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
