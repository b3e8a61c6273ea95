//! Manages all partitions of one consumer, and makes every decision of the `consume` command.
//!
//! The code outside this crate that does the I/O for the pipeline is called the shell. The shell calls a method of
//! [`Pipeline`] for each event, such as new records, an answer or a rebalance, and passes the current time as `now_ms`.
//! Before the next call, the shell carries out all outputs that [`Pipeline::poll_output`] returns. For example, it
//! writes to the tables, commits offsets, and moves the read position of the Kafka client. The shell makes no
//! decisions, so a simulation can test the pipeline with any order of answers, losses and rebalances.
//!
//! A partition has three states:
//!
//! | state | begins with | ends with |
//! |---|---|---|
//! | starting | [`Pipeline::assigned`], or a restart of the partition | [`Pipeline::located`] |
//! | running | [`Output::Begin`] | [`Pipeline::revoked`], loss of the partition, or another topic id |
//! | draining | [`Pipeline::revoked`] | [`Output::Released`], when all records are durable or at the deadline |
//!
//! Invariants:
//!
//! - The pipeline commits only boundaries that [`Worker::durable`] returned (INV-1, INV-6).
//! - A worker takes records at contiguous offsets, except for confirmed gaps (see `intake`).
//! - The pipeline ignores answers to requests of an earlier assignment (INV-3).
//! - All state of an assignment ends with the assignment (INV-4).
//! - The pipeline counts the records that it drops at the end of an assignment as given up (INV-7).

mod commit;
mod intake;
mod output;
mod start;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::batch::{Batch, BatchOutcome, PutQueue};
use crate::clock::{BootMs, SteadyMs};
use crate::ledger::Ledger;
use crate::pace::{Concurrency, backoff_ms};
use crate::plan::{Put, PutTable, RowUpdate, Ticket, UpdateOutcome};
use crate::publication::Progress;
use crate::restart::Boundary;
use crate::stall::StallDetector;
use crate::table_identity::TableIdentity;
use crate::worker::{Tally, Worker, Write};

use intake::Intake;
pub use output::{CommitPart, Halt, Options, Output, Publish, Report, Tables};

/// Minimum time between two commits, in milliseconds.
pub const COMMIT_INTERVAL_MS: i64 = 1_000;
/// Time after which the pipeline repeats a failed lookup of a partition's start or a failed second read of a gap, in
/// milliseconds.
pub const LOCATE_AGAIN_MS: i64 = 1_000;

#[derive(Clone, Debug)]
struct Running {
    worker: Worker,
    topic_id: String,
    tables_id: String,
    /// The last committed boundary, or `None` if the group has no committed offset for the current log and tables.
    committed: Option<Boundary>,
    progress: Progress,
    /// The deadline of the drain, or `None` if the partition was not revoked.
    deadline_ms: Option<SteadyMs>,
    intake: Intake,
}

#[derive(Clone, Debug)]
enum SlotState {
    Starting { loss_told: bool },
    Running(Box<Running>),
}

#[derive(Clone, Debug)]
struct Slot {
    assignment: u64,
    state: SlotState,
}

/// The state of all partitions of one consumer.
#[derive(Clone, Debug)]
pub struct Pipeline {
    options: Options,
    slots: BTreeMap<i32, Slot>,
    next_assignment: u64,
    raw: PutQueue,
    alerts: PutQueue,
    updates: Concurrency,
    outputs: VecDeque<Output>,
    writes: Vec<Write>,
    identity: TableIdentity,
    /// True while writes to the tables are paused.
    held: bool,
    /// True once the pipeline has stopped writing to the tables for good.
    halted: bool,
    /// Requests to advance progress items. The next call of `pump` outputs them, or drops them if writes to the tables
    /// are paused.
    publishes: Vec<Publish>,
    /// The progress items that do not exist, each with the time at which the pipeline learned that the item is missing.
    missing: Vec<(BootMs, Publish)>,
    stalls: StallDetector,
    /// True if the most recent write to the tables failed.
    writes_fail: bool,
    /// The pending commit. The pending commit waits for the check of the topic id, and then for Kafka's answer.
    commit: Option<Vec<CommitPart>>,
    last_commit_ms: SteadyMs,
    /// The partition that currently has its turn to send row updates, and the time at which this turn started.
    turn: (i32, SteadyMs),
    ledger: Ledger,
    tally: Tally,
}

