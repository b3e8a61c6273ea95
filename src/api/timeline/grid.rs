//! The steps of a chart, and the instants at which the steps begin.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::api::params::HOUR_MS;
use crate::api::schemas::StepUnit;
use crate::core::clock::UnixMs;

const DAY_MS: i64 = 24 * HOUR_MS;
/// Maximum number of steps if the server chooses the length of a step. With a maximum of 200 steps, a chart of a day
/// has 144 steps, and a chart of a week has 168 steps.
const CHOSEN_STEPS_MAX: i64 = 200;
/// Maximum number of steps if the client chooses the unit of a step. A leap year has 8,784 hours.
pub(super) const STEPS_MAX: i64 = 10_000;

/// The reason why a range cannot be divided into steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GridError {
    /// The range has more than [`STEPS_MAX`] steps.
    TooManySteps(i64),
    /// A day in the time zone does not begin at the start of a UTC hour, so its counts are not a sum of the counts of
    /// whole hours.
    SplitHour,
}

/// A range that has not been extended to whole steps yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepRange {
    pub(super) from_ms: UnixMs,
    pub(super) to_ms: UnixMs,
    /// True if the number of steps must depend only on the length of the range, even if the steps then miss the
    /// beginning of the range. False if the steps must cover the whole range.
    pub(super) keeps_length: bool,
}

impl StepRange {
    fn span_ms(&self) -> i64 {
        (self.to_ms - self.from_ms).max(1)
    }
}

/// The steps of a range, without gaps between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) unit: StepUnit,
    /// The length of a step in milliseconds. A day on which the clocks change is an hour shorter or longer than
    /// `step_ms`.
    pub(super) step_ms: i64,
    /// The start of each step, followed by the end of the last step.
    bounds: Vec<UnixMs>,
}

impl Grid {
    /// Returns the steps for `range`. Steps of hours or windows begin at multiples of their length, and steps of days
    /// begin at midnight in the time zone `zone`.
    ///
    /// If `unit` is `None`, the function chooses the shortest step length for which the range has at most
    /// [`CHOSEN_STEPS_MAX`] steps.
    ///
    /// # Errors
    /// Returns a [`GridError`] if the range has too many steps, or if its days are not sums of hours.
    pub(super) fn new(
        range: StepRange,
        unit: Option<StepUnit>,
        window_ms: i64,
        zone: &TimeZone,
    ) -> Result<Grid, GridError> {
        let (unit, count) = match unit {
            Some(unit) => (unit, 1),
            None => choose_step(window_ms, range.span_ms()),
        };
        match unit {
            StepUnit::Day => Grid::of_days(range, count, zone),
            StepUnit::Hour => Grid::of_equal(unit, count * HOUR_MS, range),
            StepUnit::Window => Grid::of_equal(unit, count * window_ms, range),
        }
    }

    fn of_equal(unit: StepUnit, step_ms: i64, range: StepRange) -> Result<Grid, GridError> {
        let end = (range.to_ms.0 - 1).div_euclid(step_ms) + 1;
        let first = if range.keeps_length {
            end - ((range.span_ms() - 1).div_euclid(step_ms) + 1)
        } else {
            range.from_ms.0.div_euclid(step_ms)
        };
        let steps = check_count((end - first).max(1))?;
        Ok(Grid {
            unit,
            step_ms,
            bounds: (first..=first + steps)
                .map(|n| UnixMs(n * step_ms))
                .collect(),
        })
    }

    fn of_days(range: StepRange, count: i64, zone: &TimeZone) -> Result<Grid, GridError> {
        let StepRange { from_ms, to_ms, .. } = range;
        check_count((to_ms - from_ms).div_euclid(count * DAY_MS))?;
        let mut day = date_of(from_ms, zone);
        let mut bounds = vec![midnight(day, zone)];
        while bounds[bounds.len() - 1] < to_ms.max(from_ms + 1) {
            day = later(day, count);
            bounds.push(midnight(day, zone));
        }
        Grid {
            unit: StepUnit::Day,
            step_ms: count * DAY_MS,
            bounds,
        }
        .of_whole_hours()
    }

    fn of_whole_hours(self) -> Result<Grid, GridError> {
        if self.bounds.iter().any(|bound| bound.0 % HOUR_MS != 0) {
            return Err(GridError::SplitHour);
        }
        Ok(self)
    }

