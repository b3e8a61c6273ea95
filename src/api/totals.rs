//! The totals of all series, shared by every answer that needs them.
//!
//! A read costs more if there are more series, and its result is then kept longer. So the average cost stays below
//! [`UNITS_PER_SECOND_MAX`] read units per second, even if a producer makes up many series. A read continues when the
//! request that started it gives up, so the next request finds its result. Meanwhile answers show the previous totals.
//!
//! An answer that needs only the sums over all series has a bounded cost, and so has a page of cities. Series are read up to
//! [`SERIES_UNITS_MAX`]. If they cost more, the sums come from the progress items, which cost a few read units
//! however many series exist. The cache remembers for [`TOO_MANY_AGE`] that there are too many series.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::api::error::ApiError;
use crate::store::error::StoreError;
use crate::store::reads::{Cost, EveryTotal, Meter, Reads, TotalItem, metered, metered_by};

/// Maximum number of read units per second that the totals cost on average. 100 units read about 3,800 series.
const UNITS_PER_SECOND_MAX: f64 = 100.0;
/// How long totals count as fresh if they cost little.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Longest read: about ten million series at the rate that one DynamoDB partition allows.
const READ_TIME_MAX: Duration = Duration::from_secs(600);
/// Maximum number of read units spent on all series for a bounded answer: about 23,000 series.
const SERIES_UNITS_MAX: u64 = 600;
/// How long the series count as too many. One attempt in this time costs about two read units per second.
const TOO_MANY_AGE: Duration = Duration::from_secs(300);
/// How long the sums of the progress items count as unknown.
const UNKNOWN_AGE: Duration = Duration::from_secs(60);
/// How long a request waits for a read of many series before it uses the previous totals.
const READ_WAIT_MAX: Duration = Duration::from_secs(2);
/// Largest age of previous totals that may still be shown.
const OLD_MS_MAX: i64 = 900_000;
/// Maximum number of series kept in memory, about 50 MB. These are the largest ones; the sums cover all series. As
/// many event types have their own sums.
const SERIES_KEPT_MAX: usize = 200_000;

/// The totals of all series, and when they were read.
#[derive(Default)]
pub(crate) struct Totals {
    /// When the read began, in Unix milliseconds.
    pub(crate) read_ms: i64,
    /// The sums, and the largest series.
    pub(crate) every: EveryTotal,
}

impl Totals {
    /// Returns the number of series of an event type, and their sums.
    ///
    /// # Errors
    /// `too_many_series` if there are more event types than the memory holds, and this one is left out.
    pub(crate) fn of_type(&self, event_type: &str) -> Result<(usize, TotalItem), ApiError> {
        match self.every.by_type.get(event_type) {
            Some((count, sums)) => Ok((*count, sums.clone())),
            None if self.every.types_left_out => Err(ApiError::too_many_series(SERIES_KEPT_MAX)),
            None => Ok((0, TotalItem::default())),
        }
    }
}

/// The sums over all series, and their origin.
#[derive(Clone)]
pub(crate) struct GrandTotal {
    /// When the read began, in Unix milliseconds.
    pub(crate) read_ms: i64,
    /// The sums. City and event type are empty.
    pub(crate) all: TotalItem,
    /// True if the sums come from the progress items because there are too many series to read.
    pub(crate) from_progress: bool,
    /// There are at least this many series.
    pub(crate) series_min: usize,
}

/// The result of a read with a limited cost.
#[derive(Clone)]
enum BoundedRead {
    All(Arc<Totals>),
    TooMany,
}

type SharedRead<T> = Shared<BoxFuture<'static, Result<T, Arc<StoreError>>>>;

/// What was read last, and the reads in flight, at most one of each kind.
#[derive(Default)]
pub(crate) struct TotalsCache(Mutex<CacheState>);