impl Pipeline {
    /// Returns a new pipeline without partitions.
    pub fn new(options: Options) -> Pipeline {
        let concurrency = || Concurrency::new(options.requests_max.min(8), options.requests_max);
        Pipeline {
            raw: PutQueue::new(PutTable::Raw, concurrency()),
            alerts: PutQueue::new(PutTable::Alerts, concurrency()),
            updates: concurrency(),
            stalls: StallDetector::new(options.stall_ms),
            options,
            slots: BTreeMap::new(),
            next_assignment: 1,
            outputs: VecDeque::new(),
            writes: Vec::new(),
            identity: TableIdentity::default(),
            held: false,
            halted: false,
            publishes: Vec::new(),
            missing: Vec::new(),
            writes_fail: false,
            commit: None,
            last_commit_ms: SteadyMs::MIN,
            turn: (0, SteadyMs::MIN),
            ledger: Ledger::default(),
            tally: Tally::default(),
        }
    }

    /// Returns the next output that the shell must carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns true if `assignment` is the current assignment of the partition.
    pub fn has(&self, partition: i32, assignment: u64) -> bool {
        let slot = self.slots.get(&partition);
        slot.is_some_and(|slot| slot.assignment == assignment)
    }

    /// Moves the puts and dead letters that the workers have returned to the put queues and to the outputs.
    fn send_writes(&mut self, now_ms: SteadyMs) {
        for write in self.writes.drain(..) {
            match write {
                Write::Put(PutTable::Raw, put) => self.raw.push(now_ms, put),
                Write::Put(PutTable::Alerts, put) => self.alerts.push(now_ms, put),
                Write::Reject(ticket, rejected) => {
                    self.outputs.push_back(Output::Reject(ticket, rejected));
                }
            }
        }
    }

    fn running(&mut self, partition: i32, assignment: u64) -> Option<&mut Running> {
        let slot = self.slots.get_mut(&partition)?;
        if slot.assignment != assignment {
            return None;
        }
        match &mut slot.state {
            SlotState::Running(running) => Some(running),
            SlotState::Starting { .. } => None,
        }
    }

    /// Revokes partitions. A running partition drains for at most `drain_ms_max` milliseconds. If `lost` is true, the
    /// partitions end without a drain, because another consumer may already own them. When the assignment of a
    /// partition ends, the pipeline outputs [`Output::Released`].
    pub fn revoked(&mut self, now_ms: SteadyMs, partitions: &[i32], lost: bool, drain_ms_max: i64) {
        for &partition in partitions {
            match self.slots.get_mut(&partition).map(|slot| &mut slot.state) {
                Some(SlotState::Running(running)) if !lost && !self.halted => {
                    // If a partition is revoked twice, the earlier deadline applies.
                    let deadline_ms = now_ms.saturating_add(drain_ms_max);
                    let earlier = running.deadline_ms.unwrap_or(deadline_ms);
                    running.deadline_ms = Some(deadline_ms.min(earlier));
                    running.worker.drain(now_ms);
                    self.tally.bytes_freed += running.close_intake();
                }
                _ => self.give_up(partition),
            }
        }
    }

    /// Releases a partition without a commit of its restart point.
    fn give_up(&mut self, partition: i32) {
        self.drop_slot(partition);
        self.outputs.push_back(Output::Released {
            partition,
            commit: None,
            publish: None,
        });
    }

    /// Removes a partition's assignment and all state of this assignment.
    fn drop_slot(&mut self, partition: i32) {
        self.collect(partition);
        let Some(slot) = self.slots.remove(&partition) else {
            return;
        };
        self.stalls.revoked(partition);
        if let SlotState::Running(mut running) = slot.state {
            self.tally.bytes_freed += running.close_intake();
            self.ledger.given_up += running.worker.in_flight() as u64;
            self.tally.bytes_freed += running.worker.bytes();
            let live = |put: &Put| put.ticket.partition != partition;
            self.raw.retain(live);
            self.alerts.retain(live);
        }
    }

    fn is_draining(&self, partition: i32) -> bool {
        matches!(
            self.slots.get(&partition).map(|s| &s.state),
            Some(SlotState::Running(r)) if r.deadline_ms.is_some()
        )
    }

