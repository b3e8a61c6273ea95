//! Copies the pipeline's counts, watermarks and lag into the metrics.

use crate::consume::Host;
use crate::core::pipeline::Pipeline;
use crate::kafka::budget::Budget;
use crate::telemetry::unix_ms;

/// Adds the pipeline's counts since the last call to the metrics, and returns the memory of finished records to the
/// budget.
pub(super) fn report_counts(pipeline: &mut Pipeline, host: &Host, budget: &Budget) {
    if let Some(settled) = &host.settled {
        for worker in pipeline.workers() {
            settled(worker.place().partition, worker.durable().next.0);
        }
    }
    let report = pipeline.report();
    let (m, tally) = (&host.metrics, report.tally);
    budget.take(tally.bytes_taken);
    budget.free(tally.bytes_freed);
    m.in_flight_bytes
        .set(i64::try_from(budget.used()).unwrap_or(i64::MAX));
    *m.ledger.lock().expect("no panic holds the ledger") = report.ledger;
    m.events_future.inc_by(tally.future);
    m.fence_conflicts.inc_by(tally.fence_conflicts);
    for (outcome, count) in [("real", tally.gaps_real), ("skipped", tally.gaps_skipped)] {
        if count > 0 {
            m.read_gaps.with_label_values(&[outcome]).inc_by(count);
        }
    }
    for (severity, count) in ["high", "critical"].into_iter().zip(tally.alerts) {
        if count > 0 {
            m.alerts.with_label_values(&[severity]).inc_by(count);
        }
    }
    let now_ms = unix_ms();
    for at_ms in tally.durable_ms {
        // The measured latency can be negative, because the clocks of two hosts differ. The measured latency can also
        // be very large, because replayed records may be years old.
        let ms = (now_ms - at_ms).clamp(0, i64::from(u32::MAX));
        let ms = u32::try_from(ms).expect("just clamped");
        m.event_latency_seconds.observe(f64::from(ms) / 1_000.0);
    }
}

/// Copies the watermark of each partition into the metrics.
pub(super) fn report_watermarks(pipeline: &Pipeline, host: &Host) {
    for worker in pipeline.workers() {
        if let Some(ms) = worker.watermark_ms() {
            #[allow(clippy::cast_precision_loss)] // the value is far below 2^53
            let seconds = ms.0 as f64 / 1_000.0;
            let label = worker.place().partition.to_string();
            let watermark = &host.metrics.watermark_seconds;
            watermark.with_label_values(&[&label]).set(seconds);
        }
    }
}

/// Copies the lag of each partition into the metrics. `ends` contains, for each partition, the offset after the newest
/// record.
pub(super) fn report_lag(
    pipeline: &Pipeline,
    host: &Host,
    topic: &str,
    ends: &[(i32, crate::core::event::Offset)],
) {
    for worker in pipeline.workers() {
        let partition = worker.place().partition;
        if let Some((_, end)) = ends.iter().find(|(p, _)| *p == partition) {
            let lag = (end.0 - worker.position().0).max(0);
            let records = &host.metrics.lag_records;
            let labels = [topic, &partition.to_string()];
            records.with_label_values(&labels).set(lag);
        }
    }
}

/// Removes the metrics of a partition that this consumer no longer owns.
pub(super) fn forget_partition(host: &Host, topic: &str, partition: i32) {
    let label = partition.to_string();
    // `remove_label_values` returns an error if the partition does not have the metric, which is harmless here.
    let lag = &host.metrics.lag_records;
    drop(lag.remove_label_values(&[topic, &label]));
    let watermark = &host.metrics.watermark_seconds;
    drop(watermark.remove_label_values(&[&label]));
}