    /// Returns the grid of the preceding range, which ends where this grid begins and has the same number of steps.
    ///
    /// # Errors
    /// Returns [`GridError::SplitHour`] if the days of the earlier range do not begin at the start of a UTC hour.
    pub(super) fn previous(&self, zone: &TimeZone) -> Result<Grid, GridError> {
        let steps = i64::try_from(self.steps()).unwrap_or(STEPS_MAX);
        let bounds = if self.unit == StepUnit::Day {
            let first = date_of(self.begin_ms(), zone);
            let days = self.step_ms / DAY_MS;
            let back = (0..=steps).rev();
            back.map(|n| midnight(later(first, -n * days), zone))
                .collect()
        } else {
            let shift = self.end_ms() - self.begin_ms();
            self.bounds.iter().map(|bound| *bound - shift).collect()
        };
        Grid {
            bounds,
            ..self.clone()
        }
        .of_whole_hours_if_days()
    }

    fn of_whole_hours_if_days(self) -> Result<Grid, GridError> {
        match self.unit {
            StepUnit::Day => self.of_whole_hours(),
            StepUnit::Hour | StepUnit::Window => Ok(self),
        }
    }

    pub(super) fn begin_ms(&self) -> UnixMs {
        self.bounds[0]
    }

    pub(super) fn end_ms(&self) -> UnixMs {
        self.bounds[self.steps()]
    }

