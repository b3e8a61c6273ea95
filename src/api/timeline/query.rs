//! The parameters of a timeline request, and the series that match the request.

use super::range::AskedRange;
use crate::api::error::ApiError;
use crate::api::params::HOUR_MS;
use crate::api::schemas::StepUnit;
use crate::api::state::ApiState;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::rollup::{DAY_MS, RollupSeries};
use crate::store::reads::{EveryTotal, TotalItem};

/// Maximum number of event types for which one response reads the rollups of all cities. Reading the rollups of one
/// event type costs at least half a read unit.
const TYPES_READ_MAX: usize = 400;
/// Maximum number of series that are read for one response. Reading a series costs half a read unit, plus one read unit
/// for each window that is not final.
pub(super) const SERIES_READ_MAX: usize = 400;
/// Maximum number of windows that are read for one response, as estimated from the totals. With windows of five
/// minutes, 120,000 windows suffice for 416 series over one day, or for 59 series over one week.
pub(super) const WINDOWS_MAX: u64 = 120_000;

/// Maximum and minimum of the default number of series that a response lists.
const LISTED_MAX: usize = 50;
const LISTED_MIN: usize = 5;
/// By default, the number of listed series is `LISTED_DAYS` divided by the number of days in the range. For example, a
/// response lists 50 series for a range of 36 days, and 5 series for a range of one year.
const LISTED_DAYS: usize = 1_825;

/// The parameters of a timeline request.
#[derive(Clone, Debug)]
pub(super) struct TimelineQuery {
    pub(super) range: AskedRange,
    pub(super) step: Option<StepUnit>,
    pub(super) city: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) severity: Option<Severity>,
    pub(super) limit: Option<usize>,
    /// True if the response also contains the counts of the preceding range of the same length.
    pub(super) with_previous: bool,
}

impl TimelineQuery {
    /// Returns the number of series that a response lists for a range of the given length. By default, the response for
    /// a long range lists fewer series, because each listed series costs about 13 read units per year.
    pub(super) fn listed_max(&self, range_ms: i64) -> usize {
        self.limit.unwrap_or_else(|| {
            let days = usize::try_from(range_ms / DAY_MS).unwrap_or(0).max(1);
            (LISTED_DAYS / days).clamp(LISTED_MIN, LISTED_MAX)
        })
    }

    /// Returns the text that identifies the response to this query in the cache.
    pub(super) fn key(&self) -> String {
        let TimelineQuery {
            range,
            step,
            city,
            event_type,
            severity,
            limit,
            with_previous,
        } = self;
        let rest = (step, city, event_type, severity, limit, with_previous);
        format!("{} {rest:?}", range.key())
    }

    fn matches(&self, total: &TotalItem) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|w| w == name);
        is(&self.city, &total.city) && is(&self.event_type, &total.event_type)
    }
}

/// The series that match a request.
pub(super) struct MatchingSeries {
    /// The series that the request reads, with the largest series first.
    pub(super) read: Vec<TotalItem>,
    pub(super) series_total: usize,
    /// The event types of the matching series, or `None` if the request names a city. If the request names no city, the
    /// rollups of all cities for the listed event types together cover all matching series.
    pub(super) all_cities: Option<Vec<String>>,
    /// The sums over all matching series.
    pub(super) all: TotalItem,
    /// True if the sums in `all` come from the progress items. The progress items may be newer than the totals of the
    /// series.
    pub(super) from_progress: bool,
    pub(super) read_ms: UnixMs,
}

impl MatchingSeries {
    /// Returns a copy of the matching series with a shorter list `read`. In a range of the given length, the series in
    /// the shorter list together have at most [`WINDOWS_MAX`] windows. The list keeps the first series in any case,
    /// because the limit of read units bounds the read of a single series.
    pub(super) fn with_windows_of(&self, range_ms: i64, window_ms: i64) -> MatchingSeries {
        let hours = u64::try_from(range_ms / HOUR_MS + 1).unwrap_or_default();
        // A series has at most one window per event.
        let most = hours.saturating_mul(windows_per_hour(window_ms));
        let mut windows = 0_u64;
        let mut fits = |total: &TotalItem| {
            let is_first = windows == 0;
            windows = windows.saturating_add(total.event_count.min(most));
            is_first || windows <= WINDOWS_MAX
        };
        MatchingSeries {
            read: self
                .read
                .iter()
                .take_while(|total| fits(total))
                .cloned()
                .collect(),
            all: self.all.clone(),
            all_cities: self.all_cities.clone(),
            ..*self
        }
    }

    /// Returns rollups that sum over all cities, or `None` if the request names a city. The returned rollups together
    /// cover all matching series.
    pub(super) fn all_rollups(&self) -> Option<Vec<RollupSeries>> {
        let types = self.all_cities.as_ref()?.iter();
        Some(types.map(|name| RollupSeries::all_cities(name)).collect())
    }

    /// Returns the rollups that cover the matching series: the rollups of all cities if possible, and otherwise the
    /// rollups of each series.
    pub(super) fn rollups(&self) -> Vec<RollupSeries> {
        self.all_rollups()
            .unwrap_or_else(|| self.read.iter().map(rollups_of).collect())
    }
}

