//! Lists the hours or days of a series, newest first. The counts of an hour or a day are the sums over its windows.
//!
//! The counts of rolled-up hours come from rollups, and the counts of later hours come from windows. Rollups are read
//! from newest to oldest, for at most 32 days at a time, until the page is full
//! ([`RollupCache`](crate::api::rollup_cache::RollupCache)). The cost of a page therefore depends on the length of the
//! page and not on the length of the history.

use std::collections::BTreeMap;

use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::rollup_cache::PIECE_MS;
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::core::rollup::{Grain, RollupSeries, SeverityCounts, add_counts, windows_per_hour};
use crate::core::time::{format_seconds, parse_timestamp};
use crate::store::reads::{Page, PageRequest, Position, Range, RolledUp, Windows};

/// The counts of a series in one step, which is an hour or a day.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StepSum {
    pub(super) start_ms: UnixMs,
    pub(super) end_ms: UnixMs,
    pub(super) counts: SeverityCounts,
    /// The time at which a window in the step was last updated, or an empty string if the whole step is rolled up.
    pub(super) last_updated: String,
    /// True if no more events can be counted in the step.
    pub(super) is_final: bool,
}

/// A page of hours or days, newest first.
pub(super) struct Steps {
    pub(super) page: Page<StepSum>,
    /// The smallest published watermark, or `None` if the page contains no counts from windows.
    pub(super) watermark_ms: Option<UnixMs>,
}

/// Reads a page of hours or days. The page lists only hours or days that start in the range of `slice` and have events.
///
/// # Errors
/// Returns `bad_parameter` if the window length does not divide an hour, and otherwise the error of a failed read.
pub(super) async fn read_steps(
    state: &ApiState,
    params: &Params,
    series: &str,
    grain: Grain,
    slice: &PageRequest,
) -> Result<Steps, ApiError> {
    let Some(rollups) = RollupSeries::of(series) else {
        return Err(ApiError::internal("a series has a city and an event type"));
    };
    let rolled_up = state.reads().rolled_up(slice.now_ms).await?;
    if windows_per_hour(rolled_up.window_ms).is_none() {
        return Err(ApiError::bad_parameter(
            "windows of these tables cross the ends of hours, so hours and days are not sums of windows",
        ));
    }
    let mut sums = StepSums::new(grain, slice)?;
    let watermark_ms = sums
        .add_windows(state, params, series, slice, rolled_up)
        .await?;
    sums.add_rollups(state, rollups, rolled_up).await?;
    Ok(Steps {
        page: sums.page(rolled_up, watermark_ms),
        watermark_ms,
    })
}

/// The hours or days that were read so far for one page.
struct StepSums {
    length_ms: i64,
    /// The time range of whole hours or days that the page may list.
    range: Range,
    limit: usize,
    by_start: BTreeMap<UnixMs, StepSum>,
}

impl StepSums {
    fn new(grain: Grain, slice: &PageRequest) -> Result<StepSums, ApiError> {
        let length_ms = grain.length_ms();
        let first_at_or_after =
            |ms: UnixMs| UnixMs((ms.0 - 1).div_euclid(length_ms) * length_ms + length_ms);
        let to_ms = match &slice.after {
            None => slice.range.to_ms,
            Some(position) => {
                let listed_ms = parse_timestamp(&position.sort_key);
                listed_ms
                    .ok_or_else(ApiError::bad_cursor)?
                    .min(slice.range.to_ms)
            }
        };
        Ok(StepSums {
            length_ms,
            range: Range {
                from_ms: first_at_or_after(slice.range.from_ms),
                to_ms: first_at_or_after(to_ms),
            },
            limit: slice.limit,
            by_start: BTreeMap::new(),
        })
    }

    /// Returns true if more steps were read than the page may show. The oldest step that was read may be incomplete,
    /// but the page does not show the oldest step.
    fn are_full(&self) -> bool {
        self.by_start.len() > self.limit
    }

