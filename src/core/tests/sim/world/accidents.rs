//! Simulates faults of the log, of the tables and of the consumers.

use citystream_core::table_identity::TRUST_MS;

use super::World;
use crate::consumer::{Float, Request};

impl World {
    /// Removes records below the offset of the progress item, as Kafka's retention does. A delayed commit of a removed
    /// offset may still take effect later. The next worker must then start at the progress item.
    pub(super) fn retain(&mut self) {
        let partition = self.rng.below(self.partitions as usize);
        let log_key = self.durable.log_key(partition as i32);
        let Some(progress) = self.durable.progress.get(&log_key) else {
            return;
        };
        let start = self.durable.starts[partition];
        let next = progress.next.0 as usize;
        if next > start {
            let start = start + 1 + self.rng.below(next - start);
            self.durable.expire(partition as i32, start);
            self.seen.retained += 1;
        }
    }

    pub(super) fn remake_topic(&mut self) {
        if self.durable.topic + 1 < self.durable.logs.records.len() {
            self.durable.remake_topic();
            self.seen.remade_topics += 1;
        }
    }

    pub(super) fn add_partition(&mut self) {
        if (self.partitions as usize) < self.durable.logs.records[0].len() {
            self.partitions += 1;
            self.seen.added_partitions += 1;
        }
    }

    /// Deletes the tables and creates them again. The simulated time moves ahead by more than the time for which a
    /// consumer trusts the tables' id, and no consumer acts during this time. Requests without an answer fail, because
    /// their tables no longer exist.
    pub(super) fn remake_tables(&mut self) {
        let d = &mut self.durable;
        // Consumers can fill new tables only from complete logs. Therefore, the simulation replaces the tables only
        // while the first topic exists and all of its logs are complete.
        if d.topic > 0 || d.starts.iter().any(|start| *start > 0) {
            return;
        }
        d.remake_tables();
        self.seen.remade_tables += 1;
        self.floats.clear();
        self.now_ms += TRUST_MS + 1;
        for consumer in self.consumers.iter_mut().flatten() {
            for request in &mut consumer.requests {
                let sent = std::mem::replace(request, Request::CheckTopic);
                *request = match sent {
                    Request::Publish(publish) => Request::StalePublish(publish),
                    Request::Put(_)
                    | Request::Update(_)
                    | Request::Create(_)
                    | Request::Restore(_)
                    | Request::ReadTables => Request::Gone(Box::new(sent)),
                    sent => sent,
                };
            }
        }
    }

    /// Deletes the progress item of a partition, if the log of the partition is complete from its beginning.
    pub(super) fn delete_progress(&mut self) {
        let partition = self.rng.below(self.partitions as usize);
        if self.durable.starts[partition] == 0 && self.durable.delete_progress(partition as i32) {
            self.seen.deleted_progress += 1;
        }
    }

    /// Makes a consumer's Kafka client get stuck on one of the consumer's partitions.
    pub(super) fn stick(&mut self, who: usize) {
        let pick = self.rng.next() as usize;
        let c = self.consumer(who);
        if !c.reading.is_empty() {
            let at = c.reading.keys().nth(pick % c.reading.len());
            c.stuck.insert(*at.expect("not empty"));
        }
    }

    pub(super) fn crash(&mut self, who: usize) {
        let Some(c) = self.consumers[who].take() else {
            return;
        };
        self.seen.crashes += 1;
        for request in c.requests {
            if self.rng.one_in(2) {
                self.floats.extend(request.float());
            }
        }
    }

    pub(super) fn land_float(&mut self) -> Result<(), String> {
        let at = self.rng.below(self.floats.len());
        self.seen.landed_late += 1;
        match self.floats.swap_remove(at) {
            Float::Put(batch) => drop(self.durable.store(&batch, &[])?),
            Float::Update(update) => drop(self.durable.update(&update)),
            Float::Commit(parts) => {
                for part in &parts {
                    self.durable.commit(part)?;
                }
            }
            Float::Publish(publish) => drop(self.durable.publish(&publish)?),
        }
        Ok(())
    }
}
