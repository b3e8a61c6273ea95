//! The totals of all series, shared by every answer that needs them.
//!
//! The more series there are, the more a reading costs, so its result is kept the longer: on average
//! [`UNITS_PER_SECOND_MAX`] read units a second are spent, however many series somebody made up. A
//! reading goes on when the request that began it gives up, so the next request finds its result; meanwhile
//! the result before is shown.
//!
//! An answer that needs no more than the sums over all series costs a bounded number of read units: series are read
//! up to [`SERIES_UNITS_MAX`], beyond which the sums come from progress items, a few read units however many series
//! there are. That there are too many is remembered for [`TOO_MANY_AGE`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::api::error::ApiError;
use crate::store::error::StoreError;
use crate::store::reads::{Cost, EveryTotal, Meter, Reads, TotalItem, metered, metered_by};

/// Most read units a second that the totals cost on average: 100 is about 3,800 series a second.
const UNITS_PER_SECOND_MAX: f64 = 100.0;
/// How long totals are taken for new where they cost little.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Longest reading: some ten million series at the pace that one partition of DynamoDB allows.
const READING_MAX: Duration = Duration::from_secs(600);
/// Most read units spent on series for their sums alone: some 23,000 series.
const SERIES_UNITS_MAX: u64 = 600;
/// How long it is remembered that the series cost more: the next attempt is about two read units a second.
const TOO_MANY_AGE: Duration = Duration::from_secs(300);
/// How long it is remembered that a progress item does not know its sums.
const UNKNOWN_AGE: Duration = Duration::from_secs(60);
/// How long a request waits for a reading of many series before it takes the totals known before …
const PATIENCE: Duration = Duration::from_secs(2);
/// … if they are not older than this.
const OLD_MS_MAX: i64 = 900_000;
/// Most series kept, the largest: some 50 MB. The sums cover all of them.
const SERIES_KEPT_MAX: usize = 200_000;

/// Every total, and when it was read.
#[derive(Default)]
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

/// The sums over all series, and where they come from.
#[derive(Clone)]
pub(crate) struct GrandTotal {
    /// When the reading began, Unix milliseconds.
    pub(crate) read_ms: i64,
    /// Its city and type are empty.
    pub(crate) all: TotalItem,
    /// They are the sums that progress items keep: there are too many series to read.
    pub(crate) is_kept: bool,
    /// So many series there are at least.
    pub(crate) series_min: usize,
}

/// What reading the series comes to, within a bound.
#[derive(Clone)]
enum Bounded {
    All(Arc<Totals>),
    TooMany,
}

type Reading<T> = Shared<BoxFuture<'static, Result<T, Arc<StoreError>>>>;

/// What was read last, and the readings under way: one of a kind at a time.
#[derive(Default)]
pub(crate) struct TotalsCache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    known: Option<(Arc<Totals>, Instant)>,
    /// How many series a bounded reading found that did not come to the end, and until when that holds.
    too_many: Option<(usize, Instant)>,
    kept: Option<(Option<GrandTotal>, Instant)>,
    bounded: Option<Reading<Bounded>>,
    full: Option<Reading<Arc<Totals>>>,
    adding: Option<Reading<Option<GrandTotal>>>,
}