/// Returns the maximum number of windows of one series that begin within an hour.
pub(super) fn windows_per_hour(window_ms: i64) -> u64 {
    u64::try_from((HOUR_MS - 1) / window_ms.max(1) + 1).unwrap_or(1)
}

/// Returns the rollups of a series.
pub(super) fn rollups_of(total: &TotalItem) -> RollupSeries {
    RollupSeries {
        city: Some(total.city.clone()),
        event_type: total.event_type.clone(),
    }
}

/// Finds the series that match a request.
pub(super) async fn find_series(
    state: &ApiState,
    query: &TimelineQuery,
) -> Result<MatchingSeries, ApiError> {
    match (&query.city, &query.event_type) {
        (None, None) => find_all(state, query).await,
        (None, Some(event_type)) => find_type(state, query, event_type).await,
        (Some(city), _) => find_city(state, query, city).await,
    }
}

/// Finds the series for a request that names neither a city nor an event type.
async fn find_all(state: &ApiState, query: &TimelineQuery) -> Result<MatchingSeries, ApiError> {
    let grand = state.grand_total().await?;
    if !grand.from_progress {
        let totals = state.totals().await?;
        return Ok(MatchingSeries {
            read: choose(&totals.every.largest, query),
            series_total: totals.every.series_count,
            all_cities: Some(largest_types(&totals.every)),
            all: totals.every.all.clone(),
            from_progress: false,
            read_ms: totals.read_ms,
        });
    }
    // The sums over all series are already known, so the totals are read only to find the series to list. If there are
    // very many series, the first read of the totals may take longer than the request, and the response lists no
    // series.
    let totals = state.totals_soon().await.unwrap_or_default();
    Ok(MatchingSeries {
        read: choose(&totals.every.largest, query),
        series_total: totals.every.series_count,
        all_cities: Some(largest_types(&totals.every)),
        all: grand.all,
        from_progress: true,
        read_ms: grand.read_ms,
    })
}

/// Finds the largest series of an event type.
async fn find_type(
    state: &ApiState,
    query: &TimelineQuery,
    event_type: &str,
) -> Result<MatchingSeries, ApiError> {
    let totals = state.totals().await?;
    let (series_total, all) = totals.of_type(event_type)?;
    Ok(MatchingSeries {
        read: choose(&totals.every.largest, query),
        series_total,
        all_cities: Some(vec![event_type.to_owned()]),
        all,
        from_progress: false,
        read_ms: totals.read_ms,
    })
}

/// Finds the largest series of a city. If there are too many series to read all of them, the function reads only the
/// series of the requested city.
async fn find_city(
    state: &ApiState,
    query: &TimelineQuery,
    city: &str,
) -> Result<MatchingSeries, ApiError> {
    let known = state.totals_if_few().await?;
    let read_ms = known
        .as_ref()
        .map_or(state.now_ms(), |totals| totals.read_ms);
    let of_city;
    let list = match &known {
        Some(totals) => &totals.every.largest,
        None => {
            let mut every = EveryTotal::new(usize::MAX);
            every.take(state.reads().totals(Some(city.to_owned())).await?);
            of_city = every.sorted().largest;
            &of_city
        }
    };
    let (mut all, mut series_total) = (TotalItem::default(), 0);
    for total in list.iter().filter(|total| query.matches(total)) {
        all.add(total);
        series_total += 1;
    }
    Ok(MatchingSeries {
        read: choose(list, query),
        series_total,
        all_cities: None,
        all,
        from_progress: false,
        read_ms,
    })
}

/// Returns the series to read: the largest matching series, at most [`SERIES_READ_MAX`].
fn choose(list: &[TotalItem], query: &TimelineQuery) -> Vec<TotalItem> {
    let matching = list.iter().filter(|total| query.matches(total));
    matching.take(SERIES_READ_MAX).cloned().collect()
}

/// Returns the event types with the most events, at most [`TYPES_READ_MAX`].
fn largest_types(every: &EveryTotal) -> Vec<String> {
    let mut types: Vec<(u64, &String)> = every
        .by_type
        .iter()
        .map(|(name, (_, sums))| (sums.events(), name))
        .collect();
    types.sort_unstable_by(|a, b| b.cmp(a));
    types.truncate(TYPES_READ_MAX);
    types.into_iter().map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::Params;

    #[test]
    fn a_long_range_lists_fewer_series_unless_the_client_says_how_many() {
        let params = Params::parse("/", None, &"/?hours=6".parse().unwrap(), "hours").unwrap();
        let query = |limit| TimelineQuery {
            range: AskedRange::parse(&params).unwrap(),
            step: None,
            city: None,
            event_type: None,
            severity: None,
            limit,
            with_previous: false,
        };
        for (days, listed) in [(0, 50), (1, 50), (36, 50), (60, 30), (365, 5), (36_500, 5)] {
            assert_eq!(query(None).listed_max(days * DAY_MS), listed, "{days}");
            assert_eq!(query(Some(400)).listed_max(days * DAY_MS), 400);
        }
    }
}
