//! Sums the counts of final windows by hour and by day, so that a query for a long time range needs few reads. The sums
//! are stored in rollup rows.
//!
//! A rollup row contains the counts of one hour or one UTC day, either for a series or for one event type in all
//! cities. A consumer writes a rollup row only when all windows of its hour or day are final. Therefore, two consumers
//! that write the same rollup row write the same counts. The *mark* is an item that contains the time up to which all
//! hours are rolled up. A query reads rollup rows for hours before the mark, and window rows for later hours.
//!
//! | module | decides |
//! |---|---|
//! | [`due`] | which hours are final and not rolled up yet |
//! | [`roll`] | what is read and written for these hours, in which order |
//! | [`packed`] | how the 24 hours of a day are stored in one attribute |
//!
//! If the window length does not divide an hour evenly, there are no rollups (see [`windows_per_hour`]).

mod due;
mod packed;
mod roll;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::clock::UnixMs;
use crate::keys::split_series;
use crate::time::{format_seconds, parse_timestamp};

pub use due::{LogState, RollupFacts, RollupPlan, RollupWait, plan};
pub use packed::{pack, unpack};
pub use roll::{Ask, Roll, SETTLE_MS};

/// Length of an hour in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;
/// Length of a UTC day in milliseconds.
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// Partition key of the item in the totals table that holds the rollup mark.
pub const MARK_PK: &str = "rollups";
/// Sort key of the item in the totals table that holds the rollup mark.
pub const MARK_SK: &str = "hours";
/// Maximum average number of read units per second that a consumer spends on rollups. With about 30,000 series, a
/// consumer reads at this rate all the time. Reading 100 units per second costs 26 dollars a month.
pub const READ_UNITS_PER_SECOND: f64 = 100.0;
/// Time between two checks for hours that are due for a rollup, in milliseconds. A check that finds no due hour costs
/// about two DynamoDB read units.
pub const LOOK_INTERVAL_MS: u64 = 30_000;
/// Maximum wait before the consumer repeats a failed check for due hours, in milliseconds.
const RETRY_MS_MAX: u64 = 600_000;

/// Numbers of events by [`Severity::index`](crate::event::Severity::index).
pub type SeverityCounts = [u64; 4];

/// The counts of events for each hour of a day.
pub type DayHours = [SeverityCounts; 24];

/// Adds each count in `more` to the count of the same severity in `counts`.
pub fn add_counts(counts: &mut SeverityCounts, more: &SeverityCounts) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count = count.saturating_add(*more);
    }
}

/// Returns the start of the hour that contains `time_ms`.
pub fn hour_start(time_ms: UnixMs) -> UnixMs {
    time_ms - time_ms.0.rem_euclid(HOUR_MS)
}

/// Returns the start of the UTC day that contains `time_ms`.
pub fn day_start(time_ms: UnixMs) -> UnixMs {
    time_ms - time_ms.0.rem_euclid(DAY_MS)
}

/// Returns the number of windows in an hour, or `None` if the window length does not divide an hour evenly. Without
/// whole windows in an hour, the tables have no rollups.
pub fn windows_per_hour(window_ms: i64) -> Option<i64> {
    (window_ms > 0 && HOUR_MS % window_ms == 0).then(|| HOUR_MS / window_ms)
}

/// Returns the wait before the next check for due hours, in milliseconds, after `failures` failed checks in a row. The
/// wait starts at `interval_ms` and doubles after each failed check, up to ten minutes or `interval_ms`, whichever is
/// longer.
pub fn next_look_ms(interval_ms: u64, failures: u32) -> u64 {
    let longest_ms = RETRY_MS_MAX.max(interval_ms);
    interval_ms
        .saturating_mul(1 << failures.min(30))
        .min(longest_ms)
}

/// Returns how long a consumer must wait after a request that cost `units` read units, in milliseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // The number is not negative, and is far below 2^53.
pub fn rest_ms(units: f64) -> u64 {
    (units.max(0.0) * 1_000.0 / READ_UNITS_PER_SECOND).ceil() as u64
}

