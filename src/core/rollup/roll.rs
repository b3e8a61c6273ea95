//! Plans the reads and writes of a rollup pass. A rollup pass rolls up the hours of a [`RollupPlan`].
//!
//! The caller carries out the request that [`Roll::next_ask`] returns, reports the answer, and calls `next_ask` again.
//! The pass divides the hours of the plan into chunks of at most one day, and processes each chunk in four steps:
//!
//! - First, the pass reads the windows of each series by key, with consistent reads, and sums the windows by hour.
//! - Next, the pass writes the hour rows of all cities together.
//! - If the chunk contains the last hour of a day, the pass computes the day rows from the stored hour rows of that
//!   day.
//! - Finally, the pass moves the mark to the end of the chunk.
//!
//! After a crash, the next consumer starts at the mark and writes the same rows again. Queries ignore the rows of a
//! chunk until the mark has moved past the chunk.
//!
//! A read by key costs one read unit even if no window exists. If more than one day is due, the rollup pass skips days
//! without windows. The pass finds the start of the next window in an index. Because the index may lag behind its
//! table, the pass waits [`SETTLE_MS`] milliseconds before it queries the index.
//!
//! # Assumption
//! The index contains a window at most [`SETTLE_MS`] milliseconds after a consumer has written the window. If this
//! assumption fails and no other series has windows on the same day, the rollup pass skips the day by mistake. No other
//! decision of the pass depends on the index.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Cells, DAY_MS, DayHours, HOUR_MS, RollupMark, RollupPlan, RollupRow, RollupSeries,
    SeverityCounts, add_counts, day_start, hour_start,
};
use crate::batch::BATCH_PUTS_MAX;
use crate::clock::UnixMs;
use crate::keys::TOTALS_SHARDS;
use crate::pace::backoff_ms;

/// Time after which the rollup pass assumes that the index contains every window, in milliseconds. According to AWS, an
/// index lags behind its table by a fraction of a second.
pub const SETTLE_MS: u64 = 60_000;
/// Maximum number of windows in one request.
const WINDOWS_MAX: i64 = 1_000;
/// Maximum number of rows for all cities that a rollup pass keeps in memory. The rows take about 10 MB in total. If a
/// chunk of one day needs more rows, the pass uses chunks of one hour instead.
const ALL_ROWS_MAX: usize = 100_000;

/// A request of the rollup pass that the caller must carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Write the mark, on condition that the version of the stored mark is lower by one. If the write succeeds, report
    /// the mark to [`Roll::moved`].
    Move(RollupMark),
    /// Wait for `SETTLE_MS` milliseconds, so that the index contains all windows. Report the end of the wait to
    /// [`Roll::settled`].
    Settle,
    /// Find the first window of any series that starts at or after the given time. Report the result to
    /// [`Roll::first_window`].
    FirstWindow(UnixMs),
    /// Read the next page of series from a shard of the totals table. The series are in the order of their names.
    /// Report the result to [`Roll::series`].
    Series {
        /// The number of the shard.
        shard: u32,
        /// The last name of the previous page, or an empty string for the first page.
        after: String,
    },
    /// Read the windows of a series that start in `[from_ms, until_ms)`. Read the windows by their keys, without an
    /// index. Report the result to [`Roll::windows`].
    Windows {
        /// The series, which is `city#event_type`.
        series: String,
        /// The earliest window start to read.
        from_ms: UnixMs,
        /// The end of the range. The read excludes windows that start at or after `until_ms`.
        until_ms: UnixMs,
    },
    /// Read the hour rows of a series on one day. Report the result to [`Roll::hours`].
    Hours {
        /// The series whose hour rows are read.
        series: RollupSeries,
        /// The start of the day.
        day_ms: UnixMs,
    },
    /// Wait for `wait_ms` milliseconds, and then write the rows to the table. Report the result to [`Roll::put`].
    Put {
        /// The rows to put, at most [`BATCH_PUTS_MAX`], with different keys.
        rows: Vec<RollupRow>,
        /// The wait before the put, in milliseconds. The wait grows with each attempt after which some rows were still
        /// unwritten.
        wait_ms: i64,
    },
    /// The rollup pass is complete. The field contains the mark in the table.
    Done(RollupMark),
}