    fn step_of(&mut self, time_ms: UnixMs) -> &mut StepSum {
        let start_ms = time_ms - time_ms.0.rem_euclid(self.length_ms);
        let length_ms = self.length_ms;
        self.by_start.entry(start_ms).or_insert_with(|| StepSum {
            start_ms,
            end_ms: start_ms + length_ms,
            is_final: true,
            ..StepSum::default()
        })
    }

    /// Adds the counts of windows in hours that are not rolled up. Returns the watermark that was read together with
    /// the first page of windows.
    async fn add_windows(
        &mut self,
        state: &ApiState,
        params: &Params,
        series: &str,
        slice: &PageRequest,
        rolled_up: RolledUp,
    ) -> Result<Option<UnixMs>, ApiError> {
        let mut watermark_ms = None;
        let mut request = PageRequest {
            range: Range {
                from_ms: self.range.from_ms.max(rolled_up.until_ms),
                to_ms: self.range.to_ms,
            },
            after: None,
            ..slice.clone()
        };
        while !request.range.is_empty() && !self.are_full() {
            let read = state
                .reads()
                .aggregations(series.to_owned(), request.clone());
            let Windows {
                page,
                watermark_ms: read_ms,
            } = read.await.map_err(|error| params.read_error(error))?;
            // Watermarks never decrease, so the watermark of the first read is the smallest one.
            watermark_ms = watermark_ms.or(read_ms);
            for window in page.items {
                let Some(start_ms) = parse_timestamp(&window.window_start) else {
                    continue;
                };
                let step = self.step_of(start_ms);
                add_counts(&mut step.counts, &window.severity_counts);
                step.is_final &= window.is_final;
                if step.last_updated < window.last_updated {
                    step.last_updated = window.last_updated;
                }
            }
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        Ok(watermark_ms)
    }

    /// Adds the counts of rolled-up hours, from newest to oldest, until the page is full.
    async fn add_rollups(
        &mut self,
        state: &ApiState,
        series: RollupSeries,
        rolled_up: RolledUp,
    ) -> Result<(), ApiError> {
        let mut to_ms = self.range.to_ms.min(rolled_up.until_ms);
        if self.are_full() || self.range.from_ms >= to_ms {
            return Ok(());
        }
        let own = [series];
        let first = state.reads().first_hour(own.to_vec(), rolled_up).await?;
        let Some(first_ms) = first else {
            return Ok(());
        };
        let from_ms = self.range.from_ms.max(first_ms);
        while from_ms < to_ms && !self.are_full() {
            let piece_ms = UnixMs((to_ms.0 - 1).div_euclid(PIECE_MS) * PIECE_MS);
            let range = Range {
                from_ms: piece_ms.max(from_ms),
                to_ms,
            };
            let add = |_, start_ms, counts| add_counts(&mut self.step_of(start_ms).counts, &counts);
            let read = state
                .rollups()
                .read(state.reads(), &own, range, rolled_up, add);
            read.await?;
            to_ms = piece_ms;
        }
        Ok(())
    }

    /// Returns the newest steps (hours or days) as a page.
    fn page(self, rolled_up: RolledUp, watermark_ms: Option<UnixMs>) -> Page<StepSum> {
        let (is_cut, limit) = (self.are_full(), self.limit);
        let newest = self.by_start.into_values().rev().take(limit);
        let items: Vec<StepSum> = newest
            .map(|step| StepSum {
                is_final: step.end_ms <= rolled_up.until_ms
                    || step.is_final && watermark_ms.is_some_and(|ms| ms >= step.end_ms),
                ..step
            })
            .collect();
        let last = items.last().filter(|_| is_cut);
        Page {
            next: last.map(|step| Position {
                sort_key: format_seconds(step.start_ms),
                lane: 0,
                key: String::new(),
            }),
            items,
        }
    }
}
