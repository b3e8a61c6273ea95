//! Sums the requests and read units that one answer costs.
//!
//! The meter is a task-local value, so no reader has to pass it on. A reader that spawns a task wraps
//! the future in [`carry`]. Without a meter nothing is summed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::error::StoreError;

tokio::task_local! {
    static METER: Meter;
}

/// Sums what the reads of one answer cost, and may limit it. Clones share the sums.
#[derive(Clone, Default)]
pub struct Meter(Arc<CostSums>);

#[derive(Default)]
struct CostSums {
    requests: AtomicU64,
    milliunits: AtomicU64,
    /// Most milliunits; 0 means no limit.
    milliunits_max: u64,
}

/// What an answer cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Requests sent to DynamoDB.
    pub requests: u64,
    /// Read units, as DynamoDB reported them.
    pub units: f64,
    /// Time from the first request to the last answer, including the work between them.
    pub time: Duration,
}

impl Meter {
    /// Returns a meter that lets no request start once `units` are spent. It does not end requests that
    /// have been sent, so an answer may cost a little more.
    pub fn bounded(units: u64) -> Meter {
        Meter(Arc::new(CostSums {
            milliunits_max: units.saturating_mul(1_000),
            ..CostSums::default()
        }))
    }

    /// Runs `reading` with this meter, and returns its result.
    pub async fn run<T>(&self, reading: impl Future<Output = T>) -> T {
        METER.scope(self.clone(), reading).await
    }

    /// Returns the number of requests and read units so far.
    pub fn spent(&self) -> (u64, f64) {
        #[allow(clippy::cast_precision_loss)] // the units of one answer are few
        let units = self.0.milliunits.load(Ordering::Relaxed) as f64 / 1_000.0;
        (self.0.requests.load(Ordering::Relaxed), units)
    }
}

/// Runs `reading`; returns its result and what it cost.
pub async fn metered<T>(reading: impl Future<Output = T>) -> (T, Cost) {
    metered_by(&Meter::default(), reading).await
}

/// Runs `reading` with this meter; returns its result and what it cost.
pub async fn metered_by<T>(meter: &Meter, reading: impl Future<Output = T>) -> (T, Cost) {
    let begun = Instant::now();
    let result = meter.run(reading).await;
    let (requests, units) = meter.spent();
    let time = if requests == 0 {
        Duration::ZERO
    } else {
        begun.elapsed()
    };
    (
        result,
        Cost {
            requests,
            units,
            time,
        },
    )
}

/// Returns the read units that this task's meter has counted; 0 without a meter.
pub fn units_so_far() -> f64 {
    METER.try_with(|meter| meter.spent().1).unwrap_or_default()
}

/// Checks that another request may start.
///
/// # Errors
/// [`StoreError::TooCostly`] once the limit is reached.
pub(super) fn check_bound() -> Result<(), StoreError> {
    let over = METER.try_with(|meter| {
        let max = meter.0.milliunits_max;
        max > 0 && meter.0.milliunits.load(Ordering::Relaxed) >= max
    });
    match over {
        Ok(true) => Err(StoreError::TooCostly {
            units: METER.with(|meter| meter.0.milliunits_max / 1_000),
        }),
        _ => Ok(()),
    }
}

/// Returns a future that another task can run with the meter of this one.
pub(super) fn carry<T>(
    reading: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let meter = METER.try_with(Clone::clone).unwrap_or_default();
    METER.scope(meter, reading)
}

/// Counts a request.
pub(super) fn count(units: Option<f64>) {
    let _unmetered = METER.try_with(|meter| {
        meter.0.requests.fetch_add(1, Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let milliunits = (units.unwrap_or_default() * 1_000.0).clamp(0.0, 1e15) as u64;
        meter.0.milliunits.fetch_add(milliunits, Ordering::Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cost_of_spawned_reads_is_summed_too() {
        let reading = async {
            count(Some(0.5));
            tokio::spawn(carry(async { count(Some(2.0)) }))
                .await
                .unwrap();
            count(None);
        };
        let ((), cost) = metered(reading).await;
        assert_eq!((cost.requests, cost.units), (3, 2.5));
        count(Some(1.0));
        let ((), cost) = metered(async {}).await;
        assert_eq!(cost, Cost::default());
    }

    #[tokio::test]
    async fn no_read_starts_once_the_units_of_an_answer_are_spent() {
        let reading = async {
            assert!(check_bound().is_ok());
            count(Some(4.0));
            assert!(check_bound().is_ok());
            assert_eq!(units_so_far(), 4.0);
            count(Some(1.0));
            let spawned = tokio::spawn(carry(async { check_bound() })).await.unwrap();
            assert!(matches!(spawned, Err(StoreError::TooCostly { units: 5 })));
        };
        metered_by(&Meter::bounded(5), reading).await;
        assert!(check_bound().is_ok());
    }
}