/// The maximum cost of rolling up a range of hours, in DynamoDB read and write units. The actual cost is lower if some
/// hours have no events, because the rollup skips days without windows, and writes no rows for hours without events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollupCost {
    /// Number of hours to roll up.
    pub hours: u64,
    /// Maximum number of read units.
    pub read_units: u64,
    /// Maximum number of write units.
    pub write_units: u64,
}

impl RollupCost {
    /// Returns the maximum cost of rolling up the hours in `[from_ms, until_ms)`. `series` and `event_types` are the
    /// numbers of series and event types in the tables. `windows` is the number of windows in an hour.
    pub fn of(
        from_ms: UnixMs,
        until_ms: UnixMs,
        series: u64,
        event_types: u64,
        windows: i64,
    ) -> Self {
        let count = |from: i64, until: i64| u64::try_from(until - from).unwrap_or_default();
        let hours = count(from_ms.0 / HOUR_MS, until_ms.0 / HOUR_MS);
        let days = count(from_ms.0 / DAY_MS, until_ms.0 / DAY_MS);
        let rows = series.saturating_add(event_types);
        let keys = hours
            .saturating_mul(count(0, windows))
            .saturating_mul(series);
        // The rollup processes the hours in chunks of at most one day. For each chunk, the rollup reads the names of
        // all series twice, at eight names per read unit. For each series, one index query costs half a read unit. For
        // each day row, reading the hour rows of that day costs two read units.
        let chunks = days + 1;
        let names = (series / 4 + series / 2 + 32).saturating_mul(chunks);
        RollupCost {
            hours,
            read_units: keys
                .saturating_add(names)
                .saturating_add(days.saturating_mul(rows).saturating_mul(2)),
            write_units: (hours + days).saturating_mul(rows).saturating_add(chunks),
        }
    }
}

/// The length of time that a rollup row covers: an hour or a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grain {
    /// The row covers one hour.
    Hour,
    /// The row covers one UTC day.
    Day,
}

impl Grain {
    /// All grains, from the shortest to the longest.
    pub const ALL: [Grain; 2] = [Grain::Hour, Grain::Day];

    /// Returns the name of the grain. The attribute `shard` of a rollup row begins with this name.
    pub const fn name(self) -> &'static str {
        match self {
            Grain::Hour => "hour",
            Grain::Day => "day",
        }
    }

    /// Returns the length of the grain, an hour or a day, in milliseconds.
    pub const fn length_ms(self) -> i64 {
        match self {
            Grain::Hour => HOUR_MS,
            Grain::Day => DAY_MS,
        }
    }
}

/// Selects the events that a rollup row counts: one series, or one event type in all cities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupSeries {
    /// The city of the series, or `None` for all cities together.
    pub city: Option<String>,
    /// The event type.
    pub event_type: String,
}

impl RollupSeries {
    /// Parses `city#event_type` and returns its rollup series, or `None` if `series` has another form.
    pub fn of(series: &str) -> Option<RollupSeries> {
        let (city, event_type) = split_series(series)?;
        Some(RollupSeries {
            city: Some(city.to_owned()),
            event_type: event_type.to_owned(),
        })
    }

    /// Returns the rollup series of an event type in all cities.
    pub fn all_cities(event_type: &str) -> RollupSeries {
        RollupSeries {
            city: None,
            event_type: event_type.to_owned(),
        }
    }

    /// Returns the value of the attribute `shard` in the rollup rows of the series, such as `hour#NYC#traffic`, or
    /// `hour#*#traffic` for all cities.
    ///
    /// In a shard, `*` stands for all cities, but a city may also have the name `*`. Therefore, the function adds one
    /// asterisk to a city name that consists only of asterisks.
    pub fn shard(&self, grain: Grain) -> String {
        let (grain, kind) = (grain.name(), &self.event_type);
        match &self.city {
            None => format!("{grain}#*#{kind}"),
            Some(city) if is_asterisks(city) => format!("{grain}#{city}*#{kind}"),
            Some(city) => format!("{grain}#{city}#{kind}"),
        }
    }

