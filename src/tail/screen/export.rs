//! Exports the content of the screen to a JSON file in the working directory.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::chart::Bars;
use super::picture::{Heading, Picture};
use super::record_kind::RecordKind;
use super::view::{ScreenView, VisibleRow};
use crate::core::clock::UnixMs;
use crate::core::time::{format_millis, format_seconds};
use crate::tail::board::{Board, ReadState, RecordContent};
use crate::tail::dead_letters;
use crate::tail::event_line::{RecordOrigin, push_json};
use crate::tail::history::{LENGTHS, WINDOWS};

/// Maximum number of files that the export can create within one second.
const NAMES_MAX: u32 = 100;

#[derive(Serialize)]
struct ScreenExport {
    #[serde(flatten)]
    summary: Value,
    /// The listed records as raw JSON. Raw JSON keeps the numbers in the field `extra` exactly as the producer wrote
    /// them.
    records: Vec<Box<RawValue>>,
}

/// Returns the export as one JSON object. The object contains the rows in the order of the screen, the windows that
/// have events, and the listed records in the format of `--output json`.
pub(super) fn json(
    heading: &Heading,
    live: &Board,
    view: &ScreenView,
) -> serde_json::Result<String> {
    let picture = Picture::new(heading, live, view);
    let (board, rows) = (picture.board, &picture.rows);
    let sum: u64 = rows.iter().map(|row| row.total).sum();
    let newest = board.newest_ms().map(format_millis);
    let lag = match board.state {
        ReadState::Reading(lag) => Some(lag),
        ReadState::Waiting(_) => None,
    };
    let totals: Vec<Value> = rows
        .iter()
        .map(|row| total(row, board, view.kind))
        .collect();
    let mut summary = json!({
        "exported_at": format_millis(board.now_ms),
        "topic": heading.topic,
        "from": heading.from,
        "filter": view.query.text,
        "lag": lag,
        "totals": totals,
        "window": LENGTHS[view.length].1,
        "windows": windows(&picture),
    });
    if view.kind == RecordKind::DeadLetters {
        summary["rejected"] = sum.into();
        summary["newest_record"] = newest.into();
    } else {
        let rejected = board.counts.rejected_by_reason();
        let rejected = rejected.map(|(reason, count)| (reason.to_string(), count.into()));
        summary["options"] = heading.filter.as_str().into();
        summary["events"] = sum.into();
        summary["newest_event"] = newest.into();
        summary["rejected"] = rejected.collect::<Map<_, _>>().into();
    }
    let mut records = Vec::new();
    for record in view.records(board) {
        let mut line = Vec::new();
        match &record.content {
            RecordContent::Event(event) => {
                let origin = RecordOrigin {
                    topic: &heading.topic,
                    partition: event.partition,
                    offset: event.offset,
                };
                push_json(&mut line, &event.event, origin);
            }
            RecordContent::DeadLetter(letter) => dead_letters::push_json(&mut line, letter),
        }
        records.push(serde_json::from_slice(&line)?);
    }
    serde_json::to_string_pretty(&ScreenExport { summary, records })
}

fn total(row: &VisibleRow<'_>, board: &Board, kind: RecordKind) -> Value {
    if kind == RecordKind::DeadLetters {
        return json!({
            "reason": row.city,
            "rejected_count": row.total,
            "per_second": row.rate,
        });
    }
    let [low, medium, high, critical] = row.severities;
    let mut total = json!({
        "city": row.city,
        "event_type": row.event_type,
        "event_count": row.total,
        "severity_low": low,
        "severity_medium": medium,
        "severity_high": high,
        "severity_critical": critical,
        "per_second": row.rate,
    });
    if board.knows_late {
        total["late_count"] = row.row.late.into();
    }
    total
}

/// Returns the windows of the chart that have events or dead letters.
fn windows(picture: &Picture<'_>) -> Vec<Value> {
    let Some(bars) = Bars::new(picture, WINDOWS) else {
        return Vec::new();
    };
    let (length_ms, _) = LENGTHS[picture.view.length];
    let starts = (0..).map(|n: i64| format_seconds(bars.range_ms.0 + n * length_ms));
    let windows = starts.zip(&bars.windows).filter(|(_, bar)| bar.0 > 0);
    let windows = windows.map(|(start, (all, alerts))| match picture.view.kind {
        RecordKind::Events => {
            json!({ "window_start": start, "event_count": all, "alert_count": alerts })
        }
        RecordKind::DeadLetters => json!({ "window_start": start, "rejected_count": all }),
    });
    windows.collect()
}

/// Writes the text to a new file in `folder`. Returns the name of the file, which contains the time `now_ms`.
///
/// # Errors
/// Returns an error if no file can be created in the folder, or if the text cannot be written.
pub(super) fn save(text: &str, folder: &Path, now_ms: UnixMs) -> io::Result<PathBuf> {
    let time = format_seconds(now_ms).replace(':', "");
    for n in 1..=NAMES_MAX {
        let suffix = if n == 1 {
            String::new()
        } else {
            format!("-{n}")
        };
        let name = format!("citystream-tail-{time}{suffix}.json");
        // An existing file must never be overwritten.
        match File::create_new(folder.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(mut file) => {
                file.write_all(format!("{text}\n").as_bytes())?;
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
    fn existing_files_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = std::collections::BTreeSet::new();
        for n in 0..3 {
            let name = save(&n.to_string(), folder.path(), UnixMs(1_357_020_000_000)).unwrap();
            let text = std::fs::read_to_string(folder.path().join(&name)).unwrap();
            assert_eq!(text, format!("{n}\n"));
            names.insert(name.to_string_lossy().into_owned());
        }
        let want = ["", "-2", "-3"];
        let want = want.map(|n| format!("citystream-tail-2013-01-01T060000Z{n}.json"));
        assert!(want.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(save("x", &folder.path().join("missing"), UnixMs(0)).is_err());
    }
}