impl TotalsCache {
    /// Returns the totals of all series: those known, those being read, or fresh ones. While a long
    /// reading goes on, the ones before.
    pub(crate) async fn get(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<Arc<Totals>, Arc<StoreError>> {
        if let Some(known) = self.fresh() {
            return Ok(known);
        }
        if self.too_many().is_none()
            && let Bounded::All(totals) = self.bounded(reads, now_ms).await?
        {
            return Ok(totals);
        }
        let full = self.full(reads, now_ms);
        let Some(before) = self.before(now_ms) else {
            return full.await;
        };
        tokio::time::timeout(PATIENCE, full)
            .await
            .unwrap_or(Ok(before))
    }

    /// Returns the sums over all series: by the series themselves where they cost little, else those that
    /// progress items keep; by the series again where one does not know its sums.
    pub(crate) async fn grand(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<GrandTotal, Arc<StoreError>> {
        if self.too_many().is_none() {
            if let Some(known) = self.fresh() {
                return Ok(GrandTotal::of(&known));
            }
            if let Bounded::All(totals) = self.bounded(reads, now_ms).await? {
                return Ok(GrandTotal::of(&totals));
            }
        }
        if let Some(kept) = self.kept(reads, now_ms).await? {
            return Ok(kept);
        }
        Ok(GrandTotal::of(&*self.get(reads, now_ms).await?))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic holds the totals")
    }

    fn fresh(&self) -> Option<Arc<Totals>> {
        let inner = self.lock();
        let (known, until) = inner.known.as_ref()?;
        (Instant::now() < *until).then(|| Arc::clone(known))
    }

    /// Returns totals that are old, but not too old to be shown.
    fn before(&self, now_ms: i64) -> Option<Arc<Totals>> {
        let inner = self.lock();
        let (known, _) = inner.known.as_ref()?;
        (now_ms - known.read_ms < OLD_MS_MAX).then(|| Arc::clone(known))
    }

    /// Returns how many series there are at least, if they are known to be too many.
    fn too_many(&self) -> Option<usize> {
        let (series, until) = self.lock().too_many?;
        (Instant::now() < until).then_some(series)
    }

    /// Reads the series until they cost too much.
    fn bounded(self: &Arc<TotalsCache>, reads: &Arc<dyn Reads>, now_ms: i64) -> Reading<Bounded> {
        let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
        let reading = async move {
            let found = Arc::new(AtomicUsize::new(0));
            let every = reads.every_total(SERIES_KEPT_MAX, Arc::clone(&found));
            let every = within(READING_MAX, every);
            let (read, cost) = metered_by(&Meter::bounded(SERIES_UNITS_MAX), every).await;
            let mut inner = cache.lock();
            inner.bounded = None;
            match read {
                Ok(every) => {
                    inner.too_many = None;
                    Ok(Bounded::All(inner.know(every, now_ms, cost)))
                }
                Err(StoreError::TooCostly { .. }) => {
                    let until = Instant::now() + TOO_MANY_AGE;
                    inner.too_many = Some((found.load(Ordering::Relaxed), until));
                    Ok(Bounded::TooMany)
                }
                Err(error) => Err(Arc::new(error)),
            }
        };
        let mut inner = self.lock();
        inner.bounded.get_or_insert_with(|| begun(reading)).clone()
    }

    /// Reads every series, whatever that costs.
    fn full(self: &Arc<TotalsCache>, reads: &Arc<dyn Reads>, now_ms: i64) -> Reading<Arc<Totals>> {
        let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
        let reading = async move {
            let every = within(
                READING_MAX,
                reads.every_total(SERIES_KEPT_MAX, Arc::default()),
            );
            let (read, cost) = metered(every).await;
            let mut inner = cache.lock();
            inner.full = None;
            let every = read.map_err(Arc::new)?;
            Ok(inner.know(every, now_ms, cost))
        };
        let mut inner = self.lock();
        inner.full.get_or_insert_with(|| begun(reading)).clone()
    }

    /// Adds up what progress items keep.
    async fn kept(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<Option<GrandTotal>, Arc<StoreError>> {
        let adding = {
            let mut inner = self.lock();
            if let Some((kept, until)) = &inner.kept
                && Instant::now() < *until
            {
                return Ok(kept.clone());
            }
            let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
            let reading = async move {
                let (read, cost) = metered(within(READING_MAX, reads.kept_total())).await;
                let mut inner = cache.lock();
                inner.adding = None;
                let kept = read.map_err(Arc::new)?.map(|all| GrandTotal {
                    read_ms: now_ms,
                    all,
                    is_kept: true,
                    series_min: inner.too_many.map_or(0, |(series, _)| series),
                });
                let age = if kept.is_some() {
                    age(cost.units)
                } else {
                    UNKNOWN_AGE
                };
                inner.kept = Some((kept.clone(), Instant::now() + age));
                Ok(kept)
            };
            inner.adding.get_or_insert_with(|| begun(reading)).clone()
        };
        adding.await
    }
}

impl Inner {
    fn know(&mut self, every: EveryTotal, now_ms: i64, cost: Cost) -> Arc<Totals> {
        let totals = Arc::new(Totals {
            read_ms: now_ms,
            every,
        });
        self.known = Some((Arc::clone(&totals), Instant::now() + age(cost.units)));
        totals
    }
}

impl GrandTotal {
    fn of(totals: &Totals) -> GrandTotal {
        GrandTotal {
            read_ms: totals.read_ms,
            all: totals.every.all.clone(),
            is_kept: false,
            series_min: totals.every.series_count,
        }
    }
}

/// Begins a reading in a task of its own.
fn begun<T: Clone + Send + Sync + 'static>(
    reading: impl Future<Output = Result<T, Arc<StoreError>>> + Send + 'static,
) -> Reading<T> {
    let task = tokio::spawn(reading);
    let joined = async move { task.await.expect("reading totals does not panic") };
    joined.boxed().shared()
}

/// Ends a reading that takes too long.
async fn within<T>(
    max: Duration,
    reading: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(max, reading)
        .await
        .unwrap_or_else(|_elapsed| {
            Err(StoreError::Waited {
                what: "the totals".to_owned(),
                seconds: max.as_secs(),
            })
        })
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
