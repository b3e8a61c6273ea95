//! `--explain`: one window's counts, traced to the records that made them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::core::audit::{Counts, FoundRow, Key, Lateness, Log, Watermark};
use crate::core::event::Offset;
use crate::core::parse::{self, Body};
use crate::core::time::{format_millis, format_seconds, parse_timestamp};
use crate::core::window::Rules;
use crate::exit::{Exit, SettingsError};
use crate::kafka::reader::Record;
use crate::settings::{VerifyOutput, WindowName, nearest};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::verify::compare::{Facts, Source, stamp};
use crate::verify::report::printable;

/// Most names that are kept to find the one that was meant.
const SERIES_MAX: usize = 1_000;

/// What the log says of one window, record by record.
struct Trace {
    window: WindowName,
    rules: Rules,
    topic: String,
    found: FoundRow,
    logs: BTreeMap<i32, (Log, Watermark)>,
    /// Per partition, the record that moved the watermark last.
    moved_by: BTreeMap<i32, Offset>,
    counts: Counts,
    late: u64,
    rejected: u64,
    waiting: u64,
    unknown: u64,
    /// `city#type` of the log's events.
    series: BTreeSet<String>,
    output: VerifyOutput,
    out: Arc<Mutex<dyn Write + Send>>,
}

/// Prints what counted and what did not, with the reasons; exits 1 if the row holds something else, or
/// if neither log nor tables know of it.
///
/// # Errors
/// If log or tables cannot be read, or there is no such window.
pub async fn explain(
    source: &Source,
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
    let view = facts.view((0, i64::MAX));
    let rows = facts.audit.rows(vec![key.clone()], &view).await;
    let row = rows.context("failed to read the row")?.remove(&key);
    let logs = claims.logs.iter();
    let trace = Trace {
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
    let Some(trace) = closed_pipe_is_an_end(traced)? else {
        return Ok(Exit::Failed);
    };
    let Some(trace) = trace else {
        return Ok(Exit::Done);
    };
    let verdict = trace.verdict(row.as_ref());
    let told = trace.tell(&key, row.as_ref(), verdict);
    let told = told.map_err(anyhow::Error::new).map(Some);
    closed_pipe_is_an_end(told)?;
    Ok(match verdict {
        Verdict::Differs | Verdict::Nowhere => Exit::Failed,
        Verdict::Agrees | Verdict::NotComparable => Exit::Done,
    })
}

/// `Some(None)`: nobody reads the output any more.
fn closed_pipe_is_an_end<T>(
    result: anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<Option<T>>> {
    match result {
        Ok(value) => Ok(value.map(Some)),
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::BrokenPipe => Ok(Some(None)),
            _ => Err(error),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Agrees,
    Differs,
    NotComparable,
    /// Nothing was sent for the window, and there is no row: mostly its name is wrong.
    Nowhere,
}

/// What became of a record.
struct Fate {
    name: &'static str,
    /// Why, in words.
    why: String,
}

impl Trace {
    fn take(&mut self, record: &Record) -> io::Result<()> {
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
                let fate = Fate {
                    name: "rejected",
                    why: reject.to_string(),
                };
                return self.line(record, None, &fate);
            }
            Ok(Body::Event(event)) => event,
        };
        let late = watermark.pass(event.time_ms, stamp(record), &self.rules);
        self.note_move(partition, before, record.offset);
        self.note_series(&event.city, &event.event_type);
        let own = *event.city == *self.window.city
            && *event.event_type == *self.window.event_type
            && self.rules.window_start(event.time_ms) == self.window.start_ms;
        if !own {
            return Ok(());
        }
        let fences = self.found.fences.iter();
        let fence = fences
            .filter(|f| f.partition == partition)
            .map(|f| f.next)
            .max();
        let mut fate = match late {
            Lateness::Late => {
                self.late += 1;
                let max_ms = before.seen_ms().unwrap_or_default();
                Fate {
                    name: "late",
                    why: format!(
                        "the watermark stood at {} by the record at offset {}; counted in the totals' late_count",
                        format_millis(max_ms.saturating_sub(self.rules.lateness_ms)),
                        moved_by.map_or("?".to_owned(), |o| o.to_string())
                    ),
                }
            }
            Lateness::Unknown => {
                self.unknown += 1;
                Fate {
                    name: "unclear",
                    why: "late or not: that depends on records that the log no longer has"
                        .to_owned(),
                }
            }
            Lateness::InTime if fence.is_some_and(|next| record.offset < next) => {
                self.add(event.severity.index());
                Fate {
                    name: "counted",
                    why: String::new(),
                }
            }
            Lateness::InTime if record.offset < log.claim => {
                self.add(event.severity.index());
                Fate {
                    name: "missing",
                    why: format!(
                        "everything below offset {} is said to be stored, but the row's fence leaves this out",
                        log.claim
                    ),
                }
            }
            Lateness::InTime => {
                self.waiting += 1;
                Fate {
                    name: "waiting",
                    why: "no consumer says yet that it is stored".to_owned(),
                }
            }
        };
        if self.rules.is_future(event.time_ms, record.record_ms) {
            let future = "future, so it moved no watermark";
            fate.why = match fate.why.as_str() {
                "" => future.to_owned(),
                why => format!("{why}; {future}"),
            };
        }
        let id = match &event.event_id {
            Some(id) => id.to_string(),
            None => format!("{}-{partition}-{}", self.topic, record.offset),
        };
        let severity = event.severity.name();
        self.line(record, Some((event.time_ms, severity, &id)), &fate)
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

    /// Returns what else the name may have meant, as far as the log tells.
    fn hint(&self) -> Option<String> {
        let asked = format!("{}#{}", self.window.city, self.window.event_type);
        if self.series.contains(&asked) {
            return Some(format!("{asked} has events, in other windows only"));
        }
        let nearest = nearest(&asked, self.series.iter().map(String::as_str))?;
        Some(format!("did you mean {nearest}?"))
    }

    fn add(&mut self, severity: usize) {
        self.counts.event_count += 1;
        self.counts.severities[severity] += 1;
    }

    /// Tells whether a rejected record was meant for the window, as far as its fields can be read.
    fn may_belong(&self, value: &[u8]) -> bool {
        let Ok(Value::Object(fields)) = serde_json::from_slice(value) else {
            return false;
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let city = text("city").map(|c| parse::trim(c) == self.window.city);
        let kind = text("event_type").map(|k| k.eq_ignore_ascii_case(&self.window.event_type));
        let time = text("timestamp").and_then(parse_timestamp);
        let time = time.map(|ms| self.rules.window_start(ms) == self.window.start_ms);
        // One field at most may be the one that cannot be read.
        let read = [city, kind, time];
        read.iter().filter(|r| r.is_none()).count() <= 1 && read.iter().all(|r| r.unwrap_or(true))
    }

    fn line(
        &self,
        record: &Record,
        event: Option<(i64, &str, &str)>,
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

    fn verdict(&self, row: Option<&FoundRow>) -> Verdict {
        let older = |f: &crate::core::audit::Fence| {
            let log = self.logs.get(&f.partition);
            log.is_some_and(|(log, _)| f.first < log.start)
        };
        match row {
            _ if self.unknown > 0 => Verdict::NotComparable,
            Some(row) if row.foreign || row.fences.iter().any(older) => Verdict::NotComparable,
            Some(row) if row.counts == self.counts && row.odd.is_none() => Verdict::Agrees,
            None if self.counts == Counts::default() => {
                match self.late + self.rejected + self.waiting {
                    0 => Verdict::Nowhere,
                    _ => Verdict::Agrees,
                }
            }
            Some(_) | None => Verdict::Differs,
        }
    }

    fn tell(&self, key: &Key, row: Option<&FoundRow>, verdict: Verdict) -> io::Result<()> {
        let word = match verdict {
            Verdict::Agrees => "agree",
            Verdict::Differs => "differ",
            Verdict::NotComparable => "cannot be compared",
            Verdict::Nowhere => "no such row",
        };
        let mut out = self.out.lock().expect("no panic holds the output");
        if self.output == VerifyOutput::Json {
            let counts = |c: &Counts| {
                let [low, medium, high, critical] = c.severities;
                json!({
                    "event_count": c.event_count, "severity_low": low, "severity_medium": medium,
                    "severity_high": high, "severity_critical": critical,
                })
            };
            let fence = |f: &crate::core::audit::Fence| json!({"partition": f.partition, "first": f.first.0, "next": f.next.0});
            let line = json!({
                "window": key.in_table(), "verdict": word.replace(' ', "_"),
                "log": counts(&self.counts), "tables": row.map(|r| counts(&r.counts)),
                "fences": self.found.fences.iter().map(fence).collect::<Vec<_>>(),
                "other_topic_ids": self.found.foreign, "odd": self.found.odd,
                "late": self.late, "rejected": self.rejected, "waiting": self.waiting,
                "unclear": self.unknown,
            });
            return writeln!(out, "{line}");
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
            "  log:    {}; beside them {} late, {} rejected, {} waiting",
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
            writeln!(out, "  it has fences of a topic that was made again since")?;
        }
        if let Some(odd) = &self.found.odd {
            writeln!(out, "  {}", printable(odd))?;
        }
        if verdict == Verdict::Nowhere {
            writeln!(out, "neither log nor tables have a row of that name")?;
            return match self.hint() {
                Some(hint) => writeln!(out, "{}", printable(&hint)),
                None => Ok(()),
            };
        }
        writeln!(out, "log and tables {word}")
    }
}