#[derive(Default)]
struct CacheState {
    /// The last totals, and until when they count as fresh.
    known: Option<(Arc<Totals>, Instant)>,
    /// The number of series that a bounded read found before it stopped, and until when they count as too many.
    too_many: Option<(usize, Instant)>,
    /// The sums of the progress items if all of them know theirs, and until when they count as fresh.
    progress_sums: Option<(Option<GrandTotal>, Instant)>,
    bounded: Option<SharedRead<BoundedRead>>,
    full: Option<SharedRead<Arc<Totals>>>,
    progress_read: Option<SharedRead<Option<GrandTotal>>>,
}

impl TotalsCache {
    /// Returns the totals of all series: cached ones, or the result of a read. During a long read, returns the
    /// previous totals.
    pub(crate) async fn get(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<Arc<Totals>, Arc<StoreError>> {
        if let Some(known) = self.fresh() {
            return Ok(known);
        }
        if let Some(totals) = self.get_if_few(reads, now_ms).await? {
            return Ok(totals);
        }
        let full = self.read_all(reads, now_ms);
        let Some(previous) = self.previous(now_ms) else {
            return full.await;
        };
        tokio::time::timeout(READ_WAIT_MAX, full)
            .await
            .unwrap_or(Ok(previous))
    }

    /// Returns the totals of all series, or `None` if there are too many to read at a bounded cost.
    pub(crate) async fn get_if_few(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<Option<Arc<Totals>>, Arc<StoreError>> {
        if self.too_many().is_some() {
            return Ok(None);
        }
        if let Some(known) = self.fresh() {
            return Ok(Some(known));
        }
        match self.read_bounded(reads, now_ms).await? {
            BoundedRead::All(totals) => Ok(Some(totals)),
            BoundedRead::TooMany => Ok(None),
        }
    }

    /// Returns the sums over all series.
    ///
    /// The sums come from the series if these cost little, and from the progress items otherwise. If a progress
    /// item does not know its sums, all series are read.
    pub(crate) async fn grand(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<GrandTotal, Arc<StoreError>> {
        if let Some(totals) = self.get_if_few(reads, now_ms).await? {
            return Ok(GrandTotal::of(&totals));
        }
        if let Some(kept) = self.read_progress_sums(reads, now_ms).await? {
            return Ok(kept);
        }
        Ok(GrandTotal::of(&*self.get(reads, now_ms).await?))
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.0.lock().expect("no panic holds the totals")
    }

    fn fresh(&self) -> Option<Arc<Totals>> {
        let inner = self.lock();
        let (known, until) = inner.known.as_ref()?;
        (Instant::now() < *until).then(|| Arc::clone(known))
    }

    /// Returns totals that are not fresh but may still be shown.
    fn previous(&self, now_ms: i64) -> Option<Arc<Totals>> {
        let inner = self.lock();
        let (known, _) = inner.known.as_ref()?;
        (now_ms - known.read_ms < OLD_MS_MAX).then(|| Arc::clone(known))
    }

    /// Returns the least number of series, if they are known to be too many.
    fn too_many(&self) -> Option<usize> {
        let (series, until) = self.lock().too_many?;
        (Instant::now() < until).then_some(series)
    }

    /// Reads the series, but stops once they cost too much.
    fn read_bounded(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> SharedRead<BoundedRead> {
        let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
        let read = async move {
            let found = Arc::new(AtomicUsize::new(0));
            let every = reads.every_total(SERIES_KEPT_MAX, Arc::clone(&found));
            let every = limit_time(READ_TIME_MAX, every);
            let (read, cost) = metered_by(&Meter::bounded(SERIES_UNITS_MAX), every).await;
            // One lock frees the slot and stores the result, so a request finds either the read or its result.
            let mut inner = cache.lock();
            inner.bounded = None;
            match read {
                Ok(every) => {
                    inner.too_many = None;
                    Ok(BoundedRead::All(inner.store_totals(every, now_ms, cost)))
                }
                Err(StoreError::TooCostly { .. }) => {
                    let until = Instant::now() + TOO_MANY_AGE;
                    inner.too_many = Some((found.load(Ordering::Relaxed), until));
                    Ok(BoundedRead::TooMany)
                }
                Err(error) => Err(Arc::new(error)),
            }
        };
        let mut inner = self.lock();
        inner
            .bounded
            .get_or_insert_with(|| spawn_read(read))
            .clone()
    }

    /// Reads every series, whatever that costs.
    fn read_all(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> SharedRead<Arc<Totals>> {
        let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
        let read = async move {
            let every = limit_time(
                READ_TIME_MAX,
                reads.every_total(SERIES_KEPT_MAX, Arc::default()),
            );
            let (read, cost) = metered(every).await;
            let mut inner = cache.lock();
            inner.full = None;
            let every = read.map_err(Arc::new)?;
            #[allow(clippy::cast_precision_loss)] // a small number
            if cost.units > SERIES_UNITS_MAX as f64 {
                // They are still too many, so a bounded read need not find that out again.
                inner.too_many = Some((every.series_count, Instant::now() + TOO_MANY_AGE));
            }
            Ok(inner.store_totals(every, now_ms, cost))
        };
        let mut inner = self.lock();
        inner.full.get_or_insert_with(|| spawn_read(read)).clone()
    }

    /// Adds up the sums of the progress items; `None` if one of them does not know its sums.
    pub(crate) async fn read_progress_sums(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: i64,
    ) -> Result<Option<GrandTotal>, Arc<StoreError>> {
        let progress_read = {
            let mut inner = self.lock();
            if let Some((kept, until)) = &inner.progress_sums
                && Instant::now() < *until
            {
                return Ok(kept.clone());
            }
            let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
            let read = async move {
                let (read, cost) = metered(limit_time(READ_TIME_MAX, reads.kept_total())).await;
                let mut inner = cache.lock();
                inner.progress_read = None;
                let kept = read.map_err(Arc::new)?.map(|all| GrandTotal {
                    read_ms: now_ms,
                    all,
                    from_progress: true,
                    series_min: inner.too_many.map_or(0, |(series, _)| series),
                });
                let age = if kept.is_some() {
                    fresh_for(cost.units)
                } else {
                    UNKNOWN_AGE
                };
                inner.progress_sums = Some((kept.clone(), Instant::now() + age));
                Ok(kept)
            };
            inner
                .progress_read
                .get_or_insert_with(|| spawn_read(read))
                .clone()
        };
        progress_read.await
    }
}

impl CacheState {
    fn store_totals(&mut self, every: EveryTotal, now_ms: i64, cost: Cost) -> Arc<Totals> {
        let totals = Arc::new(Totals {
            read_ms: now_ms,
            every,
        });
        self.known = Some((Arc::clone(&totals), Instant::now() + fresh_for(cost.units)));
        totals
    }
}

impl GrandTotal {
    pub(crate) fn of(totals: &Totals) -> GrandTotal {
        GrandTotal {
            read_ms: totals.read_ms,
            all: totals.every.all.clone(),
            from_progress: false,
            series_min: totals.every.series_count,
        }
    }
}

/// Starts a read in its own task, so that it outlives the request.
fn spawn_read<T: Clone + Send + Sync + 'static>(
    read: impl Future<Output = Result<T, Arc<StoreError>>> + Send + 'static,
) -> SharedRead<T> {
    let task = tokio::spawn(read);
    let joined = async move { task.await.expect("reading the totals does not panic") };
    joined.boxed().shared()
}

/// Aborts a read that takes too long.
async fn limit_time<T>(
    max: Duration,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(max, read)
        .await
        .unwrap_or_else(|_elapsed| {
            Err(StoreError::Waited {
                what: "the totals".to_owned(),
                seconds: max.as_secs(),
            })
        })
}

/// Returns how long totals that cost this many read units count as fresh.
fn fresh_for(units: f64) -> Duration {
    Duration::from_secs_f64((units / UNITS_PER_SECOND_MAX).clamp(0.0, 86_400.0)).max(AGE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expensive_totals_are_kept_longer() {
        for (units, seconds) in [(0.0, 1), (8.0, 1), (787.0, 7), (5_500.0, 55)] {
            assert_eq!(fresh_for(units).as_secs(), seconds, "{units}");
        }
    }
}
