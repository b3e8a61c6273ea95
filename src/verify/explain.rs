//! `verify --explain`: shows which records make up the counts of one window.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::core::audit::{Counts, Fence, FoundRow, Key, Lateness, Log, Watermark};
use crate::core::clock::UnixMs;
use crate::core::event::{Event, Offset, Severity};
use crate::core::parse::{self, Body};
use crate::core::time::{format_millis, format_seconds, parse_timestamp};
use crate::core::window::Rules;
use crate::exit::{Exit, SettingsError};
use crate::kafka::reader::LogRecord;
use crate::settings::{VerifyOutput, WindowName, nearest};
use crate::shutdown::Shutdown;
use crate::store::reads::audit::RollupView;
use crate::telemetry::Metrics;
use crate::verify::compare::{CompareSource, Facts, stamp};
use crate::verify::report::printable;

/// Maximum number of series names that are kept, to suggest another window if the requested window does not exist.
const SERIES_MAX: usize = 1_000;

/// Follows and counts the records of one window while the log is read.
struct WindowTrace {
    window: WindowName,
    rules: Rules,
    topic: String,
    found: FoundRow,
    logs: BTreeMap<i32, (Log, Watermark)>,
    /// For each partition: the offset of the record that last moved the partition's watermark.
    moved_by: BTreeMap<i32, Offset>,
    counts: Counts,
    late: u64,
    rejected: u64,
    waiting: u64,
    unknown: u64,
    /// The series (`city#event_type`) of the events that the log contains.
    series: BTreeSet<String>,
    output: VerifyOutput,
    out: Arc<Mutex<dyn Write + Send>>,
}

