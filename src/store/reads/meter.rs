//! Measures the number of requests and the read units that one API response costs.
//!
//! The meter is a task-local value, so that readers do not have to pass it as an argument. A reader that spawns a task
//! wraps the future of the task in [`carry`], so that the meter also counts the requests of this task. Nothing counts
//! the requests of a task without a meter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::error::StoreError;

tokio::task_local! {
    static METER: Meter;
}

/// Sums the cost of all reads for one API response, and can limit this cost. All clones of a meter share the same sums.
#[derive(Clone, Default)]
pub struct Meter(Arc<CostSums>);

#[derive(Default)]
struct CostSums {
    requests: AtomicU64,
    milliunits: AtomicU64,
    /// Maximum cost in thousandths of a read unit, or 0 for no limit.
    milliunits_max: u64,
}

/// The cost of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Number of requests that were sent to DynamoDB.
    pub requests: u64,
    /// Number of read units, as DynamoDB reported them.
    pub units: f64,
    /// Duration of the read, or zero if the read sent no request.
    pub time: Duration,
}

impl Meter {
    /// Returns a meter that prevents further requests after the reads have cost `units` read units. The meter does not
    /// abort requests in flight, so a response may cost a little more.
    pub fn bounded(units: u64) -> Meter {
        Meter(Arc::new(CostSums {
            milliunits_max: units.saturating_mul(1_000),
            ..CostSums::default()
        }))
    }

    /// Runs the future `reading` with this meter, and returns the result of `reading`.
    pub async fn run<T>(&self, reading: impl Future<Output = T>) -> T {
        METER.scope(self.clone(), reading).await
    }

    /// Returns the number of requests and read units that the meter has counted so far.
    pub fn spent(&self) -> (u64, f64) {
        #[allow(clippy::cast_precision_loss)] // the cost of one answer is far below 2^53
        let units = self.0.milliunits.load(Ordering::Relaxed) as f64 / 1_000.0;
        (self.0.requests.load(Ordering::Relaxed), units)
    }
}

/// Runs the future `reading`, and returns its result and its cost.
pub async fn metered<T>(reading: impl Future<Output = T>) -> (T, Cost) {
    metered_by(&Meter::default(), reading).await
}

/// Runs the future `reading` with the given meter, and returns the result and the cost of `reading`.
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

/// Returns the read units that the meter of this task has counted, or 0 if the task has no meter.
pub fn units_so_far() -> f64 {
    METER.try_with(|meter| meter.spent().1).unwrap_or_default()
}

/// Checks that the meter's limit allows another request.
///
/// # Errors
/// Returns [`StoreError::TooCostly`] if the meter has reached its limit of read units.
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

/// Returns a future that runs `reading` with the meter of the current task, even in another task.
pub(super) fn carry<T>(
    reading: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let meter = METER.try_with(Clone::clone).unwrap_or_default();
    METER.scope(meter, reading)
}

/// Adds one request and its read units to the meter of the current task.
pub(super) fn add_request(units: Option<f64>) {
    let _unmetered = METER.try_with(|meter| {
        meter.0.requests.fetch_add(1, Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is clamped
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
            add_request(Some(0.5));
            tokio::spawn(carry(async { add_request(Some(2.0)) }))
                .await
                .unwrap();
            add_request(None);
        };
        let ((), cost) = metered(reading).await;
        assert_eq!((cost.requests, cost.units), (3, 2.5));
        add_request(Some(1.0));
        let ((), cost) = metered(async {}).await;
        assert_eq!(cost, Cost::default());
    }

    #[tokio::test]
    async fn no_read_starts_once_the_units_of_an_answer_are_spent() {
        let reading = async {
            assert!(check_bound().is_ok());
            add_request(Some(4.0));
            assert!(check_bound().is_ok());
            assert_eq!(units_so_far(), 4.0);
            add_request(Some(1.0));
            let spawned = tokio::spawn(carry(async { check_bound() })).await.unwrap();
            assert!(matches!(spawned, Err(StoreError::TooCostly { units: 5 })));
        };
        metered_by(&Meter::bounded(5), reading).await;
        assert!(check_bound().is_ok());
    }
}