    /// Processes the outcome of a batch of puts.
    pub fn batch_answered(
        &mut self,
        now_ms: SteadyMs,
        batch: Batch,
        outcome: &BatchOutcome,
        chance: u32,
    ) {
        self.writes_fail = !matches!(outcome, BatchOutcome::Stored { .. } | BatchOutcome::Invalid);
        let table = batch.table;
        let queue = match table {
            PutTable::Raw => &mut self.raw,
            PutTable::Alerts => &mut self.alerts,
        };
        let slots = &self.slots;
        // The queue does not retry puts of an assignment that has ended.
        let live = |put: &Put| {
            let slot = slots.get(&put.ticket.partition);
            slot.is_some_and(|slot| slot.assignment == put.ticket.assignment)
        };
        let settled = queue.answered(now_ms, batch, outcome, chance, live);
        for put in settled.stored {
            self.put_done(table, put.ticket);
        }
        if let Some(put) = settled.refused {
            self.outputs.push_back(Output::Refused(table, put));
        }
    }

    fn put_done(&mut self, table: PutTable, ticket: Ticket) {
        if let Some(running) = self.running(ticket.partition, ticket.assignment) {
            running.worker.put_done(table, ticket.seq);
        }
    }

    /// Processes the outcome of a row update.
    pub fn update_answered(
        &mut self,
        now_ms: SteadyMs,
        update: &RowUpdate,
        outcome: UpdateOutcome,
        chance: u32,
    ) {
        self.writes_fail = matches!(outcome, UpdateOutcome::Unknown | UpdateOutcome::Refused);
        self.updates.answered(outcome == UpdateOutcome::Refused);
        if let Some(running) = self.running(update.partition, update.assignment) {
            let wait_ms = |attempts| backoff_ms(attempts, chance);
            running
                .worker
                .update_done(now_ms, update.row_id, outcome, wait_ms);
        }
    }

    /// Notes that the dead-letter topic acknowledged a record.
    pub fn reject_done(&mut self, ticket: Ticket) {
        if let Some(running) = self.running(ticket.partition, ticket.assignment) {
            running.worker.reject_done(ticket.seq);
        }
    }

    /// Notes that the dead-letter topic acknowledged a record whose item the table refused. The rows still count the
    /// event of this record.
    pub fn refused_done(&mut self, table: PutTable, ticket: Ticket) {
        self.put_done(table, ticket);
    }

    /// Advances the pipeline to the time `now_ms`, and queues all outputs that are due then. An output stays back while
    /// the limit on requests in flight is reached.
    pub fn pump(&mut self, now_ms: SteadyMs, boot_ms: BootMs) {
        self.watch_tables(boot_ms);
        if !self.held {
            while let Some(batch) = self.raw.next_batch(now_ms) {
                self.outputs.push_back(Output::Put(batch));
            }
            while let Some(batch) = self.alerts.next_batch(now_ms) {
                self.outputs.push_back(Output::Put(batch));
            }
            self.pump_updates(now_ms);
        }
        self.pump_ends(now_ms);
        self.pump_commit(now_ms);
        self.pump_idle(now_ms);
        self.pump_publishes();
    }

    /// Sends row updates, one partition at a time. The turn of a partition ends when all rows that were due at its
    /// start are sent, so that every partition gets a turn. Draining partitions are first. The alternative was to send
    /// the rows of all partitions in the order of their due times. That order kept twice as many records in memory, for
    /// the same number of events per update.
    fn pump_updates(&mut self, now_ms: SteadyMs) {
        for slot in self.slots.values_mut() {
            let SlotState::Running(running) = &mut slot.state else {
                continue;
            };
            while running.deadline_ms.is_some() && self.updates.has_room() {
                let Some(update) = running.worker.next_update(now_ms, now_ms) else {
                    break;
                };
                self.updates.sent();
                self.outputs.push_back(Output::Update(update));
            }
        }
        let mut passed = 0;
        // The loop may reach the first partition a second time, because more of its rows may have become due since its
        // turn began.
        while self.updates.has_room() && passed <= self.slots.len() {
            let (turn, began_ms) = self.turn;
            let update = match self.slots.get_mut(&turn).map(|slot| &mut slot.state) {
                Some(SlotState::Running(running)) => running.worker.next_update(now_ms, began_ms),
                _ => None,
            };
            if let Some(update) = update {
                passed = 0;
                self.updates.sent();
                self.outputs.push_back(Output::Update(update));
                continue;
            }
            passed += 1;
            let mut after = self.slots.range((Excluded(turn), Unbounded));
            let next = after.next().or_else(|| self.slots.first_key_value());
            self.turn = (next.map_or(turn, |(partition, _)| *partition), now_ms);
        }
    }