    /// Parses the text format of [`RollupSeries::shard`], or returns `None` for other text.
    pub fn parse(shard: &str) -> Option<(Grain, RollupSeries)> {
        let (grain, series) = shard.split_once('#')?;
        let grain = Grain::ALL.into_iter().find(|known| known.name() == grain)?;
        let (city, event_type) = split_series(series)?;
        let city = match city {
            "*" => None,
            city if is_asterisks(city) => Some(city[1..].to_owned()),
            city => Some(city.to_owned()),
        };
        let event_type = event_type.to_owned();
        Some((grain, RollupSeries { city, event_type }))
    }
}

fn is_asterisks(city: &str) -> bool {
    !city.is_empty() && city.bytes().all(|byte| byte == b'*')
}

/// The counts in a rollup row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cells {
    /// The counts of one hour, by severity.
    Hour(SeverityCounts),
    /// The counts of each hour of a day, by severity.
    Day(Box<DayHours>),
}

/// A rollup row that a consumer is about to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupRow {
    /// The series whose events the row counts.
    pub series: RollupSeries,
    /// The start of the row's hour or day, in Unix milliseconds.
    pub start_ms: UnixMs,
    /// The counts of the row.
    pub cells: Cells,
}

impl RollupRow {
    /// Returns the rollup row of an hour.
    pub const fn hour(series: RollupSeries, start_ms: UnixMs, counts: SeverityCounts) -> RollupRow {
        RollupRow {
            series,
            start_ms,
            cells: Cells::Hour(counts),
        }
    }

    /// Returns the grain of the row.
    pub const fn grain(&self) -> Grain {
        match self.cells {
            Cells::Hour(_) => Grain::Hour,
            Cells::Day(_) => Grain::Day,
        }
    }

    /// Returns the counts of the row's whole hour or day.
    pub fn counts(&self) -> SeverityCounts {
        match &self.cells {
            Cells::Hour(counts) => *counts,
            Cells::Day(hours) => {
                let mut sum = SeverityCounts::default();
                hours.iter().for_each(|hour| add_counts(&mut sum, hour));
                sum
            }
        }
    }

    /// Returns the key of the row, which consists of `shard` and `series`.
    pub fn key(&self) -> (String, String) {
        (
            self.series.shard(self.grain()),
            format_seconds(self.start_ms),
        )
    }
}

/// Parses the attribute `series` of a rollup row. Returns the start of the row's hour or day, in Unix milliseconds.
pub fn parse_start(grain: Grain, sort_key: &str) -> Option<UnixMs> {
    parse_timestamp(sort_key).filter(|start_ms| start_ms.0 % grain.length_ms() == 0)
}

/// The rollup mark, an item that contains the time up to which all hours are rolled up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupMark {
    /// The id of the topic whose events the rollup rows count.
    pub topic_id: String,
    /// The id of the tables that contain the rollup rows.
    pub tables_id: String,
    /// The time up to which all hours are rolled up: the end of an hour, in Unix milliseconds.
    pub until_ms: UnixMs,
    /// The partitions that were idle during a rollup. The value is the start of the first hour that was rolled up
    /// without the partition.
    pub idle: BTreeMap<i32, UnixMs>,
    /// The version of the mark, which grows by one with each write.
    pub version: i64,
}

impl RollupMark {
    /// Returns true if the mark belongs to the topic `topic_id` and the tables `tables_id`. The rollup ignores a mark
    /// of another topic or of other tables. A new topic may add events to hours that were final for the former topic.
    pub fn is_of(&self, topic_id: Option<&str>, tables_id: &str) -> bool {
        topic_id == Some(self.topic_id.as_str()) && self.tables_id == tables_id
    }

    /// Returns the time up to which the rollup rows count all events. Later rollup rows may lack the events of a
    /// partition that was idle during the rollup and is no longer idle. The function `counted` returns the number of
    /// counted events of a partition, or `None` if the number is unknown.
    pub fn whole_until_ms(&self, counted: impl Fn(i32) -> Option<u64>) -> UnixMs {
        let woken = self.idle.iter().filter(|(p, _)| counted(**p) != Some(0));
        let since_ms = woken.map(|(_, since_ms)| *since_ms);
        since_ms.fold(self.until_ms, UnixMs::min)
    }

    fn is_of_same(&self, other: &RollupMark) -> bool {
        self.is_of(Some(&other.topic_id), &other.tables_id)
    }
}
