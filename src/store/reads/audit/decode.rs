//! Items → what a comparison knows of them. Nothing is taken for granted: what contradicts the key
//! or cannot be read is told, not skipped.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::Item;
use super::super::items::{number, text};
use super::View;
use crate::core::audit::{Counts, Fence, FoundPut, FoundRow, Key, Name, content};
use crate::core::event::{Offset, Severity};
use crate::core::keys::{FENCE_FIRST, FENCE_NEXT};
use crate::core::time::format_seconds;

/// Returns what a row of counts says.
pub fn row_from_item(item: &Item, key: &Key, view: &View) -> FoundRow {
    let mut row = FoundRow {
        counts: Counts {
            event_count: number(item, "event_count").unwrap_or_default(),
            late_count: number(item, "late_count").unwrap_or_default(),
            severities: Severity::ALL
                .map(|s| number(item, &format!("severity_{s}")).unwrap_or_default()),
        },
        ..FoundRow::default()
    };
    let mut wanted = vec![("city", key.place.city().to_owned())];
    match &key.name {
        Name::Window(kind) => {
            let set = item.get("severities").and_then(|v| v.as_ss().ok());
            let has = |s: Severity| set.is_some_and(|set| set.iter().any(|n| n == s.name()));
            row.distinct = Some(Severity::ALL.map(has));
            let start_ms = key.place.time_ms;
            wanted.extend([
                ("event_type", kind.to_string()),
                ("series", key.series().unwrap_or_default()),
                ("window_start", format_seconds(start_ms)),
                (
                    "window_end",
                    format_seconds(start_ms.saturating_add(view.window_ms)),
                ),
            ]);
        }
        Name::Totals(kind) => wanted.push(("event_type", kind.to_string())),
        Name::Raw(_) | Name::Alert(_) => {}
    }
    for (name, wanted) in wanted {
        let found = text(item, name);
        if found != wanted {
            row.odd = Some(format!("{name} is {found:?}, not {wanted:?}"));
        }
    }
    fences(item, view, &mut row);
    row
}

fn fences(item: &Item, view: &View, row: &mut FoundRow) {
    let mut ends: BTreeMap<i32, [Option<i64>; 2]> = BTreeMap::new();
    for name in item.keys() {
        for (at, prefix) in [FENCE_FIRST, FENCE_NEXT].into_iter().enumerate() {
            let Some(log_key) = name.strip_prefix(prefix) else {
                continue;
            };
            match split_log_key(log_key) {
                Some((topic_id, partition)) if topic_id == view.topic_id => {
                    ends.entry(partition).or_default()[at] = number(item, name);
                }
                Some(_) => row.foreign = true,
                None => row.odd = Some(format!("{name:?} is no fence")),
            }
        }
    }
    for (partition, ends) in ends {
        match ends {
            [Some(first), Some(next)] if 0 <= first && first < next => row.fences.push(Fence {
                partition,
                first: Offset(first),
                next: Offset(next),
            }),
            _ => row.odd = Some(format!("the fence of partition {partition} is broken")),
        }
    }
}

/// Returns topic id and partition of `<topic id>#<partition>`.
pub(super) fn split_log_key(text: &str) -> Option<(String, i32)> {
    let (topic_id, partition) = text.rsplit_once('#')?;
    Some((topic_id.to_owned(), partition.parse().ok()?))
}

/// Returns what a raw event or an alert says.
pub fn put_from_item(item: &Item, key: &Key, now_ms: i64) -> FoundPut {
    let flag = |name: &str| matches!(item.get(name), Some(AttributeValue::Bool(true)));
    let extra = item.get("extra").and_then(|v| v.as_s().ok());
    let raw = matches!(key.name, Name::Raw(_));
    FoundPut {
        content: content(
            &text(item, "city"),
            &text(item, "event_type"),
            &text(item, "severity"),
            &text(item, "description"),
            raw && flag("future"),
            extra.filter(|_| raw).map(String::as_str),
        ),
        late: flag("late"),
        source: source(&text(item, "source")),
        elsewhere: text(item, "city") != key.place.city(),
        expired: number(item, "ttl").is_some_and(|ttl| ttl <= now_ms.div_euclid(1_000)),
    }
}

/// Returns partition and offset of `<topic>/<partition>/<offset>`.
fn source(text: &str) -> Option<(i32, Offset)> {
    let (rest, offset) = text.rsplit_once('/')?;
    let (_, partition) = rest.rsplit_once('/')?;
    Some((partition.parse().ok()?, Offset(offset.parse().ok()?)))
}
