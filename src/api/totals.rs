//! Caches the totals of all series for all responses that need the totals.
//!
//! The more a read of all series costs, the longer the cache keeps its result. On average, reading the totals costs
//! less than [`UNITS_PER_SECOND_MAX`] read units per second, even if producers create very many series. If a request
//! starts a read and then gives up, the read continues, so that a later request finds the result. If reading the totals
//! takes a long time, responses show the previous totals.
//!
//! The cost is bounded for a response that needs only the sums over all series, and for a page of the list of cities.
//! To bound the cost, reading the series stops after it has cost [`SERIES_UNITS_MAX`] read units. If reading all series
//! costs more than [`SERIES_UNITS_MAX`] read units, the sums come from the progress items. Reading the progress items
//! costs only a few read units, regardless of the number of series. The cache remembers for [`TOO_MANY_AGE`] that there
//! are too many series to read.
//!
//! The handlers of `/api/v1/timeline` and `/api/v1/stream` need a list of series. Reading the list of series stops
//! after it has cost [`LIST_UNITS_MAX`] read units. If the list is incomplete, the timeline and the stream cover only
//! the listed series.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::api::error::ApiError;
use crate::core::clock::UnixMs;
use crate::store::error::StoreError;
use crate::store::reads::{Cost, EveryTotal, Meter, Reads, TotalItem, metered, metered_by};

/// Maximum average number of read units per second for reading the totals. Reading about 3,800 series costs 100 read
/// units.
const UNITS_PER_SECOND_MAX: f64 = 100.0;
/// Minimum time for which totals count as fresh after they were read.
const AGE_MIN: Duration = Duration::from_secs(1);
/// Maximum duration of a read of totals.
const READ_TIME_MAX: Duration = Duration::from_secs(600);
/// Maximum number of read units for reading all series, if the cost of the response must be bounded. Reading about
/// 23,000 series costs 600 read units.
const SERIES_UNITS_MAX: u64 = 600;
/// Maximum number of read units for reading a list of series. Reading about 230,000 series costs 6,000 read units.
/// Because of [`UNITS_PER_SECOND_MAX`], a read that costs 6,000 read units happens at most once a minute.
const LIST_UNITS_MAX: u64 = 6_000;
/// Time for which the cache remembers that there are too many series. An attempt to read all series every 300 seconds
/// costs about two read units per second.
const TOO_MANY_AGE: Duration = Duration::from_secs(300);
/// Time for which the cache remembers that the sums of the progress items are unknown.
const UNKNOWN_AGE: Duration = Duration::from_secs(60);
/// Maximum time that a request waits while many series are read. If the read takes longer, the request uses the
/// previous totals.
const READ_WAIT_MAX: Duration = Duration::from_secs(2);
/// Maximum age of previous totals that a response may still show, in milliseconds.
const OLD_MS_MAX: i64 = 900_000;
/// Maximum number of series that the cache keeps in memory. 200,000 series take about 50 MB of memory. If the tables
/// contain more series, the cache keeps only the largest series. The cached sums still cover all series. The cache also
/// keeps the sums of at most 200,000 event types.
const SERIES_KEPT_MAX: usize = 200_000;

/// The totals of all series, and the time at which they were read.
#[derive(Default)]
pub(crate) struct Totals {
    /// The time at which the server began to read the totals.
    pub(crate) read_ms: UnixMs,
    /// The sums over all series, and the counts of each of the largest series.
    pub(crate) every: EveryTotal,
}

impl Totals {
    /// Returns the number of series of an event type, and the sums over these series.
    ///
    /// # Errors
    /// Returns `too_many_series` if the sums of this event type are unknown. Either there are too many event types, or
    /// the read found only a part of the series.
    pub(crate) fn of_type(&self, event_type: &str) -> Result<(usize, TotalItem), ApiError> {
        if self.every.is_cut {
            return Err(ApiError::too_many_series());
        }
        match self.every.by_type.get(event_type) {
            Some((count, sums)) => Ok((*count, sums.clone())),
            None if self.every.types_left_out => Err(ApiError::too_many_series()),
            None => Ok((0, TotalItem::default())),
        }
    }
}

