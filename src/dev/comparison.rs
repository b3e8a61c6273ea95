//! Compares the log with the tables repeatedly, and shows the result below the panel on the page of `dev`.
//!
//! Like `citystream verify`, each comparison reads the whole log and every row of the tables. Comparisons run only
//! while the page of `dev` is open. The pause after a comparison is at least twice as long as the comparison.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::core::audit::Incomparable;
use crate::dev::panel::{Comparison, Panel};
use crate::shutdown::Shutdown;
use crate::telemetry::{Metrics, unix_ms};
use crate::verify::VerifyReport;
use crate::verify::compare::{CompareOptions, CompareSource, compare};

/// Minimum pause between two comparisons.
const PAUSE: Duration = Duration::from_secs(2);
/// Time without a request from the page after which `dev` assumes that the page is closed. An open page sends a request
/// every second.
const WATCHED: Duration = Duration::from_secs(5);
/// Maximum memory for the rows of one comparison, in bytes.
const MEMORY_BYTES: usize = 64 << 20;

/// Compares the log with the tables repeatedly until `shutdown` is triggered, and passes each result to the panel.
pub(crate) async fn watch(
    panel: Panel,
    source: CompareSource,
    raw_ttl_ms: i64,
    shutdown: Shutdown,
) {
    // The comparison has its own metrics, so that the metrics of the API do not include the reads of the comparison.
    let metrics = Metrics::new();
    let options = CompareOptions {
        from_ms: None,
        until_ms: None,
        raw_ttl_ms,
        alert_ttl_ms: None,
        memory_bytes: MEMORY_BYTES,
    };
    while !shutdown.is_triggered() {
        let mut pause = PAUSE;
        if panel.is_watched(WATCHED) {
            let begun = Instant::now();
            let read = Arc::new(AtomicU64::new(0));
            match compare(&source, &options, &metrics, &read, &shutdown).await {
                Ok(Some(report)) => panel.set_comparison(summarize(&report)),
                Ok(None) => return,
                // The error is logged only for debugging, because the user may have stopped the broker on purpose.
                Err(error) => tracing::debug!(error = format!("{error:#}"), "failed to compare"),
            }
            pause = pause.max(begun.elapsed() * 2);
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Returns the reason why some rows cannot be compared, or `None` if all rows can be compared.
fn why_incomparable(report: &VerifyReport) -> Option<String> {
    let why = |reason: &Incomparable| match reason {
        // Each start of `dev` creates a new log, so the tables in a kept `--data-dir` contain rows with counts of an
        // earlier log.
        Incomparable::Remade => "counted in an earlier run, whose log is gone",
        other => other.reason(),
    };
    let reasons: Vec<&str> = report.outcome.incomparable.keys().map(why).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn summarize(report: &VerifyReport) -> Comparison {
    let sums = report.events();
    let first = report.outcome.differences.first();
    let compared = |kind| report.outcome.compared.get(kind).is_some_and(|n| *n > 0);
    let compares_counts = compared("totals") || compared("window");
    Comparison {
        at_ms: unix_ms().0,
        log: sums.log,
        tables: sums.tables,
        difference: report.outcome.difference_count,
        compares_counts,
        rows: report.outcome.compared.values().sum(),
        not_comparable: report.incomparable(),
        not_comparable_why: why_incomparable(report),
        waiting: report.seen.unclaimed,
        first: first.map(|d| format!("{} {}: {}", d.kind.name(), d.key, d.detail)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::core::audit::{AuditOutcome, Sums};

    #[test]
    fn rows_of_an_earlier_run_are_counted_with_the_reason() {
        let outcome = AuditOutcome {
            compared: BTreeMap::from([("raw event", 3), ("totals", 1)]),
            totals: Sums { log: 3, tables: 3 },
            incomparable: BTreeMap::from([(Incomparable::Remade, 40)]),
            ..AuditOutcome::default()
        };
        let shown = summarize(&VerifyReport {
            outcome,
            ..VerifyReport::default()
        });
        assert_eq!((shown.log, shown.tables, shown.rows), (3, 3, 4));
        assert_eq!(shown.not_comparable, 40);
        assert_eq!(
            shown.not_comparable_why.as_deref(),
            Some("counted in an earlier run, whose log is gone")
        );
        assert!(shown.compares_counts);
        let all = summarize(&VerifyReport::default());
        assert!(!all.compares_counts, "an empty log agrees with nothing");
        assert_eq!((all.not_comparable, all.not_comparable_why), (0, None));
    }

    #[test]
    fn a_kept_folder_without_comparable_counts_is_shown_as_such() {
        let outcome = AuditOutcome {
            compared: BTreeMap::from([("raw event", 0), ("progress item", 3)]),
            incomparable: BTreeMap::from([(Incomparable::Remade, 272)]),
            ..AuditOutcome::default()
        };
        let shown = summarize(&VerifyReport {
            outcome,
            ..VerifyReport::default()
        });
        assert_eq!((shown.log, shown.tables, shown.difference), (0, 0, 0));
        assert!(!shown.compares_counts);
    }
}