    /// Ends each drain that is complete or past its deadline. Restarts each partition that cannot continue at its read
    /// position.
    fn pump_ends(&mut self, now_ms: SteadyMs) {
        let mut done = Vec::new();
        let mut again = Vec::new();
        for (&partition, slot) in &self.slots {
            let SlotState::Running(running) = &slot.state else {
                continue;
            };
            let empty = running.worker.in_flight() == 0;
            if running
                .deadline_ms
                .is_some_and(|deadline| empty || deadline <= now_ms)
            {
                done.push(partition);
            } else if running.is_closed() && empty && running.uncommitted().is_none() {
                again.push(partition);
            }
        }
        for partition in done {
            let (mut commit, mut publish) = (None, None);
            if let Some(slot) = self.slots.get(&partition)
                && let SlotState::Running(running) = &slot.state
            {
                commit = running.commit_part(partition, slot.assignment);
                let durable = running.worker.durable();
                publish = running
                    .publish(durable, true, now_ms)
                    .filter(|_| !self.held);
            }
            self.drop_slot(partition);
            self.outputs.push_back(Output::Released {
                partition,
                commit,
                publish,
            });
        }
        for partition in again {
            self.restart(now_ms, partition);
        }
    }

    /// Returns the time at which the shell should call [`Pipeline::pump`] again, or `None` if no work is scheduled.
    pub fn next_ms(&self) -> Option<SteadyMs> {
        let puts = [self.raw.next_ms(), self.alerts.next_ms()].into_iter();
        let mut next = puts.flatten().min().filter(|_| !self.held);
        let mut at = |ms: SteadyMs| next = Some(next.map_or(ms, |n: SteadyMs| n.min(ms)));
        for slot in self.slots.values() {
            let SlotState::Running(running) = &slot.state else {
                continue;
            };
            if !self.held
                && self.updates.has_room()
                && let Some(ms) = running.worker.next_ms()
            {
                at(ms);
            }
            if let Some(ms) = running.idle_ms() {
                at(ms);
            }
            if let Some(ms) = running.deadline_ms {
                at(ms);
            }
            if self.commit.is_none() && running.uncommitted().is_some() {
                at(self.next_commit_ms());
            }
        }
        next
    }

    fn collect(&mut self, partition: i32) {
        let Some(SlotState::Running(running)) =
            self.slots.get_mut(&partition).map(|s| &mut s.state)
        else {
            return;
        };
        let tally = running.worker.take_tally();
        let l = &mut self.ledger;
        l.consumed += tally.ledger.consumed;
        l.counted += tally.ledger.counted;
        l.late += tally.ledger.late;
        l.already_counted += tally.ledger.already_counted;
        l.heartbeats += tally.ledger.heartbeats;
        for (mine, new) in l.rejected.iter_mut().zip(tally.ledger.rejected) {
            *mine += new;
        }
        let t = &mut self.tally;
        t.future += tally.future;
        t.alerts[0] += tally.alerts[0];
        t.alerts[1] += tally.alerts[1];
        t.fence_conflicts += tally.fence_conflicts;
        t.gaps_real += tally.gaps_real;
        t.gaps_skipped += tally.gaps_skipped;
        t.durable_ms.extend(tally.durable_ms);
        t.bytes_taken += tally.bytes_taken;
        t.bytes_freed += tally.bytes_freed;
    }

    /// Returns the ledger since the start of the pipeline, and the other counts since the last report. The ledger
    /// always balances (INV-7).
    pub fn report(&mut self) -> Report {
        let all: Vec<i32> = self.slots.keys().copied().collect();
        for partition in all {
            self.collect(partition);
        }
        self.ledger.in_flight = self.in_flight() as u64;
        debug_assert!(self.ledger.balances(), "INV-7: {:?}", self.ledger);
        Report {
            ledger: self.ledger.clone(),
            tally: std::mem::take(&mut self.tally),
        }
    }

    /// Frees memory by dropping rows that have nothing to write and only wait for the end of their update interval. If
    /// these idle rows filled the memory, the consumer could not read records until a long interval ends. If a dropped
    /// row gets new records, the worker writes the row before its interval is over.
    pub fn make_room(&mut self) {
        for slot in self.slots.values_mut() {
            if let SlotState::Running(running) = &mut slot.state {
                running.worker.free_idle_rows();
            }
        }
    }

    /// Returns the number of records that are not yet durable.
    pub fn in_flight(&self) -> usize {
        self.workers().map(Worker::in_flight).sum()
    }

    /// Returns the workers of all running partitions.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.values().filter_map(|slot| match &slot.state {
            SlotState::Running(running) => Some(&running.worker),
            SlotState::Starting { .. } => None,
        })
    }

    /// Returns all partitions of the pipeline, including starting partitions.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.slots.keys().copied()
    }
}

#[cfg(test)]
mod tests;
