//! Reads the windows of many series, hour by hour, and caches the hours that can no longer change.

use std::collections::BTreeMap;
use std::ops::Range as HourRange;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use crate::api::params::HOUR_MS;
use crate::api::state::ApiState;
use crate::api::window_cache::{SeriesWindow, WindowCache};
use crate::core::keys::series;
use crate::store::error::StoreError;
use crate::store::reads::Range;

/// Maximum number of windows that one part of a read can return. Two parts are read at a time, and both together stay
/// below the ceiling of a request. So each request completes at least one part.
const PART_WINDOWS_MAX: u32 = 2_016;
const PARTS_AT_A_TIME: usize = 2;

/// Returns the windows of each series that overlap `[to_ms - span_ms, to_ms)`.
pub(super) async fn read_windows(
    state: &ApiState,
    names: &[String],
    to_ms: i64,
    span_ms: i64,
) -> Result<BTreeMap<String, Vec<SeriesWindow>>, StoreError> {
    let cache = state.windows();
    let first = (to_ms - span_ms).div_euclid(HOUR_MS).max(0);
    let hours = first..(to_ms + HOUR_MS - 1).div_euclid(HOUR_MS);
    let (mut found, missing) = look_up(cache, names, &hours);
    let mut reading = stream::iter(split_into_parts(missing))
        .map(|(hours, names)| async move {
            let range = Range {
                from_ms: hours.start * HOUR_MS,
                to_ms: hours.end * HOUR_MS,
            };
            let rows = state.reads().windows(names.clone(), range).await?;
            Ok::<_, StoreError>((hours, names, rows))
        })
        .buffered(PARTS_AT_A_TIME);
    let mut newest = i64::MIN;
    while let Some(part) = reading.next().await {
        let (hours, names, rows) = part?;
        let mut read = BTreeMap::<(String, i64), Vec<SeriesWindow>>::new();
        for row in rows {
            if let Some(window) = SeriesWindow::from_row(&row) {
                let hour = window.start_ms.div_euclid(HOUR_MS);
                newest = newest.max(hour);
                let name = series(&row.city, &row.event_type);
                read.entry((name, hour)).or_default().push(window);
            }
        }
        cache_final_hours(cache, &names, hours, newest, &read);
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

/// The series that miss the same hours, by these hours. One read covers them together.
type MissingHours = BTreeMap<(i64, i64), Vec<String>>;

/// Returns the cached windows, and the hours that are not cached.
fn look_up(
    cache: &WindowCache,
    names: &[String],
    hours: &HourRange<i64>,
) -> (BTreeMap<String, Vec<SeriesWindow>>, MissingHours) {
    let mut found = BTreeMap::<String, Vec<SeriesWindow>>::new();
    let mut missing = MissingHours::new();
    for name in names {
        let mut gap: Option<(i64, i64)> = None;
        for hour in hours.clone() {
            match cache.get(&(name.clone(), hour)) {
                Some(windows) if gap.is_none() => {
                    found.entry(name.clone()).or_default().extend(&*windows);
                }
                // One Query reads everything from the first missing hour on.
                _ => gap = Some((gap.map_or(hour, |(from, _)| from), hour + 1)),
            }
        }
        if let Some(gap) = gap {
            missing.entry(gap).or_default().push(name.clone());
        }
    }
    (found, missing)
}

/// Splits a read into parts of at most [`PART_WINDOWS_MAX`] windows.
fn split_into_parts(missing: MissingHours) -> impl Iterator<Item = (HourRange<i64>, Vec<String>)> {
    missing.into_iter().flat_map(|((from, until), names)| {
        let hours = u32::try_from(until - from).unwrap_or(u32::MAX);
        let size = usize::try_from(PART_WINDOWS_MAX / hours.saturating_mul(12)).unwrap_or(1);
        let parts: Vec<_> = names.chunks(size.max(1)).map(<[String]>::to_vec).collect();
        parts.into_iter().map(move |names| (from..until, names))
    })
}

/// Caches the hours in which every window is final.
///
/// The newest hour with a window and the hour before it are left out, because a series without events there
/// may still get some.
fn cache_final_hours(
    cache: &WindowCache,
    names: &[String],
    hours: HourRange<i64>,
    newest: i64,
    read: &BTreeMap<(String, i64), Vec<SeriesWindow>>,
) {
    for hour in hours.start..hours.end.min(newest.saturating_sub(1)) {
        for name in names {
            let key = (name.clone(), hour);
            let windows = read.get(&key).cloned().unwrap_or_default();
            if windows.iter().all(|w| w.is_final) {
                cache.insert(key, Arc::new(windows));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::window_cache::window_cache;

    #[test]
    fn only_hours_that_can_no_longer_change_are_cached() {
        let cache = window_cache();
        let window = |hour: i64, is_final| SeriesWindow {
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
        cache_final_hours(&cache, &names, 10..16, 14, &read);
        let got: Vec<(&str, i64)> = names
            .iter()
            .flat_map(|name| (10..16).map(move |hour| (name.as_str(), hour)))
            .filter(|(name, hour)| cache.contains_key(&((*name).to_owned(), *hour)))
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
