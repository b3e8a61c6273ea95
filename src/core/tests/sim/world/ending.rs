//! Simulates the second phase of a run. In this phase, no faults occur, and the remaining consumers read the log to its
//! end.

use citystream_core::table_identity::READ_INTERVAL_MS;

use super::World;
use crate::consumer::{Consumer, Request};

/// Maximum number of rounds that the consumers may take to finish after the last fault.
const ROUNDS_MAX: usize = 3_000;

impl World {
    /// Checks that the tables equal the fold over the log, both before and after the delayed writes take effect.
    pub(super) fn ends_exact(&mut self) -> Result<(), String> {
        self.durable.compare(self.partitions)?;
        while !self.floats.is_empty() {
            self.land_float()?;
        }
        self.durable.compare(self.partitions)
    }

    /// Stops the faults, and lets the remaining consumers read the log to its end. Before that, some random consumers
    /// crash, and some continue as zombies. Another random number decides whether existing or new consumers own the
    /// partitions.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        for who in 0..self.consumers.len() {
            if self.rng.one_in(3) {
                self.crash(who);
            }
        }
        let owners = 1 + self.rng.below(3);
        let (fresh, replaces) = (Consumer::new(20), self.rng.one_in(2));
        let mut owner_of = Vec::new();
        for n in 0..owners {
            let who = n % self.consumers.len();
            if replaces {
                // The replaced consumer continues to run, next to the new consumer, until it has no work left.
                let old = self.consumers[who].replace(fresh.clone());
                self.consumers.push(old);
            } else if self.consumers[who].is_none() {
                self.consumers[who] = Some(fresh.clone());
            }
            owner_of.push(who);
        }
        self.finish(&owner_of)
    }

    /// Crashes every consumer, and divides the partitions among `resumed` new consumers. The requests of the crashed
    /// consumers may still take effect. At the end, the tables must equal the fold over the log.
    pub(crate) fn stop_and_resume(mut self, resumed: usize) -> Result<(), String> {
        for who in 0..self.consumers.len() {
            self.crash(who);
        }
        self.consumers = (0..resumed).map(|_| Some(Consumer::new(20))).collect();
        let owners: Vec<usize> = (0..resumed).collect();
        self.finish(&owners)?;
        self.ends_exact()
    }

    /// Makes every consumer read the id of its tables, as a real consumer does every few seconds. A consumer stops if
    /// its tables were replaced.
    fn look_at_tables(&mut self) -> Result<(), String> {
        self.now_ms += READ_INTERVAL_MS;
        for who in 0..self.consumers.len() {
            if self.consumers[who].is_none() {
                continue;
            }
            self.pump(who)?;
            let id = self.durable.tables_id();
            let boot_ms = self.boot_ms();
            if let Some(c) = &mut self.consumers[who] {
                c.requests.retain(|r| !matches!(r, Request::ReadTables));
                c.pipeline.tables_read(&id, boot_ms);
                self.pump(who)?;
            }
        }
        Ok(())
    }

    /// Divides the partitions among the consumers in `owners`, which read the partitions to the end.
    fn finish(&mut self, owners: &[usize]) -> Result<(), String> {
        self.faults = false;
        self.look_at_tables()?;
        for who in owners {
            self.consumers[*who].get_or_insert_with(|| Consumer::new(20));
        }
        let all: Vec<i32> = (0..self.partitions).collect();
        let owner_of = |partition: i32| owners[partition as usize % owners.len()];
        for &partition in &all {
            let owner = owner_of(partition);
            // A consumer that drains a revoked partition no longer owns it.
            let reads = self.consumer(owner).reading.contains_key(&partition);
            let kept = reads && self.rng.one_in(2);
            for other in (0..self.consumers.len()).filter(|other| *other != owner) {
                let silent = self.rng.one_in(4);
                if let Some(c) = &mut self.consumers[other]
                    && c.has(partition)
                    && !silent
                {
                    c.reading.remove(&partition);
                    c.pipeline.revoked(self.now_ms, &[partition], false, 500);
                }
            }
            if !kept {
                self.assign(owner, &[partition]);
            }
        }
        for _ in 0..ROUNDS_MAX {
            self.now_ms += 20;
            for who in 0..self.consumers.len() {
                self.deliver(who);
                self.pump(who)?;
                for _ in 0..8 {
                    self.answer(who)?;
                    self.pump(who)?;
                }
            }
            // The check ignores the group's committed offsets, because the last commit may come from a zombie. Such a
            // commit contains an older but valid restart point.
            let done = |p: &i32| {
                let end = self.durable.log(*p).len() as i64;
                let owner = self.consumers[owner_of(*p)].as_ref();
                let owner = owner.expect("an owner lives");
                let mut workers = owner.pipeline.workers();
                let worker = workers.find(|w| w.place().partition == *p);
                worker.is_some_and(|w| {
                    let told = owner.topics.get(&(*p, w.place().assignment));
                    w.durable().next.0 == end && told == Some(&self.durable.topic)
                })
            };
            if all.iter().all(done) {
                return Ok(());
            }
        }
        Err(format!("nobody finishes within {ROUNDS_MAX} rounds"))
    }
}
