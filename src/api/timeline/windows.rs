//! Reads the windows of many series hour by hour, and caches the hours that can no longer change.

use std::collections::BTreeMap;
use std::ops::Range as HourRange;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::query::windows_per_hour;
use crate::api::params::HOUR_MS;
use crate::api::state::ApiState;
use crate::api::window_cache::{SeriesWindow, WindowCache};
use crate::core::clock::UnixMs;
use crate::core::keys::series;
use crate::store::error::StoreError;
use crate::store::reads::Range;

/// Maximum number of windows that one part of a read can return. A request reads two parts at the same time. Two parts
/// together cost less than the request's limit of read units, so each request completes at least one part.
const PART_WINDOWS_MAX: u64 = 2_016;
const PARTS_AT_A_TIME: usize = 2;

/// The windows that were read before the request reached its limit of read units, grouped by series.
pub(super) struct WindowsRead {
    pub(super) windows: BTreeMap<String, Vec<SeriesWindow>>,
    /// The number of series, from the beginning of the list, whose windows were read completely. If `series_complete`
    /// is smaller than the number of requested series, the request has reached its limit of read units.
    pub(super) series_complete: usize,
}

/// Returns the windows of each series in the hours that overlap `[to_ms - span_ms, to_ms)`. If the request reaches its
/// limit of read units, the function returns only the windows of the series at the beginning of `names`.
///
/// # Errors
/// Returns `TooCostly` if the limit of read units does not suffice for even one series, and otherwise the error of a
/// failed read.
pub(super) async fn read_windows(
    state: &ApiState,
    names: &[String],
    to_ms: UnixMs,
    span_ms: i64,
    window_ms: i64,
) -> Result<WindowsRead, StoreError> {
    let cache = state.windows();
    let first = (to_ms - span_ms).0.div_euclid(HOUR_MS).max(0);
    let hours = first..(to_ms.0 + HOUR_MS - 1).div_euclid(HOUR_MS);
    let (mut found, missing) = look_up(cache, names, &hours);
    let mut reading = stream::iter(split_into_parts(missing, window_ms))
        .map(|(hours, ranks)| async move {
            let first = ranks[0];
            let names: Vec<String> = ranks.into_iter().map(|rank| names[rank].clone()).collect();
            let range = Range {
                from_ms: UnixMs(hours.start * HOUR_MS),
                to_ms: UnixMs(hours.end * HOUR_MS),
            };
            let read = state.reads().windows(names.clone(), range).await;
            (first, hours, names, read)
        })
        .buffered(PARTS_AT_A_TIME);
    let mut newest = i64::MIN;
    let mut series_complete = names.len();
    while let Some((first, hours, names, answer)) = reading.next().await {
        let answer = match answer {
            // The parts arrive sorted by their first series, so all series before the first series of the failed part
            // were read completely.
            Err(StoreError::TooCostly { .. }) if first > 0 => {
                series_complete = first;
                break;
            }
            answer => answer?,
        };
        let mut read = BTreeMap::<(String, i64), Vec<SeriesWindow>>::new();
        for row in answer.page.items {
            if let Some(window) = SeriesWindow::from_row(&row) {
                let hour = window.start_ms.0.div_euclid(HOUR_MS);
                newest = newest.max(hour);
                let name = series(&row.city, &row.event_type);
                read.entry((name, hour)).or_default().push(window);
            }
        }
        let passed = answer.watermark_ms.map_or(0, |ms| ms.0.div_euclid(HOUR_MS));
        let until = hours.end.min(passed).min(newest.saturating_sub(1));
        cache_final_hours(cache, &names, hours.start..until, &read);
        for ((name, _), windows) in read {
            found.entry(name).or_default().extend(windows);
        }
    }
    found.retain(|_, windows| {
        windows.retain(|w| w.end_ms > to_ms - span_ms && w.start_ms < to_ms);
        !windows.is_empty()
    });
    Ok(WindowsRead {
        windows: found,
        series_complete,
    })
}

/// The hours that are missing from the cache. Each key of the map is a range of hours. Each value contains the indexes
/// of the series for which exactly the hours of the key are missing. A single read can fetch one range of hours for
/// several series.
type MissingHours = BTreeMap<(i64, i64), Vec<usize>>;

