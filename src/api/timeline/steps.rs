//! Builds the response for a timeline from the counts of its range.

use super::answer::{AllTimeCounts, Others, RangeCounts, Series, Timeline};
use super::collect::{Collected, StepCounts};
use super::grid::Grid;
use super::query::{MatchingSeries, TimelineQuery};
use crate::api::schemas::StepUnit;
use crate::core::event::Severity;
use crate::core::rollup::{SeverityCounts, add_counts};
use crate::core::time::{format_millis, format_seconds};
use crate::store::reads::TotalItem;

/// Returns the response for a range of the timeline.
pub(super) fn make_timeline(
    query: &TimelineQuery,
    mut matching: MatchingSeries,
    grid: &Grid,
    collected: Collected,
) -> Timeline {
    raise_totals(&mut matching, &collected);
    let is_partial = collected.listed_complete < collected.by_series.len()
        || collected.series_complete < matching.read.len();
    let range = sum(&collected.all);
    // Windows do not count late events. If the range contains every event that was ever counted in a window,
    // `late_count` of the range is the all-time number of late events.
    let of_series = matching.read.iter().zip(&collected.by_series);
    let is_everything = range.iter().sum::<u64>() == matching.all.event_count
        && of_series
            .take(collected.listed_complete)
            .all(|(total, steps)| sum(steps).iter().sum::<u64>() == total.event_count);
    let late_count = (is_everything && query.severity.is_none()).then_some(matching.all.late_count);
    let (mut others, mut rest) = (collected.all, matching.all.clone());
    let mut listed = Vec::new();
    let own = matching.read.into_iter().zip(collected.by_series);
    for (total, steps) in own.take(collected.listed_complete) {
        rest.subtract(&total);
        subtract_steps(&mut others, &steps);
        listed.push(Series {
            counts: AllTimeCounts::from(&total),
            city: total.city,
            event_type: total.event_type,
            steps: list_steps(steps, query.severity),
        });
    }
    let days = (grid.unit == StepUnit::Day).then(|| grid.starts().iter().copied());
    Timeline {
        from: format_seconds(grid.begin_ms()),
        to: format_seconds(grid.end_ms()),
        step: grid.unit,
        step_seconds: grid.step_ms / 1_000,
        step_starts: days.map(|days| days.map(format_seconds).collect()),
        generated_at: format_millis(matching.read_ms),
        city: query.city.clone(),
        event_type: query.event_type.clone(),
        severity: query.severity.map(Severity::name),
        newest_window_start: collected.newest_ms.map(format_seconds),
        open: collected.open,
        totals: RangeCounts::new(only_severity(range, query.severity), late_count),
        all_time: AllTimeCounts::from(&matching.all),
        series_count: listed.len(),
        series_read: match (collected.is_rolled_up, &matching.all_cities) {
            (true, Some(_)) => matching.series_total,
            _ => collected.series_complete,
        },
        partial: is_partial.then_some(true),
        series_total: matching.series_total,
        others: Others {
            series_count: matching.series_total - listed.len(),
            counts: AllTimeCounts::from(&rest),
            steps: list_steps(others, query.severity),
        },
        series: listed,
        previous: None,
    }
}

/// Raises the all-time totals to at least the sums of the range.
///
/// The windows of the range are read after the totals rows, so the windows may count events that the totals rows did
/// not count yet. If the all-time totals were not raised, a response could show more events for the range than for all
/// time.
fn raise_totals(matching: &mut MatchingSeries, collected: &Collected) {
    let mut all = matching.all.clone();
    for (total, steps) in matching.read.iter_mut().zip(&collected.by_series) {
        raise_total(total, &mut all, sum(steps));
    }
    raise_total(&mut all, &mut TotalItem::default(), sum(&collected.all));
    // Raising the sums from progress items could count an event twice, because the progress items may already count
    // events that the totals rows do not count yet.
    if !matching.from_progress {
        matching.all = all;
    }
}

/// Raises the total of one series to at least `counts`, and raises the sums in `all` by the same amount. The counts by
/// severity still add up to the events and the late events.
fn raise_total(total: &mut TotalItem, all: &mut TotalItem, counts: SeverityCounts) {
    let mut more = SeverityCounts::default();
    for (level, least) in counts.into_iter().enumerate() {
        more[level] = least.saturating_sub(total.severity_counts[level]);
    }
    // The counts by severity of the totals row also contain late events, which windows do not count. The severity
    // counts of the totals row can therefore be at least `counts` even if the totals row lacks newer events. The
    // severity of the missing events is unknown, so the function adds the missing events to the most frequent severity
    // of the windows.
    let events: u64 = counts.iter().sum();
    let hidden = events.saturating_sub(total.event_count + more.iter().sum::<u64>());
    if let Some((level, _)) = counts.iter().enumerate().max_by_key(|(_, count)| **count) {
        more[level] += hidden;
    }
    for total in [total, all] {
        total.event_count += more.iter().sum::<u64>();
        add_counts(&mut total.severity_counts, &more);
    }
}

