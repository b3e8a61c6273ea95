//! What a request asks for, and the series that match it.

use std::borrow::Cow;

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
    let is_unfiltered = query.city.is_none() && query.event_type.is_none();
    let mut kept = None;
    if is_unfiltered {
        kept = Some(state.grand_total().await?).filter(|grand| grand.from_progress);
    }
    let totals = match kept {
        // The sums are known already. The first read of very many series may outlast this request, so
        // the answer may have to go without a list of series.
        Some(_) => state.totals_soon().await.unwrap_or_default(),
        None => state.totals().await?,
    };
    let every = &totals.every;
    let mut list = Cow::from(&every.largest);
    match &query.city {
        Some(city) if !totals.are_complete() => {
            let mut of_city = EveryTotal::new(usize::MAX);
            of_city.take(state.reads().totals(Some(city.clone())).await?);
            list = of_city.sorted().largest.into();
        }
        None if query.event_type.is_some() => totals.require_complete()?,
        _ => {}
    }
    let from_progress = kept.is_some();
    let (mut all, read_ms) = match kept {
        Some(grand) => (grand.all, grand.read_ms),
        None => (every.all.clone(), totals.read_ms),
    };
    let mut series_total = every.series_count;
    if !is_unfiltered {
        (all, series_total) = (TotalItem::default(), 0);
        for total in list.iter().filter(|total| query.matches(total)) {
            all.add(total);
            series_total += 1;
        }
    }
    // A series has at most one window per event, and at most twelve per hour.
    let mut windows = 0;
    let fits = |total: &&TotalItem| {
        windows += total.event_count.min(u64::from(query.hours) * 12);
        windows <= WINDOWS_MAX
    };
    let read = list.iter().filter(|total| query.matches(total));
    let read = read.take(SERIES_READ_MAX).take_while(fits);
    Ok(MatchingSeries {
        read: read.cloned().collect(),
        series_total,
        all,
        from_progress,
        read_ms,
    })
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
