//! The totals of all series, shared by every answer that needs them.
//!
//! The more series there are, the more a reading costs, so its result is kept the longer: on average
//! [`UNITS_PER_SECOND_MAX`] read units a second are spent, however many series somebody made up. A
//! reading goes on when the request that began it gives up, so the next request finds its result.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::api::error::ApiError;
use crate::store::error::StoreError;
use crate::store::reads::{EveryTotal, Reads, metered};

/// Most read units a second that the totals cost on average: 100 is about 3,800 series a second.
const UNITS_PER_SECOND_MAX: f64 = 100.0;
/// How long totals are taken for new where they cost little.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Longest reading: a million series at the pace that one partition of DynamoDB allows.
const READING_MAX: Duration = Duration::from_secs(60);
/// Most series kept, the largest: some 50 MB. The sums cover all of them.
const SERIES_KEPT_MAX: usize = 200_000;

/// Every total, and when it was read.
pub(crate) struct Totals {
    /// When the reading began, Unix milliseconds.
    pub(crate) read_ms: i64,
    /// The sums, and the largest series.
    pub(crate) every: EveryTotal,
}

impl Totals {
    /// Tells whether every series is among the largest ones that were kept.
    pub(crate) fn are_complete(&self) -> bool {
        self.every.largest.len() == self.every.series_count
    }

    /// Returns an error unless every series was kept.
    pub(crate) fn complete(&self) -> Result<(), ApiError> {
        if self.are_complete() {
            return Ok(());
        }
        Err(ApiError::too_many_series(SERIES_KEPT_MAX))
    }
}

type Reading = Shared<BoxFuture<'static, Result<Arc<Totals>, Arc<StoreError>>>>;

/// The totals read last, and the reading under way.
#[derive(Default)]
pub(crate) struct TotalsCache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    known: Option<(Arc<Totals>, Instant)>,
    reading: Option<Reading>,
}

impl TotalsCache {
    /// Returns the totals: those known, those being read, or fresh ones.
    pub(crate) async fn get(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<Arc<Totals>, Arc<StoreError>> {
        let reading = {
            let mut inner = self.0.lock().expect("no panic holds the totals");
            if let Some((known, until)) = &inner.known
                && Instant::now() < *until
            {
                return Ok(Arc::clone(known));
            }
            match &inner.reading {
                Some(reading) => reading.clone(),
                None => {
                    let reading = Arc::clone(self).begin(Arc::clone(reads), now_ms);
                    inner.reading = Some(reading.clone());
                    reading
                }
            }
        };
        reading.await
    }

    /// Begins a reading in a task of its own.
    fn begin(self: Arc<TotalsCache>, reads: Arc<dyn Reads>, now_ms: i64) -> Reading {
        let task = tokio::spawn(async move {
            let every = tokio::time::timeout(READING_MAX, reads.every_total(SERIES_KEPT_MAX));
            let (read, cost) = metered(every).await;
            let read = read.unwrap_or_else(|_elapsed| {
                Err(StoreError::Waited {
                    what: "the totals".to_owned(),
                    seconds: READING_MAX.as_secs(),
                })
            });
            let read = read.map_err(Arc::new).map(|every| {
                Arc::new(Totals {
                    read_ms: now_ms,
                    every,
                })
            });
            let mut inner = self.0.lock().expect("no panic holds the totals");
            inner.reading = None;
            if let Ok(totals) = &read {
                inner.known = Some((Arc::clone(totals), Instant::now() + age(cost.units)));
            }
            read
        });
        let joined = async move { task.await.expect("reading totals does not panic") };
        joined.boxed().shared()
    }
}

/// Returns how long totals that cost so many read units are taken for new.
fn age(units: f64) -> Duration {
    Duration::from_secs_f64((units / UNITS_PER_SECOND_MAX).clamp(0.0, 86_400.0)).max(AGE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_kept_the_longer_the_more_they_cost() {
        for (units, seconds) in [(0.0, 1), (8.0, 1), (787.0, 7), (5_500.0, 55)] {
            assert_eq!(age(units).as_secs(), seconds, "{units}");
        }
    }
}
