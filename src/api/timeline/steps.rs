//! Sums windows into the steps of a chart.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{AllTimeCounts, Others, RangeCounts, Series, Timeline};
use super::query::{MatchingSeries, TimelineQuery};
use crate::api::window_cache::SeriesWindow;
use crate::core::event::Severity;
use crate::core::keys::series;
use crate::core::time::{format_millis, format_seconds};
use crate::store::reads::TotalItem;

/// The default window length, for tables without any row.
const WINDOW_MS_DEFAULT: i64 = 300_000;
/// Maximum number of steps of a chart. More bars would be too thin to see.
const STEPS_MAX: i64 = 100;

/// Returns the length of a step: whole windows, so many that about [`STEPS_MAX`] steps fill the span.
fn step_ms(window_ms: i64, span_ms: i64) -> i64 {
    // With windows of five minutes these are 5, 10, 15 and 30 minutes, then whole hours.
    let least = (span_ms / STEPS_MAX).max(window_ms);
    let candidates = [1, 2, 3, 6, 12, 24, 36, 72, 144].map(|n| n * window_ms);
    let fits = candidates.into_iter().find(|step| *step >= least);
    fits.unwrap_or(least.div_euclid(window_ms).max(1) * window_ms)
}

/// The windows of each series.
type WindowsBySeries = BTreeMap<String, Vec<SeriesWindow>>;

/// Counts by severity of each step with an event.
type StepCounts = BTreeMap<i64, [u64; 4]>;

/// The steps of a range.
struct StepGrid {
    from_ms: i64,
    to_ms: i64,
    step_ms: i64,
}

impl StepGrid {
    /// Returns the grid whose last step contains the last instant before `to_ms`. Whole steps before it fill
    /// the span.
    fn new(windows: &WindowsBySeries, to_ms: i64, span_ms: i64) -> StepGrid {
        let lengths = windows.values().flatten().map(|w| w.end_ms - w.start_ms);
        let step_ms = step_ms(lengths.min().unwrap_or(WINDOW_MS_DEFAULT), span_ms);
        let to_ms = ((to_ms - 1).div_euclid(step_ms) + 1) * step_ms;
        StepGrid {
            from_ms: to_ms - (span_ms + step_ms - 1).div_euclid(step_ms) * step_ms,
            to_ms,
            step_ms,
        }
    }

    /// Returns the windows of a series inside the grid, each with the number of its step.
    fn place<'a>(
        &'a self,
        windows: &'a WindowsBySeries,
        total: &TotalItem,
    ) -> impl Iterator<Item = (i64, &'a SeriesWindow)> {
        let own = windows.get(&series(&total.city, &total.event_type));
        let inside = |w: &&SeriesWindow| (self.from_ms..self.to_ms).contains(&w.start_ms);
        let own = own.into_iter().flatten().filter(inside);
        own.map(|window| ((window.start_ms - self.from_ms) / self.step_ms, window))
    }
}

/// Sums the windows of each series into the steps of the range.
pub(super) fn sum_windows(
    query: &TimelineQuery,
    mut matching: MatchingSeries,
    windows: &WindowsBySeries,
    to_ms: i64,
) -> Timeline {
    let grid = StepGrid::new(windows, to_ms, query.span_ms());
    raise_totals(&mut matching, windows, &grid);
    let (mut open, mut newest_ms) = (BTreeSet::new(), None);
    let (mut listed, mut others) = (Vec::new(), StepCounts::new());
    let mut range = [0; 4];
    let mut rest = matching.all.clone();
    let series_read = matching.read.len();
    for (n, total) in matching.read.into_iter().enumerate() {
        let mut own = StepCounts::new();
        let is_listed = n < query.limit;
        let steps = if is_listed { &mut own } else { &mut others };
        for (step, window) in grid.place(windows, &total) {
            if !window.is_final {
                open.insert(step);
            }
            let counts = only_severity(window.counts, query.severity);
            if counts != [0; 4] {
                newest_ms = newest_ms.max(Some(window.start_ms));
                add(steps.entry(step).or_default(), counts);
                add(&mut range, counts);
            }
        }
        if is_listed {
            rest.subtract(&total);
            listed.push(Series {
                counts: AllTimeCounts::from(&total),
                city: total.city,
                event_type: total.event_type,
                steps: list_steps(own),
            });
        }
    }
    Timeline {
        from: format_seconds(grid.from_ms),
        to: format_seconds(grid.to_ms),
        step_seconds: grid.step_ms / 1_000,
        generated_at: format_millis(matching.read_ms),
        city: query.city.clone(),
        event_type: query.event_type.clone(),
        severity: query.severity.map(Severity::name),
        newest_window_start: newest_ms.map(format_seconds),
        open,
        totals: RangeCounts::from(range),
        all_time: AllTimeCounts::from(&matching.all),
        series_count: listed.len(),
        series_read,
        partial: None,
        series_total: matching.series_total,
        others: Others {
            series_count: matching.series_total - listed.len(),
            counts: AllTimeCounts::from(&rest),
            steps: list_steps(others),
        },
        series: listed,
    }
}

