//! The line under the panel: what the log says against what the tables say, again and again.
//!
//! The comparison is `verify`'s own. It runs only while a page looks, and never more than a third of
//! the time, since it reads the whole log and every row.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::cmd::dev::lab::{Difference, Lab};
use crate::cmd::verify::Report;
use crate::cmd::verify::compare::{Options, Source, compare};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, unix_ms};

/// Least time between two comparisons.
const PAUSE: Duration = Duration::from_secs(2);
/// A page asks every second; without one for so long, nobody looks.
const WATCHED: Duration = Duration::from_secs(5);
/// Memory for the rows of one comparison.
const MEMORY_BYTES: usize = 64 << 20;

/// Compares until `shutdown`.
pub(super) async fn watch(lab: Lab, source: Source, raw_ttl_ms: i64, shutdown: Shutdown) {
    // Of its own, so that its reads do not stand beside the API's.
    let metrics = Metrics::new();
    let options = Options {
        from_ms: None,
        until_ms: None,
        raw_ttl_ms,
        alert_ttl_ms: None,
        memory_bytes: MEMORY_BYTES,
    };
    while !shutdown.is_triggered() {
        let mut pause = PAUSE;
        if lab.is_watched(WATCHED) {
            let begun = Instant::now();
            let read = Arc::new(AtomicU64::new(0));
            match compare(&source, &options, &metrics, &read, &shutdown).await {
                Ok(Some(report)) => lab.compared(difference(&report)),
                Ok(None) => return,
                // Kafka is away now and then, here of all places.
                Err(error) => tracing::debug!(error = format!("{error:#}"), "not compared"),
            }
            pause = pause.max(begun.elapsed() * 2);
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn difference(report: &Report) -> Difference {
    let sums = report.events();
    let first = report.outcome.differences.first();
    Difference {
        at_ms: unix_ms(),
        log: sums.log,
        tables: sums.tables,
        difference: report.outcome.difference_count,
        rows: report.outcome.compared.values().sum(),
        waiting: report.seen.unclaimed,
        first: first.map(|d| format!("{} {}: {}", d.kind.name(), d.key, d.detail)),
    }
}