    pub(super) fn steps(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Returns the start of each step, followed by the end of the last step.
    pub(super) fn bounds(&self) -> &[UnixMs] {
        &self.bounds
    }

    /// Returns the start of each step.
    pub(super) fn starts(&self) -> &[UnixMs] {
        &self.bounds[..self.steps()]
    }

    /// Returns the number of the step that contains an instant, or `None` if the instant is outside of the grid.
    pub(super) fn step_of(&self, time_ms: UnixMs) -> Option<usize> {
        let begun = self.bounds.partition_point(|bound| *bound <= time_ms);
        (begun > 0 && begun <= self.steps()).then(|| begun - 1)
    }

    /// Returns true if each step is a whole number of hours.
    pub(super) fn has_whole_hours(&self) -> bool {
        self.unit != StepUnit::Window || (self.step_ms % HOUR_MS == 0)
    }
}

fn check_count(steps: i64) -> Result<i64, GridError> {
    if steps > STEPS_MAX {
        return Err(GridError::TooManySteps(steps));
    }
    Ok(steps)
}

/// Returns the shortest step length for which the time span has at most [`CHOSEN_STEPS_MAX`] steps. The step length is
/// returned as a unit and the number of units in a step.
fn choose_step(window_ms: i64, span_ms: i64) -> (StepUnit, i64) {
    let least_ms = span_ms.div_euclid(CHOSEN_STEPS_MAX);
    // With windows of five minutes, the step lengths in this list are 5, 10, 15 and 30 minutes.
    let windows = [1, 2, 3, 6].map(|n| (StepUnit::Window, n, n * window_ms));
    let windows = windows
        .into_iter()
        .filter(|(_, n, ms)| *n == 1 || *ms < HOUR_MS);
    let hours = [1, 2, 3, 6, 12].map(|n| (StepUnit::Hour, n, n * HOUR_MS));
    // An hour is a sum of windows only if an hour is a multiple of the window length.
    let hours = hours.into_iter().filter(|_| HOUR_MS % window_ms == 0);
    let days = [1, 2, 7, 14, 28, 91].map(|n| (StepUnit::Day, n, n * DAY_MS));
    let mut steps = windows.chain(hours).chain(days);
    let fits = steps.find(|(_, _, ms)| *ms >= least_ms);
    fits.map_or((StepUnit::Day, least_ms / DAY_MS + 1), |(unit, n, _)| {
        (unit, n)
    })
}

fn date_of(time_ms: UnixMs, zone: &TimeZone) -> Date {
    let time = Timestamp::from_millisecond(time_ms.0).unwrap_or(Timestamp::UNIX_EPOCH);
    zone.to_datetime(time).date()
}

/// Returns the date `days` days after `date`, or `date` itself if the result would be beyond the end of the calendar.
fn later(date: Date, days: i64) -> Date {
    date.checked_add(jiff::Span::new().days(days))
        .unwrap_or(date)
}

/// Returns the first instant of a day in a time zone.
pub(super) fn midnight(date: Date, zone: &TimeZone) -> UnixMs {
    let start = zone.to_timestamp(date.at(0, 0, 0, 0));
    UnixMs(start.map_or(0, |start| start.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;
    /// The instant 2013-01-01T00:00:00Z.
    const JANUARY: UnixMs = UnixMs(1_356_998_400_000);

    fn range(from_ms: UnixMs, to_ms: UnixMs) -> StepRange {
        StepRange {
            from_ms,
            to_ms,
            keeps_length: false,
        }
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn a_chosen_step_fills_a_range_with_40_to_200_steps() {
        for (window, hours, want, count) in [
            (5, 1, 5, 12),
            (5, 6, 5, 72),
            (5, 24, 10, 144),
            (5, 48, 15, 192),
            (5, 96, 30, 192),
            (5, 168, 60, 168),
            (5, 31 * 24, 4 * 60, 0),
            (1, 1, 1, 60),
            (10, 1, 10, 6),
            (7, 1, 7, 9),
        ] {
            let range = StepRange {
                keeps_length: true,
                ..range(JANUARY, JANUARY + hours * HOUR_MS)
            };
            let grid = Grid::new(range, None, window * MINUTE_MS, &TimeZone::UTC).unwrap();
            if count > 0 {
                assert_eq!(grid.step_ms, want * MINUTE_MS, "{window} min, {hours} h");
                assert_eq!(grid.steps(), count, "{window} min, {hours} h");
            }
        }
        for days in [31, 59, 200, 365, 3_650, 40_000] {
            let range = range(JANUARY, JANUARY + days * DAY_MS);
            let grid = Grid::new(range, None, 5 * MINUTE_MS, &TimeZone::UTC).unwrap();
            assert!(
                (40..=201).contains(&grid.steps()),
                "{days}: {}",
                grid.steps()
            );
        }
    }

    #[test]
    fn steps_cover_the_range_and_hold_each_instant_once() {
        let range = range(JANUARY + 1, JANUARY + 2 * HOUR_MS + 1);
        let grid = Grid::new(range, Some(StepUnit::Hour), 300_000, &TimeZone::UTC).unwrap();
        assert_eq!(
            (grid.begin_ms(), grid.end_ms(), grid.steps()),
            (JANUARY, JANUARY + 3 * HOUR_MS, 3)
        );
        for (time_ms, step) in [
            (JANUARY - 1, None),
            (JANUARY, Some(0)),
            (JANUARY + HOUR_MS - 1, Some(0)),
            (JANUARY + HOUR_MS, Some(1)),
            (JANUARY + 3 * HOUR_MS - 1, Some(2)),
            (JANUARY + 3 * HOUR_MS, None),
        ] {
            assert_eq!(grid.step_of(time_ms), step, "{}", time_ms - JANUARY);
        }
        let previous = grid.previous(&TimeZone::UTC).unwrap();
        assert_eq!(
            (previous.begin_ms(), previous.end_ms()),
            (JANUARY - 3 * HOUR_MS, JANUARY)
        );
    }

    #[test]
    fn days_begin_at_midnight_of_the_zone_whatever_its_clocks_do() {
        // In Berlin, 2013-03-31 has 23 hours, and 2013-10-27 has 25 hours.
        let march = JANUARY + 88 * DAY_MS;
        let range = range(march, march + 3 * DAY_MS);
        let berlin =
            Grid::new(range, Some(StepUnit::Day), 300_000, &zone("Europe/Berlin")).unwrap();
        let lengths: Vec<i64> = berlin
            .bounds
            .windows(2)
            .map(|b| (b[1] - b[0]) / HOUR_MS)
            .collect();
        assert_eq!(lengths, [24, 23, 24, 24]);
        assert_eq!(berlin.begin_ms(), march - HOUR_MS);
        let before = berlin.previous(&zone("Europe/Berlin")).unwrap();
        assert_eq!((before.end_ms(), before.steps()), (berlin.begin_ms(), 4));
        // In India, days begin in the middle of a UTC hour.
        let india = Grid::new(range, Some(StepUnit::Day), 300_000, &zone("Asia/Kolkata"));
        assert_eq!(india, Err(GridError::SplitHour));
    }

    #[test]
    fn a_range_has_a_limited_number_of_steps() {
        let year = range(JANUARY, JANUARY + 366 * DAY_MS);
        let hours = Grid::new(year, Some(StepUnit::Hour), 300_000, &TimeZone::UTC).unwrap();
        assert_eq!(hours.steps(), 8_784);
        let windows = Grid::new(year, Some(StepUnit::Window), 300_000, &TimeZone::UTC);
        assert_eq!(windows, Err(GridError::TooManySteps(105_408)));
        let days = Grid::new(
            range(UnixMs(0), UnixMs(30_000 * DAY_MS)),
            Some(StepUnit::Day),
            300_000,
            &TimeZone::UTC,
        );
        assert_eq!(days, Err(GridError::TooManySteps(30_000)));
    }
}