/// Returns the cached windows, and the hours whose windows are not in the cache.
fn look_up(
    cache: &WindowCache,
    names: &[String],
    hours: &HourRange<i64>,
) -> (BTreeMap<String, Vec<SeriesWindow>>, MissingHours) {
    let mut found = BTreeMap::<String, Vec<SeriesWindow>>::new();
    let mut missing = MissingHours::new();
    for (rank, name) in names.iter().enumerate() {
        let mut gap: Option<(i64, i64)> = None;
        for hour in hours.clone() {
            match cache.get(&(name.clone(), hour)) {
                Some(windows) if gap.is_none() => {
                    found.entry(name.clone()).or_default().extend(&*windows);
                }
                // A single Query reads all hours of a series from the first missing hour to the last missing hour.
                _ => gap = Some((gap.map_or(hour, |(from, _)| from), hour + 1)),
            }
        }
        if let Some(gap) = gap {
            missing.entry(gap).or_default().push(rank);
        }
    }
    (found, missing)
}

/// Splits a read into parts of at most [`PART_WINDOWS_MAX`] windows. Returns the parts sorted by the index of their
/// first series.
fn split_into_parts(missing: MissingHours, window_ms: i64) -> Vec<(HourRange<i64>, Vec<usize>)> {
    let mut parts = Vec::new();
    for ((from, until), ranks) in missing {
        let hours = u64::try_from(until - from).unwrap_or(u64::MAX);
        let windows = hours.saturating_mul(windows_per_hour(window_ms));
        let size = usize::try_from(PART_WINDOWS_MAX / windows.max(1)).unwrap_or(1);
        let chunks = ranks.chunks(size.max(1));
        parts.extend(chunks.map(|ranks| (from..until, ranks.to_vec())));
    }
    parts.sort_by_key(|(_, ranks)| ranks[0]);
    parts
}

/// Caches the hours in which every window is final.
///
/// The caller must pass only hours whose windows can no longer change. A series may still get its first window in an
/// hour until the watermarks of all partitions have passed that hour. If the topic is recreated, windows may change in
/// the newest hour that has a window, and in the preceding hour.
fn cache_final_hours(
    cache: &WindowCache,
    names: &[String],
    hours: HourRange<i64>,
    read: &BTreeMap<(String, i64), Vec<SeriesWindow>>,
) {
    for hour in hours {
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
    fn parts_come_in_the_order_of_their_first_series() {
        // The cache lacks all hours of the fourth and later series. The cache lacks only the newest hour of the first
        // three series.
        let missing = MissingHours::from([((0, 24), (3..20).collect()), ((23, 24), vec![0, 1, 2])]);
        let parts = split_into_parts(missing.clone(), 300_000);
        let firsts: Vec<usize> = parts.iter().map(|(_, ranks)| ranks[0]).collect();
        assert_eq!(firsts, [0, 3, 10, 17]);
        let sizes: Vec<usize> = parts.iter().map(|(_, ranks)| ranks.len()).collect();
        assert_eq!(sizes, [3, 7, 7, 3]);
        // With short windows, each series of the day is a part of its own.
        let parts = split_into_parts(missing, 1_000);
        let sizes = parts.iter().map(|(_, ranks)| ranks.len()).take(3);
        assert_eq!(sizes.collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn only_hours_that_can_no_longer_change_are_cached() {
        let cache = window_cache();
        let window = |hour: i64, is_final| SeriesWindow {
            start_ms: UnixMs(hour * HOUR_MS),
            end_ms: UnixMs(hour * HOUR_MS + 300_000),
            counts: [1, 0, 0, 0],
            is_final,
        };
        let names = ["a#x".to_owned(), "b#x".to_owned()];
        let read = BTreeMap::from([
            (("a#x".to_owned(), 10), vec![window(10, true)]),
            (("b#x".to_owned(), 11), vec![window(11, false)]),
            (("a#x".to_owned(), 14), vec![window(14, false)]),
        ]);
        cache_final_hours(&cache, &names, 10..13, &read);
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
