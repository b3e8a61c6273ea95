//! The windows of many series, hour by hour: hours in which every window is final are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use moka::sync::Cache;

use super::HOUR_MS;
use crate::api::state::ApiState;
use crate::core::keys::series;
use crate::core::time::parse_timestamp;
use crate::store::error::StoreError;
use crate::store::reads::{AggregationItem, Range};

/// Most windows that one part of a reading can hold. It is below half the ceiling of a request, and two
/// parts are read at a time, so each request completes at least one.
const PART_WINDOWS_MAX: u32 = 2_016;
const PARTS_AT_A_TIME: usize = 2;
/// How long an hour whose windows are all final is believed.
const HOUR_AGE_MAX: Duration = Duration::from_secs(300);
/// Most windows kept, at some 60 bytes each.
const KEPT_WINDOWS_MAX: u64 = 600_000;

/// Hours of series that take no more events: by series and hour since the epoch.
pub(crate) type Hours = Cache<(String, i64), Arc<Vec<Window>>>;

/// Returns an empty memory of final hours.
pub(crate) fn hours() -> Hours {
    Cache::builder()
        .time_to_live(HOUR_AGE_MAX)
        .max_capacity(KEPT_WINDOWS_MAX)
        .weigher(|_, windows: &Arc<Vec<Window>>| {
            u32::try_from(windows.len() + 2).unwrap_or(u32::MAX)
        })
        .build()
}

/// A window of a series, as far as a chart shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) counts: [u64; 4],
    pub(super) is_final: bool,
}

impl Window {
    /// Returns the window of a row; none if its times are foreign.
    fn of(item: &AggregationItem) -> Option<Window> {
        let (start_ms, end_ms) = (
            parse_timestamp(&item.window_start)?,
            parse_timestamp(&item.window_end)?,
        );
        (start_ms < end_ms).then_some(Window {
            start_ms,
            end_ms,
            counts: item.severity_counts,
            is_final: item.is_final,
        })
    }
}

/// Returns the windows of each series that start in the whole hours around `[to - span, to)`.
pub(super) async fn span(
    state: &ApiState,
    names: &[String],
    to_ms: i64,
    span_ms: i64,
) -> Result<BTreeMap<String, Vec<Window>>, StoreError> {
    let (first, end) = (
        (to_ms - span_ms).div_euclid(HOUR_MS).max(0),
        (to_ms + HOUR_MS - 1).div_euclid(HOUR_MS),
    );
    let kept = state.hours();
    let mut found = BTreeMap::<String, Vec<Window>>::new();
    // Series that lack the same hours are read together.
    let mut lacking = BTreeMap::<(i64, i64), Vec<String>>::new();
    for name in names {
        let mut lack: Option<(i64, i64)> = None;
        for hour in first..end {
            match kept.get(&(name.clone(), hour)) {
                Some(windows) if lack.is_none() => {
                    found.entry(name.clone()).or_default().extend(&*windows);
                }
                // One Query reads them all from the first hour that is lacking.
                _ => lack = Some((lack.map_or(hour, |(from, _)| from), hour + 1)),
            }
        }
        if let Some(range) = lack {
            lacking.entry(range).or_default().push(name.clone());
        }
    }
    let parts = lacking.into_iter().flat_map(|((from, until), names)| {
        let hours = u32::try_from(until - from).unwrap_or(u32::MAX);
        let size = usize::try_from(PART_WINDOWS_MAX / hours.saturating_mul(12)).unwrap_or(1);
        let parts: Vec<_> = names.chunks(size.max(1)).map(<[String]>::to_vec).collect();
        parts.into_iter().map(move |names| (from..until, names))
    });
    let mut reading = stream::iter(parts)
        .map(|(hours, names)| async move {
            let range = Range {
                from_ms: hours.start * HOUR_MS,
                to_ms: hours.end * HOUR_MS,
            };
            let items = state.reads().windows(names.clone(), range).await?;
            Ok::<_, StoreError>((hours, names, items))
        })
        .buffered(PARTS_AT_A_TIME);
    let mut newest = i64::MIN;
    while let Some(part) = reading.next().await {
        let (hours, names, items) = part?;
        let mut read = BTreeMap::<(String, i64), Vec<Window>>::new();
        for item in items {
            if let Some(window) = Window::of(&item) {
                let hour = window.start_ms.div_euclid(HOUR_MS);
                newest = newest.max(hour);
                let name = series(&item.city, &item.event_type);
                read.entry((name, hour)).or_default().push(window);
            }
        }
        keep(kept, &names, hours, newest, &read);
        for ((name, _), windows) in read {
            found.entry(name).or_default().extend(windows);
        }
    }
    found.retain(|_, windows| {
        windows.retain(|w| w.end_ms > to_ms - span_ms && w.start_ms < to_ms);
        !windows.is_empty()
    });
    Ok(found)
}

/// Remembers the hours in which everything is final. `newest`, the newest hour with a window, and the
/// one before are left out: a series that is silent there may still speak.
fn keep(
    kept: &Hours,
    names: &[String],
    hours: std::ops::Range<i64>,
    newest: i64,
    read: &BTreeMap<(String, i64), Vec<Window>>,
) {
    for hour in hours.start..hours.end.min(newest.saturating_sub(1)) {
        for name in names {
            let key = (name.clone(), hour);
            let windows = read.get(&key).cloned().unwrap_or_default();
            if windows.iter().all(|w| w.is_final) {
                kept.insert(key, Arc::new(windows));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hours_that_can_no_longer_change_are_kept() {
        let kept = hours();
        let window = |hour: i64, is_final| Window {
            start_ms: hour * HOUR_MS,
            end_ms: hour * HOUR_MS + 300_000,
            counts: [1, 0, 0, 0],
            is_final,
        };
        let names = ["a#x".to_owned(), "b#x".to_owned()];
        let read = BTreeMap::from([
            (("a#x".to_owned(), 10), vec![window(10, true)]),
            (("b#x".to_owned(), 11), vec![window(11, false)]),
            (("a#x".to_owned(), 14), vec![window(14, false)]),
        ]);
        keep(&kept, &names, 10..16, 14, &read);
        let got: Vec<(&str, i64)> = names
            .iter()
            .flat_map(|name| (10..16).map(move |hour| (name.as_str(), hour)))
            .filter(|(name, hour)| kept.contains_key(&((*name).to_owned(), *hour)))
            .collect();
        let want = [
            ("a#x", 10),
            ("a#x", 11),
            ("a#x", 12),
            ("b#x", 10),
            ("b#x", 12),
        ];
        assert_eq!(got, want);
    }
}