/// The phases in which a rollup pass processes a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The pass reads the windows of the chunk and sums them into hours.
    Hours,
    /// The pass writes the hour rows to the table, because it computes the day rows from stored hour rows.
    Storing,
    /// The pass reads the stored hour rows and computes the day rows.
    Days,
    /// The pass has computed all rows of the chunk, but some rows may not be stored yet.
    Made,
}

/// The series whose windows the pass is currently reading.
#[derive(Clone, Debug)]
struct Folding {
    series: String,
    next_ms: UnixMs,
    hours: BTreeMap<UnixMs, SeverityCounts>,
}

/// Iterates over the series of all shards, one page at a time.
#[derive(Clone, Debug, Default)]
struct Walk {
    shard: u32,
    after: String,
    page: VecDeque<String>,
}

impl Walk {
    /// Returns the next series, the request for the next page of series, or `None` after the last series.
    fn next(&mut self) -> Option<Result<String, Ask>> {
        if let Some(series) = self.page.pop_front() {
            return Some(Ok(series));
        }
        (self.shard < TOTALS_SHARDS).then(|| {
            Err(Ask::Series {
                shard: self.shard,
                after: self.after.clone(),
            })
        })
    }

    fn take(&mut self, page: Vec<String>, has_more: bool) {
        match page.last() {
            Some(last) if has_more => self.after.clone_from(last),
            _ => {
                self.shard += 1;
                self.after.clear();
            }
        }
        self.page = page.into();
    }
}

/// A chunk of hours that a rollup pass rolls up together.
#[derive(Clone, Debug)]
struct Chunk {
    from_ms: UnixMs,
    until_ms: UnixMs,
    phase: Phase,
    walk: Walk,
    folding: Option<Folding>,
    /// The counts of all cities by event type and hour.
    all_cities: BTreeMap<(String, UnixMs), SeverityCounts>,
    event_types: BTreeSet<String>,
    /// The rollup series of all cities whose day rows are not computed yet. Each event type has one such series.
    days: VecDeque<RollupSeries>,
    /// The rows that are computed but not yet written to the table.
    rows: VecDeque<RollupRow>,
}

/// The rows of the current put. The rollup pass repeats the put until every row is stored.
#[derive(Clone, Debug, Default)]
struct Sending {
    rows: Vec<RollupRow>,
    attempts: u32,
}

/// A rollup pass, which rolls up the hours of a plan.
#[derive(Clone, Debug)]
pub struct Roll {
    mark: RollupMark,
    is_new: bool,
    target_ms: UnixMs,
    idle: BTreeMap<i32, UnixMs>,
    window_ms: i64,
    hours_max: i64,
    is_settled: bool,
    /// The start of the next chunk. No window starts between the mark and this time.
    from_ms: UnixMs,
    /// True if the pass has found in the index that the first window after the mark starts on the day of `from_ms`.
    is_found: bool,
    chunk: Option<Chunk>,
    sending: Sending,
}

impl Roll {
    /// Returns a rollup pass for the hours of `plan`. The window length must divide an hour.
    pub fn new(plan: RollupPlan, window_ms: i64) -> Roll {
        Roll {
            from_ms: plan.mark.until_ms,
            mark: plan.mark,
            is_new: plan.is_new,
            target_ms: plan.target_ms,
            idle: plan.idle,
            window_ms,
            hours_max: 24,
            is_settled: false,
            is_found: false,
            chunk: None,
            sending: Sending::default(),
        }
    }

    /// Returns the mark in the table. If the mark is new, returns the mark that the pass must write before any row.
    pub const fn mark(&self) -> &RollupMark {
        &self.mark
    }

    /// Returns the time up to which the rollup pass rolls up all hours.
    pub const fn target_ms(&self) -> UnixMs {
        self.target_ms
    }

    /// Returns the next request that the caller must carry out. The random number `chance` spreads repeated puts over
    /// time.
    pub fn next_ask(&mut self, chance: u32) -> Ask {
        if self.is_new {
            return Ask::Move(self.moved_to(self.mark.until_ms, self.mark.idle.clone()));
        }
        if !self.sending.rows.is_empty() {
            return self.put_ask(chance);
        }
        let Some(chunk) = &mut self.chunk else {
            return self.begin_chunk();
        };
        let ask = chunk.next_ask(self.window_ms);
        if chunk.all_cities.len() > ALL_ROWS_MAX && self.hours_max > 1 {
            self.hours_max = 1;
            self.chunk = None;
            return self.begin_chunk();
        }
        if let Some(ask) = ask {
            return ask;
        }
        self.sending.rows = chunk.take_rows();
        if self.sending.rows.is_empty() {
            let until_ms = chunk.until_ms;
            return Ask::Move(self.moved_to(until_ms, self.idle.clone()));
        }
        self.put_ask(chance)
    }

