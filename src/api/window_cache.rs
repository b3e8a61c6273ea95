//! The windows that the timeline keeps between requests: whole hours in which every window is final.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::core::time::parse_timestamp;
use crate::store::reads::AggregationItem;

/// How long a cached hour is trusted. Final windows do not change while the topic keeps its partition count,
/// but it can grow, so the cache does not trust them forever.
const HOUR_AGE_MAX: Duration = Duration::from_secs(300);
/// Maximum number of windows in the cache, at about 60 bytes each.
const WINDOWS_MAX: u64 = 600_000;

/// The windows of one series in one hour, by series and hours since the epoch.
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
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Events by severity, from low to critical.
    pub(crate) counts: [u64; 4],
    pub(crate) is_final: bool,
}

impl SeriesWindow {
    /// Returns the window of a row, or `None` if the row's times are malformed.
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
