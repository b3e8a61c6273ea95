//! What the screen shows, as a JSON file in the working folder.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use super::chart::Bars;
use super::draw::Heading;
use super::view::{Kind, View};
use crate::core::event::Severity;
use crate::core::parse::Reason;
use crate::core::time::{format_millis, format_seconds};
use crate::tail::board::{Board, State, What};
use crate::tail::dead_letters;
use crate::tail::event_line::{Place, push_json};
use crate::tail::history::{LENGTHS, WINDOWS};

/// Files of the same second before it is given up.
const NAMES_MAX: u32 = 100;

#[derive(Serialize)]
struct Export<'a> {
    exported_at: String,
    topic: &'a str,
    from: &'a str,
    options: &'a str,
    filter: &'a str,
    events: u64,
    lag: Option<u64>,
    newest_event: Option<String>,
    rejected: serde_json::Map<String, serde_json::Value>,
    totals: Vec<Total<'a>>,
    window: &'static str,
    windows: Vec<Window>,
    records: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct Total<'a> {
    city: &'a str,
    event_type: &'a str,
    event_count: u64,
    severity_low: u64,
    severity_medium: u64,
    severity_high: u64,
    severity_critical: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_count: Option<u64>,
    per_second: f64,
}

#[derive(Serialize)]
struct Window {
    window_start: String,
    event_count: u64,
    alert_count: u64,
}

#[derive(Serialize)]
struct ExportOfLetters<'a> {
    exported_at: String,
    topic: &'a str,
    from: &'a str,
    filter: &'a str,
    rejected: u64,
    lag: Option<u64>,
    newest_record: Option<String>,
    totals: Vec<TotalOfLetters<'a>>,
    window: &'static str,
    windows: Vec<WindowOfLetters>,
    records: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct TotalOfLetters<'a> {
    reason: &'a str,
    rejected_count: u64,
    per_second: f64,
}

#[derive(Serialize)]
struct WindowOfLetters {
    window_start: String,
    rejected_count: u64,
}

/// Returns the export as one JSON object: the rows in their order, the windows that have events, and
/// the listed records as `--output json` prints them.
pub(super) fn json(heading: &Heading, board: &Board, view: &View) -> serde_json::Result<String> {
    let lines = view.lines(board);
    let bars = Bars::of(&lines, board, view, WINDOWS);
    let (length_ms, window) = LENGTHS[view.length];
    let windows = bars.iter().flat_map(|bars| {
        let starts = (0..).map(move |n: i64| bars.range_ms.0 + n * length_ms);
        starts.map(format_seconds).zip(&bars.windows)
    });
    let windows = windows.filter(|(_, bar)| bar.0 > 0);
    let exported_at = format_millis(board.now_ms);
    let newest = board.newest_ms().map(format_millis);
    let lag = match board.state {
        State::Reading(behind) => Some(behind),
        State::Waiting(_) => None,
    };
    let sum = lines.iter().map(|line| line.total).sum();
    let mut records = Vec::new();
    for seen in view.records(board) {
        let mut line = Vec::new();
        match &seen.what {
            What::Event(sighting) => {
                let place = Place {
                    topic: &heading.topic,
                    partition: sighting.partition,
                    offset: sighting.offset,
                };
                push_json(&mut line, &sighting.event, place);
            }
            What::Letter(letter) => dead_letters::push_json(&mut line, letter),
        }
        records.push(serde_json::from_slice(&line)?);
    }
    if view.kind == Kind::Letters {
        let totals = lines.iter().map(|line| TotalOfLetters {
            reason: line.city,
            rejected_count: line.total,
            per_second: line.rate,
        });
        let windows = windows.map(|(window_start, bar)| WindowOfLetters {
            window_start,
            rejected_count: bar.0,
        });
        return serde_json::to_string_pretty(&ExportOfLetters {
            exported_at,
            topic: &heading.topic,
            from: &heading.from,
            filter: &view.query.text,
            rejected: sum,
            lag,
            newest_record: newest,
            totals: totals.collect(),
            window,
            windows: windows.collect(),
            records,
        });
    }
    let windows = windows.map(|(window_start, bar)| Window {
        window_start,
        event_count: bar.0,
        alert_count: bar.1,
    });
    let totals = lines.iter().map(|line| {
        let of = |severity: Severity| line.tally[severity.index()];
        Total {
            city: line.city,
            event_type: line.event_type,
            event_count: line.total,
            severity_low: of(Severity::Low),
            severity_medium: of(Severity::Medium),
            severity_high: of(Severity::High),
            severity_critical: of(Severity::Critical),
            late_count: board.knows_late.then_some(line.row.late),
            per_second: line.rate,
        }
    });
    let rejected = Reason::ALL.iter().zip(board.counts.rejected);
    let rejected = rejected.filter(|(_, count)| *count > 0);
    serde_json::to_string_pretty(&Export {
        exported_at,
        topic: &heading.topic,
        from: &heading.from,
        options: &heading.filter,
        filter: &view.query.text,
        events: sum,
        lag,
        newest_event: newest,
        rejected: rejected
            .map(|(reason, count)| (reason.to_string(), count.into()))
            .collect(),
        totals: totals.collect(),
        window,
        windows: windows.collect(),
        records,
    })
}

/// Writes text into a new file of `folder`, named by the time; returns its name.
///
/// # Errors
/// When no file can be made there, or it cannot be written.
pub(super) fn save(text: &str, folder: &Path, now_ms: i64) -> io::Result<PathBuf> {
    let time = format_seconds(now_ms).replace(':', "");
    for n in 1..=NAMES_MAX {
        let name = if n == 1 {
            format!("citystream-tail-{time}.json")
        } else {
            format!("citystream-tail-{time}-{n}.json")
        };
        // Never over a file that is there.
        match File::create_new(folder.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let mut file = BufWriter::new(file);
                file.write_all(text.as_bytes())?;
                file.write_all(b"\n")?;
                file.flush()?;
                return Ok(PathBuf::from(name));
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = std::collections::BTreeSet::new();
        for n in 0..3 {
            let name = save(&n.to_string(), folder.path(), 1_357_020_000_000).unwrap();
            let text = std::fs::read_to_string(folder.path().join(&name)).unwrap();
            assert_eq!(text, format!("{n}\n"));
            names.insert(name.to_string_lossy().into_owned());
        }
        let want = ["", "-2", "-3"];
        let want = want.map(|n| format!("citystream-tail-2013-01-01T060000Z{n}.json"));
        assert!(want.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(save("x", &folder.path().join("missing"), 0).is_err());
    }
}
