//! What a request asks for, and the series that match it.

use crate::api::error::ApiError;
use crate::api::params::HOUR_MS;
use crate::api::state::ApiState;
use crate::core::event::Severity;
use crate::core::time::TIME_MS_END;
use crate::store::reads::{EveryTotal, TotalItem};

/// `to` is rounded up to a multiple of this, so that requests a few milliseconds apart share an answer.
const TO_MS: i64 = 300_000;
/// Maximum number of series read for one answer. Each costs half a read unit, plus one for each window that is
/// not final.
pub(super) const SERIES_READ_MAX: usize = 400;
/// Maximum number of windows read for one answer, estimated from the totals: a day of 416 series, or a week of 59.
pub(super) const WINDOWS_MAX: u64 = 120_000;

/// The parameters of a request.
#[derive(Clone, Debug)]
pub(super) struct TimelineQuery {
    pub(super) hours: u32,
    pub(super) to_ms: Option<i64>,
    pub(super) city: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) severity: Option<Severity>,
    pub(super) limit: usize,
}

impl TimelineQuery {
    pub(super) fn span_ms(&self) -> i64 {
        i64::from(self.hours) * HOUR_MS
    }

    fn matches(&self, total: &TotalItem) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|w| w == name);
        is(&self.city, &total.city) && is(&self.event_type, &total.event_type)
    }
}

pub(super) fn round_up(to_ms: i64) -> i64 {
    ((to_ms + TO_MS - 1).div_euclid(TO_MS) * TO_MS).min(TIME_MS_END)
}

/// The series that match a request.
pub(super) struct MatchingSeries {
    /// The series to read, largest first.
    pub(super) read: Vec<TotalItem>,
    pub(super) series_total: usize,
    /// The sums over all matching series.
    pub(super) all: TotalItem,
    /// True if `all` comes from the progress items, which may be ahead of the totals of series.
    pub(super) from_progress: bool,
    pub(super) read_ms: i64,
}

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

/// Finds the largest series of all.
async fn find_all(state: &ApiState, query: &TimelineQuery) -> Result<MatchingSeries, ApiError> {
    let grand = state.grand_total().await?;
    if !grand.from_progress {
        let totals = state.totals().await?;
        return Ok(MatchingSeries {
            read: choose(&totals.every.largest, query),
            series_total: totals.every.series_count,
            all: totals.every.all.clone(),
            from_progress: false,
            read_ms: totals.read_ms,
        });
    }
    // The sums are known already. The first read of very many series may outlast this request, so the answer may
    // have to go without a list of series.
    let totals = state.totals_soon().await.unwrap_or_default();
    Ok(MatchingSeries {
        read: choose(&totals.every.largest, query),
        series_total: totals.every.series_count,
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
        all,
        from_progress: false,
        read_ms: totals.read_ms,
    })
}

/// Finds the largest series of a city. If there are too many series to read all of them, only those of the city are
/// read.
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
        all,
        from_progress: false,
        read_ms,
    })
}

/// Returns the series to read: the largest ones that match, as many as an answer may read.
fn choose(list: &[TotalItem], query: &TimelineQuery) -> Vec<TotalItem> {
    // A series has at most one window per event, and at most twelve per hour.
    let mut windows = 0;
    let fits = |total: &&TotalItem| {
        windows += total.event_count.min(u64::from(query.hours) * 12);
        windows <= WINDOWS_MAX
    };
    let matching = list.iter().filter(|total| query.matches(total));
    let chosen = matching.take(SERIES_READ_MAX).take_while(fits);
    chosen.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_is_rounded_up_to_five_minutes() {
        assert_eq!(round_up(0), 0);
        assert_eq!(round_up(1), TO_MS);
        assert_eq!(round_up(TO_MS), TO_MS);
        assert_eq!(round_up(TO_MS + 1), 2 * TO_MS);
    }
}
