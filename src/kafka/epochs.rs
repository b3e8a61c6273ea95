//! Remembers the leader epochs of the consumer's last records. A commit contains the epoch of the last record below its
//! offset.

use std::collections::VecDeque;

use crate::core::event::Offset;

/// Maximum number of epochs that the consumer remembers for a partition. A commit is at most a few batches behind the
/// read position, so it needs only the last few epochs.
const EPOCHS_MAX: usize = 64;

/// The leader epochs of the last records of one partition.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// The epochs, each with the offset of the first record that the consumer read in this epoch. The offsets are in
    /// ascending order.
    first: VecDeque<(Offset, i32)>,
}

impl Epochs {
    /// Forgets the epochs of the records at and after `next`, because the consumer reads the partition again from
    /// `next`.
    pub(super) fn begin(&mut self, next: Offset) {
        while self.first.back().is_some_and(|(first, _)| *first >= next) {
            self.first.pop_back();
        }
    }

    /// Notes the epoch of the record at `offset`. `epoch` is `None` if the broker does not report epochs.
    pub(super) fn note(&mut self, offset: Offset, epoch: Option<i32>) {
        let Some(epoch) = epoch else {
            return self.first.clear();
        };
        if self.first.back().is_none_or(|(_, last)| *last != epoch) {
            self.first.push_back((offset, epoch));
        }
        if self.first.len() > EPOCHS_MAX {
            self.first.pop_front();
        }
    }

    /// Returns the epoch of the last record below `next`, or `None` if the epoch is unknown.
    pub(super) fn before(&self, next: Offset) -> Option<i32> {
        let mut firsts = self.first.iter().rev();
        firsts
            .find(|(first, _)| *first < next)
            .map(|(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(noted: &[(i64, i32)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (offset, epoch) in noted {
            epochs.note(Offset(*offset), Some(*epoch));
        }
        epochs
    }

    #[test]
    fn a_commit_gets_the_epoch_of_the_last_record_before_it() {
        let epochs = epochs(&[(3, 1), (4, 1), (7, 2), (8, 5)]);
        let before = |next| epochs.before(Offset(next));
        assert_eq!([before(3), before(4), before(7)], [None, Some(1), Some(1)]);
        assert_eq!(
            [before(8), before(9), before(20)],
            [Some(2), Some(5), Some(5)]
        );
    }

    #[test]
    fn a_new_start_forgets_what_comes_after_it() {
        let mut epochs = epochs(&[(3, 1), (7, 2), (8, 5)]);
        epochs.begin(Offset(7));
        assert_eq!(epochs.before(Offset(20)), Some(1));
        // The topic was recreated, so its offsets and its epochs begin at 0 again.
        epochs.begin(Offset(0));
        assert_eq!(epochs.before(Offset(20)), None);
    }

    #[test]
    fn only_the_last_epochs_are_kept() {
        let mut epochs = Epochs::default();
        for n in 0..1_000 {
            epochs.note(Offset(i64::from(n)), Some(n));
        }
        assert_eq!(epochs.first.len(), EPOCHS_MAX);
        assert_eq!(epochs.before(Offset(1_000)), Some(999));
        epochs.note(Offset(1_000), None);
        assert_eq!(epochs.before(Offset(1_001)), None);
    }
}