/// Prints which records of the window were counted and which were not, each with the reason. Returns [`Exit::Failed`]
/// if the window's row differs from the log, or if neither the log nor the tables contain the window.
///
/// # Errors
/// Returns an error if the log or the tables cannot be read, or if no window starts at the given time.
pub async fn explain_window(
    source: &CompareSource,
    window: WindowName,
    output: VerifyOutput,
    out: Arc<Mutex<dyn Write + Send>>,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> anyhow::Result<Exit> {
    let facts = Facts::find(source, metrics).await?;
    let rules = facts.config.rules;
    let start_ms = rules.window_start(window.start_ms);
    if start_ms != window.start_ms {
        let what = format!(
            "--explain: no window starts at {}",
            format_seconds(window.start_ms)
        );
        let remedy = format!(
            "the window around it starts at {}",
            format_seconds(start_ms)
        );
        return Err(SettingsError::new(what).with_remedy(remedy).into());
    }
    let claims = facts.claims().await?;
    let key = Key::window(&window.city, &window.event_type, start_ms);
    let view = facts.view((UnixMs(0), UnixMs(i64::MAX)), RollupView::default());
    let rows = facts.audit.rows(vec![key.clone()], &view).await;
    let row = rows.context("failed to read the row")?.remove(&key);
    let logs = claims.logs.iter();
    let trace = WindowTrace {
        rules,
        topic: source.topic.clone(),
        found: row.clone().unwrap_or_default(),
        logs: logs
            .map(|(p, log)| {
                (
                    *p,
                    (*log, Watermark::new(log.start.0 > 0, log.before_max_ms)),
                )
            })
            .collect(),
        moved_by: BTreeMap::new(),
        counts: Counts::default(),
        late: 0,
        rejected: 0,
        waiting: 0,
        unknown: 0,
        series: BTreeSet::new(),
        window,
        output,
        out: Arc::clone(&out),
    };
    let traced = facts
        .each_record(shutdown, trace, |trace, record| Ok(trace.take(record)?))
        .await;
    let Some(trace) = ignore_closed_pipe(traced)? else {
        return Ok(Exit::Failed);
    };
    let Some(trace) = trace else {
        return Ok(Exit::Done);
    };
    let verdict = trace.verdict(row.as_ref());
    let printed = trace.print_summary(&key, row.as_ref(), verdict);
    ignore_closed_pipe(printed.map_err(anyhow::Error::new).map(Some))?;
    Ok(match verdict {
        WindowVerdict::Differs | WindowVerdict::Nowhere => Exit::Failed,
        WindowVerdict::Agrees | WindowVerdict::NotComparable => Exit::Done,
    })
}

/// Converts the error of a closed output pipe to `Ok(Some(None))`, and wraps the value of any other `Ok(Some(x))` in a
/// second `Some`. All other results stay unchanged.
fn ignore_closed_pipe<T>(result: anyhow::Result<Option<T>>) -> anyhow::Result<Option<Option<T>>> {
    match result {
        Ok(value) => Ok(value.map(Some)),
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::BrokenPipe => Ok(Some(None)),
            _ => Err(error),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WindowVerdict {
    Agrees,
    Differs,
    NotComparable,
    /// Neither the log nor the tables contain the window, so the name of the window is probably wrong.
    Nowhere,
}

/// The outcome of one record of the window, such as `late` or `rejected`.
struct Fate {
    name: &'static str,
    /// The reason for the outcome, or an empty string if the outcome needs no reason.
    why: String,
}

impl Fate {
    fn new(name: &'static str, why: impl Into<String>) -> Fate {
        Fate {
            name,
            why: why.into(),
        }
    }
}

impl WindowTrace {
    fn take(&mut self, record: &LogRecord) -> io::Result<()> {
        let partition = record.partition;
        let Some((log, watermark)) = self.logs.get_mut(&partition) else {
            return Ok(());
        };
        let (log, before) = (*log, *watermark);
        let moved_by = self.moved_by.get(&partition).copied();
        let event = match &record.body {
            Ok(Body::Heartbeat(time_ms)) => {
                watermark.pass(*time_ms, stamp(record), &self.rules);
                self.note_move(partition, before, record.offset);
                return Ok(());
            }
            Err(reject) => {
                let value = record.value.as_deref().unwrap_or_default();
                if !self.may_belong(value) {
                    return Ok(());
                }
                self.rejected += 1;
                let fate = Fate::new("rejected", reject.to_string());
                return self.line(record, None, &fate);
            }
            Ok(Body::Event(event)) => event,
        };
        let late = watermark.pass(event.time_ms, stamp(record), &self.rules);
        self.note_move(partition, before, record.offset);
        self.note_series(&event.city, &event.event_type);
        if !self.is_in_window(event) {
            return Ok(());
        }
        let mut fate = match late {
            Lateness::Late => {
                self.late += 1;
                let max_ms = before.seen_ms().unwrap_or_default();
                Fate {
                    name: "late",
                    why: format!(
                        "the watermark was {} because of the record at offset {}; counted in the totals' late_count",
                        format_millis(max_ms.saturating_sub(self.rules.lateness_ms)),
                        moved_by.map_or("?".to_owned(), |o| o.to_string())
                    ),
                }
            }
            Lateness::Unknown => {
                self.unknown += 1;
                let why = "whether it is late depends on records that the log no longer has";
                Fate::new("unclear", why)
            }
            Lateness::InTime => {
                self.count_in_time(partition, record.offset, log.claim, event.severity)
            }
        };
        if self.rules.is_future(event.time_ms, record.record_ms) {
            let future = "future, so it did not move the watermark";
            let separator = if fate.why.is_empty() { "" } else { "; " };
            fate.why.push_str(&format!("{separator}{future}"));
        }
        let id = match &event.event_id {
            Some(id) => id.to_string(),
            None => format!("{}-{partition}-{}", self.topic, record.offset),
        };
        self.line(
            record,
            Some((event.time_ms, event.severity.name(), &id)),
            &fate,
        )
    }

    fn is_in_window(&self, event: &Event) -> bool {
        *event.city == *self.window.city
            && *event.event_type == *self.window.event_type
            && self.rules.window_start(event.time_ms) == self.window.start_ms
    }

    /// Returns the outcome of an event that is not late. The function counts the event if the window's row should
    /// contain the event. `claim` is the offset before which, according to the consumers, all records are stored.
    fn count_in_time(
        &mut self,
        partition: i32,
        offset: Offset,
        claim: Offset,
        severity: Severity,
    ) -> Fate {
        let fences = self.found.fences.iter();
        let mut fences = fences.filter(|fence| fence.partition == partition);
        let (name, why) = if fences.any(|fence| offset < fence.next) {
            ("counted", String::new())
        } else if offset < claim {
            let why = format!(
                "consumers report everything below offset {claim} as stored, but the row's fence is below this record"
            );
            ("missing", why)
        } else {
            self.waiting += 1;
            let why = "no consumer has reported it as stored yet";
            return Fate::new("waiting", why);
        };
        self.counts.event_count += 1;
        self.counts.severities[severity.index()] += 1;
        Fate::new(name, why)
    }

    fn note_move(&mut self, partition: i32, before: Watermark, offset: Offset) {
        let now = self.logs.get(&partition).map(|(_, w)| w.seen_ms());
        if now != Some(before.seen_ms()) {
            self.moved_by.insert(partition, offset);
        }
    }

    fn note_series(&mut self, city: &str, event_type: &str) {
        if self.series.len() < SERIES_MAX {
            let name = format!("{city}#{event_type}");
            self.series.insert(name);
        }
    }

    /// Returns a suggestion for another window name, based on the series in the log.
    fn hint(&self) -> Option<String> {
        let asked = format!("{}#{}", self.window.city, self.window.event_type);
        if self.series.contains(&asked) {
            return Some(format!("{asked} has events, in other windows only"));
        }
        let nearest = nearest(&asked, self.series.iter().map(String::as_str))?;
        Some(format!("did you mean {nearest}?"))
    }

    /// Returns true if the readable fields of a rejected record agree with the window.
    fn may_belong(&self, value: &[u8]) -> bool {
        let Ok(Value::Object(fields)) = serde_json::from_slice(value) else {
            return false;
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let city = text("city").map(|c| parse::trim(c) == self.window.city);
        let kind = text("event_type").map(|k| k.eq_ignore_ascii_case(&self.window.event_type));
        let time = text("timestamp").and_then(parse_timestamp);
        let time = time.map(|ms| self.rules.window_start(ms) == self.window.start_ms);
        // A rejected record may belong to the window only if at most one of city, event type and time is unreadable.
        let read = [city, kind, time];
        read.iter().filter(|r| r.is_none()).count() <= 1 && read.iter().all(|r| r.unwrap_or(true))
    }

    fn line(
        &self,
        record: &LogRecord,
        event: Option<(UnixMs, &str, &str)>,
        fate: &Fate,
    ) -> io::Result<()> {
        let (partition, offset) = (record.partition, record.offset);
        let mut out = self.out.lock().expect("no panic holds the output");
        match self.output {
            VerifyOutput::Json => {
                let event = event.map(|(ms, severity, id)| {
                    json!({"timestamp": format_millis(ms), "severity": severity, "event_id": id})
                });
                let line = json!({
                    "partition": partition, "offset": offset.0, "fate": fate.name,
                    "why": fate.why, "event": event,
                });
                writeln!(out, "{line}")
            }
            VerifyOutput::Text => {
                let event = event.map_or(String::new(), |(ms, severity, id)| {
                    format!("  {}  {severity:<8}  {id}", format_millis(ms))
                });
                let mut line = format!(
                    "partition {partition}  offset {offset:<8}  {:<8}{event}",
                    fate.name
                );
                if !fate.why.is_empty() {
                    line = format!("{}  ({})", line.trim_end(), fate.why);
                }
                writeln!(out, "{}", printable(line.trim_end()))
            }
        }
    }

    fn verdict(&self, row: Option<&FoundRow>) -> WindowVerdict {
        let is_older = |f: &Fence| {
            let log = self.logs.get(&f.partition);
            log.is_some_and(|(log, _)| f.first < log.start)
        };
        match row {
            _ if self.unknown > 0 => WindowVerdict::NotComparable,
            Some(row) if row.foreign || row.fences.iter().any(is_older) => {
                WindowVerdict::NotComparable
            }
            Some(row) if row.counts == self.counts && row.odd.is_none() => WindowVerdict::Agrees,
            None if self.counts == Counts::default() => {
                match self.late + self.rejected + self.waiting {
                    0 => WindowVerdict::Nowhere,
                    _ => WindowVerdict::Agrees,
                }
            }
            Some(_) | None => WindowVerdict::Differs,
        }
    }

    fn json(&self, key: &Key, row: Option<&FoundRow>, verdict: &str) -> Value {
        let counts = |c: &Counts| {
            let [low, medium, high, critical] = c.severities;
            json!({
                "event_count": c.event_count, "severity_low": low, "severity_medium": medium,
                "severity_high": high, "severity_critical": critical,
            })
        };
        let fence =
            |f: &Fence| json!({"partition": f.partition, "first": f.first.0, "next": f.next.0});
        json!({
            "window": key.in_table(), "verdict": verdict.replace(' ', "_"),
            "log": counts(&self.counts), "tables": row.map(|r| counts(&r.counts)),
            "fences": self.found.fences.iter().map(fence).collect::<Vec<_>>(),
            "other_topic_ids": self.found.foreign, "odd": self.found.odd,
            "late": self.late, "rejected": self.rejected, "waiting": self.waiting,
            "unclear": self.unknown,
        })
    }

    fn print_summary(
        &self,
        key: &Key,
        row: Option<&FoundRow>,
        verdict: WindowVerdict,
    ) -> io::Result<()> {
        let word = match verdict {
            WindowVerdict::Agrees => "agree",
            WindowVerdict::Differs => "differ",
            WindowVerdict::NotComparable => "cannot be compared",
            WindowVerdict::Nowhere => "no such row",
        };
        let mut out = self.out.lock().expect("no panic holds the output");
        if self.output == VerifyOutput::Json {
            return writeln!(out, "{}", self.json(key, row, word));
        }
        let counts = |c: &Counts| {
            let [low, medium, high, critical] = c.severities;
            format!(
                "event_count {}, low {low}, medium {medium}, high {high}, critical {critical}",
                c.event_count
            )
        };
        writeln!(out, "{}", printable(&key.to_string()))?;
        writeln!(
            out,
            "  log:    {}; in addition {} late, {} rejected, {} waiting",
            counts(&self.counts),
            self.late,
            self.rejected,
            self.waiting
        )?;
        match row {
            None => writeln!(out, "  tables: there is no such row")?,
            Some(row) => writeln!(out, "  tables: {}", counts(&row.counts))?,
        }
        for f in &self.found.fences {
            writeln!(
                out,
                "  fence of partition {}: first {}, next {}",
                f.partition, f.first, f.next
            )?;
        }
        if self.found.foreign {
            writeln!(out, "  it has fences of an earlier topic of this name")?;
        }
        if let Some(odd) = &self.found.odd {
            writeln!(out, "  {}", printable(odd))?;
        }
        if verdict == WindowVerdict::Nowhere {
            writeln!(out, "neither log nor tables have a row of that name")?;
            return match self.hint() {
                Some(hint) => writeln!(out, "{}", printable(&hint)),
                None => Ok(()),
            };
        }
        writeln!(out, "log and tables {word}")
    }
}
