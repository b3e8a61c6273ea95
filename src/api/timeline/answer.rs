//! The JSON response of the timeline.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::schemas::Level;
use crate::api::schemas::StepUnit;
use crate::store::reads::TotalItem;

/// The data of a chart.
#[derive(Serialize, ToSchema)]
pub(super) struct Timeline {
    /// The start of the range.
    #[schema(format = DateTime)]
    pub(super) from: String,
    /// The end of the range (exclusive).
    #[schema(format = DateTime)]
    pub(super) to: String,
    /// The unit of a step.
    pub(super) step: StepUnit,
    /// Length of a step in seconds. A day on which the clocks of the time zone change is an hour shorter or longer than
    /// `step_seconds`.
    pub(super) step_seconds: i64,
    /// The start of each step if the steps are days; absent otherwise.
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
    /// The start of the newest window with an event in the range; null if the range has no events.
    #[schema(format = DateTime)]
    pub(super) newest_window_start: Option<String>,
    /// The numbers of the steps whose counts may still change, because they contain a window that is not final.
    #[schema(value_type = Vec<i64>)]
    pub(super) open: BTreeSet<usize>,
    pub(super) totals: RangeCounts,
    pub(super) all_time: AllTimeCounts,
    /// The number of series that this answer lists.
    pub(super) series_count: usize,
    /// The number of series that `totals` covers. They are the largest series.
    pub(super) series_read: usize,
    /// True if the request reached its limit of read units; absent otherwise. If `partial` is true, the client can
    /// repeat the request a second later to get an answer that covers more series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) partial: Option<bool>,
    /// The number of series that match the requested city and event type.
    pub(super) series_total: usize,
    /// The series with the highest all-time event counts, sorted from most to fewest events.
    pub(super) series: Vec<Series>,
    pub(super) others: Others,
    /// The timeline of the previous range of the same length, if the request has `compare=previous`; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub(super) previous: Option<Box<Timeline>>,
}

/// The all-time event counts, in total and by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Counts)]
pub(super) struct AllTimeCounts {
    /// The number of events that are counted in windows.
    pub(super) event_count: u64,
    /// The number of events that arrived too late for their window.
    pub(super) late_count: u64,
    /// The number of events of low severity, including late events.
    pub(super) severity_low: u64,
    /// The number of events of medium severity, including late events.
    pub(super) severity_medium: u64,
    /// The number of events of high severity, including late events.
    pub(super) severity_high: u64,
    /// The number of events of critical severity, including late events.
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

/// The number of events that are counted in the windows of the range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct RangeCounts {
    /// The number of events that are counted in windows.
    pub(super) event_count: u64,
    /// The all-time number of late events if the range contains all windows; null otherwise. Late events are not
    /// counted in windows, so the number of late events in a shorter range is unknown.
    #[schema(required = true)]
    pub(super) late_count: Option<u64>,
    /// The number of events of low severity.
    pub(super) severity_low: u64,
    /// The number of events of medium severity.
    pub(super) severity_medium: u64,
    /// The number of events of high severity.
    pub(super) severity_high: u64,
    /// The number of events of critical severity.
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

/// A city and event type, with the all-time counts and the counts of each step.
#[derive(Serialize, ToSchema)]
pub(super) struct Series {
    /// The city, as its producers spell it.
    pub(super) city: String,
    /// The event type, such as `traffic`.
    pub(super) event_type: String,
    #[serde(flatten)]
    pub(super) counts: AllTimeCounts,
    /// One array for each step with events: the number of the step, followed by the event counts from low to critical
    /// severity.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub(super) steps: Vec<[u64; 5]>,
}

/// The sum of all series that the answer does not list. The field `steps` does not count series that the server did not
/// read.
#[derive(Serialize, ToSchema)]
pub(super) struct Others {
    /// The number of series that the answer does not list.
    pub(super) series_count: usize,
    #[serde(flatten)]
    pub(super) counts: AllTimeCounts,
    /// One array for each step with events: the number of the step, followed by the event counts from low to critical
    /// severity.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub(super) steps: Vec<[u64; 5]>,
}