    fn put_ask(&self, chance: u32) -> Ask {
        let Sending { rows, attempts } = &self.sending;
        let wait_ms = match attempts {
            0 => 0,
            attempts => backoff_ms(*attempts, chance),
        };
        let rows = rows.clone();
        Ask::Put { rows, wait_ms }
    }

    fn moved_to(&self, until_ms: UnixMs, idle: BTreeMap<i32, UnixMs>) -> RollupMark {
        RollupMark {
            until_ms,
            idle,
            version: self.mark.version + 1,
            ..self.mark.clone()
        }
    }

    fn begin_chunk(&mut self) -> Ask {
        let from_ms = self.from_ms;
        if from_ms >= self.target_ms {
            return if self.mark.until_ms < from_ms {
                Ask::Move(self.moved_to(from_ms, self.idle.clone()))
            } else {
                Ask::Done(self.mark.clone())
            };
        }
        let is_long = self.target_ms - from_ms > DAY_MS && from_ms.0 % DAY_MS == 0;
        if is_long && !self.is_found {
            return if self.is_settled {
                Ask::FirstWindow(from_ms)
            } else {
                Ask::Settle
            };
        }
        let end_of_day = day_start(from_ms) + DAY_MS;
        let longest = from_ms + self.hours_max * HOUR_MS;
        let until_ms = end_of_day.min(longest).min(self.target_ms);
        self.chunk = Some(Chunk {
            from_ms,
            until_ms,
            phase: Phase::Hours,
            walk: Walk::default(),
            folding: None,
            all_cities: BTreeMap::new(),
            event_types: BTreeSet::new(),
            days: VecDeque::new(),
            rows: VecDeque::new(),
        });
        // The first request of a chunk is a read, which does not use the random number.
        self.next_ask(0)
    }

    /// Notes that the mark was written to the table.
    pub fn moved(&mut self, mark: RollupMark) {
        self.is_new = false;
        self.from_ms = mark.until_ms;
        self.is_found = false;
        self.chunk = None;
        self.mark = mark;
    }

    /// Notes that the wait before the query of the index is over.
    pub fn settled(&mut self) {
        self.is_settled = true;
    }

    /// Processes the start of the first window in the index, or `None` if the index has no such window.
    pub fn first_window(&mut self, start_ms: Option<UnixMs>) {
        let day_ms = start_ms.map_or(self.target_ms, day_start);
        self.from_ms = day_ms.clamp(self.from_ms, self.target_ms);
        self.is_found = true;
    }

    /// Processes a page of series. `has_more` is true if the shard has more series.
    pub fn series(&mut self, page: Vec<String>, has_more: bool) {
        if let Some(chunk) = &mut self.chunk {
            chunk.walk.take(page, has_more);
        }
    }

    /// Processes the windows of the current series. Each pair contains the start and the counts of a window.
    pub fn windows(&mut self, windows: &[(UnixMs, SeverityCounts)]) {
        let Some(folding) = self.chunk.as_mut().and_then(|c| c.folding.as_mut()) else {
            return;
        };
        for (start_ms, counts) in windows {
            let hour = folding.hours.entry(hour_start(*start_ms)).or_default();
            add_counts(hour, counts);
        }
        folding.next_ms = folding
            .next_ms
            .saturating_add(WINDOWS_MAX.saturating_mul(self.window_ms));
    }

    /// Processes the hour rows of `series` on the chunk's day. Each pair contains the start and the counts of an hour.
    pub fn hours(&mut self, series: RollupSeries, hours: &[(UnixMs, SeverityCounts)]) {
        let Some(chunk) = &mut self.chunk else {
            return;
        };
        let day_ms = chunk.until_ms - DAY_MS;
        let mut day = Box::<DayHours>::default();
        for (start_ms, counts) in hours {
            let hour = usize::try_from((*start_ms - day_ms) / HOUR_MS).ok();
            if let Some(hour) = hour.and_then(|hour| day.get_mut(hour)) {
                *hour = *counts;
            }
        }
        if day.iter().any(|hour| hour != &SeverityCounts::default()) {
            chunk.rows.push_back(RollupRow {
                series,
                start_ms: day_ms,
                cells: Cells::Day(day),
            });
        }
    }

