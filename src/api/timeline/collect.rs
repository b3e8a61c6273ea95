//! Collects the counts of a range: rolled-up hours from rollups, and later hours from windows.

use std::collections::{BTreeMap, BTreeSet};

use super::grid::Grid;
use super::query::{MatchingSeries, rollups_of};
use super::windows::read_windows;
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::core::keys::series;
use crate::core::rollup::{RollupSeries, SeverityCounts, add_counts};
use crate::store::error::StoreError;
use crate::store::reads::{Range, RolledUp};

/// For each step that has events, the number of the step and its counts by severity.
pub(super) type StepCounts = BTreeMap<usize, SeverityCounts>;

/// The counts that were collected for a range.
#[derive(Default)]
pub(super) struct Collected {
    /// The counts of each step, summed over all matching series.
    pub(super) all: StepCounts,
    /// The counts of each listed series by step, in the same order as `MatchingSeries::read`.
    pub(super) by_series: Vec<StepCounts>,
    /// The numbers of the steps that contain a window that is not final.
    pub(super) open: BTreeSet<usize>,
    /// The start of the newest window or rolled-up hour that has an event.
    pub(super) newest_ms: Option<UnixMs>,
    /// The number of series at the beginning of `by_series` whose counts are complete.
    pub(super) listed_complete: usize,
    /// The number of series at the beginning of `MatchingSeries::read` that `all` covers. If all counts come from
    /// rollups over all cities, `all` covers every matching series.
    pub(super) series_complete: usize,
    /// True if all counts in `all` come from rollups.
    pub(super) is_rolled_up: bool,
}

impl Collected {
    fn add(&mut self, step: usize, start_ms: UnixMs, counts: SeverityCounts) {
        self.newest_ms = self.newest_ms.max(Some(start_ms));
        add_counts(self.all.entry(step).or_default(), &counts);
    }
}

/// Reads the counts of a range. If the request reaches its read ceiling, the result covers only some series at the
/// beginning of `MatchingSeries::read`.
///
/// # Errors
/// Returns `TooCostly` if the read ceiling does not suffice for even one series, and otherwise the error of a failed
/// read.
pub(super) async fn collect(
    state: &ApiState,
    matching: &MatchingSeries,
    grid: &Grid,
    rolled_up: RolledUp,
    listed_max: usize,
) -> Result<Collected, StoreError> {
    let listed = matching.read.len().min(listed_max);
    let mut collected = Collected {
        by_series: vec![StepCounts::new(); listed],
        listed_complete: listed,
        series_complete: matching.read.len(),
        ..Collected::default()
    };
    let until_ms = rolled_up_until(grid, rolled_up);
    if until_ms > grid.begin_ms() {
        let range = Range {
            from_ms: grid.begin_ms(),
            to_ms: until_ms,
        };
        add_rollups(state, matching, grid, range, rolled_up, &mut collected).await?;
    }
    if until_ms < grid.end_ms() {
        add_windows(
            state,
            matching,
            grid,
            until_ms,
            rolled_up.window_ms,
            &mut collected,
        )
        .await?;
    }
    collected.is_rolled_up = until_ms == grid.end_ms();
    Ok(collected)
}

/// Returns the instant up to which the counts of a range come from rollups.
pub(super) fn rolled_up_until(grid: &Grid, rolled_up: RolledUp) -> UnixMs {
    if grid.has_whole_hours() {
        rolled_up.until_ms.clamp(grid.begin_ms(), grid.end_ms())
    } else {
        grid.begin_ms()
    }
}

async fn add_rollups(
    state: &ApiState,
    matching: &MatchingSeries,
    grid: &Grid,
    range: Range,
    rolled_up: RolledUp,
    collected: &mut Collected,
) -> Result<(), StoreError> {
    let cache = state.rollups();
    let step_of = |start_ms| grid.step_of(start_ms).expect("the range lies in the grid");
    if let Some(all) = matching.all_rollups() {
        let add = |_, start_ms, counts| collected.add(step_of(start_ms), start_ms, counts);
        cache
            .read(state.reads(), &all, range, rolled_up, add)
            .await?;
    }
    // If the request names a city, the function adds up the rollups of each matching series, because the rollup rows
    // over all cities include other cities.
    let own = match &matching.all_cities {
        Some(_) => &matching.read[..collected.by_series.len()],
        None => &matching.read[..],
    };
    let own: Vec<RollupSeries> = own.iter().map(rollups_of).collect();
    let mut last = None;
    let read = cache.read(
        state.reads(),
        &own,
        range,
        rolled_up,
        |n, start_ms, counts| {
            last = Some(n);
            let step = step_of(start_ms);
            if let Some(steps) = collected.by_series.get_mut(n) {
                add_counts(steps.entry(step).or_default(), &counts);
            }
            if matching.all_cities.is_none() {
                collected.add(step, start_ms, counts);
            }
        },
    );
    let read = read.await;
    match read {
        // The rollup rows over all cities already count every series, so the response can count the unread series in
        // `others`.
        Err(StoreError::TooCostly { .. }) if matching.all_cities.is_some() => {
            let complete = last.unwrap_or(0);
            collected.by_series[complete..]
                .iter_mut()
                .for_each(StepCounts::clear);
            collected.listed_complete = complete;
            Ok(())
        }
        read => read,
    }
}

async fn add_windows(
    state: &ApiState,
    matching: &MatchingSeries,
    grid: &Grid,
    from_ms: UnixMs,
    window_ms: i64,
    collected: &mut Collected,
) -> Result<(), StoreError> {
    let names: Vec<String> = matching
        .read
        .iter()
        .map(|total| series(&total.city, &total.event_type))
        .collect();
    let read = read_windows(
        state,
        &names,
        grid.end_ms(),
        grid.end_ms() - from_ms,
        window_ms,
    )
    .await?;
    for (n, name) in names[..read.series_complete].iter().enumerate() {
        for window in read.windows.get(name).into_iter().flatten() {
            let Some(step) = grid
                .step_of(window.start_ms)
                .filter(|_| window.start_ms >= from_ms)
            else {
                continue;
            };
            if !window.is_final {
                collected.open.insert(step);
            }
            if let Some(steps) = collected.by_series.get_mut(n) {
                add_counts(steps.entry(step).or_default(), &window.counts);
            }
            collected.add(step, window.start_ms, window.counts);
        }
    }
    collected.series_complete = read.series_complete;
    collected.listed_complete = collected.listed_complete.min(read.series_complete);
    Ok(())
}
