//! Tracks each revoke until the revoked partitions have drained.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;

use crate::core::pipeline::CommitPart;

/// All revokes that wait for partitions to drain.
#[derive(Default)]
pub(super) struct Revokes {
    waiting: Vec<Revoke>,
}

struct Revoke {
    partitions: BTreeSet<i32>,
    parts: Vec<CommitPart>,
    /// The channel through which the consumer thread gets the restart points. The consumer thread waits for them in
    /// librdkafka's rebalance callback. The field is `None` for the drain during shutdown, because no callback waits.
    answer: Option<Sender<Vec<CommitPart>>>,
}

impl Revokes {
    /// Adds a revoke of `partitions`. After the partitions have drained, their restart points go to the channel
    /// `answer`. If `answer` is `None`, [`Revokes::take_parts`] returns the restart points.
    pub(super) fn add(&mut self, partitions: &[i32], answer: Option<Sender<Vec<CommitPart>>>) {
        self.waiting.push(Revoke {
            partitions: partitions.iter().copied().collect(),
            parts: Vec::new(),
            answer,
        });
    }

    /// Removes a released partition from all pending revokes. Adds the partition's restart point to each revoke that
    /// contained the partition.
    ///
    /// The pipeline releases a partition only once, even if several revokes wait for this partition. Several revokes
    /// wait for a partition if the group rebalances while the consumer drains before its exit. Therefore, each of these
    /// revokes gets the restart point of the partition. A second commit of the same restart point changes nothing.
    pub(super) fn release(&mut self, partition: i32, commit: Option<&CommitPart>) {
        for revoke in &mut self.waiting {
            if revoke.partitions.remove(&partition) {
                revoke.parts.extend(commit.cloned());
            }
        }
        self.waiting.retain_mut(|revoke| {
            if !revoke.partitions.is_empty() {
                return true;
            }
            let Some(answer) = &revoke.answer else {
                return true;
            };
            if answer.send(std::mem::take(&mut revoke.parts)).is_err() {
                tracing::debug!("a drain took longer than the rebalance callback waits");
            }
            false
        });
    }

    /// Returns true if the pipeline has released all partitions of all revokes.
    pub(super) fn are_done(&self) -> bool {
        self.waiting.iter().all(|r| r.partitions.is_empty())
    }

    /// Removes the revokes that have no answer channel, and returns their restart points.
    pub(super) fn take_parts(&mut self) -> Vec<CommitPart> {
        self.waiting.drain(..).flat_map(|r| r.parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Offset;
    use crate::core::restart::Boundary;

    fn part(partition: i32) -> CommitPart {
        CommitPart {
            partition,
            assignment: 1,
            boundary: Boundary::begin(Offset(7)),
            metadata: String::new(),
        }
    }

    #[test]
    fn a_revoke_is_answered_once_its_last_partition_is_released() {
        let (answer, answered) = std::sync::mpsc::channel();
        let mut revokes = Revokes::default();
        revokes.add(&[0, 1], Some(answer));
        revokes.release(0, Some(&part(0)));
        assert!(answered.try_recv().is_err() && !revokes.are_done());
        revokes.release(1, None);
        assert_eq!(answered.try_recv().expect("answered"), [part(0)]);
        assert!(revokes.are_done());
    }

    #[test]
    fn a_revoke_during_the_drain_at_the_end_gets_the_same_restart_point() {
        let (answer, answered) = std::sync::mpsc::channel();
        let mut revokes = Revokes::default();
        revokes.add(&[0, 1], None);
        revokes.add(&[1], Some(answer));
        revokes.release(1, Some(&part(1)));
        assert_eq!(answered.try_recv().expect("answered"), [part(1)]);
        revokes.release(0, Some(&part(0)));
        assert!(revokes.are_done());
        assert_eq!(revokes.take_parts(), [part(1), part(0)]);
    }
}