/// The sums over all series, which come either from the totals of the series or from the progress items.
#[derive(Clone)]
pub(crate) struct GrandTotal {
    /// The time at which the server began to read the sums.
    pub(crate) read_ms: UnixMs,
    /// The sums over all series. In the field `all`, the city and the event type are empty strings.
    pub(crate) all: TotalItem,
    /// True if the sums come from the progress items because there are too many series to read.
    pub(crate) from_progress: bool,
    /// A lower bound for the number of series.
    pub(crate) series_min: usize,
}

/// The result of a read that stops when its cost reaches a limit.
#[derive(Clone)]
enum BoundedRead {
    All(Arc<Totals>),
    TooMany,
}

type SharedRead<T> = Shared<BoxFuture<'static, Result<T, Arc<StoreError>>>>;

/// A cache with the results of the last reads, and with at most one read of each kind in flight.
#[derive(Default)]
pub(crate) struct TotalsCache(Mutex<CacheState>);

#[derive(Default)]
struct CacheState {
    /// The last totals, and the instant until which they count as fresh.
    known: Option<(Arc<Totals>, Instant)>,
    /// The number of series that a bounded read found before it reached its limit. Until the instant in this field, the
    /// cache assumes that there are too many series to read.
    too_many: Option<(usize, Instant)>,
    /// The sums of the progress items, and the instant until which they count as fresh. The sums are `None` if a
    /// progress item has no valid sums.
    progress_sums: Option<(Option<GrandTotal>, Instant)>,
    bounded: Option<SharedRead<BoundedRead>>,
    full: Option<SharedRead<Arc<Totals>>>,
    progress_read: Option<SharedRead<Option<GrandTotal>>>,
}

