//! The sums of progress items, compared with the fold of the log below their `next`.

use super::judge::Incomparable;
use super::{Counts, Kind, Log, Outcome, Slice};
use crate::event::Offset;

/// What a partition's progress item says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Everything below is durable.
    pub next: Offset,
    /// What is counted below it; `None` if the item does not know.
    pub sums: Option<Counts>,
    /// The log has every offset below `next`.
    pub whole: bool,
}

impl Log {
    /// Tells whether the progress item speaks of this record.
    pub(super) fn is_published(&self, offset: Offset) -> bool {
        self.published.is_some_and(|item| offset < item.next)
    }
}

/// A progress item that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSums {
    /// The partition.
    pub partition: i32,
    /// In words: what is there, and what should be.
    pub detail: String,
}

/// The kind of row in reports.
pub const PROGRESS_ITEM: &str = "progress item";

impl Slice {
    /// Judges the progress items. Any slice can, since each is handed the whole log; the first one does.
    pub(super) fn judge_progress(&self, out: &mut Outcome) {
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
                    .entry((PROGRESS_ITEM, Kind::Wrong))
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