/// Raises the totals of all time to at least what the windows count.
///
/// The windows are read after the totals, so they may count more events. Without this step, a range could
/// show more events than all time.
fn raise_totals(matching: &mut MatchingSeries, windows: &WindowsBySeries, grid: &StepGrid) {
    let mut all = matching.all.clone();
    for total in &mut matching.read {
        let mut counts = [0; 4];
        for (_, window) in grid.place(windows, total) {
            add(&mut counts, window.counts);
        }
        raise_total(total, &mut all, counts);
    }
    // Progress items may be ahead of the totals rows. They may already count the events that the windows
    // added here, so raising their sum could count these events twice.
    if !matching.from_progress {
        matching.all = all;
    }
}

/// Raises a total to at least `counts`, and the sum over all series by the same amount.
fn raise_total(total: &mut TotalItem, all: &mut TotalItem, counts: [u64; 4]) {
    let raise = |count: &mut u64, sum: &mut u64, least: u64| {
        *sum += least.saturating_sub(*count);
        *count = least.max(*count);
    };
    let events = counts.iter().sum();
    raise(&mut total.event_count, &mut all.event_count, events);
    for (level, least) in counts.into_iter().enumerate() {
        let (count, sum) = (&mut total.severity_counts, &mut all.severity_counts);
        raise(&mut count[level], &mut sum[level], least);
    }
}