impl TotalsCache {
    /// Returns the totals of all series from the cache or from the table. If reading the table takes a long time, the
    /// function returns the previous totals. If reading all series costs more than [`LIST_UNITS_MAX`], some series are
    /// missing from the totals.
    pub(crate) async fn get(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: UnixMs,
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

    /// Returns the totals of all series, or `None` if there are too many series to read at a bounded cost.
    pub(crate) async fn get_if_few(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: UnixMs,
    ) -> Result<Option<Arc<Totals>>, Arc<StoreError>> {
        if self.too_many().is_some() {
            return Ok(None);
        }
        if let Some(known) = self.fresh().filter(|known| !known.every.is_cut) {
            return Ok(Some(known));
        }
        match self.read_bounded(reads, now_ms).await? {
            BoundedRead::All(totals) => Ok(Some(totals)),
            BoundedRead::TooMany => Ok(None),
        }
    }

    /// Returns the sums over all series.
    ///
    /// The sums come from the series if reading the series costs little, and from the progress items otherwise. If a
    /// progress item has no valid sums, the function reads all series.
    ///
    /// # Errors
    /// Returns `TooCostly` if reading all series costs more than [`LIST_UNITS_MAX`], or the error of a failed read.
    pub(crate) async fn grand(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: UnixMs,
    ) -> Result<GrandTotal, Arc<StoreError>> {
        if let Some(totals) = self.get_if_few(reads, now_ms).await? {
            return Ok(GrandTotal::of(&totals));
        }
        if let Some(kept) = self.read_progress_sums(reads, now_ms).await? {
            return Ok(kept);
        }
        let totals = self.get(reads, now_ms).await?;
        if totals.every.is_cut {
            let units = LIST_UNITS_MAX;
            return Err(Arc::new(StoreError::TooCostly { units }));
        }
        Ok(GrandTotal::of(&totals))
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.0.lock().expect("no panic holds the totals")
    }

    fn fresh(&self) -> Option<Arc<Totals>> {
        let inner = self.lock();
        let (known, until) = inner.known.as_ref()?;
        (Instant::now() < *until).then(|| Arc::clone(known))
    }

    /// Returns the previous totals if they are recent enough to be shown in responses. The returned totals may no
    /// longer count as fresh.
    fn previous(&self, now_ms: UnixMs) -> Option<Arc<Totals>> {
        let inner = self.lock();
        let (known, _) = inner.known.as_ref()?;
        (now_ms - known.read_ms < OLD_MS_MAX).then(|| Arc::clone(known))
    }

    /// Returns a lower bound for the number of series if the cache assumes that there are too many series, and `None`
    /// otherwise.
    fn too_many(&self) -> Option<usize> {
        let (series, until) = self.lock().too_many?;
        (Instant::now() < until).then_some(series)
    }

    /// Reads all series, but stops when the read has cost [`SERIES_UNITS_MAX`].
    fn read_bounded(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: UnixMs,
    ) -> SharedRead<BoundedRead> {
        let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
        let read = async move {
            let every = limit_time(READ_TIME_MAX, reads.every_total(SERIES_KEPT_MAX));
            let (read, cost) = metered_by(&Meter::bounded(SERIES_UNITS_MAX), every).await;
            // The task holds the lock while it clears the field `bounded` and stores the result, so any other request
            // finds either the read in flight or the result of the read.
            let mut inner = cache.lock();
            inner.bounded = None;
            match read {
                Ok(every) if every.is_cut => {
                    let until = Instant::now() + TOO_MANY_AGE;
                    inner.too_many = Some((every.series_count, until));
                    Ok(BoundedRead::TooMany)
                }
                Ok(every) => {
                    inner.too_many = None;
                    Ok(BoundedRead::All(inner.store_totals(every, now_ms, cost)))
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

    /// Reads all series, but stops when the read has cost [`LIST_UNITS_MAX`].
    fn read_all(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: UnixMs,
    ) -> SharedRead<Arc<Totals>> {
        let (cache, reads) = (Arc::clone(self), Arc::clone(reads));
        let read = async move {
            let every = limit_time(READ_TIME_MAX, reads.every_total(SERIES_KEPT_MAX));
            let (read, cost) = metered_by(&Meter::bounded(LIST_UNITS_MAX), every).await;
            let mut inner = cache.lock();
            inner.full = None;
            let every = read.map_err(Arc::new)?;
            #[allow(clippy::cast_precision_loss)] // the limit is a small number
            if cost.units > SERIES_UNITS_MAX as f64 {
                // The cache remembers that there are too many series, so that requests do not start bounded reads that
                // cannot succeed.
                inner.too_many = Some((every.series_count, Instant::now() + TOO_MANY_AGE));
            }
            Ok(inner.store_totals(every, now_ms, cost))
        };
        let mut inner = self.lock();
        inner.full.get_or_insert_with(|| spawn_read(read)).clone()
    }

    /// Returns the sums over all progress items, or `None` if a progress item has no valid sums.
    pub(crate) async fn read_progress_sums(
        self: &Arc<TotalsCache>,
        reads: &Arc<dyn Reads>,
        now_ms: UnixMs,
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
    fn store_totals(&mut self, every: EveryTotal, now_ms: UnixMs, cost: Cost) -> Arc<Totals> {
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

/// Starts a read in a separate task, so that the read can continue after the request has ended.
fn spawn_read<T: Clone + Send + Sync + 'static>(
    read: impl Future<Output = Result<T, Arc<StoreError>>> + Send + 'static,
) -> SharedRead<T> {
    let task = tokio::spawn(read);
    let joined = async move { task.await.expect("reading the totals does not panic") };
    joined.boxed().shared()
}

/// Aborts a read that takes longer than `max`.
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

/// Returns the time for which totals count as fresh. `units` is the number of read units that reading the totals cost.
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
