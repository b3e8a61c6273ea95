//! Compares the sums in each progress item with the counts of all log records below the item's offset.

use super::judge::Incomparable;
use super::{AuditOutcome, Counts, Log, Mismatch, Slice};
use crate::event::Offset;

/// The content of a partition's progress item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The offset below which all records are durable, according to the progress item.
    pub next: Offset,
    /// The counts of the records below the offset `next`, or `None` if the progress item contains no counts.
    pub sums: Option<Counts>,
    /// True if the log extends at least to the offset `next`. If the log ends earlier, records below `next` were
    /// truncated.
    pub whole: bool,
}

impl Log {
    /// Returns true if `offset` is below the offset in the progress item.
    pub(super) fn is_published(&self, offset: Offset) -> bool {
        self.published.is_some_and(|item| offset < item.next)
    }
}

/// A progress item whose sums differ from the counts of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSums {
    /// The number of the Kafka partition.
    pub partition: i32,
    /// A description of the actual and the expected sums of the item.
    pub detail: String,
}

/// The name that reports use for progress items, next to the names of the kinds of rows
/// ([`Key::kind`](super::Key::kind)).
pub const PROGRESS_ITEM: &str = "progress item";

impl Slice {
    /// Compares the progress items with the log. Only the first slice compares the progress items, because every slice
    /// processes the whole log.
    pub(super) fn judge_progress(&self, out: &mut AuditOutcome) {
        if self.lo.is_some() {
            return;
        }
        for (partition, (log, _)) in &self.logs {
            let Some(item) = log.published else {
                continue;
            };
            let cannot = match item.sums {
                _ if log.start > Offset(0) || !item.whole => Some(Incomparable::Older),
                None => Some(Incomparable::NoSums),
                Some(_) => None,
            };
            if let Some(reason) = cannot {
                *out.incomparable.entry(reason).or_default() += 1;
                continue;
            }
            *out.compared.entry(PROGRESS_ITEM).or_default() += 1;
            let want = self.published.get(partition).copied().unwrap_or_default();
            let found = item.sums.unwrap_or_default();
            if want != found {
                out.difference_count += 1;
                *out.differing
                    .entry((PROGRESS_ITEM, Mismatch::Wrong))
                    .or_default() += 1;
                out.wrong_sums.push(WrongSums {
                    partition: *partition,
                    detail: format!(
                        "below offset {} the log has {}, the item says {}",
                        item.next.0,
                        described(&want),
                        described(&found)
                    ),
                });
            }
        }
    }
}

fn described(counts: &Counts) -> String {
    let [low, medium, high, critical] = counts.severities;
    format!(
        "{} events in windows and {} late ones ({low} low, {medium} medium, {high} high, {critical} critical)",
        counts.event_count, counts.late_count
    )
}