fn add(sums: &mut [u64; 4], counts: [u64; 4]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

/// Returns only the count of `severity`, or all counts if no severity is requested.
fn only_severity(counts: [u64; 4], severity: Option<Severity>) -> [u64; 4] {
    let Some(severity) = severity else {
        return counts;
    };
    let mut only = [0; 4];
    only[severity.index()] = counts[severity.index()];
    only
}

fn list_steps(steps: StepCounts) -> Vec<[u64; 5]> {
    let steps = steps.into_iter();
    let steps = steps.map(|(step, [low, medium, high, critical])| {
        let step = u64::try_from(step).expect("steps begin at from");
        [step, low, medium, high, critical]
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::HOUR_MS;

    #[test]
    fn a_step_is_whole_windows_and_a_chart_has_about_a_hundred_steps_at_most() {
        const MINUTE: i64 = 60_000;
        for (window, hours, want) in [
            (5, 1, 5),
            (5, 6, 5),
            (5, 24, 15),
            (5, 168, 120),
            (1, 1, 1),
            (1, 24, 24),
            (10, 1, 10),
            (7, 1, 7),
        ] {
            let step = step_ms(window * MINUTE, hours * HOUR_MS);
            assert_eq!(step, want * MINUTE, "{window} min, {hours} h");
        }
    }

    fn nyc() -> TotalItem {
        TotalItem {
            city: "NYC".into(),
            event_type: "traffic".into(),
            event_count: 9,
            ..TotalItem::default()
        }
    }

    /// Windows of NYC with 1, 2 and 4 low events, and one critical event each. The last one is open.
    fn windows() -> WindowsBySeries {
        let window = |minute: i64, low, is_final| SeriesWindow {
            start_ms: minute * 60_000,
            end_ms: (minute + 5) * 60_000,
            counts: [low, 0, 0, 1],
            is_final,
        };
        BTreeMap::from([(
            "NYC#traffic".to_owned(),
            vec![window(0, 1, true), window(5, 2, true), window(55, 4, false)],
        )])
    }

    fn query(hours: u32, severity: Option<Severity>, limit: usize) -> TimelineQuery {
        TimelineQuery {
            hours,
            to_ms: None,
            city: None,
            event_type: None,
            severity,
            limit,
        }
    }

    fn matching(read: &[TotalItem]) -> MatchingSeries {
        let mut all = nyc();
        all.event_count = 30;
        MatchingSeries {
            read: read.to_vec(),
            series_total: 7,
            all,
            from_progress: false,
            read_ms: 0,
        }
    }

    #[test]
    fn steps_count_each_window_once_and_show_which_may_change() {
        let got = sum_windows(&query(1, None, 5), matching(&[nyc()]), &windows(), HOUR_MS);
        assert_eq!(
            (got.from.as_str(), got.to.as_str()),
            ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z")
        );
        assert_eq!(
            (got.step_seconds, got.series_count, got.series_total),
            (300, 1, 7)
        );
        let steps = [[0, 1, 0, 0, 1], [1, 2, 0, 0, 1], [11, 4, 0, 0, 1]];
        assert_eq!(got.series[0].steps, steps);
        assert_eq!(got.open, BTreeSet::from([11]));
        assert_eq!(got.totals, RangeCounts::from([7, 0, 0, 3]));
        assert_eq!(
            (got.others.series_count, got.others.counts.event_count),
            (6, 21)
        );
        assert!(got.others.steps.is_empty());
        assert_eq!(
            got.newest_window_start.as_deref(),
            Some("1970-01-01T00:55:00Z")
        );
        let got = sum_windows(&query(24, None, 5), matching(&[]), &windows(), HOUR_MS);
        assert_eq!(got.step_seconds, 900);
    }

    #[test]
    fn windows_raise_the_sums_over_series_but_not_those_of_progress_items() {
        let query = query(1, None, 5);
        let got = sum_windows(&query, matching(&[nyc()]), &windows(), HOUR_MS);
        assert_eq!(got.all_time.severity_critical, 3);
        let kept = MatchingSeries {
            from_progress: true,
            ..matching(&[nyc()])
        };
        let got = sum_windows(&query, kept, &windows(), HOUR_MS);
        assert_eq!(got.all_time.severity_critical, 0);
    }

    #[test]
    fn series_that_are_not_listed_are_in_the_others_and_a_severity_filters_steps() {
        let la = TotalItem {
            city: "LA".into(),
            ..nyc()
        };
        let query = query(1, Some(Severity::Critical), 1);
        let got = sum_windows(&query, matching(&[la, nyc()]), &windows(), HOUR_MS);
        assert_eq!((got.series.len(), got.series_read), (1, 2));
        assert!(got.series[0].steps.is_empty());
        assert_eq!(
            got.others.steps,
            [[0, 0, 0, 0, 1], [1, 0, 0, 0, 1], [11, 0, 0, 0, 1]]
        );
        assert_eq!(got.totals, RangeCounts::from([0, 0, 0, 3]));
    }

    #[test]
    fn a_range_never_shows_more_events_than_all_time() {
        let total = |event_count, low| TotalItem {
            event_count,
            severity_counts: [low, 4, 0, 0],
            ..TotalItem::default()
        };
        let (mut one, mut all) = (total(7, 3), total(20, 16));
        raise_total(&mut one, &mut all, [7, 6, 0, 0]);
        // The windows hold 13 events, but the totals knew of only seven.
        assert_eq!((one.event_count, one.severity_counts), (13, [7, 6, 0, 0]));
        assert_eq!((all.event_count, all.severity_counts), (26, [20, 6, 0, 0]));
        raise_total(&mut one, &mut all, [1, 3, 0, 0]);
        assert_eq!((one.event_count, all.event_count), (13, 26));
    }
}
