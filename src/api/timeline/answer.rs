//! The JSON answer of the timeline. Both the handler and the code that sums the counts fill in the fields of the
//! answer.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::schemas::Level;
use crate::api::schemas::StepUnit;
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
    /// The unit of a step.
    pub(super) step: StepUnit,
    /// Length of a step in seconds. A day on which the clocks of `tz` change is an hour shorter or longer.
    pub(super) step_seconds: i64,
    /// First instant of each step, if the steps are days; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) step_starts: Option<Vec<String>>,
    /// When the server read the totals.
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
    /// First instant of the newest window in the range that holds an event; null if no window holds an event.
    #[schema(format = DateTime)]
    pub(super) newest_window_start: Option<String>,
    /// The numbers of the steps that contain a window that may still change.
    #[schema(value_type = Vec<i64>)]
    pub(super) open: BTreeSet<usize>,
    pub(super) totals: RangeCounts,
    pub(super) all_time: AllTimeCounts,
    /// The number of series that this answer lists.
    pub(super) series_count: usize,
    /// The number of series that `totals` covers. They are the largest series.
    pub(super) series_read: usize,
    /// True if the request reached its limit of read units; absent otherwise. If the client repeats the request a
    /// second later, the answer covers more series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partial: Option<bool>,
    /// The number of series that match the requested city and event type.
    pub(super) series_total: usize,
    /// The series with the most events of all time, with the largest series first.
    pub(super) series: Vec<Series>,
    pub(super) others: Others,
    /// The previous range of the same length, if the request has `compare=previous`; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub(super) previous: Option<Box<Timeline>>,
}

/// The number of events of all time, for all severities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Counts)]
pub(super) struct AllTimeCounts {
    /// Events counted in windows.
    pub(super) event_count: u64,
    /// Events that arrived too late for their window.
    pub(super) late_count: u64,
    /// Events of low severity, late events included.
    pub(super) severity_low: u64,
    /// Events of medium severity, late events included.
    pub(super) severity_medium: u64,
    /// Events of high severity, late events included.
    pub(super) severity_high: u64,
    /// Events of critical severity, late events included.
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

/// The number of events that the windows of the range count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct RangeCounts {
    /// Events counted in windows.
    pub(super) event_count: u64,
    /// The late events of all time, if the range holds every event that a window counts. Otherwise null: no window
    /// holds late events, so the number of late events in a range is unknown.
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

impl RangeCounts {
    pub(super) fn new(
        [low, medium, high, critical]: [u64; 4],
        late_count: Option<u64>,
    ) -> RangeCounts {
        RangeCounts {
            event_count: low + medium + high + critical,
            late_count,
            severity_low: low,
            severity_medium: medium,
            severity_high: high,
            severity_critical: critical,
        }
    }
}

/// A city and event type, with the counts of all time and the counts of each step.
#[derive(Serialize, ToSchema)]
pub(super) struct Series {
    /// The city, as its producers spell it.
    pub(super) city: String,
    /// The event type, such as `traffic`.
    pub(super) event_type: String,
    #[serde(flatten)]
    pub(super) counts: AllTimeCounts,
    /// For each step with an event: the number of the step, followed by its event counts from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub(super) steps: Vec<[u64; 5]>,
}

/// The sum of the series that the answer does not list. The field `steps` covers only the series that were read.
#[derive(Serialize, ToSchema)]
pub(super) struct Others {
    /// The number of series that the answer does not list.
    pub(super) series_count: usize,
    #[serde(flatten)]
    pub(super) counts: AllTimeCounts,
    /// For each step with an event: the number of the step, followed by its event counts from low to critical.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub(super) steps: Vec<[u64; 5]>,
}