    /// Processes the answer to a put. `unprocessed` contains the indexes of the rows that were not stored.
    pub fn put(&mut self, unprocessed: &[usize]) {
        let rows = std::mem::take(&mut self.sending.rows);
        let left = rows.into_iter().enumerate();
        let left = left.filter(|(at, _)| unprocessed.contains(at));
        self.sending.rows = left.map(|(_, row)| row).collect();
        self.sending.attempts = match unprocessed {
            [] => 0,
            _ => self.sending.attempts + 1,
        };
    }
}

impl Chunk {
    /// Returns the next read that the chunk needs. Returns `None` if the pass must write rows first, or if the chunk
    /// needs no further read.
    fn next_ask(&mut self, window_ms: i64) -> Option<Ask> {
        loop {
            if let Some(ask) = self.folding_ask(window_ms) {
                return Some(ask);
            }
            // The rollup pass writes a full batch of rows before it computes more rows, so that few rows are in memory.
            if self.phase == Phase::Made || self.rows.len() >= BATCH_PUTS_MAX {
                return None;
            }
            if self.phase == Phase::Storing {
                if !self.rows.is_empty() {
                    return None;
                }
                self.begin_days();
                continue;
            }
            match self.walk.next() {
                Some(Err(ask)) => return Some(ask),
                Some(Ok(series)) if self.phase == Phase::Hours => self.begin_series(series),
                Some(Ok(series)) => {
                    if let Some(series) = RollupSeries::of(&series) {
                        return Some(self.hours_ask(series));
                    }
                }
                None if self.phase == Phase::Hours => self.end_hours(),
                None => match self.days.pop_front() {
                    Some(series) => return Some(self.hours_ask(series)),
                    None => self.phase = Phase::Made,
                },
            }
        }
    }

    /// Returns the request for the next windows of the current series. After the last window of the series, converts
    /// its sums into rows and returns `None`.
    fn folding_ask(&mut self, window_ms: i64) -> Option<Ask> {
        let folding = self.folding.as_mut()?;
        if folding.next_ms < self.until_ms {
            let longest = WINDOWS_MAX.saturating_mul(window_ms);
            return Some(Ask::Windows {
                series: folding.series.clone(),
                from_ms: folding.next_ms,
                until_ms: folding.next_ms.saturating_add(longest).min(self.until_ms),
            });
        }
        let folding = self.folding.take()?;
        let series = RollupSeries::of(&folding.series)?;
        for (hour_ms, counts) in folding.hours {
            let key = (series.event_type.clone(), hour_ms);
            add_counts(self.all_cities.entry(key).or_default(), &counts);
            let row = RollupRow::hour(series.clone(), hour_ms, counts);
            self.rows.push_back(row);
        }
        None
    }

    fn begin_series(&mut self, series: String) {
        if let Some(rollups) = RollupSeries::of(&series) {
            self.event_types.insert(rollups.event_type);
            self.folding = Some(Folding {
                series,
                next_ms: self.from_ms,
                hours: BTreeMap::new(),
            });
        }
    }

    fn hours_ask(&self, series: RollupSeries) -> Ask {
        Ask::Hours {
            series,
            day_ms: self.until_ms - DAY_MS,
        }
    }

    fn end_hours(&mut self) {
        let rows = std::mem::take(&mut self.all_cities).into_iter();
        self.rows.extend(rows.map(|((kind, hour_ms), counts)| {
            RollupRow::hour(RollupSeries::all_cities(&kind), hour_ms, counts)
        }));
        self.phase = Phase::Storing;
    }

    fn begin_days(&mut self) {
        if self.until_ms.0 % DAY_MS != 0 {
            self.phase = Phase::Made;
            return;
        }
        self.phase = Phase::Days;
        self.walk = Walk::default();
        let types = std::mem::take(&mut self.event_types).into_iter();
        self.days = types.map(|kind| RollupSeries::all_cities(&kind)).collect();
    }

    /// Removes the rows for the next put from the chunk and returns them.
    fn take_rows(&mut self) -> Vec<RollupRow> {
        let len = self.rows.len().min(BATCH_PUTS_MAX);
        self.rows.drain(..len).collect()
    }
}
