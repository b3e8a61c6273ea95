//! The JSON answer of the timeline. The handler and the summation fill its fields, so they are visible to both.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::schemas::Level;
use crate::store::reads::TotalItem;

/// The data of a chart.
#[derive(Serialize, ToSchema)]
pub(super) struct Timeline {
    /// First instant of the range.
    #[schema(format = DateTime)]
    pub(super) from: String,
    /// First instant after the range.
    #[schema(format = DateTime)]
    pub(super) to: String,
    /// Length of a step, a whole number of windows.
    pub(super) step_seconds: i64,
    /// When the totals were read.
    #[schema(format = DateTime)]
    pub(super) generated_at: String,
    /// The parameter `city`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) city: Option<String>,
    /// The parameter `event_type`, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event_type: Option<String>,
    /// The parameter `severity`, in lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Level, required = false)]
    pub(super) severity: Option<&'static str>,
    /// First instant of the newest window of the range that holds an event; null if there is none.
    #[schema(format = DateTime)]
    pub(super) newest_window_start: Option<String>,
    /// The numbers of the steps with a window that may still change.
    #[schema(value_type = Vec<i64>)]
    pub(super) open: BTreeSet<i64>,
    pub(super) totals: RangeCounts,
    pub(super) all_time: AllTimeCounts,
    /// The number of series listed.
    pub(super) series_count: usize,
    /// The number of series that `totals` covers. These are the largest ones.
    pub(super) series_read: usize,
    /// True if the request reached its limit of read units. The same request a second later covers more series.
    /// Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partial: Option<bool>,
    /// The number of series that match the requested city and event type.
    pub(super) series_total: usize,
    /// The largest series of all time, largest first.
    pub(super) series: Vec<Series>,
    pub(super) others: Others,
}

/// The number of events of all time, whatever severity was requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Counts)]
pub(super) struct AllTimeCounts {
    /// Events counted in windows.
    pub(super) event_count: u64,
    /// Events that arrived too late for their window.
    pub(super) late_count: u64,
    /// Events of low severity, late ones included.
    pub(super) severity_low: u64,
    /// Events of medium severity, late ones included.
    pub(super) severity_medium: u64,
    /// Events of high severity, late ones included.
    pub(super) severity_high: u64,
    /// Events of critical severity, late ones included.
    pub(super) severity_critical: u64,
}

impl From<&TotalItem> for AllTimeCounts {
    fn from(total: &TotalItem) -> AllTimeCounts {
        let [low, medium, high, critical] = total.severity_counts;
        AllTimeCounts {
            event_count: total.event_count,
            late_count: total.late_count,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
        }
    }
}

/// The number of events in the windows of the range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct RangeCounts {
    /// Events counted in windows.
    pub(super) event_count: u64,
    /// Always null. No window holds late events, so the late events of a range are unknown.
    #[schema(required = true)]
    pub(super) late_count: Option<u64>,
    /// Events of low severity.
    pub(super) severity_low: u64,
    /// Events of medium severity.
    pub(super) severity_medium: u64,
    /// Events of high severity.
    pub(super) severity_high: u64,
    /// Events of critical severity.
    pub(super) severity_critical: u64,
}

impl From<[u64; 4]> for RangeCounts {
    fn from([low, medium, high, critical]: [u64; 4]) -> RangeCounts {
        RangeCounts {
            event_count: low + medium + high + critical,
            late_count: None,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
        }
    }
}

/// A city and event type, with its counts of all time and its steps.
#[derive(Serialize, ToSchema)]
pub(super) struct Series {
    /// The city, as its producers spell it.
    pub(super) city: String,
    /// The event type, such as `traffic`.
    pub(super) event_type: String,
    #[serde(flatten)]
    pub(super) counts: AllTimeCounts,
    /// For each step with an event: the step's number, then its events from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub(super) steps: Vec<[u64; 5]>,
}

/// The sum of the series that are not listed. Its steps cover only the series that were read.
#[derive(Serialize, ToSchema)]
pub(super) struct Others {
    /// The number of series that are not listed.
    pub(super) series_count: usize,
    #[serde(flatten)]
    pub(super) counts: AllTimeCounts,
    /// For each step with an event: the step's number, then its events from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub(super) steps: Vec<[u64; 5]>,
}
