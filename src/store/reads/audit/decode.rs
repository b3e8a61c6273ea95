//! Decodes the items that `verify` compares. If an attribute is damaged or contradicts the key of the item, `verify`
//! reports a difference.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::AuditView;
use crate::core::audit::{AuditName, Counts, Fence, FoundPut, FoundRow, HourCounts, Key, content};
use crate::core::clock::UnixMs;
use crate::core::event::{Offset, Severity};
use crate::core::keys::{FENCE_FIRST, FENCE_NEXT};
use crate::core::time::format_seconds;
use crate::store::attributes::{
    CITY, DESCRIPTION, EVENT_COUNT, EVENT_TYPE, EXTRA, FUTURE, Item, LATE, LATE_COUNT, SERIES,
    SEVERITIES, SEVERITY, SEVERITY_COUNTS, SOURCE, TTL, WINDOW_END, WINDOW_START, number, text,
};

/// Decodes a row of counts.
pub fn row_from_item(item: &Item, key: &Key, view: &AuditView) -> FoundRow {
    let mut row = FoundRow {
        counts: Counts {
            event_count: number(item, EVENT_COUNT).unwrap_or_default(),
            late_count: number(item, LATE_COUNT).unwrap_or_default(),
            severities: SEVERITY_COUNTS.map(|name| number(item, name).unwrap_or_default()),
        },
        ..FoundRow::default()
    };
    let mut wanted = Vec::new();
    if key.grain().is_none() {
        wanted.push((CITY, key.place.city().to_owned()));
    }
    match &key.name {
        AuditName::Window(kind) => {
            let set = item.get(SEVERITIES).and_then(|v| v.as_ss().ok());
            let has = |s: Severity| set.is_some_and(|set| set.iter().any(|n| n == s.name()));
            row.distinct = Some(Severity::ALL.map(has));
            let start_ms = key.place.time_ms;
            wanted.extend([
                (EVENT_TYPE, kind.to_string()),
                (SERIES, key.series().unwrap_or_default()),
                (WINDOW_START, format_seconds(start_ms)),
                (
                    WINDOW_END,
                    format_seconds(start_ms.saturating_add(view.window_ms)),
                ),
            ]);
        }
        AuditName::Totals(kind) => wanted.push((EVENT_TYPE, kind.to_string())),
        AuditName::Hour(_) | AuditName::Day(_) => {
            let start_ms = key.place.time_ms;
            let length_ms = key.grain().map_or(0, |(grain, _)| grain.length_ms());
            wanted.extend([
                (WINDOW_START, format_seconds(start_ms)),
                (
                    WINDOW_END,
                    format_seconds(start_ms.saturating_add(length_ms)),
                ),
            ]);
        }
        AuditName::Raw(_) | AuditName::Alert(_) => {}
    }
    if matches!(key.name, AuditName::Day(_)) {
        row.hours = hours(item);
        if row.hours.is_none() {
            row.odd = Some("its hours cannot be read".to_owned());
        }
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

/// Decodes the counts of the 24 hours in a day row. The first three bytes contain one bit for each hour, which is 1 if
/// the hour has events. Four LEB128 numbers follow for each hour that has events, one for each severity.
fn hours(item: &Item) -> Option<Box<HourCounts>> {
    let bytes = item.get("hours")?.as_b().ok()?.as_ref();
    let mut rest = bytes.get(3..)?.iter();
    let mut out = Box::<HourCounts>::default();
    for (hour, counts) in out.iter_mut().enumerate() {
        if bytes[hour / 8] >> (hour % 8) & 1 == 0 {
            continue;
        }
        for count in counts {
            for at in 0u32.. {
                let byte = rest.next()?;
                *count |= i64::from(byte & 127).checked_shl(7 * at)?;
                if *byte < 128 {
                    break;
                }
            }
        }
    }
    rest.next().is_none().then_some(out)
}

fn fences(item: &Item, view: &AuditView, row: &mut FoundRow) {
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

/// Splits a log key of the form `<topic id>#<partition>` into the topic id and the partition.
pub(super) fn split_log_key(text: &str) -> Option<(String, i32)> {
    let (topic_id, partition) = text.rsplit_once('#')?;
    Some((topic_id.to_owned(), partition.parse().ok()?))
}

/// Decodes the item of a raw event or of an alert.
pub fn put_from_item(item: &Item, key: &Key, now_ms: UnixMs) -> FoundPut {
    let flag = |name: &str| matches!(item.get(name), Some(AttributeValue::Bool(true)));
    let extra = item.get(EXTRA).and_then(|v| v.as_s().ok());
    let is_raw = matches!(key.name, AuditName::Raw(_));
    FoundPut {
        content: content(
            text(item, CITY),
            text(item, EVENT_TYPE),
            text(item, SEVERITY),
            text(item, DESCRIPTION),
            is_raw && flag(FUTURE),
            extra.filter(|_| is_raw).map(String::as_str),
        ),
        late: flag(LATE),
        source: parse_source(text(item, SOURCE)),
        elsewhere: text(item, CITY) != key.place.city(),
        expired: number(item, TTL).is_some_and(|ttl| ttl <= now_ms.0.div_euclid(1_000)),
    }
}

/// Parses the partition and the offset from a text of the form `<topic>/<partition>/<offset>`.
fn parse_source(text: &str) -> Option<(i32, Offset)> {
    let (rest, offset) = text.rsplit_once('/')?;
    let (_, partition) = rest.rsplit_once('/')?;
    Some((partition.parse().ok()?, Offset(offset.parse().ok()?)))
}