fn sum(steps: &StepCounts) -> SeverityCounts {
    let mut sums = SeverityCounts::default();
    steps
        .values()
        .for_each(|counts| add_counts(&mut sums, counts));
    sums
}

/// Subtracts the counts of one series (`own`) from the sums over all series (`all`).
fn subtract_steps(all: &mut StepCounts, own: &StepCounts) {
    for (step, counts) in own {
        let Some(left) = all.get_mut(step) else {
            continue;
        };
        for (left, count) in left.iter_mut().zip(counts) {
            *left = left.saturating_sub(*count);
        }
    }
}

/// Sets the counts of all severities except `severity` to zero. If `severity` is `None`, the function returns the
/// counts unchanged.
fn only_severity(counts: SeverityCounts, severity: Option<Severity>) -> SeverityCounts {
    let Some(severity) = severity else {
        return counts;
    };
    let mut only = SeverityCounts::default();
    only[severity.index()] = counts[severity.index()];
    only
}

/// Returns the steps that have an event of the requested severity, in the format of the response.
fn list_steps(steps: StepCounts, severity: Option<Severity>) -> Vec<[u64; 5]> {
    let steps = steps.into_iter();
    let counted = steps.map(|(step, counts)| (step, only_severity(counts, severity)));
    let counted = counted.filter(|(_, counts)| *counts != SeverityCounts::default());
    let listed = counted.map(|(step, [low, medium, high, critical])| {
        let step = u64::try_from(step).expect("a chart has few steps");
        [step, low, medium, high, critical]
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::tz::TimeZone;

    use super::*;
    use crate::api::params::HOUR_MS;
    use crate::api::timeline::grid::StepRange;
    use crate::api::timeline::range::{AskedRange, Begin};
    use crate::core::clock::UnixMs;

    fn nyc() -> TotalItem {
        TotalItem {
            city: "NYC".into(),
            event_type: "traffic".into(),
            event_count: 9,
            severity_counts: [6, 0, 0, 3],
            ..TotalItem::default()
        }
    }

    fn query(severity: Option<Severity>, limit: usize) -> TimelineQuery {
        TimelineQuery {
            range: AskedRange {
                begin: Begin::Before(HOUR_MS),
                to_ms: None,
                zone: TimeZone::UTC,
            },
            step: None,
            city: None,
            event_type: None,
            severity,
            limit: Some(limit),
            with_previous: false,
        }
    }

    fn matching(read: &[TotalItem]) -> MatchingSeries {
        let mut all = nyc();
        (all.event_count, all.late_count) = (30, 4);
        all.severity_counts = [25, 0, 0, 9];
        MatchingSeries {
            read: read.to_vec(),
            series_total: 7,
            all_cities: Some(vec!["traffic".into()]),
            all,
            from_progress: false,
            read_ms: UnixMs(0),
        }
    }

    /// Returns a grid of the first hour of 1970, in steps of five minutes.
    fn grid() -> Grid {
        let range = StepRange {
            from_ms: UnixMs(0),
            to_ms: UnixMs(HOUR_MS),
            keeps_length: true,
        };
        Grid::new(range, None, 300_000, &TimeZone::UTC).unwrap()
    }

    /// Returns counts for `series` series, which all have the same counts. Each series has three steps with 1, 2 and 4
    /// events of low severity. Each of the three steps also has one event of critical severity, and the third step may
    /// still change.
    fn collected(series: usize) -> Collected {
        let steps = StepCounts::from([(0, [1, 0, 0, 1]), (1, [2, 0, 0, 1]), (11, [4, 0, 0, 1])]);
        let mut all = StepCounts::new();
        for _ in 0..series {
            for (step, counts) in &steps {
                add_counts(all.entry(*step).or_default(), counts);
            }
        }
        Collected {
            all,
            by_series: vec![steps; series],
            open: BTreeSet::from([11]),
            newest_ms: Some(UnixMs(3_300_000)),
            listed_complete: series,
            series_complete: series,
            is_rolled_up: false,
        }
    }

    #[test]
    fn steps_show_what_was_counted_and_which_may_change() {
        let got = make_timeline(&query(None, 5), matching(&[nyc()]), &grid(), collected(1));
        assert_eq!(
            (got.from.as_str(), got.to.as_str()),
            ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z")
        );
        assert_eq!((got.step, got.step_seconds), (StepUnit::Window, 300));
        assert_eq!(
            (got.series_count, got.series_read, got.series_total),
            (1, 1, 7)
        );
        let steps = [[0, 1, 0, 0, 1], [1, 2, 0, 0, 1], [11, 4, 0, 0, 1]];
        assert_eq!(got.series[0].steps, steps);
        assert_eq!(got.open, BTreeSet::from([11]));
        assert_eq!(got.totals, RangeCounts::new([7, 0, 0, 3], None));
        assert_eq!(
            (got.others.series_count, got.others.counts.event_count),
            (6, 21)
        );
        assert!(got.others.steps.is_empty());
        assert_eq!(
            got.newest_window_start.as_deref(),
            Some("1970-01-01T00:55:00Z")
        );
    }

    #[test]
    fn a_range_with_every_event_has_all_late_events() {
        let one = |event_count, late_count, severity_counts| {
            let total = TotalItem {
                event_count,
                late_count,
                severity_counts,
                ..nyc()
            };
            MatchingSeries {
                series_total: 1,
                all: total.clone(),
                ..matching(&[total])
            }
        };
        for (matching, late_count) in [
            (one(10, 4, [11, 0, 0, 3]), Some(4)),
            (one(11, 4, [12, 0, 0, 3]), None),
            // The totals do not count the newest event yet, but they count one event outside of the range.
            (one(9, 0, [6, 0, 0, 3]), Some(0)),
            (one(10, 0, [6, 1, 0, 3]), None),
        ] {
            let got = make_timeline(&query(None, 5), matching, &grid(), collected(1));
            assert_eq!(got.totals.late_count, late_count);
            let all = got.all_time;
            let by_severity =
                all.severity_low + all.severity_medium + all.severity_high + all.severity_critical;
            assert_eq!(by_severity, all.event_count + all.late_count);
        }
    }

    #[test]
    fn series_that_are_not_listed_are_in_the_others_and_a_severity_filters_steps() {
        let la = TotalItem {
            city: "LA".into(),
            ..nyc()
        };
        let one = Collected {
            by_series: collected(1).by_series,
            listed_complete: 1,
            ..collected(2)
        };
        let query = query(Some(Severity::Critical), 1);
        let got = make_timeline(&query, matching(&[la, nyc()]), &grid(), one);
        assert_eq!((got.series.len(), got.series_read), (1, 2));
        let steps = [[0, 0, 0, 0, 1], [1, 0, 0, 0, 1], [11, 0, 0, 0, 1]];
        assert_eq!(got.series[0].steps, steps);
        assert_eq!(got.others.steps, steps);
        assert_eq!(got.totals, RangeCounts::new([0, 0, 0, 6], None));
        assert_eq!(got.partial, None);
    }

    #[test]
    fn series_that_could_not_be_read_are_in_the_others() {
        let la = TotalItem {
            city: "LA".into(),
            ..nyc()
        };
        let cut = Collected {
            listed_complete: 1,
            ..collected(2)
        };
        let got = make_timeline(&query(None, 5), matching(&[la, nyc()]), &grid(), cut);
        assert_eq!((got.series.len(), got.partial), (1, Some(true)));
        assert_eq!(got.others.steps, got.series[0].steps);
        assert_eq!(got.totals.event_count, 20);
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
        // The windows of the range count 13 events, but the totals rows count only seven.
        assert_eq!((one.event_count, one.severity_counts), (13, [7, 6, 0, 0]));
        assert_eq!((all.event_count, all.severity_counts), (26, [20, 6, 0, 0]));
        raise_total(&mut one, &mut all, [1, 3, 0, 0]);
        assert_eq!((one.event_count, all.event_count), (13, 26));
        // Two of the five events are late, so the range has two events that the totals do not count yet.
        let mut late = TotalItem {
            late_count: 2,
            ..total(3, 1)
        };
        raise_total(&mut late, &mut all, [1, 4, 0, 0]);
        assert_eq!((late.event_count, late.severity_counts), (5, [1, 6, 0, 0]));
        assert_eq!((all.event_count, all.severity_counts), (28, [20, 8, 0, 0]));
    }

    #[test]
    fn a_range_raises_the_sums_over_series_but_not_those_of_progress_items() {
        let query = query(None, 5);
        let got = make_timeline(&query, matching(&[nyc()]), &grid(), collected(1));
        assert_eq!(got.all_time.event_count, 31);
        let kept = MatchingSeries {
            from_progress: true,
            ..matching(&[nyc()])
        };
        let got = make_timeline(&query, kept, &grid(), collected(1));
        assert_eq!(got.all_time.event_count, 30);
    }
}
