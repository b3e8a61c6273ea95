//! Commits offsets and advances progress items, and never beyond the durable records. Before each commit, the pipeline
//! requests the topic's id from Kafka.

use std::sync::Arc;

use super::{COMMIT_INTERVAL_MS, CommitPart, Output, Pipeline, Publish, Running, SlotState};
use crate::clock::SteadyMs;
use crate::restart::{Boundary, Metadata};

impl Pipeline {
    /// Processes the topic id that the pipeline requested before a commit. `topic_id` is `None` if Kafka did not return
    /// an id.
    pub fn topic_checked(&mut self, now_ms: SteadyMs, topic_id: Option<&str>) {
        let Some(parts) = self.commit.take() else {
            return;
        };
        let Some(topic_id) = topic_id else {
            return;
        };
        self.topic_seen(now_ms, topic_id);
        let parts: Vec<CommitPart> = parts
            .into_iter()
            .filter(|part| self.running(part.partition, part.assignment).is_some())
            .collect();
        if !parts.is_empty() {
            self.commit = Some(parts.clone());
            self.outputs.push_back(Output::Commit(parts));
        }
    }

    /// Processes the answer to a commit. `taken` is true if Kafka accepted the commit.
    pub fn commit_done(&mut self, now_ms: SteadyMs, taken: bool) {
        let Some(parts) = self.commit.take() else {
            return;
        };
        if !taken {
            return;
        }
        for part in parts {
            let Some(running) = self.running(part.partition, part.assignment) else {
                continue;
            };
            running.committed = Some(part.boundary);
            if let Some(publish) = running.publish(part.boundary, false, now_ms) {
                running.progress.asked(now_ms);
                self.publishes.push(publish);
            }
        }
    }

    /// Notes that the progress item now contains the restart point of `publish` or a later one.
    pub fn published(&mut self, now_ms: SteadyMs, publish: &Publish) {
        if let Some(running) = self.running(publish.partition, publish.assignment) {
            running.progress.published(publish.boundary, now_ms);
        }
    }

    /// Notes that an attempt to advance a progress item has failed, or that the outcome of the attempt is unknown.
    pub fn publish_failed(&mut self, now_ms: SteadyMs, publish: &Publish) {
        if let Some(running) = self.running(publish.partition, publish.assignment) {
            running.progress.failed(publish.boundary, now_ms);
        }
    }

    pub(super) fn pump_commit(&mut self, now_ms: SteadyMs) {
        if self.commit.is_some() || now_ms < self.next_commit_ms() {
            return;
        }
        let parts: Vec<CommitPart> = self
            .slots
            .iter()
            .filter_map(|(partition, slot)| match &slot.state {
                SlotState::Running(running) => running.commit_part(*partition, slot.assignment),
                SlotState::Starting { .. } => None,
            })
            .collect();
        if !parts.is_empty() {
            self.last_commit_ms = now_ms;
            self.commit = Some(parts);
            self.outputs.push_back(Output::CheckTopic);
        }
    }

    /// Publishes the committed restart point of partitions that get no new records, if the last publication has failed
    /// or contains older sums.
    pub(super) fn pump_idle(&mut self, now_ms: SteadyMs) {
        for slot in self.slots.values_mut() {
            if let SlotState::Running(running) = &mut slot.state
                && running.idle_ms().is_some_and(|ms| ms <= now_ms)
                && let Some(committed) = running.committed
                && let Some(publish) = running.publish(committed, false, now_ms)
            {
                running.progress.asked(now_ms);
                self.publishes.push(publish);
            }
        }
    }

    /// Outputs the due requests to advance progress items. While writes to the tables are paused, the tables may have
    /// been replaced by new ones that lack the records below the restart point. The pipeline then drops these requests,
    /// and outputs a request again after the next commit.
    pub(super) fn pump_publishes(&mut self) {
        let publishes = self.publishes.drain(..).filter(|_| !self.held);
        self.outputs.extend(publishes.map(Output::Publish));
    }

    pub(super) fn next_commit_ms(&self) -> SteadyMs {
        self.last_commit_ms.saturating_add(COMMIT_INTERVAL_MS)
    }
}

impl Running {
    pub(super) fn uncommitted(&self) -> Option<Boundary> {
        let durable = self.worker.durable();
        let moved = self.committed.is_none_or(|c| durable.next > c.next);
        moved.then_some(durable)
    }

    pub(super) fn commit_part(&self, partition: i32, assignment: u64) -> Option<CommitPart> {
        let boundary = self.uncommitted()?;
        let metadata = Metadata {
            topic_id: self.topic_id.clone(),
            tables_id: self.tables_id.clone(),
            max: boundary.max,
            sums: boundary.sums,
        };
        Some(CommitPart {
            partition,
            assignment,
            boundary,
            metadata: metadata.format(),
        })
    }

    /// Returns the time at which the last committed restart point must be published if no other commit follows.
    pub(super) fn idle_ms(&self) -> Option<SteadyMs> {
        let committed = self.committed.filter(|_| self.deadline_ms.is_none())?;
        self.progress.idle_ms(committed)
    }

    pub(super) fn publish(
        &self,
        committed: Boundary,
        leaving: bool,
        now_ms: SteadyMs,
    ) -> Option<Publish> {
        let place = self.worker.place();
        let due = self
            .progress
            .is_due(committed, &place.rules, leaving, now_ms);
        due.then(|| Publish {
            partition: place.partition,
            assignment: place.assignment,
            log_key: Arc::clone(&place.log_key),
            tables_id: self.tables_id.clone(),
            boundary: committed,
            watermark_ms: committed.max.watermark_ms(&place.rules),
        })
    }
}
