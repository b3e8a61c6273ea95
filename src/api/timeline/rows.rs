//! Converts a timeline to the rows of an export. A series has one row for each step in which it has events.
//!
//! The event counts of all rows add up to the event count in the timeline's field `totals`.

use serde::Serialize;

use super::answer::Timeline;
use super::grid::Grid;
use crate::api::export::ExportRow;
use crate::core::time::format_seconds;

/// The counts of one series in one step. A row without a city contains the counts of all series that the timeline does
/// not list.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct StepRow {
    /// First instant of the step.
    step_start: String,
    /// First instant after the step.
    step_end: String,
    /// The city, or `None` in the row with the sum of all series that the timeline does not list.
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    /// The event type, or `None` in a row that sums the series that the timeline does not list.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    event_count: u64,
    severity_low: u64,
    severity_medium: u64,
    severity_high: u64,
    severity_critical: u64,
    /// False if the counts of a window in this step may still change.
    #[serde(rename = "final")]
    is_final: bool,
}

impl ExportRow for StepRow {
    const COLUMNS: &'static [&'static str] = &[
        "step_start",
        "step_end",
        "city",
        "event_type",
        "event_count",
        "severity_low",
        "severity_medium",
        "severity_high",
        "severity_critical",
        "final",
    ];
}

/// Returns the rows of the listed series, with the largest series first. The last rows contain the sums of the series
/// that the timeline does not list. The rows of each series are sorted by time.
pub(super) fn rows_of(timeline: &Timeline, grid: &Grid) -> Vec<StepRow> {
    let listed = timeline.series.iter().map(|series| {
        let names = Some((&series.city, &series.event_type));
        (names, &series.steps)
    });
    let all = listed.chain([(None, &timeline.others.steps)]);
    let rows = all.flat_map(|(names, steps)| {
        steps
            .iter()
            .map(move |[step, low, medium, high, critical]| {
                let step = usize::try_from(*step).expect("steps are few");
                StepRow {
                    step_start: format_seconds(grid.bounds()[step]),
                    step_end: format_seconds(grid.bounds()[step + 1]),
                    city: names.map(|(city, _)| city.clone()),
                    event_type: names.map(|(_, event_type)| event_type.clone()),
                    event_count: low + medium + high + critical,
                    severity_low: *low,
                    severity_medium: *medium,
                    severity_high: *high,
                    severity_critical: *critical,
                    is_final: !timeline.open.contains(&step),
                }
            })
    });
    rows.collect()
}
