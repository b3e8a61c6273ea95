//! What one answer costs: requests and read units, summed while it is made.
//!
//! The meter travels with the task, so that no reader has to hand it on; a reader that spawns wraps
//! its future in [`carried`]. Without a meter nothing is summed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

tokio::task_local! {
    static METER: Arc<Meter>;
}

#[derive(Default)]
struct Meter {
    requests: AtomicU64,
    milliunits: AtomicU64,
}

/// What an answer cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Requests sent to DynamoDB.
    pub requests: u64,
    /// Read units, as DynamoDB told them.
    pub units: f64,
    /// From the first request to the last answer, work between them included.
    pub time: Duration,
}

/// Runs `reading`; returns its result and what it cost.
pub async fn metered<T>(reading: impl Future<Output = T>) -> (T, Cost) {
    let meter = Arc::new(Meter::default());
    let begun = Instant::now();
    let result = METER.scope(Arc::clone(&meter), reading).await;
    let requests = meter.requests.load(Ordering::Relaxed);
    #[allow(clippy::cast_precision_loss)] // units of one answer
    let units = meter.milliunits.load(Ordering::Relaxed) as f64 / 1_000.0;
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

/// Returns the future with this task's meter, for a task of its own.
pub(super) fn carried<T>(
    reading: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send + 'static {
    let meter = METER.try_with(Arc::clone).unwrap_or_default();
    METER.scope(meter, reading)
}

/// Counts a request.
pub(super) fn count(units: Option<f64>) {
    // Without a meter nobody wants to know.
    let _unmetered = METER.try_with(|meter| {
        meter.requests.fetch_add(1, Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let milliunits = (units.unwrap_or_default() * 1_000.0).clamp(0.0, 1e15) as u64;
        meter.milliunits.fetch_add(milliunits, Ordering::Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cost_of_spawned_reads_is_summed_too() {
        let reading = async {
            count(Some(0.5));
            tokio::spawn(carried(async { count(Some(2.0)) }))
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
}
