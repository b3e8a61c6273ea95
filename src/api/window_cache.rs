//! Keeps windows in memory between timeline requests. The cache contains only hours in which every window is final.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::core::clock::UnixMs;
use crate::core::time::parse_timestamp;
use crate::store::reads::AggregationItem;

/// Time for which the cache keeps the windows of an hour. Final windows do not change while the topic keeps its
/// partition count. An operator may add partitions, so the cache does not keep an hour forever.
const HOUR_AGE_MAX: Duration = Duration::from_secs(300);
/// Maximum number of windows in the cache. Each window takes about 60 bytes.
const WINDOWS_MAX: u64 = 600_000;

/// A cache of windows, grouped by series and hour. Each key consists of the series and the number of hours since the
/// Unix epoch.
pub(crate) type WindowCache = Cache<(String, i64), Arc<Vec<SeriesWindow>>>;

/// Returns an empty cache.
pub(crate) fn window_cache() -> WindowCache {
    Cache::builder()
        .time_to_live(HOUR_AGE_MAX)
        .max_capacity(WINDOWS_MAX)
        .weigher(|_, windows: &Arc<Vec<SeriesWindow>>| {
            u32::try_from(windows.len() + 2).unwrap_or(u32::MAX)
        })
        .build()
}

/// The part of a window row that a chart needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesWindow {
    pub(crate) start_ms: UnixMs,
    pub(crate) end_ms: UnixMs,
    /// The number of events by severity, from low to critical.
    pub(crate) counts: [u64; 4],
    pub(crate) is_final: bool,
}

impl SeriesWindow {
    /// Returns the window of a row, or `None` if the times in the row are malformed.
    pub(crate) fn from_row(row: &AggregationItem) -> Option<SeriesWindow> {
        let start_ms = parse_timestamp(&row.window_start)?;
        let end_ms = parse_timestamp(&row.window_end)?;
        (start_ms < end_ms).then_some(SeriesWindow {
            start_ms,
            end_ms,
            counts: row.severity_counts,
            is_final: row.is_final,
        })
    }
}
